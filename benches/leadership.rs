//! What leadership costs, on real processes: `make bench`.
//!
//! Prints figures and asserts nothing: timings depend on the machine. What is compared is measured in one run.

#![allow(clippy::disallowed_methods, reason = "benchmarks time requests, not a lease")]

#[path = "bare/store.rs"]
mod bare;
#[path = "builds/rounds.rs"]
mod builds;
#[path = "compare/rounds.rs"]
mod compare;
#[path = "stages/marks.rs"]
mod marks;
#[path = "../tests/support/lib.rs"]
mod support;

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use marks::Stages;
use metad::election::record::Revision;
use metad::store::etcd::EtcdStore;
use metad::store::{KeyRange, Store, StoreError, WatchBatch};
use support::etcd::EtcdCluster;
use support::node::{Node, NodeBuilder, Signal};
use support::papers::Papers;
use support::poll::boot_ns;
use support::proxy::FaultProxy;
use support::usage::{cpu_secs, rss_mb, wake_ups};

const TIMEOUT: Duration = Duration::from_secs(30);
const RUNS: usize = 11;
const SECURED_RUNS: usize = 20;
/// Everybody has logged in by then.
const SECURED_PAUSE: Duration = Duration::from_secs(1);
/// Everybody is idle for so long before something is measured.
const PAUSE: Duration = Duration::from_millis(200);
/// How long an idle leader is watched, and how often.
const IDLE: Duration = Duration::from_secs(10);
const IDLE_WINDOWS: usize = 3;
const IDLE_WRITES: Duration = Duration::from_secs(60);

fn main() {
    if std::env::args().any(|a| a == "--list" || a == "--test") {
        return; // asked by a test runner: there is nothing to list
    }
    let args: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [compare::WATCHER, url] => return compare::watch(url),
        ["compare", ..] => return compare::run(),
        ["access", ..] => return access_compared(&EtcdCluster::start(3)),
        ["secured", ..] => return kill_9_secured(),
        ["stages", ..] => return stages(),
        ["old", path] => return builds::compare(path.as_ref()),
        ["idle", ..] => return idle_all(),
        _ => {}
    }
    compare::run(); // alone with its cluster
    let etcd = EtcdCluster::start(1);
    let three = EtcdCluster::start(3);
    println!("etcd {}, {RUNS} runs each, medians", etcd.version());
    start_to_leading("SQLite", NodeBuilder::new);
    start_to_leading("etcd, 1 member", |id| NodeBuilder::new(id).etcd(&etcd));
    start_to_leading("etcd, 3 members", |id| NodeBuilder::new(id).etcd(&three));
    hand_over("etcd, 3 members", &three);
    access_compared(&three);
    for lease_secs in [5, 30, 86_400] {
        kill_9("etcd, 3 members", &three, lease_secs);
    }
    kill_9_secured();
    next_in_line_dies("etcd, 3 members", &three);
    for lease_secs in [5, 10] {
        survived_stall("etcd, 1 member", lease_secs);
    }
    etcd_refuses(&etcd);
    messages("etcd, 1 member", &etcd);
    idle_all();
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn started_ns(node: &Node) -> u64 {
    node.wait_for("main_loop_started", TIMEOUT).at_ns()
}

fn start_to_leading(what: &str, builder: impl Fn(&str) -> NodeBuilder) {
    let run = |_| {
        let node = builder("n").cluster("start");
        let began = boot_ns();
        let node = node.spawn();
        let took = started_ns(&node) - began;
        node.signal(Signal::TERM);
        node.wait_exit(TIMEOUT);
        took as f64 / 1e6
    };
    println!("start to leading, {what}: {:.1} ms", median((0..RUNS).map(run).collect()));
}

/// Where the time of a change goes, alone: `cargo bench --bench leadership -- stages`.
fn stages() {
    let etcd = EtcdCluster::builder().members(3).syncs().start();
    println!("etcd {} with fsync, {RUNS} runs each, medians", etcd.version());
    hand_over("etcd, 3 members", &etcd);
    kill_9("etcd, 3 members", &etcd, 15);
}

