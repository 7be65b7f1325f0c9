//! Several nodes together: who leads, and what the history says of them all.

use std::time::Duration;

use super::history::{self, Tenure};
use super::http;
use super::node::{Node, NodeBuilder};
use super::poll::{holds_within, wait_until};

/// Starting processes and etcd on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// What an instant on a recorded clock may be late by, beyond what the protocol promises, because a process had
/// to wait for a CPU: the tests share few cores with each other.
pub const SCHEDULING_SLACK: Duration = Duration::from_secs(1);

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
    let (_, page) = http::get(node.http_addr(), "/metrics", PATIENCE).ok()?;
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

/// Waits until the first node's main loop stopped, since `since_ns` and within the lease, with the exit code 75,
/// and then until another node's started; that one's index.
#[track_caller]
pub fn assert_handed_on_in_time(nodes: &[Node], since_ns: u64, lease: Duration, until: Duration) -> usize {
    assert_eq!(nodes[0].wait_exit(lease + PATIENCE), 75, "{}", nodes[0].report());
    let belief = between(since_ns, nodes[0].wait_for("main_loop_stopped", PATIENCE).at_ns());
    assert!(belief < lease, "believed for {belief:?}");
    wait_until("another leader", until, || tenures(nodes).len() == 2);
    wait_for_leader(nodes, PATIENCE)
}
