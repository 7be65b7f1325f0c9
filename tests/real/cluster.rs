//! What a leader does for its cluster, over gRPC, on real processes and a real etcd: state, workers, barriers.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::crew::{PATIENCE, tenures};
use crate::support::etcd::EtcdCluster;
use crate::support::fenced;
use crate::support::node::{Node, NodeBuilder, Signal};
use metad::proto::metad::barrier_event::Event;
use metad::proto::metad::barrier_service_client::BarrierServiceClient;
use metad::proto::metad::cluster_service_client::ClusterServiceClient;
use metad::proto::metad::state_service_client::StateServiceClient;
use metad::proto::metad::{
    BarrierCollected, Change, DeleteRequest, DeregisterRequest, Expectation, GetRequest, HeartbeatRequest,
    ListRequest, Put, PutRequest, RangeRequest, RegisterRequest, StateWatchRequest, TxnRequest, WatchRequest,
    change, state_change, worker_change::Kind,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// A leader and a follower of it.
fn pair(etcd: &EtcdCluster, set: impl Fn(NodeBuilder) -> NodeBuilder) -> Vec<Node> {
    let node = |id: &str| set(NodeBuilder::new(id).etcd(etcd).lease_secs(60)).spawn();
    let first = node("a");
    first.wait_for("main_loop_started", PATIENCE);
    let second = node("b");
    second.wait_for("leader_changed", PATIENCE);
    vec![first, second]
}

/// Runs a test's calls; the nodes are driven by the test's own thread.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(PATIENCE * 2, future).await.expect("in time") })
}

async fn channel(node: &Node) -> Channel {
    let url = format!("http://{}", node.rpc_addr());
    Channel::from_shared(url).expect("an address").connect().await.expect("it listens")
}

async fn state(node: &Node) -> StateServiceClient<Channel> {
    StateServiceClient::new(channel(node).await)
}

async fn cluster(node: &Node) -> ClusterServiceClient<Channel> {
    ClusterServiceClient::new(channel(node).await)
}

fn put(key: &str, value: &[u8], expected_revision: Option<u64>) -> PutRequest {
    PutRequest { key: key.into(), value: value.into(), expected_revision }
}

fn worker(port: u32) -> RegisterRequest {
    let labels = [("zone".to_owned(), "a".to_owned())].into_iter().collect();
    RegisterRequest { host: "10.0.0.1".into(), port, kind: "compute".into(), labels }
}

/// The main loop of a leader that has just started may not answer yet.
async fn register(client: &mut ClusterServiceClient<Channel>, request: RegisterRequest) -> u64 {
    loop {
        match client.register(request.clone()).await {
            Ok(answer) => return answer.into_inner().worker_id,
            Err(s) if s.code() == Code::Unavailable => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(s) => panic!("{s:?}"),
        }
    }
}

fn assert_refused(result: Result<impl std::fmt::Debug, Status>, code: Code, part: &str) {
    let status = result.expect_err(part);
    assert_eq!(status.code(), code, "{status:?}");
    assert!(status.message().contains(part), "{part:?} is missing in {status:?}");
}

