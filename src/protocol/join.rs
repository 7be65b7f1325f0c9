//! Joining: from a lease's name on disk to a registration that may lead, and our own record taken back.
//!
//! A sans-IO machine like the elector: it says what to ask next and takes in the answers, so the simulation can
//! crash it between any two steps. We never adopt a lease, only records: a lease's name is unique for each
//! process, so nothing that is still aimed at the old one (a late renewal, a guardian's revoke, a claim in
//! flight) can hurt or help the new one. RisingWave's "restored leader" took over the lease of whoever had the
//! same name, which makes two leaders of two processes that share one (`src/docs/protocol.md`, section 6).

mod failure;

use std::time::Duration;

use crate::clock::Instant;
use crate::election::event::Joined;
use crate::election::lease::LeaseId;
use crate::election::record::{LeaderRecord, Nonce, Registration, Revision, Tenure};
use crate::protocol::transactions::{self, Answer};
use crate::store::codec::{Keys, WatchedKeys, decode_identity, decode_member};
use crate::store::{KeyValue, Op, Request, Response, Txn, TxnReply};
pub(super) use failure::another_store;
pub use failure::{JoinFailure, advice, held, in_use};

/// Which store a data dir belongs to, and how far it had got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pin {
    /// The store's own id.
    pub cluster: u64,
    /// The highest revision known: of the last join, or of the last tenure.
    pub revision: Revision,
}

/// What a join needs to know.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct JoinPlan {
    /// Where the keys are.
    pub keys: Keys,
    /// What to register; its lease is filled in here.
    pub registration: Registration,
    /// Leases that this data dir has asked for before.
    pub own_leases: Vec<LeaseId>,
    /// The store that this data dir belongs to.
    pub pin: Option<Pin>,
    /// The wall clock, for the record; display only.
    pub wall_ms: u64,
}

/// A join under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Join {
    plan: JoinPlan,
    step: Step,
    found: Found,
    granted: Option<(Instant, Duration)>,
    generation: Revision,
    watched: WatchedKeys,
    pin: Pin,
    raft_term: u64,
    revoke: Vec<LeaseId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Looking,
    Persisting,
    Granting,
    Enrolling,
    Reclaiming,
    Revoking,
}

/// What the first look found.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
struct Found {
    identified: Revision,
    registered: Revision,
    old_lease: Option<LeaseId>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Next {
    /// Ask the store, and call [`Join::answered`].
    Ask(Request),
    /// Put the name of a new lease on disk, and call [`Join::persisted`].
    Persist,
    /// Joined.
    Done(Joined, Pin),
    /// Not joined.
    Failed(JoinFailure),
}

// === impl Join ===

impl Join {
    /// Begins.
    pub fn start(plan: JoinPlan) -> (Self, Next) {
        let look = Txn::read(vec![
            Op::Get(plan.keys.identity(plan.registration.member.uuid)),
            Op::Get(plan.keys.node(&plan.registration.member.node)),
            Op::Get(plan.keys.leader()),
        ]);
        let join = Self {
            plan,
            step: Step::Looking,
            found: Found::default(),
            granted: None,
            generation: Revision(0),
            watched: WatchedKeys::default(),
            pin: Pin { cluster: 0, revision: Revision(0) },
            raft_term: 0,
            revoke: Vec::new(),
        };
        (join, Next::Ask(Request::Txn(look)))
    }

    /// The new lease's name is on disk.
    pub fn persisted(&mut self, lease: LeaseId) -> Next {
        self.plan.registration.lease = lease;
        self.step = Step::Granting;
        Next::Ask(Request::Grant { lease, ttl: self.plan.registration.ttl })
    }

    /// The store answered what was asked with a request that left at `stamp`.
    pub fn answered(&mut self, stamp: Instant, answer: &Answer) -> Next {
        let response = match answer {
            Ok(response) => response,
            Err(_) if self.step == Step::Revoking => return self.revoke_next(),
            Err(e) => return Next::Failed(e.clone().into()),
        };
        if let Some(failure) = self.check_store(response) {
            return Next::Failed(failure);
        }
        match (self.step, response) {
            (Step::Looking, Response::Txn(reply)) => self.looked(reply),
            (Step::Granting, Response::Granted(_, ttl)) => self.granted(stamp, *ttl),
            (Step::Enrolling, Response::Txn(reply)) => self.enrolled(reply),
            (Step::Reclaiming, Response::Txn(reply)) => self.reclaimed(reply),
            (Step::Revoking, _) => self.revoke_next(),
            (step, _) => Next::Failed(JoinFailure::Retry(format!("unexpected answer to {step:?}"))),
        }
    }

    /// Each request left after the answer before it had come, so none may show less than that. The first one must not
    /// show less than the newest view of this process, or of an earlier start.
    fn check_store(&mut self, response: &Response) -> Option<JoinFailure> {
        let header = response.header();
        if self.step == Step::Revoking {
            return None; // a lease that was not found comes without a header
        }
        let pinned = self.plan.pin;
        let newest = pinned.map_or(self.pin.revision, |pin| pin.revision.max(self.pin.revision));
        self.pin = Pin { cluster: header.cluster, revision: header.revision.max(self.pin.revision) };
        self.raft_term = self.raft_term.max(header.raft_term);
        if let Some(other) = pinned.map(|pin| pin.cluster).filter(|cluster| *cluster != header.cluster) {
            return Some(JoinFailure::StoreChanged(another_store(other, header.cluster)));
        }
        transactions::went_back(newest, header.revision).map(JoinFailure::StoreChanged)
    }

