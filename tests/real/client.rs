//! The client and `metad worker`, on real processes and a real etcd, while leaders die.

use std::process::Stdio;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use crate::support;
use crate::support::crew::{PATIENCE, tenures, wait_for_leader, wait_until_all_know_all};
use crate::support::etcd::EtcdCluster;
use crate::support::node::{Node, NodeBuilder, Signal};
use crate::support::output::Output;
use crate::support::ports::Port;
use crate::support::spawn;
use futures_util::StreamExt;
use metad::client::{Change, ClientError, MetaClient, WorkerSpec, Write};
use serde_json::Value;
use tokio::runtime::Runtime;

/// All nodes, registered and known to each other, one of them leading; the leader's index.
fn start(etcd: &EtcdCluster, ids: &[&str]) -> (Vec<Node>, usize) {
    let fast =
        |id: &&str| NodeBuilder::new(id).etcd(etcd).env("METAD_META__BARRIER_INTERVAL_MS", "200").spawn();
    let nodes: Vec<Node> = ids.iter().map(fast).collect();
    wait_until_all_know_all(&nodes);
    let leader = wait_for_leader(&nodes, PATIENCE);
    (nodes, leader)
}

fn follower(nodes: &[Node], leader: usize) -> String {
    nodes[(leader + 1) % nodes.len()].rpc_addr().to_string()
}

/// Runs a test's calls, all on one runtime: a client's connections live on the one that it was first used on.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));
    let runtime = &*RUNTIME;
    runtime.block_on(async { tokio::time::timeout(PATIENCE * 2, future).await.expect("in time") })
}

fn client(address: &str) -> MetaClient {
    MetaClient::new([address]).expect("an address")
}

#[test]
fn one_followers_address_is_enough_to_do_everything() {
    let etcd = EtcdCluster::start(1);
    let (nodes, leader) = start(&etcd, &["e0", "e1", "e2"]);
    let client = client(&follower(&nodes, leader));
    block_on(async {
        assert_eq!(client.leader().await.unwrap().address, nodes[leader].rpc_addr().to_string());
        assert_eq!(client.members().await.unwrap().len(), 3);
        let picture = Box::pin(client.watch_members()).next().await.expect("a first picture").unwrap();
        assert_eq!(picture.members.len(), 3);
        assert_eq!(client.get("a").await.unwrap(), None);
        let first = client.put("a", "1").await.unwrap();
        let second = client.compare_and_set("a", first, "2").await.unwrap();
        assert!(second > first);
        let stale = client.compare_and_set("a", first, "3").await.unwrap_err();
        assert!(matches!(&stale, ClientError::Conflict { .. }), "{stale}");
        let changes = vec![Change::Put("b".into(), b"x".to_vec()), Change::Delete("a".into())];
        client.txn(Write { expected: vec![("a".into(), second)], changes }).await.unwrap();
        let page = client.range("", "", 0).await.unwrap();
        assert_eq!(page.entries.iter().map(|e| e.key.as_str()).collect::<Vec<_>>(), ["b"]);
        client.delete("b", None).await.unwrap();
        let refused = client.put("", "x").await.unwrap_err();
        assert!(
            matches!(&refused, ClientError::Refused { .. }) && refused.to_string().contains("1 to"),
            "{refused}"
        );
        let spec = WorkerSpec { host: "w".into(), port: 1, kind: "compute".into(), labels: [].into() };
        let registered = client.register_worker(spec.clone()).await.unwrap();
        assert_eq!(client.register_worker(spec).await.unwrap(), registered, "again: the same id");
        client.heartbeat(registered.worker_id).await.unwrap();
        assert_eq!(client.list_workers().await.unwrap().len(), 1);
        client.deregister(registered.worker_id).await.unwrap();
        let unknown = client.heartbeat(registered.worker_id).await.unwrap_err();
        assert!(matches!(&unknown, ClientError::NotFound { .. }), "{unknown}");
        let no_stream = client.barriers(registered.worker_id).await.unwrap_err();
        assert!(matches!(&no_stream, ClientError::NotFound { .. }), "{no_stream}");
    });
}