/// A follower is given the record: beside it, run by run and after the same pause, what the store itself takes for a
/// write that another client sees.
fn hand_over(what: &str, etcd: &EtcdCluster) {
    let mut bare = Bare::new(etcd);
    let (mut all, mut bare_all, mut stages) = (Vec::new(), Vec::new(), Stages::default());
    for i in 0..RUNS {
        let node = |id: &str| NodeBuilder::new(id).cluster(&format!("h{i}")).etcd(etcd).spawn();
        let (first, second) = pair(node);
        bare_all.push(bare.put_and_watch());
        std::thread::sleep(PAUSE);
        let asked = boot_ns();
        first.signal(Signal::TERM);
        let started = started_ns(&second);
        all.push((started - asked) as f64 / 1e6);
        first.wait_exit(TIMEOUT);
        stages.note(asked, &first, &second, started);
    }
    let (took, bare) = (median(all), median(bare_all));
    println!(
        "SIGTERM to the next main loop, {what}: {took:.2} ms; a bare put and its watch event: {bare:.2} ms; ratio {:.1}",
        took / bare
    );
    stages.print();
}

fn kill_9(what: &str, etcd: &EtcdCluster, lease_secs: u64) {
    let run = |i| {
        let cluster = format!("k{lease_secs}-{i}");
        let node =
            |id: &str| NodeBuilder::new(id).lease_secs(lease_secs).cluster(&cluster).etcd(etcd).spawn();
        let (first, second) = pair(node);
        let killed = boot_ns();
        support::spawn::signal(first.pid(), Signal::KILL);
        let after =
            |kind: &'static str| second.wait_event(|e| e.kind() == kind && e.at_ns() > killed, TIMEOUT);
        let marks = ["leader_changed", "leadership_won", "main_loop_started"].map(|kind| after(kind).at_ns());
        marks.map(|at| (at - killed) as f64 / 1e6)
    };
    let all: Vec<[f64; 3]> = (0..RUNS).map(run).collect();
    let [vacant, won, started] = [0, 1, 2].map(|i| median(all.iter().map(|marks| marks[i]).collect()));
    println!(
        "kill -9 to the next main loop, {what}, lease {lease_secs} s: {started:.1} ms; the next node saw the vacancy after \
         {vacant:.2}, had won after {won:.2}"
    );
}

/// The same where etcd wants a client certificate and a password: a login costs etcd more than all the rest, so the
/// guardian must not need one. Alone: `cargo bench --bench leadership -- secured`.
fn kill_9_secured() {
    let etcd = EtcdCluster::builder().members(3).tls().start();
    etcd.enable_auth("metad", "secret");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("password");
    std::fs::write(&file, "secret").expect("a file");
    let run = |i| {
        let cluster = format!("secured-{i}");
        let node = |id: &str| {
            let node = NodeBuilder::new(id).lease_secs(30).cluster(&cluster).etcd(&etcd);
            let node = node.env("METAD_STORE__ETCD__USERNAME", "metad");
            node.env("METAD_STORE__ETCD__PASSWORD_FILE", &file).spawn()
        };
        let (first, second) = pair(node);
        std::thread::sleep(SECURED_PAUSE);
        let killed = boot_ns();
        support::spawn::signal(first.pid(), Signal::KILL);
        (started_ns(&second) - killed) as f64 / 1e6
    };
    let all: Vec<f64> = (0..SECURED_RUNS).map(run).collect();
    let (least, most) = all.iter().fold((f64::MAX, 0.0_f64), |(a, b), x| (a.min(*x), b.max(*x)));
    let took = median(all);
    println!(
        "kill -9 to the next main loop, etcd, 3 members, TLS and password, {SECURED_RUNS} runs: {took:.1} ms \
         ({least:.1} to {most:.1})"
    );
}

/// Nodes that speak TLS and ask who is calling, beside plain ones, turn about. Alone: `cargo bench --bench leadership --
/// access`.
fn access_compared(etcd: &EtcdCluster) {
    let dir = tempfile::tempdir().expect("a folder");
    let papers = Papers::create(&dir.path().join("papers"), &["unused"]);
    let run = |i: usize, is_secured: bool, signal: Signal| {
        let cluster = format!("access-{i}-{is_secured}-{}", signal.as_raw());
        let node = |id: &str| {
            let node = NodeBuilder::new(id).lease_secs(30).cluster(&cluster).etcd(etcd);
            if is_secured { papers.of(node).spawn() } else { node.spawn() }
        };
        let (first, second) = pair(node);
        std::thread::sleep(PAUSE);
        let asked = boot_ns();
        support::spawn::signal(first.pid(), signal);
        (started_ns(&second) - asked) as f64 / 1e6
    };
    for (what, signal) in [("SIGTERM", Signal::TERM), ("kill -9", Signal::KILL)] {
        let both: Vec<(f64, f64)> =
            (0..RUNS).map(|i| (run(i, false, signal), run(i, true, signal))).collect();
        let (plain, secured) = both.into_iter().unzip();
        let (plain, secured) = (median(plain), median(secured));
        println!(
            "{what} to the next main loop, etcd, 3 members: plain {plain:.2} ms, with TLS and roles {secured:.2} ms; ratio {:.2}",
            secured / plain
        );
    }
}

