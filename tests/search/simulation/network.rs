//! The way to the store and back, and the store itself: messages are late, lost, doubled and overtake each other.
//!
//! A request whose time is over may still arrive: that is what "unknown" means.

use std::collections::BTreeMap;
use std::sync::Arc;

use metad::clock::Instant;
use metad::election::lease::LeaseId;
use metad::election::record::{LeaderRecord, Nonce, Revision, Token};
use metad::protocol::transactions::Answer;
use metad::store::codec::{Keys, decode_tenure};
use metad::store::memory::MemoryState;
use metad::store::{Guard, Header, KeyValue, Op, Request, Response, Txn};

use crate::simulation::clock::{Drift, MS, SEC};
use crate::simulation::invariants::Happened;
use crate::simulation::world::{Event, World};

/// The slowest message.
const SLOW_MAX: u64 = 10 * SEC;
/// The slowest message of a renewal.
const SLOW_RENEWAL_MAX: u64 = 4 * SEC;
/// The longest one-way trip of the liveness phase; a round trip is twice that.
pub const CALM_TRIP_MAX: u64 = 5 * MS;
/// How much later than its time a lease may end: etcd looks for due leases every 500 ms.
pub const EXPIRY_LAG_MAX: u64 = 500 * MS;

/// The store with its clock.
pub struct StoreSide {
    pub state: MemoryState,
    pub clock: Drift,
    /// It answers nobody until then.
    pub out_until: u64,
    /// When a lease ended in the eyes of who must not rely on it any more, in real time.
    pub ended: BTreeMap<LeaseId, u64>,
    pub raft_term: u64,
    /// A backup.
    pub backup: Option<MemoryState>,
    /// What each revision of record and registrations showed.
    pub shown: BTreeMap<Revision, Shown>,
    next_end: Option<u64>,
}

/// What a view of some revision shows, in short: the record's token, and who is registered in which generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    pub token: Option<Token>,
    pub members: Vec<(String, Revision)>,
}

/// Who has sent a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// A process of this host.
    Process(usize, u32),
    /// This guardian.
    Guardian(u64),
}

/// A request on its way.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub h: usize,
    pub from: From,
    pub call: u64,
    pub request: Arc<Request>,
    pub what: What,
    /// Is it the second copy?
    pub copy: bool,
}

/// What the invariants must know of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Claim(Nonce),
    /// A write of the main loop, by its name.
    Write(Token, String),
    Renewal,
    Revoke(LeaseId),
    Other,
}

impl StoreSide {
    /// An empty store.
    pub fn new(clock: Drift) -> Self {
        Self {
            state: MemoryState::default(),
            clock,
            out_until: 0,
            ended: BTreeMap::new(),
            raft_term: 0,
            backup: None,
            shown: BTreeMap::new(),
            next_end: None,
        }
    }

    /// When the next lease is due, in real time.
    pub fn next_end(&mut self) -> u64 {
        let first = || self.state.leases().map(|(_, at)| at).min_by_key(|at| at.boot_ns());
        *self.next_end.get_or_insert_with(|| first().map_or(u64::MAX, |at| self.clock.when(at)))
    }

    /// Leases have changed.
    pub fn leases_changed(&mut self) {
        self.next_end = None;
    }

    /// When this lease ends, in real time: in the past if it is gone or doomed.
    pub fn end_of(&self, lease: LeaseId) -> Option<u64> {
        let row = || self.state.leases().find(|(l, _)| *l == lease).map(|(_, at)| self.clock.when(at));
        self.ended.get(&lease).copied().or_else(row)
    }

    pub fn has(&self, lease: LeaseId) -> bool {
        self.state.leases().any(|(l, _)| l == lease)
    }
}

/// What a request is, as its content tells.
pub fn classify(keys: &Keys, leader_key: &str, request: &Request) -> What {
    let txn = match request {
        Request::Renew(_) => return What::Renewal,
        Request::Revoke(lease) => return What::Revoke(*lease),
        Request::Grant { .. } => return What::Other,
        Request::Txn(txn) => txn,
    };
    if let Some(record) = claimed(txn, leader_key) {
        return What::Claim(record.nonce);
    }
    written(txn, keys).unwrap_or(What::Other)
}

