//! Keeps one guardian alive, and remembers what each new one must be told.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;

use super::fate;
use super::horizon::Horizon;
use super::{Guardian, GuardianPlan, NoGuardian};
use crate::election::lease::LeaseId;

/// The pause before a dead guardian is replaced.
const REPLACE_PAUSE: Duration = Duration::from_millis(500);
/// The longest such pause, where guardians keep dying.
const REPLACE_PAUSE_MAX: Duration = Duration::from_secs(30);
/// How many leases a guardian is told of: the present one, and those of joins that did not come to an end.
pub(super) const LEASES_MAX: usize = 16;

/// The guardian of this process, whichever it is at the moment. Clones share it.
#[derive(Clone, Debug)]
pub struct Keeper {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    plan: GuardianPlan,
    horizon: Arc<Horizon>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    guardian: Option<Arc<Guardian>>,
    leases: Vec<LeaseId>,
    /// It looks after a program: then it is never replaced, because its death ends the main loop.
    busy: bool,
    dismissed: bool,
}

impl Keeper {
    /// Starts a guardian, and replaces it whenever it dies. Must be called on a runtime.
    ///
    /// # Errors
    /// The first one cannot be started.
    pub async fn start(plan: GuardianPlan, horizon: Arc<Horizon>) -> Result<Self, NoGuardian> {
        let first = Arc::new(Guardian::start(&plan, &horizon).await?);
        if let Some(warning) = fate::shared() {
            tracing::warn!("{warning}");
        }
        let state =
            State { guardian: Some(first.clone()), leases: Vec::new(), busy: false, dismissed: false };
        let keeper = Self { inner: Arc::new(Inner { plan, horizon, state: Mutex::new(state) }) };
        tokio::spawn(keeper.clone().replace_the_dead(first));
        Ok(keeper)
    }

    /// Tells it the name of a lease, before the store hears of it.
    pub fn tell_lease(&self, lease: LeaseId) {
        let mut state = self.state();
        if state.leases.len() == LEASES_MAX {
            state.leases.remove(0);
        }
        state.leases.push(lease);
        if let Some(guardian) = &state.guardian {
            let _ = guardian.tell_lease(lease); // dead: the next one is told
        }
    }

    /// Tells it that the deadlines have begun to count.
    pub fn tell_armed(&self) {
        if let Some(guardian) = &self.state().guardian {
            guardian.tell_armed();
        }
    }

    /// Was it ever told of a lease?
    pub fn knows_a_lease(&self) -> bool {
        !self.state().leases.is_empty()
    }

    /// Says that everything is given back.
    pub fn dismiss(&self) {
        let mut state = self.state();
        state.dismissed = true;
        if let Some(guardian) = &state.guardian {
            guardian.dismiss();
        }
    }

    /// The guardian, to look after a program; from now on it is not replaced.
    pub fn engage(&self) -> Option<Arc<Guardian>> {
        let mut state = self.state();
        state.busy = state.guardian.is_some();
        state.guardian.clone()
    }

    /// Passes a signal on to the program itself, if it runs.
    pub fn signal(&self, signal: Signal) {
        if let Some(guardian) = &self.state().guardian {
            guardian.signal(signal);
        }
    }

    /// Its process id, if there is one.
    pub fn pid(&self) -> Option<u32> {
        self.state().guardian.as_ref().map(|g| g.pid())
    }

    async fn replace_the_dead(self, mut present: Arc<Guardian>) {
        let mut pause = REPLACE_PAUSE;
        loop {
            present.gone().await;
            {
                let mut state = self.state();
                state.guardian = None;
                if state.dismissed || state.busy {
                    return;
                }
            }
            tracing::warn!("the guardian died; starting another one");
            present = loop {
                tokio::time::sleep(pause).await;
                match Guardian::start(&self.inner.plan, &self.inner.horizon).await {
                    Ok(guardian) => break Arc::new(guardian),
                    Err(e) => tracing::warn!(error = %e, "cannot start a guardian"),
                }
                pause = (pause * 2).min(REPLACE_PAUSE_MAX);
            };
            let mut state = self.state();
            for lease in &state.leases {
                let _ = present.tell_lease(*lease);
            }
            present.tell_armed();
            state.guardian = Some(present.clone());
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}
