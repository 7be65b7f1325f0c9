//! `metad run -- CMD`: the main loop is somebody else's program.
//!
//! The guardian is its parent: it starts it in a process group of its own, with our standard streams, and ends
//! its whole tree with SIGTERM and then SIGKILL when leadership is over, when we die, or at `H − B/4`. A guardian
//! that dies or hangs is itself ended, and then the tree is ours to end; without one the program is not started, and one
//! that is lost before it is waited for. `main_loop_started` is said when the program runs.
//!
//! A program that fails may be started again, under the same token, once nothing of its tree is left. Whatever
//! ends leadership ends the pause before that as well.
//!
//! With `--standby` it runs before that as well (`payload/standby.rs`).

mod standby;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::clock::Clock;
use crate::config::{Config, Restart};
use crate::driver::leadership::Leadership;
use crate::driver::main_loop::{BoxFuture, MainLoop, MainLoopEnd};
use crate::driver::observer::Observer;
use crate::election::history::Reason;
use crate::guardian::keeper::Keeper;
use crate::guardian::{Guardian, NoGuardian, Program, RunError, tree};
use crate::meta::backoff::Backoff;
use crate::meta::deadline_page::{self, DeadlinePage};
use crate::meta::watchdog::{Notifications, NotifySocket};
pub use standby::StandbyEnd;
use standby::{Standby, StandingBy, TakenOver};

/// How long the guardian gets to end the program's tree, once there is no time left.
const KILL_TIMEOUT: Duration = Duration::from_millis(20);

/// A program as the main loop.
#[derive(Clone)]
pub struct Payload {
    /// The program and its arguments; never empty.
    command: Vec<String>,
    /// Who looks after it.
    keeper: Keeper,
    /// The node's id.
    node: String,
    /// The cluster's name.
    cluster: String,
    /// Where it is heard.
    notify: NotifySocket,
    /// Are signs of life asked for?
    is_watched: bool,
    /// What follows when it fails.
    restart: Restart,
    /// Tells how long it ran.
    clock: Arc<dyn Clock>,
    /// Where it reads its deadline.
    deadline: DeadlinePage,
    /// Where it stands by until this node leads; `None`: it is started then.
    standby: Option<Standby>,
}