/// The record that a claim writes.
fn claimed(txn: &Txn, leader_key: &str) -> Option<LeaderRecord> {
    matches!(txn.guards.first(), Some(Guard::PrefixEmpty(_))).then_some(())?;
    let Some(Op::Put(key, value, lease)) = txn.then.first() else { return None };
    let kv = KeyValue {
        key: key.clone(),
        value: value.clone(),
        created: Revision(1),
        modified: Revision(1),
        lease: *lease,
    };
    decode_tenure(&kv).filter(|_| key == leader_key).map(|t| t.record)
}

/// The write of a main loop: which token, and what its name is.
fn written(txn: &Txn, keys: &Keys) -> Option<What> {
    let prefix = keys.state("w/");
    let name = txn.then.iter().find_map(|op| match op {
        Op::Put(key, value, _) if key.starts_with(&prefix) => String::from_utf8(value.clone()).ok(),
        _ => None,
    })?;
    let token = name.split_once('-')?.0.parse().ok().and_then(|n| Token::new(Revision(n)))?;
    Some(What::Write(token, name))
}

// === impl World: sending ===

impl World {
    /// Sends a request.
    pub fn send(&mut self, h: usize, from: From, call: u64, request: Request) {
        let what = classify(&self.keys, &self.leader_key, &request);
        if let (What::Revoke(lease), From::Process(h, pid)) = (&what, from)
            && self.process(h, pid).and_then(|p| p.seen.as_ref()?.lease).is_some_and(|l| l.0 == *lease)
        {
            self.moment.push(Happened::Goodbye { h });
        }
        let trip = self.trip(&what);
        let delivery = Delivery { h, from, call, request: Arc::new(request), what, copy: false };
        if !self.calm && self.dice.percent(self.plan.doubled) {
            let after = trip + self.dice.below(SLOW_MAX);
            self.push(after, Event::Deliver(Delivery { copy: true, ..delivery.clone() }));
        }
        if self.calm || !self.dice.percent(self.plan.lost) {
            self.push(trip, Event::Deliver(delivery));
        }
    }

    /// How long a message takes.
    pub fn trip(&self, what: &What) -> u64 {
        if self.calm {
            return MS / 5 + self.dice.below(CALM_TRIP_MAX - MS / 5);
        }
        let slow = if *what == What::Renewal { SLOW_RENEWAL_MAX } else { SLOW_MAX };
        match self.dice.percent(self.plan.slow) {
            true => self.dice.below(slow >> self.dice.below(8)),
            false => MS / 5 + self.dice.below(20 * MS),
        }
    }
}

// === impl World: arriving ===

impl World {
    /// A request arrives.
    pub fn deliver(&mut self, d: Delivery) {
        let shut_until = self.store.out_until.max(self.hosts[d.h].cut_until);
        if self.now < shut_until {
            if self.dice.percent(50) {
                let after = shut_until - self.now + self.dice.below(200 * MS);
                self.push(after, Event::Deliver(d));
            }
            return;
        }
        let stale = self.hosts[d.h].stale_until > self.now;
        let answer = match (&*d.request, stale) {
            (Request::Renew(_), true) => self.stale_ack(d.h),
            (request, _) => self.apply(request, &d.what, d.from),
        };
        if d.copy {
            self.tally.count("duplicate requests landed");
        }
        let h = d.h;
        self.trace(|| format!("store <- n{h} {:?} {} => {}", d.from, brief(&d), outcome(&answer)));
        if let From::Guardian(id) = d.from {
            self.guardian_has_revoked(id);
        }
        if !d.copy && (self.calm || !self.dice.percent(self.plan.lost)) {
            let trip = self.trip(&d.what);
            self.push(trip, Event::Answer(d.call, answer));
        }
    }

    /// A deposed etcd leader acknowledges whatever it is asked, and knows nothing.
    fn stale_ack(&mut self, h: usize) -> Answer {
        self.tally.count("stale acks");
        let raft_term = self.hosts[h].stale_term;
        Ok(Response::Renewed(Header { cluster: 1, revision: Revision(0), raft_term }, Some(self.plan.ttl)))
    }

