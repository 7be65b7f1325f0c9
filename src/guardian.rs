//! The guardian: a small process that outlives ours, kills what we leave behind, and only then frees our seat.
//!
//! It runs in a session of its own and watches us by pidfd. It is the parent of the program that runs as the
//! main loop, and a subreaper, so that nothing of that program's tree can get away from it.
//!
//! - We die: it kills the program's tree at once, and when nothing of it is left it revokes our lease, so that
//!   another member leads in milliseconds, whatever the lease. Kill first, revoke after, never the reverse.
//! - We hang: at `H − B/4` it kills the tree, at `H + 20 ms` it kills us. It reads the deadlines in a page of
//!   memory that we share ([`horizon`]), so there is no message that could be late.
//! - It dies: only the lease protects against our death until another one is started. No harm to safety: the
//!   program has a parent-death signal, and what is left of its tree becomes ours to kill.
//!
//! It must not renew, campaign, restart anything, or outlive its task. It knows the lease before it is granted.
//!
//! Not covered: main process and guardian killed in the same instant. Then the program is ended by its
//! parent-death signal and the seat by the lease; grandchildren are ended only by a cgroup (systemd's
//! `KillMode=control-group`).

mod channel;
mod fate;
pub mod horizon;
pub mod keeper;
pub mod obituary;
mod process;
mod program;
pub mod tree;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::Mutex;

use rustix::io::FdFlags;
use rustix::process::{PidfdFlags, Signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use crate::config::Config;
use crate::election::lease::LeaseId;
use channel::{Channel, FromGuardian, ToGuardian};
use horizon::Horizon;

pub use channel::{Program, Refused};
pub use process::run_if_asked;
pub use program::look_for;

/// Set in the environment of a process that is to be a guardian: the numbers of its descriptors.
const FDS_VARIABLE: &str = "METAD_GUARDIAN_FDS";
/// How long a new guardian may take to be ready.
const READY_PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// How to start guardians.
#[derive(Clone, Debug)]
pub struct GuardianPlan {
    /// The program that becomes one: it calls [`run_if_asked`] first of all.
    pub program: PathBuf,
    /// How to reach the store.
    pub config: Config,
    /// The lock on the data dir. The guardian keeps it until nothing of a dead node's program is left, so that
    /// nobody starts another one before.
    pub lock: Arc<File>,
}

/// Our end of a running guardian.
#[derive(Debug)]
pub struct Guardian {
    channel: Arc<AsyncFd<Channel>>,
    child: Mutex<Child>,
    said: watch::Receiver<Said>,
}

/// What the guardian has told us so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Said {
    ready: bool,
    /// The last run of the program that was started, or could not be.
    started: Option<(u64, Result<u32, Refused>)>,
    /// The last run of which nothing is left, with the program's own exit code.
    ended: Option<(u64, Option<i32>)>,
    /// The guardian is gone.
    gone: bool,
}

/// Why there is no program to look after.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Nothing of it runs.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Whether it runs is not known: the guardian does not answer.
    #[error("the guardian does not answer: {0}")]
    Unknown(#[from] io::Error),
}

/// Why there is no guardian, and what follows.
#[derive(Debug, thiserror::Error)]
#[error("no guardian: {0}; a crash of this node is noticed only when its lease ends")]
pub struct NoGuardian(pub String);

// === impl Guardian ===

