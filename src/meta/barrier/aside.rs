//! Who is set aside: workers because of which barrier after barrier failed, so that the others need not wait for them.
//!
//! A worker's failures count across its streams, for as long as it is registered: one that leaves and comes back all
//! the time stops the others as well as one that never reports.
//!
//! This file must not know barriers in flight.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::epoch::Epoch;
use crate::clock::Instant;
use crate::meta::workers::WorkerId;

/// How many barriers are remembered after their injection.
const RECENT_MAX: usize = 64;

/// The failures of all workers.
#[derive(Debug, Default)]
pub(super) struct Aside {
    failures: BTreeMap<WorkerId, u32>,
    aside: BTreeSet<WorkerId>,
    /// The newest barriers, and until when they are collected in time.
    recent: VecDeque<(Epoch, Instant)>,
}

// === impl Aside ===

impl Aside {
    pub(super) fn list(&self) -> &BTreeSet<WorkerId> {
        &self.aside
    }

    /// A barrier failed because of this worker. How many did in a row, if that is one too many just now.
    pub(super) fn failed(&mut self, worker: WorkerId, max: u32) -> Option<u32> {
        let failures = self.failures.entry(worker).or_default();
        *failures = failures.saturating_add(1);
        (*failures >= max && self.aside.insert(worker)).then_some(*failures)
    }

    /// A barrier was sent, and is collected in time until then.
    pub(super) fn injected(&mut self, epoch: Epoch, until: Instant) {
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((epoch, until));
    }

    /// A worker has collected a barrier. True: it was set aside, and is no longer.
    pub(super) fn collected(&mut self, now: Instant, worker: WorkerId, epoch: Epoch) -> bool {
        let in_time = self.recent.iter().any(|(sent, until)| *sent == epoch && !now.reached(*until));
        if in_time {
            self.failures.remove(&worker);
        }
        in_time && self.aside.remove(&worker)
    }

    /// The worker is not registered any more.
    pub(super) fn forget(&mut self, worker: WorkerId) {
        self.failures.remove(&worker);
        self.aside.remove(&worker);
    }
}
