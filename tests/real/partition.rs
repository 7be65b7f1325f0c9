//! Network partitions, on machines that are namespaces: whoever is cut off, there are never two leaders, and there
//! is one again as soon as the protocol allows.
//!
//! Three etcd members and three nodes, each on a machine of its own. Needs root, which it asks sudo for, and iproute2, and
//! fails without.
//! `METAD_FAULT_LEASE_SECS` changes the lease (`make faults`).

use std::time::Duration;

use crate::support;
use crate::support::crew::{
    PATIENCE, assert_handed_on_in_time, assert_kept, between, lease, report, slack, started_ns, tenures,
    wait_for_leader,
};
use crate::support::etcd::EtcdCluster;
use crate::support::network::Network;
use crate::support::node::{Node, NodeBuilder, Signal};
use crate::support::poll::boot_ns;
use crate::support::{fenced, sudo};

/// How long after the lease's end somebody else may lead: etcd looks for dead leases twice a second.
const TAKEOVER: Duration = Duration::from_secs(1);
/// What the members are started with. When their leader goes as well, the next one refreshes every lease.
const ETCD_ELECTION: Duration = Duration::from_secs(1);
const NEEDS: &str = "network namespaces";

/// `nodes[0]` leads. The machines 0 to 2 are the members', 3 to 5 the nodes'.
struct Scene {
    nodes: Vec<Node>,
    builders: Vec<NodeBuilder>,
    etcd: EtcdCluster,
    network: Network,
}

impl Drop for Scene {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            fenced::assert_no_stale_write(&self.etcd, &self.nodes);
        }
    }
}

impl Scene {
    fn new() -> Self {
        let network = Network::start(6);
        // As is the default from 3.5 on: without it the member that comes back has etcd elect anew, which on a busy machine
        // takes longer than the lease.
        let etcd = EtcdCluster::builder().places(network.places(0..3)).arg("--pre-vote=true").start();
        let builder = |i: usize| {
            let node = NodeBuilder::new(["e0", "e1", "e2"][i]).lease_secs(lease().as_secs());
            node.etcd(&etcd).place(network.place(3 + i))
        };
        let builders: Vec<_> = (0..3).map(builder).collect();
        let first = builders[0].spawn();
        first.wait_for("main_loop_started", PATIENCE);
        let others = builders[1..].iter().map(NodeBuilder::spawn);
        let nodes: Vec<_> = std::iter::once(first).chain(others).collect();
        for node in &nodes {
            node.wait_for("joined", PATIENCE);
        }
        // A few renewals, so that the partition meets a leader in its stride.
        std::thread::sleep(Duration::from_secs(1));
        Self { nodes, builders, etcd, network }
    }

    /// Cuts machines off with the leader among them: it stops in time, and another leads `extra` later at most
    /// than the lease needs to end.
    fn assert_moved(&self, cut_off: &[usize], extra: Duration) -> usize {
        let cut = boot_ns();
        self.network.cut_off(cut_off);
        let next = assert_handed_on_in_time(&self.nodes, cut, lease(), lease() + TAKEOVER + extra + PATIENCE);
        let ended = self.nodes[0].ended_ns().expect("dead");
        let started = started_ns(&self.nodes[next]);
        let took = between(cut, started);
        println!("led by nobody for {:?}, {took:?} after the cut", between(ended, started));
        let bound = lease() + TAKEOVER + extra + slack(cut, started);
        assert!(took <= bound, "{took:?} after the cut, {bound:?} at most");
        next
    }

    /// After the partition the old leader, started again, follows the new one; and can lead after it.
    fn assert_heals(&mut self, next: usize) {
        self.network.heal();
        let again = self.builders[0].spawn();
        again.wait_for("joined", PATIENCE);
        self.nodes.push(again);
        self.nodes[next].signal(Signal::TERM);
        assert_eq!(self.nodes[next].wait_exit(PATIENCE), 0, "{}", report(&self.nodes));
        wait_for_leader(&self.nodes, PATIENCE);
        assert_eq!(tenures(&self.nodes).len(), 3);
    }
}

#[test]
fn a_leader_that_is_cut_off_stops_before_another_leads() {
    if sudo::runs(a_leader_that_is_cut_off_stops_before_another_leads, NEEDS) {
        return;
    }
    let mut scene = Scene::new();
    let next = scene.assert_moved(&[3], Duration::ZERO);
    scene.assert_heals(next);
}

#[test]
fn a_leader_that_is_left_with_a_minority_of_etcd_stops_before_another_leads() {
    if sudo::runs(a_leader_that_is_left_with_a_minority_of_etcd_stops_before_another_leads, NEEDS) {
        return;
    }
    let mut scene = Scene::new();
    let raft = scene.etcd.leader();
    let minor = (0..3).find(|member| *member != raft).expect("two others");
    let next = scene.assert_moved(&[3, minor], Duration::ZERO);
    scene.assert_heals(next);
}

#[test]
fn a_leader_that_is_left_with_the_raft_leader_alone_stops_before_another_leads() {
    if sudo::runs(a_leader_that_is_left_with_the_raft_leader_alone_stops_before_another_leads, NEEDS) {
        return;
    }
    let mut scene = Scene::new();
    let raft = scene.etcd.leader();
    let next = scene.assert_moved(&[3, raft], ETCD_ELECTION * 3);
    scene.assert_heals(next);
}

#[test]
fn a_raft_leader_that_is_cut_off_costs_nothing() {
    if sudo::runs(a_raft_leader_that_is_cut_off_costs_nothing, NEEDS) {
        return;
    }
    let scene = Scene::new();
    let raft = scene.etcd.leader();
    scene.network.cut_off(&[raft]);
    assert_kept(&scene.nodes, 0, lease() * 2);
    assert_ne!(scene.etcd.leader(), raft, "etcd itself has seen the partition");
    scene.network.heal();
    assert_kept(&scene.nodes, 0, lease());
}

#[test]
fn a_follower_that_is_cut_off_changes_nothing_and_comes_back() {
    if sudo::runs(a_follower_that_is_cut_off_changes_nothing_and_comes_back, NEEDS) {
        return;
    }
    let scene = Scene::new();
    let follower = &scene.nodes[1];
    scene.network.cut_off(&[4]);
    assert_kept(&scene.nodes, 0, lease() * 2);
    assert!(follower.is_alive(), "it waits\n{}", follower.report());
    assert!(scene.nodes[0].has_event("member_left"), "it was cut off: its own lease has ended");
    scene.network.heal();
    let is_second_join =
        |from: u64| follower.events().iter().any(|e| e.kind() == "joined" && e.at_ns() > from);
    let healed = boot_ns();
    support::poll::wait_until("it has joined again", lease() + PATIENCE, || is_second_join(healed));
    assert_kept(&scene.nodes, 0, Duration::from_secs(1));
}
