//! Three real nodes on a real etcd of three members: who leads, and what happens when that one goes.

use std::time::Duration;

use crate::support;
use crate::support::crew::{
    PATIENCE, assert_ended_in_time, assert_not_early, leader, tenures, wait_for_leader,
    wait_until_all_know_all,
};
use crate::support::etcd::EtcdCluster;
use crate::support::history;
use crate::support::node::{Node, NodeBuilder, Signal};
use crate::support::poll::{boot_ns, holds_within, wait_until};

const LEASE: Duration = Duration::from_secs(5);
/// A lease that no test waits for: whatever ends a tenure or lets another one begin, its end does not.
const DAY_SECS: u64 = 86_400;
const LEADER_KEY: &str = "/metad/default/election/meta/leader";

fn builders(etcd: &EtcdCluster) -> Vec<NodeBuilder> {
    ["e0", "e1", "e2"].iter().map(|id| NodeBuilder::new(id).etcd(etcd)).collect()
}

fn with_a_days_lease(etcd: &EtcdCluster) -> Vec<NodeBuilder> {
    builders(etcd).into_iter().map(|builder| builder.lease_secs(DAY_SECS)).collect()
}

/// How long the node's lease has still to live, in seconds, as etcd says; -1 once it is gone.
fn lease_left(etcd: &EtcdCluster, node: &Node) -> i64 {
    let lease = node.wait_for("joined", PATIENCE).str("lease").to_owned();
    let said = etcd.etcdctl_ok(&["lease", "timetolive", &lease, "-w", "json"]);
    let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    said["ttl"].as_i64().unwrap_or_else(|| panic!("no ttl in {said}"))
}

/// All nodes, registered, one of them leading; the leader's index.
fn start(builders: &[NodeBuilder]) -> (Vec<Node>, usize) {
    let nodes: Vec<Node> = builders.iter().map(NodeBuilder::spawn).collect();
    let index = wait_for_leader(&nodes, PATIENCE);
    wait_until_all_know_all(&nodes);
    (nodes, index)
}

#[test]
fn three_nodes_elect_one_and_sigterm_hands_over_after_the_main_loop_has_stopped() {
    let etcd = EtcdCluster::start(3);
    let (nodes, first) = start(&builders(&etcd));
    assert!(holds_within(PATIENCE, || tenures(&nodes).len() == 1), "exactly one leads");
    nodes[first].signal(Signal::TERM);
    assert_eq!(nodes[first].wait_exit(PATIENCE), 0, "{}", nodes[first].report());
    let second = wait_for_leader(&nodes, PATIENCE);
    let stopped = nodes[first].wait_for("main_loop_stopped", PATIENCE);
    let started = nodes[second].wait_for("main_loop_started", PATIENCE);
    assert_eq!(stopped.str("reason"), "resigned_signal");
    assert!(stopped.at_ns() <= started.at_ns(), "the next main loop starts after the last one, never before");
    assert_eq!(tenures(&nodes).len(), 2);
}

#[test]
fn after_kill_9_the_guardians_revoke_lets_another_lead_and_not_the_end_of_the_lease() {
    let etcd = EtcdCluster::start(3);
    let (nodes, first) = start(&with_a_days_lease(&etcd));
    let most_of_it = i64::try_from(DAY_SECS).expect("it fits") / 2;
    assert!(lease_left(&etcd, &nodes[first]) > most_of_it, "its lease would hold for long");
    nodes[first].kill();
    let second = wait_for_leader(&nodes, PATIENCE);
    assert_eq!(lease_left(&etcd, &nodes[first]), -1, "its lease was revoked");
    assert_eq!(tenures(&nodes).len(), 2);
    // Twin: when the guardian is killed with it, nobody revokes, and the record stays with the dead.
    nodes[second].kill_with_guardian();
    let taken = holds_within(Duration::from_secs(3), || leader(&nodes).is_some());
    assert!(!taken, "without a guardian the lease lives on\n{}", support::crew::report(&nodes));
    assert!(lease_left(&etcd, &nodes[second]) > most_of_it, "nobody has revoked it");
    assert!(etcd.etcdctl_ok(&["get", LEADER_KEY]).contains(nodes[second].id()), "the record is still there");
}

