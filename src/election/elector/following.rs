//! The way to the record: the join, what the store shows, and the claim.

use std::time::Duration;

use super::{Elector, RETRY_PAUSE, State};
use crate::clock::Instant;
use crate::election::event::{Action, ClaimAnswer, Joined};
use crate::election::history::{Ending, Reason, Transition};
use crate::election::lease::Lease;
use crate::election::readiness::Unready;
use crate::election::record::{Leader, Nonce, Revision, Token, View};

/// How soon a claim that the store refuses (it is full, or we have no permission) is tried again.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);

// === impl Elector: what the store shows ===

impl Elector {
    pub(super) fn on_joined(&mut self, now: Instant, joined: Joined) {
        if !matches!(self.state, State::Joining { .. }) {
            return;
        }
        let lease = Lease::granted(joined.lease, joined.ttl, joined.stamp);
        self.renewal.restart(joined.stamp, lease.timing().candidate_cadence(), joined.raft_term);
        self.lease = Some(lease);
        self.joined_at = Some(now);
        self.generation = joined.generation;
        // While the join revoked our old leases, the watch may have shown what happened after it.
        if joined.view.revision >= self.view.revision {
            self.view = joined.view;
        }
        self.state = State::Follower { claim_at: None };
        self.actions.push_back(Action::Report(Transition::Joined));
        if lease.is_over(now) {
            return self.rejoin(now);
        }
        self.consider(now);
    }

    pub(super) fn on_join_failed(&mut self, now: Instant, ending: Option<Ending>) {
        let State::Joining { retry_at: retry_at @ None, .. } = &mut self.state else {
            return;
        };
        match ending {
            Some(ending) => self.stop(ending),
            None => *retry_at = Some(now + RETRY_PAUSE),
        }
    }

    /// Takes in a view. Views travel on several connections; an older one is ignored.
    pub(super) fn observe(&mut self, now: Instant, view: View) {
        if view.revision >= self.view.revision {
            self.view = view;
            self.consider(now);
        }
    }

    /// Brings the state into line with the view. All ways to a main loop lead through here: an own claim, a
    /// reclaimed record and a hand-over are treated alike.
    pub(super) fn consider(&mut self, now: Instant) {
        match self.state {
            State::Follower { .. } | State::Claiming { .. } => {
                if let Some(token) = self.record_for_us() {
                    return self.begin(now, token);
                }
                self.check_registration(now);
            }
            State::Starting { .. } => self.start_when_allowed(now),
            State::Leading { token } => {
                self.look_for_better(now);
                self.check_record(now, token);
            }
            State::Stopping { token, .. } => self.check_record(now, token),
            State::Choosing { .. } | State::HandingOver { .. } | State::Resigning { .. } => {}
            State::Joining { .. } | State::Stopped(_) => {}
        }
    }

    /// The record that a main loop may start on: names us, this incarnation, the lease we hold *now*, and was
    /// never started or given up by this process.
    fn record_for_us(&self) -> Option<Token> {
        let lease = self.lease?;
        let tenure = self.view.leader.tenure_of(&self.settings.me, lease.id())?;
        Some(tenure.token).filter(|t| self.floor.is_none_or(|floor| *t > floor))
    }

    fn check_registration(&mut self, now: Instant) {
        if self.view.revision < self.generation {
            return; // older than our registration: says nothing about it
        }
        let mine = self.view.member(&self.settings.me.node);
        let lease = self.lease.map(|l| l.id());
        match mine {
            None => return self.rejoin(now), // it hangs on our lease, so that is gone too
            Some(m) if m.registration.member.uuid != self.settings.me.uuid => {
                let other =
                    format!("{} (data dir {})", m.registration.rpc_address, m.registration.member.uuid);
                return self.stop(Ending::with_detail(Reason::NodeIdInUse, other));
            }
            Some(m) if Some(m.registration.lease) != lease => return self.rejoin(now),
            Some(m) => self.generation = m.generation,
        }
        match self.state {
            // Our registration has moved on, so the claim that demanded the old one can never commit any more.
            State::Claiming { generation, .. } if generation != self.generation => {
                self.state = State::Follower { claim_at: None };
                self.campaign(now);
            }
            State::Follower { .. } => self.campaign(now),
            _ => {}
        }
    }
}

