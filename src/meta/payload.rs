//! `metad run -- CMD`: the main loop is somebody else's program.
//!
//! The guardian is its parent: it starts it in a process group of its own, with our standard streams, and ends
//! its whole tree with SIGTERM and then SIGKILL when leadership is over, when we die, or at `H − B/4`. A guardian
//! that dies or hangs is itself ended, and then the tree is ours to end; without one the program is not started.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::driver::leadership::Leadership;
use crate::driver::tenure::{BoxFuture, MainLoop, MainLoopEnd};
use crate::guardian::keeper::Keeper;
use crate::guardian::{Guardian, NoGuardian, Program, tree};
use crate::meta::watchdog::{self, Watchdog};

/// The exit code when the program cannot be started (shells use it for "found but cannot be executed").
const CANNOT_START: i32 = 126;
/// How long the guardian gets to end the program's tree, once there is no time left.
const KILL_PATIENCE: Duration = Duration::from_millis(20);

/// A program as the main loop.
#[derive(Clone, Debug)]
pub struct Payload {
    /// The program and its arguments; never empty.
    pub command: Vec<String>,
    /// Who looks after it.
    pub keeper: Keeper,
    /// Where its signs of life are heard; `None`: they are not asked for.
    pub watchdog: Option<Watchdog>,
}

impl MainLoop for Payload {
    fn run(self: Box<Self>, leadership: Leadership) -> BoxFuture<MainLoopEnd> {
        Box::pin(async move {
            let Some(guardian) = self.keeper.engage() else {
                tracing::error!("the program was not started: there is no guardian at the moment");
                return MainLoopEnd::default();
            };
            let socket = self.watchdog.as_ref().and_then(Watchdog::listen);
            let started = tokio::select! {
                started = self.start(&guardian, &leadership, socket.is_some()) => started,
                () = leadership.aborted() => Err(io::Error::other("leadership was over before it was started")),
            };
            match started {
                Ok(()) => tokio::select! {
                    end = attend(&guardian, &leadership) => end,
                    end = watchdog::hear(socket, &leadership) => end,
                },
                Err(e) => {
                    tracing::error!(command = self.command[0], error = %e, "cannot run the program");
                    // The guardian may have started it all the same, and died, or hang.
                    end_ourselves(&guardian).await;
                    MainLoopEnd { code: Some(CANNOT_START) }
                }
            }
        })
    }

    fn must_be_waited_for(&self) -> bool {
        true
    }
}

impl Payload {
    async fn start(&self, guardian: &Arc<Guardian>, leadership: &Leadership, heard: bool) -> io::Result<()> {
        let mut env = vec![
            ("METAD_TOKEN", leadership.token().to_string()),
            ("METAD_NODE_ID", leadership.node().to_owned()),
            ("METAD_CLUSTER", leadership.cluster().to_owned()),
        ];
        env.extend(self.watchdog.iter().filter(|_| heard).flat_map(Watchdog::env));
        let env = env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        guardian.run(Program { command: self.command.clone(), env }).await.map(|_pid| ())
    }
}

/// Waits until nothing of the program is left, and stops it when leadership is over.
async fn attend(guardian: &Arc<Guardian>, leadership: &Leadership) -> MainLoopEnd {
    let ended = tokio::select! {
        ended = guardian.ended() => ended,
        _ = leadership.lost() => {
            guardian.terminate();
            tokio::select! {
                ended = guardian.ended() => ended,
                () = leadership.aborted() => {
                    guardian.kill();
                    let hangs = |_| Err(NoGuardian("it does not end the program".into()));
                    tokio::time::timeout(KILL_PATIENCE, guardian.ended()).await.unwrap_or_else(hangs)
                }
            }
        }
    };
    match ended {
        Ok(code) => MainLoopEnd { code },
        Err(e) => {
            tracing::error!(error = %e, "ending what is left of the program");
            end_ourselves(guardian).await;
            MainLoopEnd::default()
        }
    }
}

/// Kills the guardian, and then its orphans, which are our children now. Nothing may be given up while one of
/// them lives.
async fn end_ourselves(guardian: &Arc<Guardian>) {
    let guardian = guardian.clone();
    let end = move || {
        guardian.destroy();
        tree::kill_children();
    };
    let _ = tokio::task::spawn_blocking(end).await;
}
