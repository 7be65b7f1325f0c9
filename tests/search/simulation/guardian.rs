//! Guardians: the real rules (`guardian/rules.rs`), lived by a process that can be stopped, be killed, and be late.

use std::sync::{Arc, Mutex, PoisonError};

use metad::clock::Instant;
use metad::election::lease::LeaseId;
use metad::election::record::Token;
use metad::guardian::Guardianship;
use metad::guardian::horizon::Horizon;
use metad::guardian::rules::{GuardianRules, Last, ProgramState, Timer};
use metad::store::Request;
use tokio::sync::Notify;

use crate::simulation::clock::{MS, SEC};
use crate::simulation::host::Process;
use crate::simulation::network::From;
use crate::simulation::world::{Event, Sim, World};

/// How long a program takes to die at the end of its time, at most: it is killed, and nothing holds it.
const DEATH_MAX: u64 = 5 * MS;
/// The same where nobody is in a hurry.
const SLOW_DEATH_MAX: u64 = 300 * MS;
/// When a guardian looks again at what it has killed.
const KILL_AGAIN: u64 = 10 * MS;
/// When a guardian without an answer to a revoke asks again.
const REVOKE_AGAIN: u64 = SEC;
/// How soon a lost guardian is replaced.
const REPLACED_AFTER: u64 = 500 * MS;

/// The guardian process of a process.
pub struct Guardian {
    pub id: u64,
    pub h: usize,
    /// Whom it watches.
    pub pid: u32,
    pub rules: GuardianRules,
    /// Stopped until then.
    pub stopped_until: u64,
    /// The program that runs, and whether it is being killed.
    pub program: Option<(Token, ProgramState)>,
    /// Tells whoever waits for the program.
    pub changed: Arc<Notify>,
    horizon: Arc<Horizon>,
    main_is_dead: bool,
    timer: Option<Instant>,
    is_revoking: bool,
}

/// What a process knows of its guardian, and tells each new one.
#[derive(Clone)]
pub struct Keeper {
    pub sim: Sim,
    pub h: usize,
    pub pid: u32,
    /// All that was said so far.
    pub told: Arc<Mutex<GuardianRules>>,
}

impl Keeper {
    fn tell(&self, what: impl Fn(&mut GuardianRules)) {
        what(&mut self.told.lock().unwrap_or_else(PoisonError::into_inner));
        let mut world = self.sim.lock();
        if let Some(guardian) = world.guardian_of(self.h, self.pid) {
            what(&mut guardian.rules);
            let id = guardian.id;
            world.push(0, Event::Look(id));
        }
    }
}

impl Guardianship for Keeper {
    fn tell_lease(&self, lease: LeaseId) {
        self.tell(|rules| rules.add_lease(lease));
    }

    fn tell_pinned(&self, cluster: u64) {
        self.tell(|rules| rules.pin(cluster));
    }

    fn tell_moved(&self, _begun: bool) {
        self.tell(|_| {});
    }

    fn knows_a_lease(&self) -> bool {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).knows_a_lease()
    }

    fn dismiss(&self) {
        self.tell(GuardianRules::dismiss);
    }
}

impl Guardian {
    pub fn remains(&self) -> ProgramState {
        self.program.map_or(ProgramState::None, |(_, program)| program)
    }
}

// === impl World: a guardian's life ===

impl World {
    /// A process starts one, and tells it what it has told the last one.
    pub fn start_guardian(&mut self, h: usize, pid: u32, horizon: Arc<Horizon>, rules: GuardianRules) {
        let id = self.name();
        self.guardians.push(Guardian {
            id,
            h,
            pid,
            rules,
            stopped_until: 0,
            program: None,
            changed: Arc::new(Notify::new()),
            horizon,
            main_is_dead: false,
            timer: None,
            is_revoking: false,
        });
    }

    /// Instead of a lost one, if its process still lives.
    pub fn another_guardian(&mut self, h: usize, pid: u32) {
        let Some(p) = self.process(h, pid) else { return };
        let (horizon, told) = (p.horizon.clone(), p.told.clone());
        let rules = told.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.start_guardian(h, pid, horizon, rules);
    }

