//! Fail-back: a leader makes way for a member of a higher priority that has come back.
//!
//! Off unless configured, because a change of leader is never free. It is asked first whether it is ready, while
//! our main loop goes on: a fail-back that does not come about costs nothing. And it comes at the earliest
//! [`LEAD_AT_LEAST`] after our main loop began, so two of them are never closer together than that, however
//! often a member comes and goes.

use std::time::Duration;

use super::Elector;
use super::leading::successor_of;
use crate::clock::Instant;
use crate::election::event::Ready;
use crate::election::history::{Ending, Reason};
use crate::election::probe::APART;
use crate::election::record::{MemberId, Token};

/// How long a leader leads before it makes way for anybody.
const LEAD_AT_LEAST: Duration = Duration::from_secs(300);
/// How soon one that was not ready is asked again.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// Whom a leader may make way for, and when.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub(super) struct Failback {
    not_before: Option<Instant>,
    better: Option<Better>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Better {
    member: MemberId,
    ask_at: Instant,
    /// It is being asked. An answer to another question is none to ours.
    is_asked: bool,
}

// === impl Failback ===

impl Failback {
    /// A main loop begins now.
    pub(super) fn may_begin_after(&mut self, now: Instant) {
        self.not_before = Some(now + LEAD_AT_LEAST);
    }

    /// When somebody is to be asked.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.better.as_ref().map(|b| b.ask_at)
    }
}

// === impl Elector: fail-back ===

impl Elector {
    /// Keeps its eye on the best member above our own priority. One that restarts has to prove itself anew.
    pub(super) fn look_for_better(&mut self, now: Instant) {
        let Some(delay) = self.settings.failback_delay else { return };
        if self.view.freeze.is_some() {
            self.failback.better = None; // looked for anew when the freeze ends
            return;
        }
        let Some(ours) = self.view.member(&self.settings.me.node).map(|m| m.registration.priority) else {
            return;
        };
        let above = self.view.members.iter().filter(|m| m.registration.priority > ours);
        let best = above.min_by_key(|m| self.view.rank(&m.registration.member.node));
        let best = best.map(|m| m.registration.member.clone());
        if self.failback.better.as_ref().map(|b| &b.member) == best.as_ref() {
            return;
        }
        let ask_at = self.failback.not_before.map_or(now + delay, |at| at.later(now + delay));
        self.failback.better = best.map(|member| Better { member, ask_at, is_asked: false });
    }

    pub(super) fn fail_back_when_due(&mut self, now: Instant, token: Token) {
        let Some(better) = self.failback.better.as_mut().filter(|b| now.reached(b.ask_at)) else { return };
        (better.ask_at, better.is_asked) = (now + ASK_AGAIN_AFTER, true);
        let wanted = Some(better.member.node.clone());
        self.ask(token, wanted);
    }

    /// The better member has answered. Only if it is ready, and has been healthy for long enough not to hand the record
    /// back soon, does our main loop end.
    pub(super) fn make_way(&mut self, now: Instant, token: Token, ready: &[Ready]) {
        let Some(better) = self.failback.better.as_mut().filter(|b| b.is_asked) else { return };
        better.is_asked = false;
        let wanted = better.member.node.clone();
        let proven = self.settings.failback_delay.unwrap_or_default().max(APART);
        let ready: Vec<Ready> = ready.iter().filter(|r| r.healthy_for >= proven).cloned().collect();
        let successor = successor_of(&self.view, &self.settings.me.node, Some(&wanted), &ready);
        let Some(successor) = successor else { return };
        self.stop_for(now, token, Ending::of(Reason::FailedBack), successor, Some(wanted));
    }
}
