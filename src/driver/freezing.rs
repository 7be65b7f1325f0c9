//! Freezing the election, and ending that. Any member does it, whoever leads, and also while nobody does: each write compares
//! when the election was last frozen or unfrozen, and a claim compares that it is not frozen.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::Shared;
use super::tasks::Tasks;
use crate::clock::wall_clock_ms;
use crate::election::record::{Freeze, Revision};
use crate::election::status::Status;
use crate::protocol::freeze::{EndingFreeze, FreezeOrder};
use crate::protocol::transactions;
use crate::store::codec::Keys;
use crate::store::{Store, StoreError, ask};
use crate::telemetry::Event;

/// How often a write is tried that comes too late for what it compares with.
const TRIES_MAX: u32 = 3;
/// How soon the clocks are looked at again: the wall clock may be set, and a sleep does not count a suspended machine.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The order was not carried out, as far as is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FreezeError {
    /// The election is frozen already, and nobody has said that this freeze is to be replaced.
    #[error("the election is frozen already")]
    Frozen(Freeze),
    /// Nothing was written.
    #[error("the store refuses it, or does not answer: {0}")]
    NotWritten(StoreError),
    /// It may have been written.
    #[error("the store has not said whether it was written: {0}")]
    Unknown(StoreError),
}

/// Writes the freeze, on the driver's runtime and connections.
#[derive(Clone)]
pub(super) struct Freezer {
    store: Arc<dyn Store>,
    keys: Keys,
    tasks: Arc<dyn Tasks>,
}

// === impl Freezer ===

impl Freezer {
    pub(super) fn new(store: Arc<dyn Store>, keys: Keys, tasks: Arc<dyn Tasks>) -> Self {
        Self { store, keys, tasks }
    }

    /// Carries the order out. Returns the freeze that was there before.
    pub(super) async fn order(&self, order: FreezeOrder) -> Result<Option<Freeze>, FreezeError> {
        let (done, result) = oneshot::channel();
        let this = self.clone();
        self.tasks.spawn(Box::pin(async move {
            let _ = done.send(this.carry_out(&order).await); // whoever asked has gone
        }));
        let unknown = || FreezeError::Unknown(StoreError::Unknown("this node is ending".into()));
        result.await.unwrap_or_else(|_| Err(unknown()))
    }

    async fn carry_out(&self, order: &FreezeOrder) -> Result<Option<Freeze>, FreezeError> {
        let mut before = None;
        for tried in 0..TRIES_MAX {
            // What an earlier try has done, nobody knows until it is read.
            let failed = if tried == 0 { FreezeError::NotWritten } else { FreezeError::Unknown };
            let reply =
                ask(self.store.as_ref(), transactions::read_control(&self.keys)).await.map_err(failed)?;
            let (found, changed) = transactions::control(&self.keys, &reply);
            // The refusal of an earlier try may have been that of its second copy.
            if tried > 0 && order.is_done(found.as_ref()) {
                return Ok(before);
            }
            if let Some(other) = found.as_ref().filter(|_| order.is_refused_by_another()) {
                return Err(FreezeError::Frozen(other.clone()));
            }
            if tried > 0 && found.is_none() {
                break; // our freeze may have been there, and somebody has ended it: it must not come back
            }
            before = found;
            let written = ask(self.store.as_ref(), order.txn(&self.keys, changed)).await;
            match written {
                Ok(reply) if reply.succeeded => return Ok(before),
                Ok(_) => {}
                Err(e) if tried == 0 && e.refusal().is_some() => return Err(FreezeError::NotWritten(e)),
                Err(e) => return Err(FreezeError::Unknown(e)),
            }
        }
        let others = "others freeze and unfreeze the election at the same time";
        Err(FreezeError::Unknown(StoreError::Unknown(others.into())))
    }
}

// === ending by itself ===