    fn looked(&mut self, reply: &TxnReply) -> Next {
        let first = |i: usize| reply.found.get(i).and_then(|kvs| kvs.first());
        if let Some(kv) = first(0) {
            if self.is_ahead_of_us(kv) {
                return Next::Failed(JoinFailure::RolledBack);
            }
            self.found.identified = kv.modified;
        }
        if let Some(kv) = first(1) {
            self.found.registered = kv.modified;
            match decode_member(&self.plan.keys, kv).map(|m| m.registration) {
                Some(r) if r.member.uuid != self.plan.registration.member.uuid => {
                    return Next::Failed(JoinFailure::Taken(Box::new(r)));
                }
                Some(r) => self.found.old_lease = Some(r.lease),
                None => {} // it does not count: nobody's, and ours to replace
            }
        }
        self.step = Step::Persisting;
        Next::Persist
    }

    /// Does the store know a start of our data dir that this one does not come after? An entry of this very
    /// start with a lease of ours is our own write, whose answer was lost.
    fn is_ahead_of_us(&self, kv: &KeyValue) -> bool {
        let Some(row) = decode_identity(&kv.value) else { return false };
        let mine = self.plan.registration.member.incarnation;
        row.incarnation > mine || (row.incarnation == mine && !self.plan.own_leases.contains(&row.lease))
    }

    fn granted(&mut self, stamp: Instant, ttl: Duration) -> Next {
        self.granted = Some((stamp, ttl));
        self.plan.registration.ttl = ttl;
        self.step = Step::Enrolling;
        let (registered, identified) = (self.found.registered, self.found.identified);
        let JoinPlan { keys, registration, wall_ms, .. } = &self.plan;
        Next::Ask(Request::Txn(transactions::enrol(keys, registration, registered, identified, *wall_ms)))
    }

    fn enrolled(&mut self, reply: &TxnReply) -> Next {
        if !reply.succeeded {
            return Next::Failed(JoinFailure::Retry("this node's registration changed meanwhile".into()));
        }
        self.generation = reply.header.revision;
        self.watched = transactions::watched_keys(reply);
        let view = self.watched.view(&self.plan.keys);
        let Some(tenure) = view.leader.tenure().filter(|t| self.is_our_past(t)) else {
            return self.start_revoking(None);
        };
        // Who must not lead does not take it back; the record ends with the old lease.
        if self.plan.registration.priority == 0 {
            let old = tenure.lease;
            return self.start_revoking(Some(old));
        }
        self.step = Step::Reclaiming;
        self.revoke.push(tenure.lease);
        let record = self.record(tenure);
        Next::Ask(Request::Txn(transactions::reclaim(
            &self.plan.keys,
            &record,
            self.plan.registration.lease,
            tenure.token,
        )))
    }

    /// A record of our uuid, on a lease that an earlier start on this data dir has asked for, is that of a dead process:
    /// the data dir keeps its leases only while it knows that (see `data_dir`).
    fn is_our_past(&self, tenure: &Tenure) -> bool {
        let JoinPlan { registration: me, own_leases, .. } = &self.plan;
        let is_ours = tenure.record.holder.uuid == me.member.uuid && own_leases.contains(&tenure.lease);
        is_ours && tenure.lease != me.lease
    }

    fn record(&self, old: &Tenure) -> LeaderRecord {
        LeaderRecord {
            holder: self.plan.registration.member.clone(),
            address: self.plan.registration.rpc_address.clone(),
            nonce: Nonce(0),
            ttl: self.plan.registration.ttl,
            acquired_ms: self.plan.wall_ms,
            transitions: old.record.transitions + 1,
            probe_handed_ms: old.record.probe_handed_ms,
        }
    }

    fn reclaimed(&mut self, reply: &TxnReply) -> Next {
        self.watched = transactions::watched_keys(reply);
        let old = self.revoke.pop();
        self.start_revoking(old)
    }

    fn start_revoking(&mut self, reclaimed_from: Option<LeaseId>) -> Next {
        self.step = Step::Revoking;
        let mut old: Vec<LeaseId> = self.plan.own_leases.clone();
        old.extend(self.found.old_lease);
        old.extend(reclaimed_from);
        old.retain(|l| *l != self.plan.registration.lease);
        old.sort_unstable();
        old.dedup();
        self.revoke = old;
        self.revoke_next()
    }

    /// What a revoke leaves undone ends by itself; the join does not wait for it.
    fn revoke_next(&mut self) -> Next {
        match (self.revoke.pop(), self.granted) {
            (Some(lease), _) => Next::Ask(Request::Revoke(lease)),
            (None, Some((stamp, ttl))) => {
                let joined = Joined {
                    lease: self.plan.registration.lease,
                    stamp,
                    ttl,
                    generation: self.generation,
                    view: self.watched.view(&self.plan.keys),
                    raft_term: self.raft_term,
                };
                Next::Done(joined, self.pin)
            }
            (None, None) => Next::Failed(JoinFailure::Retry("no lease was granted".into())),
        }
    }
}
