//! A leader that stalls: the real elector, on a store that does not answer for a while, in a process that does not run for a
//! while. As in the driver, an event and the clock are looked at when the process wakes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::time::Duration;

use metad::clock::{Instant, millis};
use metad::diagnosis::advice::replay::Outage;
use metad::election::elector::{Elector, ElectorSettings};
use metad::election::event::{Action, ClaimAnswer, Event, Joined, ReadAnswer, RenewAnswer};
use metad::election::history::Reason;
use metad::election::lease::{LeaseId, LeaseTiming};
use metad::election::record::{
    Incarnation, Leader, LeaderRecord, Member, MemberId, MemberUuid, Nonce, Registration, Revision, Tenure,
    Token, View,
};
use metad::journal::stalls::watch::StallWatch;
use metad::journal::stalls::{StallLine, StallOf, StallRecord};

/// One way to the store and back.
pub const TRIP: Duration = Duration::from_millis(1);
/// The longest that the driver sleeps.
const SLEEP_MAX: Duration = Duration::from_secs(1);
const GENERATION: u64 = 1;
const TOKEN: u64 = 2;
const LEASE: LeaseId = LeaseId(1);

/// What a store does with requests that come while it stalls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StalledStore {
    /// They are lost.
    Loses,
    /// They are answered when it goes on.
    Holds,
}

/// What a simulation came to.
pub struct Simulated {
    pub losses: usize,
    pub renewals: usize,
    pub record: StallRecord,
}

struct Simulation<'o> {
    outages: &'o [Outage],
    store: StalledStore,
    timing: LeaseTiming,
    now: Instant,
    elector: Elector,
    events: BinaryHeap<Reverse<Arrival>>,
    watch: StallWatch,
    told: Simulated,
}

struct Arrival {
    at: Instant,
    number: usize,
    event: Event,
}

/// Plays the outages, which are in order, against a lease, from `began` on.
pub fn simulate(outages: &[Outage], began: Instant, ttl: Duration, store: StalledStore) -> Simulated {
    let timing = LeaseTiming::new(ttl);
    let told = Simulated { losses: 0, renewals: 0, record: StallRecord::default() };
    let mut simulation = Simulation {
        outages,
        store,
        timing,
        now: began,
        elector: elector(),
        events: BinaryHeap::new(),
        watch: StallWatch::new(began),
        told,
    };
    let end = outages.last().map_or(began, |o| o.to) + ttl * 2;
    while !simulation.now.reached(end) {
        simulation.turn();
    }
    simulation.watch.ends(simulation.now_ms());
    simulation.record();
    simulation.told
}

fn elector() -> Elector {
    let me = MemberId { node: "n".into(), uuid: MemberUuid(1), incarnation: Incarnation(1) };
    let ten = Duration::from_secs(10);
    Elector::new(ElectorSettings { me, stop_timeout: ten, start_timeout: ten, failback_delay: None })
}

fn token() -> Token {
    Token::new(Revision(TOKEN)).expect("not 0")
}

// === impl Arrival ===

impl Arrival {
    fn order(&self) -> (u64, usize) {
        (self.at.boot_ns(), self.number)
    }
}

impl PartialEq for Arrival {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl Eq for Arrival {}

impl PartialOrd for Arrival {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Arrival {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
    }
}

// === impl Simulation ===

impl Simulation<'_> {
    fn now_ms(&self) -> u64 {
        self.now.boot_ns() / 1_000_000
    }

    /// The first outage of this kind that is not over yet. They are in order, and few are under way at once.
    fn outage(&self, of: StallOf) -> Option<&Outage> {
        let past = self.outages.partition_point(|o| self.now.reached(o.to));
        self.outages[past..].iter().find(|o| o.of == of)
    }

    /// When the outage that is under way is over, else `at`.
    fn over(&self, of: StallOf, at: Instant) -> Instant {
        self.outage(of).filter(|o| at.reached(o.from)).map_or(at, |o| at.later(o.to))
    }

    /// One turn of the driver's loop.
    fn turn(&mut self) {
        while let Some(action) = self.elector.poll_action() {
            if self.perform(action) {
                return self.begin_anew();
            }
        }
        let sleep = self.elector.poll_timeout().map_or(SLEEP_MAX, |at| self.now.until(at).min(SLEEP_MAX));
        self.watch.sleeps(self.now, self.now_ms(), sleep);
        self.record();
        let arrival = self.events.peek().map_or(self.now + sleep, |Reverse(next)| next.at);
        let due = arrival.earlier(self.now + sleep).later(self.now);
        self.now = self.over(StallOf::Process, due);
        self.watch.woke(self.now, self.now_ms());
        if let Some(next) = self.events.peek_mut().filter(|next| self.now.reached(next.0.at)) {
            let Reverse(arrival) = PeekMut::pop(next);
            self.elector.handle_event(self.now, arrival.event);
        }
        self.elector.handle_timeout(self.now);
        let lease = self.elector.lease().filter(|_| self.elector.main_loop_token().is_some());
        self.watch.handled(self.now, self.now_ms(), lease.copied());
    }

