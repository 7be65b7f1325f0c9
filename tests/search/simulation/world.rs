//! One seed's world: real time, the queue of events outside of the processes, and the loop that plays them.
//!
//! Deterministic: nothing but the seed decides. Must not know what a request means (`network`), nor how a process is made
//! (`process`).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metad::clock::Instant;
use metad::data_dir::Place;
use metad::election::lease::LeaseId;
use metad::election::record::Token;
use metad::protocol::transactions::Answer;
use metad::store::Txn;
use metad::store::codec::Keys;
use metad::store::unreliable::Dice;
use tokio::sync::oneshot;

use crate::simulation::clock::{Drift, MS, RealTime};
use crate::simulation::guardian::Guardian;
use crate::simulation::host::{Host, Process};
use crate::simulation::invariants::{Happened, Oracle};
use crate::simulation::network::{Delivery, StoreSide};
use crate::simulation::plan::Plan;
use crate::simulation::trace::{Tally, Trace};
use crate::simulation::watches::Watch;

/// What can happen outside of the processes' own tasks.
#[derive(Debug)]
pub enum Event {
    /// A request arrives at the store.
    Deliver(Delivery),
    /// An answer arrives where this call was made.
    Answer(u64, Answer),
    /// A watch shows what has changed.
    Show(u64),
    /// A watch shows that it lives.
    Alive(u64),
    /// The supervisor starts a process.
    Start(usize),
    /// A stopped process goes on.
    Resume(usize, u32),
    /// A guardian looks at what it has to do.
    Look(u64),
    /// A guardian's program is dead.
    ProgramDies(u64),
    /// A member loses its guardian, and starts another one.
    AnotherGuardian(usize, u32),
    /// The exit of a process has taken as long as it may.
    ExitTimer(usize, u32),
    /// The store's expiry scan gets rid of a lease that it took long ago.
    Doom(LeaseId),
    /// The store is restored from its backup.
    Restore,
    /// Something that an operator has written arrives once more.
    LateCopy(Box<Txn>),
    /// The first run of a process's probes has ended.
    Probed(usize, u32),
    /// A process is warm.
    Warm(usize, u32),
    /// Something breaks.
    Fault,
}

struct Entry {
    at: u64,
    order: u64,
    event: Event,
}

/// Everything but the processes' tasks.
pub struct World {
    /// Real time, in nanoseconds.
    pub now: u64,
    pub real: RealTime,
    pub dice: Dice,
    pub plan: Plan,
    pub keys: Keys,
    /// The leader record's key.
    pub leader_key: String,
    /// The liveness phase: no more faults.
    pub calm: bool,
    pub store: StoreSide,
    pub watches: Vec<Watch>,
    pub hosts: Vec<Host>,
    pub guardians: Vec<Guardian>,
    /// Who waits for an answer.
    pub calls: BTreeMap<u64, oneshot::Sender<Answer>>,
    /// Processes that are gone: their tasks must not run any more.
    pub gone: Vec<(usize, u32)>,
    /// What has happened since the last check.
    pub moment: Vec<Happened>,
    pub oracle: Oracle,
    pub tally: Tally,
    pub trace: Trace,
    /// Has an operator frozen the election, and not unfrozen it? (The freeze may have ended by itself.)
    pub operator_frozen: bool,
    /// In the liveness phase: who leads, and since when.
    pub leading: (Option<Token>, u64),
    queue: BinaryHeap<Reverse<Entry>>,
    order: u64,
    names: u64,
}

/// The world, for everybody who lives in it.
#[derive(Clone)]
pub struct Sim(Arc<Mutex<World>>);

/// An invariant does not hold.
#[derive(Debug)]
pub struct Violation {
    pub invariant: &'static str,
    pub what: String,
}

impl Sim {
    /// The world of a seed, before anything happens.
    pub fn new(seed: u64, trace: bool) -> Self {
        Self(Arc::new(Mutex::new(World::new(seed, trace, Plan::draw))))
    }

    /// The world of a seed and a plan.
    pub fn with_plan(seed: u64, plan: impl FnOnce(&Dice) -> Plan) -> Self {
        Self(Arc::new(Mutex::new(World::new(seed, true, plan))))
    }

