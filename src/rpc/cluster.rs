//! `metad.v1.ClusterService`: the workers. Requests are left at the main loop's desk.

use std::pin::Pin;

use futures_util::{Stream, StreamExt, stream};
use tokio_stream::wrappers::BroadcastStream;
use tonic::{Request, Response, Status};

use super::{RpcParts, refuse, requests};
use crate::clock::millis;
use crate::meta::desk::{self, Watching};
use crate::meta::workers::{Change, ChangeKind, LeaveReason, Worker, WorkerId, WorkerSpec};
use crate::proto::metad::cluster_service_server::ClusterService;
use crate::proto::metad::{
    self as proto, DeregisterRequest, DeregisterResponse, HeartbeatRequest, HeartbeatResponse, ListRequest,
    ListResponse, RegisterRequest, RegisterResponse, WatchRequest, WatchResponse, WorkerChange,
    worker_change::Kind,
};

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
        let spec = requests::register(request.into_inner())?;
        let answer = self.parts.desk.ask(|reply| desk::Request::Register(spec, reply)).await;
        let (id, interval) = answer
            .map_err(|e| refuse::desk(&self.parts, e))?
            .map_err(|e| refuse::refused(&self.parts, &e))?;
        let max_heartbeat_interval_ms = millis(interval);
        Ok(Response::new(RegisterResponse { worker_id: id.0, max_heartbeat_interval_ms }))
    }

    async fn heartbeat(
        &self,
        request: Request<HeartbeatRequest>,
    ) -> Result<Response<HeartbeatResponse>, Status> {
        let id = WorkerId(request.into_inner().worker_id);
        let answer = self.parts.desk.ask(|reply| desk::Request::Heartbeat(id, reply)).await;
        answer.map_err(|e| refuse::desk(&self.parts, e))?.map_err(|e| refuse::unknown(&e))?;
        Ok(Response::new(HeartbeatResponse {}))
    }

    async fn deregister(
        &self,
        request: Request<DeregisterRequest>,
    ) -> Result<Response<DeregisterResponse>, Status> {
        let id = WorkerId(request.into_inner().worker_id);
        let answer = self.parts.desk.ask(|reply| desk::Request::Deregister(id, reply)).await;
        answer.map_err(|e| refuse::desk(&self.parts, e))?.map_err(|e| refuse::refused(&self.parts, &e))?;
        Ok(Response::new(DeregisterResponse {}))
    }

    async fn list(&self, _: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let workers = self.parts.desk.ask(desk::Request::List).await;
        let workers = workers.map_err(|e| refuse::desk(&self.parts, e))?;
        Ok(Response::new(ListResponse { workers: workers.iter().map(worker).collect() }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let watching = self.parts.desk.ask(desk::Request::Watch).await;
        let Watching { workers, version, changes } = watching.map_err(|e| refuse::desk(&self.parts, e))?;
        let first = WatchResponse { workers: workers.iter().map(worker).collect(), change: None, version };
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
        Ok(Response::new(Box::pin(stream::once(std::future::ready(Ok(first))).chain(changes))))
    }
}

fn worker(worker: &Worker) -> proto::Worker {
    let WorkerSpec { host, port, kind, labels } = worker.spec.clone();
    let labels = labels.into_iter().collect();
    proto::Worker { id: worker.id.0, host, port: port.into(), kind, labels }
}

fn change_response(change: &Change) -> WatchResponse {
    let kind = match change.kind {
        ChangeKind::Joined => Kind::Joined,
        ChangeKind::Updated => Kind::Updated,
        ChangeKind::Left(LeaveReason::Deregistered) => Kind::Deregistered,
        ChangeKind::Left(LeaveReason::Expired) => Kind::Expired,
    };
    let change_of = WorkerChange { kind: kind.into(), worker: Some(worker(&change.worker)) };
    WatchResponse { workers: vec![], change: Some(change_of), version: change.version }
}
