//! Requests under way: to the store or to the other member, and back; late, or never.
//!
//! A request of which an identical copy is already under way is not sent a second time, and a member has one
//! renewal under way at most: a retry of the same compare changes nothing.

use std::sync::Arc;
use std::time::Duration;

use metad::clock::Instant;
use metad::election::elector::State;
use metad::election::event::{ClaimAnswer, Event as Heard, HandOverAnswer, Ready, RenewAnswer};
use metad::election::lease::LeaseId;
use metad::election::record::Token;
use metad::protocol::effects::Purpose as AskedFor;
use metad::protocol::transactions::{self, Answer};
use metad::store::memory::MemoryState;
use metad::store::{Request, Response, StoreError};

use crate::model::driving::Run;
use crate::model::facts::Fact;
use crate::model::scenario::{Kind, Mutant};
use crate::model::world::{Call, Freed, JoinStep, Purpose, Stage, Stray, keys};

// === impl Run: requests ===

impl Run<'_> {
    /// A request leaves.
    pub fn send(&mut self, n: usize, purpose: Purpose, request: Option<Request>) {
        let stamp = self.world.now();
        let Some(p) = self.process(n) else { return };
        let call = Call { purpose, stamp, request, stage: Stage::Sent };
        let same =
            |c: &Call| c.stage == Stage::Sent && c.purpose == call.purpose && c.request == call.request;
        let renews = |c: &Call| c.purpose.kind() == Kind::Renew && call.purpose.kind() == Kind::Renew;
        if !p.calls.iter().any(|c| same(c) || renews(c)) {
            p.calls.push(call);
        }
    }

    /// The first request that is answered in the step that asks.
    pub fn atomic_call(&self, n: usize) -> Option<usize> {
        let calls = &self.world.process(n)?.calls;
        calls.iter().position(|c| self.plan.atomic.contains(&c.purpose.kind()))
    }

    /// It arrives, and its answer too.
    pub fn exchange(&mut self, n: usize, i: usize) {
        self.deliver(n, i);
        self.hear(n, i);
    }

    /// It arrives.
    pub fn deliver(&mut self, n: usize, i: usize) {
        let Some(call) = self.world.process(n).map(|p| p.calls[i].clone()) else { return };
        let stage = match call.request {
            Some(request) => Stage::Answered(self.arrive(&call.purpose, &request)),
            None => Stage::Prepared(match call.purpose {
                Purpose::Prepare(token) => self.ask_other(n, token),
                _ => Vec::new(),
            }),
        };
        if let Some(p) = self.process(n) {
            p.calls[i].stage = stage;
        }
    }

    /// One without a sender arrives.
    pub fn deliver_stray(&mut self, i: usize) {
        let stray = self.world.strays.remove(i);
        let answer = self.arrive(&stray.purpose, &stray.request);
        if matches!(&answer, Ok(Response::Txn(reply)) if !reply.succeeded) {
            self.facts.add(Fact::LateRequestOfDeadRefused);
        }
    }

    /// The sender takes it for lost: it hears "outcome unknown", and the request goes on without it.
    pub fn lose(&mut self, n: usize, i: usize) {
        self.world.spent.losses += 1;
        let Some(p) = self.process(n) else { return };
        let call = p.calls.remove(i);
        if matches!(call.purpose, Purpose::Asked(AskedFor::HandOver(_))) && call.stage != Stage::Sent {
            self.facts.add(Fact::HandOverLandedUnheard);
        }
        let unknown = Err(StoreError::Unknown("no answer".into()));
        let purpose = call.purpose.clone();
        self.stray(n, call);
        match purpose {
            Purpose::Prepare(_) => self.feed(n, Some(Heard::Prepared(Vec::new()))),
            purpose => self.answer(n, purpose, self.world.now(), &unknown),
        }
    }

    /// What a dead or impatient sender leaves on its way. What cannot do anything any more is dropped.
    pub fn stray(&mut self, node: usize, call: Call) {
        let Call { purpose, request: Some(request), stage: Stage::Sent, .. } = call else { return };
        let harmless = matches!(request, Request::Renew(_) | Request::Grant { .. }) || !request.writes();
        let stray = Stray { node, purpose, request };
        if !harmless && !self.world.strays.contains(&stray) {
            self.world.strays.push(stray);
        }
    }

    /// Its answer arrives.
    pub fn hear(&mut self, n: usize, i: usize) {
        let now = self.world.now();
        let Some(p) = self.process(n) else { return };
        let call = p.calls.remove(i);
        let late = call.purpose.kind() == Kind::Renew && now != call.stamp;
        match call.stage {
            Stage::Answered(answer) => {
                let before = self.world.process(n).and_then(|p| p.elector.lease().copied());
                self.answer(n, call.purpose, call.stamp, &answer);
                let after = self.world.process(n).and_then(|p| p.elector.lease().copied());
                if late && before.map(|l| l.holds_until()) != after.map(|l| l.holds_until()) {
                    self.facts.add(Fact::LateAckCounted);
                }
            }
            Stage::Prepared(ready) => self.feed(n, Some(Heard::Prepared(ready))),
            Stage::Sent => {}
        }
    }
}

// === impl Run: the other ends ===

