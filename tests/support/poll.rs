//! Waiting for a condition, and the clock that all stamps of the tests come from.

use std::thread;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

const INTERVAL: Duration = Duration::from_millis(10);

/// Nanoseconds on `CLOCK_BOOTTIME`, comparable between the processes of one machine.
pub fn boot_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Waits until `condition` holds; panics, naming `what`, when it does not within `timeout`.
#[track_caller]
pub fn wait_until(what: &str, timeout: Duration, condition: impl FnMut() -> bool) {
    assert!(holds_within(timeout, condition), "waited {timeout:?} in vain until {what}");
}

/// Waits until `condition` holds and says whether it did within `timeout`.
pub fn holds_within(timeout: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let begin = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if begin.elapsed() >= timeout {
            return false;
        }
        thread::sleep(INTERVAL);
    }
}
