//! Every store keeps the contract of `src/store.rs`: one suite, and a few lines for each store.
//!
//! A failure names the store and the case. etcd is the one that `tests/support` finds, with one member and with
//! three; each runs the suite through two clients that know one member each, since a client that knows several
//! may send a request twice, and the suite counts revisions. What several members add has cases of its own.

mod conformance;

use std::sync::Arc;
use std::time::Duration;

use crate::support::etcd::EtcdCluster;
use crate::support::ports::Port;
use crate::support::proxy::FaultProxy;
use conformance::outages::{self, IN_VAIN, LATE, REQUEST_TIMEOUT, etcd, sqlite};
use conformance::suite::ALIVE_EVERY;
use conformance::{claims, conformance};
use metad::clock::OsClock;
use metad::store::Store;
use metad::store::memory::MemoryStore;
use metad::store::unreliable::{Faults, Unreliable};

/// How long SQLite waits for its lock, with all the suite's cases at it.
const BUSY_TIMEOUT: Duration = Duration::from_secs(20);
/// A watch of the memory store remembers fewer changes than this.
const MEMORY_FORGETS: usize = 4096;
/// A watch of SQLite remembers the deletions of fewer revisions than this.
const SQLITE_FORGETS: usize = 10_000;

fn memory() -> MemoryStore {
    MemoryStore::new(Arc::new(OsClock))
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_keeps_the_contract_also_when_it_is_slow() {
    let store = memory();
    let quick = conformance("memory", Arc::new(store.clone()), Arc::new(store));
    let faults = Faults { slow: 30, slow_by: Duration::from_millis(15), ..Faults::default() };
    let store = memory();
    let [here, there] = [1, 2].map(|seed| Arc::new(Unreliable::new(store.clone(), faults, seed)));
    let slow = conformance("memory, slow", here, there);
    tokio::join!(quick, slow);
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_keeps_the_contract() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("metad.db");
    let (here, there) = (sqlite(&path, BUSY_TIMEOUT).await, sqlite(&path, BUSY_TIMEOUT).await);
    conformance("sqlite", here, there).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_with_one_member_keeps_the_contract() {
    let cluster = EtcdCluster::start(1);
    let client = || etcd(cluster.endpoints(), REQUEST_TIMEOUT);
    conformance("etcd 1", client(), client()).await;
    compaction("etcd 1", &cluster, &*client()).await;
    outages::a_request_beyond_the_limits_is_refused(&*client()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_with_three_members_keeps_the_contract() {
    let cluster = EtcdCluster::start(3);
    let client = |i| etcd(vec![cluster.endpoint(i)], REQUEST_TIMEOUT);
    conformance("etcd 3", client(0), client(1)).await;
    compaction("etcd 3", &cluster, &*client(2)).await;
    let alone = etcd(vec![cluster.endpoint(0)], IN_VAIN);
    outages::assert_connected(&*alone).await;
    cluster.pause(1);
    cluster.pause(2);
    outages::without_a_quorum_nothing_is_known(&*alone).await;
    cluster.resume_all();
}

async fn compaction(backend: &str, cluster: &EtcdCluster, store: &dyn Store) {
    let past = outages::churn(store, 5).await;
    outages::assert_remembered(backend, store, past).await;
    let at = past.0 + 8;
    cluster.etcdctl_ok(&["compact", &at.to_string()]);
    outages::assert_compacted(backend, store, past).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_says_so_when_it_has_forgotten() {
    let store = memory();
    let past = outages::churn(&store, 100).await;
    outages::assert_remembered("memory", &store, past).await;
    outages::churn(&store, MEMORY_FORGETS / 2).await;
    outages::assert_compacted("memory", &store, past).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_says_so_when_it_has_forgotten() {
    // Ten thousand commits, each of which waits for its disk: in memory, if there is such a place.
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let dir = dir.expect("a temporary directory");
    let path = dir.path().join("metad.db");
    let store = sqlite(&path, BUSY_TIMEOUT).await;
    let past = outages::churn(&*store, 100).await;
    outages::assert_remembered("sqlite", &*store, past).await;
    outages::churn(&*store, SQLITE_FORGETS / 2).await;
    outages::assert_compacted("sqlite", &*store, past).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_store_tells_of_an_expired_lease() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (memory, sqlite) = (memory(), sqlite(&dir.path().join("metad.db"), BUSY_TIMEOUT).await);
    tokio::join!(
        outages::an_idle_store_tells_of_an_expired_lease("memory", &memory, ALIVE_EVERY * 3 / 2),
        outages::an_idle_store_tells_of_an_expired_lease("sqlite", &*sqlite, Duration::from_millis(600)),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_behind_a_lock_refuses_or_waits() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("metad.db");
    outages::a_locked_file_refuses_and_nothing_happens(&path).await;
    outages::a_renewal_that_waits_for_the_lock_has_an_early_stamp(&path).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_made_anew_is_another_store() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (one, two) = (dir.path().join("1.db"), dir.path().join("2.db"));
    let (one, two) = (sqlite(&one, BUSY_TIMEOUT).await, sqlite(&two, BUSY_TIMEOUT).await);
    outages::assert_different("sqlite", &*one, &*two).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_behind_a_bad_network_tells_refused_from_unknown() {
    let cluster = EtcdCluster::start(1);
    let good = etcd(cluster.endpoints(), REQUEST_TIMEOUT);
    let proxy = FaultProxy::start(cluster.addr(0));
    let proxied = |timeout| etcd(vec![proxy.addr().to_string()], timeout);
    outages::a_request_to_a_closed_port_is_refused_as_not_sent(Port::reserve().addr().to_string()).await;

    proxy.delay_replies(LATE);
    outages::a_renewal_that_is_answered_late_has_an_early_stamp(&*proxied(REQUEST_TIMEOUT)).await;
    proxy.pass();

    let deaf = proxied(IN_VAIN);
    outages::assert_connected(&*deaf).await;
    proxy.drop_replies();
    outages::a_write_whose_answer_is_lost_happened(&*deaf, &*good).await;
    proxy.pass();

    cluster.pause(0);
    outages::assert_write_unknown("etcd, paused", &*etcd(cluster.endpoints(), IN_VAIN), "/metad/paused/k")
        .await;
    cluster.resume(0);
}

/// Every request of these clients goes to a member that answers late, and then, hedged, to one that is quick.
#[tokio::test(flavor = "multi_thread")]
async fn etcd_asked_twice_does_it_once() {
    let cluster = EtcdCluster::start(1);
    let good = etcd(cluster.endpoints(), REQUEST_TIMEOUT);
    let proxy = FaultProxy::start(cluster.addr(0));
    proxy.delay_replies(LATE);
    let slow = || etcd(vec![proxy.addr().to_string(), cluster.endpoint(0)], REQUEST_TIMEOUT);
    for round in 0..3 {
        let key = format!("/metad/hedged/{round}");
        outages::a_hedged_write_happens_once(&*slow(), &*good, &key).await;
        claims::a_hedged_claim_is_won(&*slow(), good.clone(), &format!("hedged-{round}")).await;
    }
    outages::a_hedged_grant_is_never_refused_for_its_own_copy(&*slow()).await;
}