#[test]
fn writes_go_on_through_kill_9_of_the_leader_and_each_is_done_or_reported() {
    let etcd = EtcdCluster::start(1);
    let (nodes, leader) = start(&etcd, &["e0", "e1", "e2"]);
    let client = client(&follower(&nodes, leader));
    let (mut acknowledged, mut unknown) = (Vec::new(), Vec::new());
    let mut revision = 0;
    let mut write = |n: u32| {
        let written = block_on(client.put(&format!("n/{n:04}"), n.to_string()));
        match written {
            Ok(at) => {
                assert!(at > revision, "revisions strictly grow");
                revision = at;
                acknowledged.push(n);
            }
            Err(ClientError::Unknown { .. }) => unknown.push(n),
            Err(e) => panic!("{e}"),
        }
    };
    (0..100).for_each(&mut write);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(20));
            nodes[leader].kill();
        });
        (100..400).for_each(&mut write);
    });
    assert!(unknown.len() <= 1, "one write was under way: {unknown:?}");
    let (mut entries, mut after, mut more) = (Vec::new(), String::new(), true);
    while more {
        let page = block_on(client.range("n/", &after, 0)).unwrap();
        entries.extend(page.entries);
        after = entries.last().map_or(after, |last| last.key.clone());
        more = page.more;
    }
    let found: Vec<u32> =
        entries.iter().map(|e| String::from_utf8_lossy(&e.value).parse().expect("a number")).collect();
    assert!(found.is_sorted_by(|a, b| a < b));
    let missing: Vec<_> = acknowledged.iter().filter(|n| !found.contains(n)).collect();
    assert!(missing.is_empty(), "acknowledged, but not there: {missing:?}");
    let extra = found.iter().filter(|n| !acknowledged.contains(n) && !unknown.contains(n)).count();
    assert_eq!((extra, acknowledged.len() + unknown.len()), (0, 400));
    assert_eq!(tenures(&nodes).len(), 2, "the leader did change");
}

#[test]
fn a_counter_under_compare_and_set_strictly_grows_through_kill_9() {
    let etcd = EtcdCluster::start(1);
    let (nodes, leader) = start(&etcd, &["e0", "e1", "e2"]);
    let client = client(&follower(&nodes, leader));
    let mut last = 0_u64;
    let mut done = 0;
    let mut count = || {
        let value =
            |e: &metad::proto::metad::KeyValue| String::from_utf8_lossy(&e.value).parse::<u64>().unwrap();
        let found = block_on(client.get("counter")).unwrap();
        let (now, at) = found.as_ref().map_or((0, 0), |e| (value(e), e.mod_revision));
        assert!(now == last || now == last + 1, "{now} after {last}: at most the unknown one is done");
        last = now;
        match block_on(client.compare_and_set("counter", at, (now + 1).to_string())) {
            Ok(_) => {
                last = now + 1;
                done += 1;
            }
            Err(ClientError::Unknown { .. }) => {}
            Err(e) => panic!("{e}"),
        }
    };
    (0..50).for_each(|_| count());
    nodes[leader].kill();
    (0..50).for_each(|_| count());
    assert!(last >= 99, "nothing is lost: {last}");
    assert!(last >= done, "{last} {done}");
}

#[test]
fn it_gives_up_in_time_and_says_whom_it_asked_and_what_they_said() {
    let (a, b) = (Port::reserve(), Port::reserve());
    let follower = NodeBuilder::new("f").env("METAD_NODE__PRIORITY", "0").spawn();
    follower.wait_for("joined", PATIENCE);
    let nobody = MetaClient::new([a.addr().to_string(), b.addr().to_string()]).unwrap();
    let nobody = nobody.deadline(Duration::from_secs(1));
    let leaderless = client(&follower.rpc_addr().to_string()).deadline(Duration::from_secs(1));
    block_on(async {
        let begin = tokio::time::Instant::now();
        let said = nobody.put("a", "1").await.unwrap_err().to_string();
        assert!(begin.elapsed() < PATIENCE / 2, "in time");
        for part in
            [a.addr().to_string(), b.addr().to_string(), "refused".into(), "cannot put within 1s".into()]
        {
            assert!(said.contains(&part), "{part:?} is missing in: {said}");
        }
        let error = nobody.watch_members().boxed().next().await.expect("an answer").unwrap_err();
        assert!(matches!(error, ClientError::GaveUp { .. }), "{error}");
        let said = leaderless.get("a").await.unwrap_err().to_string();
        assert!(said.contains("f (follower) knows no leader"), "{said}");
        assert_eq!(leaderless.members().await.unwrap().len(), 1, "twin: a follower tells what it knows");
    });
}

