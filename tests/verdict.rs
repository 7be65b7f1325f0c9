//! Ten faults, ten verdicts: whatever goes wrong, one line says whether it was this node, the network, an etcd member
//! or all of etcd; when leadership is lost, before the process ends.

#[path = "support/lib.rs"]
mod support;

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use support::crew::{PATIENCE, between, leads, wait_for_leader};
use support::etcd::EtcdCluster;
use support::history::TimedEvent;
use support::network::Network;
use support::node::{Node, NodeBuilder};
use support::poll::{holds_within, wait_until};
use support::spawn;

/// How soon after the loss the verdict must stand.
const VERDICT_WITHIN: Duration = Duration::from_secs(5);
const LEADER_KEY: &str = "/metad/default/election/meta/leader";

/// A leader and a follower.
fn two_nodes(etcd: &EtcdCluster, lease: u64) -> Vec<Node> {
    let first = NodeBuilder::new("e0").lease_secs(lease).etcd(etcd).spawn();
    first.wait_for("main_loop_started", PATIENCE);
    let second = NodeBuilder::new("e1").lease_secs(lease).etcd(etcd).spawn();
    second.wait_for("joined", PATIENCE);
    vec![first, second]
}

fn is_verdict(event: &TimedEvent, verdict: &str, says: &str) -> bool {
    event.kind() == "verdict" && event.str("verdict") == verdict && event.str("text").contains(says)
}

/// The node says so.
#[track_caller]
fn assert_said(node: &Node, verdict: &str, says: &str) -> TimedEvent {
    let said = node.wait_event(|e| is_verdict(e, verdict, says), PATIENCE);
    wait_until("the log says it too", PATIENCE, || node.stderr().contains("verdict: "));
    said
}

/// The node lost its leadership, and said so before it ended: in time, and in its last words.
#[track_caller]
fn assert_lost(node: &Node, reason: &str, verdict: &str, says: &str) {
    assert_eq!(node.wait_exit(PATIENCE * 2), 75, "{}", node.report());
    let stopping = node.wait_for("main_loop_stopping", PATIENCE);
    assert_eq!(stopping.str("reason"), reason, "{}", node.report());
    let said = assert_said(node, verdict, says);
    let late = between(stopping.at_ns(), said.at_ns());
    assert!(late < VERDICT_WITHIN, "{late:?} after the loss");
    let stopped = node.wait_for("stopped", PATIENCE);
    assert!(stopped.str("detail").contains(says), "{}", stopped.json);
}

/// One that etcd's own leader is not.
fn follower(etcd: &EtcdCluster) -> usize {
    (etcd.leader() + 1) % etcd.size()
}

#[test]
fn a_member_that_hangs_or_is_killed_is_named_and_costs_nothing() {
    let etcd = EtcdCluster::start(3);
    let nodes = two_nodes(&etcd, 10);
    let hung = follower(&etcd);
    etcd.pause(hung);
    let says = format!("{} accepts connections but does not answer", etcd.endpoint(hung));
    for node in &nodes {
        assert_said(node, "etcd_member", &says);
    }
    etcd.resume(hung);
    let killed = follower(&etcd);
    etcd.kill(killed);
    let says = format!("{} refuses connections", etcd.endpoint(killed));
    assert_said(&nodes[0], "etcd_member", &says);
    assert!(leads(&nodes[0]), "{}", nodes[0].report());
}

#[test]
fn an_etcd_that_has_stopped_as_a_whole_is_told_from_one_that_is_out_of_reach() {
    let etcd = EtcdCluster::start(3);
    let nodes = two_nodes(&etcd, 5);
    etcd.pause_all();
    assert_lost(&nodes[0], "renew_deadline", "etcd_down", "it was all of etcd");
    // Neither can a seat be won.
    let third = NodeBuilder::new("e2").etcd(&etcd).spawn();
    assert_said(&third, "etcd_down", "it was all of etcd");
    assert_eq!(third.wait_exit(PATIENCE * 2), 69, "{}", third.report());
    let blamed_network = |n: &Node| n.events().iter().any(|e| is_verdict(e, "no_way_to_etcd", ""));
    assert!(!nodes.iter().any(blamed_network), "{}", nodes[0].report());
}

