//! A member whose probes fail: as the leader it makes way for a healthy one, as a candidate it claims last. One whose first
//! probe has not been answered yet claims after all that are healthy, and before those.
//!
//! The leader asks first, while its main loop goes on: where nobody is better, it leads on and says so. Two changes of
//! leader because of a probe are [`APART`] apart, unless the next one has been healthy for longer than that: what is
//! wrong may be wrong everywhere, and each change costs something. The leader record tells when the last one was.

use std::time::Duration;

use super::leading::successor_of;
use super::{Elector, State};
use crate::clock::Instant;
use crate::election::event::{Action, Ready};
use crate::election::history::{Ending, Reason, Transition};
use crate::election::lease::RANK_DELAY;
use crate::election::probe::{APART, MemberHealth};
use crate::election::record::{LeaderRecord, Token};

/// How soon the members are asked again, the first few times: whoever has too little of its lease left renews it now.
const ASK_AGAIN_SOON: Duration = Duration::from_millis(200);
/// How often that is, before we say that nobody is better.
const ASKED_SOON: u32 = 3;
/// How soon they are asked again after that.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// How much later than all others a failing member claims a vacancy: a healthy one may be slow, too.
const FAILING_DELAY: Duration = Duration::from_secs(1);

/// Why nobody takes over.
const FROZEN: &str = "the election is frozen";

/// Our own health, and what we have done about it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub(super) struct OwnHealth {
    health: MemberHealth,
    /// Until then only one that has been healthy for [`APART`] is better than we are.
    choosy_until: Option<Instant>,
    /// When the others are asked whether one of them would take over.
    ask_at: Option<Instant>,
    asked: u32,
    /// We have said that we lead on.
    has_said: bool,
}

// === impl OwnHealth ===

impl OwnHealth {
    pub(super) fn health(&self) -> &MemberHealth {
        &self.health
    }

    /// When the others are to be asked.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.ask_at
    }

    /// Our main loop begins now, on this record.
    pub(super) fn leads(&mut self, now: Instant, record: Option<&LeaderRecord>) {
        let handed = record.filter(|r| r.probe_handed_ms > 0);
        let ago = handed.map(|r| Duration::from_millis(r.acquired_ms.saturating_sub(r.probe_handed_ms)));
        self.choosy_until = ago.map(|ago| now + APART.saturating_sub(ago));
        self.judge(now);
    }

    fn judge(&mut self, now: Instant) {
        let has_failed = self.health.failing().is_some_and(|f| f.has_failed);
        if !has_failed {
            (self.ask_at, self.asked, self.has_said) = (None, 0, false);
        } else if self.ask_at.is_none() {
            self.ask_at = Some(now);
        }
    }

    /// The others are asked now.
    fn asks(&mut self, now: Instant) {
        self.asked += 1;
        self.ask_at = Some(now + if self.asked < ASKED_SOON { ASK_AGAIN_SOON } else { ASK_AGAIN });
    }

    /// Those of them that are better than we are.
    pub(super) fn better(&self, now: Instant, ready: &[Ready]) -> Vec<Ready> {
        let is_choosy = self.choosy_until.is_some_and(|until| !now.reached(until));
        let is_better = |r: &&Ready| !is_choosy || r.healthy_for >= APART;
        ready.iter().filter(is_better).cloned().collect()
    }
}

// === impl Elector: probes ===

impl Elector {
    /// How long we leave a vacancy to others.
    pub(super) fn claim_delay(&self, rank: usize) -> Duration {
        let ranks = |n: usize| RANK_DELAY * u32::try_from(n).unwrap_or(u32::MAX);
        match self.probing.health {
            MemberHealth::Failing(_) => FAILING_DELAY + ranks(self.view.members.len() + rank),
            MemberHealth::Untried => ranks(self.view.members.len() + rank),
            MemberHealth::Unprobed | MemberHealth::Healthy { .. } => ranks(rank),
        }
    }

    pub(super) fn on_probed(&mut self, now: Instant, health: MemberHealth) {
        let delay_before = self.claim_delay(0);
        self.probing.health = health;
        match self.state {
            State::Leading { token } => {
                self.probing.judge(now);
                self.ask_for_healthy_when_due(now, token);
            }
            State::Follower { .. } if delay_before != self.claim_delay(0) => {
                self.state = State::Follower { claim_at: None };
                self.campaign(now);
            }
            _ => {}
        }
    }

    pub(super) fn ask_for_healthy_when_due(&mut self, now: Instant, token: Token) {
        if !self.probing.ask_at.is_some_and(|at| now.reached(at)) {
            return;
        }
        self.probing.asks(now);
        if self.view.freeze.is_some() {
            return self.lead_on(token, FROZEN);
        }
        self.ask(token, None);
    }

    /// Has our probe failed? Then the best of those that are better takes over, if there is one.
    pub(super) fn hand_over_to_healthy(&mut self, now: Instant, token: Token, ready: &[Ready]) -> bool {
        let Some(failing) = self.probing.health.failing().filter(|f| f.has_failed).cloned() else {
            return false;
        };
        if self.view.freeze.is_some() {
            self.lead_on(token, FROZEN); // it came while they were asked
            return true;
        }
        let better = self.probing.better(now, ready);
        match successor_of(&self.view, &self.settings.me.node, None, &better) {
            Some(successor) => {
                let ending = Ending::with_detail(Reason::ProbeFailed, failing.told(now));
                self.stop_for(now, token, ending, successor, None);
            }
            None if ready.is_empty() => self.lead_on(token, "no other member is ready and healthy"),
            None => self.lead_on(
                token,
                "the leader changed because of a probe less than 5 minutes ago, and no other member has been healthy \
                 for longer than that",
            ),
        }
        true
    }

    /// Says it once, until the probe succeeds.
    fn lead_on(&mut self, token: Token, why: &'static str) {
        if self.probing.asked >= ASKED_SOON && !self.probing.has_said {
            self.probing.has_said = true;
            self.actions.push_back(Action::Report(Transition::LeadsOn(token, why)));
        }
    }
}
