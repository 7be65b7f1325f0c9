//! The barrier manager: which barrier goes to whom and when, and which epoch may be committed.
//!
//! A state machine without input or output, shaped like the elector. *Inputs*: [`BarrierManager::handle_timeout`]
//! and the methods named after what has happened; all but those about the ceiling look at the clock first, and
//! one without cause is no-op. *Outputs*, after every input: [`BarrierManager::poll_action`] until it returns
//! `None`, the actions to be carried out in order, then [`BarrierManager::poll_timeout`]. *Getters* take `&self`.
//!
//! # The life of a barrier
//!
//! ```text
//!  due ──► injected: collecting ──all have──► collected ──it is the oldest──► committing ──► committed, announced
//!   │            │                                                          │
//!   waits for    ├─ late: dropped (timed out)                                └─ not written: dropped
//!   room, or     └─ one that is missing left: dropped
//!   the ceiling
//! ```
//!
//! Commits are in the order of epochs, one at a time: a collected barrier waits until all older ones are
//! committed or dropped. A worker that leaves fails the barriers that it has not collected; those that it has
//! are the others' to complete. An epoch is above all that any leader ever injected, because each leader starts
//! above the ceiling that the last one persisted, and never injects above its own.
//!
//! A worker because of which `failures_max` barriers in a row were dropped is *set aside*: it still gets each barrier,
//! but nobody waits for it, until it has collected one in time. Where all are set aside, all are waited for: nothing is
//! committed that nobody has collected.
//!
//! The wall clock only makes epochs resemble time: no order and no deadline depends on it.
//!
//! This file must not know stores, streams, tasks, threads or logs, nor who is registered: it is told who takes
//! part.

mod aside;
mod ceiling;
mod epoch;
mod event;
mod flight;

#[cfg(test)]
mod random;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_aside;
#[cfg(test)]
mod tests_epochs;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

pub use epoch::Epoch;
pub use event::{
    Barrier, BarrierAction, BarrierSettings, CollectError, CommitLatency, DropReason, HeldBack, InFlight,
    Persisted,
};

use super::workers::WorkerId;
use crate::clock::Instant;
use aside::Aside;
use ceiling::Ceiling;
use flight::{Flight, Stage};

/// How many latencies are kept.
pub const LATENCIES_MAX: usize = 100;

/// The barriers of one tenure. See the module's documentation.
#[derive(Debug)]
pub struct BarrierManager {
    settings: BarrierSettings,
    /// Who takes part.
    members: BTreeSet<WorkerId>,
    aside: Aside,
    flights: BTreeMap<Epoch, Flight>,
    /// The newest epoch that may have been seen by a worker.
    last: Epoch,
    committed: Epoch,
    ceiling: Ceiling,
    /// When the next barrier is due; `None`: nobody takes part.
    due_at: Option<Instant>,
    /// Why the due barrier waits. While it does, the clock alone cannot change anything.
    held_back: Option<HeldBack>,
    /// How many were injected in this tenure.
    injected: u64,
    latencies: VecDeque<CommitLatency>,
    actions: VecDeque<BarrierAction>,
}

// === impl BarrierManager: getters ===

impl BarrierManager {
    /// The manager at the beginning of a tenure. Its first epoch is above all that the store holds.
    pub fn load(settings: BarrierSettings, persisted: Persisted) -> Self {
        let settings = BarrierSettings {
            interval: settings.interval.max(Duration::from_millis(1)),
            checkpoint_frequency: settings.checkpoint_frequency.max(1),
            in_flight_max: settings.in_flight_max.max(1),
            failures_max: settings.failures_max.max(1),
            ..settings
        };
        Self {
            settings,
            members: BTreeSet::new(),
            aside: Aside::default(),
            flights: BTreeMap::new(),
            last: persisted.committed.max(persisted.ceiling),
            committed: persisted.committed,
            ceiling: Ceiling::new(persisted.ceiling),
            due_at: None,
            held_back: None,
            injected: 0,
            latencies: VecDeque::new(),
            actions: VecDeque::new(),
        }
    }

    /// The newest committed epoch, an earlier leader's included: what a worker that joins is told first.
    pub fn committed(&self) -> Epoch {
        self.committed
    }

    /// The persisted ceiling.
    pub fn ceiling(&self) -> Epoch {
        self.ceiling.persisted()
    }

    /// Who takes part, in the order of their ids.
    pub fn members(&self) -> impl ExactSizeIterator<Item = WorkerId> {
        self.members.iter().copied()
    }

    /// Who is set aside, in the order of their ids; they need not take part at the moment.
    pub fn set_aside(&self) -> &BTreeSet<WorkerId> {
        self.aside.list()
    }

    /// The barriers under way, the oldest first.
    pub fn in_flight(&self) -> impl ExactSizeIterator<Item = InFlight> {
        self.flights.values().map(|f| InFlight {
            barrier: f.barrier,
            injected_at: f.injected_at,
            missing: f.missing().len(),
        })
    }

