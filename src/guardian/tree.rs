//! Killing a tree of processes until the kernel says that nothing is left of it.
//!
//! The caller is a subreaper, so whatever loses its parent becomes the caller's own child, and can be killed and
//! waited for like one. Only `ECHILD` proves that nothing is left.

use std::io;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, kill_process_group};

/// How soon those who are still dying are looked at again, at first; each pause is twice the one before.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// The longest such pause.
const LOOK_AGAIN_MAX: Duration = Duration::from_millis(50);

/// A process that could not be killed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its process id.
    pub pid: Pid,
    /// What the kernel said.
    pub why: Errno,
}

/// The pauses between looks at a tree that is dying.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pauses(Duration);

// === impl Refusal ===

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot kill process {}: {}", self.pid.as_raw_nonzero(), io::Error::from(self.why))
    }
}

// === impl Pauses ===

impl Pauses {
    pub(super) fn new() -> Self {
        Self(LOOK_AGAIN)
    }

    pub(super) fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(LOOK_AGAIN_MAX);
        pause
    }
}

/// Makes this process the successor of its descendants.
///
/// # Errors
/// The kernel does not know subreapers.
pub fn become_subreaper() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?)
}

/// Kills all children, and their children as they become ours, and waits for each. Returns when the kernel says
/// that there is none: nothing may be given up before, and whoever calls this is itself ended when its time is over.
/// `going_on` is called before each look. What could not be killed is said once.
pub fn kill_children(going_on: impl Fn(), say: impl FnOnce(&Refusal)) {
    if !bury_all(|_, _| {}) {
        return; // the usual case, which a lease waits for
    }
    let (mut pauses, mut say) = (Pauses::new(), Some(say));
    loop {
        going_on();
        if let Some(refusal) = kill_all()
            && let Some(say) = say.take()
        {
            say(&refusal);
        }
        let mut buried = false;
        if !bury_all(|_, _| buried = true) {
            return;
        }
        match buried {
            // One that is another process all the time is caught only by looking at once.
            true => pauses = Pauses::new(),
            false => std::thread::sleep(pauses.next()),
        }
    }
}

/// Kills every child once. The list of children is only a hint whom to kill: it may be unreadable, or miss one. The
/// first that could not be killed.
pub(super) fn kill_all() -> Option<Refusal> {
    let mut refusal = None;
    for pid in children() {
        if let Err(why) = kill_process(pid, Signal::KILL)
            && why != Errno::SRCH
        {
            refusal.get_or_insert(Refusal { pid, why });
        }
    }
    refusal
}

/// Buries all children that are dead; `false`: there is no child any more.
pub(super) fn bury_all(mut buried: impl FnMut(Pid, WaitStatus)) -> bool {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => buried(pid, status),
            Ok(None) => return true,
            Err(Errno::INTR) => {}
            Err(_) => return false, // ECHILD
        }
    }
}

/// Signals a program and everything in its group, each process once: many programs take a second SIGTERM for an order
/// to drop what they are doing. One that has left the group is signalled by its number.
pub(super) fn signal_group(leader: Pid, signal: Signal) -> Option<Refusal> {
    let group = kill_process_group(leader, signal);
    let has_left = rustix::process::getpgid(Some(leader)).is_ok_and(|group| group != leader);
    // The kernel says that a group was signalled as soon as one of it was; KILL may be said twice.
    let itself = if has_left || signal == Signal::KILL { kill_process(leader, signal) } else { Ok(()) };
    let refused = |sent: Result<(), Errno>| sent.err().filter(|why| *why != Errno::SRCH);
    refused(itself).or(refused(group)).map(|why| Refusal { pid: leader, why })
}

/// Our children, as the kernel lists them for each of our threads.
fn children() -> Vec<Pid> {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists = tasks.map(|t| std::fs::read_to_string(t.path().join("children")).unwrap_or_default());
    let pids: String = lists.collect();
    pids.split_whitespace().filter_map(|p| p.parse().ok()).filter_map(Pid::from_raw).collect()
}
