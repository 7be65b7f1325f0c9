//! Strangers that take what they can: connections, handshakes, headers, streams, places of readers. They get less of each
//! other, never the lease, and a probe is answered throughout.
//!
//! All of it is bounded in number and time, and stays on loopback.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::support;
use crate::support::crew::{PATIENCE, assert_kept, between, setting, slack, started_ns};
use crate::support::etcd::EtcdCluster;
use crate::support::node::{Node, NodeBuilder};
use crate::support::poll::{boot_ns, holds_within, wait_until};
use crate::support::wire::{Dialer, Net, Speaks, Wire};
use crate::support::{spawn, usage};
use metad::client::{BarrierEvent, Barriers, MetaClient, WorkerSpec};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

/// How many files the node may open.
const DESCRIPTORS: u64 = 256;
const IDLE: usize = 1000;
const HALF_OPEN: usize = 200;
const SLOW: usize = 100;
const READERS: usize = 64;
/// How many requests are reset on one connection.
const RESETS: usize = 10_000;
/// How long the strangers stay.
const STAY: Duration = Duration::from_secs(10);
/// What the node may use meanwhile: 1 s, and twice as much where its libraries are not optimized.
const CPU_MAX: Duration = Duration::from_secs(if cfg!(debug_assertions) { 2 } else { 1 });
/// What each handshake, and each connection above the usual number, may cost besides.
const CPU_OF_CONNECTION_MAX: Duration = Duration::from_millis(if cfg!(debug_assertions) { 5 } else { 2 });
const RSS_MB_MAX: f64 = 100.0;
/// How long after the death of a leader with many workers the next main loop starts at the latest.
const START_MAX: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(5);

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// An empty SETTINGS frame.
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
/// The beginning of a TLS handshake, which never goes on.
const CLIENT_HELLO: [u8; 11] = [0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3];

/// Asks a probe all the time.
struct Prober {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Probed>,
}

#[derive(Default)]
struct Probed {
    answered: usize,
    failed: Vec<String>,
    slowest: Duration,
}

impl Prober {
    fn start(net: &Arc<Net>, at: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, net) = (stop.clone(), net.clone());
        let thread = thread::spawn(move || {
            let mut probed = Probed::default();
            while !stopped.load(Ordering::Relaxed) {
                let began = Instant::now();
                match net.get(at, "/livez") {
                    Ok((200, _)) => probed.answered += 1,
                    other => probed.failed.push(format!("{other:?} after {:?}", began.elapsed())),
                }
                probed.slowest = probed.slowest.max(began.elapsed());
                thread::sleep(Duration::from_millis(50));
            }
            probed
        });
        Self { stop, thread }
    }

    fn stop(self) -> Probed {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the prober's thread")
    }
}

/// The tests themselves hold both ends of nothing, but many ends of their own.
fn raise_own_limit() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

fn connect(at: SocketAddr) -> Option<TcpStream> {
    let stream = TcpStream::connect_timeout(&at, TIMEOUT).ok()?;
    stream.set_write_timeout(Some(TIMEOUT)).ok()?;
    stream.set_read_timeout(Some(TIMEOUT)).ok()?;
    Some(stream)
}

/// So many connections that have said this and nothing more.
fn say(at: SocketAddr, n: usize, what: &[u8]) -> Vec<TcpStream> {
    let connected = (0..n).filter_map(|_| connect(at));
    connected.filter_map(|mut s| s.write_all(what).ok().map(|()| s)).collect()
}

/// The same of a connection that speaks what the node speaks.
fn say_in(dialer: &Dialer, at: SocketAddr, n: usize, what: &[u8]) -> Vec<Wire> {
    let connected = (0..n).filter_map(|_| dialer.dial(at).ok());
    connected.filter_map(|mut s| s.write_all(what).ok().map(|()| s)).collect()
}

/// Begins and resets requests on one connection, until the node ends it or all are done. How many it took.
fn reset_rapidly(dialer: &Dialer, at: SocketAddr) -> usize {
    let Ok(mut stream) = dialer.dial(at) else { return 0 };
    if stream.write_all(PREFACE).and_then(|()| stream.write_all(&SETTINGS)).is_err() {
        return 0;
    }
    // :method POST, :scheme http, :path /, all from HPACK's static table.
    let block = [0x83, 0x86, 0x84];
    for n in 0..RESETS {
        let id = u32::try_from(n * 2 + 1).expect("few streams").to_be_bytes();
        let head = [&[0, 0, block.len() as u8, 1, 0x4][..], &id, &block].concat();
        let reset = [&[0, 0, 4, 3, 0][..], &id, &[0, 0, 0, 8]].concat();
        if stream.write_all(&[head, reset].concat()).is_err() {
            return n;
        }
    }
    RESETS
}