impl MainLoop for Payload {
    fn run(self: Box<Self>, leadership: Leadership) -> BoxFuture<MainLoopEnd> {
        Box::pin(async move {
            let mut backoff = Backoff::new();
            let found = tokio::select! {
                found = self.found() => found,
                _ = leadership.lost() => None,
            };
            let Some(TakenOver { mut waiting, mut next_run }) = found else { return MainLoopEnd::default() };
            loop {
                let guardian = match &waiting {
                    Some(waiting) => waiting.guardian.clone(),
                    None => tokio::select! {
                        guardian = self.keeper.engage() => guardian,
                        _ = leadership.lost() => break,
                    },
                };
                let started_at = self.clock.now();
                let end = match &self.standby {
                    None => self.run_once(next_run, &guardian, &leadership).await,
                    Some(standby) => {
                        let waiting = waiting.take();
                        self.promote_once(standby, waiting, next_run, &guardian, &leadership).await
                    }
                };
                next_run += 1;
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
    /// A program of this node, that is started when the node leads.
    pub fn new(
        command: Vec<String>,
        keeper: Keeper,
        config: &Config,
        clock: Arc<dyn Clock>,
        deadline: DeadlinePage,
    ) -> Self {
        let silence_max = config.meta.main_loop_timeout_secs;
        let timeout = (silence_max > 0).then(|| Duration::from_secs(silence_max));
        Self {
            command,
            keeper,
            node: config.node.id.clone(),
            cluster: config.node.cluster.clone(),
            notify: NotifySocket::new(timeout),
            is_watched: timeout.is_some(),
            restart: config.meta.restart,
            clock,
            deadline,
            standby: None,
        }
    }

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

    async fn found(&self) -> Option<TakenOver> {
        match &self.standby {
            None => Some(TakenOver::default()),
            Some(standby) => standby.take_over().await,
        }
    }

    async fn run_once(&self, run: u64, guardian: &Arc<Guardian>, leadership: &Leadership) -> RunEnd {
        if leadership.check().is_err() {
            return RunEnd::NotStarted(None);
        }
        // A socket for each run: what is still in the last one's was said by a program that is dead.
        let notifications = self.is_watched.then(|| self.listen(guardian)).flatten();
        let started = tokio::select! {
            started = self.start(run, guardian, leadership, notifications.is_some()) => started,
            () = leadership.aborted() => Err(io::Error::other("leadership ended meanwhile").into()),
        };
        match started {
            Ok(()) => {
                leadership.started().await;
                tokio::select! {
                    end = attend(run, guardian, leadership) => end,
                    end = pass_on(notifications, leadership) => match end {},
                }
            }
            Err(e) => not_started(guardian, e).await,
        }
    }

    /// Has the program lead that stands by; without one starts it first, as a standby too.
    async fn promote_once(
        &self,
        standby: &Standby,
        waiting: Option<StandingBy>,
        next_run: u64,
        guardian: &Arc<Guardian>,
        leadership: &Leadership,
    ) -> RunEnd {
        let waiting = match waiting {
            Some(waiting) => waiting,
            None => {
                leadership.starting();
                let started = tokio::select! {
                    started = self.stand_by(next_run, guardian, &standby.readiness) => started,
                    () = leadership.aborted() => Err(io::Error::other("leadership ended meanwhile").into()),
                };
                match started {
                    Ok(waiting) => waiting,
                    Err(e) => return not_started(guardian, e).await,
                }
            }
        };
        leadership.warming_up();
        let (run, may_act) = (waiting.run, AtomicBool::new(false));
        tokio::select! {
            biased;
            end = attend(run, guardian, leadership) => match end {
                RunEnd::ByItself(code) if !may_act.load(Ordering::Relaxed) => {
                    RunEnd::NotYet(format!("the standby program ended with code {code}"))
                }
                end => end,
            },
            refused = promote(waiting, leadership, &may_act) => {
                guardian.kill();
                attend(run, guardian, leadership).await;
                RunEnd::NotYet(refused.to_string())
            }
            never = kill_unless_it_may_act(guardian, leadership, &may_act) => match never {},
        }
    }

    async fn start(
        &self,
        run: u64,
        guardian: &Arc<Guardian>,
        leadership: &Leadership,
        heard: bool,
    ) -> Result<(), RunError> {
        let token = ("METAD_TOKEN", leadership.token().to_string());
        let notify = heard.then(|| self.notify.env()).into_iter().flatten();
        let env = self.environment([token].into_iter().chain(notify));
        let pid = self.run_in(guardian, run, env, false).await?;
        tracing::debug!(pid, run, "the program runs");
        Ok(())
    }

    async fn run_in(
        &self,
        guardian: &Arc<Guardian>,
        run: u64,
        env: Vec<(String, String)>,
        stands_by: bool,
    ) -> Result<u32, RunError> {
        let descriptors = vec![deadline_page::VARIABLE.to_owned()];
        let program = Program { run, command: self.command.clone(), env, descriptors, stands_by };
        guardian.run(program, &[self.deadline.reader()]).await
    }

    /// What every program finds in its environment, and this.
    fn environment(&self, more: impl Iterator<Item = (&'static str, String)>) -> Vec<(String, String)> {
        let every = [("METAD_NODE_ID", self.node.clone()), ("METAD_CLUSTER", self.cluster.clone())];
        every.into_iter().chain(more).map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Without the socket the program runs all the same, unwatched, and the log says so.
    fn listen(&self, guardian: &Arc<Guardian>) -> Option<Notifications> {
        let listening = self.notify.listen(guardian.pid());
        listening
            .inspect_err(|e| {
                tracing::warn!(error = %e, "heartbeats of the program cannot be received: a hang will not be noticed");
            })
            .ok()
    }
}

async fn pass_on(notifications: Option<Notifications>, leadership: &Leadership) -> Infallible {
    match notifications {
        Some(notifications) => notifications.pass_on_to(leadership).await,
        None => std::future::pending().await,
    }
}

/// Promotes the program when it is warm, and passes its signs of life on. It ends only if the program cannot be promoted;
/// `may_act` is set before the program may have heard of it.
async fn promote(mut waiting: StandingBy, leadership: &Leadership, may_act: &AtomicBool) -> RunError {
    waiting.until_warm().await;
    let StandingBy { run, guardian, notifications, .. } = waiting;
    let Some(line) = standby::promotion(leadership).filter(|_| leadership.check().is_ok()) else {
        return std::future::pending().await; // it is being ended
    };
    may_act.store(true, Ordering::Relaxed);
    if let Err(e) = guardian.promote(run, line).await {
        return e;
    }
    leadership.started().await;
    match notifications.pass_on_to(leadership).await {}
}

/// A program that was never promoted has nothing to save: when leadership is over it gets as little time as one that
/// stands by when its node stops. Somebody who is warm may be waiting.
async fn kill_unless_it_may_act(
    guardian: &Guardian,
    leadership: &Leadership,
    may_act: &AtomicBool,
) -> Infallible {
    let _ = leadership.lost().await;
    if !may_act.load(Ordering::Relaxed) {
        tokio::time::sleep(standby::END_TIMEOUT).await;
        guardian.kill();
    }
    std::future::pending().await
}

async fn not_started(guardian: &Arc<Guardian>, why: RunError) -> RunEnd {
    match why {
        RunError::Refused(refused) if refused.may_pass => RunEnd::NotYet(refused.why),
        RunError::Refused(refused) => {
            tracing::error!("{refused}");
            RunEnd::NotStarted(refused.code)
        }
        RunError::Unknown(e) => {
            // The guardian may have started it all the same, and died, or hang. Then nothing of it is left, and
            // the next guardian may start it.
            end_ourselves(guardian).await;
            RunEnd::NotYet(e.to_string())
        }
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
/// them lives. A command of our own ([`Dependent`](crate::guardian::dependent::Dependent)) that runs meanwhile is killed and waited for
/// as well: what it has left behind and what the program has look alike once they have lost their parents.
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
