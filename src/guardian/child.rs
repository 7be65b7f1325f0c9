//! Our end of the guardian: a child process that we start, tell, and listen to.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::io::FdFlags;
use rustix::process::{PidfdFlags, Signal};
use tokio::sync::watch;

use super::channel::{Channel, Program, Refused, ToGuardian};
use super::horizon::Horizon;
use super::link::{Link, Said};
use crate::config::Config;
use crate::election::lease::LeaseId;

/// Set in the environment of a process that is to be a guardian: the numbers of its descriptors.
pub(super) const FDS_VARIABLE: &str = "METAD_GUARDIAN_FDS";
/// How long a new guardian may take to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a killed guardian may take to be dead. One in uninterruptible sleep is left to the kernel.
const DEATH_TIMEOUT: Duration = Duration::from_secs(2);

/// How to start guardians.
#[derive(Clone, Debug)]
pub struct GuardianPlan {
    /// The program that becomes one: it calls [`run_if_asked`](super::run_if_asked) first of all.
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
    link: Link,
    child: Mutex<Child>,
    said: watch::Receiver<Said>,
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
            return Err(NoGuardian("metad is process 1 of its container, which ends with it".into()));
        }
        let failed = |what: &'static str| move |e: io::Error| NoGuardian(format!("{what}: {e}"));
        let us = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())
            .map_err(|e| NoGuardian(format!("this system has no pidfd: {e}")))?;
        let (ours, theirs) = Channel::pair().map_err(failed("cannot create a socket pair"))?;
        let mut child =
            spawn(plan, theirs, us, horizon.page()).map_err(failed("cannot start its process"))?;
        let (link, said) = set_up(plan, ours).inspect_err(|_| {
            end(&mut child); // it has died already, or is of no use
        })?;
        let guardian = Self { link, child: Mutex::new(child), said };
        let ready = guardian.until(|s| s.ready || s.lost.is_some());
        let why = match tokio::time::timeout(READY_TIMEOUT, ready).await {
            Ok(said) if said.ready => return Ok(guardian),
            Ok(_) => "it exited immediately".to_owned(),
            Err(_) => format!("it was not ready within {READY_TIMEOUT:?}"),
        };
        guardian.destroy();
        Err(NoGuardian(why))
    }

    /// Kills the guardian itself: it is dead, or does not do what it is there for. What it looked after becomes ours.
    /// Waits, but not for ever.
    pub fn destroy(&self) {
        end(&mut self.child.lock().unwrap_or_else(|e| e.into_inner()));
    }

    /// Tells it the name of a lease, before the store hears of it.
    ///
    /// # Errors
    /// It is gone.
    pub fn tell_lease(&self, lease: LeaseId) -> io::Result<()> {
        self.link.send(&ToGuardian::Lease(lease.0))
    }

    /// Tells it which cluster is the store.
    ///
    /// # Errors
    /// It is gone.
    pub fn tell_pinned(&self, cluster: u64) -> io::Result<()> {
        self.link.send(&ToGuardian::Pinned(cluster))
    }

    /// Tells it that the deadlines in the page have moved.
    pub fn tell_moved(&self) {
        let _ = self.link.send(&ToGuardian::Moved); // gone: the main loop is told so otherwise
    }

    /// Says that everything is given back: it ends without revoking anything.
    pub fn dismiss(&self) {
        let _ = self.link.send(&ToGuardian::Dismissed);
        let mut child = self.child.lock().unwrap_or_else(|e| e.into_inner());
        let _ = child.try_wait();
    }

    /// Waits until it is dead or does not answer any more; which of both.
    pub async fn lost(&self) -> &'static str {
        self.until(|s| s.lost.is_some()).await.lost.unwrap_or("died")
    }

    /// Is it dead, or does it not answer?
    pub fn is_lost(&self) -> bool {
        self.said.borrow().lost.is_some()
    }

    /// Has it start a program with our standard streams, and these descriptors, which `program` names. Of an earlier run
    /// nothing may be left.
    ///
    /// # Errors
    /// See [`RunError`].
    pub async fn run(&self, program: Program, descriptors: &[BorrowedFd<'_>]) -> Result<u32, RunError> {
        let run = program.run;
        let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
        let streams = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
        self.link.send_with(&ToGuardian::Run(program), &[&streams[..], descriptors].concat())?;
        let is_this = |s: &Said| s.started.as_ref().is_some_and(|(number, _)| *number == run);
        let said = self.until(|s| is_this(s) || s.lost.is_some()).await;
        match (said.started, said.lost) {
            (Some((number, started)), _) if number == run => Ok(started?),
            (_, lost) => Err(io::Error::other(format!("it {}", lost.unwrap_or("died"))).into()),
        }
    }

    /// Has a program that stands by lead: it gets this line once everything is armed that ends it in time.
    ///
    /// # Errors
    /// See [`RunError`]; a program that is refused goes on standing by.
    pub async fn promote(&self, run: u64, line: String) -> Result<(), RunError> {
        self.link.send(&ToGuardian::Promote { run, line })?;
        let is_this = |s: &Said| s.promoted.as_ref().is_some_and(|(number, _)| *number == run);
        let said = self.until(|s| is_this(s) || s.lost.is_some()).await;
        match (said.promoted, said.lost) {
            (Some((number, promoted)), _) if number == run => Ok(promoted?),
            (_, lost) => Err(io::Error::other(format!("it {}", lost.unwrap_or("died"))).into()),
        }
    }

    /// Waits until nothing of this run's tree is left: the program's exit code. `Err`: the guardian died, or does not
    /// answer; what is left of the tree becomes ours.
    pub async fn ended(&self, run: u64) -> Result<Option<i32>, NoGuardian> {
        let code = |s: &Said| s.ended.filter(|(number, _)| *number == run).map(|(_, code)| code);
        let said = self.until(|s| code(s).is_some() || s.lost.is_some()).await;
        let lost = said.lost.unwrap_or("died");
        code(&said).ok_or_else(|| NoGuardian(format!("it {lost} while it supervised the program")))
    }

    /// Passes a signal on to the program itself, if it runs.
    pub fn signal(&self, signal: Signal) {
        let _ = self.link.send(&ToGuardian::Signal(signal.as_raw()));
    }

    /// Asks the program to end.
    pub fn terminate(&self) {
        let _ = self.link.send(&ToGuardian::Terminate);
    }

    /// Ends the program's tree.
    pub fn kill(&self) {
        let _ = self.link.send(&ToGuardian::Kill);
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.lock().unwrap_or_else(|e| e.into_inner()).id()
    }

    async fn until(&self, condition: impl FnMut(&Said) -> bool) -> Said {
        let mut said = self.said.clone();
        let gone = Said { lost: Some("died"), ..Said::default() };
        said.wait_for(condition).await.map_or(gone, |s| s.clone())
    }
}

