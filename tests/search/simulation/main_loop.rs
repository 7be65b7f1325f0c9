//! The main loop of a simulated process: it writes behind the fence and ends when told, or does not; or it stands for a
//! program that its guardian runs.

use std::time::Duration;

use futures_util::FutureExt;
use metad::driver::leadership::Leadership;
use metad::driver::main_loop::{BoxFuture, MainLoop, MainLoopEnd};
use metad::election::history::Reason;
use metad::protocol::writes::{Change, Write, WriteError};

use crate::simulation::clock::{MS, SEC};
use crate::simulation::invariants::Happened;
use crate::simulation::machine::{Machine, nanos};
use crate::simulation::world::World;

/// How often a program's guardian is looked at, and after how many looks without an answer it counts as lost.
const PING_EVERY: Duration = Duration::from_millis(500);
const PINGS_MAX: u32 = 4;
/// A main loop that gives no sign of life for so long is hung.
pub const WATCHDOG_TIMEOUT: Duration = Duration::from_secs(5);

/// How one main loop behaves.
#[derive(Clone, Copy, Debug)]
pub struct Manners {
    /// How long it takes to begin.
    start_after: u64,
    /// How long it takes to end when told; `None`: it hangs until it is aborted.
    stop_after: Option<u64>,
    /// Does it not even end when it is ended the hard way? Then only the end of the process ends it.
    deaf: bool,
    /// How far apart its writes are.
    cadence: u64,
    /// Is it a program?
    is_program: bool,
}

/// A main loop.
pub struct Loop {
    pub machine: Machine,
    pub manners: Manners,
}

/// Something of a main loop runs: until this is dropped.
struct Running(Machine);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.sim.lock().main_loop_ended(self.0.h, self.0.pid);
    }
}

impl Manners {
    /// Seeded ones.
    pub fn draw(world: &World) -> Self {
        let dice = &world.dice;
        let late = if world.calm { 5 } else { [5, 200, 2_000][dice.below(3) as usize] };
        Self {
            start_after: dice.below(late * MS),
            stop_after: match dice.below(6) {
                0 => None,
                1 => Some(dice.below(3 * SEC)),
                _ => Some(dice.below(50 * MS)),
            },
            deaf: !world.calm && dice.percent(20),
            cadence: (world.plan.ttl_ns() / (4 + dice.below(20))).min(2 * SEC),
            is_program: world.plan.programs,
        }
    }
}

impl MainLoop for Loop {
    fn run(self: Box<Self>, leadership: Leadership) -> BoxFuture<MainLoopEnd> {
        Box::pin(async move {
            tokio::time::sleep(nanos(self.manners.start_after)).await;
            if leadership.check().is_err() {
                self.machine.sim.lock().tally.count("main loops lost before they began");
                return MainLoopEnd::default();
            }
            let _running = Running(self.machine.clone());
            match self.manners.is_program {
                true => self.supervise(&leadership).await,
                false => self.work(&leadership).await,
            }
        })
    }

    fn must_be_waited_for(&self) -> bool {
        self.manners.deaf || self.manners.is_program
    }

    fn says_when_it_runs(&self) -> bool {
        true
    }
}

// === a loop in the process ===