#[test]
fn a_watch_goes_on_elsewhere_when_its_member_dies() {
    let etcd = EtcdCluster::start(1);
    let (nodes, leader) = start(&etcd, &["e0", "e1", "e2"]);
    let client = client(&nodes[leader].rpc_addr().to_string());
    block_on(async {
        let mut pictures = client.watch_members().boxed();
        let first = pictures.next().await.expect("a picture").unwrap();
        let token = first.leader.expect("a leader").token;
        tokio::task::block_in_place(|| nodes[leader].kill());
        loop {
            let next = pictures.next().await.expect("a picture").unwrap();
            if next.leader.is_some_and(|l| l.token > token) {
                break;
            }
        }
    });
}

/// A worker process.
struct Worker {
    pid: u32,
    output: Arc<Output>,
}

impl Worker {
    fn spawn(meta: &str, port: u16, more: &[&str]) -> Self {
        let mut command = spawn::metad_command();
        command.args(["worker", "--meta", meta, "--port", &port.to_string(), "-o", "json"]).args(more);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = spawn::spawn(command).expect("metad worker");
        Self { pid: child.id(), output: Output::follow(child) }
    }

    /// What it has printed: epoch and token.
    fn epochs(&self) -> Vec<(u64, u64)> {
        let parse = |line: &String| {
            let json: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
            assert!(json["checkpoint"].is_boolean(), "{line}");
            (json["epoch"].as_u64().expect("an epoch"), json["leader_token"].as_u64().expect("a token"))
        };
        self.output.now().stdout.iter().map(parse).collect()
    }

    #[track_caller]
    fn wait_epochs(&self, n: usize) {
        let enough = |said: &support::output::Said| (said.stdout.len() >= n).then_some(());
        assert!(self.output.wait(PATIENCE, enough).is_some(), "{n} epochs: {}", self.output.now().report());
    }

    #[track_caller]
    fn wait_exit(&self) -> i32 {
        let exit = self.output.wait(PATIENCE, |said| said.exit);
        exit.unwrap_or_else(|| panic!("no end: {}", self.output.now().report())).code
    }
}

#[test]
fn a_worker_sees_epochs_strictly_grow_across_a_fail_over_and_leaves_nothing_behind() {
    let etcd = EtcdCluster::start(1);
    let (nodes, leader) = start(&etcd, &["e0", "e1", "e2"]);
    let address = follower(&nodes, leader);
    let workers = [Worker::spawn(&address, 6001, &[]), Worker::spawn(&address, 6002, &[])];
    workers.iter().for_each(|w| w.wait_epochs(5));
    nodes[leader].kill();
    let before: Vec<usize> = workers.iter().map(|w| w.epochs().len()).collect();
    workers.iter().zip(&before).for_each(|(w, n)| w.wait_epochs(n + 5));
    let client = client(&address);
    assert_eq!(block_on(client.list_workers()).unwrap().len(), 2, "the registrations outlive their leader");
    for worker in &workers {
        let epochs = worker.epochs();
        assert!(epochs.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{epochs:?}");
        assert!(epochs[0].1 < epochs[epochs.len() - 1].1, "the leader did change");
        spawn::signal(worker.pid, Signal::TERM);
        assert_eq!(worker.wait_exit(), 0, "{}", worker.output.now().report());
    }
    assert!(block_on(client.list_workers()).unwrap().is_empty(), "both have deregistered");
    assert_eq!(tenures(&nodes).len(), 2);
}

#[test]
fn a_worker_ends_after_so_many_epochs_and_when_interrupted_before_anyone_registers_it() {
    let etcd = EtcdCluster::start(1);
    let (nodes, _) = start(&etcd, &["e0"]);
    let address = nodes[0].rpc_addr().to_string();
    let worker = Worker::spawn(&address, 6001, &["--epochs", "3"]);
    assert_eq!(worker.wait_exit(), 0, "{}", worker.output.now().report());
    worker.wait_epochs(3);
    assert_eq!(worker.epochs().len(), 3);
    assert!(block_on(client(&address).list_workers()).unwrap().is_empty());
    let interrupted = Worker::spawn(&Port::reserve().addr().to_string(), 6001, &[]);
    std::thread::sleep(Duration::from_millis(500));
    spawn::signal(interrupted.pid, Signal::INT);
    assert_eq!(interrupted.wait_exit(), 0, "nothing was registered");
}
