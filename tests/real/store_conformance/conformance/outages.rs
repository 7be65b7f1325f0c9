//! What only one kind of store can be brought to: history that is forgotten, answers that are lost or late.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use metad::clock::{Clock, OsClock};
use metad::election::record::Revision;
use metad::store::etcd::{EtcdOptions, EtcdStore};
use metad::store::sqlite::SqliteStore;
use metad::store::{Change, Guard, KeyRange, Op, Refusal, Request, Response, Store, StoreError, Txn};

use super::suite::{
    ALIVE_EVERY, GRACE, LONG, absent, new_lease, renew_at, revision_at, txn_at, waited_since,
};

/// How long a call to etcd may take where it is to be answered.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a call to etcd may take where it is not.
pub const IN_VAIN: Duration = Duration::from_secs(2);
/// How late a proxy delivers etcd's answers: longer than any hedge waits.
pub const LATE: Duration = Duration::from_millis(700);

/// A client of these etcd members.
pub fn etcd(endpoints: Vec<String>, request_timeout: Duration) -> Arc<dyn Store> {
    let options = EtcdOptions {
        endpoints,
        tls: None,
        login: None,
        connect_timeout: Duration::from_secs(2),
        request_timeout,
        hedge_max: Duration::from_millis(300),
    };
    Arc::new(EtcdStore::new(options, Arc::new(OsClock)).expect("usable endpoints"))
}

/// A client of this SQLite file.
pub async fn sqlite(path: &Path, busy_timeout: Duration) -> Arc<dyn Store> {
    let opened = SqliteStore::open(path, busy_timeout, Arc::new(OsClock)).await;
    Arc::new(opened.unwrap_or_else(|e| panic!("{e}")))
}

/// A guarded write of a new key.
fn put_new(key: &str) -> Txn {
    Txn {
        guards: vec![absent(key)],
        then: vec![Op::Put(key.to_owned(), b"v".to_vec(), None)],
        otherwise: vec![],
    }
}

async fn is_there(store: &dyn Store, key: &str) -> bool {
    !txn_at(store, Txn::read(vec![Op::Get(key.to_owned())])).await.found[0].is_empty()
}

// === history that is forgotten ===

/// How a watch after `after` begins: with which refusal, or up to which revision.
async fn begin_of_watch(store: &dyn Store, after: Revision) -> Result<Revision, Option<Refusal>> {
    let range = KeyRange::prefix("/metad/");
    let mut batches = match store.watch(range, after, ALIVE_EVERY).await {
        Ok(batches) => batches,
        Err(e) => return Err(e.refusal()),
    };
    let mut seen = after;
    // etcd first says that the watch exists, and only then that its past is gone.
    for _ in 0..3 {
        match tokio::time::timeout(Duration::from_secs(60), batches.next()).await {
            Ok(Some(Ok(batch))) => seen = seen.max(batch.revision),
            Ok(Some(Err(e))) if seen == after => return Err(e.refusal()),
            other => panic!("a watch after {after}, complete up to {seen}: {other:?}"),
        }
    }
    Ok(seen)
}

/// A watch from the past is refused, and one from the present is not.
pub async fn assert_compacted(backend: &str, store: &dyn Store, past: Revision) {
    let compacted = begin_of_watch(store, past).await;
    assert_eq!(compacted, Err(Some(Refusal::Compacted)), "{backend}: a watch after {past}");
    let now = revision_at(store).await;
    let good = begin_of_watch(store, now).await;
    assert!(good.is_ok_and(|at| at >= now), "{backend}: a watch after {now}: {good:?}");
}

/// Writes and deletes a key `rounds` times; gives the revision before.
pub async fn churn(store: &dyn Store, rounds: usize) -> Revision {
    let key = || "/metad/churn/k".to_owned();
    let before = txn_at(store, Txn::read(vec![Op::Put(key(), vec![], None)])).await;
    for _ in 0..rounds {
        txn_at(store, Txn::read(vec![Op::Delete(key())])).await;
        txn_at(store, Txn::read(vec![Op::Put(key(), vec![], None)])).await;
    }
    before.header.revision
}

/// Nothing is refused while all of it is remembered.
pub async fn assert_remembered(backend: &str, store: &dyn Store, past: Revision) {
    let seen = begin_of_watch(store, past).await;
    assert!(seen.is_ok(), "{backend}: a watch after {past}: {seen:?}");
}

// === a store that nobody else uses ===

/// Ends between two of the looks that SQLite's watch takes every second.
const UNEVEN: Duration = Duration::from_millis(2300);