#[test]
fn state_is_written_under_conditions_and_read_back() {
    let etcd = EtcdCluster::start(1);
    let nodes = pair(&etcd, |b| b);
    block_on(async {
        let mut client = state(&nodes[0]).await;
        let first = client.put(put("k/1", b"one", Some(0))).await.expect("absent").into_inner().mod_revision;
        assert_refused(
            client.put(put("k/1", b"two", Some(0))).await,
            Code::Aborted,
            &format!("at revision {first}"),
        );
        let second =
            client.put(put("k/1", b"two", Some(first))).await.expect("as expected").into_inner().mod_revision;
        assert!(second > first);
        client.put(put("k/2", b"x", None)).await.expect("in any case");
        let got = client
            .get(GetRequest { key: "k/1".into() })
            .await
            .expect("there")
            .into_inner()
            .entry
            .expect("one");
        assert_eq!((got.value.as_slice(), got.mod_revision), (&b"two"[..], second));
        let page = |after: &str| RangeRequest { prefix: "k/".into(), after: after.into(), limit: 1 };
        let one = client.range(page("")).await.expect("a page").into_inner();
        assert_eq!((one.entries[0].key.as_str(), one.more), ("k/1", true));
        let two = client.range(page("k/1")).await.expect("a page").into_inner();
        assert_eq!(two.entries.iter().map(|e| e.key.as_str()).collect::<Vec<_>>(), ["k/2"]);
        let changes = |key: &str| {
            vec![
                Change { change: Some(change::Change::Put(Put { key: key.into(), value: b"t".to_vec() })) },
                Change { change: Some(change::Change::Delete("k/2".into())) },
            ]
        };
        let wrong = vec![Expectation { key: "k/1".into(), mod_revision: first }];
        let refused = client.txn(TxnRequest { expectations: wrong, changes: changes("k/3") }).await;
        let info = refused.as_ref().expect_err("a conflict").get_details_error_info().expect("details");
        assert_eq!((&info.reason[..], &info.metadata["revision"]), ("CONFLICT", &second.to_string()));
        assert_refused(refused, Code::Aborted, "k/1");
        let right = vec![Expectation { key: "k/1".into(), mod_revision: second }];
        client.txn(TxnRequest { expectations: right, changes: changes("k/3") }).await.expect("done");
        client.delete(DeleteRequest { key: "k/1".into(), expected_revision: None }).await.expect("gone");
        let all = RangeRequest { prefix: String::new(), after: String::new(), limit: 0 };
        let left = client.range(all).await.expect("a page").into_inner();
        assert_eq!(left.entries.iter().map(|e| e.key.as_str()).collect::<Vec<_>>(), ["k/3"]);
    });
    fenced::check(&etcd, "default", &tenures(&nodes)).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn a_follower_names_the_leader() {
    let etcd = EtcdCluster::start(1);
    let nodes = pair(&etcd, |b| b);
    let token = nodes[0].wait_for("main_loop_started", PATIENCE).token().expect("a token");
    block_on(async {
        let status = state(&nodes[1]).await.put(put("k", b"v", None)).await.expect_err("it follows");
        assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
        let named = |name: &str| status.metadata().get(name).and_then(|v| v.to_str().ok().map(str::to_owned));
        assert_eq!(named("metad-leader"), Some(nodes[0].rpc_addr().to_string()));
        assert_eq!(named("metad-token"), Some(token.to_string()));
        let info = status.get_details_error_info().expect("details");
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("NOT_LEADER", "metad.v1"));
        let leader = [("leader", "a".to_owned()), ("address", nodes[0].rpc_addr().to_string())];
        let about = leader.into_iter().chain([("token", token.to_string())]);
        assert_eq!(info.metadata, about.map(|(name, value)| (name.to_owned(), value)).collect());
        assert_refused(
            cluster(&nodes[1]).await.list(ListRequest::default()).await,
            Code::FailedPrecondition,
            "a at ",
        );
    });
}

#[test]
fn a_watch_of_the_state_misses_nothing_and_ends_with_its_leader() {
    let etcd = EtcdCluster::start(1);
    let nodes = pair(&etcd, |b| b);
    block_on(async {
        let mut client = state(&nodes[0]).await;
        let watch = StateWatchRequest { prefix: "w/".into(), start_revision: 0 };
        let mut changes = client.watch(watch).await.expect("a watch").into_inner();
        changes.message().await.expect("first").expect("it says from where on");
        client.put(put("w/1", b"v", None)).await.expect("written");
        client.put(put("other", b"v", None)).await.expect("written");
        client.delete(DeleteRequest { key: "w/1".into(), expected_revision: None }).await.expect("gone");
        let mut seen = Vec::new();
        while seen.len() < 2 {
            let batch = changes.message().await.expect("open").expect("more");
            seen.extend(batch.changes.into_iter().filter_map(|c| c.change));
        }
        assert!(matches!(&seen[0], state_change::Change::Put(kv) if kv.key == "w/1" && kv.value == b"v"));
        assert_eq!(seen[1], state_change::Change::Deleted("w/1".into()));
        nodes[0].signal(Signal::TERM);
        while let Ok(Some(_)) = changes.message().await {}
    });
}

/// What a watch of everything below `w/` tells from this revision on, until so many changes have come.
async fn told(
    client: &mut StateServiceClient<Channel>,
    start_revision: u64,
    changes: usize,
) -> Vec<state_change::Change> {
    let watch = StateWatchRequest { prefix: "w/".into(), start_revision };
    let mut batches = client.watch(watch).await.expect("a watch").into_inner();
    let first = batches.message().await.expect("open").expect("it says from where on");
    assert_eq!((first.revision, first.changes.len()), (start_revision - 1, 0));
    let mut told = Vec::new();
    while told.len() < changes {
        let batch = batches.message().await.expect("open").expect("more");
        told.extend(batch.changes.into_iter().filter_map(|c| c.change));
    }
    told
}

