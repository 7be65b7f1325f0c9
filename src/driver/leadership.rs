//! Leadership: the value that a main loop must hold, and the only way to write under `state/`.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::slots::Slots;
use super::watchdog::Signs;
use crate::clock::{Clock, Instant};
use crate::election::event::Event;
use crate::election::history::Reason;
use crate::election::record::Token;
use crate::guardian::horizon::Horizon;
use crate::protocol::writes::{Lost, WriteError};
use crate::store::Store;
use crate::store::codec::Keys;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::{self, Telemetry};

/// The right to act as leader, for as long as [`Leadership::check`] says so. Clones share it.
///
/// It is not a promise about the next moment: a process can be paused between a check and what it allows. What
/// must never happen twice has to be written through [`Leadership::write`], which the store itself refuses once
/// another member leads.
#[derive(Clone)]
pub struct Leadership {
    parts: Arc<LeadershipParts>,
    orders: watch::Receiver<Orders>,
}

/// Everything that a tenure's [`Leadership`] is made of.
pub(super) struct LeadershipParts {
    pub(super) token: Token,
    pub(super) node: String,
    pub(super) cluster: String,
    pub(super) keys: Keys,
    pub(super) ttl: Duration,
    pub(super) store: Arc<dyn Store>,
    pub(super) slots: Slots,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) horizon: Arc<Horizon>,
    pub(super) signs: Arc<Signs>,
    pub(super) telemetry: Telemetry,
    pub(super) reports: mpsc::Sender<Event>,
}

/// What the driver tells a main loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Orders {
    pub(super) stop: Option<Reason>,
    pub(super) abort: bool,
}

// === impl Leadership ===

impl Leadership {
    pub(super) fn new(parts: LeadershipParts, orders: watch::Receiver<Orders>) -> Self {
        Self { parts: Arc::new(parts), orders }
    }

    /// The fencing token: grows from leader to leader. Hand it to every system that can refuse an older one.
    pub fn token(&self) -> Token {
        self.parts.token
    }

    /// This node's id.
    pub fn node(&self) -> &str {
        &self.parts.node
    }

    /// The cluster's name.
    pub fn cluster(&self) -> &str {
        &self.parts.cluster
    }

    /// May the main loop act now? Call it before every effect.
    ///
    /// # Errors
    /// [`Lost`] once the main loop was told to stop, or should have been.
    pub fn check(&self) -> Result<(), Lost> {
        if let Some(reason) = self.orders.borrow().stop {
            return Err(Lost(reason));
        }
        match self.parts.horizon.step_down_at() {
            Some(at) if !self.parts.clock.now().reached(at) => Ok(()),
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
        self.deadline().map_or(Duration::ZERO, |at| self.parts.clock.now().until(at))
    }

    /// When the main loop is told to stop, unless the lease is renewed before; `None`: leadership is over.
    pub fn deadline(&self) -> Option<Instant> {
        self.parts.horizon.step_down_at()
    }

    /// A sign of life. From the first one on, a main loop that gives none for `main_loop_timeout_secs` counts as
    /// hung: it is ended, the record is given up, and the process exits with code 75. Costs one atomic addition.
    pub fn heartbeat(&self) {
        self.parts.signs.heartbeat();
    }

    /// The main loop pauses on purpose: it is not watched until its next sign of life.
    pub fn rest(&self) {
        self.parts.signs.rest();
    }

    /// What should run is (again) being started: `start_timeout_secs` counts until [`Leadership::started`].
    pub fn starting(&self) {
        self.parts.signs.starting();
    }

    /// What should run has been started, and has `warm_up_timeout_secs` until [`Leadership::started`].
    pub fn warming_up(&self) {
        self.parts.signs.warming_up();
    }

    /// The main loop runs. Called the first time, it says so (`main_loop_started`), and returns when it has been said.
    /// Only a main loop with [`says_when_it_runs`](super::main_loop::MainLoop::says_when_it_runs) calls it.
    pub async fn started(&self) {
        if self.parts.signs.started() {
            self.parts.telemetry.emit(telemetry::Event::MainLoopStarted { token: self.parts.token });
            self.parts.telemetry.flushed().await;
        }
    }

    /// Has the main loop ever run?
    pub(super) fn has_started(&self) -> bool {
        self.parts.signs.has_started()
    }

    /// The main loop must end, and leadership be handed over, for this reason.
    pub async fn give_up(&self, reason: Reason) {
        let _ = self.parts.reports.send(Event::Shutdown(reason)).await; // no driver: the process is ending
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

    /// The main loop's writes must never cost it the lease that allows them: when renewals come late, they wait.
    pub(super) fn check_headroom(&self) -> Result<(), WriteError> {
        let left = self.parts.horizon.fuse().map_or(Duration::ZERO, |at| self.parts.clock.now().until(at));
        if left >= self.parts.ttl / 2 {
            return Ok(());
        }
        Err(WriteError::Busy(format!("only {left:.1?} of the lease of {:?} is left", self.parts.ttl)))
    }

    /// The granted time to live.
    pub(super) fn ttl(&self) -> Duration {
        self.parts.ttl
    }

    pub(super) fn now(&self) -> Instant {
        self.parts.clock.now()
    }

    pub(super) fn metrics(&self) -> &Metrics {
        self.parts.telemetry.metrics()
    }

    pub(super) fn slots(&self) -> &Slots {
        &self.parts.slots
    }

    pub(super) fn store(&self) -> &dyn Store {
        self.parts.store.as_ref()
    }

    pub(super) fn keys(&self) -> &Keys {
        &self.parts.keys
    }

    /// The watch says so as well; this way the driver hears of it first.
    pub(super) fn report_fenced(&self) {
        self.parts.telemetry.emit(telemetry::Event::WriteFenced { token: self.parts.token });
        let _ = self.parts.reports.try_send(Event::Fenced(self.parts.token));
    }
}
