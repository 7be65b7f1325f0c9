//! Lets a call through only if its caller may make it. A handler finds the [`Caller`] among the request's extensions.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::http::{Request, Response};
use futures_util::future::Either;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::refuse::because;
use crate::api::auth::{Caller, Denied, Gate};

/// Puts the gate in front of a service.
#[derive(Clone)]
pub(super) struct Authorize(pub(super) Arc<Gate>);

/// A service behind it.
#[derive(Clone)]
pub(super) struct Authorizing<S> {
    inner: S,
    gate: Arc<Gate>,
}

/// The caller of this request.
///
/// # Errors
/// There is none: a fault of ours.
pub(super) fn caller<T>(request: &tonic::Request<T>) -> Result<Caller, Status> {
    request
        .extensions()
        .get::<Caller>()
        .cloned()
        .ok_or_else(|| Status::internal("the caller was not looked at"))
}

/// As a status.
pub(super) fn refusal(denied: &Denied) -> Status {
    match denied {
        Denied::Unauthenticated(why) => because(Code::Unauthenticated, "UNAUTHENTICATED", why, []),
        Denied::PermissionDenied(why) => because(Code::PermissionDenied, "PERMISSION_DENIED", why, []),
        Denied::Overloaded => because(Code::ResourceExhausted, "OVERLOADED", denied.to_string(), []),
    }
}

// === impl Authorize ===

impl<S> Layer<S> for Authorize {
    type Service = Authorizing<S>;

    fn layer(&self, inner: S) -> Authorizing<S> {
        Authorizing { inner, gate: self.0.clone() }
    }
}

// === impl Authorizing ===

impl<S, B> Service<Request<B>> for Authorizing<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<Ready<Result<Response<Body>, Infallible>>, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        match self.gate.admit(&request) {
            Ok(caller) => {
                if let Some(caller) = caller {
                    request.extensions_mut().insert(caller);
                }
                Either::Right(self.inner.call(request))
            }
            Err(denied) => Either::Left(ready(Ok(refusal(&denied).into_http()))),
        }
    }
}
