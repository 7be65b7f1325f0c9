//! One seed's world: real time, the queue of events, and the loop that plays them and checks every invariant.
//!
//! Deterministic: nothing but the seed decides. Must not know what a request means (`network`), nor what a
//! process does with its events (`process`).

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;

use metad::clock::Instant;
use metad::election::event::Joined;
use metad::election::lease::LeaseId;
use metad::election::record::{MemberId, Token, View};
use metad::protocol::join::Pin;
use metad::protocol::transactions::Answer;
use metad::store::codec::Keys;
use metad::store::unreliable::Dice;

use crate::simulation::clock::{Drift, MS};
use crate::simulation::host::{Disk, Host, Process};
use crate::simulation::invariants::{self, Happened, Oracle};
use crate::simulation::network::{Delivery, StoreSide};
use crate::simulation::plan::Plan;
use crate::simulation::trace::{Tally, Trace};

/// More events than any honest seed needs: something spins.
const EVENTS_MAX: u64 = 300_000;

/// What can happen.
#[derive(Debug)]
pub enum Event {
    /// A request arrives at the store.
    Deliver(Delivery),
    /// Something happens in a process.
    To(usize, u32, Input),
    /// The supervisor starts a process.
    Start(usize),
    /// A stopped process goes on.
    Resume(usize, u32),
    /// The store's expiry scan gets rid of a lease that it took long ago.
    Doom(LeaseId),
    /// Something breaks.
    Fault,
}

/// What can happen in a process.
#[derive(Debug)]
pub enum Input {
    /// The store answered this call.
    Answer(u64, Rc<Answer>),
    /// The call's time is over.
    Timeout(u64),
    /// The driver's sleep is over.
    Wake,
    /// The watch shows a picture.
    Seen(Rc<View>),
    /// The new lease's name is on disk.
    Persisted,
    /// The data dir knows that the join worked.
    Settled(Box<Joined>, Pin),
    /// Another try, after a look at who holds our node id.
    JoinAgain,
    /// The main loop begins.
    LoopBegins,
    /// The main loop is about to act.
    LoopActs,
    /// The watchdog notices that the main loop hangs.
    LoopHangs,
    /// The main loop ends.
    LoopEnds(Option<i32>),
    /// The driver hears that the main loop has ended.
    LoopEnded(Option<i32>),
    /// The leader of this host and process asks whether we would take over this tenure.
    AskedToPrepare(usize, u32, Token),
    /// A candidate said that it is ready.
    CandidateReady(MemberId),
    /// The candidates had their time.
    Prepared,
}

struct Entry {
    at: u64,
    order: u64,
    event: Event,
}

/// Everything.
pub struct World {
    /// Real time, in nanoseconds.
    pub now: u64,
    pub dice: Dice,
    pub plan: Plan,
    pub keys: Keys,
    /// The leader record's key.
    pub leader_key: String,
    /// The liveness phase: no more faults.
    pub calm: bool,
    pub store: StoreSide,
    pub hosts: Vec<Host>,
    /// What the event being played made happen.
    pub moment: Vec<Happened>,
    pub oracle: Oracle,
    pub tally: Tally,
    pub trace: Trace,
    /// In the liveness phase: who leads, and since when.
    pub leading: (Option<Token>, u64),
    queue: BinaryHeap<Reverse<Entry>>,
    order: u64,
    names: u64,
}

/// An invariant does not hold.
#[derive(Debug)]
pub struct Violation {
    pub invariant: &'static str,
    pub what: String,
}

