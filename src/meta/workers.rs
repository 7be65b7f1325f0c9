//! The worker registry: who is registered, under which id, and who has not been heard of for too long.
//!
//! What must outlive the leader is changed in three steps, one [`Edit`] at a time: `add_…` says what to write, for as
//! many workers as fit into one write; the owner writes the edit's rows; and only when they are written it hands the
//! edit to [`Registry::apply`]. An edit that could not be written is thrown away; nothing has happened. Heartbeats are
//! not persisted: at the beginning of a tenure every worker has one full interval.
//!
//! `now` never goes back. An id is never given to a second worker, whoever leads: the next one is persisted
//! together with the worker that takes its predecessor.
//!
//! This file must not know stores, tasks, threads or logs, nor how rows look: that is [`super::codec`]'s.

mod spec;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

pub use spec::{
    HOST_BYTES_MAX, KIND_CHARS_MAX, LABEL_KEY_BYTES_MAX, LABEL_VALUE_BYTES_MAX, LABELS_MAX, SpecError,
    WorkerSpec,
};

use crate::clock::Instant;

/// The most workers there may be.
pub const WORKERS_MAX: usize = 10_000;
/// The most workers that one edit changes: as many rows fit into one write, however long they are.
pub const EDITED_MAX: usize = 64;
/// So many of them may be wishes: the rest is kept for those who expire, so that they do whatever is wished for.
pub const WISHES_MAX: usize = 48;

/// Names a worker, in this cluster and for ever. The first one is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u64);

/// A registered worker.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Worker {
    /// Its id.
    pub id: WorkerId,
    /// What it said about itself, the last time it registered.
    pub spec: WorkerSpec,
}

/// Why a worker is no longer registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeaveReason {
    /// It said so.
    Deregistered,
    /// It was not heard of for the longest interval.
    Expired,
}

/// What happened to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// It is new.
    Joined,
    /// It registered again, and says something else about itself.
    Updated,
    /// It is gone.
    Left(LeaveReason),
}

/// One step of the registry, for those who follow it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The registry's version after it; grows by one from change to change within a tenure.
    pub version: u64,
    /// What happened.
    pub kind: ChangeKind,
    /// To whom; of one that left, what it was.
    pub worker: Worker,
}

/// Prepared changes, each of another worker: to be written, all in one write, and then applied.
#[must_use = "nothing happens until it is written and applied"]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// The version of the registry that it was prepared on.
    basis: u64,
    steps: Vec<What>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    /// A new worker takes the next id.
    Join(Worker),
    /// A known one says something new.
    Update(Worker),
    /// A known one says the same again: nothing to write.
    Touch(WorkerId),
    /// This one goes.
    Leave(WorkerId, LeaveReason),
}

/// A row that an [`Edit`] writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerRow<'a> {
    /// Put this worker.
    Worker(&'a Worker),
    /// Delete this one.
    Gone(WorkerId),
    /// Put the next id.
    NextId(WorkerId),
}

/// Why a worker cannot be registered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// What it says about itself is out of bounds.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// There are [`WORKERS_MAX`] already.
    #[error("{WORKERS_MAX} workers are registered; no more are taken until one leaves or expires")]
    Full,
    /// The next id is the largest number there is. Cannot happen but by a row that somebody wrote by hand.
    #[error("there are no ids left")]
    NoIds,
}

/// No such worker: it never registered, has deregistered, or has expired. It has to register (again).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("worker {0} is not registered; it has to register (again)")]
pub struct UnknownWorker(pub WorkerId);

/// An edit was prepared on another state than the one it was applied to: the owner did not do one at a time.
/// What is written may now differ from what is in memory, so the tenure must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the edit was prepared on version {basis} of the registry, which is at {version}")]
pub struct Stale {
    /// What it was prepared on.
    pub basis: u64,
    /// Where the registry is.
    pub version: u64,
}

/// The registry of one tenure. See the module's documentation.
#[derive(Debug)]
pub struct Registry {
    max_heartbeat_interval: Duration,
    workers: BTreeMap<WorkerId, RegistryEntry>,
    by_address: HashMap<(String, u16), WorkerId>,
    /// The workers in the order of their last signs of life, which is that of their deadlines too: on both
    /// clocks, since all have the same interval and `now` never goes back.
    heard: BTreeMap<u64, WorkerId>,
    next_heard: u64,
    next_id: WorkerId,
    version: u64,
}

#[derive(Debug)]
struct RegistryEntry {
    /// Shared with the answers that list it.
    worker: Arc<Worker>,
    heard: u64,
    expires_at: Instant,
}

// === impl WorkerId ===

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// === impl WorkerSpec ===