    /// Why a barrier that is due waits; `None`: none does.
    pub fn held_back(&self) -> Option<HeldBack> {
        self.held_back
    }

    /// The latencies of the last commits of this tenure, the oldest first, at most [`LATENCIES_MAX`].
    pub fn latencies(&self) -> impl ExactSizeIterator<Item = CommitLatency> {
        self.latencies.iter().copied()
    }
}

// === impl BarrierManager: outputs ===

impl BarrierManager {
    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<BarrierAction> {
        self.actions.pop_front()
    }

    /// When to call [`BarrierManager::handle_timeout`] at the latest. An early call does no harm.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let due = self.due_at.filter(|_| self.held_back.is_none());
        let look = self.ceiling.look_at().filter(|_| !self.members.is_empty());
        let late = self.flights.values().filter_map(Flight::until);
        due.into_iter().chain(look).chain(late).reduce(Instant::earlier)
    }
}

// === impl BarrierManager: inputs ===

impl BarrierManager {
    /// Does what the clock asks for. `wall_ms`: milliseconds since the Unix epoch.
    pub fn handle_timeout(&mut self, now: Instant, wall_ms: u64) {
        self.drop_late(now);
        if self.members.is_empty() {
            return; // nobody to send anything to, so nothing to write either
        }
        if let Some(epoch) = self.ceiling.raise(now, wall_ms, self.last) {
            self.actions.push_back(BarrierAction::WriteCeiling(epoch));
        }
        if self.due_at.is_some_and(|at| now.reached(at)) {
            self.inject(now, wall_ms);
        }
    }

    /// A worker takes part from the next barrier on. One that takes part already has begun anew: what it was
    /// sent before is lost.
    pub fn worker_joined(&mut self, now: Instant, worker: WorkerId) {
        self.drop_late(now);
        self.drop_missing(worker);
        if self.members.is_empty() {
            self.due_at = Some(now + self.settings.interval);
            self.ceiling.look(now);
        }
        self.members.insert(worker);
    }

    /// A worker takes part no longer: it deregistered or expired, or its stream has ended. Of a worker that
    /// has begun a new stream, the end of the old one must not be told.
    pub fn worker_left(&mut self, now: Instant, worker: WorkerId) {
        self.drop_late(now);
        self.drop_missing(worker);
        self.members.remove(&worker);
        if self.members.is_empty() {
            self.due_at = None;
            self.held_back = None;
        }
    }

    /// A worker is not registered any more: what it failed at is forgotten.
    pub fn worker_gone(&mut self, now: Instant, worker: WorkerId) {
        self.worker_left(now, worker);
        self.aside.forget(worker);
    }

    /// A worker has collected a barrier. To say so twice is no error.
    ///
    /// # Errors
    /// The report has no effect; the worker learns why.
    pub fn collected(&mut self, now: Instant, worker: WorkerId, epoch: Epoch) -> Result<(), CollectError> {
        self.drop_late(now);
        if !self.members.contains(&worker) {
            return Err(CollectError::UnknownWorker(worker));
        }
        let flight = self.flights.get_mut(&epoch);
        if flight.as_ref().is_some_and(|f| f.sent.binary_search(&worker).is_err()) {
            return Err(CollectError::NotSent { worker, epoch });
        }
        if self.aside.collected(now, worker, epoch) {
            self.actions.push_back(BarrierAction::TakenBack(worker));
        }
        match flight {
            Some(flight) => flight.collect(worker),
            None if epoch > self.last => return Err(CollectError::UnknownEpoch(epoch)),
            None => return Err(CollectError::Finished(epoch)),
        }
        self.commit_oldest();
        Ok(())
    }

    /// The commit is written.
    pub fn commit_done(&mut self, now: Instant, epoch: Epoch) {
        self.drop_late(now);
        let Some(flight) = self.take_committing(epoch) else { return };
        let latency = now.since(flight.injected_at);
        self.committed = epoch;
        if self.latencies.len() == LATENCIES_MAX {
            self.latencies.pop_front();
        }
        self.latencies.push_back(CommitLatency { epoch, latency });
        self.actions.push_back(BarrierAction::Announce { barrier: flight.barrier, latency });
        self.commit_oldest();
    }

    /// The commit is not written, and never will be.
    pub fn commit_failed(&mut self, now: Instant, epoch: Epoch) {
        self.drop_late(now);
        let Some(flight) = self.take_committing(epoch) else { return };
        self.report_dropped(&flight, DropReason::CommitFailed);
        self.commit_oldest();
    }

    /// The ceiling is written.
    pub fn ceiling_written(&mut self, epoch: Epoch) {
        if self.ceiling.written(epoch) && self.held_back == Some(HeldBack::Ceiling) {
            self.held_back = None; // see whether it is enough
        }
    }

    /// The ceiling is not written, and never will be. It is tried again after a pause.
    pub fn ceiling_failed(&mut self, now: Instant, epoch: Epoch) {
        self.ceiling.failed(now, epoch);
    }
}