    /// The guardian of a process.
    pub fn guardian_of(&mut self, h: usize, pid: u32) -> Option<&mut Guardian> {
        self.guardians.iter_mut().find(|g| g.h == h && g.pid == pid)
    }

    fn guardian(&mut self, id: u64) -> Option<&mut Guardian> {
        self.guardians.iter_mut().find(|g| g.id == id)
    }

    /// Its process is dead: it hears of that at once, or as soon as it runs again.
    pub fn main_died(&mut self, h: usize, pid: u32) {
        let lag = self.dice.below(3 * MS);
        if let Some(guardian) = self.guardian_of(h, pid) {
            guardian.main_is_dead = true;
            guardian.rules.main_died();
            let id = guardian.id;
            self.push(lag, Event::Look(id));
        }
    }

    /// It does what is to be done now, unless it is stopped.
    pub fn look_at_guardian(&mut self, id: u64) {
        let now = self.now;
        let Some(g) = self.guardians.iter().find(|g| g.id == id && g.stopped_until <= now) else { return };
        let (h, pid, clock) = (g.h, g.pid, self.clock(g.h));
        if g.main_is_dead || g.rules.is_dismissed() {
            match g.rules.last(g.remains()) {
                Last::Kill => {
                    self.kill_program(id);
                    self.push(KILL_AGAIN, Event::Look(id));
                }
                Last::Revoke(leases, _) => return self.revoke(id, &leases),
                Last::Nothing => return self.guardians.retain(|g| g.id != id),
            }
        } else {
            let due = g.rules.due(clock, &g.horizon);
            if due.kill_program {
                self.kill_program(id);
            }
            if due.kill_main {
                self.tally.count("processes killed by their guardian");
                self.end(h, Some(pid), "its guardian killed it");
            }
        }
        let Some(g) = self.guardian(id) else { return };
        match g.rules.timer(clock, &g.horizon, g.remains()) {
            Timer::Off => g.timer = None,
            Timer::At(at) => g.timer = Some(at),
            Timer::AsItIs => {}
        }
    }

    /// It gives the leases back, again and again until that has arrived.
    fn revoke(&mut self, id: u64, leases: &[LeaseId]) {
        let Some(g) = self.guardian(id) else { return };
        g.is_revoking = true;
        let h = g.h;
        for lease in leases {
            let call = self.name();
            self.send(h, From::Guardian(id), call, Request::Revoke(*lease));
        }
        self.push(REVOKE_AGAIN, Event::Look(id));
    }

    /// It is done once its revoke has arrived.
    pub fn guardian_has_revoked(&mut self, id: u64) {
        let all_gone = |w: &World, g: &Guardian| match g.rules.last(ProgramState::None) {
            Last::Revoke(leases, _) => !leases.iter().any(|l| w.store.has(*l)),
            Last::Kill | Last::Nothing => true,
        };
        let done =
            self.guardians.iter().find(|g| g.id == id).is_some_and(|g| g.is_revoking && all_gone(self, g));
        if done {
            self.tally.count("leases given back by a guardian");
            self.guardians.retain(|g| g.id != id);
        }
    }

    /// It is gone, and its program with it: the parent-death signal. Its process will start another one.
    pub fn kill_guardian(&mut self, id: u64, why: &'static str) {
        let Some(i) = self.guardians.iter().position(|g| g.id == id) else { return };
        let g = self.guardians.remove(i);
        self.tally.count(why);
        self.trace(|| format!("the guardian of n{}#{} is gone: {why}", g.h, g.pid));
        g.changed.notify_waiters();
        self.push(REPLACED_AFTER, Event::AnotherGuardian(g.h, g.pid));
    }
}

// === impl World: programs ===