    /// Carries a request out, and notes for the invariants what that did.
    pub fn apply(&mut self, request: &Request, what: &What, from: From) -> Answer {
        let (before, was_frozen) = (self.record(), self.is_frozen());
        if let Request::Revoke(lease) = request {
            self.lease_ends(*lease);
            if let From::Guardian(id) = from {
                self.moment.push(Happened::GuardianRevokes { id });
            }
        }
        let now = self.store.clock.now(self.now);
        let answer = self.store.state.apply(now, request);
        self.store.leases_changed();
        self.tally_freeze(before, was_frozen, from);
        if let Ok(Response::Txn(reply)) = &answer
            && reply.succeeded
        {
            match (what, from) {
                (What::Write(token, name), _) => {
                    let (token, name, at) = (*token, name.clone(), reply.header.revision);
                    self.moment.push(Happened::WriteLanded { token, record: before, name, at });
                }
                (What::Claim(nonce), From::Process(h, pid)) => {
                    self.tally.count("claims won");
                    self.moment.push(Happened::ClaimLanded { h, pid, nonce: *nonce, was_frozen });
                }
                _ => {}
            }
        }
        if !matches!(request, Request::Renew(_) | Request::Grant { .. }) && !matches!(what, What::Write(..)) {
            self.tell_watches();
        }
        answer
    }

    /// The leader record's revision.
    pub fn record(&self) -> Option<Revision> {
        self.store.state.get(&self.leader_key).map(|kv| kv.modified)
    }

    fn lease_ends(&mut self, lease: LeaseId) {
        if self.store.has(lease) {
            self.store.ended.entry(lease).or_insert(self.now);
            self.moment.push(Happened::LeaseEnded);
        }
    }
}

// === impl World: leases ===

impl World {
    /// A lease's time is over. It ends; or the expiry scan has taken it, and until its revoke is through the
    /// store goes on to acknowledge renewals of it (`src/docs/protocol.md`, Lemma R).
    pub fn lease_is_due(&mut self) {
        let now = self.store.clock.now(self.now);
        let due: Vec<(LeaseId, Instant)> =
            self.store.state.leases().filter(|(_, at)| now.reached(*at)).collect();
        for (lease, at) in due {
            self.trace(|| format!("lease {lease} is due"));
            self.lease_ends(lease);
            if self.plan.doom && self.dice.percent(50) {
                // Just before, for the store in memory ends a lease at the very instant it may.
                let just_before = self.store.clock.now(self.store.clock.when(at) - 1);
                let _ = self.store.state.apply(just_before, &Request::Renew(lease));
                let after = self.dice.below(EXPIRY_LAG_MAX);
                self.push(after, Event::Doom(lease));
            }
        }
        self.store.state.expire(now);
        self.store.leases_changed();
        self.tell_watches();
    }

    /// The revoke of a lease that was taken by the expiry scan.
    pub fn doom(&mut self, lease: LeaseId) {
        let _ = self.apply(&Request::Revoke(lease), &What::Other, From::Guardian(u64::MAX));
    }

    /// etcd has a new leader.
    pub fn change_raft_leader(&mut self) {
        let now = self.store.clock.now(self.now);
        self.store.state.change_raft_leader(now);
        self.store.raft_term += 1;
        self.store.leases_changed();
    }
}

fn brief(d: &Delivery) -> String {
    let copy = if d.copy { " (copy)" } else { "" };
    match &*d.request {
        Request::Txn(txn) if !txn.writes() => format!("read{copy}"),
        Request::Txn(txn) => {
            let guards: Vec<String> = txn.guards.iter().map(|g| format!("{g:?}")).collect();
            let short = guards.join(" ").replace("/metad/sim/", "").replace("ModRevision", "mod");
            format!("{:?} if {short}{copy}", d.what)
        }
        other => format!("{other:?}{copy}"),
    }
}

fn outcome(answer: &Answer) -> String {
    match answer {
        Ok(Response::Txn(r)) => {
            format!("{} rev {} term {}", r.succeeded, r.header.revision, r.header.raft_term)
        }
        Ok(Response::Renewed(h, ttl)) => format!("alive: {} term {}", ttl.is_some(), h.raft_term),
        Ok(other) => format!("rev {}", other.header().revision),
        Err(e) => e.to_string(),
    }
}
