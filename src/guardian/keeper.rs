//! Keeps one guardian alive that answers, and remembers what each new one must be told.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::Notify;

use super::fate;
use super::horizon::Horizon;
use super::rules;
use super::{Guardian, GuardianPlan, Guardianship, NoGuardian};
use crate::election::lease::LeaseId;

/// A guardian is replaced no sooner than so long after its own start.
const LIFE_MIN: Duration = Duration::from_millis(500);
/// The pause before the next try where none can be started; doubles.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// The longest such pause.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(30);

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
    /// There is another guardian, or the one that there is is free.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    guardian: Option<Arc<Guardian>>,
    leases: Vec<LeaseId>,
    /// Only the answers of this cluster count.
    pinned: Option<u64>,
    /// It looks after a program: then it is not replaced before nothing is left of that.
    busy: bool,
    dismissed: bool,
}

impl Keeper {
    /// Starts a guardian, and replaces it whenever it dies or does not answer. Must be called on a runtime.
    ///
    /// # Errors
    /// The first one cannot be started.
    pub async fn start(plan: GuardianPlan, horizon: Arc<Horizon>) -> Result<Self, NoGuardian> {
        let first = Arc::new(Guardian::start(&plan, &horizon).await?);
        if let Some(warning) = fate::shared() {
            tracing::warn!("{warning}");
        }
        let state = State { guardian: Some(first.clone()), ..State::default() };
        let keeper = Self {
            inner: Arc::new(Inner { plan, horizon, state: Mutex::new(state), changed: Notify::new() }),
        };
        tokio::spawn(keeper.clone().replace_the_lost(first));
        Ok(keeper)
    }

    /// Waits for a guardian, to look after a program; from now on it is not replaced.
    pub async fn engage(&self) -> Arc<Guardian> {
        loop {
            let changed = self.inner.changed.notified();
            {
                let mut state = self.state();
                if let Some(guardian) = state.guardian.clone().filter(|g| !g.is_lost()) {
                    state.busy = true;
                    return guardian;
                }
            }
            changed.await;
        }
    }

    /// Nothing of the program is left: a guardian that is lost may be replaced.
    pub fn release(&self) {
        self.state().busy = false;
        self.inner.changed.notify_waiters();
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

    async fn replace_the_lost(self, mut present: Arc<Guardian>) {
        loop {
            let young = tokio::time::sleep(LIFE_MIN); // from now on
            let how = present.lost().await;
            // First whoever has it look after a program ends what is left of that.
            self.until_free().await;
            end(&present).await;
            let dismissed = {
                let mut state = self.state();
                state.guardian = None;
                state.dismissed
            };
            if dismissed {
                return;
            }
            tracing::warn!("the guardian {how}; starting another one");
            young.await; // over long ago, but for one that does not live
            present = self.start_another().await;
            let mut state = self.state();
            for lease in &state.leases {
                let _ = present.tell_lease(*lease);
            }
            if let Some(cluster) = state.pinned {
                let _ = present.tell_pinned(cluster);
            }
            present.tell_moved();
            state.guardian = Some(present.clone());
            drop(state);
            self.inner.changed.notify_waiters();
        }
    }

    async fn start_another(&self) -> Arc<Guardian> {
        let mut pause = RETRY_PAUSE;
        loop {
            match Guardian::start(&self.inner.plan, &self.inner.horizon).await {
                Ok(guardian) => return Arc::new(guardian),
                Err(e) => tracing::warn!(error = %e, "cannot start a guardian"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
        }
    }

    async fn until_free(&self) {
        loop {
            let changed = self.inner.changed.notified();
            if !self.state().busy {
                return;
            }
            changed.await;
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Guardianship for Keeper {
    fn tell_lease(&self, lease: LeaseId) {
        let mut state = self.state();
        rules::remember(&mut state.leases, lease);
        if let Some(guardian) = &state.guardian {
            let _ = guardian.tell_lease(lease); // dead: the next one is told
        }
    }

    fn tell_pinned(&self, cluster: u64) {
        let mut state = self.state();
        state.pinned = Some(cluster);
        if let Some(guardian) = &state.guardian {
            let _ = guardian.tell_pinned(cluster); // dead: the next one is told
        }
    }

    fn tell_moved(&self, begun: bool) {
        let state = self.state();
        if let Some(guardian) = state.guardian.as_ref().filter(|_| begun || state.busy) {
            guardian.tell_moved();
        }
    }

    fn knows_a_lease(&self) -> bool {
        !self.state().leases.is_empty()
    }

    fn dismiss(&self) {
        let mut state = self.state();
        state.dismissed = true;
        if let Some(guardian) = &state.guardian {
            guardian.dismiss();
        }
    }
}

/// Kills it, if it lives, and buries it.
async fn end(guardian: &Arc<Guardian>) {
    let guardian = guardian.clone();
    let _ = tokio::task::spawn_blocking(move || guardian.destroy()).await;
}
