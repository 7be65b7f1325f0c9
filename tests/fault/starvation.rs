//! A leader that does not get to run: a blocked runtime, a stopped process; and one whose clock steps.
//!
//! `METAD_FAULT_LEASE_SECS` and `METAD_FAULT_STARVE_SECS` change the lengths (`make faults`).

use std::io::Write;
use std::time::Duration;

use crate::cpus;
use crate::support::crew::{
    PATIENCE, assert_kept, assert_not_early, between, lease, report, setting, slack, started_ns, tenures,
    wait_for_leader,
};
use crate::support::etcd::EtcdCluster;
use crate::support::node::{Node, NodeBuilder};
use crate::support::poll::{boot_ns, wait_until};
use crate::support::proxy::FaultProxy;
use crate::support::{fenced, history, http, install, ourselves, witness};

pub fn node(id: &str, etcd: &EtcdCluster) -> NodeBuilder {
    NodeBuilder::new(id).lease_secs(lease().as_secs()).etcd(etcd)
}

// --- a blocked runtime -----------------------------------------------------------------------------------------------

/// For how long the child's main loop blocks, in milliseconds.
const BLOCK_MS: &str = "TEST_BLOCK_MS";
const STILL_LEADING: &str = "awake, and still leading";

/// Not a test but a node, made with the library: its main loop blocks every worker of its runtime. The tests below
/// start this program again to be it. It has no guardian: what is shown is what the process does by itself, and
/// this program's `main` is the test harness's, which does not call `run_if_asked`.
#[test]
#[ignore = "started by other tests, as a node"]
fn a_node_whose_main_loop_blocks_its_runtime() {
    let blocked = Duration::from_millis(setting(BLOCK_MS, 0));
    assert!(!blocked.is_zero(), "this is no test: others start it, as a node");
    let config = metad::config::load(None, metad::config::process_env(), &[]).expect("valid").config;
    let events = metad::telemetry::printer::Printer::start(std::io::stdout()).expect("a thread");
    let main_loop = async move |leadership: metad::driver::leadership::Leadership| {
        std::thread::sleep(blocked);
        if leadership.check().is_ok() {
            let _ = writeln!(std::io::stdout(), "{STILL_LEADING}");
        }
        leadership.lost().await;
    };
    // One worker, and the loop sleeps on it: nothing else on this runtime runs meanwhile.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let exit = runtime.block_on(async {
        let builder = metad::node::Node::builder(config).main_loop(main_loop).events(events);
        builder.start().await.expect("started").wait().await.0
    });
    std::process::exit(exit.code());
}

/// A leader whose main loop has just blocked its runtime, and a follower.
fn blocked_leader(etcd: &EtcdCluster, endpoints: Vec<String>, for_so_long: Duration) -> Vec<Node> {
    let program = ourselves::command(a_node_whose_main_loop_blocks_its_runtime);
    let first = NodeBuilder::new("blocked")
        .lease_secs(lease().as_secs())
        .env("METAD_STORE__ETCD__ENDPOINTS", endpoints.join(","))
        .env("METAD_NODE__GUARDIAN", "false")
        .env(BLOCK_MS, for_so_long.as_millis().to_string())
        .spawn_program(program);
    first.wait_for("main_loop_started", PATIENCE);
    let second = node("b", etcd).spawn();
    second.wait_for("joined", PATIENCE);
    let probe = http::get(first.http_addr(), "/livez", Duration::from_millis(500));
    assert!(probe.is_err(), "the runtime is blocked, so it cannot answer: {probe:?}");
    vec![first, second]
}

#[test]
fn a_blocked_runtime_does_not_cost_the_leadership() {
    let _cpu = cpus::some();
    let etcd = EtcdCluster::start(3);
    let nodes = blocked_leader(&etcd, etcd.endpoints(), lease() * 3);
    wait_until("the main loop is awake", lease() * 3 + PATIENCE, || {
        nodes[0].stdout().contains(STILL_LEADING) || !nodes[0].is_alive()
    });
    assert_kept(&nodes, 0, Duration::from_secs(1));
    assert!(between(started_ns(&nodes[0]), boot_ns()) > lease() * 3, "it was blocked for that long");
}

