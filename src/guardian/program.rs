//! Starting the program that runs as the main loop, and the exit codes that shells have taught everybody.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::Access;
use rustix::process::{Pid, Signal, WaitStatus};

use super::FDS_VARIABLE;
use super::channel::{Program, Refused};

/// There is no such program.
const NOT_FOUND: i32 = 127;
/// There is one, and it cannot be executed.
const NOT_EXECUTABLE: i32 = 126;
/// What the guardian ignores, and the program must not inherit as ignored.
pub(super) const IGNORED_BY_GUARDIAN: [i32; 6] =
    [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGPIPE, libc::SIGUSR1, libc::SIGUSR2];

/// Starts it in a process group of its own.
pub(super) fn start(program: &Program, streams: Vec<OwnedFd>) -> Result<Pid, Refused> {
    let name = &program.command[0];
    spawn(program, streams).map_err(|e| refused(name, &e))
}

fn spawn(program: &Program, streams: Vec<OwnedFd>) -> io::Result<Pid> {
    let [stdin, stdout, stderr] =
        <[OwnedFd; 3]>::try_from(streams).map_err(|_| io::Error::other("the streams did not arrive"))?;
    let mut command = Command::new(&program.command[0]);
    command
        .args(&program.command[1..])
        .envs(program.env.iter().cloned())
        .env_remove(FDS_VARIABLE)
        .env_remove("WATCHDOG_PID") // names us, if we are watched ourselves
        .stdin(Stdio::from(stdin))
        .stdout(Stdio::from(stdout))
        .stderr(Stdio::from(stderr))
        .process_group(0);
    let guardian = rustix::process::getpid();
    // SAFETY: between fork and exec only async-signal-safe system calls are made, and nothing is allocated.
    unsafe {
        command.pre_exec(move || {
            for signal in IGNORED_BY_GUARDIAN {
                libc::signal(signal, libc::SIG_DFL); // ignoring is inherited
            }
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            // We may have died before the signal was armed.
            if rustix::process::getppid() != Some(guardian) {
                return Err(io::ErrorKind::NotFound.into());
            }
            Ok(())
        });
    }
    let child = command.spawn()?;
    Ok(Pid::from_child(&child))
}

/// Could this program be started, as far as one can tell without doing it? A member that waits for its turn with a
/// misspelt command would otherwise show it only when everybody relies on it.
///
/// # Errors
/// It could not.
pub fn look_for(program: &str) -> Result<(), Refused> {
    let found = if program.contains('/') {
        check(Path::new(program))
    } else {
        let Some(folders) = std::env::var_os("PATH") else { return Ok(()) }; // the system has its own list then
        let tried = std::env::split_paths(&folders).map(|folder| check(&folder.join(program)));
        first_that_runs(tried)
    };
    found.map_err(|e| refused(program, &e))
}

/// As a shell does it: one that may not be executed counts only if there is none that may.
fn first_that_runs(tried: impl Iterator<Item = io::Result<()>>) -> io::Result<()> {
    let mut worst = io::Error::from(rustix::io::Errno::NOENT);
    for one in tried {
        match one {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => worst = e,
            Err(_) => {}
        }
    }
    Err(worst)
}

fn check(path: &Path) -> io::Result<()> {
    if std::fs::metadata(path)?.is_dir() {
        return Err(rustix::io::Errno::ACCESS.into()); // what execve(2) says
    }
    Ok(rustix::fs::access(path, Access::EXEC_OK)?)
}

/// As env(1), nohup(1) and timeout(1) say it.
fn refused(program: &str, error: &io::Error) -> Refused {
    let code = match error.kind() {
        io::ErrorKind::NotFound => NOT_FOUND,
        _ => NOT_EXECUTABLE,
    };
    Refused { why: format!("cannot run {program:?}: {error}"), code: Some(code) }
}

/// As shells do: 128 + the signal's number.
pub(super) fn code_of(status: WaitStatus) -> i32 {
    status.exit_status().unwrap_or_else(|| 128 + status.terminating_signal().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(program: &str) -> Option<i32> {
        look_for(program).err().and_then(|refused| refused.code)
    }

    #[test]
    fn a_program_is_looked_for_as_a_shell_does_it() {
        assert_eq!((look_for("sh"), look_for("/bin/sh")), (Ok(()), Ok(())));
        assert_eq!((code("no-such-program"), code("/no/such/program")), (Some(127), Some(127)));
        assert_eq!((code("/bin"), code("/etc/passwd")), (Some(126), Some(126)));
        let why = look_for("no-such-program").expect_err("there is none").why;
        assert!(why.contains("\"no-such-program\"") && why.contains("No such file"), "{why}");
    }
}
