//! A command that this process runs by itself, beside the main loop: bounded in time and output, in a process group of its
//! own, of which nothing is left when it has ended or its time is over.
//!
//! Nothing of it may reach the election: it runs on the thread of whoever asks, which nobody waits for. It dies when that
//! thread does (parent-death signal), so that thread must live as long as it may run.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};
use rustix::time::Timespec;

use super::program;
use crate::clock::{Clock, Instant};

/// How long a line of its output may be; the rest of it is left out.
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
    pass_on: F,
    is_open: bool,
}

// === impl Dependent ===

impl Dependent {
    /// Runs this program with its arguments and these variables, and returns when nothing of its group is left. Every line
    /// that it says goes to `pass_on`.
    pub fn run(
        &self,
        command: &[String],
        env: Vec<(&'static str, String)>,
        (clock, timeout): (&dyn Clock, Duration),
        pass_on: impl FnMut(&str),
    ) -> DependentEnd {
        let until = clock.now() + timeout;
        let (group, mut lines) = match self.start(command, env, pass_on) {
            Ok(started) => started,
            Err(e) => return DependentEnd::NotStarted(e),
        };
        let ended = rustix::process::pidfd_open(group, PidfdFlags::empty());
        let in_time = ended.as_ref().is_ok_and(|ended| lines.pass_until(ended, clock, until));
        // While the command is not buried: so long the group cannot be another one's.
        let _ = rustix::process::kill_process_group(group, Signal::KILL); // it has ended, and left nobody
        let code = self.bury(group, clock);
        lines.pass_rest();
        match code {
            _ if self.state().is_over => DependentEnd::Cut,
            Some(code) if in_time => DependentEnd::Exited(code),
            _ => DependentEnd::TimedOut,
        }
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
        command: &[String],
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
        let lines = OutputLines { pipe, line: Vec::new(), pass_on, is_open: true };
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
    command: &[String],
    env: Vec<(&'static str, String)>,
    output: OwnedFd,
) -> io::Result<std::process::Child> {
    let (program, args) = command.split_first().ok_or(io::ErrorKind::NotFound)?;
    let mut prepared = Command::new(program);
    prepared.args(args);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with(OUR_VARIABLES) {
            prepared.env_remove(name);
        }
    }
    program::isolate(&mut prepared);
    prepared.envs(env).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    prepared.spawn()
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
        (self.pass_on)(&String::from_utf8_lossy(&self.line));
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::OsClock;

    fn shell(script: &str) -> Vec<String> {
        ["/bin/sh", "-c", script].map(str::to_owned).into()
    }

    fn run(script: &str, timeout: Duration) -> (DependentEnd, Vec<String>) {
        let mut lines = Vec::new();
        let (env, clock) = (vec![("METAD_LEADER", "n1".to_owned())], (&OsClock as &dyn Clock, timeout));
        let end = Dependent::default().run(&shell(script), env, clock, |l| lines.push(l.to_owned()));
        (end, lines)
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn it_says_what_it_says_and_how_it_ended() {
        let (end, lines) = run("echo leader $METAD_LEADER; echo and >&2; printf rest; exit 7", LONG);
        assert!(matches!(end, DependentEnd::Exited(7)), "{end:?}");
        assert_eq!(lines, ["leader n1", "and", "rest"]);
        assert!(matches!(run("kill -9 $$", LONG).0, DependentEnd::Exited(137)));
    }

    #[test]
    fn one_that_closes_its_output_runs_on() {
        let (end, lines) = run("echo before; exec >&- 2>&-; sleep 0.3; exit 5", LONG);
        assert!(matches!(end, DependentEnd::Exited(5)) && lines == ["before"], "{end:?} {lines:?}");
    }

    #[test]
    fn a_line_of_its_output_is_bounded() {
        let (_, lines) = run("head -c 100000 /dev/zero | tr '\\0' x; echo; echo next", LONG);
        assert_eq!(lines.iter().map(String::len).collect::<Vec<_>>(), [LINE_BYTES_MAX, 4]);
    }

    #[test]
    fn when_its_time_is_over_it_is_killed_with_what_it_has_forked() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let path = file.path().display();
        // Neither cares for SIGTERM; both would hold the pipe open.
        let script =
            format!("trap '' TERM; sleep 600 & echo $! >{path}; echo $$ >>{path}; echo hangs; sleep 600");
        let (end, lines) = run(&script, Duration::from_secs(1));
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
        let hear = |_: &str| begun.send(()).expect("heard");
        let end = dependent.run(&shell("echo begun; sleep 600"), vec![], clock, hear);
        assert!(matches!(end, DependentEnd::Cut), "{end:?}");
        thread.join().expect("it ends");
        let end = dependent.run(&shell("true"), vec![], clock, |_| {});
        assert!(matches!(end, DependentEnd::NotStarted(_)), "{end:?}");
    }

    #[test]
    fn it_sees_no_secret() {
        let (_, lines) = run("env", LONG);
        let theirs: Vec<_> = lines.iter().filter(|l| l.starts_with("METAD_")).collect();
        assert_eq!(theirs, ["METAD_LEADER=n1"]);
        assert!(lines.iter().any(|l| l.starts_with("PATH=")), "twin: it sees the others");
    }
}
