//! The ceiling: no epoch above it is injected, and it is persisted before it counts.
//!
//! A new leader starts above it, and so above everything that any worker ever saw. It is raised for a minute of
//! wall time at once, and when half of that is used up, so that a barrier rarely has to wait for it. Where
//! epochs are ahead of the wall clock they grow one by one; there a few of them are a long time, and a new
//! leader gets no further ahead than that.
//!
//! This file must not know barriers or workers.

use std::time::Duration;

use super::epoch::Epoch;
use crate::clock::Instant;

/// How much wall time a new ceiling leaves room for, in milliseconds.
const AHEAD_MS: u64 = 60_000;
/// How many epochs it leaves room for at least.
const AHEAD_EPOCHS: u64 = 1 << 16;
/// How soon a ceiling that could not be written is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// The ceiling, and what is being done to raise it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ceiling {
    persisted: Epoch,
    raise: Raise,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Raise {
    /// Looked after whenever there is a reason to.
    Idle,
    /// To be looked after at this moment, and not before.
    LookAt(Instant),
    /// This one is being written.
    Writing(Epoch),
}

// === impl Ceiling ===

impl Ceiling {
    /// The ceiling that the store holds.
    pub fn new(persisted: Epoch) -> Self {
        Self { persisted, raise: Raise::Idle }
    }

    /// What is persisted.
    pub fn persisted(&self) -> Epoch {
        self.persisted
    }

    /// May this epoch be injected?
    pub fn allows(&self, epoch: Epoch) -> bool {
        epoch <= self.persisted
    }

    /// Asks to be looked after at `now`, or after the pause if there is one.
    pub fn look(&mut self, now: Instant) {
        if self.raise == Raise::Idle {
            self.raise = Raise::LookAt(now);
        }
    }

    /// When it must be looked after.
    pub fn look_at(&self) -> Option<Instant> {
        match self.raise {
            Raise::LookAt(at) => Some(at),
            Raise::Idle | Raise::Writing(_) => None,
        }
    }

    /// What to write, if there is not enough room above `last`, the newest epoch, and the wall clock.
    pub fn raise(&mut self, now: Instant, wall_ms: u64, last: Epoch) -> Option<Epoch> {
        match self.raise {
            Raise::Writing(_) => return None,
            Raise::LookAt(at) if !now.reached(at) => return None,
            Raise::LookAt(_) | Raise::Idle => self.raise = Raise::Idle,
        }
        let room = |part: u64| {
            let by_wall = Epoch::of_wall_ms(wall_ms.saturating_add(AHEAD_MS / part));
            by_wall.max(last.plus(AHEAD_EPOCHS / part))
        };
        if self.allows(room(2)) {
            return None;
        }
        self.raise = Raise::Writing(room(1));
        Some(room(1))
    }

    /// This one is written. Says whether it was the one that was awaited.
    pub fn written(&mut self, epoch: Epoch) -> bool {
        let awaited = self.raise == Raise::Writing(epoch);
        if awaited {
            self.persisted = self.persisted.max(epoch);
            self.raise = Raise::Idle;
        }
        awaited
    }

    /// This one was not written, and will not be.
    pub fn failed(&mut self, now: Instant, epoch: Epoch) {
        if self.raise == Raise::Writing(epoch) {
            self.raise = Raise::LookAt(now + RETRY_PAUSE);
        }
    }
}
