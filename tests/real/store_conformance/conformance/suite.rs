//! What the cases are written in, and the runner that names the store and the case of each failure.
//!
//! A case works below a prefix of its own through two clients of one store: it acts `here` and, unless it says
//! otherwise, looks from `there`, so that every case also proves that the other client sees what was done.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use metad::clock::{Clock, Instant, OsClock};
use metad::election::lease::LeaseId;
use metad::election::record::Revision;
use metad::store::codec::{Keys, WatchedKeys};
use metad::store::{
    Change, Guard, KeyRange, KeyValue, Op, Renewal, Request, Response, Store, StoreError, Txn, TxnReply,
    WatchBatch,
};
use tokio::task::{JoinError, JoinSet};

use crate::support::witness;

/// A lease whose end a case waits for, long enough to be renewed in time on a busy machine. (The shortest that etcd grants
/// with the default election timeout has 2 s.)
pub const SHORT: Duration = Duration::from_secs(5);
/// A lease that does not end while a case runs.
pub const LONG: Duration = Duration::from_secs(120);
/// How long after its time to live a lease may still be there.
pub const GRACE: Duration = Duration::from_secs(2);
/// How often a watch is asked to show a sign of life.
pub const ALIVE_EVERY: Duration = Duration::from_millis(600);
/// How long a case may take.
const CASE_LIMIT: Duration = Duration::from_secs(120);
/// How long a case waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long processes had to wait for a CPU since then: what is as late comes late for the machine, not for the store.
pub fn waited_since(begin: Instant) -> Duration {
    witness::waited(begin.boot_ns(), OsClock.now().boot_ns())
}

/// A stream of changes.
pub type Batches = BoxStream<'static, Result<WatchBatch, StoreError>>;

/// A named promise.
#[derive(Clone, Copy)]
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// Its check.
    pub run: fn(Ctx) -> Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// Where a case runs.
#[derive(Clone)]
pub struct Ctx {
    /// The client that acts.
    pub here: Arc<dyn Store>,
    /// Another client of the same store, which looks.
    pub there: Arc<dyn Store>,
    /// metad's keys, in a cluster of the case's own.
    pub keys: Keys,
}

/// A watch that is read batch by batch.
pub struct Watching {
    batches: Batches,
    /// What it has shown, folded.
    pub picture: WatchedKeys,
    /// All changes, in their order.
    pub changes: Vec<Change>,
}

/// A list of cases out of the names of their functions.
macro_rules! cases {
    ($($case:ident),* $(,)?) => {
        &[$($crate::store_conformance::conformance::suite::Case { name: stringify!($case), run: |ctx| Box::pin($case(ctx)) }),*]
    };
}
pub(crate) use cases;

// === the runner ===

/// Runs cases that need the store to themselves.
pub async fn run_one_by_one(
    backend: &'static str,
    cases: &[Case],
    here: &Arc<dyn Store>,
    there: &Arc<dyn Store>,
) -> Vec<String> {
    let mut failures = Vec::new();
    for case in cases {
        failures.extend(run(backend, *case, here.clone(), there.clone()).await);
    }
    failures
}

/// Runs cases at the same time on one store.
pub async fn run_together(
    backend: &'static str,
    cases: &[Case],
    here: &Arc<dyn Store>,
    there: &Arc<dyn Store>,
) -> Vec<String> {
    let running: JoinSet<_> =
        cases.iter().map(|case| run(backend, *case, here.clone(), there.clone())).collect();
    running.join_all().await.into_iter().flatten().collect()
}

/// Panics with all failures, if there are any.
pub fn report(backend: &str, failures: &[String]) {
    let count = failures.len();
    assert!(failures.is_empty(), "{backend}: {count} cases failed\n{}", failures.join("\n"));
}

