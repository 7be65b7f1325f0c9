//! Lets a request through only if its caller may see what it asks for.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::api::auth::{self, Denied, Gate};
use crate::limits::Remote;

/// 401 to those whom nobody knows, 403 to those who may not.
pub(super) async fn check(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let path = Uri::path(request.uri());
    let peer = request.extensions().get::<Arc<Remote>>();
    match gate.admit(path, auth::of_path(path), peer, request.headers()) {
        Ok(_) => next.run(request).await,
        Err(Denied::Unknown(why)) => {
            (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], why + "\n").into_response()
        }
        Err(Denied::Forbidden(why)) => (StatusCode::FORBIDDEN, why + "\n").into_response(),
    }
}