/// The end of a lease is told, with this delay at most, although nobody but the watch looks at the store.
pub async fn an_idle_store_tells_of_an_expired_lease(backend: &str, store: &dyn Store, late: Duration) {
    let (lease, key) = (new_lease(), "/metad/idle/k".to_owned());
    let granted = store.call(Request::Grant { lease, ttl: UNEVEN }).await;
    assert!(granted.is_ok(), "{backend}: {granted:?}");
    let asked = OsClock.now();
    let put = txn_at(store, Txn::read(vec![Op::Put(key.clone(), vec![], Some(lease))])).await;
    let watch = store.watch(KeyRange::prefix("/metad/idle/"), put.header.revision, ALIVE_EVERY);
    let mut batches = watch.await.unwrap_or_else(|e| panic!("{backend}: {e}"));
    let told = loop {
        let batch = tokio::time::timeout(Duration::from_secs(60), batches.next()).await;
        let Ok(Some(Ok(batch))) = batch else { panic!("{backend}: {batch:?}") };
        let told = OsClock.now().since(asked);
        if batch.changes == [Change::Deleted(key.clone())] {
            break told;
        }
        assert_eq!(batch.changes, [], "{backend}");
        assert!(
            told < UNEVEN + GRACE + waited_since(asked),
            "{backend}: the end of {lease} is not told after {told:?}"
        );
    };
    assert!(
        told <= UNEVEN + late + waited_since(asked),
        "{backend}: granted for {UNEVEN:?}, its end told after {told:?}"
    );
}

// === which store it is ===

/// Two stores that have nothing in common say so.
pub async fn assert_different(backend: &str, one: &dyn Store, two: &dyn Store) {
    let cluster =
        async |store| txn_at(store, Txn::read(vec![Op::Get("/metad/".into())])).await.header.cluster;
    let (one, two) = (cluster(one).await, cluster(two).await);
    assert_ne!(one, two, "{backend}: a store made anew has another identity");
}

// === SQLite, locked by another process ===

/// A verb that does not get the lock in time did not happen, and says so.
pub async fn a_locked_file_refuses_and_nothing_happens(path: &Path) {
    let store = sqlite(path, Duration::from_millis(300)).await;
    let mut other = rusqlite::Connection::open(path).expect("the file is there");
    let lock = other.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate);
    let lock = lock.expect("the lock is free");
    let key = "/metad/locked/k";
    let refused = store.call(Request::Txn(put_new(key))).await;
    let refusal = refused.as_ref().err().and_then(StoreError::refusal);
    assert_eq!(refusal, Some(Refusal::NotSent), "sqlite, locked: {refused:?}");
    drop(lock);
    assert!(!is_there(&*store, key).await, "sqlite, locked: the write was refused");
    let reply = txn_at(&*store, put_new(key)).await;
    assert!(reply.succeeded, "sqlite, unlocked again: {reply:?}");
}

/// A renewal that has to wait for the lock counts from before it waited.
pub async fn a_renewal_that_waits_for_the_lock_has_an_early_stamp(path: &Path) {
    let store = sqlite(path, Duration::from_secs(10)).await;
    let lease = new_lease();
    let granted = store.call(Request::Grant { lease, ttl: LONG }).await;
    assert!(granted.is_ok(), "{granted:?}");
    let path = path.to_owned();
    let (locked, is_locked) = tokio::sync::oneshot::channel();
    let holder = tokio::task::spawn_blocking(move || {
        let mut other = rusqlite::Connection::open(path).expect("the file is there");
        let lock = other.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate);
        let _lock = lock.expect("the lock is free");
        let _ = locked.send(());
        std::thread::sleep(LATE);
    });
    is_locked.await.expect("locked");
    assert_stamp_is_early("sqlite", &*store, lease).await;
    holder.await.expect("the holder does not panic");
}

async fn assert_stamp_is_early(backend: &str, store: &dyn Store, lease: metad::election::lease::LeaseId) {
    let asked = OsClock.now();
    let renewal = renew_at(store, lease).await;
    let (stamped, took) = (renewal.stamp.since(asked), OsClock.now().since(asked));
    assert!(took >= LATE / 2, "{backend}: this renewal was to be slow: {took:?}");
    assert!(stamped < took / 2, "{backend}: asked, stamped {stamped:?} later, answered {took:?} later");
    assert_eq!(renewal.ttl, Some(LONG), "{backend}");
}

// === etcd, behind a proxy ===

/// A renewal whose answer is late counts from before it left.
pub async fn a_renewal_that_is_answered_late_has_an_early_stamp(slow: &dyn Store) {
    let lease = new_lease();
    let granted = slow.call(Request::Grant { lease, ttl: LONG }).await;
    assert!(granted.is_ok(), "{granted:?}");
    assert_stamp_is_early("etcd", slow, lease).await;
}

