//! `metad run -- CMD`: the main loop is somebody else's program.
//!
//! The guardian is its parent: it starts it in a process group of its own, with our standard streams, and ends
//! its whole tree with SIGTERM and then SIGKILL when leadership is over, when we die, or at `H − B/4`. A guardian
//! that dies or hangs is itself ended, and then the tree is ours to end; without one the program is not started, and one
//! that is lost before it is waited for. `main_loop_started` is said when the program runs.
//!
//! A program that fails may be started again, under the same token, once nothing of its tree is left. Whatever
//! ends leadership ends the pause before that as well.

mod backoff;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::config::Restart;
use crate::driver::leadership::Leadership;
use crate::driver::main_loop::{BoxFuture, MainLoop, MainLoopEnd};
use crate::driver::observer::Observer;
use crate::election::history::Reason;
use crate::guardian::keeper::Keeper;
use crate::guardian::{Guardian, NoGuardian, Program, RunError, tree};
use crate::meta::deadline_page::{self, DeadlinePage};
use crate::meta::watchdog::{self, WatchdogSocket};
use backoff::Backoff;

/// How long the guardian gets to end the program's tree, once there is no time left.
const KILL_TIMEOUT: Duration = Duration::from_millis(20);

/// A program as the main loop.
#[derive(Clone)]
pub struct Payload {
    /// The program and its arguments; never empty.
    pub command: Vec<String>,
    /// Who looks after it.
    pub keeper: Keeper,
    /// Where its signs of life are heard; `None`: they are not asked for.
    pub watchdog: Option<WatchdogSocket>,
    /// What follows when it fails.
    pub restart: Restart,
    /// Tells how long it ran.
    pub clock: Arc<dyn Clock>,
    /// Where it reads its deadline.
    pub deadline: DeadlinePage,
}

impl MainLoop for Payload {
    fn run(self: Box<Self>, leadership: Leadership) -> BoxFuture<MainLoopEnd> {
        Box::pin(async move {
            let mut backoff = Backoff::new();
            for run in 0.. {
                let guardian = tokio::select! {
                    guardian = self.keeper.engage() => guardian,
                    _ = leadership.lost() => break,
                };
                let started_at = self.clock.now();
                let end = self.run_once(run, &guardian, &leadership).await;
                self.keeper.release();
                let ran_for = self.clock.now().since(started_at);
                let Some(pause) = self.pause_after(&end, ran_for, &mut backoff, &leadership) else {
                    return end.into();
                };
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    _ = leadership.lost() => break,
                }
            }
            MainLoopEnd::default()
        })
    }

    fn must_be_waited_for(&self) -> bool {
        true
    }

    fn says_when_it_runs(&self) -> bool {
        true
    }

    fn observer(&self) -> Option<Box<dyn Observer>> {
        Some(Box::new(self.deadline.clone()))
    }
}

/// How one run of the program ended. In every case nothing of it is left.
#[derive(Clone, Debug, PartialEq, Eq)]
enum RunEnd {
    /// With this code, or was ended with it.
    ByItself(i32),
    /// It was not started, and for this code never will be.
    NotStarted(Option<i32>),
    /// It was not started, because of this, which may pass.
    NotYet(String),
    /// Its guardian died or hung; how it would have ended nobody knows.
    Cut,
}

// === impl Payload ===

impl Payload {
    /// When it is started again after such an end; `None`: never.
    fn pause_after(
        &self,
        end: &RunEnd,
        ran_for: Duration,
        backoff: &mut Backoff,
        leadership: &Leadership,
    ) -> Option<Duration> {
        if leadership.check().is_err() {
            return None;
        }
        match end {
            RunEnd::ByItself(code) if *code != 0 && self.restart == Restart::OnFailure => {
                let pause = backoff.after(ran_for);
                tracing::warn!(code, ?ran_for, next_try_in = ?pause, "the program failed; restarting it");
                leadership.rest();
                Some(pause)
            }
            // Each for as long as a start may take.
            RunEnd::NotYet(why) => {
                let pause = backoff.after(Duration::ZERO);
                tracing::warn!(why, next_try_in = ?pause, "the program could not be started; trying again");
                leadership.starting();
                Some(pause)
            }
            RunEnd::ByItself(_) | RunEnd::NotStarted(_) | RunEnd::Cut => None,
        }
    }

