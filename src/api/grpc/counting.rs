//! Counts every call: when it begins, and when its status is known, which for a stream is at its end.
//!
//! A layer around all services. Per call it costs a look into a table and a few atomic additions; it allocates
//! nothing. The status is in the answer's header when there is no body, else in the trailer after it; a call whose
//! end never comes, because the caller goes away or its time is over, counts as `Canceled`.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use tower::{Layer, Service};

use super::methods::Methods;
use crate::clock::{Clock, Instant};
use crate::telemetry::metrics::grpc::{CANCELED, MethodMetrics, UNKNOWN};

/// Counts what goes through.
#[derive(Clone)]
pub(super) struct Counting {
    pub(super) methods: Methods,
    pub(super) clock: Arc<dyn Clock>,
}

/// A service whose calls are counted.
#[derive(Clone)]
pub(super) struct Counted<S> {
    inner: S,
    counting: Counting,
}

/// A call that has not been answered.
pub(super) struct Answer<F> {
    inner: F,
    call: Option<Call>,
}

/// The rest of an answer.
pub(super) struct Rest<B> {
    inner: B,
    call: Call,
}

/// A call under way. Its end is counted once, at the latest when this is dropped.
struct Call {
    method: Arc<MethodMetrics>,
    clock: Arc<dyn Clock>,
    began: Instant,
    is_over: bool,
}

// === impl Counting ===

impl<S> Layer<S> for Counting {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner, counting: self.clone() }
    }
}

// === impl Counted ===

impl<S, A, B> Service<Request<A>> for Counted<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Unpin,
{
    type Response = Response<Rest<B>>;
    type Error = S::Error;
    type Future = Answer<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let method = self.counting.methods.at(request.uri().path());
        method.started();
        let clock = self.counting.clock.clone();
        let call = Call { method, began: clock.now(), clock, is_over: false };
        Answer { inner: self.inner.call(request), call: Some(call) }
    }
}

// === impl Answer ===

impl<F, B, E> Future for Answer<F>
where
    F: Future<Output = Result<Response<B>, E>> + Unpin,
{
    type Output = Result<Response<Rest<B>>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.inner).poll(cx));
        let Some(mut call) = self.call.take() else { return Poll::Pending }; // polled after its end
        Poll::Ready(match answer {
            Ok(answer) => {
                call.look_for_status(answer.headers());
                Ok(answer.map(|inner| Rest { inner, call }))
            }
            Err(e) => {
                call.end(UNKNOWN);
                Err(e)
            }
        })
    }
}

// === impl Rest ===

impl<B: Body + Unpin> Body for Rest<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.call.look_for_status(trailers);
                }
            }
            Some(Err(_)) => self.call.end(UNKNOWN),
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

// === impl Call ===

impl Call {
    fn look_for_status(&mut self, headers: &HeaderMap) {
        if let Some(status) = headers.get("grpc-status") {
            self.end(status.to_str().ok().and_then(|s| s.parse().ok()).unwrap_or(UNKNOWN));
        }
    }

    fn end(&mut self, code: usize) {
        if !std::mem::replace(&mut self.is_over, true) {
            self.method.handled(code, self.clock.now().since(self.began));
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(CANCELED);
    }
}
