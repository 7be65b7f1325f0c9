//! Child processes that cannot outlive the test process, however it ends.
//!
//! The kernel can kill a child when its parent dies, but by "parent" it means the *thread* that forked, and
//! the test harness ends a thread with each test. So one thread that never ends forks all the children.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, setrlimit};

use super::poll::wait_until;

struct Request {
    command: Command,
    reply: Sender<io::Result<Child>>,
}

/// A child that is killed on drop.
#[derive(Debug)]
pub struct Killed(pub Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts `command` as the leader of a process group of its own, bound to the life of this process.
pub fn spawn(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Sender<Request>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (requests, inbox) = mpsc::channel();
        thread::Builder::new()
            .name("spawner".into())
            .spawn(move || serve(inbox))
            .expect("a thread for the spawner");
        requests
    });
    let (reply, child) = mpsc::channel();
    spawner.send(Request { command, reply }).expect("the spawner never ends");
    child.recv().expect("the spawner answers")
}

/// Runs `command` to its end and collects what it prints; panics when it takes longer than `timeout`.
#[track_caller]
pub fn output(mut command: Command, timeout: Duration) -> Output {
    let what = format!("{} {:?}", command.get_program().display(), command.get_args().collect::<Vec<_>>());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = spawn(command).unwrap_or_else(|error| panic!("cannot start {what}: {error}"));
    let pid = child.id();
    let (done, output) = mpsc::channel();
    thread::spawn(move || done.send(child.wait_with_output()));
    match output.recv_timeout(timeout) {
        Ok(output) => output.unwrap_or_else(|error| panic!("cannot read from {what}: {error}")),
        Err(_) => {
            signal(pid, Signal::KILL);
            panic!("{what} did not end within {timeout:?}");
        }
    }
}

/// Where metad is: the one that was built for the test, or another one, such as a release's, that `METAD_TEST_BINARY` names.
pub fn metad_program() -> PathBuf {
    let Some(built) = option_env!("CARGO_BIN_EXE_metad") else {
        panic!("only integration tests and benchmarks are told where metad is");
    };
    std::env::var_os("METAD_TEST_BINARY").unwrap_or_else(|| built.into()).into()
}

/// metad itself, with an environment that does not configure it.
pub fn metad_command() -> Command {
    command_of(&metad_program())
}

/// A build of metad, with an environment that does not configure it.
pub fn command_of(program: &Path) -> Command {
    let mut command = Command::new(program);
    remove_env(&mut command, "METAD_");
    command
}

/// What a metad command prints, and its exit code.
#[track_caller]
pub fn metad(args: &[&str], timeout: Duration) -> (i32, String, String) {
    let mut command = metad_command();
    command.args(args);
    let output = output(command, timeout);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

/// sd_notify(3), as any program of a service does it.
pub fn notify(message: &str) {
    let name = std::env::var("NOTIFY_SOCKET").expect("metad names its socket");
    let socket = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&name),
    };
    let ours = UnixDatagram::unbound().expect("a socket");
    ours.send_to_addr(message.as_bytes(), &socket.expect("a name")).expect("metad listens");
}

/// Sends a signal to a process; a process that is gone already is not an error.
pub fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
    let _ = rustix::process::kill_process(pid, signal);
}

/// Waits until all threads of a process stand still after SIGSTOP: a signal takes its time on a busy machine.
#[track_caller]
pub fn wait_stopped(pid: u32) {
    let is_stopped = |task: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['T', 'Z', 'X']) || rest.is_empty())
    };
    wait_until("it has stopped", Duration::from_secs(60), || {
        // Without tasks it has ended, which is as still as can be.
        std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten().all(is_stopped)
    });
}

/// Does the process stand still after SIGSTOP? Not if it has ended.
pub fn stands_still(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
}

/// The name of a process as `top` shows it, and its parent; empty and 0 if there is none.
pub fn name_and_parent(pid: u32) -> (String, u32) {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let (head, rest) = stat.rsplit_once(") ").unwrap_or_default();
    let name = head.split_once('(').map_or("", |(_, name)| name);
    (name.to_owned(), rest.split(' ').nth(1).and_then(|ppid| ppid.parse().ok()).unwrap_or(0))
}

/// The CPU time that a process has used so far, in user and kernel mode.
pub fn cpu_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    // utime and stime, proc(5)'s fields 14 and 15; the first after the name is 3.
    from_ticks(fields.iter().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum())
}

/// The time that all CPUs together have had nothing to do.
pub fn idle_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/stat").expect("/proc is mounted");
    // "cpu", then user, nice, system, idle.
    from_ticks(stat.split_whitespace().nth(4).and_then(|field| field.parse().ok()).expect("proc(5)"))
}

fn from_ticks(ticks: u64) -> Duration {
    Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Withholds from `command` the variables of our own environment that begin with `prefix`.
pub fn remove_env(command: &mut Command, prefix: &str) {
    let names = std::env::vars_os().map(|(name, _)| name);
    for name in names.filter(|name| name.to_string_lossy().starts_with(prefix)) {
        command.env_remove(name);
    }
}

/// Lets `command` open so many files and no more.
pub fn limit_descriptors(command: &mut Command, limit: u64) {
    let limit = Rlimit { current: Some(limit), maximum: Some(limit) };
    // SAFETY: the closure makes one system call and neither allocates nor locks.
    unsafe {
        command.pre_exec(move || Ok(setrlimit(Resource::Nofile, limit)?));
    }
}

fn serve(inbox: Receiver<Request>) {
    for Request { command, reply } in inbox {
        let _ = reply.send(spawn_here(command));
    }
}

fn spawn_here(mut command: Command) -> io::Result<Child> {
    let parent = rustix::process::getpid();
    command.process_group(0);
    // SAFETY: the closure makes three system calls and neither allocates nor locks.
    unsafe {
        command.pre_exec(move || {
            // The tests themselves may run under nohup.
            libc::signal(libc::SIGHUP, libc::SIG_DFL);
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            // The parent may have died before the line above took effect.
            if rustix::process::getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::Other.into()) }
        });
    }
    command.spawn()
}

/// Lets the calling thread run before all ordinary ones whenever it can. Where that is not allowed, nothing changes.
pub fn go_first() {
    let lowest = libc::sched_param { sched_priority: 1 };
    // SAFETY: the call reads the parameter, which outlives it, and concerns no thread but this one.
    let _ = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &lowest) };
}
