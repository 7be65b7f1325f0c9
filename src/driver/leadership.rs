//! Leadership: the value that a main loop must hold, and the only way to write under `state/`.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::deadline::DeadlineWarnings;
use super::watchdog::Signs;
use super::writes::{Slots, Write};
use crate::clock::{Clock, Instant};
use crate::election::event::Event;
use crate::election::history::Reason;
use crate::election::record::{Revision, Token};
use crate::guardian::horizon::Horizon;
use crate::store::codec::Keys;
use crate::store::{Refusal, Store, StoreError};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::{self, Telemetry};

/// The right to act as leader, for as long as [`Leadership::check`] says so. Clones share it.
///
/// It is not a promise about the next moment: a process can be paused between a check and what it allows. What
/// must never happen twice has to be written through [`Leadership::write`], which the store itself refuses once
/// another member leads.
#[derive(Clone)]
pub struct Leadership {
    inner: Arc<Inner>,
    orders: watch::Receiver<Orders>,
}

struct Inner {
    token: Token,
    node: String,
    cluster: String,
    keys: Keys,
    ttl: Duration,
    store: Arc<dyn Store>,
    slots: Slots,
    clock: Arc<dyn Clock>,
    horizon: Arc<Horizon>,
    signs: Arc<Signs>,
    telemetry: Telemetry,
    reports: mpsc::Sender<Event>,
}

/// What the driver tells a main loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Orders {
    pub(super) stop: Option<Reason>,
    pub(super) abort: bool,
}

/// Leadership is over, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("leadership is over: {0}")]
pub struct Lost(pub Reason);

/// Why a write of the main loop did not happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// We do not lead any more; nothing was sent.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// The store knows a newer leader than us.
    #[error("fenced: token {0} is no longer the leader's")]
    Fenced(Token),
    /// A key is not at the expected revision.
    #[error("{key} is at revision {found}, not at {expected} (0: absent)")]
    Conflict {
        /// The key, as it was named.
        key: String,
        /// What was expected.
        expected: Revision,
        /// What it is.
        found: Revision,
    },
    /// Not now: try again a little later. Nothing was sent.
    #[error("cannot write at the moment: {0}")]
    Busy(String),
    /// More than fits into one write. Nothing was sent.
    #[error("too large: {0}")]
    TooLarge(String),
    /// Not the name of a key. Nothing was sent.
    #[error("invalid key: {0}")]
    BadName(String),
    /// The key is changed twice in one write. Nothing was sent.
    #[error("{0:?} is changed twice in one write")]
    Twice(String),
    /// A try was sent, and leadership ended before its outcome was known: it may or may not have happened.
    #[error("outcome of the write unknown ({0}); read it from the next leader")]
    Unknown(String),
    /// The store refuses it on its merits.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Everything a new tenure's [`Leadership`] is made of.
pub(super) struct LeadershipParts {
    pub(super) token: Token,
    pub(super) node: String,
    pub(super) cluster: String,
    pub(super) keys: Keys,
    pub(super) ttl: Duration,
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) horizon: Arc<Horizon>,
    pub(super) signs: Arc<Signs>,
    pub(super) telemetry: Telemetry,
    pub(super) reports: mpsc::Sender<Event>,
}

// === impl WriteError ===

impl WriteError {
    /// Has the store not answered, or was it not reached? The same may work a little later.
    pub fn may_pass(&self) -> bool {
        matches!(self, WriteError::Store(StoreError::Unknown(_) | StoreError::Refused(Refusal::NotSent, _)))
    }
}

// === impl Leadership ===

impl Leadership {
    pub(super) fn new(parts: LeadershipParts, orders: watch::Receiver<Orders>) -> Self {
        let LeadershipParts {
            token,
            node,
            cluster,
            keys,
            ttl,
            store,
            clock,
            horizon,
            signs,
            telemetry,
            reports,
        } = parts;
        let slots = Slots::new();
        let inner = Inner {
            token,
            node,
            cluster,
            keys,
            ttl,
            store,
            slots,
            clock,
            horizon,
            signs,
            telemetry,
            reports,
        };
        Self { inner: Arc::new(inner), orders }
    }

    /// The fencing token: grows from leader to leader. Hand it to every system that can refuse an older one.
    pub fn token(&self) -> Token {
        self.inner.token
    }

    /// This node's id.
    pub fn node(&self) -> &str {
        &self.inner.node
    }

    /// The cluster's name.
    pub fn cluster(&self) -> &str {
        &self.inner.cluster
    }

    /// May the main loop act now? Call it before every effect.
    ///
    /// # Errors
    /// [`Lost`] once the main loop was told to stop, or should have been.
    pub fn check(&self) -> Result<(), Lost> {
        if let Some(reason) = self.orders.borrow().stop {
            return Err(Lost(reason));
        }
        match self.inner.horizon.step_down_at() {
            Some(at) if !self.inner.clock.now().reached(at) => Ok(()),
            _ => Err(Lost(Reason::RenewDeadline)),
        }
    }

    /// How long the main loop may go on, unless a renewal comes: until S, when it is told to stop. Zero exactly when
    /// [`Leadership::check`] fails: from S on, and once it was told to stop for whatever reason.
    ///
    /// It counts from the moment at which the last renewal that the store has confirmed was *sent*, and by the clock on
    /// which less is left, so it is never too long by what an answer took, by a suspend or by a clock that is slewed. A
    /// healthy leader has 0.85 to 0.95 of its lease.
    ///
    /// Not guaranteed: that so much time is really left. Leadership can be lost before (another process deletes the
    /// record), it ends before if somebody asks the node to stop, and this process can be paused right after the look:
    /// what must never happen twice needs [`Leadership::write`], or the token.
    pub fn remaining(&self) -> Duration {
        if self.orders.borrow().stop.is_some() {
            return Duration::ZERO;
        }
        self.deadline().map_or(Duration::ZERO, |at| self.inner.clock.now().until(at))
    }

