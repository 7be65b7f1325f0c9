//! What a leader bears, on real processes, with etcd and all clients on the same machine: `make bench`.
//!
//! Prints figures and asserts nothing: timings depend on the machine. What is compared is measured in one run.
//!
//! From 3.5 on, etcd runs without fsync here: a disk would hide what the fence costs.
//!
//! The goals, on two cores: a fenced put within 1.1 times a bare one; 20,000 look-ups per second with a p99 below
//! 10 ms; 1,000 workers below 50 % of a core and 100 MB.

#![allow(clippy::disallowed_methods, reason = "benchmarks time requests, not a lease")]

#[path = "bare/store.rs"]
mod bare;
#[path = "../tests/support/lib.rs"]
mod support;

use std::time::{Duration, Instant};

use metad::config;
use metad::driver::leadership::Leadership;
use metad::meta::store::MetaStore;
use metad::node;
use metad::proto::metad::barrier_event::Event;
use metad::proto::metad::barrier_service_client::BarrierServiceClient;
use metad::proto::metad::cluster_service_client::ClusterServiceClient;
use metad::proto::metad::election_service_client::ElectionServiceClient;
use metad::proto::metad::{BarrierCollected, HeartbeatRequest, LeaderRequest, RegisterRequest};
use metad::store::etcd::EtcdStore;
use metad::tls::client::Credentials;
use support::etcd::EtcdCluster;
use support::node::{Node, NodeBuilder};
use support::papers::Papers;
use support::poll::boot_ns;
use support::usage::{cpu_secs, rss_mb};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

const TIMEOUT: Duration = Duration::from_secs(60);
/// How many pairs of puts are compared.
const PUTS: usize = 3_000;
const VALUE: &[u8] = &[b'v'; 256];
/// Look-ups: connections, and calls under way on each.
const LOAD: [(usize, usize); 3] = [(1, 1), (4, 4), (4, 16)];
/// How long each load lasts.
const LOOK_UPS: Duration = Duration::from_secs(10);
/// Workers, and how long they are watched.
const WORKERS: u32 = 1_000;
const WORKERS_PER_CONNECTION: u32 = 50;
const WATCHED: Duration = Duration::from_secs(30);

fn main() {
    if std::env::args().any(|a| a == "--list" || a == "--test") {
        return; // asked by a test runner: there is nothing to list
    }
    let etcd = EtcdCluster::start(1);
    println!("etcd {}, 1 member; medians, unless said otherwise", etcd.version());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    if !std::env::args().any(|a| a == "look-ups") {
        runtime.block_on(fenced_puts(&etcd));
    }
    look_ups(&runtime, &etcd);
    if std::env::args().any(|a| a == "look-ups") {
        return;
    }
    crew(&runtime, &etcd);
}

/// Sorted, in milliseconds.
struct Times(Vec<f64>);

impl Times {
    fn new(mut all: Vec<f64>) -> Self {
        all.sort_by(f64::total_cmp);
        Self(all)
    }

    /// The value below which this part of all lies.
    fn at(&self, part: f64) -> f64 {
        let last = self.0.len().saturating_sub(1);
        self.0.get((last as f64 * part) as usize).copied().unwrap_or(f64::NAN)
    }
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

// === fenced puts ===

/// A leader in this process writes, and beside it, in turn, the store itself.
async fn fenced_puts(etcd: &EtcdCluster) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("data").display().to_string();
    let flags = [
        ("node.id", "bench".to_owned()),
        ("node.data_dir", path),
        ("node.cluster", "puts".to_owned()),
        ("node.guardian", "false".to_owned()),
        ("store.etcd.endpoints", etcd.endpoints().join(",")),
        ("rpc.listen_addr", "127.0.0.1:0".to_owned()),
        ("http.listen_addr", "127.0.0.1:0".to_owned()),
    ];
    let config = config::load(None, std::iter::empty(), &flags).expect("a configuration").config;
    let (leads, led) = oneshot::channel::<Leadership>();
    let main_loop = |leadership: Leadership| async move {
        let lost = leadership.clone();
        let _ = leads.send(leadership);
        lost.lost().await;
    };
    let node = node::Node::builder(config).main_loop(main_loop).start().await.expect("a node");
    let store = MetaStore::new(led.await.expect("it leads"), "user/");
    let bare = bare::open(etcd.endpoints());
    for under_way in [1, 16] {
        compare_puts(&store, &bare, under_way).await;
    }
    node.shutdown();
    node.wait().await;
}