#[test]
fn a_watch_begins_at_the_revision_of_a_read_also_at_the_next_leader() {
    let etcd = EtcdCluster::start(1);
    let nodes = pair(&etcd, |b| b);
    block_on(async {
        let mut client = state(&nodes[0]).await;
        let written = client.put(put("w/1", b"v", None)).await.expect("written").into_inner().mod_revision;
        let got = client.get(GetRequest { key: "w/1".into() }).await.expect("read").into_inner();
        assert_eq!(got.entry.expect("there").mod_revision, written);
        assert!(got.revision >= written, "{} < {written}", got.revision);
        let absent = client.get(GetRequest { key: "w/".into() }).await.expect("read").into_inner();
        assert!(
            absent.entry.is_none() && absent.revision >= got.revision,
            "another key is not the one: {absent:?}"
        );
        let all = RangeRequest { prefix: "w/".into(), after: String::new(), limit: 0 };
        let page = client.range(all).await.expect("a page").into_inner();
        assert!(page.revision >= absent.revision && page.entries.len() == 1, "{page:?}");
        client.put(put("w/2", b"v", None)).await.expect("written");
        client.delete(DeleteRequest { key: "w/1".into(), expected_revision: None }).await.expect("gone");

        let named = |changes: Vec<state_change::Change>| {
            let name = |change| match change {
                state_change::Change::Put(kv) => format!("put {}", kv.key),
                state_change::Change::Deleted(key) => format!("deleted {key}"),
            };
            changes.into_iter().map(name).collect::<Vec<_>>()
        };
        let since = ["put w/2", "deleted w/1"];
        assert_eq!(named(told(&mut client, page.revision + 1, 2).await), since, "what came after the page");
        assert_eq!(
            named(told(&mut client, written, 3).await),
            [&["put w/1"], &since[..]].concat(),
            "it is included"
        );
        nodes[0].kill();
        nodes[1].wait_for("main_loop_started", PATIENCE);
        let mut client = state(&nodes[1]).await;
        let get = || GetRequest { key: "w/2".into() };
        while client.get(get()).await.is_err_and(|s| s.code() == Code::Unavailable) {
            tokio::time::sleep(Duration::from_millis(20)).await; // its main loop is just starting
        }
        assert_eq!(
            named(told(&mut client, page.revision + 1, 2).await),
            since,
            "the next leader tells the same"
        );
        refused_starts(&etcd, &mut client, written).await;
    });
}

/// A watch cannot begin in the future, nor where the store has forgotten what happened.
async fn refused_starts(etcd: &EtcdCluster, client: &mut StateServiceClient<Channel>, written: u64) {
    let from = |start_revision| StateWatchRequest { prefix: "w/".into(), start_revision };
    assert_refused(client.watch(from(1 << 40)).await, Code::OutOfRange, "lies in the future");
    assert_refused(client.watch(from(u64::MAX)).await, Code::OutOfRange, "lies in the future");
    etcd.etcdctl_ok(&["compact", &etcd.revision().to_string()]);
    let mut forgotten = client.watch(from(written)).await.expect("a watch").into_inner();
    let status = loop {
        if let Err(status) = forgotten.message().await {
            break status;
        }
    };
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    assert!(status.message().contains("read and watch again"), "{status:?}");
}

