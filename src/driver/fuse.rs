//! The fuse and the kernel timer: end the process when its lease is over, whatever else in it still works.
//!
//! The fuse is a thread that calls `_exit` at `H`, so that the exit code tells what happened. One OS thread and a few
//! atomics; no allocation, no log, and no lock that it waits for, because any of them may be what hangs. It covers a
//! blocked async runtime, a deadlock, a lost timer. The kernel timer ([`KernelTimer`]) covers the rest 20 ms later: a
//! process that is stopped as a whole, and a fuse that hangs or gets no CPU. Neither covers a thread in
//! uninterruptible sleep.
//!
//! `process::exit` would run destructors and `abort` may write a core dump for minutes; `_exit` does neither.

use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::Thread;
use std::time::Duration;

use crate::clock::{Clock, OsClock};
use crate::election::exit::Exit;
use crate::guardian::horizon::{Change, End, Horizon};
use crate::guardian::kernel_timer::KernelTimer;

/// The longest sleep: bounds how far `CLOCK_BOOTTIME`, which the sleep and the kernel timer count on, may lag behind
/// the other clock; 5 ms, where they differ by 500 ppm, which is as much as the kernel steers a clock.
const SLEEP_MAX: Duration = Duration::from_secs(10);
/// The shortest sleep, unless the deadline is nearer: a deadline that does not move is not looked at ever more often.
const SLEEP_MIN: Duration = Duration::from_millis(500);

/// How long the log gets to write its last line, and the observers to do their last work.
const LAST_LINE: Duration = Duration::from_millis(50);

/// Ends this process when its lease is over, whatever else in it still works.
pub trait DeadMansSwitch: Send + Sync + 'static {
    /// The deadlines, for those who only read them.
    fn horizon(&self) -> Arc<Horizon>;

    /// Moves the deadlines; `None` disarms.
    fn set(&self, end: Option<End>) -> Change;

    /// Ends the process on the spot, with this code, once the log had a moment for its last line. Only a simulated process
    /// goes on, and is dropped before its next step.
    fn end_process(&self, code: i32);
}

/// The armed thread.
#[derive(Debug)]
pub struct Fuse {
    deadlines: Arc<Deadlines>,
    thread: Thread,
}

#[derive(Debug)]
struct Deadlines {
    horizon: Arc<Horizon>,
    /// Locked while the page changes as well: nobody may arm the timer with what the page showed before.
    timer: Mutex<KernelTimer>,
}

// === impl Fuse ===

impl Fuse {
    /// Starts the thread, unarmed.
    ///
    /// # Errors
    /// The system has no thread or no timer to give; then nobody may lead.
    pub fn start() -> std::io::Result<Self> {
        let (horizon, timer) = (Arc::new(Horizon::create()?), Mutex::new(KernelTimer::create()?));
        let deadlines = Arc::new(Deadlines { horizon, timer });
        let watched = deadlines.clone();
        let handle = std::thread::Builder::new().name("fuse".into()).spawn(move || burn(&watched))?;
        Ok(Self { deadlines, thread: handle.thread().clone() })
    }
}

impl DeadMansSwitch for Fuse {
    fn horizon(&self) -> Arc<Horizon> {
        self.deadlines.horizon.clone()
    }

    /// Moves the kernel timer with them.
    fn set(&self, end: Option<End>) -> Change {
        let change = self.deadlines.horizon.change_to(end);
        if change != Change::None {
            self.deadlines.set(end);
        }
        if change == Change::Begun {
            self.thread.unpark();
        }
        change
    }

    fn end_process(&self, code: i32) {
        std::thread::sleep(LAST_LINE); // the log is written by a thread of its own
        end_process(code)
    }
}

// === impl Deadlines ===

impl Deadlines {
    fn set(&self, end: Option<End>) {
        let timer = self.timer.lock().unwrap_or_else(|e| e.into_inner());
        self.horizon.set(end);
        self.arm(&timer);
    }

    /// Follows the clock that is ahead. Whoever changes the deadlines at the moment does it himself.
    fn follow_clocks(&self) {
        if let Ok(timer) = self.timer.try_lock() {
            self.arm(&timer);
        }
    }

    fn arm(&self, timer: &MutexGuard<'_, KernelTimer>) {
        match self.horizon.killed_at() {
            Some(at) => timer.arm(OsClock.now(), at),
            None => timer.disarm(),
        }
    }
}

fn burn(deadlines: &Deadlines) {
    loop {
        let Some(deadline) = deadlines.horizon.fuse() else {
            std::thread::park();
            continue;
        };
        let now = OsClock.now();
        if now.reached(deadline) {
            deadlines.horizon.note_fuse();
            end_process(Exit::Fuse.code());
        }
        deadlines.follow_clocks();
        // By half of the time it has usually moved.
        let left = now.until(deadline);
        sleep(left.min((left / 2).clamp(SLEEP_MIN, SLEEP_MAX)));
    }
}

/// Sleeps on the clock that counts suspend.
fn sleep(duration: Duration) {
    let request = rustix::time::Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    };
    // Interrupted or refused: the loop looks at the clock again.
    let _ = rustix::thread::clock_nanosleep_relative(rustix::thread::ClockId::Boottime, &request);
}

/// Ends the process, whatever its other threads are doing.
fn end_process(code: i32) -> ! {
    // SAFETY: `_exit` takes a number and does not return; it runs no destructor and touches no memory of ours.
    unsafe { libc::_exit(code) }
}