impl Loop {
    async fn work(&self, leadership: &Leadership) -> MainLoopEnd {
        self.machine.sim.lock().main_loop_begins(self.machine.h, self.machine.pid);
        leadership.started().await;
        for n in 0.. {
            if leadership.check().is_err() {
                break;
            }
            leadership.heartbeat();
            // Given up with it: a write that was sent may still happen.
            let written =
                async { tokio::join!(self.write(leadership, 2 * n), self.write(leadership, 2 * n + 1)) };
            tokio::select! {
                biased;
                _ = leadership.lost() => break,
                _ = written => {}
            }
            let ill = self.machine.dice(1000);
            let calm = self.machine.sim.lock().calm;
            match ill {
                0 if !calm => return MainLoopEnd { code: Some(3) },
                1 if !calm => {
                    self.machine.sim.lock().tally.count("main loops hung");
                    return self.hang(leadership).await;
                }
                _ => {}
            }
            let pause = nanos(self.manners.cadence / 2 + self.machine.dice(self.manners.cadence));
            tokio::select! {
                biased;
                _ = leadership.lost() => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
        match self.manners.stop_after {
            Some(after) => tokio::time::sleep(nanos(after)).await,
            None => return self.hang(leadership).await,
        }
        MainLoopEnd::default()
    }

    /// It ends when it is ended, or not even then.
    async fn hang(&self, leadership: &Leadership) -> MainLoopEnd {
        leadership.aborted().await;
        if self.manners.deaf {
            self.machine.sim.lock().tally.count("main loops deaf to an abort");
            return std::future::pending().await;
        }
        tokio::time::sleep(nanos(self.machine.dice(100 * MS))).await; // it may be dropped before
        MainLoopEnd::default()
    }

    /// A write that happens once or not at all, and says which.
    async fn write(&self, leadership: &Leadership, n: u64) {
        let name = format!("{}-{n}", leadership.token());
        let key = format!("w/{}", n % 8);
        let write = Write { expected: vec![], changes: vec![Change::Put(key, name.clone().into_bytes())] };
        let told = match leadership.write(&write).await {
            Ok(at) => Happened::ToldWritten { name, at },
            Err(WriteError::Unknown(_)) => return,
            Err(_) => Happened::ToldRefused { name },
        };
        self.machine.sim.lock().moment.push(told);
    }
}

// === a program ===

impl Loop {
    /// Has the guardian run a program until it ends or is ended.
    async fn supervise(&self, leadership: &Leadership) -> MainLoopEnd {
        let Machine { sim, h, pid, .. } = &self.machine;
        loop {
            match sim.lock().start_program(*h, *pid, leadership.token()) {
                Some(true) => break,
                Some(false) => return MainLoopEnd::default(),
                None => {}
            }
            tokio::select! {
                biased;
                _ = leadership.lost() => return MainLoopEnd::default(),
                () = tokio::time::sleep(nanos(50 * MS)) => {}
            }
        }
        sim.lock().main_loop_begins(*h, *pid);
        leadership.started().await;
        let code = tokio::select! {
            biased;
            _ = leadership.lost() => None,
            () = self.program_is_gone(leadership) => None,
            code = self.life() => code,
        };
        self.end_program(leadership).await;
        MainLoopEnd { code }
    }

    /// How long a program lives that nobody ends.
    async fn life(&self) -> Option<i32> {
        let lives_for = nanos(self.machine.dice(400 * SEC));
        tokio::time::sleep(lives_for).await;
        if self.machine.sim.lock().calm {
            return std::future::pending().await;
        }
        self.machine.sim.lock().kill_program_of(self.machine.h, self.machine.pid);
        Some(3)
    }

    /// The guardian was lost, and the program with it; or does not answer any more, and is killed for it.
    async fn program_is_gone(&self, leadership: &Leadership) {
        let Machine { sim, h, pid, .. } = &self.machine;
        let mut unanswered = 0;
        while sim.lock().has_program(*h, *pid) {
            tokio::time::sleep(PING_EVERY).await;
            leadership.heartbeat();
            let mut world = sim.lock();
            let now = world.now;
            let stopped = world.guardian_of(*h, *pid).filter(|g| g.stopped_until > now).map(|g| g.id);
            unanswered = if stopped.is_some() { unanswered + 1 } else { 0 };
            if let Some(id) = stopped.filter(|_| unanswered >= PINGS_MAX) {
                world.kill_guardian(id, "guardians that do not answer");
            }
        }
        leadership.give_up(Reason::GuardianLost).await;
    }

    /// Asks it to end, and has it killed when its time is over. Returns when nothing of it is left.
    async fn end_program(&self, leadership: &Leadership) {
        let Machine { sim, h, pid, .. } = &self.machine;
        let gently = async {
            match self.manners.stop_after {
                Some(after) => tokio::time::sleep(nanos(after)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = leadership.aborted() => {}
            () = gently => {}
            () = self.until_gone() => return,
        }
        let mut unanswered = 0;
        loop {
            sim.lock().kill_program_of(*h, *pid);
            let looked = tokio::time::timeout(PING_EVERY, self.until_gone().fuse()).await;
            if looked.is_ok() {
                return;
            }
            unanswered += 1;
            let mut world = sim.lock();
            if let Some(id) = world.guardian_of(*h, *pid).map(|g| g.id).filter(|_| unanswered >= PINGS_MAX) {
                world.kill_guardian(id, "guardians that do not answer");
            }
        }
    }

    async fn until_gone(&self) {
        let Machine { sim, h, pid, .. } = &self.machine;
        loop {
            let changed =
                sim.lock().guardian_of(*h, *pid).filter(|g| g.program.is_some()).map(|g| g.changed.clone());
            match changed {
                Some(changed) => changed.notified().await,
                None => return,
            }
        }
    }
}

// === impl World: main loops ===

impl World {
    /// It does something for the first time.
    pub fn main_loop_begins(&mut self, h: usize, pid: u32) {
        let Some(main_loop) = self.process(h, pid).and_then(|p| p.main_loop.as_mut()) else { return };
        main_loop.begun = true;
        let token = main_loop.token;
        self.moment.push(Happened::LoopBegan { h, pid, token });
        self.tally.count("main loops begun");
        self.trace(|| format!("n{h}#{pid} main loop begins under {token}"));
    }

    fn main_loop_ended(&mut self, h: usize, pid: u32) {
        let Some(main_loop) = self.process(h, pid).and_then(|p| p.main_loop.as_mut()) else { return };
        main_loop.ended = true;
        let token = main_loop.token;
        self.trace(|| format!("n{h}#{pid} main loop under {token} has ended"));
    }
}
