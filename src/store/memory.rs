//! A store in memory, on whatever clock it is given: for the simulation and the tests.
//!
//! [`MemoryState`] is the synchronous core; the simulation and the model checker drive it directly.
//! [`MemoryStore`] is the same behind the contract of [`super::Store`]. Leases end at the very instant they
//! may, which is the worst case for those who rely on them; etcd takes up to 0.5 s longer.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::sync::watch;

use super::{
    Change, Guard, Header, KeyRange, KeyValue, Op, Refusal, Renewal, Request, Response, Store, StoreError,
    Txn, TxnReply, WatchBatch,
};
use crate::clock::{Clock, Instant};
use crate::election::lease::LeaseId;
use crate::election::record::Revision;

/// How many changes are remembered for watches that start in the past.
const LOG_MAX: usize = 4096;

/// The content of a store.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct MemoryState {
    revision: Revision,
    raft_term: u64,
    keys: BTreeMap<String, KeyValue>,
    leases: BTreeMap<LeaseId, LeaseRow>,
    log: VecDeque<(Revision, Change)>,
    compacted: Revision,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct LeaseRow {
    ttl: Duration,
    ends_at: Instant,
}

/// [`MemoryState`] behind the contract.
#[derive(Clone)]
pub struct MemoryStore {
    inner: Arc<Inner>,
}

struct Inner {
    clock: Arc<dyn Clock>,
    state: Mutex<MemoryState>,
    changed: watch::Sender<Revision>,
}

// === impl MemoryState ===

impl MemoryState {
    /// Answers one request at the store's own time `now`.
    ///
    /// # Errors
    /// Refusals only: a store in memory always knows what it did.
    pub fn apply(&mut self, now: Instant, request: &Request) -> Result<Response, StoreError> {
        self.expire(now);
        match request {
            Request::Grant { lease, ttl } => self.grant(now, *lease, *ttl),
            Request::Renew(lease) => {
                let ttl = self.leases.get_mut(lease).map(|row| {
                    row.ends_at = now + row.ttl;
                    row.ttl
                });
                Ok(Response::Renewed(self.header(), ttl))
            }
            Request::Revoke(lease) => {
                self.end_lease(*lease);
                Ok(Response::Revoked(self.header()))
            }
            Request::Txn(txn) => self.txn(txn).map(Response::Txn),
        }
    }

    /// Ends the leases whose time is over.
    pub fn expire(&mut self, now: Instant) {
        while let Some(lease) = self.leases.iter().find(|(_, r)| now.reached(r.ends_at)).map(|(id, _)| *id) {
            self.end_lease(lease);
        }
    }

    /// The leases there are, and when they end; for invariants.
    pub fn leases(&self) -> impl Iterator<Item = (LeaseId, Instant)> {
        self.leases.iter().map(|(id, row)| (*id, row.ends_at))
    }

    /// The value of a key; for invariants.
    pub fn get(&self, key: &str) -> Option<&KeyValue> {
        self.keys.get(key)
    }

    /// As after a change of etcd's leader: a new term, and every lease begins anew.
    pub fn change_raft_leader(&mut self, now: Instant) {
        self.raft_term += 1;
        for row in self.leases.values_mut() {
            row.ends_at = row.ends_at.later(now + row.ttl);
        }
    }

    /// The revision of its last change.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Forgets how it got where it is: no watch can begin in the past any more.
    pub fn compact(&mut self) {
        self.log.clear();
        self.compacted = self.revision;
    }

    /// The changes in `range` after `after`, and up to where they are complete.
    ///
    /// # Errors
    /// [`Refusal::Compacted`].
    pub fn changes(&self, range: &KeyRange, after: Revision) -> Result<WatchBatch, StoreError> {
        let is_gone = self.log.len() == LOG_MAX && self.log.front().is_some_and(|(r, _)| *r > after);
        if is_gone || after < self.compacted {
            return Err(StoreError::Refused(Refusal::Compacted, format!("changes after {after} are gone")));
        }
        let in_range = |c: &Change| match c {
            Change::Put(kv) => range.contains(&kv.key),
            Change::Deleted(key) => range.contains(key),
        };
        let first = self.log.partition_point(|(r, _)| *r <= after);
        let changes = self.log.range(first..).filter(|(_, c)| in_range(c)).map(|(_, c)| c.clone()).collect();
        Ok(WatchBatch { revision: self.revision, changes })
    }

    fn header(&self) -> Header {
        Header { cluster: 1, revision: self.revision, raft_term: self.raft_term }
    }

    fn grant(&mut self, now: Instant, lease: LeaseId, ttl: Duration) -> Result<Response, StoreError> {
        if self.leases.contains_key(&lease) {
            return Err(StoreError::Refused(Refusal::LeaseExists, format!("lease {lease} exists")));
        }
        self.leases.insert(lease, LeaseRow { ttl, ends_at: now + ttl });
        Ok(Response::Granted(self.header(), ttl))
    }