/// Kills a guardian's process and reaps it. Waits, but not for ever.
fn end(child: &mut Child) {
    if child.try_wait().is_ok_and(|status| status.is_some()) {
        return;
    }
    let pid = rustix::process::Pid::from_child(child);
    let death = rustix::process::pidfd_open(pid, PidfdFlags::empty());
    if let Err(error) = child.kill() {
        tracing::error!(%error, pid = child.id(), "cannot kill the guardian");
    }
    if let Ok(death) = death {
        let timeout = rustix::time::Timespec {
            tv_sec: i64::try_from(DEATH_TIMEOUT.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: 0,
        };
        let _ = rustix::event::poll(&mut [PollFd::new(&death, PollFlags::IN)], Some(&timeout));
    }
    let _ = child.try_wait();
}

/// Tells a guardian what to do, and listens to it.
fn set_up(plan: &GuardianPlan, channel: Channel) -> Result<(Link, watch::Receiver<Said>), NoGuardian> {
    let setup = ToGuardian::Setup(Box::new(plan.config.clone()));
    channel.send(&setup, &[]).map_err(|e| NoGuardian(format!("cannot send to it: {e}")))?;
    let ttl = Duration::from_secs(plan.config.meta.meta_leader_lease_secs);
    Link::start(channel, ttl).map_err(|e| NoGuardian(format!("cannot receive from it: {e}")))
}

/// Starts the process. Socket, pidfd, page and lock are inherited; nothing else is, least of all our streams: a pipe
/// that somebody reads our output from must close when we end.
fn spawn(plan: &GuardianPlan, socket: Channel, us: OwnedFd, page: &OwnedFd) -> io::Result<Child> {
    let inherited = [socket.as_fd().as_raw_fd(), us.as_raw_fd(), page.as_raw_fd(), plan.lock.as_raw_fd()];
    let mut command = Command::new(&plan.program);
    command
        .arg0(format!("metad: guardian of {}", plan.config.node.id))
        .env(FDS_VARIABLE, inherited.map(|fd| fd.to_string()).join(","))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let restore_limit = crate::limits::descriptors::restore_in_child();
    // SAFETY: between fork and exec only async-signal-safe system calls are made, and nothing is allocated.
    unsafe {
        command.pre_exec(move || {
            rustix::process::setsid()?;
            restore_limit()?;
            for fd in inherited {
                // SAFETY: the descriptors are open: the parent holds them until the spawn has returned.
                let fd = BorrowedFd::borrow_raw(fd);
                rustix::io::fcntl_setfd(fd, FdFlags::empty())?;
            }
            Ok(())
        });
    }
    let child = command.spawn();
    drop((socket, us));
    child
}