impl Guardian {
    /// Starts one and waits until it watches us.
    ///
    /// # Errors
    /// The system lacks what it needs.
    pub async fn start(plan: &GuardianPlan, horizon: &Horizon) -> Result<Self, NoGuardian> {
        if std::process::id() == 1 {
            return Err(NoGuardian("we are process 1 of a container, which ends with us as a whole".into()));
        }
        let failed = |what: &'static str| move |e: io::Error| NoGuardian(format!("{what}: {e}"));
        let us = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())
            .map_err(|e| NoGuardian(format!("this system has no pidfd: {e}")))?;
        let (ours, theirs) = Channel::pair().map_err(failed("no socket"))?;
        let child = spawn(plan, theirs, us, horizon.page()).map_err(failed("cannot start it"))?;
        let setup = ToGuardian::Setup(Box::new(plan.config.clone()));
        ours.send(&setup, &[]).map_err(failed("cannot talk to it"))?;
        // SAFETY: the descriptor is owned by the `Channel` in the `AsyncFd`, which never gives it away.
        let channel = unsafe { AsyncFd::register_with_interest(ours, Interest::READABLE) };
        let channel = Arc::new(channel.map_err(|e| NoGuardian(format!("cannot listen to it: {e:?}")))?);
        let (tell, said) = watch::channel(Said::default());
        tokio::spawn(listen(channel.clone(), tell));
        let guardian = Self { channel, child: Mutex::new(child), said };
        let ready = guardian.until(|s| s.ready || s.gone);
        let why = match tokio::time::timeout(READY_PATIENCE, ready).await {
            Ok(said) if said.ready => return Ok(guardian),
            Ok(_) => "it ended at once".to_owned(),
            Err(_) => format!("it was not ready within {READY_PATIENCE:?}"),
        };
        guardian.destroy();
        Err(NoGuardian(why))
    }

    /// Kills the guardian itself: it does not do what it is there for. What it looked after becomes ours.
    pub fn destroy(&self) {
        let mut child = self.child.lock().unwrap_or_else(|e| e.into_inner());
        let _ = child.kill(); // already dead: fine
        let _ = child.wait();
    }

    /// Tells it the name of a lease, before the store hears of it.
    ///
    /// # Errors
    /// It is gone.
    pub fn tell_lease(&self, lease: LeaseId) -> io::Result<()> {
        self.send(&ToGuardian::Lease(lease.0))
    }

    /// Tells it that the deadlines in the page have begun to count.
    pub fn tell_armed(&self) {
        let _ = self.send(&ToGuardian::Armed); // gone: the main loop is told so otherwise
    }

    /// Says that everything is given back: it ends without revoking anything.
    pub fn dismiss(&self) {
        let _ = self.send(&ToGuardian::Dismissed);
        let mut child = self.child.lock().unwrap_or_else(|e| e.into_inner());
        let _ = child.try_wait();
    }

    /// Waits until it is gone.
    pub async fn gone(&self) {
        self.until(|s| s.gone).await;
        let _ = self.child.lock().unwrap_or_else(|e| e.into_inner()).try_wait();
    }

    /// Has it start a program with our standard streams. Of an earlier run nothing may be left.
    ///
    /// # Errors
    /// See [`RunError`].
    pub async fn run(&self, program: Program) -> Result<u32, RunError> {
        let run = program.run;
        let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
        let streams = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
        self.channel.get_ref().send(&ToGuardian::Run(program), &streams)?;
        let is_this = |s: &Said| s.started.as_ref().is_some_and(|(number, _)| *number == run);
        let said = self.until(|s| is_this(s) || s.gone).await;
        match said.started {
            Some((number, started)) if number == run => Ok(started?),
            _ => Err(io::Error::other("it is gone").into()),
        }
    }

    /// Waits until nothing of this run's tree is left: the program's exit code. `Err`: the guardian died; what
    /// is left of the tree is now ours.
    pub async fn ended(&self, run: u64) -> Result<Option<i32>, NoGuardian> {
        let code = |s: &Said| s.ended.filter(|(number, _)| *number == run).map(|(_, code)| code);
        let said = self.until(|s| code(s).is_some() || s.gone).await;
        code(&said).ok_or_else(|| NoGuardian("it died while it looked after the program".into()))
    }

    /// Passes a signal on to the program itself, if it runs.
    pub fn signal(&self, signal: Signal) {
        let _ = self.send(&ToGuardian::Signal(signal.as_raw()));
    }

    /// Asks the program to end.
    pub fn terminate(&self) {
        let _ = self.send(&ToGuardian::Terminate);
    }

    /// Ends the program's tree.
    pub fn kill(&self) {
        let _ = self.send(&ToGuardian::Kill);
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.lock().unwrap_or_else(|e| e.into_inner()).id()
    }

    fn send(&self, message: &ToGuardian) -> io::Result<()> {
        self.channel.get_ref().send(message, &[])
    }

    async fn until(&self, condition: impl FnMut(&Said) -> bool) -> Said {
        let mut said = self.said.clone();
        let gone = Said { gone: true, ..Said::default() };
        said.wait_for(condition).await.map_or(gone, |s| s.clone())
    }
}

async fn listen(channel: Arc<AsyncFd<Channel>>, tell: watch::Sender<Said>) {
    loop {
        let Ok(mut ready) = channel.readable().await else { break };
        let message = match ready.try_io(|c| c.get_ref().receive::<FromGuardian>()) {
            Ok(Ok(Some((message, _)))) => message,
            Ok(Ok(None) | Err(_)) => break, // closed, or not to be understood
            Err(_would_block) => continue,
        };
        tell.send_modify(|s| match message {
            FromGuardian::Ready => s.ready = true,
            FromGuardian::Started { run, pid } => s.started = Some((run, Ok(pid))),
            FromGuardian::Refused { run, refused } => s.started = Some((run, Err(refused))),
            FromGuardian::Ended { run, code } => s.ended = Some((run, code)),
        });
    }
    tell.send_modify(|s| s.gone = true);
}

/// Starts the process. Socket, pidfd, page and lock are inherited; nothing else is, least of all our streams: a pipe
/// that somebody reads our output from must close when we end.
fn spawn(plan: &GuardianPlan, socket: Channel, us: OwnedFd, page: &OwnedFd) -> io::Result<Child> {
    let inherited = [socket.as_fd().as_raw_fd(), us.as_raw_fd(), page.as_raw_fd(), plan.lock.as_raw_fd()];
    let mut command = Command::new(&plan.program);
    command
        .env(FDS_VARIABLE, inherited.map(|fd| fd.to_string()).join(","))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // SAFETY: between fork and exec only async-signal-safe system calls are made, and nothing is allocated.
    unsafe {
        command.pre_exec(move || {
            rustix::process::setsid()?;
            for fd in inherited {
                // SAFETY: the descriptors are open: the parent holds them until the spawn has returned.
                let fd = std::os::fd::BorrowedFd::borrow_raw(fd);
                rustix::io::fcntl_setfd(fd, FdFlags::empty())?;
            }
            Ok(())
        });
    }
    let child = command.spawn();
    drop((socket, us));
    child
}
