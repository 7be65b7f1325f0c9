//! Processes: made of the real driver, polled here, and dropped when they die.
//!
//! The tasks of a process are polled while it runs, not polled while it is stopped, and dropped when it is killed: at any
//! await of any of them.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use metad::data_dir::{DataDir, DataDirError};
use metad::driver::readiness::Readiness;
use metad::driver::{self, DriverParts, Timeouts};
use metad::election::history::{Ending, Reason};
use metad::election::lease::LeaseId;
use metad::election::record::{Incarnation, MemberId, MemberUuid, Registration};
use metad::guardian::Guardianship;
use metad::guardian::horizon::Horizon;
use metad::guardian::rules::GuardianRules;
use metad::store::unreliable::Dice;
use metad::telemetry::Telemetry;
use tokio::time::{Instant, Sleep};

use crate::simulation::clock::{MS, MachineClock, SEC};
use crate::simulation::guardian::Keeper;
use crate::simulation::host::{Host, Process};
use crate::simulation::invariants::{self, Happened};
use crate::simulation::machine::{Machine, nanos};
use crate::simulation::main_loop::{Loop, Manners, WATCHDOG_TIMEOUT};
use crate::simulation::plan::Plan;
use crate::simulation::watching::{NOTHING, Watching};
use crate::simulation::world::{Event, Sim, Violation, World};

/// How long the store may be away when a process starts.
const STORE_TIMEOUT: Duration = Duration::from_secs(15);
/// No main loop says here that it is warming up.
const WARM_UP_TIMEOUT: Duration = Duration::from_secs(600);
/// From the decision to end until the kernel ends the process.
const EXIT_MAX: u64 = 2 * SEC;
/// More steps without any time passing than any honest seed needs: something spins.
const STEPS_AT_ONCE_MAX: u32 = 10_000;

/// Plays a world.
pub struct Player {
    pub sim: Sim,
    began: Instant,
    running: BTreeMap<usize, Running>,
}

/// The tasks of a process.
struct Running {
    pid: u32,
    tasks: FuturesUnordered<BoxFuture<'static, ()>>,
    fresh: Arc<Mutex<Vec<BoxFuture<'static, ()>>>>,
}

impl Player {
    /// Before anything has happened. On a runtime whose time is paused.
    pub fn new(seed: u64, trace: bool) -> Self {
        Self { sim: Sim::new(seed, trace), began: Instant::now(), running: BTreeMap::new() }
    }

    /// Of this plan.
    pub fn with_plan(seed: u64, plan: impl FnOnce(&Dice) -> Plan) -> Self {
        Self { sim: Sim::with_plan(seed, plan), began: Instant::now(), running: BTreeMap::new() }
    }

    /// Plays all that happens until `until`, and checks the invariants after each step.
    pub async fn play(&mut self, until: u64) -> Result<(), Violation> {
        let (mut last, mut steps) = (0, 0);
        loop {
            let next = self.turn()?.min(until);
            let has_run = self.step(next).await;
            let now = self.sim.lock().now;
            (last, steps) = if now == last { (now, steps + 1) } else { (now, 0) };
            if steps > STEPS_AT_ONCE_MAX {
                return Err(Violation { invariant: "nobody_spins", what: format!("{steps} steps at once") });
            }
            if now >= until && !has_run {
                let mut world = self.sim.lock();
                world.note_leader();
                return invariants::check(&mut world);
            }
        }
    }

    /// The world catches up, processes are started and buried. Returns when something happens next.
    fn turn(&mut self) -> Result<u64, Violation> {
        loop {
            let starts = {
                let mut world = self.sim.lock();
                invariants::check(&mut world)?;
                let starts = world.catch_up();
                invariants::check(&mut world)?;
                world.note_leader();
                starts
            };
            self.bury();
            if starts.is_empty() {
                break;
            }
            starts.into_iter().for_each(|h| self.start(h));
        }
        let mut world = self.sim.lock();
        Ok(world.next_at())
    }

    fn bury(&mut self) {
        let gone = std::mem::take(&mut self.sim.lock().gone);
        for (h, pid) in gone {
            if self.running.get(&h).is_some_and(|r| r.pid == pid) {
                self.running.remove(&h);
            }
        }
    }

    /// Lets every task run that can, until none can or it is so late. Has one run?
    async fn step(&mut self, until: u64) -> bool {
        let mut sleep = pin!(tokio::time::sleep_until(self.began + nanos(until)));
        tokio::task::unconstrained(poll_fn(|cx| self.poll(cx, sleep.as_mut()))).await
    }