// === impl Elector: the claim ===

impl Elector {
    pub(super) fn campaign(&mut self, now: Instant) {
        let place = match self.view.leader {
            Leader::Vacant if self.view.freeze.is_none() && !self.observes() => self.place(),
            Leader::Vacant | Leader::Held(_) | Leader::Foreign(_) => None,
        };
        let delay = place.map(|place| self.claim_delay(place));
        let State::Follower { claim_at } = &mut self.state else {
            return;
        };
        let Some(delay) = delay else {
            *claim_at = None;
            return;
        };
        let due = *claim_at.get_or_insert(now + delay);
        let Some(lease) = self.lease.filter(|_| now.reached(due)) else {
            return;
        };
        if !lease.allows_start(now) {
            *claim_at = Some(now + lease.timing().retry_cadence());
            return self.renewal.hurry(now);
        }
        self.nonce.0 += 1;
        self.state = State::Claiming { nonce: self.nonce, generation: self.generation, look_at: None };
        self.actions.push_back(Action::Claim {
            nonce: self.nonce,
            lease: lease.id(),
            generation: self.generation,
        });
    }

    /// Our place in the queue for a vacancy. One that is not ready queues behind everybody who might be, or not at all.
    fn place(&self) -> Option<usize> {
        let rank = self.view.rank(&self.settings.me.node)?;
        match &self.unready {
            None => Some(rank),
            Some(unready) if unready.claims_last => Some(rank + self.view.members.len()),
            Some(_) => None,
        }
    }

    /// A claim that was sent stays as it is: whoever wins starts its main loop, or hands over after `start_timeout`.
    pub(super) fn on_readiness(&mut self, now: Instant, unready: Option<Unready>) {
        let before = self.place();
        self.unready = unready;
        self.watch_warm_up(now, false);
        if before == self.place() {
            return;
        }
        if let State::Follower { claim_at } = &mut self.state {
            *claim_at = None;
            self.campaign(now);
        }
    }

    pub(super) fn on_claimed(
        &mut self,
        now: Instant,
        nonce: Nonce,
        answer: ClaimAnswer,
        seen: Option<Box<View>>,
    ) {
        if let Some(view) = seen {
            self.observe(now, *view); // a view of our record is the win itself
        }
        let State::Claiming { nonce: current, look_at, .. } = &mut self.state else {
            return;
        };
        if *current != nonce {
            return;
        }
        match answer {
            ClaimAnswer::Won(token) if self.floor.is_none_or(|floor| token > floor) => self.begin(now, token),
            ClaimAnswer::Lost => {
                // The view that led to the claim is refuted; a newer one is asked for.
                self.state = State::Follower { claim_at: Some(now + RETRY_PAUSE) };
                self.actions.push_back(Action::Report(Transition::ClaimLost));
                self.read();
            }
            ClaimAnswer::Refused => {
                // Whoever asks next is refused as well; the driver says what the store said.
                self.state = State::Follower { claim_at: Some(now + REFUSED_PAUSE) };
                self.read();
            }
            ClaimAnswer::Won(_) | ClaimAnswer::Unknown => {
                *look_at = Some(now);
                self.actions.push_back(Action::Report(Transition::OutcomeUnknown));
                self.look_again(now);
            }
        }
    }

    /// The claim's outcome is unknown: it may have happened, or may happen yet. Read, and cancel it by rewriting
    /// the registration whose generation it demands. Whatever a later view shows is then final: the record
    /// is ours, or our generation has moved on and it never will be.
    pub(super) fn look_again(&mut self, now: Instant) {
        let Some(lease) = self.lease else { return };
        if let State::Claiming { generation, look_at: look_at @ Some(_), .. } = &mut self.state {
            *look_at = Some(now + RETRY_PAUSE);
            let expected = *generation;
            self.actions.push_back(Action::Register { lease: lease.id(), expected });
            self.read();
        }
    }

    pub(super) fn on_registered(&mut self, generation: Option<Revision>) {
        match (&self.state, generation) {
            (State::Claiming { look_at: Some(_), .. }, _) => self.read(),
            (State::Leading { .. }, Some(generation)) => self.generation = generation,
            _ => {}
        }
    }
}