async fn run(
    backend: &'static str,
    case: Case,
    here: Arc<dyn Store>,
    there: Arc<dyn Store>,
) -> Option<String> {
    let keys = Keys::new(case.name, "meta");
    let mut task = tokio::spawn((case.run)(Ctx { here, there, keys }));
    let why = match tokio::time::timeout(CASE_LIMIT, &mut task).await {
        Ok(Ok(())) => return None,
        Ok(Err(e)) => words(e),
        Err(_) => {
            task.abort();
            format!("not done within {CASE_LIMIT:?}")
        }
    };
    Some(format!("  {backend} / {}: {why}", case.name))
}

fn words(e: JoinError) -> String {
    let Ok(payload) = e.try_into_panic() else {
        return "cancelled".to_owned();
    };
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => payload.downcast_ref::<&str>().copied().unwrap_or("a panic").to_owned(),
    }
}

// === impl Ctx ===

impl Ctx {
    /// A key of this case.
    pub fn key(&self, name: &str) -> String {
        format!("{}{name}", self.keys.prefix())
    }

    /// All keys of this case.
    pub fn range(&self) -> KeyRange {
        KeyRange::prefix(self.keys.prefix())
    }

    /// Does a transaction, here.
    pub async fn txn(&self, txn: Txn) -> TxnReply {
        txn_at(&*self.here, txn).await
    }

    /// Does a transaction that must be refused, here.
    pub async fn refused(&self, txn: Txn) -> StoreError {
        match self.here.call(Request::Txn(txn)).await {
            Err(e) => e,
            Ok(answer) => panic!("not refused: {answer:?}"),
        }
    }

    /// Writes unconditionally, here; gives the revision.
    pub async fn write(&self, then: Vec<Op>) -> Revision {
        let reply = self.txn(Txn::read(then)).await;
        assert!(reply.succeeded, "no guard, and still refused");
        reply.header.revision
    }

    /// Writes `value` to the case's key `name`, here.
    pub async fn put(&self, name: &str, value: &str, lease: Option<LeaseId>) -> Revision {
        self.write(vec![self.op_put(name, value, lease)]).await
    }

    /// The operation that writes `value` to the case's key `name`.
    pub fn op_put(&self, name: &str, value: &str, lease: Option<LeaseId>) -> Op {
        Op::Put(self.key(name), value.into(), lease)
    }

    /// Deletes the case's key `name`, here.
    pub async fn delete(&self, name: &str) -> Revision {
        self.write(vec![Op::Delete(self.key(name))]).await
    }

    /// Reads the case's key `name`, there.
    pub async fn get(&self, name: &str) -> Option<KeyValue> {
        let reply = txn_at(&*self.there, Txn::read(vec![Op::Get(self.key(name))])).await;
        let [kvs] = &reply.found[..] else { panic!("one get, one list: {reply:?}") };
        assert!(kvs.len() <= 1, "a get finds one key: {kvs:?}");
        kvs.first().cloned()
    }

    /// The names and values of the case's keys that begin with `prefix`, there.
    pub async fn list(&self, prefix: &str) -> Vec<(String, String)> {
        let reply = txn_at(&*self.there, Txn::read(vec![Op::List(self.key(prefix))])).await;
        self.names(&reply.found[0])
    }

    /// Keys without the case's prefix, with their values.
    pub fn names(&self, kvs: &[KeyValue]) -> Vec<(String, String)> {
        let name = |kv: &KeyValue| kv.key.trim_start_matches(self.keys.prefix()).to_owned();
        let value = |kv: &KeyValue| String::from_utf8_lossy(&kv.value).into_owned();
        kvs.iter().map(|kv| (name(kv), value(kv))).collect()
    }

    /// Takes a new lease, here.
    pub async fn grant(&self, ttl: Duration) -> LeaseId {
        let lease = new_lease();
        match self.here.call(Request::Grant { lease, ttl }).await {
            Ok(Response::Granted(_, granted)) => assert_eq!(granted, ttl, "granted as asked"),
            other => panic!("granting a new lease: {other:?}"),
        }
        lease
    }

