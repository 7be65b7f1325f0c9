//! Ten faults, ten verdicts: whatever goes wrong, one line says whether it was this node, the network, an etcd member
//! or all of etcd; when leadership is lost, before the process ends. The checks and their metric say so too, and what
//! was lost stands in the history, with its reason and the verdict.

use std::time::Duration;

use crate::cpus;
use crate::support::crew::{PATIENCE, between, check_status, leads, wait_for_leader};
use crate::support::etcd::EtcdCluster;
use crate::support::history::TimedEvent;
use crate::support::network::Network;
use crate::support::node::{Node, NodeBuilder};
use crate::support::poll::{holds_within, wait_until};
use crate::support::{papers, sudo, witness};
use serde_json::Value;

/// How soon after the loss the verdict must stand.
const VERDICT_WITHIN: Duration = Duration::from_secs(5);
const LEADER_KEY: &str = "/metad/default/election/meta/leader";
const WARN: u8 = 1;
pub const FAIL: u8 = 2;

/// One that checks all the time, and to which one unplanned change of the leader is one too many.
pub fn builder(id: &str, etcd: &EtcdCluster, lease: u64) -> NodeBuilder {
    let builder = NodeBuilder::new(id).lease_secs(lease).etcd(etcd).env("METAD_CHECKS__INTERVAL_SECS", "1");
    builder.env("METAD_CHECKS__MAX_LEADER_CHANGES", "0")
}

/// A leader and a follower, and how to start them again.
fn two_nodes(etcd: &EtcdCluster, lease: u64) -> ([NodeBuilder; 2], Vec<Node>) {
    let builders = ["e0", "e1"].map(|id| builder(id, etcd, lease));
    let first = builders[0].spawn();
    first.wait_for("main_loop_started", PATIENCE);
    let second = builders[1].spawn();
    second.wait_for("joined", PATIENCE);
    (builders, vec![first, second])
}

/// The check has said so.
#[track_caller]
pub fn assert_told(node: &Node, code: &str, status: u8, says: &str) {
    let name = ["pass", "warn", "fail", "unknown"][usize::from(status)];
    let is_it = |e: &TimedEvent| {
        e.kind() == "check_changed"
            && (e.str("code"), e.str("status")) == (code, name)
            && e.str("measured").contains(says)
    };
    node.wait_event(is_it, PATIENCE);
}

/// The check says so, and so does its metric, for as long as that lasts.
#[track_caller]
fn assert_checked(node: &Node, code: &str, status: u8, says: &str) {
    assert_told(node, code, status, says);
    wait_until(&format!("the metric of {code}"), PATIENCE, || check_status(node, code) == Some(status));
}

/// The first tenure of this node, as another one shows it once its holder has had its say.
#[track_caller]
fn assert_in_history(of: &str, shown_by: &Node, reason: &str, says: &str) {
    let mut last = Value::Null;
    let is_shown = holds_within(PATIENCE, || {
        let page = papers::get(shown_by.http_addr(), "/api/v1/history", PATIENCE).expect("an answer").1;
        last = serde_json::from_str(&page).expect("JSON");
        let rows = last["tenures"].as_array().expect("rows");
        let row = rows.iter().find(|row| row["node"] == of).cloned().unwrap_or_default();
        let detail = row["detail"].as_str().unwrap_or_default();
        row["reason"] == reason
            && row["planned"] == false
            && row["said_by"] == "holder"
            && detail.contains(says)
    });
    assert!(is_shown, "{of}: {reason}: {says:?} is not in {last:#}");
}

pub fn is_verdict(event: &TimedEvent, verdict: &str, says: &str) -> bool {
    event.kind() == "verdict" && event.str("verdict") == verdict && event.str("text").contains(says)
}

/// The node says so.
#[track_caller]
pub fn assert_said(node: &Node, verdict: &str, says: &str) -> TimedEvent {
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
    let within = VERDICT_WITHIN + witness::waited(stopping.at_ns(), said.at_ns());
    assert!(late < within, "{late:?} after the loss");
    let stopped = node.wait_for("stopped", PATIENCE);
    assert!(stopped.str("detail").contains(says), "{}", stopped.json);
}

/// One that etcd's own leader is not.
fn follower(etcd: &EtcdCluster) -> usize {
    (etcd.leader() + 1) % etcd.size()
}

#[test]
fn a_member_that_hangs_or_is_killed_is_named_and_costs_nothing() {
    let _cpu = cpus::some();
    let etcd = EtcdCluster::start(3);
    let (_, nodes) = two_nodes(&etcd, 10);
    let hung = follower(&etcd);
    etcd.pause(hung);
    let says = format!("{} accepts connections but does not answer", etcd.endpoint(hung));
    for node in &nodes {
        assert_said(node, "etcd_member", &says);
        assert_checked(node, "ETCD_001", FAIL, &etcd.endpoint(hung));
    }
    etcd.resume(hung);
    let killed = follower(&etcd);
    etcd.kill(killed);
    let says = format!("{} refuses connections", etcd.endpoint(killed));
    assert_said(&nodes[0], "etcd_member", &says);
    assert_checked(&nodes[0], "ETCD_001", FAIL, &etcd.endpoint(killed));
    assert_checked(&nodes[0], "ETCD_003", WARN, "2 of 3");
    assert!(leads(&nodes[0]), "{}", nodes[0].report());
    assert_eq!(check_status(&nodes[0], "LEADER_003"), Some(0), "nothing was lost");
}

