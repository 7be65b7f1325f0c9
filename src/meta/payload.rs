//! `metad run -- CMD`: the main loop is somebody else's program.
//!
//! It is started when we lead, in a process group of its own, and gets SIGTERM when it must stop, SIGKILL when
//! its time is over. A parent-death signal ends it when metad dies. That signal is tied to the *thread* that
//! started the program, so one thread that lives as long as the process does that.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use crate::driver::leadership::Leadership;
use crate::driver::tenure::{BoxFuture, MainLoop, MainLoopEnd};

/// How often a stopping program's group is looked at.
const REAP_PAUSE: Duration = Duration::from_millis(5);
/// How often at most: what was killed is dead, but whoever inherited it may be slow to bury it.
const REAP_LOOKS_MAX: u32 = 40;
/// The exit code when the program cannot be started (shells use it for "found but cannot be executed").
const CANNOT_START: i32 = 126;

/// A program as the main loop.
#[derive(Clone, Debug)]
pub struct Payload {
    /// The program and its arguments; never empty.
    pub command: Vec<String>,
}

/// Kills the program's whole group when dropped, so that a main loop that is dropped leaves nothing behind.
struct Group {
    leader: Pid,
    over: bool,
}

// === impl Payload ===

impl MainLoop for Payload {
    fn run(self: Box<Self>, leadership: Leadership) -> BoxFuture<MainLoopEnd> {
        Box::pin(async move {
            let ended = match self.start(&leadership).await {
                Ok(child) => attend(child, &leadership).await,
                Err(e) => Err(e),
            };
            ended.unwrap_or_else(|e| {
                tracing::error!(command = self.command[0], error = %e, "cannot run the program");
                MainLoopEnd { code: Some(CANNOT_START) }
            })
        })
    }
}

impl Payload {
    async fn start(&self, leadership: &Leadership) -> io::Result<Child> {
        let mut command = Command::new(&self.command[0]);
        command
            .args(&self.command[1..])
            .env("METAD_TOKEN", leadership.token().to_string())
            .env("METAD_NODE_ID", leadership.node())
            .env("METAD_CLUSTER", leadership.cluster())
            .process_group(0);
        let parent = rustix::process::getpid();
        // SAFETY: between fork and exec only async-signal-safe system calls are made, and nothing is allocated.
        unsafe {
            command.pre_exec(move || {
                rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
                // The parent may have died before the signal was armed.
                if rustix::process::getppid() != Some(parent) {
                    return Err(io::ErrorKind::NotFound.into());
                }
                Ok(())
            });
        }
        spawn_on_lasting_thread(command).await
    }
}

async fn spawn_on_lasting_thread(command: Command) -> io::Result<Child> {
    static SPAWNER: std::sync::OnceLock<Sender<(Command, oneshot::Sender<io::Result<Child>>)>> =
        std::sync::OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (queue, jobs) = channel::<(Command, oneshot::Sender<io::Result<Child>>)>();
        std::thread::spawn(move || {
            for (mut command, done) in jobs {
                let _ = done.send(command.spawn());
            }
        });
        queue
    });
    let (done, spawned) = oneshot::channel();
    let gone = || io::Error::other("the spawning thread is gone");
    spawner.send((command, done)).map_err(|_| gone())?;
    spawned.await.map_err(|_| gone())?
}

/// Waits for the program, and stops it when leadership is over.
async fn attend(mut child: Child, leadership: &Leadership) -> io::Result<MainLoopEnd> {
    let mut group = Group { leader: Pid::from_child(&child), over: false };
    let pidfd = rustix::process::pidfd_open(group.leader, PidfdFlags::NONBLOCK)?;
    // SAFETY: the `OwnedFd` is owned by the `AsyncFd`, which never gives it away, so it stays open and the same.
    let ended = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }?;
    let status = tokio::select! {
        status = exited(&mut child, &ended) => status,
        _ = leadership.lost() => {
            group.signal(Signal::TERM);
            tokio::select! {
                status = exited(&mut child, &ended) => status,
                () = leadership.aborted() => {
                    group.signal(Signal::KILL);
                    exited(&mut child, &ended).await
                }
            }
        }
    };
    // What the program left running in its group must not outlive the tenure.
    group.end().await;
    Ok(MainLoopEnd { code: status.map(code_of) })
}

/// Waits for the program's end; `ended` is its pidfd, which becomes readable then.
async fn exited(child: &mut Child, ended: &AsyncFd<OwnedFd>) -> Option<ExitStatus> {
    let _ = ended.readable().await;
    child.wait().ok() // does not block any more
}

/// As shells do: 128 + the signal's number.
fn code_of(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

// === impl Group ===

impl Group {
    fn signal(&self, signal: Signal) {
        let _ = kill_process_group(self.leader, signal); // already gone: fine
    }

    async fn end(&mut self) {
        self.signal(Signal::KILL);
        for _ in 0..REAP_LOOKS_MAX {
            if rustix::process::test_kill_process_group(self.leader).is_err() {
                break; // nobody is left
            }
            tokio::time::sleep(REAP_PAUSE).await;
        }
        self.over = true;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.over {
            self.signal(Signal::KILL);
        }
    }
}