impl WorkerSpec {
    fn address(&self) -> (String, u16) {
        (self.host.clone(), self.port)
    }
}

// === impl Edit ===

impl Edit {
    /// What to write, all in one write; at most [`EDITED_MAX`] workers, and the next id. Empty: there is nothing to
    /// write, and the edit may be applied at once.
    pub fn rows(&self) -> Vec<WorkerRow<'_>> {
        let rows = self.steps.iter().filter_map(|step| match step {
            What::Join(worker) | What::Update(worker) => Some(WorkerRow::Worker(worker)),
            What::Touch(_) => None,
            What::Leave(id, _) => Some(WorkerRow::Gone(*id)),
        });
        rows.chain(self.last_joined().map(|id| WorkerRow::NextId(WorkerId(id.0.saturating_add(1))))).collect()
    }

    /// Does nothing happen?
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Is it full of wishes?
    pub fn is_full(&self) -> bool {
        self.steps.len() >= WISHES_MAX
    }

    fn joined(&self) -> impl DoubleEndedIterator<Item = &Worker> {
        self.steps.iter().filter_map(|step| match step {
            What::Join(worker) => Some(worker),
            _ => None,
        })
    }

    fn last_joined(&self) -> Option<WorkerId> {
        self.joined().next_back().map(|w| w.id)
    }

    fn concerns(&self, id: WorkerId) -> bool {
        self.steps.iter().any(|step| match step {
            What::Join(worker) | What::Update(worker) => worker.id == id,
            What::Touch(known) | What::Leave(known, _) => *known == id,
        })
    }
}

// === impl Registry: getters ===

impl Registry {
    /// The registry at the beginning of a tenure: what the store holds. Everybody has one full interval from
    /// `now` on. More than [`WORKERS_MAX`] are all kept. Of two rows with one address (somebody wrote them by
    /// hand) the later id answers to it; the other one expires.
    pub fn load(
        max_heartbeat_interval: Duration,
        now: Instant,
        workers: impl IntoIterator<Item = Worker>,
        next_id: WorkerId,
    ) -> Self {
        let mut registry = Self {
            max_heartbeat_interval,
            workers: BTreeMap::new(),
            by_address: HashMap::new(),
            heard: BTreeMap::new(),
            next_heard: 0,
            next_id: next_id.max(WorkerId(1)),
            version: 0,
        };
        let workers: BTreeMap<_, _> = workers.into_iter().map(|w| (w.id, w)).collect();
        for (id, worker) in workers {
            registry.next_id = registry.next_id.max(WorkerId(id.0.saturating_add(1)));
            registry.insert(now, worker);
        }
        registry
    }

    /// All workers, in the order of their ids.
    pub fn list(&self) -> impl ExactSizeIterator<Item = &Worker> {
        self.workers.values().map(|e| e.worker.as_ref())
    }

    /// At most so many, those that come after this id.
    pub fn page(&self, after: WorkerId, limit: usize) -> Vec<Arc<Worker>> {
        let rest = self.workers.range((Bound::Excluded(after), Bound::Unbounded));
        rest.take(limit).map(|(_, e)| e.worker.clone()).collect()
    }

    /// One of them.
    pub fn get(&self, id: WorkerId) -> Option<&Worker> {
        self.workers.get(&id).map(|e| e.worker.as_ref())
    }

    /// The version of what [`Registry::list`] says: that of the last [`Change`], 0 before the first one.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// When the next worker expires, if nothing is heard of it. No later than that, and again after every edit,
    /// ask [`Registry::add_expired`].
    pub fn next_expiry(&self) -> Option<Instant> {
        let (_, id) = self.heard.first_key_value()?;
        self.workers.get(id).map(|e| e.expires_at)
    }

    /// Who was not heard of for the longest interval, the longest silence first.
    pub fn overdue(&self, now: Instant) -> impl Iterator<Item = WorkerId> {
        let due = move |id: &&WorkerId| self.workers.get(id).is_some_and(|e| now.reached(e.expires_at));
        self.heard.values().take_while(due).copied()
    }
}

// === impl Registry: preparing ===

impl Registry {
    /// An edit of nothing.
    pub fn edit(&self) -> Edit {
        Edit { basis: self.version, steps: vec![] }
    }

