//! The kernel timer: a signal to this process at an instant, whatever it does or does not do by then; usually SIGKILL.
//!
//! It needs no cooperation: a process that is stopped, hangs in a lock or gets no CPU is killed like any other. So it
//! must be moved at each ack, long before it is due, and disarmed when nothing depends on it any more.
//!
//! It counts on `CLOCK_BOOTTIME` alone, because no timer counts on `CLOCK_MONOTONIC_RAW`. Whoever arms it says what
//! time it is on both clocks: it is then due at the earlier one of both, as they stand. Not covered: process 1 of a PID
//! namespace, which no signal from inside ends.

use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

use crate::clock::Instant;

/// The timer, disarmed until it is told an instant.
#[derive(Debug)]
pub struct KernelTimer(libc::timer_t);

// SAFETY: the value names a timer of the process; every thread may use it.
unsafe impl Send for KernelTimer {}

// === impl KernelTimer ===

impl KernelTimer {
    /// Makes one that kills this process.
    ///
    /// # Errors
    /// The user has too many signals or timers under way (`ulimit -i`).
    pub fn create() -> io::Result<Self> {
        Self::with_signal(libc::SIGKILL)
    }

    /// Makes one that sends this process a signal.
    ///
    /// # Errors
    /// The user has too many signals or timers under way (`ulimit -i`).
    pub fn with_signal(signal: libc::c_int) -> io::Result<Self> {
        // SAFETY: all zeroes is a valid value of this plain structure.
        let mut event: libc::sigevent = unsafe { MaybeUninit::zeroed().assume_init() };
        event.sigev_notify = libc::SIGEV_SIGNAL;
        event.sigev_signo = signal;
        let mut id = MaybeUninit::uninit();
        // SAFETY: both pointers are valid for the call, which fills in the second one if it succeeds.
        let made = unsafe { libc::timer_create(libc::CLOCK_BOOTTIME, &raw mut event, id.as_mut_ptr()) };
        if made != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: filled in above.
        Ok(Self(unsafe { id.assume_init() }))
    }

    /// Sends the signal at `at`, by the clock that reaches it first as both stand `now`.
    pub fn arm(&self, now: Instant, at: Instant) {
        let left = u64::try_from(now.until(at).as_nanos()).unwrap_or(u64::MAX);
        // An instant that has passed sends at once; zero would disarm.
        self.set(now.boot_ns().saturating_add(left).max(1), libc::TIMER_ABSTIME);
    }

    /// Sends the signal after so long, once, whatever becomes of this value. The time that the machine sleeps counts.
    pub fn arm_for_good(self, after: Duration) {
        self.set(u64::try_from(after.as_nanos()).unwrap_or(u64::MAX).max(1), 0);
        std::mem::forget(self);
    }

    /// Sends nothing.
    pub fn disarm(&self) {
        self.set(0, 0);
    }

    fn set(&self, ns: u64, flags: libc::c_int) {
        // SAFETY: all zeroes is a valid value of this plain structure.
        let mut spec: libc::itimerspec = unsafe { MaybeUninit::zeroed().assume_init() };
        spec.it_value.tv_sec = libc::time_t::try_from(ns / 1_000_000_000).unwrap_or(libc::time_t::MAX);
        spec.it_value.tv_nsec = (ns % 1_000_000_000) as _; // below a second: fits any type
        // SAFETY: the timer is ours until it is dropped, and the structure outlives the call.
        unsafe { libc::timer_settime(self.0, flags, &raw const spec, std::ptr::null_mut()) };
    }
}

impl Drop for KernelTimer {
    fn drop(&mut self) {
        // SAFETY: nobody else knows this timer.
        unsafe { libc::timer_delete(self.0) };
    }
}