    /// Ends a lease, here.
    pub async fn revoke(&self, lease: LeaseId) {
        let answer = self.here.call(Request::Revoke(lease)).await;
        assert!(matches!(answer, Ok(Response::Revoked(_))), "revoking: {answer:?}");
    }

    /// Renews a lease, here; the first answer.
    pub async fn renew(&self, lease: LeaseId) -> Renewal {
        renew_at(&*self.here, lease).await
    }

    /// Waits until the case's key `name` is gone, there.
    pub async fn wait_gone(&self, name: &str) {
        let gone = async {
            while self.get(name).await.is_some() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let within = tokio::time::timeout(PATIENCE, gone).await;
        assert!(within.is_ok(), "{name} is still there after {PATIENCE:?}");
    }

    /// Watches the case's keys, there.
    pub async fn watch(&self, after: Revision) -> Watching {
        self.watch_range(self.range(), after).await
    }

    /// Watches a range, there.
    pub async fn watch_range(&self, range: KeyRange, after: Revision) -> Watching {
        let opened = self.there.watch(range, after, ALIVE_EVERY).await;
        Watching {
            batches: opened.unwrap_or_else(|e| panic!("opening a watch after {after}: {e}")),
            picture: WatchedKeys::default(),
            changes: Vec::new(),
        }
    }
}

/// Does a transaction at this store.
pub async fn txn_at(store: &dyn Store, txn: Txn) -> TxnReply {
    match store.call(Request::Txn(txn.clone())).await {
        Ok(Response::Txn(reply)) => reply,
        other => panic!("{other:?} to {txn:?}"),
    }
}

/// The store's revision. With an operation: etcd answers a transaction without any from what the member knows.
pub async fn revision_at(store: &dyn Store) -> Revision {
    let read = Txn::read(vec![Op::Get("/metad/".into())]);
    txn_at(store, read).await.header.revision
}

/// Renews at this store; the first answer.
pub async fn renew_at(store: &dyn Store, lease: LeaseId) -> Renewal {
    let first = tokio::time::timeout(PATIENCE, store.renew(lease).next()).await;
    match first {
        Ok(Some(Ok(renewal))) => renewal,
        other => panic!("renewing: {other:?}"),
    }
}

/// A lease id that nobody has.
pub fn new_lease() -> LeaseId {
    LeaseId((uuid::Uuid::new_v4().as_u64_pair().0 >> 1).cast_signed())
}

/// The guard that a key is absent.
pub fn absent(key: &str) -> Guard {
    Guard::ModRevision(key.to_owned(), Revision(0))
}

// === impl Watching ===

impl Watching {
    /// The next batch.
    pub async fn batch(&mut self) -> WatchBatch {
        let next = tokio::time::timeout(PATIENCE, self.batches.next()).await;
        let batch = match next {
            Ok(Some(Ok(batch))) => batch,
            other => panic!("watching, after {:?}: {other:?}", self.changes),
        };
        self.changes.extend(batch.changes.iter().cloned());
        self.picture.fold(batch.clone());
        batch
    }

    /// Reads on until the change that `last` looks for has come.
    pub async fn until(&mut self, last: impl Fn(&Change) -> bool) {
        let begin = tokio::time::Instant::now();
        while !self.changes.iter().any(&last) {
            assert!(begin.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain after {:?}", self.changes);
            self.batch().await;
        }
    }

    /// Reads on until `key` has been written with this value.
    pub async fn until_put(&mut self, key: &str, value: &str) {
        self.until(|c| matches!(c, Change::Put(kv) if kv.key == key && kv.value == value.as_bytes())).await;
    }

    /// Reads on until `key` has been deleted.
    pub async fn until_deleted(&mut self, key: &str) {
        self.until(|c| matches!(c, Change::Deleted(k) if k == key)).await;
    }
}
