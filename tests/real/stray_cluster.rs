//! Endpoints of two etcd clusters: a member that was bootstrapped again on its own, a wrong address. Each of the two would
//! elect a leader, and the wrong one knows no lease; so only the answers of one count.

use std::time::Duration;

use crate::support::crew::{PATIENCE, assert_kept, between, started_ns, tenures, wait_for_leader};
use crate::support::etcd::{EtcdBuilder, EtcdCluster};
use crate::support::node::{Node, NodeBuilder, Signal};
use crate::support::poll::{boot_ns, holds_within, wait_until};
use crate::support::proxy::FaultProxy;

const LEASE: Duration = Duration::from_secs(5);
/// Shorter than what a leader survives, so that it costs nothing.
const HANG: Duration = Duration::from_secs(2);

fn stop(node: &Node) {
    node.signal(Signal::TERM);
    assert_eq!(node.wait_exit(PATIENCE), 0, "{}", node.report());
}

/// The index of the node that leads, first of all.
fn leading_first(mut nodes: Vec<Node>) -> Vec<Node> {
    let leader = wait_for_leader(&nodes, PATIENCE);
    nodes.iter().for_each(|node| {
        node.wait_for("joined", PATIENCE);
    });
    nodes.swap(0, leader);
    nodes
}

/// Did one of them ask the stray for its lease, and take no notice of what it said?
fn assert_stray_was_asked(stray: &EtcdCluster) {
    let asked = stray.calls(0, "LeaseKeepAlive") + stray.calls(0, "Txn");
    assert!(asked > 0, "twin: nobody has asked the stray");
    println!("the stray was asked {asked} times");
}

#[test]
fn while_the_endpoints_are_of_two_clusters_nobody_joins_whatever_their_order() {
    let (one, two) = (EtcdCluster::start(1), EtcdCluster::start(1));
    let [a, b] = [one.endpoint(0), two.endpoint(0)];
    let orders = [[a.clone(), b.clone()], [b.clone(), a.clone()]];
    let nodes: Vec<_> = orders
        .iter()
        .zip(["x", "y"])
        .map(|(order, id)| NodeBuilder::new(id).endpoints(order).spawn())
        .collect();
    for node in &nodes {
        assert_eq!(node.wait_exit(PATIENCE), 78, "{}", node.report());
        let said = node.stderr();
        assert!(said.contains("different etcd clusters") && said.contains(&a) && said.contains(&b), "{said}");
    }
    assert_eq!(tenures(&nodes).len(), 0);
    for etcd in [&one, &two] {
        assert_eq!(etcd.etcdctl_ok(&["get", "--prefix", "/metad/"]), "", "they left no trace");
    }
    let twin = NodeBuilder::new("x").endpoints([a]).spawn();
    twin.wait_for("main_loop_started", PATIENCE);
}

#[test]
fn a_first_start_does_not_take_the_only_endpoint_that_answers_for_the_store() {
    let (ours, stray) = (EtcdCluster::start(1), EtcdCluster::start(1));
    ours.pause(0);
    let node = NodeBuilder::new("x").endpoints([ours.endpoint(0), stray.endpoint(0)]);
    let node = node.env("METAD_STORE__ETCD__START_TIMEOUT_SECS", "3").spawn();
    assert_eq!(node.wait_exit(PATIENCE), 69, "{}", node.report());
    assert!(node.stderr().contains("more than half of them must"), "{}", node.stderr());
    assert_eq!(stray.etcdctl_ok(&["get", "--prefix", "/metad/"]), "", "it left no trace");
}

/// Nobody loses while the stray answers alone, or beside the others.
fn assert_kept_with_a_hang(nodes: &[Node], etcd: &EtcdCluster, hangs: usize, stray: &EtcdCluster) {
    assert_kept(nodes, 0, LEASE);
    etcd.pause(hangs);
    std::thread::sleep(HANG);
    etcd.resume(hangs);
    assert_kept(nodes, 0, LEASE);
    assert_stray_was_asked(stray);
}

