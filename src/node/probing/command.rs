//! Runs the probe command, to its end or to its timeout.
//!
//! It runs in a process group of its own, all of which is killed when it has ended or had its time. It gets no standard
//! input, no other descriptor of ours, and nothing that our own parent tells us alone. What it writes to stderr last is
//! part of what is said about a failure.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::clock::{Clock, Instant, OsClock};
use crate::guardian;

/// How much of what it writes is told.
const SAID_CHARS_MAX: usize = 200;
/// How much of it is looked at.
const SAID_BYTES_MAX: usize = 4096;

/// How often what is left in the pipe is read once it has ended: others may go on writing.
const READS_MAX: u32 = 32;

/// `Err`: why it did not succeed, as it follows "the probe command".
pub(super) fn run(command: &[String], timeout: Duration) -> Result<(), String> {
    let (mut child, pid, death) = start(command).map_err(|e| format!("cannot be run: {e}"))?;
    let deadline = OsClock.now() + timeout;
    let said = watch(child.stderr.take(), &death, deadline);
    // It is not reaped yet, so its number, which is that of its group, is nobody else's.
    let _ = rustix::process::kill_process_group(pid, Signal::KILL);
    let (has_ended, said) = said.map_err(|e| format!("cannot be watched: {e}"))?;
    let status = child.wait();
    if !has_ended {
        return Err(format!("has not ended within {} s", timeout.as_secs()));
    }
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(how(status) + &last_line(&said)),
        Err(e) => Err(format!("ended unnoticed: {e}")),
    }
}

fn start(command: &[String]) -> io::Result<(Child, Pid, OwnedFd)> {
    let (program, args) = command.split_first().ok_or(io::ErrorKind::NotFound)?;
    let mut prepared = Command::new(program);
    prepared.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    guardian::isolate(&mut prepared);
    let mut child = prepared.spawn()?;
    let pid = Pid::from_child(&child);
    match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Ok(death) => Ok((child, pid, death)),
        Err(e) => {
            let _ = child.kill(); // it is ours, and not reaped
            let _ = child.wait();
            Err(e.into())
        }
    }
}

/// Reads what it writes until it has ended (`true`) or had its time, lest a full pipe holds it up.
fn watch(stderr: Option<ChildStderr>, death: &OwnedFd, deadline: Instant) -> io::Result<(bool, Vec<u8>)> {
    let (mut stderr, mut said, mut reads_left) = (stderr, Vec::new(), READS_MAX);
    loop {
        let left = OsClock.now().until(deadline);
        if left.is_zero() {
            return Ok((false, said));
        }
        let timeout = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        let mut fds = vec![PollFd::new(death, PollFlags::IN)];
        fds.extend(stderr.as_ref().map(|pipe| PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN)));
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let (is_dead, has_said) =
            (!fds[0].revents().is_empty(), fds.get(1).is_some_and(|fd| !fd.revents().is_empty()));
        if has_said && !read_some(stderr.as_mut(), &mut said) {
            stderr = None;
        }
        reads_left -= u32::from(is_dead);
        if is_dead && (!has_said || reads_left == 0) {
            return Ok((true, said));
        }
    }
}

/// `false`: there will be no more.
fn read_some(pipe: Option<&mut ChildStderr>, said: &mut Vec<u8>) -> bool {
    let mut some = [0; SAID_BYTES_MAX];
    let read = pipe.map_or(0, |pipe| pipe.read(&mut some).unwrap_or(0));
    said.extend_from_slice(&some[..read]);
    let excess = said.len().saturating_sub(SAID_BYTES_MAX);
    said.drain(..excess);
    read > 0
}

fn how(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, signal) => format!("was ended by signal {}", signal.unwrap_or_default()),
    }
}

fn last_line(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let Some(line) = text.lines().rev().map(str::trim).find(|line| !line.is_empty()) else {
        return String::new();
    };
    let shown: String = line.chars().filter(|c| !c.is_control()).take(SAID_CHARS_MAX).collect();
    format!(": {shown}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(20);

    fn sh(script: &str, timeout: Duration) -> Result<(), String> {
        run(&["sh".into(), "-c".into(), script.into()], timeout)
    }

    #[test]
    fn it_says_how_it_failed_and_what_it_said_last() {
        assert_eq!(sh("echo fine >&2", TIMEOUT), Ok(()));
        assert_eq!(
            sh("echo a >&2; echo no quorum >&2; exit 3", TIMEOUT),
            Err("ended with exit code 3: no quorum".into())
        );
        assert_eq!(sh("kill -9 $$", TIMEOUT), Err("was ended by signal 9".into()));
        let why = run(&["/no/such/program".into()], TIMEOUT).expect_err("there is none");
        assert!(why.contains("cannot be run") && why.contains("No such file"), "{why}");
    }

    #[test]
    fn one_that_writes_more_than_a_pipe_holds_is_not_held_up() {
        assert_eq!(
            sh("head -c 300000 /dev/zero | tr '\\0' x >&2; exit 4", TIMEOUT).map_err(|why| why.len()),
            Err("ended with exit code 4: ".len() + SAID_CHARS_MAX)
        );
    }

    #[test]
    fn one_that_has_had_its_time_is_killed_with_its_group() {
        let tmp = tempfile::tempdir().unwrap();
        let file = tmp.path().join("pids");
        let script = format!("sleep 300 & echo $! >{}; wait", file.display());
        assert_eq!(sh(&script, Duration::from_secs(1)), Err("has not ended within 1 s".into()));
        let pid = std::fs::read_to_string(&file).unwrap();
        let is_gone = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        };
        let deadline = OsClock.now() + TIMEOUT;
        while !is_gone() && !OsClock.now().reached(deadline) {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(is_gone(), "its child lives on");
    }

    #[test]
    fn it_has_no_descriptor_of_ours_and_does_not_wait_for_who_keeps_its_own() {
        let ours = std::fs::File::open("/dev/null").unwrap();
        rustix::io::fcntl_setfd(&ours, rustix::io::FdFlags::empty()).unwrap(); // as a careless library does
        assert_eq!(sh("test \"$(ls /proc/$$/fd | wc -w)\" -le 4", TIMEOUT), Ok(()));
        assert_eq!(sh("sleep 300 & exit 0", TIMEOUT), Ok(()), "its stderr stays open");
    }
}
