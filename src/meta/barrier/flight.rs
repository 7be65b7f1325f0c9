//! A barrier in flight: who has not collected it, and until when it has to be.
//!
//! This file must not know other barriers.

use std::collections::BTreeSet;

use super::event::Barrier;
use crate::clock::Instant;
use crate::meta::workers::WorkerId;

/// A barrier in flight.
#[derive(Debug)]
pub struct Flight {
    /// What.
    pub barrier: Barrier,
    /// To whom it was sent, in order.
    pub sent: Vec<WorkerId>,
    /// When.
    pub injected_at: Instant,
    /// How far it has come.
    pub stage: Stage,
}

/// How far a barrier has come.
#[derive(Debug, PartialEq, Eq)]
pub enum Stage {
    /// These have not collected it, and have until then.
    Collecting { missing: BTreeSet<WorkerId>, until: Instant },
    /// All have. It waits for older ones.
    Collected,
    /// Its commit is being written.
    Committing,
}

// === impl Flight ===

/// Nobody.
static NONE_MISSING: BTreeSet<WorkerId> = BTreeSet::new();

impl Flight {
    /// Who has not collected it.
    pub fn missing(&self) -> &BTreeSet<WorkerId> {
        match &self.stage {
            Stage::Collecting { missing, .. } => missing,
            Stage::Collected | Stage::Committing => &NONE_MISSING,
        }
    }

    /// Until when it has to be collected.
    pub fn until(&self) -> Option<Instant> {
        match self.stage {
            Stage::Collecting { until, .. } => Some(until),
            Stage::Collected | Stage::Committing => None,
        }
    }

    /// This worker has collected it.
    pub fn collect(&mut self, worker: WorkerId) {
        if let Stage::Collecting { missing, .. } = &mut self.stage {
            missing.remove(&worker);
            if missing.is_empty() {
                self.stage = Stage::Collected;
            }
        }
    }
}