    fn poll(&mut self, cx: &mut Context<'_>, sleep: Pin<&mut Sleep>) -> Poll<bool> {
        {
            let mut world = self.sim.lock();
            world.now = self.began.elapsed().as_nanos() as u64;
            world.real.set(world.now);
        }
        let mut has_run = false;
        for (h, running) in &mut self.running {
            let is_awake = |w: &mut World| w.process(*h, running.pid).is_some_and(|p| !p.paused);
            if !is_awake(&mut self.sim.lock()) {
                continue;
            }
            has_run |= running.poll(cx);
            let tasks = running.tasks.len();
            if let Some(p) = self.sim.lock().process(*h, running.pid) {
                p.tasks = tasks;
            }
        }
        match sleep.poll(cx) {
            _ if has_run => Poll::Ready(true),
            Poll::Ready(()) => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Running {
    /// Polls what can go on. Has something ended or begun, or been polled?
    fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        let mut has_run = false;
        loop {
            let fresh = std::mem::take(&mut *self.fresh.lock().unwrap_or_else(PoisonError::into_inner));
            let has_fresh = !fresh.is_empty();
            self.tasks.extend(fresh);
            let ended = matches!(self.tasks.poll_next_unpin(cx), Poll::Ready(Some(())));
            has_run |= has_fresh || ended;
            if !ended && self.fresh.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
                return has_run;
            }
        }
    }
}

// === impl Player: a process's life ===

impl Player {
    /// The supervisor starts a process on this data dir.
    fn start(&mut self, h: usize) {
        if !self.sim.lock().may_start(h) {
            return;
        }
        let machine = self.sim.lock().machine(&self.sim, h);
        let pid = machine.pid;
        let data_dir = match open_data_dir(&machine) {
            Ok(data_dir) => data_dir,
            Err(_) => {
                let mut world = self.sim.lock();
                world.tally.count("data dirs that could not be opened");
                return world.start_later(h);
            }
        };
        let told = Arc::new(Mutex::new(GuardianRules::default()));
        let keeper = Keeper { sim: self.sim.clone(), h, pid, told: told.clone() };
        let me = MemberId { uuid: data_dir.uuid(), incarnation: data_dir.incarnation(), node: String::new() };
        let parts = self.parts(&machine, data_dir, keeper);
        let readiness = parts.readiness.clone();
        let me = MemberId { node: parts.registration.member.node.clone(), ..me };
        let (driver, handle) = driver::prepare(parts, Arc::new(machine.clone()));
        let (sim, horizon) = (self.sim.clone(), machine.horizon.clone());
        let life = async move {
            let ending = driver.await;
            sim.lock().exited(h, pid, &ending);
        };
        let tasks = FuturesUnordered::new();
        tasks.push(Box::pin(life) as BoxFuture<'static, ()>);
        self.running.insert(h, Running { pid, tasks, fresh: machine.fresh.clone() });
        let mut world = self.sim.lock();
        world.trace(|| format!("n{h}#{pid} starts"));
        if world.plan.guardians {
            world.start_guardian(h, pid, horizon.clone(), GuardianRules::default());
        }
        world.hosts[h].process = Some(Process {
            pid,
            me,
            handle,
            readiness,
            was_probed: false,
            said_healthy_for: None,
            told,
            horizon,
            paused: false,
            is_ending: false,
            was_paused: false,
            seen: None,
            main_loop: None,
            shown: NOTHING,
            seen_token: None,
            tasks: 0,
            unsure: None,
            lost_claim: None,
            checked: None,
        });
        world.begin_to_be_well(h, pid);
    }

    fn parts(&self, machine: &Machine, data_dir: DataDir, keeper: Keeper) -> DriverParts {
        let world = self.sim.lock();
        let (plan, host, shared) = (&world.plan, &world.hosts[machine.h], Arc::new(machine.clone()));
        let manners = Manners::draw(&world);
        let (sim, h, pid) = (self.sim.clone(), machine.h, machine.pid);
        DriverParts {
            readiness: Readiness::default(),
            health: world.health_at_start(machine.h),
            store: shared.clone(),
            main_store: shared.clone(),
            places: shared.clone(),
            clock: machine.clock.clone(),
            keys: world.keys.clone(),
            cluster: "sim".into(),
            registration: registration(host, h, plan.ttl),
            timeouts: Timeouts {
                stop: plan.stop_timeout,
                start: plan.start_timeout,
                warm_up: WARM_UP_TIMEOUT,
                main_loop: Some(WATCHDOG_TIMEOUT),
                failback_delay: plan.failback_delay,
                store: STORE_TIMEOUT,
            },
            data_dir,
            fuse: shared.clone(),
            guardian: plan.guardians.then(|| Arc::new(keeper) as Arc<dyn Guardianship>),
            peers: shared.clone(),
            telemetry: Telemetry::new(&host.node, machine.clock.clone(), None),
            main_loop: Box::new(Loop { machine: machine.clone(), manners }),
            main_tasks: shared,
            observers: vec![Box::new(Watching(machine.clone()))],
            on_end: Box::new(move |_| {
                let mut world = sim.lock();
                if let Some(p) = world.process(h, pid) {
                    p.is_ending = true;
                    world.push(EXIT_MAX, Event::ExitTimer(h, pid));
                }
            }),
        }
    }
}

/// As `node` does it.
fn open_data_dir(machine: &Machine) -> Result<DataDir, DataDirError> {
    let (place, accepts) = {
        let mut world = machine.sim.lock();
        let host = &mut world.hosts[machine.h];
        (host.place.clone(), std::mem::take(&mut host.accepts_new_store))
    };
    let sim = machine.sim.clone();
    let random = move || {
        let world = sim.lock();
        u128::from(world.dice.roll()) << 64 | u128::from(world.dice.roll())
    };
    let mut dir = DataDir::open_at(Box::new(machine.clone()), place, false, Box::new(random))?;
    if accepts {
        dir.forget_pin();
    }
    Ok(dir)
}

fn registration(host: &Host, h: usize, ttl: Duration) -> Registration {
    Registration {
        member: MemberId { node: host.node.clone(), uuid: MemberUuid(0), incarnation: Incarnation(0) },
        rpc_address: format!("host{h}:1"),
        http_address: format!("host{h}:2"),
        priority: host.priority,
        version: host.version.into(),
        ttl,
        lease: LeaseId(0),
    }
}

// === impl World: a process's life ===

impl World {
    /// What a new process of this host has of its machine.
    fn machine(&mut self, sim: &Sim, h: usize) -> Machine {
        let pid = u32::try_from(self.name()).unwrap_or(u32::MAX);
        let clock = Arc::new(MachineClock { drift: self.hosts[h].clock, real: self.real.clone() });
        let horizon = Arc::new(Horizon::create().expect("a page of memory"));
        Machine { sim: sim.clone(), h, pid, clock, fresh: Arc::default(), horizon }
    }