    /// A worker registers. Says which id it gets: its old one, if this address is registered. `None`: not within this
    /// edit, which changes the same worker already.
    ///
    /// # Errors
    /// Out of bounds, or no room.
    pub fn add_register(&self, edit: &mut Edit, spec: WorkerSpec) -> Result<Option<WorkerId>, RegisterError> {
        spec.check()?;
        let address = spec.address();
        if let Some(known) = self.by_address.get(&address).and_then(|id| self.workers.get(id)) {
            let id = known.worker.id;
            if edit.concerns(id) {
                return Ok(None);
            }
            let same = known.worker.spec == spec;
            edit.steps.push(if same { What::Touch(id) } else { What::Update(Worker { id, spec }) });
            return Ok(Some(id));
        }
        if edit.joined().any(|w| w.spec.address() == address) {
            return Ok(None);
        }
        if self.workers.len() + edit.joined().count() >= WORKERS_MAX {
            return Err(RegisterError::Full);
        }
        let id = edit.last_joined().map_or(self.next_id, |last| WorkerId(last.0.saturating_add(1)));
        if id.0 == u64::MAX {
            return Err(RegisterError::NoIds);
        }
        edit.steps.push(What::Join(Worker { id, spec }));
        Ok(Some(id))
    }

    /// A worker leaves by its own choice. False: not within this edit, as above.
    ///
    /// # Errors
    /// It is not registered.
    pub fn add_deregister(&self, edit: &mut Edit, id: WorkerId) -> Result<bool, UnknownWorker> {
        if edit.concerns(id) {
            return Ok(false);
        }
        self.get(id).ok_or(UnknownWorker(id))?;
        edit.steps.push(What::Leave(id, LeaveReason::Deregistered));
        Ok(true)
    }

    /// Those who were not heard of for too long, the longest silence first, as many as there is room for. A heartbeat
    /// that comes late, but before this, still counts, and so does a registration in the same edit.
    pub fn add_expired(&self, edit: &mut Edit, now: Instant) {
        let room = EDITED_MAX.saturating_sub(edit.steps.len());
        let gone: Vec<_> = self.overdue(now).filter(|id| !edit.concerns(*id)).take(room).collect();
        edit.steps.extend(gone.into_iter().map(|id| What::Leave(id, LeaveReason::Expired)));
    }
}

// === impl Registry: what has happened ===

impl Registry {
    /// A sign of life. It counts from `now` on.
    ///
    /// # Errors
    /// The worker is not registered (any more): it has to register again.
    pub fn heartbeat(&mut self, now: Instant, id: WorkerId) -> Result<(), UnknownWorker> {
        let entry = self.workers.get_mut(&id).ok_or(UnknownWorker(id))?;
        self.heard.remove(&entry.heard);
        entry.heard = self.next_heard;
        entry.expires_at = now + self.max_heartbeat_interval;
        self.heard.insert(entry.heard, id);
        self.next_heard += 1;
        Ok(())
    }

    /// The edit is written: it takes effect. Registering is a sign of life.
    ///
    /// # Errors
    /// [`Stale`]: another edit was applied since this one was prepared. Nothing has changed.
    pub fn apply(&mut self, now: Instant, edit: Edit) -> Result<Vec<Change>, Stale> {
        if edit.basis != self.version {
            return Err(Stale { basis: edit.basis, version: self.version });
        }
        Ok(edit.steps.into_iter().flat_map(|step| self.apply_step(now, step)).collect())
    }

    fn apply_step(&mut self, now: Instant, step: What) -> Option<Change> {
        match step {
            What::Join(worker) => {
                self.next_id = WorkerId(worker.id.0.saturating_add(1));
                self.insert(now, worker.clone());
                Some(self.change(ChangeKind::Joined, worker))
            }
            What::Update(worker) => {
                self.forget(worker.id);
                self.insert(now, worker.clone());
                Some(self.change(ChangeKind::Updated, worker))
            }
            What::Touch(id) => {
                let _ = self.heartbeat(now, id); // it is there: nothing was applied since
                None
            }
            What::Leave(id, reason) => {
                let gone = self.forget(id)?;
                Some(self.change(ChangeKind::Left(reason), gone.as_ref().clone()))
            }
        }
    }

    fn change(&mut self, kind: ChangeKind, worker: Worker) -> Change {
        self.version += 1;
        Change { version: self.version, kind, worker }
    }

    fn insert(&mut self, now: Instant, worker: Worker) {
        let (id, heard) = (worker.id, self.next_heard);
        self.next_heard += 1;
        self.by_address.insert(worker.spec.address(), id);
        self.heard.insert(heard, id);
        self.workers.insert(
            id,
            RegistryEntry { worker: Arc::new(worker), heard, expires_at: now + self.max_heartbeat_interval },
        );
    }

    fn forget(&mut self, id: WorkerId) -> Option<Arc<Worker>> {
        let entry = self.workers.remove(&id)?;
        self.heard.remove(&entry.heard);
        let address = entry.worker.spec.address();
        // Another row may have the same address: see `load`.
        if self.by_address.get(&address) == Some(&id) {
            self.by_address.remove(&address);
        }
        Some(entry.worker)
    }
}
