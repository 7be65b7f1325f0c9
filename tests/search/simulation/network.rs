//! The way to the store and back, and the store itself: messages are late, lost, doubled and overtake each other.
//!
//! A request whose time is over may still arrive: that is what "unknown" means.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use metad::clock::Instant;
use metad::election::event::RenewAnswer;
use metad::election::lease::LeaseId;
use metad::election::record::{Nonce, Revision, Token, View};
use metad::protocol::transactions::{self, Answer};
use metad::store::memory::MemoryState;
use metad::store::{Header, Request, Response};

use crate::simulation::clock::{Drift, MS, SEC};
use crate::simulation::host::{Call, Purpose};
use crate::simulation::invariants::Happened;
use crate::simulation::world::{Event, Input, World};

/// The contract of the driver: an answer after a bounded time, at the latest "unknown".
pub const REQUEST_TIMEOUT: u64 = 3 * SEC;
/// So long an attempt to renew stays open for its answer.
const RENEWAL_TIMEOUT: u64 = 8 * SEC;
/// The slowest message.
const SLOW_MAX: u64 = 10 * SEC;
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
    next_end: Option<u64>,
    shown: Revision,
}

/// A request on its way.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub h: usize,
    pub pid: u32,
    pub call: u64,
    pub request: Rc<Request>,
    pub what: What,
    /// Is it the second copy?
    pub copy: bool,
}

/// What the invariants must know of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Claim(Nonce),
    Write(Token),
    Renewal,
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
            next_end: None,
            shown: Revision(0),
        }
    }

    /// When the next lease is due, in real time.
    pub fn next_end(&mut self) -> u64 {
        let first = || self.state.leases().map(|(_, at)| at).min_by_key(|at| at.boot_ns());
        *self.next_end.get_or_insert_with(|| first().map_or(u64::MAX, |at| self.clock.when(at)))
    }

    /// When this lease ends, in real time: in the past if it is gone or doomed.
    pub fn end_of(&self, lease: LeaseId) -> Option<u64> {
        let row = || self.state.leases().find(|(l, _)| *l == lease).map(|(_, at)| self.clock.when(at));
        self.ended.get(&lease).copied().or_else(row)
    }

    fn has(&self, lease: LeaseId) -> bool {
        self.state.leases().any(|(l, _)| l == lease)
    }
}

// === impl World: sending ===

impl World {
    /// Sends a request of this host's process.
    pub fn send(&mut self, h: usize, purpose: Purpose, request: Request) {
        let (name, stamp, sent) = (self.name(), self.clock(h), self.now);
        let what = match &purpose {
            Purpose::Claim(_, nonce, _) => What::Claim(*nonce),
            Purpose::Write(token) => What::Write(*token),
            Purpose::Renew(_) => What::Renewal,
            _ => What::Other,
        };
        let Some(p) = self.hosts[h].process.as_mut() else { return };
        let (pid, call) = (p.pid, Call { purpose, stamp, sent });
        if matches!(what, What::Renewal | What::Write(_)) {
            p.open.retain(|_, c| sent < c.sent + RENEWAL_TIMEOUT);
            p.open.insert(name, call);
        } else {
            p.calls.insert(name, call);
            self.later(h, REQUEST_TIMEOUT, Input::Timeout(name));
        }
        let delivery = Delivery { h, pid, call: name, request: Rc::new(request), what, copy: false };
        if !self.calm && self.dice.percent(self.plan.doubled) {
            let after = self.trip(what) + self.dice.below(SLOW_MAX);
            self.push(after, Event::Deliver(Delivery { copy: true, ..delivery.clone() }));
        }
        if self.calm || !self.dice.percent(self.plan.lost) {
            let trip = self.trip(what);
            self.push(trip, Event::Deliver(delivery));
        }
    }

