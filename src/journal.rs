//! The journal: who led when, and why each tenure ended. One row per tenure in the store, so that it survives every
//! node, and what a leader leaves in its data dir for its next start.
//!
//! [`recorder::Recorder`] observes the driver and has the rows written; every node reads them, and shows them as [`Past`].
//! [`stalls`] is what a leader's lease had to survive. [`trace::Trace`] writes down what the elector was told and asked for, if somebody wants it. Nothing is decided by any of them.

mod reader;
pub mod recorder;
pub mod stalls;
pub mod tenure_file;
pub mod trace;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Instant;
use crate::election::history::row::Row;

pub use writer::rows_prefix;

/// The rows as this node has last seen them.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Past {
    /// Oldest first, [`crate::election::history::row::ROWS_MAX`] at most.
    pub rows: Vec<Arc<Row>>,
    /// When the store last confirmed them; `None`: not yet.
    pub confirmed_at: Option<Instant>,
}

// === impl Past ===

impl Past {
    /// The tenures that had not ended `since_ms` before `now_ms`, oldest first.
    pub fn since(&self, now_ms: u64, since_ms: u64) -> impl DoubleEndedIterator<Item = &Arc<Row>> {
        let from = now_ms.saturating_sub(since_ms);
        self.rows.iter().filter(move |r| r.end.as_ref().is_none_or(|e| e.at_ms >= from))
    }

    /// Whether it has been read at all, and how long ago the store last confirmed it.
    pub fn age(&self, now: Instant) -> Option<Duration> {
        self.confirmed_at.map(|at| now.since(at))
    }

    /// The tenure before this one, if that is kept.
    pub fn before(&self, row: &Row) -> Option<&Row> {
        let at = self.rows.partition_point(|r| r.token < row.token);
        at.checked_sub(1).map(|at| self.rows[at].as_ref())
    }

    /// The tenure that ended last.
    pub fn last_ended(&self) -> Option<&Arc<Row>> {
        self.rows.iter().rev().find(|r| r.end.is_some())
    }
}