    fn record(&mut self) {
        self.watch.drain().for_each(|line| self.told.record.take(line));
    }

    /// Another process leads as soon as everything goes on.
    fn begin_anew(&mut self) {
        self.told.losses += 1;
        self.record();
        self.now = self.over(StallOf::Process, self.over(StallOf::Store, self.now));
        self.told.record.take(StallLine::Back(self.now_ms()));
        (self.elector, self.watch) = (elector(), StallWatch::new(self.now));
        self.events.clear();
    }

    fn arrives(&mut self, at: Instant, event: Event) {
        let number = self.told.renewals + self.events.len();
        self.events.push(Reverse(Arrival { at, number, event }));
    }

    /// When a request that leaves now is answered, if it is.
    fn answered_at(&self) -> Option<Instant> {
        let answered = self.now + TRIP;
        match self.outage(StallOf::Store).filter(|o| answered.reached(o.from)) {
            None => Some(answered),
            Some(_) if self.store == StalledStore::Loses => None,
            Some(outage) => Some(outage.to + TRIP),
        }
    }

    /// True: leadership is lost.
    fn perform(&mut self, action: Action) -> bool {
        let now = self.now;
        match action {
            Action::Join => self.arrives(now, Event::Joined(self.joined())),
            Action::Claim { nonce, .. } => {
                let (answer, seen) = (ClaimAnswer::Won(token()), Some(Box::new(self.view(true))));
                self.arrives(now, Event::Claimed { nonce, answer, seen });
            }
            Action::Renew(lease) => {
                self.told.renewals += 1;
                self.watch.asked(now);
                let answer = RenewAnswer::Alive { ttl: self.timing.ttl(), raft_term: 1 };
                if let Some(at) = self.answered_at() {
                    self.arrives(at, Event::Renewed { lease, stamp: now, answer });
                }
            }
            Action::Read(id) => {
                let view = self.view(self.elector.view().leader.tenure().is_some());
                let answer = Some(ReadAnswer { view, raft_term: 1 });
                match self.answered_at() {
                    Some(at) => self.arrives(at, Event::Read { id, answer }),
                    None => {
                        self.arrives(now + self.timing.answer_timeout(), Event::Read { id, answer: None })
                    }
                }
            }
            Action::StopMainLoop(_, Reason::RenewDeadline) => {
                self.watch.lost(now, self.now_ms());
                return true;
            }
            Action::StartMainLoop(_) | Action::Report(_) => {}
            other => panic!("nothing else happens to a leader that stalls: {other:?}"),
        }
        false
    }

    fn joined(&self) -> Joined {
        Joined {
            lease: LEASE,
            stamp: self.now,
            ttl: self.timing.ttl(),
            generation: Revision(GENERATION),
            view: self.view(false),
            raft_term: 1,
        }
    }

    fn view(&self, leads: bool) -> View {
        let me = self.elector.me().clone();
        let record = LeaderRecord {
            holder: me.clone(),
            address: String::new(),
            nonce: Nonce(0),
            ttl: self.timing.ttl(),
            acquired_ms: 0,
            transitions: 0,
            probe_handed_ms: 0,
        };
        let tenure = Tenure { record, token: token(), lease: LEASE, rewritten: false };
        let registration = Registration {
            member: me,
            rpc_address: String::new(),
            http_address: String::new(),
            priority: 1,
            version: String::new(),
            ttl: self.timing.ttl(),
            lease: LEASE,
        };
        let generation = Revision(GENERATION);
        View {
            revision: Revision(if leads { TOKEN } else { GENERATION }),
            leader: if leads { Leader::Held(Box::new(tenure)) } else { Leader::Vacant },
            members: vec![Member { registration, created: generation, generation }],
            ..View::default()
        }
    }
}

/// An outage as a person reads it.
pub fn shown(outage: &Outage) -> String {
    let lasted = millis(outage.to.since(outage.from));
    format!("{:?} at {} ms for {lasted} ms", outage.of, outage.from.boot_ns() / 1_000_000)
}
