//! Workers: registering, signs of life, leaving, and who is there.

use std::collections::BTreeMap;
use std::time::Duration;

use super::MetaClient;
use super::attempts::Repeat;
use super::error::ClientError;
use crate::proto::metad::cluster_service_client::ClusterServiceClient;
use crate::proto::metad::{DeregisterRequest, HeartbeatRequest, ListRequest, RegisterRequest, Worker};

/// What a worker says about itself. Host and port are its identity: registering again keeps the id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerSpec {
    /// Where it is reached.
    pub host: String,
    /// Where it listens, 1 to 65535.
    pub port: u16,
    /// Such as `compute`: 1 to 63 of `A-Z a-z 0-9 . _ -`.
    pub kind: String,
    /// At most 16.
    pub labels: BTreeMap<String, String>,
}

/// A registration. It outlives the leader, but not a silence longer than the interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegisteredWorker {
    /// The worker's id.
    pub worker_id: u64,
    /// A worker that gives no sign of life for longer expires. Send one every third of it.
    pub max_heartbeat_interval: Duration,
}

// === impl MetaClient: workers ===

impl MetaClient {
    /// Registers a worker, or finds its registration.
    ///
    /// # Errors
    /// See [`ClientError`]. When it gave up, it may be registered all the same, until it expires.
    pub async fn register_worker(&self, spec: WorkerSpec) -> Result<RegisteredWorker, ClientError> {
        let WorkerSpec { host, port, kind, labels } = spec;
        let labels = labels.into_iter().collect();
        let request = RegisterRequest { host, port: port.into(), kind, labels };
        let call = |channel| {
            let request = request.clone();
            async move { ClusterServiceClient::new(channel).register(request).await }
        };
        let answer = self.ask("cannot register the worker", Repeat::Harmless, call).await?;
        let max_heartbeat_interval = Duration::from_millis(answer.max_heartbeat_interval_ms);
        Ok(RegisteredWorker { worker_id: answer.worker_id, max_heartbeat_interval })
    }

    /// A worker's sign of life.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::NotFound`]: it has expired, and has to register again.
    pub async fn heartbeat(&self, worker_id: u64) -> Result<(), ClientError> {
        let call = |channel| async move {
            ClusterServiceClient::new(channel).heartbeat(HeartbeatRequest { worker_id }).await
        };
        self.ask("cannot send a heartbeat", Repeat::Harmless, call).await.map(|_| ())
    }

    /// Ends a worker's registration; no error if there is none, since that is what was wanted.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn deregister(&self, worker_id: u64) -> Result<(), ClientError> {
        let call = |channel| async move {
            ClusterServiceClient::new(channel).deregister(DeregisterRequest { worker_id }).await
        };
        match self.ask("cannot deregister the worker", Repeat::Harmless, call).await {
            Ok(_) | Err(ClientError::NotFound { .. }) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// All registered workers, page by page.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn list_workers(&self) -> Result<Vec<Worker>, ClientError> {
        let (mut workers, mut request) = (Vec::new(), ListRequest::default());
        loop {
            let call = |channel| {
                let request = request.clone();
                async move { ClusterServiceClient::new(channel).list(request).await }
            };
            let page = self.ask("cannot list the workers", Repeat::Harmless, call).await?;
            workers.extend(page.workers);
            if page.next_page_token.is_empty() {
                return Ok(workers);
            }
            request.page_token = page.next_page_token;
        }
    }
}