impl World {
    /// The world of a seed, before anything happens.
    pub fn new(seed: u64, trace: bool) -> Self {
        let dice = Dice::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x6d65_7461_6400);
        let plan = Plan::draw(&dice);
        let keys = Keys::new("sim", "meta");
        let mut world = Self {
            now: 0,
            store: StoreSide::new(Drift::draw(&dice)),
            hosts: Vec::new(),
            leader_key: keys.leader(),
            keys,
            calm: false,
            moment: Vec::new(),
            oracle: Oracle::default(),
            tally: Tally::default(),
            trace: Trace::new(trace),
            leading: (None, 0),
            queue: BinaryHeap::new(),
            order: 0,
            names: 0,
            dice,
            plan,
        };
        for h in 0..world.plan.priorities.len() {
            let host = world.host(h, format!("n{h}"), world.plan.priorities[h], false);
            world.hosts.push(host);
            let at = world.dice.below(500 * MS);
            world.push(at, Event::Start(h));
        }
        let twin = world.host(world.hosts.len(), "n0".into(), 100, true);
        world.hosts.push(twin);
        let first = world.dice.below(world.plan.fault_every);
        world.push(first, Event::Fault);
        let plan = world.plan.clone();
        world.trace(|| format!("{plan:?}"));
        world
    }

    fn host(&self, h: usize, node: String, priority: u16, second: bool) -> Host {
        Host {
            node,
            second,
            priority,
            clock: Drift::draw(&self.dice),
            disk: Disk::new(0xd1 + h as u128),
            process: None,
            cut_until: 0,
            stale_until: 0,
            stale_term: 0,
            silent_until: 0,
        }
    }

    /// Plays all that happens until `until`, and checks the invariants after each event.
    pub fn play(&mut self, until: u64) -> Result<(), Violation> {
        loop {
            let lease_end = self.store.next_end();
            let head = self.queue.peek().map_or(u64::MAX, |e| e.0.at);
            if head.min(lease_end) > until {
                self.now = until;
                return Ok(());
            }
            if lease_end <= head {
                self.now = self.now.max(lease_end);
                self.lease_is_due();
            } else if let Some(Reverse(entry)) = self.queue.pop() {
                self.now = entry.at;
                self.happen(entry.event);
            }
            invariants::check(self)?;
            self.oracle.take_in(&self.moment);
            self.note_leader();
            self.moment.clear();
            if self.order > EVENTS_MAX {
                return Err(Violation { invariant: "nobody_spins", what: format!("{} events", self.order) });
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Deliver(delivery) => self.deliver(delivery),
            Event::To(h, pid, input) => match self.process(h, pid) {
                Some(p) if p.paused => p.backlog.push(input),
                Some(_) => self.take(h, input),
                None => {}
            },
            Event::Start(h) => self.start(h),
            Event::Resume(h, pid) => self.resume(h, pid),
            Event::Doom(lease) => self.doom(lease),
            Event::Fault => self.fault(),
        }
    }

    /// The process, if it is still this one.
    pub fn process(&mut self, h: usize, pid: u32) -> Option<&mut Process> {
        self.hosts[h].process.as_mut().filter(|p| p.pid == pid)
    }

    /// The machine's time.
    pub fn clock(&self, h: usize) -> Instant {
        self.hosts[h].clock.now(self.now)
    }

    /// Makes something happen later.
    pub fn push(&mut self, after: u64, event: Event) {
        self.order += 1;
        self.queue.push(Reverse(Entry { at: self.now + after, order: self.order, event }));
    }

    /// Makes something happen later in the process of this host.
    pub fn later(&mut self, h: usize, after: u64, input: Input) {
        if let Some(pid) = self.hosts[h].process.as_ref().map(|p| p.pid) {
            self.push(after, Event::To(h, pid, input));
        }
    }

    /// How many events there were.
    pub fn events(&self) -> u64 {
        self.order
    }

    /// A number that was never used before.
    pub fn name(&mut self) -> u64 {
        self.names += 1;
        self.names
    }

    /// Adds a line to the trace.
    pub fn trace(&mut self, line: impl FnOnce() -> String) {
        self.trace.add(self.now, line);
    }

    /// When the last request in flight arrives.
    pub fn last_delivery(&self) -> u64 {
        let deliveries = self.queue.iter().filter(|e| matches!(e.0.event, Event::Deliver(_)));
        deliveries.map(|e| e.0.at).max().unwrap_or(self.now)
    }

    /// Loses all requests in flight.
    pub fn drop_in_flight(&mut self) {
        self.queue.retain(|e| !matches!(e.0.event, Event::Deliver(_)));
    }

    /// Loses the faults to come, and the starts: the liveness phase has its own.
    pub fn drop_faults(&mut self) {
        self.queue.retain(|e| !matches!(e.0.event, Event::Fault | Event::Start(_) | Event::Resume(..)));
    }

    fn note_leader(&mut self) {
        if self.calm {
            let leader = self.leader();
            if leader != self.leading.0 {
                self.leading = (leader, self.now);
            }
        }
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}
