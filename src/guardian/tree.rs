//! Killing a tree of processes until the kernel says that nothing is left of it.
//!
//! The caller is a subreaper, so whatever loses its parent becomes the caller's own child, and can be killed and
//! waited for like one. Only `ECHILD` proves that nothing is left.

use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process};

/// How soon those who are still dying are looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// Makes this process the heir of its descendants.
///
/// # Errors
/// The kernel does not know subreapers.
pub fn become_subreaper() -> std::io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?)
}

/// Kills all children, and their children as they become ours, and waits for each. Returns when the kernel says
/// that there is none. The list of children is only a hint whom to kill: it may be unreadable, or miss one. A
/// process in uninterruptible sleep holds this up; nothing may be given up before.
pub fn kill_children() {
    loop {
        for child in children() {
            let _ = kill_process(child, Signal::KILL); // already dead: it is waited for below
        }
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
            Ok(None) => std::thread::sleep(LOOK_AGAIN),
            Err(_) => return, // ECHILD
        }
    }
}

/// Signals a program and everything that descends from it.
pub fn signal_group(leader: Pid, signal: Signal) {
    let _ = rustix::process::kill_process_group(leader, signal); // nobody is left: fine
}

/// Buries one dead child, if there is one.
pub fn reap_one() -> Option<(Pid, WaitStatus)> {
    rustix::process::wait(WaitOptions::NOHANG).ok().flatten()
}

/// Our children, as the kernel lists them for each of our threads.
fn children() -> Vec<Pid> {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists = tasks.map(|t| std::fs::read_to_string(t.path().join("children")).unwrap_or_default());
    let pids: String = lists.collect();
    pids.split_whitespace().filter_map(|p| p.parse().ok()).filter_map(Pid::from_raw).collect()
}