/// Ends each freeze whose time is over. Every member does; the first one's write counts.
pub(super) async fn end_when_due(shared: Shared, mut status: watch::Receiver<Arc<Status>>) {
    let (mut ends, mut has_seen): (Option<EndingFreeze>, bool) = (None, false);
    loop {
        let view = status.borrow_and_update().view.clone();
        ends = EndingFreeze::of(ends, &view, has_seen, shared.clock.now());
        has_seen |= view.revision > Revision(0);
        let pause = match &ends {
            None => None,
            Some(ends) => Some(end_if_over(&shared, ends).await),
        };
        let changed = match pause {
            None => status.changed().await.is_ok(),
            Some(pause) => !matches!(tokio::time::timeout(pause, status.changed()).await, Ok(Err(_))),
        };
        if !changed {
            return; // the driver is over
        }
    }
}

/// When to look again.
async fn end_if_over(shared: &Shared, ends: &EndingFreeze) -> Duration {
    let left = ends.left(shared.clock.now(), wall_clock_ms());
    if !left.is_zero() {
        return left.min(LOOK_EVERY);
    }
    match ask(shared.store.as_ref(), transactions::end_freeze(&shared.keys, ends.written)).await {
        Ok(reply) if reply.succeeded => {
            shared.telemetry.emit(Event::FreezeOver { reason: ends.reason.clone() });
        }
        Ok(_) => {} // another member was faster
        Err(e) => shared.telemetry.store_failed("unfreeze", &e),
    }
    LOOK_EVERY
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use async_trait::async_trait;
    use futures_util::stream::BoxStream;

    use super::*;
    use crate::clock::OsClock;
    use crate::election::lease::LeaseId;
    use crate::store::memory::MemoryStore;
    use crate::store::{KeyRange, Renewal, Request, Response, WatchBatch};

    /// A write arrives twice, and somebody unfreezes the election in between; once.
    struct Doubling(MemoryStore, Keys, AtomicBool);

    #[async_trait]
    impl Store for Doubling {
        async fn call(&self, request: Request) -> Result<Response, StoreError> {
            if request.writes() && !self.2.swap(true, Ordering::Relaxed) {
                self.0.call(request.clone()).await?;
                let reply = ask(&self.0, transactions::read_control(&self.1)).await?;
                let (found, changed) = transactions::control(&self.1, &reply);
                assert!(found.is_some(), "twin: it was frozen");
                ask(&self.0, transactions::unfreeze(&self.1, changed)).await?;
            }
            self.0.call(request).await
        }

        fn renew(&self, lease: LeaseId) -> BoxStream<'static, Result<Renewal, StoreError>> {
            self.0.renew(lease)
        }

        async fn watch(
            &self,
            range: KeyRange,
            after: Revision,
            alive_every: Duration,
        ) -> Result<BoxStream<'static, Result<WatchBatch, StoreError>>, StoreError> {
            self.0.watch(range, after, alive_every).await
        }

        fn location(&self) -> String {
            self.0.location()
        }
    }

    #[tokio::test]
    async fn a_freeze_that_somebody_has_ended_meanwhile_does_not_come_back() {
        let (memory, keys) = (MemoryStore::new(Arc::new(OsClock)), Keys::new("c", "g"));
        let store = Arc::new(Doubling(memory, keys.clone(), AtomicBool::new(false)));
        let tasks = Arc::new(tokio::runtime::Handle::current());
        let freezer = Freezer::new(store.clone(), keys.clone(), tasks);
        let freeze = Freeze { reason: "r".into(), by: "b".into(), since_ms: 5_000, until_ms: Some(65_000) };
        let order = || FreezeOrder::Freeze { freeze: freeze.clone(), replaces: false };
        let done = freezer.order(order()).await;
        assert!(matches!(done, Err(FreezeError::Unknown(_))), "{done:?}");
        let is_frozen = async || {
            let reply = ask(store.as_ref(), transactions::read_control(&keys)).await.expect("an answer");
            transactions::control(&keys, &reply).0.is_some()
        };
        assert!(!is_frozen().await);
        assert_eq!(freezer.order(order()).await, Ok(None), "twin");
        assert!(is_frozen().await);
    }
}
