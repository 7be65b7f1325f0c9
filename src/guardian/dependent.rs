//! A shell command that this process runs by itself, beside the main loop: bounded in time and output, in a process group of
//! its own, of which nothing is left when its time is over.
//!
//! Nothing of it may reach the election: it runs on the thread of whoever asks, which nobody waits for. It dies when that
//! thread does (parent-death signal), so that thread must live as long as it may run.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};
use rustix::time::Timespec;

use super::{program, signals};
use crate::clock::{Clock, Instant};

/// How many lines of its output are passed on.
pub const LINES_MAX: usize = 100;
/// How long each of them may be; the rest of it is left out.
pub const LINE_BYTES_MAX: usize = 1024;
/// How long killed processes may take to be dead. One in uninterruptible sleep is left to the kernel.
const DEATH_TIMEOUT: Duration = Duration::from_secs(1);
/// How soon the rest of a killed group is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// No variable of metad's own is passed on: some name secrets, and a metad that the command calls would take the others for
/// its own settings.
const OUR_VARIABLES: &str = "METAD_";

/// How a command ended.
#[derive(Debug)]
pub enum DependentEnd {
    /// With this code; 128 + n after signal n.
    Exited(i32),
    /// It was killed, because its time was over.
    TimedOut,
    /// It was killed, because somebody wanted its end.
    Cut,
    /// It was not started.
    NotStarted(io::Error),
}

/// The command that runs at the moment, for whoever wants its end.
#[derive(Debug, Default)]
pub struct Dependent {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Its group, until it is buried: as long, the number is nobody else's.
    group: Option<Pid>,
    is_over: bool,
}

/// What it says, line by line.
struct OutputLines<F> {
    pipe: OwnedFd,
    line: Vec<u8>,
    passed_on: usize,
    left_out: u64,
    pass_on: F,
    is_open: bool,
}

// === impl Dependent ===