    /// Whoever holds this must not run a task, nor drop one.
    pub fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl World {
    fn new(seed: u64, trace: bool, plan: impl FnOnce(&Dice) -> Plan) -> Self {
        let dice = Dice::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x6d65_7461_6400);
        let plan = plan(&dice);
        let keys = Keys::new("sim", "meta");
        let mut world = Self {
            now: 0,
            real: RealTime::default(),
            store: StoreSide::new(Drift::draw(&dice)),
            watches: Vec::new(),
            hosts: Vec::new(),
            guardians: Vec::new(),
            calls: BTreeMap::new(),
            gone: Vec::new(),
            leader_key: keys.leader(),
            keys,
            calm: false,
            moment: Vec::new(),
            oracle: Oracle::default(),
            tally: Tally::default(),
            trace: Trace::new(trace),
            operator_frozen: false,
            leading: (None, 0),
            queue: BinaryHeap::new(),
            order: 0,
            names: 0,
            dice,
            plan,
        };
        world.tell_watches();
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
        if world.plan.restored {
            let at = world.dice.below(world.plan.safety);
            world.push(at, Event::Restore);
        }
        let plan = world.plan.clone();
        world.trace(|| format!("{plan:?}"));
        world
    }

    fn host(&self, h: usize, node: String, priority: u16, second: bool) -> Host {
        let place = Place { machine: format!("machine {h}"), inode: 1, boot: format!("boot {h}") };
        Host {
            node,
            second,
            priority,
            version: "1",
            is_probed: self.dice.percent(self.plan.probed),
            is_ill: false,
            clock: Drift::draw(&self.dice),
            place,
            files: BTreeMap::new(),
            accepts_new_store: false,
            process: None,
            cut_until: 0,
            stale_until: 0,
            stale_term: 0,
            silent_until: 0,
        }
    }

    /// When something happens next, outside of the processes.
    pub fn next_at(&mut self) -> u64 {
        let head = self.queue.peek().map_or(u64::MAX, |e| e.0.at);
        head.min(self.store.next_end()).min(self.next_death())
    }

    /// Everything that is due happens. Returns the processes that are to be started.
    pub fn catch_up(&mut self) -> Vec<usize> {
        let mut starts = Vec::new();
        while self.queue.peek().is_some_and(|e| e.0.at <= self.now) {
            self.leases_end();
            let Some(Reverse(entry)) = self.queue.pop() else { break };
            match entry.event {
                Event::Start(h) => starts.push(h),
                event => self.happen(event),
            }
        }
        self.leases_end();
        self.let_die();
        starts
    }

    fn leases_end(&mut self) {
        if self.store.next_end() <= self.now {
            self.lease_is_due();
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Deliver(delivery) => self.deliver(delivery),
            Event::Answer(call, answer) => {
                if let Some(waiting) = self.calls.remove(&call) {
                    let _ = waiting.send(answer); // it has stopped waiting
                }
            }
            Event::Show(id) => self.show(id, false),
            Event::Alive(id) => self.show(id, true),
            Event::Start(_) => {}
            Event::Resume(h, pid) => self.resume(h, pid),
            Event::Look(id) => self.look_at_guardian(id),
            Event::ProgramDies(id) => self.program_dies(id),
            Event::AnotherGuardian(h, pid) => self.another_guardian(h, pid),
            Event::ExitTimer(h, pid) => self.exit_timer_fires(h, pid),
            Event::Doom(lease) => self.doom(lease),
            Event::Restore => self.restore(),
            Event::LateCopy(txn) => self.late_copy(*txn),
            Event::Probed(h, pid) => {
                if self.process(h, pid).is_some() {
                    self.tell_health(h);
                }
            }
            Event::Warm(h, pid) => {
                if self.process(h, pid).is_some() {
                    self.say_ready(h);
                }
            }
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

    /// Loses what was sent to a store that is not there any more.
    pub fn drop_late_copies(&mut self) {
        self.queue.retain(|e| !matches!(e.0.event, Event::LateCopy(_)));
    }

    /// Loses the faults to come, and the starts: the liveness phase has its own.
    pub fn drop_faults(&mut self) {
        let is_fault =
            |e: &Event| matches!(e, Event::Fault | Event::Start(_) | Event::Resume(..) | Event::Restore);
        self.queue.retain(|e| !is_fault(&e.0.event));
    }

    /// In the liveness phase: who leads, and since when.
    pub fn note_leader(&mut self) {
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
