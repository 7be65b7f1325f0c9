//! The exit timer: a process that has decided to end does so within [`EXIT_LIMIT`], with the code that was decided.
//!
//! What is left to do by then (the last lines of the log, a note in the data dir, a lease to give back) may wait for
//! somebody who never comes: a pipe that nobody reads, a disk, a store. So the kernel is told first. Its timer sends a
//! signal whose handler calls `_exit`, whatever the threads are doing, and a second one kills a process that is stopped.

use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

use crate::guardian::kernel_timer::KernelTimer;

/// From the decision to end until the end.
pub const EXIT_LIMIT: Duration = Duration::from_secs(2);
/// When a process is killed that could not take the first signal.
const KILL_LIMIT: Duration = Duration::from_millis(2_500);

static CODE: AtomicI32 = AtomicI32::new(0);
static IS_ARMED: AtomicBool = AtomicBool::new(false);

/// This process has decided to end, with this code. Only the first call sets the timer; a later one may still change
/// the code. Nothing takes the decision back.
pub fn arm(code: i32) {
    CODE.store(code, Ordering::SeqCst);
    if IS_ARMED.swap(true, Ordering::SeqCst) {
        return;
    }
    if let Err(e) = set_timers() {
        tracing::warn!(error = %e, "cannot set the exit timer; exiting may take longer than 2 s");
    }
}

/// Ends the process on the spot. Nothing is flushed, no destructor runs, no core is dumped.
pub fn end_now(code: i32) -> ! {
    // SAFETY: `_exit` takes a number and does not return; it touches no memory of ours.
    unsafe { libc::_exit(code) }
}

fn set_timers() -> io::Result<()> {
    let end = take_signal().and_then(|()| KernelTimer::with_signal(libc::SIGALRM));
    let ended = end.map(|timer| timer.arm_for_good(EXIT_LIMIT));
    let killed = KernelTimer::create().map(|timer| timer.arm_for_good(KILL_LIMIT));
    ended.and(killed)
}

extern "C" fn end(_signal: libc::c_int) {
    end_now(CODE.load(Ordering::SeqCst));
}

/// Has SIGALRM end this process, also where whoever started us has blocked it.
fn take_signal() -> io::Result<()> {
    // SAFETY: all zeroes is a valid value of both plain structures; the handler does what a handler may do (an atomic
    // load and `_exit`); all pointers are valid for the calls.
    let failed = unsafe {
        let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
        action.sa_sigaction = end as *const () as libc::sighandler_t;
        let mut mask: libc::sigset_t = MaybeUninit::zeroed().assume_init();
        libc::sigaddset(&raw mut mask, libc::SIGALRM);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const mask, std::ptr::null_mut());
        libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut()) != 0
    };
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}
