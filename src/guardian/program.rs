//! Starting the program that runs as the main loop, and the exit codes that shells have taught everybody.
//!
//! A program gets no new privileges (`no_new_privs`): one that a set-user-ID bit lifts above us could not be killed,
//! and would lose its parent-death signal.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::Access;
use rustix::io::FdFlags;
use rustix::process::{Pid, Signal, WaitStatus};

use super::channel::{OWN_BYTES_MAX, Program, Refused, STREAMS};
use super::child::FDS_VARIABLE;
use super::init::UNDER_INIT;
use super::promotion::{PROMOTE_FD, ROLE, STANDBY};
use super::signals;

/// There is no such program.
const NOT_FOUND: i32 = 127;
/// There is one, and it cannot be executed.
const NOT_EXECUTABLE: i32 = 126;
/// What all arguments may have at least, and at most, whatever the limit of the stack.
const ARGUMENTS_MIN: usize = 128 * 1024;
const ARGUMENTS_MAX: usize = 6 * 1024 * 1024;
const POINTER_BYTES: usize = size_of::<usize>();
/// What the guardian ignores, and the program must not inherit as ignored.
pub(super) const IGNORED_BY_GUARDIAN: [i32; 6] =
    [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGPIPE, libc::SIGUSR1, libc::SIGUSR2];

/// What our own parent tells us and nobody else: a program that believed it to be meant for itself would answer our
/// service manager in our place, take over our sockets, or read our secrets.
const OURS_ALONE: [&str; 12] = [
    FDS_VARIABLE,
    UNDER_INIT,
    PROMOTE_FD,
    ROLE,
    "CREDENTIALS_DIRECTORY",
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "MAINPID",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

/// Starts it in a process group of its own; with the pipe's end by which it is promoted, if it stands by.
pub(super) fn start(
    program: &Program,
    streams: Vec<OwnedFd>,
    promotion: Option<BorrowedFd<'_>>,
) -> Result<Pid, Refused> {
    let name = &program.command[0];
    spawn(program, streams, promotion).map_err(|e| refused(name, &e))
}

fn spawn(program: &Program, mut streams: Vec<OwnedFd>, promotion: Option<BorrowedFd<'_>>) -> io::Result<Pid> {
    let others = streams.split_off(STREAMS.min(streams.len()));
    if others.len() != program.descriptors.len() {
        return Err(io::Error::other("the program's descriptors are missing"));
    }
    let numbers: Vec<RawFd> = others.iter().map(AsRawFd::as_raw_fd).collect();
    let [stdin, stdout, stderr] = <[OwnedFd; 3]>::try_from(streams)
        .map_err(|_| io::Error::other("the standard streams are missing"))?;
    let mut command = Command::new(&program.command[0]);
    remove_ours(&mut command);
    command
        .args(&program.command[1..])
        .envs(program.env.iter().cloned())
        .envs(program.descriptors.iter().zip(numbers.iter().map(RawFd::to_string)))
        .stdin(Stdio::from(stdin))
        .stdout(Stdio::from(stdout))
        .stderr(Stdio::from(stderr))
        .process_group(0);
    let promotion = promotion.map(|fd| fd.as_raw_fd());
    if let Some(fd) = promotion {
        command.env(ROLE, STANDBY).env(PROMOTE_FD, fd.to_string());
    }
    let guardian = rustix::process::getpid();
    // SAFETY: between fork and exec only async-signal-safe system calls are made, and nothing is allocated.
    unsafe {
        command.pre_exec(move || {
            for signal in IGNORED_BY_GUARDIAN {
                libc::signal(signal, libc::SIG_DFL); // ignoring is inherited
            }
            signals::let_through([libc::SIGCHLD])?;
            rustix::thread::set_no_new_privs(true)?;
            for number in &numbers {
                // SAFETY: the descriptors are open: the guardian holds them until the spawn has returned.
                rustix::io::fcntl_setfd(BorrowedFd::borrow_raw(*number), FdFlags::empty())?;
            }
            if let Some(fd) = promotion {
                // SAFETY: the caller holds it until the spawn has returned.
                rustix::io::fcntl_setfd(BorrowedFd::borrow_raw(fd), FdFlags::empty())?;
            }
            die_with(guardian)
        });
    }
    let child = command.spawn()?;
    drop(others);
    Ok(Pid::from_child(&child))
}

/// Removes what our own parent tells us alone.
pub(super) fn remove_ours(command: &mut Command) {
    for name in OURS_ALONE {
        command.env_remove(name);
    }
}

/// For a command of ours that is no main loop: in a process group of its own, with none of our descriptors, signal
/// dispositions and secrets, and killed when the thread that starts it ends.
pub(super) fn isolate(command: &mut Command) {
    remove_ours(command);
    command.process_group(0);
    let (parent, restore_limit) = (rustix::process::getpid(), crate::limits::descriptors::restore_in_child());
    // SAFETY: between fork and exec only async-signal-safe system calls are made, and nothing is allocated.
    unsafe {
        command.pre_exec(move || {
            for signal in IGNORED_BY_GUARDIAN {
                libc::signal(signal, libc::SIG_DFL); // ignoring is inherited
            }
            signals::let_all_through()?;
            restore_limit()?;
            // Whoever has opened one without close-on-exec; before Linux 5.11 they stay open.
            libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
            // What a set-user-ID bit lifts above us could not be killed.
            rustix::thread::set_no_new_privs(true)?;
            die_with(parent)
        });
    }
}

/// Has this process killed when `parent`, which has forked it, ends. Between fork and exec.
pub(super) fn die_with(parent: Pid) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have died before the signal was armed.
    if rustix::process::getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
}