#[test]
fn workers_keep_their_ids_over_restarts_and_leaders() {
    let etcd = EtcdCluster::start(1);
    let nodes = pair(&etcd, |b| b);
    block_on(async {
        let mut client = cluster(&nodes[0]).await;
        let one = register(&mut client, worker(1)).await;
        let two = register(&mut client, worker(2)).await;
        assert_ne!(one, two);
        assert_eq!(register(&mut client, worker(1)).await, one, "the same address is the same worker");
        client.heartbeat(HeartbeatRequest { worker_id: one }).await.expect("it lives");
        nodes[0].kill();
        nodes[1].wait_for("main_loop_started", PATIENCE);
        let mut client = cluster(&nodes[1]).await;
        assert_eq!(register(&mut client, worker(2)).await, two, "the next leader knows it");
        let listed = client.list(ListRequest::default()).await.expect("a list").into_inner().workers;
        assert_eq!(listed.iter().map(|w| w.id).collect::<Vec<_>>(), [one, two]);
        client.deregister(DeregisterRequest { worker_id: two }).await.expect("it goes");
        let three = register(&mut client, worker(3)).await;
        assert!(three > two, "no id is given out twice");
    });
    let tenures = tenures(&nodes);
    assert_eq!(tenures.len(), 2);
    fenced::check(&etcd, "default", &tenures).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn a_worker_that_is_silent_expires_and_watchers_are_told() {
    let etcd = EtcdCluster::start(1);
    let nodes = pair(&etcd, |b| b.env("METAD_META__MAX_HEARTBEAT_INTERVAL_SECS", "2"));
    block_on(async {
        let mut client = cluster(&nodes[0]).await;
        let silent = register(&mut client, worker(1)).await;
        let mut watch = client.watch(WatchRequest {}).await.expect("a watch").into_inner();
        let first = watch.message().await.expect("open").expect("the list");
        assert_eq!(first.workers.len(), 1);
        let alive = register(&mut client, worker(2)).await;
        let mut seen = Vec::new();
        while seen.len() < 2 {
            client.heartbeat(HeartbeatRequest { worker_id: alive }).await.expect("it lives");
            if let Ok(change) = tokio::time::timeout(Duration::from_millis(500), watch.message()).await {
                let change = change.expect("open").expect("more").change.expect("a change");
                seen.push((change.kind(), change.worker.expect("whom").id));
            }
        }
        assert_eq!(seen, [(Kind::Joined, alive), (Kind::Expired, silent)]);
        let listed = client.list(ListRequest::default()).await.expect("a list").into_inner().workers;
        assert_eq!(listed.iter().map(|w| w.id).collect::<Vec<_>>(), [alive]);
    });
}

/// A worker's end of the barriers: collects all but every `skip`-th, notes what is committed.
async fn collect(node: &Node, worker_id: u64, skip: u64, commits: usize) -> Vec<u64> {
    let mut client = BarrierServiceClient::new(channel(node).await);
    let (reports, outbox) = mpsc::channel(16);
    reports.send(BarrierCollected { worker_id, epoch: 0 }).await.expect("room");
    let mut events = client.stream(ReceiverStream::new(outbox)).await.expect("a stream").into_inner();
    let (mut seen, mut committed) = (0, Vec::new());
    while committed.len() < commits {
        match events.message().await.expect("open").expect("more").event.expect("one") {
            Event::Barrier(barrier) => {
                seen += 1;
                if skip == 0 || seen % skip != 0 {
                    let report = BarrierCollected { worker_id, epoch: barrier.epoch };
                    reports.send(report).await.expect("room");
                }
            }
            Event::Committed(done) => committed.push(done.epoch),
            Event::Dropped(_) | Event::SetAside(_) => {}
        }
    }
    committed
}

#[test]
fn all_workers_see_the_same_epochs_which_grow_over_leaders() {
    let etcd = EtcdCluster::start(1);
    let set = |b: NodeBuilder| b.env("METAD_META__BARRIER_INTERVAL_MS", "50");
    let nodes = pair(&etcd, set);
    let mut all: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    block_on(async {
        let mut last = 0;
        for node in &nodes {
            if std::ptr::eq(node, &nodes[1]) {
                nodes[0].kill();
            }
            node.wait_for("main_loop_started", PATIENCE);
            let mut client = cluster(node).await;
            let (one, two) = (register(&mut client, worker(1)).await, register(&mut client, worker(2)).await);
            let (first, second) = tokio::join!(collect(node, one, 0, 20), collect(node, two, 0, 20));
            // What the last leader committed is told again to those who come anew.
            let fresh = |seen: &[u64]| seen.iter().copied().filter(|e| *e > last).collect::<Vec<_>>();
            let (first, second) = (fresh(&first), fresh(&second));
            assert!(first.windows(2).all(|p| p[0] < p[1]), "strictly growing: {first:?}");
            let common = |a: &[u64], b: &[u64]| a.iter().filter(|e| b.contains(e)).count();
            assert!(common(&first, &second) >= 15, "the same sequence: {first:?} {second:?}");
            last = first.last().copied().max(second.last().copied()).expect("some");
            all.entry(one).or_default().extend(first);
        }
    });
    let epochs = all.values().next().expect("one worker").clone();
    assert!(epochs.windows(2).all(|p| p[0] < p[1]), "over both leaders: {epochs:?}");
    fenced::check(&etcd, "default", &tenures(&nodes)).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn a_barrier_that_one_worker_does_not_collect_is_dropped_and_the_next_go_on() {
    let etcd = EtcdCluster::start(1);
    let set = |b: NodeBuilder| {
        b.env("METAD_META__BARRIER_INTERVAL_MS", "50").env("METAD_META__BARRIER_COLLECT_TIMEOUT_MS", "300")
    };
    let nodes = pair(&etcd, set);
    let committed = block_on(async {
        let mut client = cluster(&nodes[0]).await;
        let (one, two) = (register(&mut client, worker(1)).await, register(&mut client, worker(2)).await);
        let (first, _) = tokio::join!(collect(&nodes[0], one, 0, 10), collect(&nodes[0], two, 4, 10));
        first
    });
    assert!(committed.windows(2).all(|p| p[0] < p[1]), "{committed:?}");
    let log = nodes[0].stderr();
    assert!(log.contains("a barrier was dropped") && log.contains("TimedOut"), "{}", nodes[0].report());
}

#[test]
fn without_workers_there_are_no_barriers_and_no_writes() {
    let etcd = EtcdCluster::start(1);
    let nodes = pair(&etcd, |b| {
        b.env("METAD_META__BARRIER_INTERVAL_MS", "10").env("METAD_META__TICK_INTERVAL_MS", "60000")
    });
    std::thread::sleep(Duration::from_secs(1));
    let keys = etcd.etcdctl_ok(&["get", "--prefix", "--keys-only", "/metad/default/state/meta/"]);
    assert_eq!(keys.trim(), "", "{}", nodes[0].report());
}
