//! Several nodes together: who leads, and what the history says of them all.

use std::time::Duration;

use super::history::{self, Tenure};
use super::node::{Node, NodeBuilder};
use super::papers;
use super::poll::{holds_within, wait_until};
use super::witness;

/// Starting processes and etcd on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// What an instant on a recorded clock may be late by, beyond what the protocol promises, because a process had
/// to wait for a CPU: the tests share few cores with each other.
pub const SCHEDULING_SLACK: Duration = Duration::from_secs(1);

/// The same for what happened between two instants: as much more as processes had to wait meanwhile.
pub fn slack(from_ns: u64, to_ns: u64) -> Duration {
    SCHEDULING_SLACK + witness::waited(from_ns, to_ns)
}

/// A number from the environment, such as a length that `make faults` varies.
pub fn setting(name: &str, default: u64) -> u64 {
    let named = |text: String| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number"));
    std::env::var(name).map_or(default, named)
}

/// The lease of the tests of faults.
pub fn lease() -> Duration {
    Duration::from_secs(setting("METAD_FAULT_LEASE_SECS", 5))
}

/// How long something hangs in the tests of faults.
pub fn hang() -> Duration {
    Duration::from_secs(setting("METAD_FAULT_HANG_SECS", 12))
}

/// Does its main loop run, as far as is known yet?
pub fn leads(node: &Node) -> bool {
    node.is_alive() && node.has_event("main_loop_started") && !node.has_event("main_loop_stopped")
}

/// The second one takes over from the first, and nobody else led.
#[track_caller]
pub fn assert_second_leads(nodes: &[Node]) {
    assert!(holds_within(PATIENCE, || leads(&nodes[1])), "nobody took over\n{}", report(nodes));
    assert_eq!(tenures(nodes).len(), 2);
}

/// The index of the node that leads.
pub fn leader(nodes: &[Node]) -> Option<usize> {
    nodes.iter().position(leads)
}

/// Waits until one of them leads, for at most `timeout`; its index.
#[track_caller]
pub fn wait_for_leader(nodes: &[Node], timeout: Duration) -> usize {
    let found = holds_within(timeout, || leader(nodes).is_some());
    assert!(found, "nobody leads after {timeout:?}\n{}", report(nodes));
    leader(nodes).unwrap_or_else(|| panic!("a leader that is gone again\n{}", report(nodes)))
}

/// Kills the leader of two when the other can take over, waits until that one leads, and starts the dead one again.
#[track_caller]
pub fn kill_leader(nodes: &mut [Node], builders: &[NodeBuilder; 2]) {
    let leader = wait_for_leader(nodes, PATIENCE);
    nodes[1 - leader].wait_for("joined", PATIENCE);
    nodes[leader].kill();
    wait_until("the other leads", PATIENCE, || leads(&nodes[1 - leader]));
    nodes[leader] = builders[leader].spawn();
    nodes[leader].wait_for("joined", PATIENCE);
}

/// What a check of the node said last, as its metrics show it: 0 pass, 1 warn, 2 fail, 3 unknown.
pub fn check_status(node: &Node, code: &str) -> Option<u8> {
    let (_, page) = papers::get(node.http_addr(), "/metrics", PATIENCE).ok()?;
    let series = format!("metad_check_status{{code=\"{code}\"}} ");
    page.lines().find_map(|l| l.strip_prefix(&series)?.trim().trim_end_matches(".0").parse().ok())
}

/// How many members the node has seen join, itself among them.
pub fn members_seen(node: &Node) -> usize {
    node.events().iter().filter(|e| e.kind() == "member_joined").count()
}

/// Waits until each of them has joined, and knows the leader and all the others. A node learns of them from a watch of
/// its own, later than they join: the leader too, whom it is asked to hand over to.
#[track_caller]
pub fn wait_until_all_know_all(nodes: &[Node]) {
    for node in nodes {
        node.wait_for("joined", PATIENCE);
        node.wait_for("leader_changed", PATIENCE);
    }
    wait_until("all know all", PATIENCE, || nodes.iter().all(|n| members_seen(n) >= nodes.len()));
}

/// All main loops there were; panics if two of them ever ran at once.
#[track_caller]
pub fn tenures(nodes: &[Node]) -> Vec<Tenure> {
    let traces = || nodes.iter().map(Node::trace).collect();
    history::check_running(traces).unwrap_or_else(|e| panic!("{e}"))
}

/// The ends of all logs, for messages.
pub fn report(nodes: &[Node]) -> String {
    nodes.iter().map(Node::report).collect::<Vec<_>>().join("\n")
}

/// For so long, the node leads and nobody else ever does.
#[track_caller]
pub fn assert_kept(nodes: &[Node], first: usize, so_long: Duration) {
    let lost =
        holds_within(so_long, || nodes[first].has_event("main_loop_stopping") || !leads(&nodes[first]));
    assert!(!lost, "leadership was lost needlessly\n{}", report(nodes));
    assert_eq!(tenures(nodes).len(), 1, "nobody else led");
}

/// When the node's main loop started, on `CLOCK_BOOTTIME`.
#[track_caller]
pub fn started_ns(node: &Node) -> u64 {
    node.wait_for("main_loop_started", PATIENCE).at_ns()
}

/// From one instant on `CLOCK_BOOTTIME` to a later one; zero if it was not later.
pub fn between(from_ns: u64, to_ns: u64) -> Duration {
    Duration::from_nanos(to_ns.saturating_sub(from_ns))
}

/// Waits for the end of a leader whose renewals have got no answer since `since_ns`: it stops its main loop within the
/// lease, by the clock that it recorded, and exits with 75. Where processes were starved just then, and only there, it
/// may have come too late for that: then its fuse has ended it (76) or a kill (137). Did it end by itself?
#[track_caller]
pub fn assert_ended_in_time(node: &Node, since_ns: u64, lease: Duration) -> bool {
    let code = node.wait_exit(lease + PATIENCE);
    let died = node.ended_ns().expect("dead");
    if code != 75 {
        let waited = witness::waited(died.saturating_sub(1_000_000_000), died);
        let is_right = [76, 137].contains(&code) && witness::starved_before(died);
        assert!(
            is_right,
            "exit {code}, although processes waited for a CPU for {waited:?} only: {}",
            node.report()
        );
        println!("exit {code}: processes waited for a CPU for {waited:?} in the last second");
        return false;
    }
    let stopped = node.wait_for("main_loop_stopped", PATIENCE);
    let belief = between(since_ns, stopped.at_ns());
    assert!(belief < lease, "believed for {belief:?}");
    true
}

/// It did not give up early: no earlier than a lease after its last renewal, but for B and for what a renewal and its
/// answer waited for a CPU.
#[track_caller]
pub fn assert_not_early(since_ns: u64, end_ns: u64, lease: Duration) {
    let believed = between(since_ns, end_ns);
    let waited = witness::waited(since_ns.saturating_sub(2_000_000_000), end_ns);
    assert!(
        believed + waited > lease.mul_f64(0.8),
        "gave up after {believed:?}; waited for a CPU: {waited:?}"
    );
}

/// Waits until the first node has ended as [`assert_ended_in_time`] says, and then until another node's main loop has
/// started; that one's index.
#[track_caller]
pub fn assert_handed_on_in_time(nodes: &[Node], since_ns: u64, lease: Duration, until: Duration) -> usize {
    assert_ended_in_time(&nodes[0], since_ns, lease);
    wait_until("another leader", until, || tenures(nodes).len() == 2);
    wait_for_leader(nodes, PATIENCE)
}
