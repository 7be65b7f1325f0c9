//! Lets a request through only if its caller may see what it asks for.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::api::auth::{Denied, Gate};

/// 401 to those whom nobody knows. Every role may read, so nobody else is refused here.
pub(super) async fn check(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    match gate.admit(&request) {
        Ok(_) => next.run(request).await,
        Err(Denied::Unauthenticated(why)) => {
            (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], why + "\n").into_response()
        }
        Err(Denied::PermissionDenied(why)) => (StatusCode::FORBIDDEN, why + "\n").into_response(),
        Err(busy @ Denied::Overloaded) => {
            (StatusCode::SERVICE_UNAVAILABLE, [(header::CONNECTION, "close")], format!("{busy}\n"))
                .into_response()
        }
    }
}
