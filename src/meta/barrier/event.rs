//! What the barrier manager is made with, what it asks for, and what it says.
//!
//! Values only; this file must not know when any of them is due.

use std::time::Duration;

use super::epoch::Epoch;
use crate::clock::Instant;
use crate::meta::workers::WorkerId;

/// How barriers are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarrierSettings {
    /// From one barrier to the next; at least a millisecond.
    pub interval: Duration,
    /// How long the workers have to collect one.
    pub collect_timeout: Duration,
    /// Every n-th barrier is a checkpoint, beginning with the first of a tenure; at least 1.
    pub checkpoint_frequency: u64,
    /// The most barriers under way; at least 1.
    pub in_flight_max: usize,
    /// After so many barriers in a row that failed because of a worker, nobody waits for it any more; at least 1.
    pub failures_max: u32,
}

/// What the store holds about barriers. The default: nothing yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Persisted {
    /// The newest committed epoch.
    pub committed: Epoch,
    /// No epoch above it was ever injected.
    pub ceiling: Epoch,
}

/// What goes to the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Barrier {
    /// Its number.
    pub epoch: Epoch,
    /// The number of the one that was injected before it, whatever became of that; [`Epoch::NONE`]: it is the
    /// first one of its tenure.
    pub previous: Epoch,
    /// Is it a checkpoint?
    pub checkpoint: bool,
}

/// What the owner has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BarrierAction {
    /// Send it to these workers. Answers: [`super::BarrierManager::collected`], by each of them.
    Inject {
        /// What.
        barrier: Barrier,
        /// To whom, in the order of their ids.
        to: Vec<WorkerId>,
    },
    /// Write, fenced, that this is the newest committed epoch. Answer: [`super::BarrierManager::commit_done`] or
    /// [`super::BarrierManager::commit_failed`], when it is certain which.
    Commit(Barrier),
    /// Write the ceiling, fenced. Answer: [`super::BarrierManager::ceiling_written`] or
    /// [`super::BarrierManager::ceiling_failed`], when it is certain which.
    WriteCeiling(Epoch),
    /// Tell everybody that this one is committed.
    Announce {
        /// What.
        barrier: Barrier,
        /// From its injection to its commit.
        latency: Duration,
    },
    /// This one will never be committed: report it.
    Dropped {
        /// What.
        barrier: Barrier,
        /// Why.
        why: DropReason,
        /// Who had not collected it, in the order of their ids.
        missing: Vec<WorkerId>,
    },
    /// From now on nobody waits for this worker: tell it, and report it. It still gets each barrier, and takes part
    /// again once it has collected one in time.
    SetAside {
        /// Who.
        worker: WorkerId,
        /// How many barriers in a row failed because of it.
        failures: u32,
    },
    /// A worker that was set aside takes part again.
    TakenBack(WorkerId),
}

/// Why a barrier was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// Not all workers collected it in time.
    TimedOut,
    /// This worker left before it had collected it.
    WorkerLeft(WorkerId),
    /// Its commit was not written.
    CommitFailed,
}

/// Why a worker's report is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CollectError {
    /// The worker does not take part.
    #[error("worker {0} does not take part in barriers")]
    UnknownWorker(WorkerId),
    /// No such epoch was injected yet.
    #[error("epoch {0} was never injected")]
    UnknownEpoch(Epoch),
    /// The epoch is over: committed, dropped, or another leader's.
    #[error("epoch {0} is over: it was committed or dropped, or is not this leader's")]
    Finished(Epoch),
    /// The worker joined later.
    #[error("epoch {epoch} was not sent to worker {worker}")]
    NotSent {
        /// Who reports it.
        worker: WorkerId,
        /// What.
        epoch: Epoch,
    },
}

/// Why a due barrier is not injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HeldBack {
    /// As many as may be are in flight.
    InFlight,
    /// Its epoch is above the ceiling, which is being raised.
    Ceiling,
}

/// A barrier in flight, as others see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InFlight {
    /// What.
    pub barrier: Barrier,
    /// When it was injected.
    pub injected_at: Instant,
    /// How many workers have not collected it.
    pub missing: usize,
}

/// How long a commit took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitLatency {
    /// Of which epoch.
    pub epoch: Epoch,
    /// From injection to commit.
    pub latency: Duration,
}