async fn compare_puts(store: &MetaStore, bare: &EtcdStore, under_way: usize) {
    let (mut fenced_all, mut bare_all) = (Vec::new(), Vec::new());
    for i in 0..PUTS / under_way {
        // In turn, and each as often first as second.
        for is_fenced in [i % 2 == 0, i % 2 == 1] {
            let put = |n: usize| async move {
                let begin = Instant::now();
                match is_fenced {
                    true => drop(store.put(&format!("k{n}"), VALUE.to_vec()).await.expect("written")),
                    false => drop(bare::put(bare, format!("/bare/state/user/k{n}"), VALUE).await),
                }
                ms(begin)
            };
            let took = futures_util::future::join_all((0..under_way).map(put)).await;
            if is_fenced { fenced_all.extend(took) } else { bare_all.extend(took) }
        }
    }
    let (fenced, bare) = (Times::new(fenced_all), Times::new(bare_all));
    println!(
        "a fenced put of {} bytes, {under_way} at once: {:.3} ms (p99 {:.2}); a bare one: {:.3} ms (p99 {:.2}); ratio {:.2}",
        VALUE.len(),
        fenced.at(0.5),
        fenced.at(0.99),
        bare.at(0.5),
        bare.at(0.99),
        fenced.at(0.5) / bare.at(0.5)
    );
}

// === look-ups ===

fn look_ups(runtime: &tokio::runtime::Runtime, etcd: &EtcdCluster) {
    let dir = tempfile::tempdir().expect("a folder");
    let papers = Papers::create(&dir.path().join("papers"), &["unused"]);
    let plain = leading("lookups", etcd, |node| node);
    let secured = leading("secured", etcd, |node| papers.of(node));
    for (connections, under_way) in LOAD {
        let nodes = [
            (&plain, "plain", Credentials::default()),
            (&secured, "TLS and roles", papers.credentials(Some("reader"), None)),
        ];
        for (node, how, with) in nodes {
            let before = cpu_secs(node.pid());
            let (times, took) = runtime.block_on(ask(node, &with, connections, under_way));
            let cpu = (cpu_secs(node.pid()) - before) / took.as_secs_f64() * 100.0;
            let times = Times::new(times);
            println!(
                "Leader look-ups, {how}, {connections} connections with {under_way} each: {:.0} per second; {:.3} ms, p99 \
                 {:.2} ms; the server took {cpu:.0} % of a core",
                times.0.len() as f64 / took.as_secs_f64(),
                times.at(0.5),
                times.at(0.99)
            );
        }
    }
}

async fn ask(node: &Node, with: &Credentials, connections: usize, under_way: usize) -> (Vec<f64>, Duration) {
    let mut callers = JoinSet::new();
    let begin = Instant::now();
    for _ in 0..connections {
        let endpoint = Endpoint::from_shared(format!("http://{}", node.rpc_addr())).expect("an address");
        let channel = with.connect(&endpoint.tcp_nodelay(true)).await.expect("it listens");
        for _ in 0..under_way {
            let mut client = ElectionServiceClient::new(channel.clone());
            callers.spawn(async move {
                let mut times = Vec::new();
                while begin.elapsed() < LOOK_UPS {
                    let asked = Instant::now();
                    let answer = client.leader(LeaderRequest {}).await.expect("an answer").into_inner();
                    assert!(answer.leader.is_some());
                    times.push(ms(asked));
                }
                times
            });
        }
    }
    let all = callers.join_all().await.concat();
    (all, begin.elapsed())
}

// === workers ===

/// What one worker has seen.
#[derive(Default)]
struct Seen {
    /// From the first look of a barrier to that of its commit, in milliseconds.
    latencies: Vec<f64>,
}

