//! What the data dir remembers of the store's age, so that the next start refuses a store that went back in time.
//!
//! The revision of our newest view is put on disk at each change of leader (a token must never be given out again), once
//! in a minute while it grows, and when we leave. What was seen in the last minute before a crash is not remembered.

use std::time::Duration;

use super::{Driver, joining};
use crate::clock::Instant;
use crate::election::record::{Revision, Token, View};

/// How often a revision that grows is put on disk.
const EVERY: Duration = Duration::from_secs(60);
/// How long it may take when we leave.
const LEAVE_TIMEOUT: Duration = Duration::from_millis(500);

/// What was put on disk last.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    revision: Revision,
    token: Option<Token>,
    at: Option<Instant>,
}

impl Remembered {
    /// The revision that has to be put on disk now.
    fn due(&mut self, now: Instant, view: &View) -> Option<Revision> {
        let token = view.leader.tenure().map(|t| t.token);
        let is_new_leader = token.is_some() && token != self.token;
        let is_time = self.at.is_none_or(|at| now.since(at) >= EVERY);
        if view.revision <= self.revision || !(is_new_leader || is_time) {
            return None;
        }
        *self = Self { revision: view.revision, token: token.or(self.token), at: Some(now) };
        Some(view.revision)
    }
}

impl Driver {
    /// The revision of our newest view.
    pub(super) fn newest(&self) -> Revision {
        self.elector.view().revision
    }

    /// Puts it on disk, if it is time to.
    pub(super) fn remember(&mut self, now: Instant) {
        if let Some(revision) = self.remembered.due(now, self.elector.view()) {
            self.parts.tasks.spawn(Box::pin(joining::note_revision(self.parts.clone(), revision)));
        }
    }

    /// Puts it on disk before we leave.
    pub(super) async fn remember_for_good(&mut self) {
        if self.newest() > self.remembered.revision {
            let noted = joining::note_revision(self.parts.clone(), self.newest());
            // A disk that hangs must not keep us here; the minute's note is on it.
            let _ = tokio::time::timeout(LEAVE_TIMEOUT, noted).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::election::lease::LeaseId;
    use crate::election::record::{Incarnation, Leader, LeaderRecord, MemberId, MemberUuid, Nonce, Tenure};

    fn at(secs: u64) -> Instant {
        Instant::from_millis(secs * 1000)
    }

    fn view(revision: u64, token: u64) -> View {
        let holder = MemberId { node: "a".into(), uuid: MemberUuid(1), incarnation: Incarnation(1) };
        let record = LeaderRecord {
            holder,
            address: String::new(),
            nonce: Nonce(1),
            ttl: Duration::from_secs(5),
            acquired_ms: 0,
            transitions: 0,
            probe_handed_ms: 0,
        };
        let token = Token::new(Revision(token)).expect("not zero");
        let tenure = Tenure { record, token, lease: LeaseId(1), rewritten: false };
        View {
            revision: Revision(revision),
            leader: Leader::Held(Box::new(tenure)),
            members: vec![],
            ..View::default()
        }
    }

    #[test]
    fn a_new_leader_is_remembered_at_once_and_a_growing_revision_once_a_minute() {
        let mut r = Remembered::default();
        assert_eq!(r.due(at(0), &view(7, 7)), Some(Revision(7)));
        assert_eq!(r.due(at(1), &view(8, 7)), None, "the same leader, a second later");
        assert_eq!(r.due(at(2), &view(9, 9)), Some(Revision(9)), "another leader");
        assert_eq!(r.due(at(61), &view(10, 9)), None);
        assert_eq!(r.due(at(62), &view(10, 9)), Some(Revision(10)), "a minute later");
        assert_eq!(r.due(at(200), &view(10, 9)), None, "nothing new");
        assert_eq!(r.due(at(300), &view(3, 3)), None, "an older view is not remembered");
    }
}
