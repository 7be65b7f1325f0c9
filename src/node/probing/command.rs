//! Runs the probe command, to its end or to its timeout. What it writes last is part of what is said about a failure.

use std::time::Duration;

use crate::clock::OsClock;
use crate::guardian::dependent::{Dependent, DependentEnd};

/// How much of what it writes is told.
const SAID_CHARS_MAX: usize = 200;

/// `Err`: why it did not succeed, as it follows "the probe command".
pub(super) fn run(command: &[String], timeout: Duration) -> Result<(), String> {
    let mut said = String::new();
    let hear = |line: &str| {
        if !line.trim().is_empty() {
            said = line.trim().chars().filter(|c| !c.is_control()).take(SAID_CHARS_MAX).collect();
        }
    };
    match Dependent::default().run(command, vec![], (&OsClock, timeout), hear) {
        DependentEnd::Exited(0) => Ok(()),
        DependentEnd::Exited(code) if said.is_empty() => Err(format!("ended with exit code {code}")),
        DependentEnd::Exited(code) => Err(format!("ended with exit code {code}: {said}")),
        DependentEnd::TimedOut | DependentEnd::Cut => {
            Err(format!("has not ended within {} s", timeout.as_secs()))
        }
        DependentEnd::NotStarted(e) => Err(format!("cannot be run: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

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
        assert_eq!(sh("kill -9 $$", TIMEOUT), Err("ended with exit code 137".into()));
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
        // Open for whoever is started, as a careless library leaves it; a number that no shell uses for itself.
        let ours = rustix::io::fcntl_dupfd_cloexec(std::fs::File::open("/dev/null").unwrap(), 100).unwrap();
        rustix::io::fcntl_setfd(&ours, rustix::io::FdFlags::empty()).unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&ours);
        assert!(std::path::Path::new(&format!("/proc/self/fd/{number}")).exists(), "twin");
        assert_eq!(sh(&format!("test ! -e /proc/$$/fd/{number}"), TIMEOUT), Ok(()));
        assert_eq!(sh("sleep 300 & exit 0", TIMEOUT), Ok(()), "its stderr stays open");
    }
}
