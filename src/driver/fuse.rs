//! The fuse: ends the process at `H`, whatever else in it still works.
//!
//! One OS thread and a few atomics; no allocation, no lock, no log, because any of them may be what hangs. It
//! covers a blocked async runtime, a deadlock, a lost timer. It does not cover a process that is stopped as a
//! whole (its main loop is stopped too; the guardian kills it), nor a thread in uninterruptible sleep.
//!
//! `process::exit` would run destructors and `abort` may write a core dump for minutes; `_exit` does neither.

use std::sync::Arc;
use std::thread::Thread;
use std::time::Duration;

use crate::clock::{Clock, OsClock};
use crate::guardian::horizon::{End, Horizon};

/// The exit code of a process that the fuse ended.
pub const FUSE_EXIT_CODE: i32 = 76;
/// The longest sleep: bounds how far `CLOCK_BOOTTIME`, which the sleep counts on, may lag behind the other clock.
const LOOK_AT_LEAST: Duration = Duration::from_millis(500);

/// The armed thread.
#[derive(Debug)]
pub struct Fuse {
    horizon: Arc<Horizon>,
    thread: Thread,
}

// === impl Fuse ===

impl Fuse {
    /// Starts the thread, unarmed.
    ///
    /// # Errors
    /// The system has no thread to give; then nobody may lead.
    pub fn start() -> std::io::Result<Self> {
        let horizon = Arc::new(Horizon::create()?);
        let watched = horizon.clone();
        let handle = std::thread::Builder::new().name("fuse".into()).spawn(move || burn(&watched))?;
        Ok(Self { horizon, thread: handle.thread().clone() })
    }

    /// The deadlines, for those who only read them.
    pub fn horizon(&self) -> Arc<Horizon> {
        self.horizon.clone()
    }

    /// Moves the deadlines; `None` disarms. True: they have just begun to count.
    pub fn set(&self, end: Option<End>) -> bool {
        let was_armed = self.horizon.fuse().is_some();
        self.horizon.set(end);
        let begins = end.is_some() && !was_armed;
        if begins {
            self.thread.unpark();
        }
        begins
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
            end_process(FUSE_EXIT_CODE);
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

/// Ends the process, whatever its other threads are doing.
pub(super) fn end_process(code: i32) -> ! {
    // SAFETY: `_exit` takes a number and does not return; it runs no destructor and touches no memory of ours.
    unsafe { libc::_exit(code) }
}
