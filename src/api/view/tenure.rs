//! Who led when, and why each tenure ended.

use std::sync::Arc;

use serde::Serialize;

use crate::clock::{Instant, millis, wall_clock_ms};
use crate::election::history::row::{self, Gap, Row};
use crate::election::status::Status;
use crate::journal::Past;

use super::member::Answerer;
use super::{SchemaVersion, Time};

/// The tenures: `metad history`, and `/api/v1/history`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HistoryDocument {
    /// The form of this document.
    pub schema_version: SchemaVersion,
    /// Who says so.
    pub answerer: Answerer,
    /// How long ago the store last confirmed them; `None`: the answerer has not read them yet.
    pub age_ms: Option<u64>,
    /// The token of who leads, if somebody does and the answerer's view is not outdated. A tenure without an end that has
    /// another token has ended, and how has not been written yet.
    pub leader_token: Option<u64>,
    /// Oldest first.
    pub tenures: Vec<Tenure>,
    /// Are there older ones, which only a limit has left out?
    pub has_older: bool,
}

/// Which tenures are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Those that had not ended so long ago.
    pub since_ms: u64,
    /// Only those with a lower token.
    pub before: u64,
    /// At most so many, the newest ones.
    pub limit: usize,
}

/// One tenure: from its token to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tenure {
    /// Its token.
    pub token: u64,
    /// Who led.
    pub node: String,
    /// Its data dir's identity.
    pub uuid: String,
    /// The start of that data dir.
    pub incarnation: u64,
    /// Where it answered gRPC.
    pub address: String,
    /// When its main loop started, by its own wall clock.
    pub from: Time,
    /// When it ended; this and what is known of the end are `None` while it has not.
    pub to: Option<Time>,
    /// Why it ended.
    pub reason: Option<String>,
    /// Was that planned?
    pub planned: Option<bool>,
    /// How long there had been no leader before; `None`: unknown.
    pub gap_ms: Option<u64>,
    /// May it have been longer? The one before left without a word.
    pub gap_at_least: bool,
    /// Who led before; `None`: unknown.
    pub previous: Option<String>,
    /// What a person should know besides.
    pub detail: Option<String>,
    /// What the leader knew when its main loop was told to stop.
    pub seen: Option<Seen>,
    /// Who says how it ended.
    pub said_by: Option<SaidBy>,
}

/// What a leader knew when its main loop was told to stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// How old the last renewal was that its lease rested on.
    pub ack_age_ms: Option<u64>,
    /// The member of etcd that answered the slowest, or had been silent for the longest.
    pub slowest: Option<String>,
    /// How long that took, or had been taking.
    pub slowest_ms: Option<u64>,
    /// How late its driver was at worst in the last half minute.
    pub tick_delay_ms: u64,
}

/// Who says how a tenure ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SaidBy {
    /// The leader itself.
    Holder,
    /// The one that followed, by what it saw.
    Successor,
}

// === impl HistoryDocument ===

impl HistoryDocument {
    /// The tenures that are asked for, as this node has read them.
    pub fn of(status: &Status, past: &Past, now: Instant, asked: Selection) -> Self {
        let Selection { since_ms, before, limit } = asked;
        let rows = past.since(wall_clock_ms(), since_ms).rev();
        let mut rows = rows.filter(|row| row.token.get() < before);
        let tenure = |row: &Arc<Row>| Tenure::of(row, past.before(row));
        let mut tenures: Vec<_> = rows.by_ref().take(limit).map(tenure).collect();
        tenures.reverse();
        Self {
            schema_version: SchemaVersion,
            answerer: Answerer::of(status, now),
            age_ms: past.age(now).map(millis),
            leader_token: status.known_leader(now).map(|leader| leader.token.get()),
            tenures,
            has_older: rows.next().is_some(),
        }
    }
}

// === impl Selection ===

impl Selection {
    /// All that had not ended so long ago.
    pub fn since(since_ms: u64) -> Self {
        Self { since_ms, before: u64::MAX, limit: usize::MAX }
    }
}

// === impl Tenure ===

impl Tenure {
    /// A row of the history, after the one before it.
    pub fn of(row: &Row, before: Option<&Row>) -> Self {
        let gap = Gap::before(row, before);
        let end = row.end.as_ref();
        Self {
            token: row.token.get(),
            node: row.holder.node.clone(),
            uuid: row.holder.uuid.to_string(),
            incarnation: row.holder.incarnation.0,
            address: row.address.clone(),
            from: Time(row.from_ms),
            to: end.map(|e| Time(e.at_ms)),
            reason: end.map(|e| e.reason.as_str().to_owned()),
            planned: end.map(|e| e.reason.is_planned()),
            gap_ms: gap.map(|g| g.ms),
            gap_at_least: gap.is_some_and(|g| g.at_least),
            previous: row.previous.clone(),
            detail: end.map(|e| e.detail.clone()).filter(|d| !d.is_empty()),
            seen: end.and_then(|e| e.seen.clone()).map(Seen::from),
            said_by: end.map(|e| SaidBy::of(e.by_holder)),
        }
    }
}

// === impl Seen ===

impl From<row::Seen> for Seen {
    fn from(seen: row::Seen) -> Self {
        let row::Seen { ack_age_ms, slowest, slowest_ms, tick_delay_ms } = seen;
        Self { ack_age_ms, slowest, slowest_ms, tick_delay_ms }
    }
}

// === impl SaidBy ===

impl SaidBy {
    pub(super) fn of(by_holder: bool) -> Self {
        if by_holder { Self::Holder } else { Self::Successor }
    }
}
