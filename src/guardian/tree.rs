//! Killing a tree of processes until the kernel says that nothing is left of it.
//!
//! The caller is a subreaper, so whatever loses its parent becomes the caller's own child, and can be killed and
//! waited for like one. Only `ECHILD` proves that nothing is left.

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process};

/// Makes this process the heir of its descendants.
///
/// # Errors
/// The kernel does not know subreapers.
pub fn become_subreaper() -> std::io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?)
}

/// Kills all children but `spared`, and their children as they become ours, and waits for each. Returns when
/// none is left. A process in uninterruptible sleep can hold this up; nothing may be given up before.
pub fn kill_children(spared: Option<Pid>) {
    loop {
        let children = children();
        let victims: Vec<Pid> = children.into_iter().filter(|p| Some(*p) != spared).collect();
        if victims.is_empty() {
            return;
        }
        for victim in &victims {
            let _ = kill_process(*victim, Signal::KILL); // already dead: it is waited for below
        }
        for victim in victims {
            let _ = rustix::process::waitpid(Some(victim), WaitOptions::empty());
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