#[test]
fn when_all_of_etcd_stops_the_leader_exits_75_before_the_lease_is_over_and_says_so() {
    let etcd = EtcdCluster::start(3);
    let (nodes, first) = start(&builders(&etcd));
    let stopped = boot_ns();
    etcd.pause_all();
    // The last renewal left before the stop, so its lease is over no later than a lease after it.
    if assert_ended_in_time(&nodes[first], stopped, LEASE) {
        let end = nodes[first].wait_for("main_loop_stopped", PATIENCE);
        assert_eq!(end.str("reason"), "renew_deadline");
        assert_not_early(stopped, end.at_ns(), LEASE);
        let log = nodes[first].stderr();
        assert!(
            log.contains("lease timeout") && log.contains("keep alive failed, stopping main loop"),
            "{log}"
        );
    }
    etcd.resume_all();
    wait_for_leader(&nodes, PATIENCE);
    assert_eq!(tenures(&nodes).len(), 2);
}

#[test]
fn a_record_deleted_by_hand_stops_the_leader_at_once_and_somebody_leads_again() {
    let etcd = EtcdCluster::start(1);
    let (nodes, first) = start(&with_a_days_lease(&etcd));
    let left = lease_left(&etcd, &nodes[first]);
    assert!(left > i64::try_from(DAY_SECS).expect("it fits") / 2, "its lease would hold for long: {left} s");
    let deleted = boot_ns();
    etcd.etcdctl_ok(&["del", LEADER_KEY]);
    assert_eq!(nodes[first].wait_exit(PATIENCE), 75, "{}", nodes[first].report());
    let [stopping, stopped] =
        ["main_loop_stopping", "main_loop_stopped"].map(|kind| nodes[first].wait_for(kind, PATIENCE));
    assert!(["record_deleted", "deposed", "fenced"].contains(&stopping.str("reason")), "{stopping:?}");
    assert!(deleted < stopping.at_ns() && stopping.at_ns() <= stopped.at_ns(), "because of it, and in order");
    assert!(!nodes[first].stderr().contains("lease timeout"), "{}", nodes[first].report());
    let second = wait_for_leader(&nodes, PATIENCE);
    let next = nodes[second].wait_for("main_loop_started", PATIENCE);
    assert!(next.token() > stopping.token(), "{next:?} after {stopping:?}");
}

#[test]
fn a_foreign_campaigner_and_metad_queue_behind_each_other() {
    let etcd = EtcdCluster::start(1);
    let election = "/metad/default/election/meta";
    // A campaigner of another kind comes first: metad waits.
    let mut other = etcd.spawn_etcdctl(&["elect", election, "somebody-else"]);
    wait_until("the other tool leads", PATIENCE, || listed(&etcd, election).contains("somebody-else"));
    let node = NodeBuilder::new("e0").etcd(&etcd).spawn();
    node.wait_for("joined", PATIENCE);
    assert!(!holds_within(Duration::from_secs(2), || node.has_event("main_loop_started")), "metad must wait");
    support::spawn::signal(other.id(), Signal::TERM);
    let _ = other.wait();
    node.wait_for("main_loop_started", PATIENCE);
    // And the other way round: the tool lists our leader, and waits behind it.
    assert!(listed(&etcd, election).contains("\"holderIdentity\":\"e0\""));
    let mut other = etcd.spawn_etcdctl(&["elect", election, "somebody-else"]);
    let queued = || {
        etcd.etcdctl_ok(&["get", "--prefix", "--keys-only", election])
            .lines()
            .filter(|l| !l.is_empty())
            .count()
    };
    wait_until("the other tool queues", PATIENCE, || queued() == 2);
    assert!(listed(&etcd, election).contains("\"holderIdentity\":\"e0\""), "metad still leads");
    node.signal(Signal::TERM);
    assert_eq!(node.wait_exit(PATIENCE), 0);
    wait_until("the other tool leads", PATIENCE, || listed(&etcd, election).contains("somebody-else"));
    support::spawn::signal(other.id(), Signal::TERM);
    let _ = other.wait();
}

/// What `etcdctl elect -l` prints first. It listens for ever, so it is ended after a moment.
fn listed(etcd: &EtcdCluster, election: &str) -> String {
    etcd.listen(&["elect", "-l", election], Duration::from_millis(700))
}