    /// A process is gone, if it is still this one, and its main loop with it. A supervisor starts another one.
    pub fn end(&mut self, h: usize, pid: Option<u32>, why: &str) {
        let is_it = |p: &&Process| pid.is_none_or(|pid| p.pid == pid);
        let Some(pid) = self.hosts[h].process.as_ref().filter(is_it).map(|p| p.pid) else { return };
        self.hosts[h].process = None;
        self.gone.push((h, pid));
        self.trace(|| format!("n{h}#{pid} is gone: {why}"));
        self.main_died(h, pid);
        self.start_later(h);
    }

    /// The data dir of a dead process stays locked until nothing of its program is left.
    fn may_start(&mut self, h: usize) -> bool {
        if self.hosts[h].process.is_some() {
            return false;
        }
        let is_locked = self.guardians.iter().any(|g| g.h == h && g.program.is_some());
        if is_locked {
            self.tally.count("starts that wait for a dead process's program");
            self.push(5 * MS, Event::Start(h));
        }
        !is_locked
    }

    fn start_later(&mut self, h: usize) {
        if self.hosts[h].second {
            return;
        }
        let after = if self.calm { 100 * MS } else { 100 * MS + self.dice.below(8 * SEC) };
        self.push(after, Event::Start(h));
    }

    /// Its driver is done.
    fn exited(&mut self, h: usize, pid: u32, ending: &Ending) {
        self.tally.count(ending.reason.as_str());
        self.trace(|| format!("n{h}#{pid} {}: {}", ending.reason, ending.detail));
        match ending.reason {
            Reason::DataDirStale => self.moment.push(Happened::CalledStale { h }),
            Reason::StoreChanged => self.moment.push(Happened::CalledChanged { h }),
            _ => {}
        }
        self.end(h, Some(pid), ending.reason.as_str());
    }

    /// The kernel ends whatever still hangs.
    pub fn exit_timer_fires(&mut self, h: usize, pid: u32) {
        if let Some(p) = self.process(h, pid) {
            if !p.was_paused {
                self.moment.push(Happened::ExitHung { h });
            }
            self.tally.count("exit timers fired");
            self.end(h, Some(pid), "its exit timer");
        }
    }

    /// A stopped process goes on: everything that waited happens at once.
    pub fn resume(&mut self, h: usize, pid: u32) {
        if let Some(p) = self.process(h, pid) {
            p.paused = false;
            self.trace(|| format!("n{h}#{pid} goes on"));
        }
    }
}