#[test]
fn a_stray_that_appears_beside_the_store_costs_nothing_even_while_the_store_hangs() {
    let (ours, stray) = (EtcdCluster::start(1), EtcdCluster::start(1));
    let [a, b] = [ours.endpoint(0), stray.endpoint(0)];
    let builders = ["x", "y"].map(|id| NodeBuilder::new(id).lease_secs(LEASE.as_secs()));
    // They know their store; then an endpoint is added to it that does not answer yet.
    for builder in &builders {
        let node = builder.clone().endpoints([&a]).spawn();
        node.wait_for("main_loop_started", PATIENCE);
        stop(&node);
    }
    stray.pause(0);
    let orders = [[&a, &b], [&b, &a]];
    let nodes = builders.iter().zip(orders).map(|(builder, order)| builder.clone().endpoints(order).spawn());
    let nodes = leading_first(nodes.collect());
    stray.resume(0);
    assert_kept_with_a_hang(&nodes, &ours, 0, &stray);
}

#[test]
fn a_member_that_is_bootstrapped_on_its_own_under_running_nodes_costs_nothing() {
    // With one member gone to a cluster of its own, a hang of another one ends in an election of etcd's.
    let election = ["--heartbeat-interval=25", "--election-timeout=250"];
    let etcd = election.into_iter().fold(EtcdCluster::builder().members(3), EtcdBuilder::arg).start();
    let all = etcd.endpoints();
    let orders = [[0, 1, 2], [1, 2, 0], [2, 0, 1]];
    let builders = orders.iter().zip(["x", "y", "z"]).map(|(order, id)| {
        let builder = NodeBuilder::new(id).lease_secs(LEASE.as_secs());
        builder.endpoints(order.map(|i| &all[i]))
    });
    let nodes = leading_first(builders.map(|builder| builder.spawn()).collect());
    etcd.bootstrap_alone(0);
    assert_kept_with_a_hang(&nodes, &etcd, 1, &etcd);
    // A node that starts now is told.
    let late = NodeBuilder::new("w").etcd(&etcd).spawn();
    assert_eq!(late.wait_exit(PATIENCE), 78, "{}", late.report());
    assert!(late.stderr().contains(&all[0]), "{}", late.stderr());
    assert!(!holds_within(Duration::from_millis(100), || !nodes.iter().all(Node::is_alive)));
}

/// The endpoints have as long to name their cluster as any request has.
#[test]
fn an_etcd_that_needs_1_5_s_for_each_reply_is_joined() {
    let etcd = EtcdCluster::start(1);
    let proxy = FaultProxy::start(etcd.addr(0));
    let delay = Duration::from_millis(1_500);
    proxy.delay_replies(delay);
    let begin = boot_ns();
    let node = NodeBuilder::new("n").endpoints([proxy.addr()]).lease_secs(60).spawn();
    assert!(between(begin, started_ns(&node)) > delay, "twin: the replies were late");
}

/// To the guardian of a killed leader, a stray says that the lease is not there. Its own cluster is away, so this is not
/// known; once it is back the guardian gives the record back all the same.
#[test]
fn a_stray_does_not_tell_the_guardian_that_a_lease_has_ended() {
    let (ours, stray) = (EtcdCluster::start(1), EtcdCluster::start(1));
    let [a, b] = [ours.endpoint(0), stray.endpoint(0)];
    let [x, y] = ["x", "y"].map(|id| NodeBuilder::new(id).lease_secs(86_400));
    let first = x.clone().endpoints([&a]).spawn();
    first.wait_for("main_loop_started", PATIENCE);
    stop(&first);
    stray.pause(0);
    let leader = x.endpoints([&b, &a]).spawn();
    leader.wait_for("main_loop_started", PATIENCE);
    let follower = y.endpoints([&a]).spawn();
    follower.wait_for("joined", PATIENCE);
    ours.pause(0);
    stray.resume(0);
    let before = stray.calls(0, "LeaseRevoke");
    leader.kill();
    wait_until("the guardian has asked the stray", PATIENCE, || stray.calls(0, "LeaseRevoke") > before);
    assert!(!holds_within(Duration::from_secs(1), || leader.tree().is_empty()), "the guardian goes on");
    ours.resume(0);
    follower.wait_for("main_loop_started", PATIENCE);
    assert_eq!(tenures(&[leader, follower]).len(), 2);
}