/// Has the chosen member got the record in one write, so that it never was absent? Candidates get 100 ms to say that they
/// are ready; one that is starved of CPU for so long is passed over, and the record is given up instead.
fn steps_down_in_one_write(etcd: &EtcdCluster, cluster: &str) -> bool {
    let builders: Vec<_> = builders(etcd).into_iter().map(|b| b.cluster(cluster)).collect();
    let (nodes, first) = start(&builders);
    let last = (0..3).rev().find(|i| *i != first).expect("a follower");
    let address = nodes[last].rpc_addr().to_string();
    let step_down = |to: &str| {
        let mut command = support::spawn::metad_command();
        command.args(["step-down", "--to", to, "--meta", &address]);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        support::spawn::output(command, PATIENCE)
    };
    let refused = step_down("nobody");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("nobody") && said.contains("e0"), "{said}");
    assert!(nodes[first].is_alive() && !nodes[first].has_event("main_loop_stopping"), "nothing was begun");
    let done = step_down(nodes[last].id());
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert_eq!(nodes[first].wait_exit(PATIENCE), 75);
    wait_for_leader(&nodes, PATIENCE);
    assert_eq!(tenures(&nodes).len(), 2);
    let was_absent = |e: &history::TimedEvent| e.kind() == "leader_changed" && e.json["leader"].is_null();
    let one_write = leader(&nodes) == Some(last) && !nodes[last].events().iter().any(was_absent);
    assert!(!one_write || done.status.success() && said.contains(nodes[last].id()), "{said}");
    one_write
}

#[test]
fn a_leader_that_steps_down_hands_over_to_the_chosen_member_and_exits_75() {
    let etcd = EtcdCluster::start(3);
    assert!((0..3).any(|round| steps_down_in_one_write(&etcd, &format!("round-{round}"))));
}

#[test]
fn a_node_leads_through_tls_with_a_client_certificate_and_a_login() {
    let etcd = EtcdCluster::builder().members(1).tls().start();
    let plain = NodeBuilder::new("e0").etcd(&etcd).spawn();
    plain.wait_for("main_loop_started", PATIENCE);
    plain.signal(Signal::TERM);
    assert_eq!(plain.wait_exit(PATIENCE), 0);
    etcd.enable_auth("metad", "secret-1");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("password");
    std::fs::write(&file, "secret-1\n").expect("a file");
    let node = NodeBuilder::new("e1")
        .etcd(&etcd)
        .env("METAD_STORE__ETCD__USERNAME", "metad")
        .env("METAD_STORE__ETCD__PASSWORD_FILE", &file)
        .spawn();
    node.wait_for("main_loop_started", PATIENCE);
    let lost = holds_within(LEASE * 2, || node.has_event("main_loop_stopping"));
    assert!(!lost, "renewals go through TLS and login as well\n{}", node.report());
}

#[test]
fn a_claim_that_a_full_etcd_refuses_is_called_that_and_is_not_repeated_in_a_loop() {
    let etcd = EtcdCluster::builder().arg("--quota-backend-bytes=4000000").start();
    let nodes = ["e0", "e1"].map(|id| NodeBuilder::new(id).etcd(&etcd).spawn());
    let first = wait_for_leader(&nodes, PATIENCE);
    wait_until_all_know_all(&nodes);
    let much = "x".repeat(100_000);
    wait_until("etcd is full", PATIENCE, || !etcd.etcdctl(&["put", "much", &much]).status.success());
    nodes[first].kill();
    let refused = || nodes[1 - first].events().iter().filter(|e| e.kind() == "claim_refused").count();
    wait_until("two refused claims", PATIENCE, || refused() >= 2);
    let events = nodes[1 - first].events();
    let at: Vec<_> = events.iter().filter(|e| e.kind() == "claim_refused").map(|e| e.at_ns()).collect();
    assert!(at[1] - at[0] >= 4_900_000_000, "paced: {at:?}");
    let said = events.iter().find(|e| e.kind() == "claim_refused").expect("one").str("error").to_owned();
    assert!(said.contains("database space exceeded"), "{said}");
    assert!(!nodes[1 - first].has_event("claim_lost"), "nobody was faster\n{}", nodes[1 - first].report());
    make_room(&etcd);
    wait_until("it leads when there is room", PATIENCE, || leader(&nodes) == Some(1 - first));
    assert_eq!(tenures(&nodes).len(), 2);
}

fn make_room(etcd: &EtcdCluster) {
    let status = etcd.etcdctl_ok(&["endpoint", "status", "-w", "json"]);
    let revision = status.split("\"revision\":").nth(1).and_then(|s| s.split([',', '}']).next());
    etcd.etcdctl_ok(&["compact", revision.expect("a revision")]);
    etcd.etcdctl_ok(&["defrag"]);
    etcd.etcdctl_ok(&["alarm", "disarm"]);
}