/// The sum of a metric's samples whose labels contain this.
fn metric(node: &Node, name: &str, labels: &str) -> f64 {
    metric_in(&Net::Plain, node, name, labels)
}

fn metric_in(net: &Net, node: &Node, name: &str, labels: &str) -> f64 {
    let (_, page) = net.get(node.http_addr(), "/metrics").expect("an answer");
    let samples = page.lines().filter(|l| l.starts_with(name) && l.contains(labels));
    samples.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

fn reached(node: &Node, limit: &str) -> f64 {
    reached_in(&Net::Plain, node, limit)
}

fn reached_in(net: &Net, node: &Node, limit: &str) -> f64 {
    metric_in(net, node, "metad_limits_reached_total{", &format!("limit=\"{limit}\""))
}

/// A leader with so many descriptors, and one that would take over.
fn pair(net: &Net, etcd: &EtcdCluster, lease_secs: u64, descriptors: Option<u64>) -> [Node; 2] {
    raise_own_limit();
    let node = |id| net.of(NodeBuilder::new(id).lease_secs(lease_secs).etcd(etcd));
    let first = node("a").env("METAD_RPC__FIRST_REQUEST_TIMEOUT_SECS", "5");
    let first = descriptors.map_or(first.clone(), |limit| first.descriptors(limit)).spawn();
    first.wait_for("main_loop_started", PATIENCE);
    let second = node("b").spawn();
    second.wait_for("joined", PATIENCE);
    [first, second]
}

/// Is everything served?
fn assert_serves(net: &Net, node: &Node) {
    let asked = |path| net.get(node.http_addr(), path);
    for path in ["/livez", "/readyz", "/metrics", "/api/v1/state", "/"] {
        wait_until(path, PATIENCE, || asked(path).is_ok_and(|(code, _)| code == 200));
    }
    let address = node.rpc_addr().to_string();
    let shown = net.shown("admin");
    let args = ["status", "--meta", &address].into_iter().chain(shown.iter().map(String::as_str));
    let (code, said, error) = spawn::metad(&args.collect::<Vec<_>>(), PATIENCE);
    assert_eq!(code, 0, "{said}{error}");
}

#[test]
fn strangers_cost_neither_the_lease_nor_a_probe() {
    strangers_cost_nothing(Net::Plain, IDLE, Some(DESCRIPTORS));
}

/// With as many descriptors as the system gives, so that the memory is bounded by nothing but the node's own limits.
#[test]
fn strangers_inside_tls_cost_neither_the_lease_nor_a_probe_nor_memory() {
    strangers_cost_nothing(Net::tls(), IDLE, None);
}

#[test]
#[ignore = "make flood"]
fn ten_thousand_idle_strangers_in_plain_text() {
    strangers_cost_nothing(Net::Plain, 10 * IDLE, None);
}

#[test]
#[ignore = "make flood"]
fn ten_thousand_idle_strangers_inside_tls() {
    strangers_cost_nothing(Net::tls(), 10 * IDLE, None);
}

fn strangers_cost_nothing(net: Net, idle: usize, descriptors: Option<u64>) {
    let net = Arc::new(net);
    let etcd = EtcdCluster::start(1);
    let nodes = pair(&net, &etcd, 5, descriptors);
    let (rpc, web) = (nodes[0].rpc_addr(), nodes[0].http_addr());
    let prober = Prober::start(&net, web);
    let [http1, http2, reader] = [Speaks::Http1, Speaks::Http2, Speaks::ReaderOfHttp1].map(|s| net.dialer(s));
    let events = b"GET /api/v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
    let cpu = spawn::cpu_time(nodes[0].pid());
    let began = Instant::now();
    let mut strangers = say_in(&reader, web, READERS, events);
    strangers.extend(say_in(&http2, rpc, idle / 2, b""));
    strangers.extend(say_in(&http1, web, idle / 2, b""));
    let half_open = say(rpc, HALF_OPEN / 2, &CLIENT_HELLO);
    strangers.extend(say_in(&http2, rpc, HALF_OPEN / 2, PREFACE));
    let mut slow = say_in(&http1, web, SLOW, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ");
    let resets = reset_rapidly(&http2, rpc);
    assert!(strangers.len() > idle, "twin: strangers are there: {}", strangers.len());
    let all_are_there = Instant::now();
    while all_are_there.elapsed() < STAY {
        slow.retain_mut(|stream| stream.write_all(b"x").is_ok());
        thread::sleep(Duration::from_millis(500));
    }
    let (cpu, rss) = (spawn::cpu_time(nodes[0].pid()) - cpu, usage::rss_mb(nodes[0].pid()));
    let probed = prober.stop();
    println!(
        "{} strangers: {cpu:.2?} of CPU in {:.1?}, {rss:.0} MB, {} probes answered, the slowest after {:.0?}; {resets} resets",
        strangers.len(),
        began.elapsed(),
        probed.answered,
        probed.slowest
    );
    assert!(probed.failed.is_empty(), "probes without an answer: {:?}", probed.failed);
    assert!(probed.answered > 0);
    let costly = match *net {
        Net::Plain => idle - IDLE,
        Net::Tls { .. } => strangers.len() + SLOW + probed.answered,
    };
    let costly = u32::try_from(costly).expect("few");
    assert!(cpu < CPU_MAX + CPU_OF_CONNECTION_MAX * costly, "{cpu:?}");
    assert!(rss < RSS_MB_MAX, "{rss} MB");
    // Everybody who asks is served while the strangers are still there.
    assert_serves(&net, &nodes[0]);
    for limit in ["made_way", "first_request"] {
        assert!(reached_in(&net, &nodes[0], limit) > 0.0, "twin: {limit} was reached");
    }
    assert_kept(&nodes, 0, Duration::ZERO);
    drop((strangers, half_open, slow));
    assert_serves(&net, &nodes[0]);
    assert_kept(&nodes, 0, Duration::from_secs(1));
}

#[test]
fn readers_that_never_read_make_way_for_the_next_one() {
    let node = NodeBuilder::new("a").spawn();
    node.wait_for("main_loop_started", PATIENCE);
    let ask = b"GET /api/v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
    let silent = say(node.http_addr(), READERS, ask);
    assert_eq!(silent.len(), READERS);
    for _ in 0..READERS / 2 {
        let mut reader = say(node.http_addr(), 1, ask).pop().expect("a connection");
        let mut answer = [0; 12];
        reader.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 200");
    }
    assert!(reached(&node, "readers") > 0.0, "twin: there were too many");
}

#[test]
fn a_name_that_is_not_ours_is_refused_and_every_answer_is_hardened() {
    let node = NodeBuilder::new("a").env("METAD_HTTP__ALLOWED_HOSTS", "meta.example.com").spawn();
    node.wait_for("main_loop_started", PATIENCE);
    let ask = |path: &str, host: &str| {
        let mut stream = connect(node.http_addr()).expect("it listens");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        for header in ["content-security-policy: default-src 'self'", "x-content-type-options: nosniff"] {
            assert!(answer.contains(header), "{header} in {answer}");
        }
        answer.split_whitespace().nth(1).and_then(|code| code.parse::<u16>().ok()).expect("a status")
    };
    for path in ["/", "/api/v1/state", "/metrics", "/leader", "/nothing"] {
        assert_eq!(ask(path, "rebound.example.net"), 421, "{path}");
    }
    for host in ["127.0.0.1", "localhost:1", "a", "meta.example.com:5691"] {
        assert_eq!(ask("/api/v1/state", host), 200, "{host}");
    }
    assert_eq!(ask("/livez", "rebound.example.net"), 200, "a probe tells nothing");
    assert!(reached(&node, "host") > 0.0);
}

#[test]
fn idle_clients_do_not_cost_the_lease_when_etcd_comes_back() {
    let etcd = EtcdCluster::start(1);
    let nodes = pair(&Net::Plain, &etcd, 10, Some(DESCRIPTORS));
    let clients = [say(nodes[0].rpc_addr(), 700, b""), say(nodes[0].http_addr(), 400, b"")];
    assert_eq!(clients.iter().map(Vec::len).sum::<usize>(), 1100);
    let limits = || reached(&nodes[0], "made_way") + reached(&nodes[0], "connections");
    wait_until("there are too many", PATIENCE, || limits() > 0.0);
    etcd.kill(0);
    thread::sleep(Duration::from_millis(3500)); // each connection to it has ended by then
    etcd.restart(0);
    assert_kept(&nodes, 0, Duration::from_secs(10)); // a lease
}

#[test]
fn a_node_that_may_open_no_more_files_says_so() {
    let etcd = EtcdCluster::start(1);
    let node = NodeBuilder::new("a").lease_secs(5).etcd(&etcd).spawn();
    node.wait_for("main_loop_started", PATIENCE);
    let pid = Pid::from_raw(node.pid() as i32).expect("a process id");
    let limit = getrlimit(Resource::Nofile);
    // What is open stays open, and nothing else can be.
    let none = Rlimit { current: Some(3), maximum: limit.maximum };
    prlimit(Some(pid), Resource::Nofile, none).expect("a limit of one's own process");
    // Clients that it cannot accept wait in the queue of the kernel, and cost nothing.
    let clients: Vec<_> = (0..20).filter_map(|_| connect(node.rpc_addr())).collect();
    let cpu = usage::cpu_secs(node.pid());
    thread::sleep(Duration::from_secs(2));
    let cpu = usage::cpu_secs(node.pid()) - cpu;
    assert!(!clients.is_empty() && cpu < 1.0, "{} clients, {cpu} s of CPU in 2 s", clients.len());
    etcd.kill(0);
    etcd.restart(0);
    let named = |e: &support::history::TimedEvent| e.kind() == "verdict" && e.str("verdict") == "own_limits";
    let verdict = node.wait_event(named, PATIENCE);
    assert!(verdict.str("text").contains("LimitNOFILE"), "{}", verdict.json);
    assert_eq!(node.wait_exit(PATIENCE), 75);
    assert!(!holds_within(Duration::ZERO, || node.is_alive()));
}

fn client(nodes: &[Node]) -> MetaClient {
    MetaClient::new(nodes.iter().filter(|n| n.is_alive()).map(|n| n.rpc_addr().to_string()))
        .expect("addresses")
}

/// Collects barriers until so many are committed. How many were dropped meanwhile.
async fn take_part(barriers: &mut Barriers, commits: usize) -> usize {
    let (mut committed, mut dropped) = (0, 0);
    while committed < commits {
        match barriers.next().await.expect("the stream goes on") {
            BarrierEvent::Barrier(barrier) => barriers.collected(barrier.epoch).await.expect("it reads"),
            BarrierEvent::Committed(_) => committed += 1,
            BarrierEvent::Dropped(_) => dropped += 1,
            BarrierEvent::SetAside(_) => panic!("this one reports everything"),
        }
    }
    dropped
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_never_reports_does_not_stop_the_commits() {
    let node = NodeBuilder::new("a")
        .env("METAD_META__BARRIER_INTERVAL_MS", "100")
        .env("METAD_META__BARRIER_COLLECT_TIMEOUT_MS", "1000")
        .spawn();
    node.wait_for("main_loop_started", PATIENCE);
    let nodes = [node];
    let client = client(&nodes);
    let spec =
        |host: &str| WorkerSpec { host: host.into(), port: 1, kind: "x".into(), labels: BTreeMap::new() };
    let good = client.register_worker(spec("good")).await.expect("registered").worker_id;
    let mute = client.register_worker(spec("mute")).await.expect("registered").worker_id;
    let mut silent = client.barriers(mute).await.expect("a stream");
    let mut reports = client.barriers(good).await.expect("a stream");
    let told = tokio::spawn(async move {
        let mut failures = None;
        while failures.is_none() {
            if let BarrierEvent::SetAside(aside) = silent.next().await.expect("the stream goes on") {
                failures = Some(aside.failures);
            }
        }
        (silent, failures)
    });
    let dropped = take_part(&mut reports, 5).await;
    let (mut silent, failures) = told.await.expect("it was told");
    assert_eq!(failures, Some(3));
    assert!(dropped >= 3, "twin: {dropped} were dropped, and everybody was told");
    let set_aside = async || {
        let workers = client.list_workers().await.expect("a list");
        workers.into_iter().filter(|w| w.set_aside).map(|w| w.id).collect::<Vec<_>>()
    };
    assert_eq!(set_aside().await, [mute]);
    assert_eq!(metric(&nodes[0], "metad_workers_set_aside", ""), 1.0);
    // It takes part again once it reports.
    let back = tokio::spawn(async move { take_part(&mut silent, usize::MAX).await });
    let mut commits = 0;
    while !set_aside().await.is_empty() {
        take_part(&mut reports, 1).await;
        commits += 1;
        assert!(commits < 500, "it is not taken back");
    }
    back.abort();
}

/// What a worker may say of itself at most.
fn longest(n: usize) -> WorkerSpec {
    let labels = (0..16).map(|i| (format!("{i:0>63}"), "v".repeat(255))).collect();
    WorkerSpec { host: format!("{n:h>253}"), port: 65_535, kind: "k".repeat(63), labels }
}

/// `METAD_EXHAUSTION_WORKERS` says how many.
#[test]
fn many_workers_with_the_longest_labels_outlive_their_leader_and_expire() {
    let n = usize::try_from(setting("METAD_EXHAUSTION_WORKERS", 1000)).expect("a number");
    let silence = 10 + n / 100;
    let etcd = EtcdCluster::start(1);
    let node = |id| {
        let node = NodeBuilder::new(id).lease_secs(5).etcd(&etcd);
        let node = node.env("METAD_META__MAX_HEARTBEAT_INTERVAL_SECS", silence.to_string()).spawn();
        node.wait_for("joined", PATIENCE);
        node
    };
    let nodes = [node("a"), node("b")];
    nodes[0].wait_for("main_loop_started", PATIENCE);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let began = Instant::now();
    runtime.block_on(async {
        let mut clients = tokio::task::JoinSet::new();
        for first in 0..64 {
            let client = client(&nodes);
            clients.spawn(async move {
                for one in (first..n).step_by(64) {
                    client.register_worker(longest(one)).await.expect("registered");
                }
            });
        }
        clients.join_all().await
    });
    let registered = began.elapsed();
    let leader_rss = usage::rss_mb(nodes[0].pid());
    let killed = boot_ns();
    nodes[0].kill();
    let started = started_ns(&nodes[1]);
    let takes_over = between(killed, started);
    let list = || runtime.block_on(async { client(&nodes).list_workers().await.expect("a list") });
    let mut ids: Vec<_> = list().iter().map(|w| w.id).collect();
    let (opened, rss) = (between(started, boot_ns()), usage::rss_mb(nodes[1].pid()));
    ids.dedup();
    assert_eq!(ids.len(), n, "each one on one page, in order");
    let left = || metric(&nodes[1], "metad_workers ", "");
    let expiring = Instant::now();
    wait_until("all have expired", Duration::from_secs(silence as u64) + PATIENCE * 2, || left() == 0.0);
    println!(
        "{n} workers: registered in {registered:.1?}, leader {leader_rss:.0} MB; after its kill -9 the next main loop starts \
         in {takes_over:.2?} and has listed them all after {opened:.1?}, with {rss:.0} MB; gone after {:.1?}, {:.0} MB",
        expiring.elapsed(),
        usage::rss_mb(nodes[1].pid())
    );
    assert!(leader_rss.max(rss) < 150.0, "{leader_rss} and {rss} MB");
    assert!(takes_over < START_MAX + slack(killed, started), "{takes_over:?}");
}

#[test]
fn many_who_read_large_values_at_once_hold_little_memory() {
    const KEYS: usize = 128;
    const READING: usize = 16;
    let etcd = EtcdCluster::start(1);
    let node = NodeBuilder::new("a").etcd(&etcd).spawn();
    node.wait_for("main_loop_started", PATIENCE);
    let nodes = [node];
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let found = runtime.block_on(async {
        let writer = client(&nodes);
        for n in 0..KEYS {
            writer.put(&format!("large/{n:03}"), vec![b'x'; 512 * 1024]).await.expect("written");
        }
        let mut readers = tokio::task::JoinSet::new();
        for _ in 0..READING {
            let reader = client(&nodes);
            readers.spawn(async move {
                let (mut found, mut after) = (0, String::new());
                loop {
                    let page = reader.range("large/", &after, 0).await.expect("a page");
                    found += page.entries.len();
                    match page.entries.last() {
                        Some(last) if page.more => after.clone_from(&last.key),
                        _ => return found,
                    }
                }
            });
        }
        readers.join_all().await
    });
    assert_eq!(found, [KEYS; READING], "each has read everything");
    let rss = usage::rss_mb(nodes[0].pid());
    println!("{READING} have read {} MiB each, with {rss:.0} MB", KEYS / 2);
    assert!(rss < 200.0, "{rss} MB");
}
