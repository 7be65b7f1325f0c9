//! A program that stands by: started on every candidate, so that it is warm when its node leads, and promoted then by a
//! line. It does nothing before that line arrives; the guardian writes it, once all that ends a leader's program is armed.
//!
//! A program that ends before it was promoted is started again, after a pause. Meanwhile its node claims no vacancy; while
//! it is not warm, the last one of all; and nobody hands over to it in either case.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::{Payload, end_ourselves};
use crate::clock::Instant;
use crate::driver::leadership::Leadership;
use crate::driver::main_loop::BoxFuture;
use crate::driver::observer::Observer;
use crate::driver::readiness::Readiness;
use crate::election::history::Ending;
use crate::election::status::Status;
use crate::guardian::{Guardian, Refused, RunError};
use crate::meta::backoff::Backoff;
use crate::meta::watchdog::Notifications;

/// How long a program that stands by gets to end gently when its node stops; then its guardian kills it.
pub(super) const END_TIMEOUT: Duration = Duration::from_millis(500);
/// One to begin, one to lead, one to end.
const ORDERS_MAX: usize = 3;

/// A program that runs and was not promoted.
pub(super) struct StandingBy {
    pub(super) run: u64,
    pub(super) guardian: Arc<Guardian>,
    pub(super) notifications: Notifications,
    is_warm: bool,
    readiness: Readiness,
}

/// What a new leader finds.
#[derive(Default)]
pub(super) struct TakenOver {
    pub(super) waiting: Option<StandingBy>,
    /// The number of the next start, if it needs another one.
    pub(super) next_run: u64,
}

/// Gives orders to who looks after the program that stands by.
#[derive(Clone, Debug)]
pub(super) struct Standby {
    orders: mpsc::Sender<StandbyOrder>,
    pub(super) readiness: Readiness,
}

/// Has the program begin to stand by when its node may lead, and ends it when its node ends.
pub struct StandbyEnd {
    standby: Standby,
    has_begun: bool,
}

enum StandbyOrder {
    /// This node may lead: its priority was 0 until now.
    Begin,
    /// This node leads: hand the program over.
    Lead(oneshot::Sender<TakenOver>),
    /// This node ends.
    End(oneshot::Sender<()>),
}

/// Looks after the program until somebody takes it over.
struct Attendant {
    payload: Payload,
    readiness: Readiness,
    orders: mpsc::Receiver<StandbyOrder>,
}

// === impl Payload ===

impl Payload {
    /// Has the program stand by from now on; on a node of priority 0 (`is_candidate` is false), once that is raised. To be
    /// called on a runtime, before the election begins.
    pub fn standing_by(self, readiness: Readiness, is_candidate: bool) -> (Self, StandbyEnd) {
        let (orders, received) = mpsc::channel(ORDERS_MAX);
        let standby = Standby { orders, readiness: readiness.clone() };
        readiness.unready("the standby program does not run", false);
        let attendant = Attendant { payload: self.clone(), readiness, orders: received };
        tokio::spawn(attendant.attend(is_candidate));
        let end = StandbyEnd { standby: standby.clone(), has_begun: is_candidate };
        (Self { standby: Some(standby), ..self }, end)
    }

    pub(super) async fn stand_by(
        &self,
        run: u64,
        guardian: &Arc<Guardian>,
        readiness: &Readiness,
    ) -> Result<StandingBy, RunError> {
        let no_socket = |e: std::io::Error| Refused {
            why: format!("cannot listen for READY=1: {e}"),
            code: None,
            may_pass: true,
        };
        let notifications = self.notify.listen(guardian.pid()).map_err(no_socket)?;
        let env = self.environment(self.notify.env());
        let pid = self.run_in(guardian, run, env, true).await?;
        tracing::info!(pid, run, "the program stands by");
        readiness.unready("the standby program is not warm", true);
        let (guardian, readiness) = (guardian.clone(), readiness.clone());
        Ok(StandingBy { run, guardian, notifications, is_warm: false, readiness })
    }
}

/// What a program reads when it is promoted; `None`: leadership is over.
pub(super) fn promotion(leadership: &Leadership) -> Option<String> {
    let deadline_ms = leadership.deadline()?.boot_ns() / 1_000_000;
    Some(format!("{{\"token\":{},\"deadline_ms\":{deadline_ms}}}\n", leadership.token()))
}

// === impl StandingBy ===

impl StandingBy {
    /// Waits until the program has said that it is warm.
    pub(super) async fn until_warm(&mut self) {
        while !self.is_warm {
            self.hear().await;
        }
    }

