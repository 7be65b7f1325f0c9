//! An etcd that is not what it was: bootstrapped again, or put back to an older state. No node believes it unasked.

mod matrix;

use std::time::Duration;

use crate::support::crew::{PATIENCE, leads, report, tenures};
use crate::support::etcd::EtcdCluster;
use crate::support::node::{Node, NodeBuilder, Signal};
use crate::support::poll::holds_within;

/// Long enough to outlive the restart of etcd that a backup and a restore take here.
const LEASE: Duration = Duration::from_secs(15);
const ACCEPT: &str = "--accept-new-store";

fn node(id: &str, etcd: &EtcdCluster) -> NodeBuilder {
    let builder = NodeBuilder::new(id).lease_secs(LEASE.as_secs()).etcd(etcd);
    // Rarely: the election has to notice by itself, not because a write is refused.
    builder.env("METAD_META__TICK_INTERVAL_MS", LEASE.as_millis().to_string())
}

fn start_leading(builder: &NodeBuilder) -> Node {
    let node = builder.spawn();
    node.wait_for("main_loop_started", PATIENCE);
    node
}

fn stop(node: &Node) {
    node.signal(Signal::TERM);
    assert_eq!(node.wait_exit(PATIENCE), 0, "{}", node.report());
}

/// Refused, with the reason and the command; the second start, with the command, leads, and so does the third.
fn assert_refused_until_accepted(builder: &NodeBuilder, etcd: &EtcdCluster, reason: &str) {
    let written = || etcd.etcdctl_ok(&["get", "--prefix", "/metad/"]);
    let before = written();
    let refused = builder.spawn();
    assert_eq!(refused.wait_exit(PATIENCE), 78, "{}", refused.report());
    let said = refused.stderr();
    assert!(said.contains(reason) && said.contains(ACCEPT), "{said}");
    assert_eq!(written(), before, "it left no trace in a store that may be the wrong one");
    stop(&start_leading(&builder.clone().arg(ACCEPT)));
    stop(&start_leading(builder));
}

#[test]
fn a_node_refuses_an_etcd_that_was_bootstrapped_again_until_it_is_accepted() {
    let etcd = EtcdCluster::start(1);
    let builder = node("a", &etcd);
    stop(&start_leading(&builder));
    etcd.bootstrap_again();
    assert_refused_until_accepted(&builder, &etcd, "this data dir belongs to the store");
}

#[test]
fn a_node_refuses_an_etcd_that_was_restored_from_a_backup_until_it_is_accepted() {
    let etcd = EtcdCluster::start(1);
    let builder = node("a", &etcd);
    stop(&start_leading(&builder));
    let backup = etcd.back_up();
    stop(&start_leading(&builder));
    etcd.restore(&backup);
    assert_refused_until_accepted(&builder, &etcd, "restored from a backup");
}

#[test]
fn a_node_that_led_after_the_backup_was_made_refuses_it_as_well() {
    let etcd = EtcdCluster::start(1);
    let builders = [node("a", &etcd), node("b", &etcd)];
    let mut nodes = vec![start_leading(&builders[0]), builders[1].spawn()];
    nodes[1].wait_for("joined", PATIENCE);
    // What `b` joined is in the backup; that it led is not, and its token could be given out again.
    let backup = etcd.back_up();
    stop(&nodes[0]);
    let token = nodes[1].wait_for("main_loop_started", PATIENCE).token();
    std::thread::sleep(Duration::from_secs(1)); // the token goes to the disk meanwhile
    stop(&nodes[1]);
    etcd.restore(&backup);
    nodes.push(builders[1].spawn());
    assert_eq!(nodes[2].wait_exit(PATIENCE), 78, "it led with {token:?}\n{}", report(&nodes));
    let said = nodes[2].stderr();
    assert!(said.contains("restored from a backup") && said.contains(ACCEPT), "{said}");
    assert_eq!(tenures(&nodes).len(), 2);
}

/// Whatever the nodes do now, and when they are started again: no two of them lead.
fn assert_never_two(nodes: &mut Vec<Node>, builders: &[NodeBuilder]) {
    holds_within(LEASE * 2, || nodes.iter().all(|node| !node.is_alive()));
    tenures(nodes);
    for builder in builders {
        nodes.push(builder.spawn());
    }
    holds_within(LEASE, || false);
    tenures(nodes);
}

#[test]
fn nodes_that_run_while_etcd_is_bootstrapped_again_stop_and_are_refused_afterwards() {
    let etcd = EtcdCluster::start(1);
    let builders = [node("a", &etcd), node("b", &etcd)];
    let mut nodes = vec![start_leading(&builders[0]), builders[1].spawn()];
    nodes[1].wait_for("joined", PATIENCE);
    etcd.bootstrap_again();
    for node in &nodes {
        let code = node.wait_exit(LEASE + PATIENCE);
        println!("{} ended with {code}", node.id());
        assert_eq!(code, 78, "{}", report(&nodes));
    }
    nodes.extend(builders.iter().map(NodeBuilder::spawn));
    for node in &nodes[2..] {
        assert_eq!(node.wait_exit(PATIENCE), 78, "{}", node.report());
        assert!(node.stderr().contains(ACCEPT), "{}", node.stderr());
    }
    assert_eq!(tenures(&nodes).len(), 1, "nobody led in the new cluster");
}

#[test]
fn nodes_that_run_while_an_older_state_of_etcd_is_restored_never_lead_both() {
    let etcd = EtcdCluster::start(1);
    let builders = [node("a", &etcd), node("b", &etcd)];
    // In the backup `b` leads; afterwards it is `a` that does, and `b` waits.
    let mut nodes = vec![start_leading(&builders[1]), builders[0].spawn()];
    nodes[1].wait_for("joined", PATIENCE);
    let backup = etcd.back_up();
    assert!(leads(&nodes[0]), "the restart of etcd costs nothing\n{}", report(&nodes));
    stop(&nodes[0]);
    nodes[1].wait_for("main_loop_started", PATIENCE);
    nodes.push(builders[1].spawn());
    nodes[2].wait_for("joined", PATIENCE);
    etcd.restore(&backup);
    for node in &nodes[1..] {
        let code = node.wait_exit(LEASE + PATIENCE);
        assert_eq!(code, 78, "the store went back in time\n{}", report(&nodes));
    }
    assert_never_two(&mut nodes, &builders);
}
