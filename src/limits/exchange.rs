//! One request and its answer, counted against the limits from its first byte to its last.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;
use tower::Service;

use super::connections::{ConnectionPlace, Turn};
use super::handshake::Remote;
use super::{AT_LIMIT, Guard};
use crate::telemetry::metrics::limits::{Limit, Listener};

type BoxError = Box<dyn Error + Send + Sync>;

/// A service behind the limits, for one connection.
#[derive(Clone)]
pub(super) struct Exchange<S> {
    pub(super) inner: S,
    pub(super) place: Arc<ConnectionPlace>,
    pub(super) guard: Arc<Guard>,
    pub(super) peer: Arc<Remote>,
}

/// A request's body. What was read of it counts until all of it is read and taken apart.
struct Metered<B> {
    inner: B,
    budget: Arc<Semaphore>,
    guard: Arc<Guard>,
    held: Option<OwnedSemaphorePermit>,
}

/// What an answer takes until it is sent: put it among the answer's extensions. Its reader has as long as any reader
/// has to take something, and loses its connection then.
#[derive(Clone, Debug)]
pub struct Hold {
    _room: Arc<OwnedSemaphorePermit>,
}

/// An answer's body, with what its request holds.
struct Held<B> {
    inner: B,
    _turn: Turn,
    _place_among_all: OwnedSemaphorePermit,
    _hold: Option<(Hold, DropGuard)>,
}

// === impl Hold ===

impl Hold {
    /// Of this room.
    pub fn new(room: OwnedSemaphorePermit) -> Self {
        Self { _room: Arc::new(room) }
    }
}

// === impl Exchange ===

impl<S, B, A> Service<Request<B>> for Exchange<S>
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
    S: Service<Request<Body>, Response = Response<A>, Error = Infallible>,
    S::Future: Send + 'static,
    A: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    A::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let guard = self.guard.clone();
        let turn = self.place.begin(guard.clock.clone());
        let (path, kinds) = (request.uri().path(), guard.kinds);
        let (is_probe, is_metered) = ((kinds.is_probe)(path), (kinds.is_metered)(path));
        if self.place.is_beyond && !is_probe {
            return refuse(&guard, turn, Limit::Connections);
        }
        let Ok(permit) = guard.requests.clone().try_acquire_owned() else {
            return refuse(&guard, turn, Limit::Requests);
        };
        request.extensions_mut().insert(self.peer.clone());
        request.extensions_mut().insert(self.place.newcomer());
        let request = request.map(|inner| match is_metered {
            true => {
                Body::new(Metered { inner, budget: guard.bytes.clone(), guard: guard.clone(), held: None })
            }
            false => Body::new(inner),
        });
        let (answer, place) = (self.inner.call(request), self.place.clone());
        Box::pin(async move {
            let mut answer = answer.await?;
            let hold = answer.extensions_mut().remove::<Hold>();
            let hold = hold.map(|hold| (hold, send_in_time(place, guard.bounds.write)));
            Ok(answer
                .map(|inner| Body::new(Held { inner, _turn: turn, _place_among_all: permit, _hold: hold })))
        })
    }
}

/// Closes the connection unless the guard is dropped in time.
fn send_in_time(place: Arc<ConnectionPlace>, timeout: Duration) -> DropGuard {
    let sent = CancellationToken::new();
    let is_sent = sent.clone();
    tokio::spawn(async move {
        let in_time = tokio::time::timeout(timeout, is_sent.cancelled()).await;
        if in_time.is_err() {
            place.close.cancel();
        }
    });
    sent.drop_guard()
}

type ServiceAnswer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

fn refuse(guard: &Guard, turn: Turn, limit: Limit) -> ServiceAnswer {
    guard.reached(limit);
    let answer = match guard.bounds.listener {
        Listener::Grpc => Status::resource_exhausted(AT_LIMIT).into_http(),
        Listener::Http => {
            let mut answer = Response::new(Body::from(format!("{AT_LIMIT}\n")));
            *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            answer
        }
    };
    Box::pin(async move {
        drop(turn);
        Ok(answer)
    })
}

// === impl Metered ===

impl<B> HttpBody for Metered<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(frame) = ready!(Pin::new(&mut self.inner).poll_frame(cx)) else { return Poll::Ready(None) };
        let frame = frame.map_err(Into::into)?;
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        let Ok(taken) = self.budget.clone().try_acquire_many_owned(u32::try_from(bytes).unwrap_or(u32::MAX))
        else {
            self.guard.reached(Limit::Bytes);
            let why = "this node is at its limit of request bytes; try again a little later";
            return Poll::Ready(Some(Err(Status::resource_exhausted(why).into())));
        };
        match &mut self.held {
            Some(held) => held.merge(taken),
            none => *none = Some(taken),
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

// === impl Held ===

impl<B> HttpBody for Held<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
