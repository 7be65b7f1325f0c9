//! Signals that are heard of by descriptor, beside whatever else is waited for.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd};

/// Blocks these signals; the descriptor is readable once one has come. To be called while this process has one thread.
pub(super) fn by_descriptor(signals: impl IntoIterator<Item = i32>) -> io::Result<OwnedFd> {
    let set = set_of(signals);
    mask(libc::SIG_BLOCK, &set)?;
    // SAFETY: the set is valid for the call, and a descriptor that is returned is ours alone.
    unsafe {
        match libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}

/// The number of the next one that has come, if any.
pub(super) fn next(signals: &OwnedFd) -> Option<i32> {
    let mut bytes = [0; size_of::<libc::signalfd_siginfo>()];
    let read = rustix::io::read(signals, &mut bytes).ok()?;
    // The number comes first.
    let number = bytes.first_chunk::<4>().filter(|_| read == bytes.len())?;
    i32::try_from(u32::from_ne_bytes(*number)).ok()
}

/// Lets these through again, between fork and exec: a program must not inherit that they are blocked.
pub(super) fn let_through(signals: impl IntoIterator<Item = i32>) -> io::Result<()> {
    mask(libc::SIG_UNBLOCK, &set_of(signals))
}

/// Lets all through, between fork and exec.
pub(super) fn let_all_through() -> io::Result<()> {
    mask(libc::SIG_SETMASK, &set_of([]))
}

fn set_of(signals: impl IntoIterator<Item = i32>) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: the first call fills the set in, the others change it; both functions are async-signal-safe.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        set.assume_init()
    }
}

fn mask(how: libc::c_int, set: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: the set is valid for the call, which changes this thread's mask alone, and is async-signal-safe.
    match unsafe { libc::pthread_sigmask(how, set, std::ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}
