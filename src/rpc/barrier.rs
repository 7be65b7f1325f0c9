//! `metad.v1.BarrierService`: a worker's stream of barriers, and its reports.

use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, stream};
use tonic::{Request, Response, Status, Streaming};

use super::{RpcParts, refuse};
use crate::meta::desk::{Cut, Desk, DeskError, Feed, Request as Asked, Told};
use crate::meta::workers::WorkerId;
use crate::proto::metad::barrier_service_server::BarrierService;
use crate::proto::metad::{self as proto, BarrierCollected, BarrierEvent, barrier_event::Event};

/// How long a worker may take to say who it is.
const FIRST_MESSAGE: Duration = Duration::from_secs(10);
/// How soon a report is left again when the desk is full.
const FULL_PAUSE: Duration = Duration::from_millis(10);

pub(super) struct Barriers {
    parts: RpcParts,
}

/// What a stream's end needs to know.
struct Ending {
    worker: WorkerId,
    feed: Feed,
    desk: Desk,
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
        let mut reports = request.into_inner();
        let first = tokio::time::timeout(FIRST_MESSAGE, reports.message()).await;
        let silent = || Status::deadline_exceeded(format!("no message within {FIRST_MESSAGE:?}"));
        let unnamed = || Status::invalid_argument("the first message must name the worker");
        let first = first.map_err(|_| silent())??.ok_or_else(unnamed)?;
        let worker = WorkerId(first.worker_id);
        let desk = self.parts.desk.clone();
        let feed = desk.ask(|reply| Asked::OpenStream(worker, reply)).await;
        let feed = feed.map_err(|e| refuse::desk(&self.parts, e))?.map_err(|e| refuse::unknown(&e))?;
        tokio::spawn(pass_on(reports, worker, feed.stream, desk.clone()));
        let ending = Ending { worker, feed, desk, is_over: false };
        let mut response: Response<Self::StreamStream> =
            Response::new(Box::pin(stream::unfold(ending, next)));
        if let Some(token) = self.parts.driver.status().token {
            response.metadata_mut().insert("metad-token", token.get().into());
        }
        Ok(response)
    }
}

/// The worker's reports, until it has no more to say.
async fn pass_on(mut reports: Streaming<BarrierCollected>, worker: WorkerId, stream: u64, desk: Desk) {
    while let Ok(Some(report)) = reports.message().await {
        let epoch = report.epoch;
        loop {
            match desk.leave(Asked::Collected { worker, stream, epoch }) {
                Ok(()) => break,
                Err(DeskError::Full) => tokio::time::sleep(FULL_PAUSE).await,
                Err(DeskError::Closed) => return,
            }
        }
    }
    let _ = desk.leave(Asked::CloseStream { worker, stream }); // nobody is there: nothing to close
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
        let _ = self.desk.leave(Asked::CloseStream { worker: self.worker, stream: self.feed.stream });
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
    };
    BarrierEvent { event: Some(event) }
}