// === impl BarrierManager: the life of a barrier ===

impl BarrierManager {
    /// Injects the due barrier, unless it has to wait.
    fn inject(&mut self, now: Instant, wall_ms: u64) {
        let epoch = Epoch::of_wall_ms(wall_ms).max(self.last.plus(1));
        self.held_back = if self.flights.len() >= self.settings.in_flight_max {
            Some(HeldBack::InFlight)
        } else if !self.ceiling.allows(epoch) {
            Some(HeldBack::Ceiling)
        } else {
            None
        };
        if self.held_back.is_some() {
            return;
        }
        let checkpoint = self.injected.is_multiple_of(self.settings.checkpoint_frequency);
        let previous = if self.injected == 0 { Epoch::NONE } else { self.last };
        let barrier = Barrier { epoch, previous, checkpoint };
        let to: Vec<_> = self.members.iter().copied().collect();
        let until = now + self.settings.collect_timeout;
        self.aside.injected(epoch, until);
        let stage = Stage::Collecting { missing: self.awaited(), until };
        self.flights.insert(epoch, Flight { barrier, sent: to.clone(), injected_at: now, stage });
        self.last = epoch;
        self.injected += 1;
        self.due_at = self.due_at.map(|at| self.due_after(at, now));
        self.actions.push_back(BarrierAction::Inject { barrier, to });
    }

    /// Whom a barrier waits for: not those who are set aside, unless there is nobody else.
    fn awaited(&self) -> BTreeSet<WorkerId> {
        let awaited: BTreeSet<_> = self.members.difference(self.aside.list()).copied().collect();
        if awaited.is_empty() { self.members.clone() } else { awaited }
    }

    /// Counts a failure of each of these, and waits no longer for those that have failed too often.
    fn failed(&mut self, workers: &[WorkerId]) {
        for worker in workers.iter().copied() {
            let Some(failures) = self.aside.failed(worker, self.settings.failures_max) else { continue };
            self.actions.push_back(BarrierAction::SetAside { worker, failures });
            let aside = self.aside.list();
            let others = |f: &Flight| f.sent.iter().any(|w| !aside.contains(w));
            self.flights.values_mut().filter(|f| others(f)).for_each(|f| f.collect(worker));
        }
    }

    /// When the next barrier is due, if this one was due at `due_at`. A little lateness does not shift the beat;
    /// after more than half an interval a new beat begins, and nothing is made up for.
    fn due_after(&self, due_at: Instant, now: Instant) -> Instant {
        let interval = self.settings.interval;
        if now.since(due_at) < interval / 2 { due_at + interval } else { now + interval }
    }

    /// Drops what was not collected in time.
    fn drop_late(&mut self, now: Instant) {
        self.drop_where(DropReason::TimedOut, |f| f.until().is_some_and(|at| now.reached(at)));
    }

    /// Drops what this worker was to collect and now never will.
    fn drop_missing(&mut self, worker: WorkerId) {
        self.drop_where(DropReason::WorkerLeft(worker), |f| f.missing().contains(&worker));
    }

    fn drop_where(&mut self, why: DropReason, fails: impl Fn(&Flight) -> bool) {
        let failed: Vec<_> = self.flights.iter().filter(|(_, f)| fails(f)).map(|(epoch, _)| *epoch).collect();
        for epoch in &failed {
            if let Some(flight) = self.flights.remove(epoch) {
                self.report_dropped(&flight, why);
                if why == DropReason::TimedOut {
                    let missing: Vec<_> = flight.missing().iter().copied().collect();
                    self.failed(&missing);
                }
            }
        }
        if let (DropReason::WorkerLeft(worker), false) = (why, failed.is_empty()) {
            self.failed(&[worker]);
        }
        if !failed.is_empty() {
            self.commit_oldest();
        }
    }

    fn report_dropped(&mut self, flight: &Flight, why: DropReason) {
        self.room();
        let missing = flight.missing().iter().copied().collect();
        self.actions.push_back(BarrierAction::Dropped { barrier: flight.barrier, why, missing });
    }

    /// Commits the oldest barrier if it is collected: younger ones must wait for it.
    fn commit_oldest(&mut self) {
        if let Some(mut oldest) = self.flights.first_entry()
            && oldest.get().stage == Stage::Collected
        {
            oldest.get_mut().stage = Stage::Committing;
            self.actions.push_back(BarrierAction::Commit(oldest.get().barrier));
        }
    }

    fn take_committing(&mut self, epoch: Epoch) -> Option<Flight> {
        self.flights.get(&epoch).filter(|f| f.stage == Stage::Committing)?;
        self.room();
        self.flights.remove(&epoch)
    }

    /// A barrier is no longer in flight: one that waited for room need not.
    fn room(&mut self) {
        if self.held_back == Some(HeldBack::InFlight) {
            self.held_back = None;
        }
    }
}