    /// How long a message takes.
    fn trip(&self, what: What) -> u64 {
        if self.calm {
            return MS / 5 + self.dice.below(CALM_TRIP_MAX - MS / 5);
        }
        let slow = if what == What::Renewal { RENEWAL_TIMEOUT / 2 } else { SLOW_MAX };
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
            (request, _) => self.apply(request, d.what, (d.h, d.pid)),
        };
        if d.copy {
            self.tally.count("duplicate requests landed");
        }
        let (h, pid) = (d.h, d.pid);
        self.trace(|| format!("store <- n{h}#{pid} {} => {}", brief(&d), outcome(&answer)));
        if !d.copy && (self.calm || !self.dice.percent(self.plan.lost)) {
            let trip = self.trip(d.what);
            self.push(trip, Event::To(d.h, d.pid, Input::Answer(d.call, Rc::new(answer))));
        }
    }

    /// A deposed etcd leader acknowledges whatever it is asked, and knows nothing.
    fn stale_ack(&mut self, h: usize) -> Answer {
        self.tally.count("stale acks");
        let raft_term = self.hosts[h].stale_term;
        Ok(Response::Renewed(Header { cluster: 1, revision: Revision(0), raft_term }, Some(self.plan.ttl)))
    }

    /// Carries a request out, and notes for the invariants what that did.
    pub fn apply(&mut self, request: &Request, what: What, from: (usize, u32)) -> Answer {
        let before = self.record();
        if let Request::Revoke(lease) = request {
            self.lease_ends(*lease);
        }
        let now = self.store.clock.now(self.now);
        let answer = self.store.state.apply(now, request);
        self.store.next_end = None;
        if let Ok(Response::Txn(reply)) = &answer {
            match what {
                What::Write(token) if reply.succeeded => {
                    self.moment.push(Happened::WriteLanded { token, record: before });
                }
                What::Claim(nonce) if reply.succeeded => {
                    self.tally.count("claims won");
                    self.moment.push(Happened::ClaimLanded { h: from.0, pid: from.1, nonce });
                }
                _ => {}
            }
        }
        let written = match (request, &answer) {
            (Request::Txn(txn), Ok(Response::Txn(reply))) => {
                !matches!(what, What::Write(_)) && txn.writes() && reply.succeeded
            }
            (Request::Revoke(_), _) => true,
            _ => false,
        };
        if written {
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

// === impl World: leases and watches ===

impl World {
    /// A lease's time is over. It ends; or the expiry scan has taken it, and until its revoke is through the
    /// store goes on to acknowledge renewals of it (`src/docs/protocol.md`, Lemma R).
    pub fn lease_is_due(&mut self) {
        let now = self.store.clock.now(self.now);
        let due: Vec<LeaseId> =
            self.store.state.leases().filter(|(_, at)| now.reached(*at)).map(|(l, _)| l).collect();
        for lease in due {
            self.trace(|| format!("lease {lease} is due"));
            self.lease_ends(lease);
            if self.plan.doom && self.dice.percent(50) {
                // One nanosecond earlier, for the store in memory ends a lease at the very instant it may.
                let just_before = self.store.clock.now(self.now - 1);
                let _ = self.store.state.apply(just_before, &Request::Renew(lease));
                let after = self.dice.below(EXPIRY_LAG_MAX);
                self.push(after, Event::Doom(lease));
            }
        }
        self.store.state.expire(now);
        self.store.next_end = None;
        self.tell_watches();
    }

    /// The revoke of a lease that was taken by the expiry scan.
    pub fn doom(&mut self, lease: LeaseId) {
        let _ = self.apply(&Request::Revoke(lease), What::Other, (0, 0));
    }

    /// etcd has a new leader.
    pub fn change_raft_leader(&mut self) {
        let now = self.store.clock.now(self.now);
        self.store.state.change_raft_leader(now);
        self.store.raft_term += 1;
        self.store.next_end = None;
    }

    fn tell_watches(&mut self) {
        let now = self.store.clock.now(self.now);
        let Ok(Response::Txn(reply)) =
            self.store.state.apply(now, &Request::Txn(transactions::read(&self.keys)))
        else {
            return;
        };
        if reply.header.revision == self.store.shown {
            return;
        }
        self.store.shown = reply.header.revision;
        let view = Rc::new(transactions::watched_keys(&reply).view(&self.keys));
        for h in 0..self.hosts.len() {
            self.show_later(h, view.clone());
        }
    }

    fn show_later(&mut self, h: usize, view: Rc<View>) {
        let deaf = self.hosts[h].silent_until.max(self.hosts[h].cut_until).max(self.store.out_until);
        if self.calm {
            let trip = self.trip(What::Other);
            self.later(h, trip, Input::Seen(view));
        } else if self.now >= deaf && !self.dice.percent(self.plan.lost) {
            let trip = self.trip(What::Other).min(2 * SEC);
            self.later(h, trip, Input::Seen(view));
        }
    }

    /// A watch (re)opens and shows the newest picture.
    pub fn open_watch(&mut self, h: usize) {
        let now = self.store.clock.now(self.now);
        if let Ok(Response::Txn(reply)) =
            self.store.state.apply(now, &Request::Txn(transactions::read(&self.keys)))
        {
            let view = Rc::new(transactions::watched_keys(&reply).view(&self.keys));
            self.show_later(h, view);
        }
    }
}

/// What an answer to a renewal means.
pub fn renew_answer(answer: &Answer) -> Option<RenewAnswer> {
    match answer {
        Ok(Response::Renewed(header, Some(ttl))) => {
            Some(RenewAnswer::Alive { ttl: *ttl, raft_term: header.raft_term })
        }
        Ok(Response::Renewed(_, None)) => Some(RenewAnswer::NotFound),
        _ => None,
    }
}

/// When a member believes until, counting an ack of this stamp.
pub fn believed(stamp: Instant, ttl: Duration) -> Instant {
    stamp + metad::election::lease::LeaseTiming::new(ttl).span()
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