    async fn run_once(&self, run: u64, guardian: &Arc<Guardian>, leadership: &Leadership) -> RunEnd {
        if leadership.check().is_err() {
            return RunEnd::NotStarted(None);
        }
        // A socket for each run: what is still in the last one's was said by a program that is dead.
        let socket = self.watchdog.as_ref().and_then(WatchdogSocket::listen);
        let started = tokio::select! {
            started = self.start(run, guardian, leadership, socket.is_some()) => started,
            () = leadership.aborted() => Err(io::Error::other("leadership ended meanwhile").into()),
        };
        match started {
            Ok(()) => {
                leadership.started().await;
                tokio::select! {
                    end = attend(run, guardian, leadership) => end,
                    end = watchdog::hear(socket, guardian.pid(), leadership) => match end {},
                }
            }
            Err(RunError::Refused(refused)) if refused.may_pass => RunEnd::NotYet(refused.why),
            Err(RunError::Refused(refused)) => {
                tracing::error!("{refused}");
                RunEnd::NotStarted(refused.code)
            }
            Err(RunError::Unknown(e)) => {
                // The guardian may have started it all the same, and died, or hang. Then nothing of it is left, and
                // the next guardian may start it.
                end_ourselves(guardian).await;
                RunEnd::NotYet(e.to_string())
            }
        }
    }

    async fn start(
        &self,
        run: u64,
        guardian: &Arc<Guardian>,
        leadership: &Leadership,
        heard: bool,
    ) -> Result<(), RunError> {
        let mut env = vec![
            ("METAD_TOKEN", leadership.token().to_string()),
            ("METAD_NODE_ID", leadership.node().to_owned()),
            ("METAD_CLUSTER", leadership.cluster().to_owned()),
        ];
        env.extend(self.watchdog.iter().filter(|_| heard).flat_map(WatchdogSocket::env));
        let env = env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let descriptors = vec![deadline_page::VARIABLE.to_owned()];
        let program = Program { run, command: self.command.clone(), env, descriptors };
        let pid = guardian.run(program, &[self.deadline.reader()]).await?;
        tracing::debug!(pid, run, "the program runs");
        Ok(())
    }
}

// === impl RunEnd ===

impl From<RunEnd> for MainLoopEnd {
    fn from(end: RunEnd) -> Self {
        match end {
            RunEnd::ByItself(code) => MainLoopEnd { code: Some(code) },
            RunEnd::NotStarted(code) => MainLoopEnd { code },
            RunEnd::NotYet(_) | RunEnd::Cut => MainLoopEnd::default(),
        }
    }
}

/// Waits until nothing of the program is left, and stops it when leadership is over.
async fn attend(run: u64, guardian: &Arc<Guardian>, leadership: &Leadership) -> RunEnd {
    let ended = tokio::select! {
        ended = guardian.ended(run) => ended,
        _ = leadership.lost() => {
            guardian.terminate();
            tokio::select! {
                ended = guardian.ended(run) => ended,
                () = leadership.aborted() => {
                    guardian.kill();
                    let hangs = |_| Err(NoGuardian("the guardian does not end the program".into()));
                    tokio::time::timeout(KILL_TIMEOUT, guardian.ended(run)).await.unwrap_or_else(hangs)
                }
            }
        }
    };
    match ended {
        Ok(code) => code.map_or(RunEnd::Cut, RunEnd::ByItself),
        Err(e) => {
            tracing::error!(error = %e, "ending the remaining processes of the program");
            // Said first, so that the driver sees to it that this takes no longer than it may.
            leadership.give_up(Reason::GuardianLost).await;
            end_ourselves(guardian).await;
            RunEnd::Cut
        }
    }
}

/// Kills the guardian, and then its orphans, which are our children now. Nothing may be given up while one of
/// them lives.
async fn end_ourselves(guardian: &Arc<Guardian>) {
    let guardian = guardian.clone();
    let end = move || {
        guardian.destroy();
        let said =
            |refusal: &tree::Refusal| tracing::error!("processes of the program are still alive: {refusal}");
        tree::kill_children(|| {}, said);
    };
    let _ = tokio::task::spawn_blocking(end).await;
}
