//! Freezing the election, and ending that. Any member does it, whoever leads, and also while nobody does: the compare of
//! each write is the freeze that it replaces, and a claim's compare is that there is none.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::Shared;
use super::status::Status;
use super::tasks::Tasks;
use crate::clock::wall_clock_ms;
use crate::election::record::{Freeze, Revision};
use crate::protocol::transactions;
use crate::store::codec::Keys;
use crate::store::{Store, StoreError, Txn, ask};

/// How often a write is tried that comes too late for what it compares with.
const TRIES_MAX: u32 = 3;
/// How soon the wall clock is looked at again: it may be set.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The freeze was not written, as far as is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot write the freeze: {why}")]
pub struct FreezeError {
    /// What the store says.
    pub why: String,
    /// Did it certainly not happen?
    pub is_refused: bool,
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

    /// Puts this freeze (`None`: none) in the place of what is there, which it returns.
    pub(super) async fn put(&self, wanted: Option<Freeze>) -> Result<Option<Freeze>, FreezeError> {
        let (done, result) = oneshot::channel();
        let this = self.clone();
        self.tasks.spawn(Box::pin(async move {
            let _ = done.send(this.replace(wanted.as_ref()).await); // whoever asked has gone
        }));
        let replaced =
            result.await.unwrap_or_else(|_| Err(StoreError::Unknown("this node is ending".into())));
        replaced.map_err(|e| FreezeError { why: e.to_string(), is_refused: e.refusal().is_some() })
    }

    async fn replace(&self, wanted: Option<&Freeze>) -> Result<Option<Freeze>, StoreError> {
        let mut before = None;
        for tried in 0..TRIES_MAX {
            let reply = ask(self.store.as_ref(), transactions::read(&self.keys)).await?;
            let found = transactions::watched_keys(&reply).view(&self.keys).freeze;
            let (freeze, written) = found.map_or((None, Revision(0)), |(freeze, at)| (Some(freeze), at));
            // The answer to an earlier try may have been lost, or have been that of its second copy.
            let is_done = tried > 0 && freeze.as_ref() == wanted;
            if is_done || (freeze.is_none() && wanted.is_none()) {
                return Ok(before);
            }
            before = freeze;
            if ask(self.store.as_ref(), self.write(wanted, written)).await?.succeeded {
                return Ok(before);
            }
        }
        Err(StoreError::Unknown("others freeze and unfreeze the election at the same time".into()))
    }

    fn write(&self, wanted: Option<&Freeze>, expected: Revision) -> Txn {
        match wanted {
            Some(freeze) => transactions::freeze(&self.keys, freeze, expected),
            None => transactions::unfreeze(&self.keys, expected),
        }
    }
}

/// Ends each freeze whose time is over, by the wall clock. Every member does; the first one's write counts.
pub(super) async fn end_when_due(shared: Shared, mut status: watch::Receiver<Arc<Status>>) {
    loop {
        let freeze = status.borrow_and_update().view.freeze.clone();
        let due = freeze.and_then(|(freeze, written)| Some((freeze.until_ms?, written)));
        let is_over = match due {
            None => status.changed().await.is_err(),
            Some((until_ms, written)) => {
                let pause = end_if_over(&shared, until_ms, written).await;
                matches!(tokio::time::timeout(pause, status.changed()).await, Ok(Err(_)))
            }
        };
        if is_over {
            return; // the driver is
        }
    }
}

/// When to look again.
async fn end_if_over(shared: &Shared, until_ms: u64, written: Revision) -> Duration {
    let left = Duration::from_millis(until_ms.saturating_sub(wall_clock_ms()));
    if !left.is_zero() {
        return left.min(LOOK_EVERY);
    }
    if let Err(e) = ask(shared.store.as_ref(), transactions::unfreeze(&shared.keys, written)).await {
        shared.trouble.report("unfreeze", &e);
    }
    LOOK_EVERY
}