#[test]
fn a_blocked_runtime_without_etcd_is_ended_by_the_fuse_before_anybody_else_leads() {
    let _cpu = cpus::some();
    let etcd = EtcdCluster::start(3);
    let proxies: Vec<_> = (0..3).map(|i| FaultProxy::start(etcd.addr(i))).collect();
    let endpoints = proxies.iter().map(|proxy| proxy.addr().to_string()).collect();
    let nodes = blocked_leader(&etcd, endpoints, lease() * 4);
    proxies.iter().for_each(FaultProxy::black_hole);
    let cut = boot_ns();
    let code = nodes[0].wait_exit(lease() + PATIENCE);
    let died = nodes[0].died_ns().expect("dead");
    // Where processes had to wait, the kernel's timer may be faster than the fuse's thread.
    assert!(code == 76 || code == 137 && witness::starved_before(died), "exit {code}: {}", report(&nodes));
    let lived = between(cut, died);
    assert!(lived < lease() + slack(cut, died), "the fuse burned for {lived:?}");
    assert_not_early(cut, died, lease());
    assert!(!nodes[0].has_event("main_loop_stopped"), "nothing but the fuse, or the kernel timer, ended it");
    wait_for_leader(&nodes[1..], lease() + PATIENCE);
    assert_eq!(tenures(&nodes).len(), 2);
}

// --- a stopped process -----------------------------------------------------------------------------------------------

#[test]
fn a_stopped_leader_without_a_guardian_is_ended_by_its_kernel_timer_and_writes_nothing_after_its_lease() {
    let _cpu = cpus::some();
    let etcd = EtcdCluster::start(1);
    // It ticks often, so that it wakes up in the middle of a write.
    let often = |id| node(id, &etcd).env("METAD_META__TICK_INTERVAL_MS", "10");
    let first = often("a").env("METAD_NODE__GUARDIAN", "false").spawn();
    first.wait_for("main_loop_started", PATIENCE);
    let second = often("b").spawn();
    second.wait_for("joined", PATIENCE);
    let nodes = [first, second];
    std::thread::sleep(Duration::from_secs(1)); // it writes meanwhile
    nodes[0].pause();
    let paused = boot_ns();
    assert_eq!(nodes[0].wait_exit(lease() + PATIENCE), 137, "{}", report(&nodes));
    wait_for_leader(&nodes[1..], PATIENCE);
    // A process that stands still does nothing; from there on the writes tell.
    let mut traces: Vec<_> = nodes.iter().map(Node::trace).collect();
    traces[0].died_ns = Some(paused);
    let tenures = history::check(&traces).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(tenures.len(), 2);
    std::thread::sleep(Duration::from_secs(1)); // whatever is on its way arrives
    let writes = fenced::check(&etcd, "default", &tenures).unwrap_or_else(|e| panic!("{e}"));
    assert!(writes.fenced > 10, "they wrote: {writes:?}");
}

// --- a clock that steps ----------------------------------------------------------------------------------------------

/// How far the node's wall clock is ahead, in seconds, judged by an event that begins now.
fn skew_secs(node: &Node, kind: &str, member: &str) -> i64 {
    let event = node.wait_event(|event| event.kind() == kind && event.str("member") == member, PATIENCE);
    let since = between(event.read_ns, boot_ns()).as_secs() as i64;
    let shown: jiff::Timestamp = event.str("time").parse().expect("a time");
    let stamped = between(event.at_ns(), event.read_ns);
    assert!(stamped < Duration::from_secs(60), "BOOTTIME is left alone: {stamped:?}");
    shown.as_second() - (jiff::Timestamp::now().as_second() - since)
}

#[test]
fn a_wall_clock_that_steps_an_hour_forth_and_back_costs_nothing() {
    let _cpu = cpus::some();
    let etcd = EtcdCluster::start(1);
    let folder = tempfile::tempdir().expect("a folder");
    let clock = folder.path().join("clock");
    let step = |by: &str| std::fs::write(&clock, by).expect("written");
    step("+0");
    let stepping = node("a", &etcd)
        .env("LD_PRELOAD", install::libfaketime())
        .env("FAKETIME_TIMESTAMP_FILE", &clock)
        .env("FAKETIME_NO_CACHE", "1")
        // Only the wall clock: the others do not step on a real machine either.
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let first = stepping.spawn();
    first.wait_for("main_loop_started", PATIENCE);
    let nodes = vec![first];
    for (by, member, expected) in [("+3600", "b", 3600), ("-3600", "c", -3600)] {
        step(by);
        assert_kept(&nodes, 0, lease() * 2);
        let visitor = node(member, &etcd).spawn();
        let skew = skew_secs(&nodes[0], "member_joined", member);
        assert!((skew - expected).abs() < 60, "the step by {by} was seen: {skew}");
        visitor.kill();
    }
    assert_kept(&nodes, 0, lease());
}