/// Are these arguments too long to be passed on? Then what to say about it.
///
/// # Errors
/// They are.
pub fn check_length(command: &[String]) -> Result<(), String> {
    let fix = "put them into a file and pass its name";
    if let Err((bytes, most)) = Program::fits(command) {
        return Err(format!(
            "the program's arguments are too long: {bytes} bytes as metad passes them on, at most {most} \
             fit\nfix: {fix}"
        ));
    }
    let env = std::env::vars_os().map(|(name, value)| name.len() + value.len() + 2 + POINTER_BYTES);
    let stack = rustix::process::getrlimit(rustix::process::Resource::Stack).current;
    let (all, most) = (env.sum::<usize>() + bytes_of(command), arguments_max(stack));
    if all > most {
        return Err(format!(
            "the program's arguments and environment are too long: {all} bytes, at most {most} fit (a \
             quarter of `ulimit -s`)\nfix: {fix}, or raise the limit"
        ));
    }
    Ok(())
}

fn bytes_of(command: &[String]) -> usize {
    command.iter().map(|arg| arg.len() + 1 + POINTER_BYTES).sum()
}

/// As execve(2) counts: a quarter of the stack that a process may have, within bounds; less what we add.
fn arguments_max(stack: Option<u64>) -> usize {
    let quarter = stack.map_or(usize::MAX, |bytes| usize::try_from(bytes / 4).unwrap_or(usize::MAX));
    quarter.clamp(ARGUMENTS_MIN, ARGUMENTS_MAX) - OWN_BYTES_MAX
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

/// As env(1), nohup(1) and timeout(1) say it. What the system has no room for is not the program's fault.
fn refused(program: &str, error: &io::Error) -> Refused {
    let passing = [libc::EAGAIN, libc::ENOMEM, libc::EMFILE, libc::ENFILE, libc::ETXTBSY];
    let may_pass = error.raw_os_error().is_some_and(|number| passing.contains(&number));
    let code = match error.kind() {
        io::ErrorKind::NotFound => NOT_FOUND,
        _ => NOT_EXECUTABLE,
    };
    let code = Some(code).filter(|_| !may_pass);
    Refused { why: format!("cannot run {program:?}: {error}"), code, may_pass }
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
    fn what_the_system_has_no_room_for_at_the_moment_may_pass() {
        let refused = |number| {
            let refused = refused("p", &io::Error::from_raw_os_error(number));
            (refused.code, refused.may_pass)
        };
        for passing in [libc::EAGAIN, libc::ENOMEM, libc::EMFILE, libc::ETXTBSY] {
            assert_eq!(refused(passing), (None, true));
        }
        assert_eq!([refused(libc::ENOENT), refused(libc::ENOEXEC)], [(Some(127), false), (Some(126), false)]);
    }

    #[test]
    fn arguments_may_be_as_long_as_the_system_takes_them_less_what_we_add() {
        assert_eq!(arguments_max(Some(0)), 128 * 1024 - OWN_BYTES_MAX);
        assert_eq!(arguments_max(Some(8 << 20)), (2 << 20) - OWN_BYTES_MAX);
        assert_eq!(arguments_max(None), (6 << 20) - OWN_BYTES_MAX);
        let long = vec!["x".repeat(1_000); 200];
        assert!(check_length(&long).is_err_and(|why| why.contains("at most")));
        assert_eq!(check_length(&long[..100]), Ok(()), "twin: half of it fits");
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