/// A write without an answer ends in time, as unknown; whether it happened is another matter.
pub async fn assert_write_unknown(what: &str, store: &dyn Store, key: &str) {
    assert_unknown(what, store, put_new(key)).await;
}

/// A member without a quorum answers no read and decides no guard: it may be behind. All at once, because after a
/// while it knows that it has none.
pub async fn without_a_quorum_nothing_is_known(store: &dyn Store) {
    let guarded = |otherwise| Txn { guards: vec![absent("/metad/k")], otherwise, ..Txn::default() };
    let get = || vec![Op::Get("/metad/k".into())];
    tokio::join!(
        assert_unknown("etcd without a quorum, a read", store, Txn::read(get())),
        assert_unknown("etcd without a quorum, a guarded read", store, guarded(get())),
        assert_unknown("etcd without a quorum, guards alone", store, guarded(vec![])),
    );
}

async fn assert_unknown(what: &str, store: &dyn Store, txn: Txn) {
    let asked = OsClock.now();
    let answer = store.call(Request::Txn(txn)).await;
    let took = OsClock.now().since(asked);
    assert!(matches!(answer, Err(StoreError::Unknown(_))), "{what}: {answer:?}");
    let limit = IN_VAIN + Duration::from_secs(1) + waited_since(asked);
    assert!(took < limit, "{what}: answered after {took:?}");
}

/// An answer that was lost on its way leaves a write that happened.
pub async fn a_write_whose_answer_is_lost_happened(deaf: &dyn Store, good: &dyn Store) {
    let key = "/metad/deaf/k";
    assert_write_unknown("etcd, answers lost", deaf, key).await;
    assert!(is_there(good, key).await, "etcd: the request arrived, so it happened");
}

/// Where nobody listens, a request certainly did not leave.
pub async fn a_request_to_a_closed_port_is_refused_as_not_sent(port: String) {
    let store = etcd(vec![port], REQUEST_TIMEOUT);
    let answer = store.call(Request::Txn(put_new("/metad/closed/k"))).await;
    let refusal = answer.as_ref().err().and_then(StoreError::refusal);
    assert_eq!(refusal, Some(Refusal::NotSent), "etcd, a closed port: {answer:?}");
}

/// Makes the connection, so that a fault afterwards finds one.
pub async fn assert_connected(store: &dyn Store) {
    revision_at(store).await;
}

/// What etcd will never accept is refused as too large, and not repeated for ever.
pub async fn a_request_beyond_the_limits_is_refused(store: &dyn Store) {
    let put = |i, size| Op::Put(format!("/metad/large/{i}"), vec![b'x'; size], None);
    let many = (0..200).map(|i| put(i, 1)).collect();
    for (what, ops) in
        [("200 operations", many), ("1.8 MB", vec![put(0, 1_800_000)]), ("4 MB", vec![put(0, 4_000_000)])]
    {
        let answer = store.call(Request::Txn(Txn::read(ops))).await;
        let refusal = answer.as_ref().err().and_then(StoreError::refusal);
        assert_eq!(refusal, Some(Refusal::TooLarge), "etcd, {what}: {answer:?}");
    }
    let read = txn_at(store, Txn::read(vec![Op::List("/metad/large/".into())])).await;
    assert!(read.found[0].is_empty(), "etcd: refused, and still written");
}

/// A request that is hedged may arrive twice, and what the second copy finds must not be taken for the outcome.
/// `slow` answers late at the first of its members, so every request is hedged.
pub async fn a_hedged_grant_is_never_refused_for_its_own_copy(slow: &dyn Store) {
    let lease = new_lease();
    let answer = slow.call(Request::Grant { lease, ttl: LONG }).await;
    let refusal = answer.as_ref().err().and_then(StoreError::refusal);
    assert_eq!(
        refusal, None,
        "etcd, hedged: refused means that it did not happen, but {lease} is ours: {answer:?}"
    );
}

/// The same for a guarded write that nobody else competes for: it happens once, and repeating it is harmless.
pub async fn a_hedged_write_happens_once(slow: &dyn Store, good: &dyn Store, key: &str) {
    let answer = slow.call(Request::Txn(put_new(key))).await;
    assert!(matches!(answer, Ok(Response::Txn(_))), "etcd, hedged: {answer:?}");
    tokio::time::sleep(LATE).await; // until both copies have certainly arrived
    let reply = txn_at(good, Txn::read(vec![Op::Get(key.to_owned())])).await;
    let kv = &reply.found[0][0];
    assert_eq!(kv.created, kv.modified, "etcd, hedged: written twice");
    let again =
        txn_at(good, Txn { guards: vec![Guard::ModRevision(key.to_owned(), kv.modified)], ..Txn::default() });
    assert!(again.await.succeeded);
}