    fn end_lease(&mut self, lease: LeaseId) {
        if self.leases.remove(&lease).is_none() {
            return;
        }
        let gone: Vec<String> =
            self.keys.values().filter(|kv| kv.lease == Some(lease)).map(|kv| kv.key.clone()).collect();
        if !gone.is_empty() {
            self.revision.0 += 1;
        }
        for key in gone {
            self.delete(&key);
        }
    }

    fn txn(&mut self, txn: &Txn) -> Result<TxnReply, StoreError> {
        if let Some(key) = txn.key_written_twice() {
            return Err(StoreError::twice(key));
        }
        let succeeded = txn.guards.iter().all(|g| self.holds(g));
        let ops = if succeeded { &txn.then } else { &txn.otherwise };
        for op in ops {
            if let Op::Put(_, _, Some(lease)) = op
                && !self.leases.contains_key(lease)
            {
                return Err(StoreError::Refused(Refusal::LeaseNotFound, format!("no lease {lease}")));
            }
        }
        let writes = ops.iter().any(|op| match op {
            Op::Put(..) => true,
            Op::Delete(key) => self.keys.contains_key(key),
            Op::Get(_) | Op::List(_) | Op::Page { .. } => false,
        });
        if writes {
            self.revision.0 += 1;
        }
        let found = ops.iter().filter_map(|op| self.act(op)).collect();
        Ok(TxnReply { header: self.header(), succeeded, found })
    }

    fn holds(&self, guard: &Guard) -> bool {
        match guard {
            Guard::ModRevision(key, is) => self.keys.get(key).map_or(Revision(0), |kv| kv.modified) == *is,
            Guard::PrefixEmpty(prefix) => !self.keys.keys().any(|k| k.starts_with(prefix.as_str())),
        }
    }

    fn act(&mut self, op: &Op) -> Option<Vec<KeyValue>> {
        match op {
            Op::Put(key, value, lease) => {
                let created = self.keys.get(key).map_or(self.revision, |kv| kv.created);
                let kv = KeyValue {
                    key: key.clone(),
                    value: value.clone(),
                    created,
                    modified: self.revision,
                    lease: *lease,
                };
                self.keys.insert(key.clone(), kv.clone());
                self.remember(Change::Put(kv));
                None
            }
            Op::Delete(key) => {
                if self.keys.contains_key(key) {
                    self.delete(key);
                }
                None
            }
            Op::Get(key) => Some(self.keys.get(key).cloned().into_iter().collect()),
            Op::List(prefix) => {
                Some(self.keys.values().filter(|kv| kv.key.starts_with(prefix.as_str())).cloned().collect())
            }
            Op::Page { prefix, after, limit } => {
                let range = KeyRange::page(prefix, after);
                Some(self.keys.values().filter(|kv| range.contains(&kv.key)).take(*limit).cloned().collect())
            }
        }
    }

    fn delete(&mut self, key: &str) {
        self.keys.remove(key);
        self.remember(Change::Deleted(key.to_owned()));
    }

    fn remember(&mut self, change: Change) {
        if self.log.len() == LOG_MAX {
            self.log.pop_front();
        }
        self.log.push_back((self.revision, change));
    }
}

// === impl MemoryStore ===

impl MemoryStore {
    /// An empty store on this clock.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let changed = watch::Sender::new(Revision(0));
        Self { inner: Arc::new(Inner { clock, state: Mutex::default(), changed }) }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, MemoryState> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn apply(&self, request: &Request) -> Result<Response, StoreError> {
        let mut state = self.state();
        let answer = state.apply(self.clock.now(), request);
        self.changed.send_replace(state.revision);
        answer
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn call(&self, request: Request) -> Result<Response, StoreError> {
        self.inner.apply(&request)
    }

    fn renew(&self, lease: LeaseId) -> BoxStream<'static, Result<Renewal, StoreError>> {
        let inner = self.inner.clone();
        stream::once(async move {
            let stamp = inner.clock.now();
            let answer = inner.apply(&Request::Renew(lease))?;
            let ttl = match answer {
                Response::Renewed(_, ttl) => ttl,
                _ => None,
            };
            Ok(Renewal { stamp, header: answer.header(), ttl })
        })
        .boxed()
    }

    async fn watch(
        &self,
        range: KeyRange,
        after: Revision,
        alive_every: Duration,
    ) -> Result<BoxStream<'static, Result<WatchBatch, StoreError>>, StoreError> {
        let changed = self.inner.changed.subscribe(); // first: no change may fall between
        let first = self.inner.state().changes(&range, after)?;
        let rest = stream::unfold(
            (self.inner.clone(), changed, first.revision),
            move |(inner, mut changed, seen)| {
                let range = range.clone();
                async move {
                    // A timeout is a sign of life: the batch is then empty. Leases end only when somebody looks.
                    let _ = tokio::time::timeout(alive_every, changed.changed()).await;
                    inner.state().expire(inner.clock.now());
                    let batch = inner.state().changes(&range, seen);
                    let seen = batch.as_ref().map_or(seen, |b| b.revision);
                    Some((batch, (inner, changed, seen)))
                }
            },
        );
        Ok(stream::once(async move { Ok(first) }).chain(rest).boxed())
    }

    fn location(&self) -> String {
        "memory".to_owned()
    }
}