impl Dependent {
    /// Runs the command by `/bin/sh`, with these variables, and returns when nothing of its group is left. Every line that it
    /// says goes to `pass_on`, within bounds; with how many were left out.
    pub fn run(
        &self,
        command: &str,
        env: Vec<(&'static str, String)>,
        (clock, timeout): (&dyn Clock, Duration),
        pass_on: impl FnMut(&str),
    ) -> (DependentEnd, u64) {
        let until = clock.now() + timeout;
        let (group, mut lines) = match self.start(command, env, pass_on) {
            Ok(started) => started,
            Err(e) => return (DependentEnd::NotStarted(e), 0),
        };
        let ended = rustix::process::pidfd_open(group, PidfdFlags::empty());
        let in_time = ended.as_ref().is_ok_and(|ended| lines.pass_until(ended, clock, until));
        // While the command is not buried: so long the group cannot be another one's.
        let _ = rustix::process::kill_process_group(group, Signal::KILL); // it has ended, and left nobody
        let code = self.bury(group, clock);
        lines.pass_rest();
        let end = match code {
            _ if self.state().is_over => DependentEnd::Cut,
            Some(code) if in_time => DependentEnd::Exited(code),
            _ => DependentEnd::TimedOut,
        };
        (end, lines.left_out)
    }

    /// Kills what runs. Nothing is started any more.
    pub fn end(&self) {
        let mut state = self.state();
        state.is_over = true;
        if let Some(group) = state.group {
            let _ = rustix::process::kill_process_group(group, Signal::KILL); // it is ending already
        }
    }

    fn start<F: FnMut(&str)>(
        &self,
        command: &str,
        env: Vec<(&'static str, String)>,
        pass_on: F,
    ) -> io::Result<(Pid, OutputLines<F>)> {
        let (pipe, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&pipe, true)?;
        let mut state = self.state();
        if state.is_over {
            return Err(io::Error::other("this node is ending"));
        }
        let child = spawn(command, env, theirs)?;
        let group = Pid::from_child(&child);
        state.group = Some(group);
        let lines = OutputLines { pipe, line: Vec::new(), passed_on: 0, left_out: 0, pass_on, is_open: true };
        Ok((group, lines))
    }

    /// Waits for the command, and for what has become ours of its group (if we are a subreaper); all of it was killed. `None`:
    /// it cannot be killed, or somebody else has buried it.
    fn bury(&self, group: Pid, clock: &dyn Clock) -> Option<i32> {
        let until = clock.now() + DEATH_TIMEOUT;
        let mut code = None;
        loop {
            let mut state = self.state(); // `end` must not signal a group that is buried
            match rustix::process::waitpgid(group, WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == group => code = Some(program::code_of(status)),
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) if !clock.now().reached(until) => {
                    drop(state);
                    std::thread::sleep(LOOK_AGAIN);
                }
                Ok(None) | Err(_) => {
                    state.group = None;
                    return code;
                }
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn spawn(
    command: &str,
    env: Vec<(&'static str, String)>,
    output: OwnedFd,
) -> io::Result<std::process::Child> {
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(command);
    program::remove_ours(&mut shell);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with(OUR_VARIABLES) {
            shell.env_remove(name);
        }
    }
    shell.envs(env).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).process_group(0);
    let restore_limit = crate::limits::descriptors::restore_in_child();
    let us = rustix::process::getpid();
    // SAFETY: between fork and exec only async-signal-safe system calls are made, and nothing is allocated.
    unsafe {
        shell.pre_exec(move || {
            signals::let_all_through()?;
            restore_limit()?;
            // What a set-user-ID bit lifts above us could not be killed.
            rustix::thread::set_no_new_privs(true)?;
            program::die_with(us)
        });
    }
    shell.spawn()
}

// === impl OutputLines ===

impl<F: FnMut(&str)> OutputLines<F> {
    /// Passes lines on until the command has ended; `false`: its time is over.
    fn pass_until(&mut self, ended: &OwnedFd, clock: &dyn Clock, until: Instant) -> bool {
        loop {
            let left = clock.now().until(until);
            let mut fds = [PollFd::new(ended, PollFlags::IN), PollFd::new(&self.pipe, PollFlags::IN)];
            if left.is_zero() {
                return false;
            }
            let timeout = Timespec::try_from(left).ok(); // seconds, so it fits
            // A pipe that is closed would be ready all the time.
            let watched = if self.is_open { &mut fds[..] } else { &mut fds[..1] };
            match rustix::event::poll(watched, timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return false,
            }
            let has_ended = !fds[0].revents().is_empty();
            if self.is_open && !fds[1].revents().is_empty() {
                self.read();
            }
            if has_ended {
                return true;
            }
        }
    }

    /// What is in the pipe. Whoever holds it open still has left the group, and is not waited for.
    fn pass_rest(&mut self) {
        // No more than a pipe holds, however fast somebody writes on.
        for _ in 0..64 {
            if !self.read() {
                break;
            }
        }
        if !self.line.is_empty() {
            self.end_line();
        }
    }

    /// One look at the pipe; `false`: there is nothing in it.
    fn read(&mut self) -> bool {
        let mut bytes = [0; 4096];
        match rustix::io::read(&self.pipe, &mut bytes) {
            Ok(0) => self.is_open = false,
            Ok(n) => {
                bytes[..n].iter().for_each(|byte| self.take(*byte));
                return true;
            }
            Err(Errno::INTR) => return true,
            Err(Errno::AGAIN) => {}
            Err(_) => self.is_open = false,
        }
        false
    }

    fn take(&mut self, byte: u8) {
        match byte {
            b'\n' => self.end_line(),
            _ if self.line.len() < LINE_BYTES_MAX => self.line.push(byte),
            _ => {} // the rest of a line that is too long
        }
    }

    fn end_line(&mut self) {
        if self.passed_on < LINES_MAX {
            self.passed_on += 1;
            (self.pass_on)(&String::from_utf8_lossy(&self.line));
        } else {
            self.left_out += 1;
        }
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::OsClock;

    fn run(command: &str, timeout: Duration) -> (DependentEnd, u64, Vec<String>) {
        let mut lines = Vec::new();
        let env = vec![("METAD_LEADER", "n1".to_owned())];
        let dependent = Dependent::default();
        let (end, left_out) = dependent.run(command, env, (&OsClock, timeout), |l| lines.push(l.to_owned()));
        (end, left_out, lines)
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn it_says_what_it_says_and_how_it_ended() {
        let (end, left_out, lines) =
            run("echo leader $METAD_LEADER; echo and >&2; printf rest; exit 7", LONG);
        assert!(matches!(end, DependentEnd::Exited(7)), "{end:?}");
        assert_eq!((left_out, lines), (0, vec!["leader n1".into(), "and".into(), "rest".into()]));
        assert!(matches!(run("kill -9 $$", LONG).0, DependentEnd::Exited(137)));
    }

    #[test]
    fn one_that_closes_its_output_runs_on() {
        let (end, _, lines) = run("echo before; exec >&- 2>&-; sleep 0.3; exit 5", LONG);
        assert!(matches!(end, DependentEnd::Exited(5)) && lines == ["before"], "{end:?} {lines:?}");
    }

    #[test]
    fn its_output_is_bounded_by_line_and_in_number() {
        let (end, left_out, lines) = run("i=0; while [ $i -lt 1000 ]; do echo $i; i=$((i+1)); done", LONG);
        assert!(matches!(end, DependentEnd::Exited(0)), "{end:?}");
        assert_eq!((left_out, lines.len()), (1000 - LINES_MAX as u64, LINES_MAX));
        let (_, _, lines) = run("head -c 100000 /dev/zero | tr '\\0' x; echo; echo next", LONG);
        assert_eq!(lines.iter().map(String::len).collect::<Vec<_>>(), [LINE_BYTES_MAX, 4]);
    }

    #[test]
    fn when_its_time_is_over_it_is_killed_with_what_it_has_forked() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let path = file.path().display();
        // Neither cares for SIGTERM; both would hold the pipe open.
        let script =
            format!("trap '' TERM; sleep 600 & echo $! >{path}; echo $$ >>{path}; echo hangs; sleep 600");
        let (end, _, lines) = run(&script, Duration::from_secs(1));
        assert!(matches!(end, DependentEnd::TimedOut) && lines == ["hangs"], "{end:?} {lines:?}");
        assert_gone(&file);
    }

    #[test]
    fn what_it_leaves_behind_when_it_ends_is_killed_as_well() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let (end, ..) = run(&format!("sleep 600 & echo $! >{}", file.path().display()), LONG);
        assert!(matches!(end, DependentEnd::Exited(0)), "{end:?}");
        assert_gone(&file);
    }

    fn assert_gone(file: &tempfile::NamedTempFile) {
        let pids = std::fs::read_to_string(file.path()).expect("its process ids");
        assert!(!pids.is_empty());
        for pid in pids.lines() {
            let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // One that has lost its parent is buried by another process, in its own time.
            let lives = || !state().is_empty() && !state().contains(") Z ");
            let mut looks = 0;
            while lives() {
                looks += 1;
                assert!(looks < 1000, "{pid} lives: {}", state());
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    #[test]
    fn one_that_is_ended_from_outside_is_killed_and_starts_no_more() {
        let dependent = std::sync::Arc::new(Dependent::default());
        let (ender, (begun, has_begun)) = (dependent.clone(), std::sync::mpsc::channel());
        let thread = std::thread::spawn(move || {
            has_begun.recv().expect("it has begun");
            ender.end();
        });
        let clock = (&OsClock as &dyn Clock, LONG);
        let (end, _) =
            dependent.run("echo begun; sleep 600", vec![], clock, |_| begun.send(()).expect("heard"));
        assert!(matches!(end, DependentEnd::Cut), "{end:?}");
        thread.join().expect("it ends");
        let (end, _) = dependent.run("true", vec![], clock, |_| {});
        assert!(matches!(end, DependentEnd::NotStarted(_)), "{end:?}");
    }

    #[test]
    fn it_sees_no_secret() {
        let (_, _, lines) = run("env", LONG);
        let theirs: Vec<_> = lines.iter().filter(|l| l.starts_with("METAD_")).collect();
        assert_eq!(theirs, ["METAD_LEADER=n1"]);
        assert!(lines.iter().any(|l| l.starts_with("PATH=")), "twin: it sees the others");
    }
}
