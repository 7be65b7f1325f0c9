//! Process 1 of a container, or `--init`: an init, whose child is the node.
//!
//! When process 1 of a container dies, the kernel ends all of it, the guardian included; so the node must not be that process.
//! As a child it has its guardian as on a host, and when it crashes or is killed, another member leads in milliseconds.
//!
//! The init reaps whoever loses its parent, forwards signals to the node, restarts nothing, and ends with the node's exit
//! code, once what the node left behind is done. It opens nothing, reads no configuration and has one thread: what it does
//! not do cannot kill it.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, Signal, WaitOptions};
use rustix::time::Timespec;

use super::{program, signals, tree};
use crate::clock::{Clock, Instant, OsClock};

/// Tells the child that it is the node, and the process id of its init.
pub const UNDER_INIT: &str = "METAD_UNDER_INIT";
/// The name in `top`.
const NAME: &std::ffi::CStr = c"metad: init";
/// What is passed on to the node. It decides what a signal means.
const FORWARDED: [i32; 7] =
    [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2, libc::SIGWINCH];
/// How long those whom the node left behind may take. Its guardian needs milliseconds, unless the store is away; whoever
/// restarts the container must not wait for that.
const LEFT_BEHIND_TIMEOUT: Duration = Duration::from_secs(5);

struct Init {
    node: Pid,
    /// Readable when a signal has come.
    signals: OwnedFd,
    /// The node's exit code, and until when the others are waited for.
    ended: Option<(i32, Instant)>,
}

/// Is this process the node of an init, which is its parent? A variable that somebody set by mistake names another one.
pub fn is_node() -> bool {
    named_init().is_some_and(|init| rustix::process::getppid() == Some(init))
}

fn named_init() -> Option<Pid> {
    std::env::var(UNDER_INIT).ok()?.parse().ok().and_then(Pid::from_raw)
}

/// What the node of an init does first. It was started by its file descriptor, and would be "exe" in `top`; and the kernel
/// forgets the parent-death signal when a program with capabilities of its own is executed.
///
/// # Errors
/// The kernel refuses, or the init has died already.
pub fn begin_node() -> io::Result<()> {
    rustix::thread::set_name(c"metad")?;
    let init = named_init().ok_or(io::ErrorKind::NotFound)?;
    program::die_with(init)
}

/// Has this process to be one? The child that it starts has not.
pub fn is_asked(by_flag: bool) -> bool {
    !is_node() && (by_flag || std::process::id() == 1)
}

/// Starts this program again, as the node, and looks after it until its end. Returns its exit code; 128 + n after signal n.
///
/// To be called while this process has one thread.
///
/// # Errors
/// The system lacks what it needs.
pub fn run() -> io::Result<i32> {
    rustix::thread::set_name(NAME)?;
    tree::become_subreaper()?; // process 1 is one anyway
    let signals = take_signals()?;
    let mut init = Init { node: start()?, signals, ended: None };
    init.give_terminal();
    loop {
        if let Some(code) = init.look() {
            return Ok(code);
        }
        init.wait()?;
        while let Some(signal) = signals::next(&init.signals) {
            if let Some(code) = init.take(signal) {
                return Ok(code);
            }
        }
    }
}

/// The signals that are ours to take, and SIGTTOU, with which a terminal would stop us when we give it to the node.
fn take_signals() -> io::Result<OwnedFd> {
    // SAFETY: sets a disposition; there is no other thread. Whoever started us may have it ignored, and then nobody who
    // ends would be told of.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    signals::by_descriptor(FORWARDED.into_iter().chain([libc::SIGCHLD, libc::SIGTTOU]))
}

/// In a group of its own: Ctrl-C on a terminal reaches the node once, not through us as well.
fn start() -> io::Result<Pid> {
    let mut args = std::env::args_os();
    let name = args.next().unwrap_or_else(|| "metad".into());
    let mut command = Command::new("/proc/self/exe");
    command.arg0(name).args(args).env(UNDER_INIT, std::process::id().to_string()).process_group(0);
    let init = rustix::process::getpid();
    // SAFETY: between fork and exec only async-signal-safe system calls are made, and nothing is allocated.
    unsafe {
        command.pre_exec(move || {
            signals::let_all_through()?;
            program::die_with(init)
        });
    }
    Ok(Pid::from_child(&command.spawn()?))
}

// === impl Init ===

impl Init {
    /// Gives the node the terminal that we have, if any: what is typed is meant for it.
    fn give_terminal(&self) {
        // A group of another namespace is 0 here, which rustix takes for impossible.
        // SAFETY: both take and return numbers.
        let (foreground, ours) = unsafe { (libc::tcgetpgrp(libc::STDIN_FILENO), libc::getpgrp()) };
        if ours > 0 && foreground == ours {
            let _ = rustix::termios::tcsetpgrp(io::stdin(), self.node); // without it, it cannot read, no more
        }
    }

    /// Takes the terminal back from the node: it has ended, or is stopped.
    fn take_terminal(&self) {
        // SAFETY: as above.
        let foreground = unsafe { libc::tcgetpgrp(libc::STDIN_FILENO) };
        if foreground == self.node.as_raw_nonzero().get() {
            let _ = rustix::termios::tcsetpgrp(io::stdin(), rustix::process::getpgrp()); // whoever is next cannot read
        }
    }

    /// Ctrl-Z has stopped the node. Process 1 has no shell that would continue it; elsewhere we stop too, as the shell
    /// expects, and both go on together.
    fn stop_with_node(&self) {
        if std::process::id() != 1 {
            self.take_terminal();
            let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::STOP); // then we go on at once
            self.give_terminal();
        }
        let _ = rustix::process::kill_process(self.node, Signal::CONT); // it may have been continued
    }

    /// Reaps all who have ended. The code to end with, once the node has ended and nobody else is left, or it is time.
    fn look(&mut self) -> Option<i32> {
        let now = OsClock.now();
        let is_anybody_left = loop {
            match rustix::process::wait(WaitOptions::NOHANG | WaitOptions::UNTRACED) {
                Ok(Some((pid, status))) if status.stopped() => {
                    if pid == self.node {
                        self.stop_with_node();
                    }
                }
                Ok(Some((pid, status))) if pid == self.node => {
                    self.take_terminal();
                    self.ended = Some((program::code_of(status), now + LEFT_BEHIND_TIMEOUT));
                }
                Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        let (code, until) = self.ended?;
        (!is_anybody_left || now.reached(until)).then_some(code)
    }

    /// Until a signal has come, or it is time.
    fn wait(&self) -> io::Result<()> {
        let left = self.ended.map(|(_, until)| OsClock.now().until(until));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok()); // seconds, so it fits
        let mut fds = [PollFd::new(&self.signals, PollFlags::IN)];
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Passes it on; once the node has ended, whoever asks us to end does not want to wait for the others.
    fn take(&self, number: i32) -> Option<i32> {
        let wants_end = matches!(number, libc::SIGTERM | libc::SIGINT);
        match (self.ended, Signal::from_named_raw(number)) {
            (Some((code, _)), _) if wants_end => Some(code),
            (None, Some(signal)) if FORWARDED.contains(&number) => {
                let _ = rustix::process::kill_process(self.node, signal); // it may be ending
                None
            }
            _ => None,
        }
    }
}
