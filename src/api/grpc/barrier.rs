//! `metad.v1.BarrierService`: a worker's stream of barriers, and its reports.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::{Stream, stream};
use tonic::{Request, Response, Status, Streaming};

use super::{RpcParts, authorize, own_worker, refuse};
use crate::meta::barrier::DropReason;
use crate::meta::request_queue::{Cut, Feed, QueueError, Request as Asked, RequestQueue, Told};
use crate::meta::workers::WorkerId;
use crate::proto::metad::barrier_service_server::BarrierService;
use crate::proto::metad::{
    self as proto, BarrierCollected, BarrierEvent, barrier_event::Event, dropped::Reason,
};

/// How long a worker may take to say who it is; less than any call may take, so that it learns what was missing.
const FIRST_MESSAGE: Duration = Duration::from_secs(5);
/// How soon a report is left again when the request queue is full.
const FULL_PAUSE: Duration = Duration::from_millis(10);

pub(super) struct Barriers {
    parts: RpcParts,
}

/// The worker's half of a stream.
struct Theirs {
    worker: WorkerId,
    stream: u64,
    cut: Arc<OnceLock<Cut>>,
    requests: RequestQueue,
}

/// What a stream's end needs to know.
struct Ending {
    worker: WorkerId,
    feed: Feed,
    requests: RequestQueue,
    is_over: bool,
}

impl Barriers {
    pub(super) fn new(parts: RpcParts) -> Self {
        Self { parts }
    }
}

#[tonic::async_trait]
impl BarrierService for Barriers {
    type StreamStream = Pin<Box<dyn Stream<Item = Result<BarrierEvent, Status>> + Send>>;

    async fn stream(
        &self,
        request: Request<Streaming<BarrierCollected>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let caller = authorize::caller(&request)?;
        let mut reports = request.into_inner();
        let first = tokio::time::timeout(FIRST_MESSAGE, reports.message()).await;
        let silent = || {
            Status::deadline_exceeded(format!(
                "no message within {FIRST_MESSAGE:?}: the first must name the worker"
            ))
        };
        let unnamed = || Status::invalid_argument("the first message must name the worker");
        let first = first.map_err(|_| silent())??.ok_or_else(unnamed)?;
        let worker = checked_hello(first)?;
        own_worker::check_id(&self.parts, &caller, worker).await?;
        let requests = self.parts.requests.clone();
        let feed = requests.ask(|reply| Asked::OpenStream(worker, reply)).await;
        let feed = feed.map_err(|e| refuse::queue(&self.parts, e))?.map_err(|e| refuse::unknown(&e))?;
        let theirs =
            Theirs { worker, stream: feed.stream, cut: feed.cut.clone(), requests: requests.clone() };
        tokio::spawn(theirs.pass_on(reports));
        let ending = Ending { worker, feed, requests, is_over: false };
        let mut response: Response<Self::StreamStream> =
            Response::new(Box::pin(stream::unfold(ending, next)));
        if let Some(token) = self.parts.driver.status().token {
            response.metadata_mut().insert("metad-token", token.get().into());
        }
        Ok(response)
    }
}

// === impl Theirs ===

impl Theirs {
    /// Passes the worker's reports on, until it has no more to say, or says what cannot be.
    async fn pass_on(self, mut reports: Streaming<BarrierCollected>) {
        let Self { worker, stream, .. } = self;
        let why = loop {
            let epoch = match reports.message().await {
                Ok(Some(report)) => checked_report(worker, report),
                Ok(None) => break Cut::Ended,
                Err(status) => Err(status.message().to_owned()),
            };
            match epoch {
                Ok(epoch) => self.leave(|| Asked::Collected { worker, stream, epoch }).await,
                Err(why) => break Cut::BadReport(why),
            }
        };
        let _ = self.cut.set(why); // the main loop has cut it off already: then for its own reason
        self.leave(|| Asked::CloseStream { worker, stream }).await;
    }

    /// Waits for room at the request queue. One that is closed has no streams any more.
    async fn leave(&self, request: impl Fn() -> Asked) {
        while let Err(QueueError::Full) = self.requests.leave(request()) {
            tokio::time::sleep(FULL_PAUSE).await;
        }
    }
}

async fn next(mut ending: Ending) -> Option<(Result<BarrierEvent, Status>, Ending)> {
    if ending.is_over {
        return None;
    }
    if let Some(told) = ending.feed.events.recv().await {
        return Some((Ok(event(told)), ending));
    }
    ending.is_over = true;
    let why = match ending.feed.cut.get() {
        Some(Cut::Ended) => return None,
        Some(cut @ Cut::BadReport(_)) => Status::invalid_argument(cut.to_string()),
        Some(cut @ Cut::Left) => Status::not_found(cut.to_string()),
        Some(cut) => Status::aborted(cut.to_string()),
        None => Status::unavailable("this member no longer leads; find the leader and open a new stream"),
    };
    Some((Err(why), ending))
}

impl Drop for Ending {
    fn drop(&mut self) {
        // The worker has gone away, or was told the end: either way nobody reads this stream any more.
        let _ = self.requests.leave(Asked::CloseStream { worker: self.worker, stream: self.feed.stream });
    }
}

fn event(told: Told) -> BarrierEvent {
    let event = match told {
        Told::Barrier(b) => Event::Barrier(proto::Barrier {
            epoch: b.epoch.get(),
            previous_epoch: b.previous.get(),
            checkpoint: b.checkpoint,
        }),
        Told::Committed { epoch, checkpoint } => {
            Event::Committed(proto::Committed { epoch: epoch.get(), checkpoint })
        }
        Told::Dropped { epoch, why } => {
            let reason = match why {
                DropReason::TimedOut => Reason::TimedOut,
                DropReason::WorkerLeft(_) => Reason::WorkerLeft,
                DropReason::CommitFailed => Reason::CommitFailed,
            };
            Event::Dropped(proto::Dropped { epoch: epoch.get(), reason: reason.into() })
        }
        Told::SetAside { failures } => Event::SetAside(proto::SetAside { failures }),
    };
    BarrierEvent { event: Some(event) }
}

/// The worker whose stream begins with this message.
///
/// # Errors
/// INVALID_ARGUMENT.
pub fn checked_hello(first: BarrierCollected) -> Result<WorkerId, Status> {
    let BarrierCollected { worker_id, epoch } = first;
    if epoch != 0 {
        let why = format!("the first message only names the worker: its epoch must be 0, not {epoch}");
        return Err(Status::invalid_argument(why));
    }
    Ok(WorkerId(worker_id))
}

/// The epoch that a later message of a worker's stream reports.
///
/// # Errors
/// What is wrong with it.
pub fn checked_report(worker: WorkerId, report: BarrierCollected) -> Result<u64, String> {
    let BarrierCollected { worker_id, epoch } = report;
    if worker_id != worker.0 && worker_id != 0 {
        return Err(format!("worker {worker_id} is named on the stream of worker {worker}"));
    }
    Ok(epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_belongs_to_the_worker_of_its_stream() {
        let of = |worker_id, epoch| BarrierCollected { worker_id, epoch };
        assert_eq!(checked_hello(of(7, 0)).unwrap(), WorkerId(7));
        assert!(checked_hello(of(7, 1)).unwrap_err().message().contains("must be 0, not 1"));
        assert_eq!(checked_report(WorkerId(7), of(7, 9)), Ok(9));
        assert_eq!(checked_report(WorkerId(7), of(0, 9)), Ok(9), "it need not be named again");
        assert!(checked_report(WorkerId(7), of(8, 9)).unwrap_err().contains("worker 8"));
    }
}