    /// Warnings before S: one each time that less than this fraction of the granted lease [remains](Self::remaining),
    /// armed again by each renewal that lifts it above. 0.5 is a good choice; above 0.8 also a healthy leader is warned
    /// between two renewals. What is below 0 counts as 0 (never), what is above 1 as 1.
    ///
    /// ```no_run
    /// # use metad::driver::leadership::Leadership;
    /// # async fn main_loop(leadership: Leadership) {
    /// let mut warnings = leadership.on_deadline(0.5);
    /// while let Some(left) = warnings.next().await {
    ///     println!("renewals fail; {left:?} left: finish what is under way, begin nothing long");
    /// }
    /// println!("told to stop");
    /// # }
    /// ```
    ///
    /// Not guaranteed: that a warning comes before every end. There is none where leadership ends from one moment to the
    /// next (a request, a deleted record), and none where the task that waits for it gets no CPU between the fraction
    /// and S: a process that is stopped, or a runtime that is blocked, for as long. And a warning is no loss: a renewal
    /// may still come, so nothing has to be given up.
    pub fn on_deadline(&self, fraction: f64) -> DeadlineWarnings {
        DeadlineWarnings::new(self.clone(), fraction)
    }

    /// When the main loop is told to stop, unless the lease is renewed before; `None`: leadership is over.
    pub fn deadline(&self) -> Option<Instant> {
        self.inner.horizon.step_down_at()
    }

    /// A sign of life. From the first one on, a main loop that gives none for `main_loop_timeout_secs` counts as
    /// hung: it is ended, the record is given up, and the process exits with code 75. Costs one atomic addition.
    pub fn heartbeat(&self) {
        self.inner.signs.heartbeat();
    }

    /// The main loop pauses on purpose: it is not watched until its next sign of life.
    pub fn rest(&self) {
        self.inner.signs.rest();
    }

    /// What should run is (again) being started: `start_timeout_secs` counts until [`Leadership::started`].
    pub fn starting(&self) {
        self.inner.signs.starting();
    }

    /// What should run has been started, and has `warm_up_timeout_secs` until [`Leadership::started`].
    pub fn warming_up(&self) {
        self.inner.signs.warming_up();
    }

    /// The main loop runs. Called the first time, it says so (`main_loop_started`), and returns when it has been said.
    /// Only a main loop with [`says_when_it_runs`](super::main_loop::MainLoop::says_when_it_runs) calls it.
    pub async fn started(&self) {
        if self.inner.signs.started() {
            self.inner.telemetry.emit(telemetry::Event::MainLoopStarted { token: self.inner.token });
            self.inner.telemetry.flushed().await;
        }
    }

    /// Has the main loop ever run?
    pub(super) fn has_started(&self) -> bool {
        self.inner.signs.has_started()
    }

    /// The main loop must end, and leadership be handed over, for this reason.
    pub async fn give_up(&self, reason: Reason) {
        let _ = self.inner.reports.send(Event::Shutdown(reason)).await; // no driver: the process is ending
    }

    /// Waits until the main loop is told to stop, and says why.
    pub async fn lost(&self) -> Lost {
        let mut orders = self.orders.clone();
        let stop = orders.wait_for(|o| o.stop.is_some()).await.ok().and_then(|o| o.stop);
        Lost(stop.unwrap_or(Reason::RenewDeadline)) // the driver is gone: nobody renews
    }

    /// Waits until the time to stop gently is over.
    pub async fn aborted(&self) {
        let mut orders = self.orders.clone();
        let _ = orders.wait_for(|o| o.abort).await;
    }

    /// Writes a key under `state/`, if we still lead and the key is still at `expected` (0: absent). Returns
    /// the key's new revision. The same as [`Leadership::write`] of one change.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn put(&self, name: &str, value: Vec<u8>, expected: Revision) -> Result<Revision, WriteError> {
        self.write(&Write::put(name, value, expected)).await
    }

    /// The main loop's writes must never cost it the lease that allows them: when renewals come late, they wait.
    pub(super) fn check_headroom(&self) -> Result<(), WriteError> {
        let left = self.inner.horizon.fuse().map_or(Duration::ZERO, |at| self.inner.clock.now().until(at));
        if left >= self.inner.ttl / 2 {
            return Ok(());
        }
        Err(WriteError::Busy(format!("only {left:.1?} of the lease of {:?} is left", self.inner.ttl)))
    }

    /// The granted time to live.
    pub(super) fn ttl(&self) -> Duration {
        self.inner.ttl
    }

    pub(super) fn now(&self) -> Instant {
        self.inner.clock.now()
    }

    pub(super) fn metrics(&self) -> &Metrics {
        self.inner.telemetry.metrics()
    }

    pub(super) fn slots(&self) -> &Slots {
        &self.inner.slots
    }

    pub(super) fn store(&self) -> &dyn Store {
        self.inner.store.as_ref()
    }

    pub(super) fn keys(&self) -> &Keys {
        &self.inner.keys
    }

    /// The watch says so as well; this way the driver hears of it first.
    pub(super) fn report_fenced(&self) {
        self.inner.telemetry.emit(telemetry::Event::WriteFenced { token: self.inner.token });
        let _ = self.inner.reports.try_send(Event::Fenced(self.inner.token));
    }
}