impl World {
    /// A process asks for a program. `None`: there is no guardian that answers; `Some(false)`: it refuses.
    pub fn start_program(&mut self, h: usize, pid: u32, token: Token) -> Option<bool> {
        let (now, clock) = (self.now, self.clock(h));
        let g = self.guardian_of(h, pid).filter(|g| g.stopped_until <= now)?;
        let Ok(until) = g.rules.may_start(clock, &g.horizon, g.remains()) else { return Some(false) };
        (g.timer, g.program) = (Some(until), Some((token, ProgramState::Runs)));
        Some(true)
    }

    /// Does its program, or what is left of it, live?
    pub fn has_program(&self, h: usize, pid: u32) -> bool {
        self.guardians.iter().any(|g| g.h == h && g.pid == pid && g.program.is_some())
    }

    /// The guardian of this process begins to kill the program.
    pub fn kill_program_of(&mut self, h: usize, pid: u32) {
        let now = self.now;
        if let Some(id) = self.guardian_of(h, pid).filter(|g| g.stopped_until <= now).map(|g| g.id) {
            self.kill_program(id);
        }
    }

    fn kill_program(&mut self, id: u64) {
        let Some(g) = self.guardian(id) else { return };
        let Some((token, ProgramState::Runs)) = g.program else { return };
        g.program = Some((token, ProgramState::Dies));
        let max = if g.main_is_dead { SLOW_DEATH_MAX } else { DEATH_MAX };
        let after = self.dice.below(max);
        self.tally.count("programs killed");
        self.push(after, Event::ProgramDies(id));
    }

    /// Nothing of it is left.
    pub fn program_dies(&mut self, id: u64) {
        let Some(g) = self.guardian(id) else { return };
        g.program = None;
        g.changed.notify_waiters();
        self.look_at_guardian(id);
    }
}

// === impl World: deadlines ===

impl World {
    /// When a kernel timer, a fuse or a guardian is due next, in real time.
    pub fn next_death(&self) -> u64 {
        let switch = |(h, p): (usize, &Process)| {
            let fuse = p.horizon.fuse().filter(|_| !p.paused);
            let first = [fuse, p.horizon.killed_at()].into_iter().flatten();
            first.map(|at| self.hosts[h].clock.when(at)).min()
        };
        let processes =
            self.hosts.iter().enumerate().filter_map(|(h, host)| Some((h, host.process.as_ref()?)));
        let guardian = |g: &Guardian| {
            let is_awake = g.stopped_until <= self.now && !g.main_is_dead;
            let due = is_awake.then(|| g.rules.next_due(&g.horizon, g.remains())).flatten();
            let first = [due, g.timer].into_iter().flatten();
            first.map(|at| self.hosts[g.h].clock.when(at)).min()
        };
        let guardians = self.guardians.iter().filter_map(guardian);
        processes.filter_map(switch).chain(guardians).min().unwrap_or(u64::MAX)
    }

    /// Whoever is late is ended.
    pub fn let_die(&mut self) {
        for h in 0..self.hosts.len() {
            let now = self.clock(h);
            let Some(p) = &self.hosts[h].process else { continue };
            let passed = |at: Option<Instant>| at.is_some_and(|at| now.reached(at));
            let (pid, paused) = (p.pid, p.paused);
            if passed(p.horizon.killed_at()) {
                self.tally.count("the kernel timer fired");
                self.end(h, Some(pid), "its kernel timer");
            } else if !paused && passed(p.horizon.fuse()) {
                self.tally.count("the fuse fired");
                self.end(h, Some(pid), "the fuse");
            }
        }
        let ids: Vec<_> = self.guardians.iter().map(|g| (g.id, g.h, g.timer)).collect();
        for (id, h, timer) in ids {
            let now = self.clock(h);
            if timer.is_some_and(|at| now.reached(at)) {
                self.kill_guardian(id, "guardians ended by their kernel timer");
                continue;
            }
            let is_due =
                |g: &Guardian| g.rules.next_due(&g.horizon, g.remains()).is_some_and(|at| now.reached(at));
            if self.guardians.iter().any(|g| g.id == id && !g.main_is_dead && is_due(g)) {
                self.look_at_guardian(id);
            }
        }
    }
}