    /// Takes one message. Each is taken, also when it is warm: a program must not wait for room for its signs of life.
    async fn hear(&mut self) {
        if self.notifications.is_ready().await && !self.is_warm {
            self.is_warm = true;
            tracing::info!("the program is warm");
            self.readiness.ready();
        }
    }
}

// === impl Standby ===

impl Standby {
    /// The program, if one stands by. `None`: this node is ending.
    pub(super) async fn take_over(&self) -> Option<TakenOver> {
        let (reply, found) = oneshot::channel();
        self.orders.send(StandbyOrder::Lead(reply)).await.ok()?;
        found.await.ok()
    }
}

impl Observer for StandbyEnd {
    fn changed(&mut self, _now: Instant, _old: &Status, new: &Status) {
        if !self.has_begun && new.priority().is_some_and(|priority| priority > 0) {
            self.has_begun = self.standby.orders.try_send(StandbyOrder::Begin).is_ok(); // else at the next change
        }
    }

    fn ends(&mut self, _ending: &Ending) -> BoxFuture<()> {
        let (done, ended) = oneshot::channel();
        // A program that was promoted has ended by now, and its attendant long ago.
        let told = self.standby.orders.try_send(StandbyOrder::End(done));
        Box::pin(async move {
            if told.is_ok() {
                // An attendant that waits for something that cannot be killed answers nobody.
                let _ = tokio::time::timeout(2 * END_TIMEOUT, ended).await;
            }
        })
    }
}

// === impl Attendant ===

impl Attendant {
    async fn attend(mut self, is_candidate: bool) {
        if !is_candidate {
            match self.orders.recv().await {
                Some(StandbyOrder::Begin) => {}
                order => return answer(order, 0),
            }
        }
        let mut backoff = Backoff::new();
        for run in 0.. {
            let guardian = tokio::select! {
                biased;
                order = self.orders.recv() => return answer(order, run),
                guardian = self.payload.keeper.engage() => guardian,
            };
            let started_at = self.payload.clock.now();
            let why = match self.payload.stand_by(run, &guardian, &self.readiness).await {
                Ok(waiting) => match self.until_it_ends(waiting).await {
                    Some(why) => why,
                    None => return,
                },
                Err(RunError::Refused(refused)) => refused.why,
                Err(RunError::Unknown(e)) => {
                    self.say_not_running(); // before what may take long
                    // The guardian may have started it all the same, and died, or hang.
                    end_ourselves(&guardian).await;
                    e.to_string()
                }
            };
            self.say_not_running();
            self.payload.keeper.release();
            let pause = backoff.after(self.payload.clock.now().since(started_at));
            tracing::warn!(
                why,
                next_try_in = ?pause,
                "the program does not stand by; this node does not lead meanwhile; restarting it"
            );
            tokio::select! {
                biased;
                order = self.orders.recv() => return answer(order, run + 1),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn say_not_running(&self) {
        self.readiness.unready("the standby program does not run", false);
    }

    /// How it ended, and nothing is left of it. `None`: somebody else looks after it now, or it ends with its node.
    async fn until_it_ends(&mut self, mut waiting: StandingBy) -> Option<String> {
        let (guardian, run) = (waiting.guardian.clone(), waiting.run);
        loop {
            tokio::select! {
                biased;
                ended = guardian.ended(run) => return Some(match ended {
                    Ok(code) => format!("it ended with code {}", code.unwrap_or(-1)),
                    Err(e) => {
                        self.say_not_running(); // before what may take long
                        end_ourselves(&guardian).await;
                        e.to_string()
                    }
                }),
                order = self.orders.recv() => match order {
                    Some(StandbyOrder::Lead(reply)) => {
                        let found = TakenOver { waiting: Some(waiting), next_run: run + 1 };
                        // Refused: leadership has ended meanwhile. It waits on, for its node's end.
                        waiting = reply.send(found).err()?.waiting?;
                    }
                    Some(StandbyOrder::End(done)) => {
                        guardian.terminate();
                        let _ = tokio::time::timeout(END_TIMEOUT, guardian.ended(run)).await;
                        let _ = done.send(());
                        return None;
                    }
                    Some(StandbyOrder::Begin) => {} // it has
                    None => return None,
                },
                () = waiting.hear() => {}
            }
        }
    }
}

/// Answers while no program stands by.
fn answer(order: Option<StandbyOrder>, next_run: u64) {
    match order {
        Some(StandbyOrder::Lead(reply)) => drop(reply.send(TakenOver { waiting: None, next_run })),
        Some(StandbyOrder::End(done)) => drop(done.send(())),
        Some(StandbyOrder::Begin) | None => {}
    }
}
