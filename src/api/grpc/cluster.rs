//! `metad.v1.ClusterService`: the workers. Requests are left at the main loop's request queue.

use std::pin::Pin;

use futures_util::{Stream, StreamExt, stream};
use prost::Message;
use tokio_stream::wrappers::BroadcastStream;
use tonic::{Request, Response, Status};

use super::{RpcParts, authorize, own_worker, refuse, requests, slow};
use crate::clock::millis;
use crate::meta::request_queue::{self, Listing, Watching};
use crate::meta::workers::{Change, ChangeKind, LeaveReason, Worker, WorkerId, WorkerSpec};
use crate::proto::metad::cluster_service_server::ClusterService;
use crate::proto::metad::{
    self as proto, DeregisterRequest, DeregisterResponse, HeartbeatRequest, HeartbeatResponse, ListRequest,
    ListResponse, RegisterRequest, RegisterResponse, WatchRequest, WatchResponse, WorkerChange,
    worker_change::Kind,
};

/// How many bytes of workers go into one message: most clients read none above 4 MiB.
const PAGE_BYTES_MAX: usize = 1024 * 1024;
/// What a worker costs beside itself, at most.
const MESSAGE_BYTES: usize = 16;

/// The most workers that one page may have.
pub const WORKERS_PAGE_MAX: usize = 1000;

/// Which workers a list asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Those after this one.
    pub after: WorkerId,
    /// At most so many; 1 to [`WORKERS_PAGE_MAX`].
    pub limit: usize,
}

pub(super) struct Cluster {
    parts: RpcParts,
}

impl Cluster {
    pub(super) fn new(parts: RpcParts) -> Self {
        Self { parts }
    }
}

#[tonic::async_trait]
impl ClusterService for Cluster {
    async fn register(
        &self,
        request: Request<RegisterRequest>,
    ) -> Result<Response<RegisterResponse>, Status> {
        let caller = authorize::caller(&request)?;
        let spec = checked_register(request.into_inner())?;
        own_worker::check_spec(&caller, &spec)?;
        let answer = self.parts.requests.ask(|reply| request_queue::Request::Register(spec, reply)).await;
        let (id, interval) = answer
            .map_err(|e| refuse::queue(&self.parts, e))?
            .map_err(|e| refuse::refused(&self.parts, &e))?;
        let max_heartbeat_interval_ms = millis(interval);
        Ok(Response::new(RegisterResponse { worker_id: id.0, max_heartbeat_interval_ms }))
    }

    async fn heartbeat(
        &self,
        request: Request<HeartbeatRequest>,
    ) -> Result<Response<HeartbeatResponse>, Status> {
        let caller = authorize::caller(&request)?;
        let id = WorkerId(request.into_inner().worker_id);
        own_worker::check_id(&self.parts, &caller, id).await?;
        let answer = self.parts.requests.ask(|reply| request_queue::Request::Heartbeat(id, reply)).await;
        answer.map_err(|e| refuse::queue(&self.parts, e))?.map_err(|e| refuse::unknown(&e))?;
        Ok(Response::new(HeartbeatResponse {}))
    }