fn crew(runtime: &tokio::runtime::Runtime, etcd: &EtcdCluster) {
    let node = leading("crew", etcd, |node| node);
    let (cpu, rss, took, latencies) = runtime.block_on(async {
        let mut workers = JoinSet::new();
        let (stop, stopped) = tokio::sync::watch::channel(false);
        for group in 0..WORKERS / WORKERS_PER_CONNECTION {
            let channel = channel(&node).await;
            for i in 0..WORKERS_PER_CONNECTION {
                let port = 1 + group * WORKERS_PER_CONNECTION + i;
                workers.spawn(work(channel.clone(), port, stopped.clone()));
            }
        }
        tokio::time::sleep(Duration::from_secs(10)).await; // all are registered and take part by then
        let (before, begin) = (cpu_secs(node.pid()), Instant::now());
        tokio::time::sleep(WATCHED).await;
        let cpu = cpu_secs(node.pid()) - before;
        let took = begin.elapsed();
        let rss = rss_mb(node.pid());
        stop.send_replace(true);
        let latencies: Vec<f64> = workers.join_all().await.into_iter().flat_map(|s| s.latencies).collect();
        (cpu, rss, took, latencies)
    });
    let times = Times::new(latencies);
    println!(
        "{WORKERS} workers, heartbeat and barrier every second: {:.1} % of a core, {rss:.1} MB RSS; inject to committed, as \
         the workers see it: {:.1} ms, p99 {:.1} ms ({} samples); dropped barriers: {}",
        cpu / took.as_secs_f64() * 100.0,
        times.at(0.5),
        times.at(0.99),
        times.0.len(),
        node.stderr().matches("a barrier was dropped").count()
    );
}

async fn work(channel: Channel, port: u32, mut stop: tokio::sync::watch::Receiver<bool>) -> Seen {
    let request = RegisterRequest {
        host: "10.0.0.1".into(),
        port,
        kind: "compute".into(),
        ..RegisterRequest::default()
    };
    let mut cluster = ClusterServiceClient::new(channel.clone());
    let worker_id = loop {
        match cluster.register(request.clone()).await {
            Ok(answer) => break answer.into_inner().worker_id,
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    };
    let (reports, outbox) = mpsc::channel(16);
    reports.send(BarrierCollected { worker_id, epoch: 0 }).await.expect("room");
    let stream = BarrierServiceClient::new(channel).stream(ReceiverStream::new(outbox)).await;
    let mut events = stream.expect("a stream").into_inner();
    // Each at a moment of its own.
    let first = tokio::time::Instant::now() + Duration::from_millis(u64::from(port) % 1_000);
    let mut beat = tokio::time::interval_at(first, Duration::from_secs(1));
    let (mut seen, mut injected) = (Seen::default(), (0, Instant::now()));
    loop {
        tokio::select! {
            _ = stop.changed() => return seen,
            _ = beat.tick() => drop(cluster.heartbeat(HeartbeatRequest { worker_id }).await.expect("it lives")),
            event = events.message() => match event.expect("open").and_then(|e| e.event) {
                Some(Event::Barrier(barrier)) => {
                    injected = (barrier.epoch, Instant::now());
                    reports.send(BarrierCollected { worker_id, epoch: barrier.epoch }).await.expect("room");
                }
                Some(Event::Committed(done)) if done.epoch == injected.0 => {
                    seen.latencies.push(ms(injected.1));
                }
                _ => {}
            },
        }
    }
}

fn leading(cluster: &str, etcd: &EtcdCluster, with: impl Fn(NodeBuilder) -> NodeBuilder) -> Node {
    let begin = boot_ns();
    let node = with(NodeBuilder::new("a").lease_secs(30).cluster(cluster).etcd(etcd)).spawn();
    assert!(node.wait_for("main_loop_started", TIMEOUT).at_ns() > begin);
    node
}

async fn channel(node: &Node) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{}", node.rpc_addr())).expect("an address");
    endpoint.tcp_nodelay(true).connect().await.expect("it listens")
}
