//! What leadership costs, on real processes: `make bench`.
//!
//! Prints figures and asserts nothing: timings depend on the machine. What is compared is measured in one run.

#[path = "../tests/support/lib.rs"]
mod support;

use std::time::Duration;

use support::etcd::EtcdCluster;
use support::node::{Node, NodeBuilder, Signal};
use support::poll::boot_ns;

const PATIENCE: Duration = Duration::from_secs(30);
const RUNS: usize = 11;
/// How long an idle leader is watched, and how often.
const IDLE: Duration = Duration::from_secs(10);
const IDLE_WINDOWS: usize = 3;

fn main() {
    if std::env::args().any(|a| a == "--list" || a == "--test") {
        return; // asked by a test runner: there is nothing to list
    }
    let etcd = EtcdCluster::start(1);
    let three = EtcdCluster::start(3);
    println!("etcd {}, {RUNS} runs each, medians", etcd.version());
    start_to_leading("SQLite", NodeBuilder::new);
    start_to_leading("etcd, 1 member", |id| NodeBuilder::new(id).etcd(&etcd));
    start_to_leading("etcd, 3 members", |id| NodeBuilder::new(id).etcd(&three));
    hand_over("etcd, 3 members", &three);
    for lease_secs in [5, 30, 86_400] {
        kill_9("etcd, 3 members", &three, lease_secs);
    }
    idle("SQLite", &NodeBuilder::new("idle").lease_secs(15));
    idle("etcd, 3 members", &NodeBuilder::new("idle").lease_secs(15).cluster("idle").etcd(&three));
    idle(
        "etcd, 3 members, lease 86400 s",
        &NodeBuilder::new("idle").lease_secs(86_400).cluster("long").etcd(&three),
    );
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn started_ns(node: &Node) -> u64 {
    node.wait_for("main_loop_started", PATIENCE).at_ns()
}

fn start_to_leading(what: &str, builder: impl Fn(&str) -> NodeBuilder) {
    let run = |_| {
        let node = builder("n").cluster("start");
        let began = boot_ns();
        let node = node.spawn();
        let took = started_ns(&node) - began;
        node.signal(Signal::TERM);
        node.wait_exit(PATIENCE);
        took as f64 / 1e6
    };
    println!("start to leading, {what}: {:.1} ms", median((0..RUNS).map(run).collect()));
}

/// A follower is given the seat: beside it, in the same run, what the store itself takes for a write that
/// another client sees.
fn hand_over(what: &str, etcd: &EtcdCluster) {
    let run = |i| {
        let node = |id: &str| NodeBuilder::new(id).cluster(&format!("h{i}")).etcd(etcd).spawn();
        let (first, second) = pair(node);
        let asked = boot_ns();
        first.signal(Signal::TERM);
        (started_ns(&second) - asked) as f64 / 1e6
    };
    let took = median((0..RUNS).map(run).collect());
    let bare = bare_put_and_watch(etcd);
    println!(
        "SIGTERM to the next main loop, {what}: {took:.2} ms; a bare put and its watch event: {bare:.2} ms; \
         ratio {:.1}",
        took / bare
    );
}

fn kill_9(what: &str, etcd: &EtcdCluster, lease_secs: u64) {
    let run = |i| {
        let cluster = format!("k{lease_secs}-{i}");
        let node =
            |id: &str| NodeBuilder::new(id).lease_secs(lease_secs).cluster(&cluster).etcd(etcd).spawn();
        let (first, second) = pair(node);
        let killed = boot_ns();
        support::spawn::signal(first.pid(), Signal::KILL);
        (started_ns(&second) - killed) as f64 / 1e6
    };
    let took = median((0..RUNS).map(run).collect());
    println!("kill -9 to the next main loop, {what}, lease {lease_secs} s: {took:.1} ms");
}

fn pair(node: impl Fn(&str) -> Node) -> (Node, Node) {
    let first = node("a");
    started_ns(&first);
    let second = node("b");
    second.wait_for("joined", PATIENCE);
    std::thread::sleep(Duration::from_millis(200));
    (first, second)
}

/// The median over put → event, with metad's own store client on both sides.
fn bare_put_and_watch(etcd: &EtcdCluster) -> f64 {
    use futures_util::StreamExt;
    use metad::clock::OsClock;
    use metad::store::etcd::{EtcdOptions, EtcdStore};
    use metad::store::{KeyRange, Op, Request, Store, Txn};
    let options = EtcdOptions {
        endpoints: etcd.endpoints(),
        tls: None,
        login: None,
        connect_timeout: Duration::from_secs(1),
        request_timeout: Duration::from_secs(3),
        hedge_max: Duration::from_secs(1),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let store = EtcdStore::new(options, std::sync::Arc::new(OsClock)).expect("a store");
        let put = || {
            let op = Op::Put("/bench/key".into(), b"value".to_vec(), None);
            store.call(Request::Txn(Txn { then: vec![op], ..Txn::default() }))
        };
        let at = put().await.expect("a put").header().revision;
        let range = KeyRange::prefix("/bench/");
        let mut events = store.watch(range, at, Duration::from_secs(60)).await.expect("a watch");
        let mut all = Vec::new();
        for _ in 0..101 {
            let began = boot_ns();
            let (written, seen) = tokio::join!(put(), async {
                loop {
                    match events.next().await {
                        Some(Ok(batch)) if batch.changes.is_empty() => {}
                        seen => return seen,
                    }
                }
            });
            written.expect("a put");
            seen.expect("an event").expect("a batch");
            all.push((boot_ns() - began) as f64 / 1e6);
        }
        median(all)
    })
}

fn idle(what: &str, builder: &NodeBuilder) {
    let node = builder.spawn();
    started_ns(&node);
    std::thread::sleep(Duration::from_secs(2));
    // The least disturbed of a few windows: on a virtual machine the count includes what the host takes away.
    let window = |_| {
        let before = cpu_secs(node.pid());
        std::thread::sleep(IDLE);
        (cpu_secs(node.pid()) - before) * 60.0 / IDLE.as_secs_f64()
    };
    let all: Vec<f64> = (0..IDLE_WINDOWS).map(window).collect();
    let (least, most) = all.iter().fold((f64::MAX, 0.0_f64), |(a, b), x| (a.min(*x), b.max(*x)));
    println!(
        "idle leader, {what}: {:.1} MB RSS, {least:.3} CPU s per minute (most: {most:.3})",
        rss_mb(node.pid())
    );
}

fn cpu_secs(pid: u32) -> f64 {
    // The scheduler's own count: clock ticks of 10 ms are too coarse.
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("a living process");
    let of = |entry: std::io::Result<std::fs::DirEntry>| -> f64 {
        let text =
            std::fs::read_to_string(entry.expect("a task").path().join("schedstat")).unwrap_or_default();
        text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
    };
    tasks.map(of).sum()
}

fn rss_mb(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a living process");
    let line = status.lines().find(|l| l.starts_with("VmRSS")).expect("a size");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}
