//! The fuse: ends the process at `H`, whatever else in it still works.
//!
//! One OS thread and a few atomics; no allocation, no lock, no log, because any of them may be what hangs. It
//! covers a blocked async runtime, a deadlock, a lost timer. It does not cover a process that is stopped as a
//! whole (its main loop is stopped too; the guardian kills it), nor a thread in uninterruptible sleep.
//!
//! `process::exit` would run destructors and `abort` may write a core dump for minutes; `_exit` does neither.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::Thread;
use std::time::Duration;

use crate::clock::{Clock, Instant, OsClock};

/// The exit code of a process that the fuse ended.
pub const FUSE_EXIT_CODE: i32 = 76;
/// Means: no deadline.
const NEVER: u64 = u64::MAX;
/// The longest sleep: bounds how far `CLOCK_BOOTTIME`, which the sleep counts on, may lag behind the other clock.
const LOOK_AT_LEAST: Duration = Duration::from_millis(500);

/// The two instants of the present tenure, readable from any thread without a lock.
///
/// A reader may see the two clocks of an instant from two different moments. That does no harm: each only moves
/// forward during a tenure, and an instant has passed as soon as it has passed on one clock.
#[derive(Debug)]
pub struct Horizon {
    fuse_boot: AtomicU64,
    fuse_raw: AtomicU64,
    stop_boot: AtomicU64,
    stop_raw: AtomicU64,
}

/// The armed thread.
#[derive(Debug)]
pub struct Fuse {
    horizon: Arc<Horizon>,
    thread: Thread,
}

// === impl Horizon ===

impl Horizon {
    /// No deadline at all.
    pub fn new() -> Self {
        let never = || AtomicU64::new(NEVER);
        Self { fuse_boot: never(), fuse_raw: never(), stop_boot: never(), stop_raw: never() }
    }

    /// H: when the process must be dead.
    pub fn fuse(&self) -> Option<Instant> {
        read(&self.fuse_boot, &self.fuse_raw)
    }

    /// S: when the main loop must stop.
    pub fn step_down_at(&self) -> Option<Instant> {
        read(&self.stop_boot, &self.stop_raw)
    }

    fn set(&self, fuse: Option<Instant>, stop: Option<Instant>) {
        write(&self.fuse_boot, &self.fuse_raw, fuse);
        write(&self.stop_boot, &self.stop_raw, stop);
    }
}

impl Default for Horizon {
    fn default() -> Self {
        Self::new()
    }
}

fn read(boot: &AtomicU64, raw: &AtomicU64) -> Option<Instant> {
    let (boot, raw) = (boot.load(Ordering::Acquire), raw.load(Ordering::Acquire));
    (boot != NEVER && raw != NEVER).then(|| Instant::from_nanos(boot, raw))
}

fn write(boot: &AtomicU64, raw: &AtomicU64, at: Option<Instant>) {
    boot.store(at.map_or(NEVER, Instant::boot_ns), Ordering::Release);
    raw.store(at.map_or(NEVER, Instant::raw_ns), Ordering::Release);
}

// === impl Fuse ===

impl Fuse {
    /// Starts the thread, unarmed.
    ///
    /// # Errors
    /// The system has no thread to give; then nobody may lead.
    pub fn start() -> std::io::Result<Self> {
        let horizon = Arc::new(Horizon::new());
        let watched = horizon.clone();
        let handle = std::thread::Builder::new().name("fuse".into()).spawn(move || burn(&watched))?;
        Ok(Self { horizon, thread: handle.thread().clone() })
    }

    /// The deadlines, for those who only read them.
    pub fn horizon(&self) -> Arc<Horizon> {
        self.horizon.clone()
    }

    /// Moves the deadlines; `None` disarms.
    pub fn set(&self, fuse: Option<Instant>, stop: Option<Instant>) {
        let was_armed = self.horizon.fuse().is_some();
        self.horizon.set(fuse, stop);
        if fuse.is_some() && !was_armed {
            self.thread.unpark();
        }
    }
}

fn burn(horizon: &Horizon) {
    loop {
        let Some(deadline) = horizon.fuse() else {
            std::thread::park();
            continue;
        };
        let now = OsClock.now();
        if now.reached(deadline) {
            end_process();
        }
        sleep(now.until(deadline).min(LOOK_AT_LEAST));
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

fn end_process() -> ! {
    // SAFETY: `_exit` takes a number and does not return; it runs no destructor and touches no memory of ours.
    unsafe { libc::_exit(FUSE_EXIT_CODE) }
}
