//! The signals that a node is sent: two end it, four are passed on to its program.

use std::io;
use std::time::Duration;

use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};

use super::exit_timer;
use crate::clock::{Clock, Instant, OsClock};
use crate::driver::DriverHandle;
use crate::election::history::Reason;
use crate::guardian::keeper::Keeper;
use crate::telemetry::log;

/// Passed on to the program of `metad run`. The others either end the node or have a meaning for the process
/// that gets them (SIGQUIT, SIGTSTP, SIGCONT).
const PASSED_ON: [Signal; 4] = [Signal::HUP, Signal::USR1, Signal::USR2, Signal::WINCH];

/// A service manager signals a whole group, and an init in it passes its own signal on: the same one, a moment later.
const ECHO_WITHIN: Duration = Duration::from_millis(500);

/// At the first SIGTERM or SIGINT the node stops; the second one ends the process at once.
pub(super) fn stop_on_them(driver: DriverHandle) -> io::Result<()> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        let mut first: Option<Instant> = None;
        loop {
            let number = tokio::select! {
                _ = term.recv() => 15,
                _ = int.recv() => 2,
            };
            let now = OsClock.now();
            match first {
                None => {
                    first = Some(now);
                    driver.shutdown(Reason::ResignedSignal);
                }
                Some(at) if now.since(at) < ECHO_WITHIN => {}
                Some(_) => {
                    exit_timer::arm(128 + number);
                    tracing::warn!("second signal: exiting immediately; the lease is left to expire");
                    log::flush();
                    exit_timer::end_now(128 + number);
                }
            }
        }
    });
    Ok(())
}

/// Passes signals on to the program, from now on; while it does not run they are dropped.
pub(super) fn pass_on(keeper: &Keeper) -> io::Result<()> {
    for passed in PASSED_ON.into_iter().filter(|s| !is_ignored(*s)) {
        let mut signals = signal(SignalKind::from_raw(passed.as_raw()))?;
        let keeper = keeper.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                tracing::debug!(signal = ?passed, "signal passed on to the program, if it runs");
                keeper.signal(passed);
            }
        });
    }
    Ok(())
}

/// Calls `reload` at each SIGHUP.
pub(super) fn reload_on_hangup(mut reload: impl FnMut() + Send + 'static) -> io::Result<()> {
    if is_ignored(Signal::HUP) {
        return Ok(());
    }
    let mut hup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hup.recv().await.is_some() {
            reload();
        }
    });
    Ok(())
}

/// Whoever started us with a signal ignored (nohup does) wants that it stays so.
fn is_ignored(signal: Signal) -> bool {
    let mut present = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: only asks; the kernel fills in the structure, for which all zeroes is a valid value too.
    let present = unsafe {
        libc::sigaction(signal.as_raw(), std::ptr::null(), present.as_mut_ptr());
        present.assume_init()
    };
    present.sa_sigaction == libc::SIG_IGN
}
