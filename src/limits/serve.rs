//! Accepts connections and serves them, each within the limits.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Request, Response};
use http_body::Body as HttpBody;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::connections::{ConnectionPlace, IdleCheck};
use super::descriptors::is_exhausted;
use super::exchange::Exchange;
use super::handshake::{Transport, shake_hands};
use super::{Bounds, Guard};
use crate::telemetry::metrics::limits::{Limit, Listener};
use crate::tls::server::ServerTls;

/// How long nothing is accepted when there are no descriptors: a connection has to end first.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);
/// How often a connection without traffic is asked for a sign of life, and how long it may take to give one: a
/// client that stands still, or whose machine is gone, keeps nothing open.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));
/// How much of one stream, and of one connection, may wait to be read.
const WINDOWS: (u32, u32) = (256 * 1024, 512 * 1024);
/// How much of one stream may wait to be sent.
const SEND_BUFFER: usize = 256 * 1024;
/// How many streams that a client has reset may wait to be forgotten.
const RESETS_MAX: usize = 20;
/// The largest headers, in bytes.
const HEADERS_MAX: (u32, usize) = (16 * 1024, 32 * 1024);

/// A connection that was let in.
struct Entry {
    stream: TcpStream,
    address: IpAddr,
    tls: Option<ServerTls>,
    place: Arc<ConnectionPlace>,
    guard: Arc<Guard>,
}

/// Serves until `stop` resolves, then lets running requests end.
pub async fn serve<S, A>(
    listener: TcpListener,
    service: S,
    guard: Arc<Guard>,
    tls: Option<ServerTls>,
    stop: impl Future<Output = ()>,
) where
    S: Service<Request<Body>, Response = Response<A>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    A: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    A::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let http = builder(&guard.bounds);
    let mut stop = pin!(stop);
    let stopping = CancellationToken::new();
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stop => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {
                guard.count_connections();
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, from)) => match guard.admit(from.ip()) {
                Ok(place) => {
                    let (http, service, guard) = (http.clone(), service.clone(), guard.clone());
                    let entry = Entry { stream, address: from.ip(), tls: tls.clone(), place, guard };
                    connections.spawn(entry.serve(http, service, stopping.clone()));
                }
                Err(limit) => guard.reached(limit), // and the connection is closed
            },
            Err(e) if is_exhausted(&e) => {
                guard.reached(Limit::Descriptors);
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
            Err(e) => tracing::debug!(error = %e, "a client disconnected before it was accepted"),
        }
        // Whoever was told to make way gets to do so, and a flood of connections does not keep others from running.
        tokio::task::yield_now().await;
    }
    drop(listener);
    stopping.cancel();
    while connections.join_next().await.is_some() {}
}

fn builder(bounds: &Bounds) -> Builder<TokioExecutor> {
    let mut http = Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(bounds.idle).max_buf_size(HEADERS_MAX.1);
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(KEEPALIVE.0))
        .keep_alive_timeout(KEEPALIVE.1)
        .max_concurrent_streams(bounds.requests_per_connection)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_local_error_reset_streams(RESETS_MAX)
        .initial_stream_window_size(WINDOWS.0)
        .initial_connection_window_size(WINDOWS.1)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(HEADERS_MAX.0);
    match bounds.listener {
        Listener::Grpc => http.http2_only(),
        Listener::Http => http.http1_only(),
    }
}

// === impl Entry ===

impl Entry {
    async fn serve<S, A>(self, http: Builder<TokioExecutor>, service: S, stopping: CancellationToken)
    where
        S: Service<Request<Body>, Response = Response<A>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send + 'static,
        A: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        A::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let Self { stream, address, tls, place, guard } = self;
        let _ = stream.set_nodelay(true); // a connection that has ended already
        let shaking = shake_hands(stream, address, tls.as_ref(), guard.bounds.listener);
        let shaken = tokio::select! {
            biased;
            shaken = tokio::time::timeout(guard.bounds.first_request, shaking) => shaken,
            () = place.close.cancelled() => return guard.reached(Limit::MadeWay),
            () = stopping.cancelled() => return,
        };
        match shaken {
            Err(_) => guard.reached(Limit::FirstRequest),
            Ok(Err(e)) => guard.failed_handshake(address, &e),
            Ok(Ok((transport, peer))) => {
                let service = Exchange {
                    inner: service,
                    place: place.clone(),
                    guard: guard.clone(),
                    peer: Arc::new(peer),
                };
                connection(transport, http, service, place, guard, stopping).await;
            }
        }
    }
}

async fn connection<S, A>(
    stream: Transport,
    http: Builder<TokioExecutor>,
    service: Exchange<S>,
    place: Arc<ConnectionPlace>,
    guard: Arc<Guard>,
    stopping: CancellationToken,
) where
    S: Service<Request<Body>, Response = Response<A>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    A: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    A::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(guard.bounds.write));
    let served = http.serve_connection(TokioIo::new(Box::pin(stream)), TowerToHyperService::new(service));
    let mut served = pin!(served);
    let mut is_stopping = false;
    let mut look_in = guard.bounds.first_request;
    let reached = loop {
        tokio::select! {
            biased; // what has been asked already is answered before the connection makes way
            done = &mut served => break done.err().and_then(|e| is_timeout(e.as_ref()).then_some(Limit::SlowReader)),
            () = place.close.cancelled() => break Some(Limit::MadeWay),
            () = stopping.cancelled(), if !is_stopping => {
                is_stopping = true;
                served.as_mut().graceful_shutdown();
            }
            () = tokio::time::sleep(look_in) => match place.standing(guard.clock.now()) {
                IdleCheck::Fine(for_so_long) => look_in = for_so_long,
                IdleCheck::Overdue(limit) => break Some(limit),
            },
        }
    };
    if let Some(limit) = reached {
        guard.reached(limit);
    }
}

/// Was it the time limit for sending?
fn is_timeout(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(e) = cause {
        if e.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::TimedOut) {
            return true;
        }
        cause = e.source();
    }
    false
}