/// The candidate that would have been next is dead; then the leader stops.
fn next_in_line_dies(what: &str, etcd: &EtcdCluster) {
    let run = |i| {
        let node = |id: &str| NodeBuilder::new(id).cluster(&format!("l{i}")).etcd(etcd).spawn();
        let (first, second) = pair(node);
        let third = node("c");
        third.wait_for("joined", TIMEOUT);
        std::thread::sleep(PAUSE);
        second.kill();
        let asked = boot_ns();
        first.signal(Signal::TERM);
        (started_ns(&third) - asked) as f64 / 1e6
    };
    let took = median((0..RUNS).map(run).collect());
    println!("kill -9 of the next in line, then SIGTERM, to the next main loop, {what}: {took:.1} ms");
}

/// The longest stall of etcd that a leader survived, as a part of its lease.
fn survived_stall(what: &str, lease_secs: u64) {
    let etcd = EtcdCluster::start(1);
    let survives = |percent: &u64| {
        let node = NodeBuilder::new("a").lease_secs(lease_secs).cluster(&format!("s{percent}")).etcd(&etcd);
        let node = node.spawn();
        started_ns(&node);
        std::thread::sleep(Duration::from_secs(1));
        etcd.pause_all();
        std::thread::sleep(Duration::from_millis(lease_secs * 10 * percent));
        etcd.resume_all();
        std::thread::sleep(Duration::from_secs(1));
        !node.has_event("main_loop_stopping")
    };
    let longest = (84..100).step_by(2).take_while(survives).last().unwrap_or(0);
    println!("survived stall, {what}, lease {lease_secs} s: {:.2} of the lease", longest as f64 / 100.0);
}

/// A follower cannot reach etcd for 15 s.
fn etcd_refuses(etcd: &EtcdCluster) {
    let proxy = FaultProxy::start(etcd.addr(0));
    let leader = NodeBuilder::new("a").cluster("refused").etcd(etcd).spawn();
    started_ns(&leader);
    let follower = NodeBuilder::new("b").cluster("refused").endpoints([proxy.addr()]).spawn();
    follower.wait_for("joined", TIMEOUT);
    std::thread::sleep(PAUSE);
    let (cpu, lines) = (cpu_secs(follower.pid()), follower.stderr().lines().count());
    proxy.refuse();
    std::thread::sleep(Duration::from_secs(15));
    let (cpu, lines) = (cpu_secs(follower.pid()) - cpu, follower.stderr().lines().count() - lines);
    println!("a follower whom etcd refuses for 15 s, lease 5 s: {cpu:.3} CPU s, {lines} lines of log");
}

/// What a leader and a follower say to etcd while nothing happens.
fn messages(what: &str, etcd: &EtcdCluster) {
    for lease_secs in [5, 15, 86_400] {
        let node = |id: &str| {
            let node = NodeBuilder::new(id).lease_secs(lease_secs).cluster(&format!("m{lease_secs}"));
            node.without_tick().etcd(etcd).spawn()
        };
        let _nodes = pair(node);
        let before = received(etcd);
        std::thread::sleep(IDLE);
        let rate = (received(etcd) - before) / IDLE.as_secs_f64();
        println!(
            "messages to etcd, {what}, a leader and a follower, lease {lease_secs} s: {rate:.1} per second"
        );
    }
}