#[test]
fn an_etcd_that_has_stopped_as_a_whole_is_told_from_one_that_is_out_of_reach() {
    let _cpu = cpus::some();
    let etcd = EtcdCluster::start(3);
    let (builders, mut nodes) = two_nodes(&etcd, 5);
    etcd.pause_all();
    assert_lost(&nodes[0], "renew_deadline", "etcd_down", "no etcd member answers");
    assert_checked(&nodes[1], "ETCD_003", FAIL, "0 of 3");
    // Neither can a seat be won.
    let third = NodeBuilder::new("e2").etcd(&etcd).spawn();
    assert_said(&third, "etcd_down", "no etcd member answers");
    assert_eq!(third.wait_exit(PATIENCE * 2), 69, "{}", third.report());
    let blamed_network = |n: &Node| n.events().iter().any(|e| is_verdict(e, "no_way_to_etcd", ""));
    assert!(!nodes.iter().any(blamed_network), "{}", nodes[0].report());
    etcd.resume_all();
    wait_until("the other leads", PATIENCE, || leads(&nodes[1]));
    nodes[0] = builders[0].spawn(); // and now it can tell
    assert_in_history("e0", &nodes[1], "renew_deadline", "no etcd member answers");
    assert_checked(&nodes[1], "LEADER_003", WARN, "1 unplanned");
}

/// Three members of etcd, a leader and a follower, each in a place of its own; the members come first.
fn apart() -> (Network, EtcdCluster, [NodeBuilder; 2], Vec<Node>) {
    let network = Network::start(5);
    let etcd = EtcdCluster::builder().places(network.places(0..3)).start();
    let builders = [0, 1].map(|i| builder(["e0", "e1"][i], &etcd, 5).place(network.place(3 + i)));
    let first = builders[0].spawn();
    first.wait_for("main_loop_started", PATIENCE);
    let nodes = vec![first, builders[1].spawn()];
    nodes[1].wait_for("joined", PATIENCE);
    (network, etcd, builders, nodes)
}

#[test]
fn a_member_of_etcd_that_is_cut_off_is_blamed() {
    let _cpu = cpus::some();
    if sudo::runs(a_member_of_etcd_that_is_cut_off_is_blamed, "network namespaces") {
        return;
    }
    let (network, etcd, _, nodes) = apart();
    let away = follower(&etcd);
    network.cut_off(&[away]);
    let says = format!("{} cannot be reached", etcd.endpoint(away));
    for node in &nodes {
        assert_said(node, "etcd_member", &says);
        assert_told(node, "ETCD_001", FAIL, &etcd.endpoint(away));
    }
    assert!(leads(&nodes[0]), "{}", nodes[0].report());
}

#[test]
fn a_node_that_is_cut_off_blames_the_network() {
    let _cpu = cpus::some();
    if sudo::runs(a_node_that_is_cut_off_blames_the_network, "network namespaces") {
        return;
    }
    let (network, _etcd, builders, mut nodes) = apart();
    network.cut_off(&[3]);
    assert_lost(&nodes[0], "renew_deadline", "cut_off", "network fault");
    wait_for_leader(&nodes, PATIENCE);
    assert_told(&nodes[1], "LEADER_003", WARN, "1 unplanned");
    network.heal();
    nodes[0] = builders[0].spawn(); // and now it can tell
    let told = |e: &TimedEvent| {
        e.kind() == "tenure_ended"
            && (e.str("leader"), e.str("reason")) == ("e0", "renew_deadline")
            && e.str("detail").contains("network fault")
    };
    nodes[1].wait_event(told, PATIENCE);
}

#[test]
fn a_record_that_is_deleted_by_hand_is_told_from_a_lease_that_is_revoked() {
    let _cpu = cpus::some();
    let etcd = EtcdCluster::start(1);
    let (builders, mut nodes) = two_nodes(&etcd, 10);
    etcd.etcdctl_ok(&["del", LEADER_KEY]);
    assert_lost(&nodes[0], "record_deleted", "record_deleted", "leader record deleted externally");
    wait_until("the other leads", PATIENCE, || leads(&nodes[1]));
    nodes[0] = builders[0].spawn(); // and now it can tell
    nodes[0].wait_for("joined", PATIENCE);
    assert_in_history("e0", &nodes[1], "record_deleted", "leader record deleted externally");
    assert_checked(&nodes[1], "LEADER_003", WARN, "1 unplanned");
    let joined = nodes[1].wait_for("joined", PATIENCE);
    etcd.etcdctl_ok(&["lease", "revoke", joined.str("lease")]);
    assert_lost(&nodes[1], "record_deleted", "lease_gone", "this node's lease was revoked");
    nodes[1] = builders[1].spawn();
    assert_in_history("e1", &nodes[0], "record_deleted", "this node's lease was revoked");
    assert_checked(&nodes[0], "LEADER_003", WARN, "unplanned");
}

#[test]
fn an_etcd_that_is_full_is_named_by_those_who_lead_and_those_who_cannot() {
    let _cpu = cpus::some();
    let etcd = EtcdCluster::builder().arg("--quota-backend-bytes=1048576").start();
    let (_, nodes) = two_nodes(&etcd, 10);
    let value = "x".repeat(100_000);
    let full = holds_within(PATIENCE, || !etcd.etcdctl(&["put", "filler", &value]).status.success());
    assert!(full, "etcd takes no more");
    for node in &nodes {
        assert_said(node, "etcd_full", "NOSPACE");
        assert_checked(node, "ETCD_013", FAIL, "NOSPACE");
    }
    let third = NodeBuilder::new("e2").etcd(&etcd).spawn();
    assert_said(&third, "etcd_full", "etcdctl alarm disarm");
    assert_eq!(third.wait_exit(PATIENCE * 2), 69, "{}", third.report());
}
