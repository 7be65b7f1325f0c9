//! One look at an etcd member: can its host be reached, what does it say of itself, can it decide?

use std::time::Duration;

use super::{Refusal, StoreError};
use crate::clock::Instant;

/// One member, as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Its URL, as it was configured.
    pub place: String,
    /// When it was asked.
    pub at: Instant,
    /// What became of a new connection.
    pub reach: Reach,
    /// What it says of itself, and how long that took; or why it says nothing.
    pub status: Result<(MemberStatus, Duration), String>,
    /// How long it took to answer a question that needs a quorum; or why it did not.
    pub decided: Result<Duration, StoreError>,
}

/// What became of a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It was accepted: the host is up, and something listens there.
    Open,
    /// It was refused: the host is up, and nothing listens there.
    Refused,
    /// Nothing came back: the host, or the way to it, is down.
    Nothing,
    /// It could not be tried: this process may open no more files.
    NotTried,
}

/// What a member says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberStatus {
    /// Its id.
    pub member: u64,
    /// Its cluster's id.
    pub cluster: u64,
    /// The leader's id as it sees it; 0: none.
    pub leader: u64,
    /// The raft term.
    pub raft_term: u64,
    /// Its revision.
    pub revision: u64,
    /// Its version.
    pub version: String,
    /// The size of its database file.
    pub db_size: u64,
    /// How much of it is in use.
    pub db_in_use: u64,
    /// Its quota, where it tells (from 3.6 on).
    pub quota: Option<u64>,
    /// Does it only listen?
    pub is_learner: bool,
    /// The alarms that stand in its cluster. Its status tells them for nothing; a request for the alarms goes through
    /// raft, and every member syncs its log for it.
    pub alarms: Vec<Alarm>,
}

/// An alarm that stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alarm {
    /// Who raised it.
    pub member: u64,
    /// `NOSPACE`, `CORRUPT`, or a number.
    pub kind: String,
}

// === impl Probe ===

impl Probe {
    /// What it says of itself, if anything.
    pub fn says(&self) -> Option<&MemberStatus> {
        self.status.as_ref().ok().map(|(status, _)| status)
    }

    /// Does it answer anything?
    pub fn answers(&self) -> bool {
        self.status.is_ok() || self.decided.is_ok() || self.refusal().is_some()
    }

    /// Why it refuses our login or our token, if it does.
    pub fn refusal(&self) -> Option<&str> {
        match &self.decided {
            Err(StoreError::Refused(Refusal::Denied, why)) => Some(why),
            _ => None,
        }
    }

    /// Does it work, as far as can be seen: does it know a leader of its cluster, and let us in?
    pub fn is_well(&self) -> bool {
        let has_leader = self.says().map_or(self.answers(), |status| status.leader != 0);
        has_leader && self.refusal().is_none()
    }

    /// Is its cluster full?
    pub fn is_full(&self) -> bool {
        self.says().is_some_and(|status| status.alarms.iter().any(|a| a.kind == "NOSPACE"))
    }
}

// === impl Alarm ===

impl Alarm {
    /// One of the errors in a status, if it is an alarm: "memberID:10276657743932975437 alarm:NOSPACE ". One that no
    /// member has raised names none.
    #[cfg(feature = "node")]
    pub(super) fn read(error: &str) -> Option<Self> {
        let field = |name| error.split_whitespace().find_map(|word| word.strip_prefix(name));
        let member = field("memberID:").and_then(|id| id.parse().ok()).unwrap_or(0);
        Some(Self { member, kind: field("alarm:")?.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_are_read_from_the_errors_of_a_status() {
        let alarm = |kind: &str| Some(Alarm { member: 10_276_657_743_932_975_437, kind: kind.into() });
        assert_eq!(Alarm::read("memberID:10276657743932975437 alarm:NOSPACE "), alarm("NOSPACE"));
        assert_eq!(Alarm::read("memberID:10276657743932975437  alarm:CORRUPT"), alarm("CORRUPT"));
        assert_eq!(Alarm::read("alarm:NOSPACE "), Some(Alarm { member: 0, kind: "NOSPACE".into() }));
        assert_eq!(Alarm::read("etcdserver: no leader"), None);
    }
}
