//! What metad says about its cluster, one serde type for each thing: HTTP and `-o json` show these documents, and the
//! messages of gRPC are filled from the same values ([`wire`]). `src/docs/json.schema.json` describes the JSON.
//!
//! Points in time are RFC 3339 in UTC, durations end in `_ms` or `_secs`, and what is unknown is `null`, never left out.
//! What stands in the store has a form of its own, that of its codec.

pub mod advice;
pub mod checks;
pub mod headroom;
pub mod member;
pub mod node;
pub mod tenure;
pub mod wire;

#[cfg(test)]
mod tests;

use std::fmt;

use serde::{Serialize, Serializer};

use crate::clock::{Instant, rfc3339, wall_clock_ms};
use crate::election::status::Status;
use member::{Answerer, Foreign, FreezeView, Gone, Leader, Member};
use tenure::Tenure;

/// The form of the documents. It grows when a field changes its meaning or goes; new fields may come at any time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchemaVersion;

/// A point in time, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub u64);

/// Who leads and who may: `metad status`, and a part of `/api/v1/state`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StatusDocument {
    /// The form of this document.
    pub schema_version: SchemaVersion,
    /// Who says so.
    pub answerer: Answerer,
    /// The leader, if there is one and the answerer's view is not outdated.
    pub leader: Option<Leader>,
    /// Who led when the store last answered; only where the view is outdated.
    pub last_known_leader: Option<Leader>,
    /// Who queues where only the leader record belongs.
    pub foreign: Option<Foreign>,
    /// The freeze, if the election is frozen.
    pub freeze: Option<FreezeView>,
    /// The registered members.
    pub members: Vec<Member>,
    /// The members that have gone within the last hour.
    pub gone: Vec<Gone>,
}

/// Who leads: `metad leader`, and `/leader`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LeaderDocument {
    /// The form of this document.
    pub schema_version: SchemaVersion,
    /// Who says so.
    pub answerer: Answerer,
    /// The leader, if there is one and the answerer's view is not outdated.
    pub leader: Option<Leader>,
    /// Who led when the store last answered; only where the view is outdated.
    pub last_known_leader: Option<Leader>,
    /// Who queues where only the leader record belongs.
    pub foreign: Option<Foreign>,
    /// The freeze, if the election is frozen.
    pub freeze: Option<FreezeView>,
}

/// Who may lead: `metad members`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MembersDocument {
    /// The form of this document.
    pub schema_version: SchemaVersion,
    /// Who says so.
    pub answerer: Answerer,
    /// The registered members.
    pub members: Vec<Member>,
    /// The members that have gone within the last hour.
    pub gone: Vec<Gone>,
}

/// One line of `metad watch`: how things are after a change.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChangeDocument {
    /// The form of this document.
    pub schema_version: SchemaVersion,
    /// When it was heard of.
    pub time: Time,
    /// Who says so.
    pub answerer: Answerer,
    /// The leader, if there is one and the answerer's view is not outdated.
    pub leader: Option<Leader>,
    /// Who led when the store last answered; only where the view is outdated.
    pub last_known_leader: Option<Leader>,
    /// The freeze, if the election is frozen.
    pub freeze: Option<FreezeView>,
    /// The registered members.
    pub members: Vec<Member>,
    /// The tenure that ended last, as far as the answerer has read the history.
    pub last_ended: Option<Tenure>,
}

// === impl SchemaVersion ===

impl SchemaVersion {
    /// As a number.
    pub const NUMBER: u32 = 1;
}

impl Serialize for SchemaVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(Self::NUMBER)
    }
}

// === impl Time ===

impl Time {
    /// What this machine's wall clock says.
    pub fn now() -> Self {
        Self(wall_clock_ms())
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&rfc3339(self.0))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

// === impl StatusDocument ===

impl StatusDocument {
    /// As this node sees it. `look` is the command that shows a foreign candidate; `gone`: whom it has seen go, and when.
    pub fn of(status: &Status, look: &str, gone: Vec<(String, u64)>, now: Instant) -> Self {
        (LeaderDocument::of(status, look, now), MembersDocument::of(status, gone, now)).into()
    }
}

// === impl LeaderDocument ===

impl LeaderDocument {
    /// As this node sees it. `look` is the command that shows a foreign candidate.
    pub fn of(status: &Status, look: &str, now: Instant) -> Self {
        Self {
            schema_version: SchemaVersion,
            answerer: Answerer::of(status, now),
            leader: Leader::of(status, now),
            last_known_leader: Leader::last_known(status, now),
            foreign: Foreign::of(status, look),
            freeze: status.freeze().cloned().map(Into::into),
        }
    }
}

// === impl MembersDocument ===

impl MembersDocument {
    /// As this node sees it; `gone`: whom it has seen go, and when.
    pub fn of(status: &Status, gone: Vec<(String, u64)>, now: Instant) -> Self {
        Self {
            schema_version: SchemaVersion,
            answerer: Answerer::of(status, now),
            members: Member::all(status, now),
            gone: Gone::all(gone),
        }
    }
}