impl Run<'_> {
    /// The store takes a request in.
    fn arrive(&mut self, purpose: &Purpose, request: &Request) -> Answer {
        let (now, mutant) = (self.world.now(), self.plan.mutant);
        let store = Arc::make_mut(&mut self.world.store);
        let held = store.token().is_some();
        let mut answer = store.state.apply(now, request);
        if let (Mutant::AdoptedLease, Request::Grant { lease, .. }) = (mutant, request) {
            answer = answer.or_else(|_| adopt(&mut store.state, now, *lease));
        }
        store.note(held, Some(Freed::Release));
        if let (Purpose::Asked(AskedFor::HandOver(_)), Ok(Response::Txn(reply))) = (purpose, &answer)
            && reply.succeeded
        {
            store.handed = store.token();
            self.facts.add(Fact::HandedOver);
        }
        self.check_write(purpose, &answer);
        answer
    }

    /// A write that happens must be that of the newest tenure.
    fn check_write(&mut self, purpose: &Purpose, answer: &Answer) {
        let (Purpose::Write(token), Ok(Response::Txn(reply))) = (purpose, answer) else { return };
        if !reply.succeeded {
            return self.facts.add(Fact::WriteFenced);
        }
        self.facts.add(Fact::WriteLanded);
        let record = self.world.store.token();
        self.world.broken.stale_write |= record != Some(*token) || self.world.begun != Some(*token);
    }

    /// The other member is asked whether it would take over; it answers from its snapshot, as `rpc` does.
    fn ask_other(&mut self, n: usize, token: Token) -> Vec<Ready> {
        let (now, other) = (self.world.now(), 1 - n);
        let Some(p) = self.world.process(other) else { return Vec::new() };
        let is_seen = p.elector.view().leader.tenure().is_some_and(|t| t.token == token);
        let follows = is_seen && matches!(p.elector.state(), State::Follower { .. });
        if !follows || !p.elector.lease().is_some_and(|l| l.allows_start(now)) {
            return Vec::new();
        }
        let member = self.world.nodes[other].me();
        self.feed(other, Some(Heard::Prepare(token)));
        vec![Ready { member, healthy_for: Duration::MAX }]
    }
}

// === impl Run: answers ===

impl Run<'_> {
    fn answer(&mut self, n: usize, purpose: Purpose, stamp: Instant, answer: &Answer) {
        let event = match purpose {
            Purpose::Asked(asked) => match (&asked, asked.event(&keys(), answer)) {
                (AskedFor::Claim(..), event) => self.claimed(n, event),
                (AskedFor::Release(_), event) => return self.released(n, event),
                (AskedFor::HandOver(_), event) => return self.handed_over(n, event),
                (AskedFor::Read(..) | AskedFor::Register, event) => event,
            },
            Purpose::Join(_) => return self.join_answered(n, stamp, answer),
            Purpose::Renew(lease) => {
                let Some(answer) = renew_answer(answer) else { return };
                let from_receipt = self.plan.mutant == Mutant::DeadlineFromReceipt;
                let stamp = if from_receipt { self.world.now() } else { stamp };
                Heard::Renewed { lease, stamp, answer }
            }
            Purpose::Write(token) => match answer {
                Ok(Response::Txn(reply)) if transactions::refused_by_fence(reply, token) => {
                    Heard::Fenced(token)
                }
                _ => return,
            },
            Purpose::Prepare(_) | Purpose::Goodbye => return,
        };
        self.feed(n, Some(event));
    }

    fn claimed(&mut self, n: usize, event: Heard) -> Heard {
        if let Heard::Claimed { nonce, answer, .. } = &event {
            match answer {
                ClaimAnswer::Lost => self.facts.add(Fact::ClaimLost),
                ClaimAnswer::Unknown => {
                    if let Some(p) = self.process(n) {
                        p.unsure = Some(*nonce);
                    }
                }
                ClaimAnswer::Won(_) | ClaimAnswer::Refused => {}
            }
        }
        event
    }

    fn released(&mut self, n: usize, event: Heard) {
        if event == Heard::Released(false) {
            self.facts.add(Fact::ReleaseUnknown);
            if self.plan.mutant == Mutant::OldTokenAgain {
                self.resume(n);
            }
        }
        self.feed(n, Some(event));
    }

    fn handed_over(&mut self, n: usize, event: Heard) {
        if event == Heard::HandedOver(HandOverAnswer::Unknown) {
            self.facts.add(Fact::HandOverUnknown);
            if self.plan.mutant == Mutant::ResumeAfterHandOver {
                return self.resume(n);
            }
        }
        self.feed(n, Some(event));
    }
}

fn renew_answer(answer: &Answer) -> Option<RenewAnswer> {
    match answer {
        Ok(Response::Renewed(header, Some(ttl))) => {
            Some(RenewAnswer::Alive { ttl: *ttl, raft_term: header.raft_term })
        }
        Ok(Response::Renewed(_, None)) => Some(RenewAnswer::NotFound),
        _ => None,
    }
}

/// Only a mutant does this: a lease that is there already is taken over.
fn adopt(state: &mut MemoryState, now: Instant, lease: LeaseId) -> Answer {
    state.apply(now, &Request::Renew(lease)).map(|renewed| match renewed {
        Response::Renewed(header, Some(ttl)) => Response::Granted(header, ttl),
        other => other,
    })
}

/// Which step of a join asks this.
pub fn step_of(request: &Request) -> JoinStep {
    match request {
        Request::Grant { .. } => JoinStep::Granting,
        Request::Revoke(_) | Request::Renew(_) => JoinStep::Revoking,
        Request::Txn(txn) if !txn.writes() => JoinStep::Looking,
        Request::Txn(txn) if txn.otherwise.is_empty() => JoinStep::Enrolling,
        Request::Txn(_) => JoinStep::Reclaiming,
    }
}
