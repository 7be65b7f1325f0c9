//! What this machine has kept the tests from: threads that sleep, one on each CPU, and note how late they were woken.
//!
//! A bound on recorded clocks holds where processes get to run. Where they do not, it is the measured wait that a test
//! forgives, and never more: on an idle machine, nothing.

use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_setaffinity};

use super::poll::boot_ns;

const SLEEP: Duration = Duration::from_millis(5);
/// A timer is as late as this on an idle machine too.
const USUAL: Duration = Duration::from_millis(2);
/// From here on a machine is so busy that what has a few milliseconds for it may come too late.
pub const STARVED: Duration = Duration::from_millis(20);

/// When somebody was woken, and how long after the due time, in nanoseconds.
static LATE: Mutex<Vec<(u64, u64)>> = Mutex::new(Vec::new());

/// Starts to watch; once is enough for a process.
pub fn start() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let cpus = thread::available_parallelism().expect("a number of cores").get();
        for cpu in 0..cpus {
            let thread = thread::Builder::new().name(format!("witness-{cpu}"));
            thread.spawn(move || watch(cpu)).expect("a thread for the witness");
        }
    });
}

/// How long all of them together had to wait for a CPU, between two instants on `CLOCK_BOOTTIME`.
pub fn waited(from_ns: u64, to_ns: u64) -> Duration {
    let inside = |&&(woken, late): &&(u64, u64)| woken >= from_ns && woken - late <= to_ns;
    Duration::from_nanos(seen().iter().filter(inside).map(|(_, late)| late).sum())
}

/// Were processes starved in the second before this instant?
pub fn starved_before(ns: u64) -> bool {
    waited(ns.saturating_sub(1_000_000_000), ns) >= STARVED
}

fn seen() -> MutexGuard<'static, Vec<(u64, u64)>> {
    LATE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn watch(cpu: usize) {
    let mut here = CpuSet::new();
    here.set(cpu);
    let _ = sched_setaffinity(None, &here); // a CPU that is not ours to use leaves the thread where it is
    loop {
        let due = boot_ns() + SLEEP.as_nanos() as u64;
        thread::sleep(SLEEP);
        let woken = boot_ns();
        let late = woken.saturating_sub(due);
        if late > USUAL.as_nanos() as u64 {
            seen().push((woken, late));
        }
    }
}