#[test]
fn a_node_that_is_cut_off_blames_the_network_and_a_member_that_is_cut_off_is_blamed() {
    let network = Network::start(5);
    let etcd = EtcdCluster::builder().places(network.places(0..3)).start();
    let node = |i: usize| {
        let node = NodeBuilder::new(["e0", "e1"][i]).etcd(&etcd).place(network.place(3 + i)).spawn();
        node.wait_for("joined", PATIENCE);
        node
    };
    let first = node(0);
    first.wait_for("main_loop_started", PATIENCE);
    let nodes = [first, node(1)];
    let away = follower(&etcd);
    network.cut_off(&[away]);
    let says = format!("{} cannot be reached", etcd.endpoint(away));
    assert_said(&nodes[0], "etcd_member", &says);
    assert!(leads(&nodes[0]), "{}", nodes[0].report());
    network.heal();
    etcd.wait_healthy();
    network.cut_off(&[3]);
    assert_lost(&nodes[0], "renew_deadline", "cut_off", "it was the network");
    wait_for_leader(&nodes, PATIENCE);
}

/// Keeps one CPU busy.
struct Hogs(Vec<Child>);

impl Hogs {
    fn on_cpu_0(count: usize) -> Self {
        let hog = |_| {
            let mut command = Command::new("taskset");
            command.args(["-c", "0", "sh", "-c", "while :; do :; done"]);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            spawn::spawn(command).expect("taskset (util-linux)")
        };
        Self((0..count).map(hog).collect())
    }
}

impl Drop for Hogs {
    fn drop(&mut self) {
        for hog in &mut self.0 {
            let _ = hog.kill();
            let _ = hog.wait();
        }
    }
}

#[track_caller]
fn run(program: &str, args: &[&str]) {
    let mut command = Command::new(program);
    command.args(args);
    let output = spawn::output(command, PATIENCE);
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_starved_process_is_told_from_one_that_was_stopped() {
    let etcd = EtcdCluster::start(1);
    let node = |id: &str| {
        let node = NodeBuilder::new(id).cluster(id).lease_secs(30).etcd(&etcd).spawn();
        node.wait_for("main_loop_started", PATIENCE);
        node
    };
    let stopped = node("stopped");
    stopped.pause();
    std::thread::sleep(Duration::from_secs(3));
    stopped.resume();
    assert_said(&stopped, "process_stopped", "it was this node: its process was stopped");
    assert!(leads(&stopped), "{}", stopped.report());
    // A process that gets only what nobody else wants, on a CPU that others want all the time.
    let starved = node("starved");
    let pid = starved.pid().to_string();
    run("taskset", &["-a", "-c", "-p", "0", &pid]);
    run("chrt", &["-a", "-i", "-p", "0", &pid]);
    let hogs = Hogs::on_cpu_0(4);
    std::thread::sleep(Duration::from_secs(8));
    drop(hogs); // what it has gone through it says when it can
    assert_said(&starved, "cpu_starved", "it was this node: it waited for a CPU");
    let of_starved = starved.events();
    let stops = of_starved.iter().filter(|e| is_verdict(e, "process_stopped", "")).count();
    assert_eq!(stops, 0, "{}", starved.report());
}

#[test]
fn a_record_that_is_deleted_by_hand_is_told_from_a_lease_that_is_revoked() {
    let etcd = EtcdCluster::start(1);
    let nodes = two_nodes(&etcd, 10);
    etcd.etcdctl_ok(&["del", LEADER_KEY]);
    assert_lost(&nodes[0], "record_deleted", "record_deleted", "it was somebody");
    wait_until("the other leads", PATIENCE, || leads(&nodes[1]));
    let joined = nodes[1].wait_for("joined", PATIENCE);
    etcd.etcdctl_ok(&["lease", "revoke", joined.str("lease")]);
    assert_lost(&nodes[1], "record_deleted", "lease_gone", "our lease was revoked");
}

#[test]
fn an_etcd_that_is_full_is_named_by_those_who_lead_and_those_who_cannot() {
    let etcd = EtcdCluster::builder().arg("--quota-backend-bytes=1048576").start();
    let nodes = two_nodes(&etcd, 10);
    let value = "x".repeat(100_000);
    let full = holds_within(PATIENCE, || !etcd.etcdctl(&["put", "filler", &value]).status.success());
    assert!(full, "etcd takes no more");
    for node in &nodes {
        assert_said(node, "etcd_full", "NOSPACE");
    }
    let third = NodeBuilder::new("e2").etcd(&etcd).spawn();
    assert_said(&third, "etcd_full", "etcdctl alarm disarm");
    assert_eq!(third.wait_exit(PATIENCE * 2), 69, "{}", third.report());
}