    async fn deregister(
        &self,
        request: Request<DeregisterRequest>,
    ) -> Result<Response<DeregisterResponse>, Status> {
        let caller = authorize::caller(&request)?;
        let id = WorkerId(request.into_inner().worker_id);
        own_worker::check_id(&self.parts, &caller, id).await?;
        let answer = self.parts.requests.ask(|reply| request_queue::Request::Deregister(id, reply)).await;
        answer.map_err(|e| refuse::queue(&self.parts, e))?.map_err(|e| refuse::refused(&self.parts, &e))?;
        Ok(Response::new(DeregisterResponse {}))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let Listed { after, limit } = checked_list(request.into_inner())?;
        // One more than is shown tells whether there is another page.
        let asked =
            self.parts.requests.ask(|reply| request_queue::Request::List(after, limit + 1, reply)).await;
        let listing = asked.map_err(|e| refuse::queue(&self.parts, e))?;
        let (workers, shown) = page(&listing, 0, limit);
        let last = listing.workers[..shown].last().filter(|_| shown < listing.workers.len());
        let next_page_token = last.map(|w| w.id.to_string()).unwrap_or_default();
        Ok(Response::new(ListResponse { workers, next_page_token, version: listing.version }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let watching = self.parts.requests.ask(request_queue::Request::Watch).await;
        let Watching { now, changes } = watching.map_err(|e| refuse::queue(&self.parts, e))?;
        let changes = BroadcastStream::new(changes).map(|change| match change {
            Ok(change) => Ok(change_response(&change)),
            Err(e) => Err(Status::aborted(format!("this watch has fallen behind ({e}); watch again"))),
        });
        // After an error nothing more comes: what was missed is missed.
        let mut is_over = false;
        let changes = changes.take_while(move |change| {
            let goes_on = !is_over;
            is_over |= change.is_err();
            std::future::ready(goes_on)
        });
        Ok(Response::new(Box::pin(slow::cut_off(first_messages(now).map(Ok).chain(changes)))))
    }
}

/// As many workers as fit into one message, from this one on, and where the next message begins.
fn page(listing: &Listing, from: usize, limit: usize) -> (Vec<proto::Worker>, usize) {
    let mut bytes = 0;
    let workers =
        listing.workers[from..].iter().take(limit).map(|w| worker(w, listing.aside.contains(&w.id)));
    let fitting = workers.take_while(|worker| {
        let is_first = bytes == 0;
        bytes += worker.encoded_len() + MESSAGE_BYTES;
        is_first || bytes <= PAGE_BYTES_MAX
    });
    let workers: Vec<_> = fitting.collect();
    let next = from + workers.len();
    (workers, next)
}

/// All workers, in as many messages as it takes; each is made when the one before it is sent.
fn first_messages(all: Listing) -> impl Stream<Item = WatchResponse> {
    stream::unfold(Some((all, 0)), |rest| async move {
        let (all, from) = rest?;
        let (workers, next) = page(&all, from, usize::MAX);
        let (version, more) = (all.version, next < all.workers.len());
        let message = WatchResponse { workers, change: None, version, more };
        Some((message, more.then_some((all, next))))
    })
}

fn worker(worker: &Worker, set_aside: bool) -> proto::Worker {
    let WorkerSpec { host, port, kind, labels } = worker.spec.clone();
    let labels = labels.into_iter().collect();
    proto::Worker { id: worker.id.0, host, port: port.into(), kind, labels, set_aside }
}

fn change_response(change: &Change) -> WatchResponse {
    let kind = match change.kind {
        ChangeKind::Joined => Kind::Joined,
        ChangeKind::Updated => Kind::Updated,
        ChangeKind::Left(LeaveReason::Deregistered) => Kind::Deregistered,
        ChangeKind::Left(LeaveReason::Expired) => Kind::Expired,
    };
    let change_of = WorkerChange { kind: kind.into(), worker: Some(worker(&change.worker, false)) };
    WatchResponse { workers: vec![], change: Some(change_of), version: change.version, more: false }
}

/// What the worker says about itself.
///
/// # Errors
/// INVALID_ARGUMENT.
pub fn checked_register(request: RegisterRequest) -> Result<WorkerSpec, Status> {
    let RegisterRequest { host, port, kind, labels } = request;
    let wrong = |_| Status::invalid_argument(format!("port {port} is not between 1 and 65535"));
    let port = u16::try_from(port).map_err(wrong)?;
    let spec = WorkerSpec { host, port, kind, labels: labels.into_iter().collect() };
    spec.check().map_err(|e| Status::invalid_argument(e.to_string()))?;
    Ok(spec)
}

/// The page of workers that is asked for.
///
/// # Errors
/// INVALID_ARGUMENT.
pub fn checked_list(request: ListRequest) -> Result<Listed, Status> {
    let ListRequest { page_size, page_token } = request;
    let after = WorkerId(requests::page(&page_token)?.unwrap_or(0));
    let limit = usize::try_from(page_size).unwrap_or(WORKERS_PAGE_MAX).min(WORKERS_PAGE_MAX);
    Ok(Listed { after, limit: if limit == 0 { WORKERS_PAGE_MAX } else { limit } })
}
