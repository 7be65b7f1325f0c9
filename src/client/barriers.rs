//! A worker's stream of barriers, from the present leader.
//!
//! A stream belongs to one leader and ends with it. It is not opened again behind the caller's back, because a worker
//! must know that barriers may have been given out that it never saw.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::attempts::{Repeat, refusal};
use super::error::ClientError;
use super::verdict::{self, ErrorMeaning};
use super::{MetaClient, Target};
use crate::proto::metad::barrier_service_client::BarrierServiceClient;
use crate::proto::metad::{
    self as proto, Barrier, BarrierCollected, Committed, Dropped, SetAside, barrier_event::Event,
};

/// How many reports may wait to be sent: more than there are barriers in flight.
const REPORTS_MAX: usize = 64;
/// The beginning of the errors.
const WHAT: &str = "cannot take part in barriers";

/// An open stream. Dropping it ends the worker's part in barriers, not its registration.
#[derive(Debug)]
pub struct Barriers {
    client: MetaClient,
    worker_id: u64,
    leader: Target,
    leader_token: u64,
    events: Streaming<proto::BarrierEvent>,
    reports: mpsc::Sender<BarrierCollected>,
}

/// What a worker is told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum BarrierEvent {
    /// Collect this one, and report it with [`Barriers::collected`] in time.
    Barrier(Barrier),
    /// All workers have collected this one; it is committed. Epochs of one stream strictly grow, and so do those of
    /// all leaders.
    Committed(Committed),
    /// This one will never be committed, whatever this worker reports.
    Dropped(Dropped),
    /// Barrier after barrier failed because of this worker: nobody waits for it until it has collected one in time.
    SetAside(SetAside),
}

// === impl MetaClient: barriers ===

impl MetaClient {
    /// Lets a registered worker take part in the barriers of whoever leads now. A stream that it had before is cut.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::NotFound`]: it has to register again.
    pub async fn barriers(&self, worker_id: u64) -> Result<Barriers, ClientError> {
        let call = |channel| async move {
            let (reports, outbox) = mpsc::channel(REPORTS_MAX);
            let hello = BarrierCollected { worker_id, epoch: 0 };
            let _ = reports.try_send(hello); // there is room: it is the first one
            let answer = BarrierServiceClient::new(channel).stream(ReceiverStream::new(outbox)).await?;
            let (metadata, events, extensions) = answer.into_parts();
            Ok(tonic::Response::from_parts(metadata, (events, reports), extensions))
        };
        let (answer, leader) = self.ask_whom(WHAT, Repeat::Harmless, call).await?;
        let told = answer.metadata().get("metad-token").and_then(|v| v.to_str().ok()?.parse().ok());
        let (events, reports) = answer.into_inner();
        let leader_token = told.unwrap_or(leader.token);
        Ok(Barriers { client: self.clone(), worker_id, leader, leader_token, events, reports })
    }
}

// === impl Barriers ===

impl Barriers {
    /// The token of the leader whose stream this is.
    pub fn leader_token(&self) -> u64 {
        self.leader_token
    }

    /// The next thing this worker is told. Cancelling the wait loses nothing.
    ///
    /// # Errors
    /// The stream is over; open another: [`ClientError::Ended`], [`ClientError::NotFound`] (register first), or
    /// [`ClientError::Refused`] (a report that cannot be).
    pub async fn next(&mut self) -> Result<BarrierEvent, ClientError> {
        loop {
            match self.events.message().await {
                Ok(Some(message)) => match message.event {
                    Some(Event::Barrier(barrier)) => return Ok(BarrierEvent::Barrier(barrier)),
                    Some(Event::Committed(committed)) => return Ok(BarrierEvent::Committed(committed)),
                    Some(Event::Dropped(dropped)) => return Ok(BarrierEvent::Dropped(dropped)),
                    Some(Event::SetAside(aside)) => return Ok(BarrierEvent::SetAside(aside)),
                    None => {} // of a kind that a later version has
                },
                Ok(None) => return Err(self.ended("the leader has closed it".to_owned())),
                Err(status) => {
                    let is_final = matches!(verdict::judge(&status), ErrorMeaning::Refused)
                        && status.code() != tonic::Code::Aborted;
                    return Err(match is_final {
                        true => refusal(WHAT, &self.leader.address, &status),
                        false => self.ended(verdict::words(&status)),
                    });
                }
            }
        }
    }

    /// Reports a barrier as collected. It is sent soon, but whether it arrived shows only by [`Barriers::next`].
    ///
    /// # Errors
    /// [`ClientError::Ended`]: the stream is over.
    pub async fn collected(&mut self, epoch: u64) -> Result<(), ClientError> {
        let report = BarrierCollected { worker_id: self.worker_id, epoch };
        let sent = self.reports.send(report).await;
        sent.map_err(|_| self.ended("reports are no longer taken".to_owned()))
    }

    /// Most often the leader is gone, or stands still: the next call looks around first.
    fn ended(&self, why: String) -> ClientError {
        self.client.forget(&self.leader);
        ClientError::Ended { what: WHAT, address: self.leader.address.clone(), why }
    }
}
