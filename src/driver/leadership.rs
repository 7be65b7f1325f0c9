//! Leadership: the value that a main loop must hold, and the only way to write under `state/`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::clock::Clock;
use crate::election::event::Event;
use crate::election::history::Reason;
use crate::election::record::{Revision, Token};
use crate::guardian::horizon::Horizon;
use crate::store::codec::Keys;
use crate::store::{Guard, Op, Request, Response, Store, StoreError, verbs};

/// How soon a write whose outcome is unknown is repeated.
const SETTLE_PAUSE: Duration = Duration::from_millis(100);

/// The right to act as leader, for as long as [`Leadership::check`] says so. Clones share it.
///
/// It is not a promise about the next moment: a process can be paused between a check and what it allows. What
/// must never happen twice has to be written through [`Leadership::put`], which the store itself refuses once
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
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    horizon: Arc<Horizon>,
    heartbeats: Arc<AtomicU64>,
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
    /// The key is not at the expected revision.
    #[error("{key} is not at revision {expected} (0: absent)")]
    Conflict {
        /// The key.
        key: String,
        /// What was expected.
        expected: Revision,
    },
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
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) horizon: Arc<Horizon>,
    pub(super) heartbeats: Arc<AtomicU64>,
    pub(super) reports: mpsc::Sender<Event>,
}

// === impl Leadership ===

impl Leadership {
    pub(super) fn new(parts: LeadershipParts, orders: watch::Receiver<Orders>) -> Self {
        let LeadershipParts { token, node, cluster, keys, store, clock, horizon, heartbeats, reports } =
            parts;
        let inner = Inner { token, node, cluster, keys, store, clock, horizon, heartbeats, reports };
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

    /// A sign of life. From the first one on, a main loop that gives none for `main_loop_timeout_secs` counts as
    /// hung: it is ended, the record is given up, and the process exits with code 75. Costs one atomic addition.
    pub fn heartbeat(&self) {
        self.inner.heartbeats.fetch_add(1, Ordering::Relaxed);
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

    /// Reads a key under `state/`.
    ///
    /// # Errors
    /// The store's.
    pub async fn get(&self, name: &str) -> Result<Option<(Vec<u8>, Revision)>, WriteError> {
        let key = self.inner.keys.state(name);
        let answer = self.inner.store.call(Request::Txn(crate::store::Txn::read(vec![Op::Get(key)]))).await?;
        let Response::Txn(reply) = answer else { return Ok(None) };
        Ok(reply.found.into_iter().flatten().next().map(|kv| (kv.value, kv.modified)))
    }

    /// Writes a key under `state/`, if we still lead and the key is still at `expected` (0: absent). Returns
    /// the key's new revision.
    ///
    /// A write whose outcome is unknown is repeated under the same guards until it is known, or until
    /// leadership is over. The value must differ from write to write (carry a number): that is how a write
    /// that had happened is recognised.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn put(&self, name: &str, value: Vec<u8>, expected: Revision) -> Result<Revision, WriteError> {
        let key = self.inner.keys.state(name);
        loop {
            self.check()?;
            match self.write_once(&key, &value, expected).await {
                Err(WriteError::Store(
                    StoreError::Unknown(_) | StoreError::Refused(crate::store::Refusal::NotSent, _),
                )) => {
                    tokio::time::sleep(SETTLE_PAUSE).await;
                }
                // A copy of this very write may have been the one that moved the key on: an earlier try, or the one
                // that the store's client sent to a second member.
                Err(WriteError::Conflict { .. }) => match self.get(name).await? {
                    Some((stored, revision)) if stored == value => return Ok(revision),
                    _ => return Err(WriteError::Conflict { key, expected }),
                },
                decided => return decided,
            }
        }
    }

    /// The one function that writes under `state/`.
    async fn write_once(&self, key: &str, value: &[u8], expected: Revision) -> Result<Revision, WriteError> {
        let guards = vec![Guard::ModRevision(key.to_owned(), expected)];
        let then = vec![Op::Put(key.to_owned(), value.to_vec(), None)];
        let txn = verbs::fenced(&self.inner.keys, self.inner.token, guards, then);
        let answer = self.inner.store.call(Request::Txn(txn)).await?;
        let Response::Txn(reply) = answer else {
            return Err(WriteError::Store(StoreError::Unknown("an answer that does not fit".into())));
        };
        if reply.succeeded {
            return Ok(reply.header.revision);
        }
        if verbs::refused_by_fence(&reply, self.inner.token) {
            let _ = self.inner.reports.try_send(Event::Fenced(self.inner.token)); // the watch says so as well
            return Err(WriteError::Fenced(self.inner.token));
        }
        Err(WriteError::Conflict { key: key.to_owned(), expected })
    }
}
