//! The workers' barrier streams: who has one open, and what is sent down it.
//!
//! Every stream is bounded. One that is full is cut off: the others must not wait for it.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use tokio::sync::mpsc;

use crate::meta::barrier::{Barrier, CollectError, Epoch};
use crate::meta::request_queue::{Cut, Feed, Told};
use crate::meta::workers::WorkerId;

/// How many messages a worker may leave unread.
const UNREAD_MAX: usize = 64;

/// All open streams: at most one of each worker.
#[derive(Default)]
pub(super) struct Streams {
    open: BTreeMap<WorkerId, Stream>,
    opened: u64,
}

struct Stream {
    number: u64,
    events: mpsc::Sender<Told>,
    cut: Arc<OnceLock<Cut>>,
}

// === impl Streams ===

impl Streams {
    /// Opens a worker's stream; one that it had before is cut off. It is told first how far the commits are.
    pub(super) fn open(&mut self, worker: WorkerId, committed: Epoch) -> Feed {
        self.cut(worker, Cut::Superseded);
        self.opened += 1;
        let (events, inbox) = mpsc::channel(UNREAD_MAX);
        if committed != Epoch::NONE {
            let _ = events.try_send(Told::Committed { epoch: committed, checkpoint: false }); // it is empty
        }
        let cut: Arc<OnceLock<Cut>> = Arc::default();
        self.open.insert(worker, Stream { number: self.opened, events, cut: cut.clone() });
        Feed { stream: self.opened, events: inbox, cut }
    }

    /// Is this the stream that the worker has open?
    pub(super) fn is_current(&self, worker: WorkerId, stream: u64) -> bool {
        self.open.get(&worker).is_some_and(|s| s.number == stream)
    }

    /// Sends a barrier. Returns those who could not take it; they are cut off.
    pub(super) fn inject(&mut self, barrier: Barrier, to: &[WorkerId]) -> Vec<WorkerId> {
        to.iter().copied().filter(|worker| !self.send(*worker, Told::Barrier(barrier))).collect()
    }

    /// Tells everybody. Returns those who could not take it; they are cut off.
    pub(super) fn tell_all(&mut self, told: Told) -> Vec<WorkerId> {
        let all: Vec<_> = self.open.keys().copied().collect();
        all.into_iter().filter(|worker| !self.send(*worker, told)).collect()
    }

    /// Cuts a worker's stream off. True: it had one.
    pub(super) fn cut(&mut self, worker: WorkerId, why: Cut) -> bool {
        let Some(stream) = self.open.remove(&worker) else { return false };
        let _ = stream.cut.set(why); // or it has just ended for a reason of its own
        true
    }

    /// The worker's end of this stream is gone. True: it was the one it had open.
    pub(super) fn close(&mut self, worker: WorkerId, stream: u64) -> bool {
        self.is_current(worker, stream) && self.open.remove(&worker).is_some()
    }

    /// Tells one worker. False: it has no stream, or could not take it and is cut off.
    pub(super) fn send(&mut self, worker: WorkerId, told: Told) -> bool {
        let Some(stream) = self.open.get(&worker) else { return false };
        match stream.events.try_send(told) {
            Ok(()) => true,
            Err(_) => {
                self.cut(worker, Cut::Slow);
                false
            }
        }
    }
}

/// Hands a report to the barriers. One that comes too late is no mistake of the worker's; one that cannot be is.
pub(super) fn judge(epoch: u64, collect: impl FnOnce(Epoch) -> Result<(), CollectError>) -> Result<(), Cut> {
    let Some(known) = Epoch::new(epoch).filter(|known| *known != Epoch::NONE) else {
        return Err(Cut::BadReport(format!("{epoch} is not an epoch")));
    };
    match collect(known) {
        Ok(()) | Err(CollectError::Finished(_)) => Ok(()),
        Err(e) => Err(Cut::BadReport(e.to_string())),
    }
}