/// How many gRPC messages etcd has received.
fn received(etcd: &EtcdCluster) -> f64 {
    let (_, page) = support::http::get(etcd.addr(0), "/metrics", TIMEOUT).expect("etcd has metrics");
    let counters = page.lines().filter(|l| l.starts_with("grpc_server_msg_received_total{"));
    counters.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

fn pair(node: impl Fn(&str) -> Node) -> (Node, Node) {
    let first = node("a");
    started_ns(&first);
    let second = node("b");
    second.wait_for("joined", TIMEOUT);
    std::thread::sleep(PAUSE);
    (first, second)
}

/// A put and its watch event, with metad's own store client on both sides.
struct Bare {
    runtime: tokio::runtime::Runtime,
    store: EtcdStore,
    events: BoxStream<'static, Result<WatchBatch, StoreError>>,
}

impl Bare {
    fn new(etcd: &EtcdCluster) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        let (store, events) = runtime.block_on(async {
            let store = bare::open(etcd.endpoints());
            let at = put(&store).await;
            let range = KeyRange::prefix("/bench/");
            let events = store.watch(range, at, Duration::from_secs(60)).await.expect("a watch");
            (store, events)
        });
        Self { runtime, store, events }
    }

    /// In milliseconds.
    fn put_and_watch(&mut self) -> f64 {
        let Self { runtime, store, events } = self;
        runtime.block_on(async {
            let began = boot_ns();
            let (_, seen) = tokio::join!(put(store), async {
                loop {
                    match events.next().await {
                        Some(Ok(batch)) if batch.changes.is_empty() => {}
                        seen => return seen,
                    }
                }
            });
            seen.expect("an event").expect("a batch");
            (boot_ns() - began) as f64 / 1e6
        })
    }
}

async fn put(store: &EtcdStore) -> Revision {
    bare::put(store, "/bench/key".into(), b"value").await
}

/// What an idle leader costs, alone: `cargo bench --bench leadership -- idle`.
fn idle_all() {
    idle("SQLite", &NodeBuilder::new("idle").lease_secs(15).without_tick());
    let etcd = EtcdCluster::builder().members(3).syncs().start();
    let node = |id: &str| NodeBuilder::new(id).lease_secs(15).without_tick().etcd(&etcd);
    idle_writes(&etcd, &node);
    idle("etcd, 3 members", &node("idle").cluster("idle"));
    let what = "etcd, 3 members, lease 86400 s";
    idle(what, &node("idle").lease_secs(86_400).cluster("long"));
}

/// What three idle nodes make etcd write: its syncs of the log on all members, with them and without.
fn idle_writes(etcd: &EtcdCluster, node: &impl Fn(&str) -> NodeBuilder) {
    let syncs =
        || (0..etcd.size()).map(|i| etcd.metric(i, "etcd_disk_wal_fsync_duration_seconds_count")).sum();
    let window = || {
        let before: f64 = syncs();
        std::thread::sleep(IDLE_WRITES);
        syncs() - before
    };
    let without = window();
    let nodes = ["n1", "n2", "n3"].map(|id| node(id).spawn());
    nodes.iter().for_each(|n| _ = n.wait_for("joined", TIMEOUT));
    std::thread::sleep(Duration::from_secs(5)); // the history's row, the first renewals
    let revision = etcd.revision();
    let with = window();
    println!(
        "etcd's syncs of its log in {IDLE_WRITES:?}, 3 members: {without} without metad, {with} with three idle nodes; its \
         revision: {revision} before, {} after",
        etcd.revision()
    );
}

fn idle(what: &str, builder: &NodeBuilder) {
    let node = builder.spawn();
    started_ns(&node);
    std::thread::sleep(Duration::from_secs(2));
    // The least disturbed of a few windows: on a virtual machine the count includes what the host takes away.
    for (name, pid) in [("main process", node.pid()), ("guardian", node.guardian())] {
        let woken = wake_ups(pid);
        let window = |_| {
            let before = cpu_secs(pid);
            std::thread::sleep(IDLE);
            (cpu_secs(pid) - before) * 60.0 / IDLE.as_secs_f64()
        };
        let all: Vec<f64> = (0..IDLE_WINDOWS).map(window).collect();
        let (least, most) = all.iter().fold((f64::MAX, 0.0_f64), |(a, b), x| (a.min(*x), b.max(*x)));
        let per_second = (wake_ups(pid) - woken) as f64 / (IDLE * IDLE_WINDOWS as u32).as_secs_f64();
        println!(
            "idle leader, {what}, {name}: {:.1} MB RSS, {least:.3} CPU s per minute (most: {most:.3}), woken \
             {per_second:.1} times a second",
            rss_mb(pid)
        );
    }
}
