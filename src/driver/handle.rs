//! The others' end of a running driver: what they ask of it, and what it shows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};

use super::freezing::{FreezeError, Freezer};
use crate::clock::Instant;
use crate::election::event::Event;
use crate::election::history::Reason;
use crate::election::probe::MemberHealth;
use crate::election::record::Freeze;
use crate::election::status::{Role, Status};
use crate::protocol::freeze::FreezeOrder;

/// The others' end of a running driver.
#[derive(Clone)]
pub struct DriverHandle {
    pub(super) commands: mpsc::Sender<Event>,
    pub(super) status: watch::Receiver<Arc<Status>>,
    pub(super) ticked_boot_ns: Arc<AtomicU64>,
    /// Does a request to stop wait for room in the queue?
    pub(super) shuts_down: Arc<AtomicBool>,
    pub(super) freezer: Freezer,
}

/// A command was refused: the driver is behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this node is overloaded; nothing was changed, try again")]
pub struct Busy;

// === impl DriverHandle ===

impl DriverHandle {
    /// Asks the node to stop, for this reason. Returns at once.
    pub fn shutdown(&self, reason: Reason) {
        let shutdown = self.commands.try_send(Event::Shutdown(reason));
        // A full queue means that the driver is behind; it must make no signal wait. One task waits at most: the first
        // reason to stop is the one that counts.
        if let Err(TrySendError::Full(event)) = shutdown
            && !self.shuts_down.swap(true, Ordering::Relaxed)
        {
            let commands = self.commands.clone();
            tokio::spawn(async move { commands.send(event).await });
        }
    }

    /// Asks the node to step down, in favour of this candidate or of any. Returns at once.
    ///
    /// # Errors
    /// The driver is behind; nothing was asked.
    pub fn step_down(&self, wanted: Option<String>) -> Result<(), Busy> {
        self.command(Event::StepDown(wanted))
    }

    /// Freezes or unfreezes the election, for all its members. Returns the freeze that was there before.
    ///
    /// # Errors
    /// It was not done, as far as is known.
    pub async fn freeze(&self, order: FreezeOrder) -> Result<Option<Freeze>, FreezeError> {
        self.freezer.order(order).await
    }

    /// The leader of this tenure asks whether we would take over: why not; `None`: we would. A follower renews its lease
    /// for it, if it `may_renew`. Returns at once.
    ///
    /// # Errors
    /// The driver is behind; nothing was asked.
    pub fn prepare(
        &self,
        token: u64,
        now: Instant,
        may_renew: impl FnOnce() -> bool,
    ) -> Result<Option<String>, Busy> {
        let status = self.status();
        let token = match status.tenure_to_prepare(token) {
            Ok(token) => token,
            Err(why) => return Ok(Some(why)),
        };
        // Also when too little of the lease is left: then all the more.
        if status.role == Role::Follower && may_renew() {
            self.command(Event::Prepare(token))?;
        }
        Ok(status.unready(now))
    }

    /// What the probes of this node have come to. Returns at once.
    ///
    /// # Errors
    /// The driver is behind, and has not heard it.
    pub fn probed(&self, health: MemberHealth) -> Result<(), Busy> {
        self.command(Event::Probed(health))
    }

    /// Strangers can ask, so nothing of theirs waits anywhere but in the bounded queue.
    pub(super) fn command(&self, event: Event) -> Result<(), Busy> {
        match self.commands.try_send(event) {
            Err(TrySendError::Full(_)) => Err(Busy),
            Ok(()) | Err(TrySendError::Closed(_)) => Ok(()), // closed: the node is ending
        }
    }

    /// Has the driver ended?
    pub fn has_ended(&self) -> bool {
        self.commands.is_closed()
    }

    /// The newest snapshot.
    pub fn status(&self) -> Arc<Status> {
        self.status.borrow().clone()
    }

    /// When the driver last looked at the clock.
    pub fn ticked_at(&self) -> Instant {
        Instant::from_nanos(self.ticked_boot_ns.load(Ordering::Relaxed), u64::MAX)
    }

    /// The snapshots as they come. What a renewal alone has changed (how long the lease holds, when the store confirmed
    /// the view) is in the latest one, but announced by none.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Status>> {
        self.status.clone()
    }
}
