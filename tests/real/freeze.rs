//! `metad freeze`: no planned change and no claim of a vacancy meanwhile, shown everywhere, by any member, with no leader too.

use std::time::Duration;

use serde_json::Value;

use crate::support::crew::{PATIENCE, leader, tenures, wait_for_leader, wait_until_all_know_all};
use crate::support::etcd::EtcdCluster;
use crate::support::node::{Node, NodeBuilder, Signal};
use crate::support::poll::{holds_within, wait_until};
use crate::support::{http, install, spawn};

/// How long nobody is seen to lead, where somebody would within milliseconds.
const QUIET: Duration = Duration::from_secs(3);

/// Its exit code, and all that it printed.
fn metad(nodes: &[&Node], args: &[&str]) -> (i32, String) {
    let addresses: Vec<String> = nodes.iter().map(|n| n.rpc_addr().to_string()).collect();
    let (code, out, errors) = spawn::metad(&[args, &["--meta", &addresses.join(",")]].concat(), PATIENCE);
    (code, out + &errors)
}

fn freeze(nodes: &[&Node], more: &[&str]) {
    let output = metad(nodes, &[&["freeze", "--reason", "new disks"], more].concat());
    assert!(output.0 == 0 && output.1.contains("new disks"), "{output:?}");
    for node in nodes {
        node.wait_for("frozen", PATIENCE);
    }
}

fn crew(etcd: &EtcdCluster) -> [Node; 3] {
    let nodes = ["f0", "f1", "f2"].map(|id| NodeBuilder::new(id).etcd(etcd).spawn());
    wait_for_leader(&nodes, PATIENCE);
    wait_until_all_know_all(&nodes);
    nodes
}

#[test]
fn a_frozen_election_has_no_new_leader_until_it_is_unfrozen_and_says_why() {
    let etcd = EtcdCluster::start(1);
    let nodes = crew(&etcd);
    let first = leader(&nodes).expect("one leads");
    let all: Vec<&Node> = nodes.iter().collect();
    freeze(&all, &[]);

    // No planned change.
    let asked = metad(&all, &["step-down", "--yes"]);
    assert_eq!(asked.0, 1, "{asked:?}");
    assert!(asked.1.contains("the election is frozen until metad unfreeze"), "{asked:?}");
    assert_eq!(leader(&nodes), Some(first), "it leads on");

    // Its death is no reason either.
    nodes[first].kill();
    let rest: Vec<&Node> = (0..3).filter(|i| *i != first).map(|i| &nodes[i]).collect();
    wait_until("the record is gone", PATIENCE, || metad(&rest, &["leader"]).0 == 2);
    assert!(!holds_within(QUIET, || tenures(&nodes).len() > 1), "somebody claimed");
    shown_everywhere(&rest);

    // A new member waits as well.
    let fourth = NodeBuilder::new("f3").etcd(&etcd).spawn();
    fourth.wait_for("joined", PATIENCE);
    assert!(
        !holds_within(Duration::from_secs(1), || fourth.has_event("leadership_won")),
        "{}",
        fourth.report()
    );

    let ended = metad(&rest, &["unfreeze"]);
    assert!(ended.0 == 0 && ended.1.contains("ended: frozen until metad unfreeze"), "{ended:?}");
    wait_until("somebody leads", PATIENCE, || {
        leader(&nodes).is_some() || fourth.has_event("main_loop_started")
    });
    rest[0].wait_for("unfrozen", PATIENCE);
    let again = metad(&rest, &["unfreeze"]);
    assert!(again.0 == 0 && again.1.contains("was not frozen"), "{again:?}");
}

/// Each channel says that nobody leads because of the freeze.
fn shown_everywhere(rest: &[&Node]) {
    let status = metad(rest, &["status"]).1;
    assert!(
        status.contains("frozen until metad unfreeze") && status.contains("nobody claims the vacancy"),
        "{status}"
    );
    let json: Value = serde_json::from_str(&metad(rest, &["leader", "-o", "json"]).1).expect("JSON");
    assert_eq!((&json["leader"], &json["freeze"]["reason"]), (&Value::Null, &"new disks".into()));
    let (_, state) = http::get(rest[0].http_addr(), "/api/v1/state", PATIENCE).expect("an answer");
    let state: Value = serde_json::from_str(&state).expect("JSON");
    assert_eq!(state["freeze"]["until"], Value::Null);
    let (_, metrics) = http::get(rest[0].http_addr(), "/metrics", PATIENCE).expect("an answer");
    assert!(metrics.contains("\nmetad_election_frozen 1\n"), "{metrics}");
    let check = metad(rest, &["check", "LEADER_006"]);
    assert_eq!(check.0, 2, "{check:?}");
    assert!(check.1.contains("nobody claims the vacancy"), "{check:?}");
}

/// The leader's program takes two seconds to end, and the freeze comes meanwhile.
#[test]
fn a_step_down_that_began_before_the_freeze_completes() {
    let etcd = EtcdCluster::start(1);
    let slow = ["sh", "-c", "trap 'sleep 2; exit 0' TERM; while :; do sleep 0.05; done"];
    let nodes = ["f0", "f1"].map(|id| NodeBuilder::new(id).etcd(&etcd).payload(&slow).spawn());
    let first = wait_for_leader(&nodes, PATIENCE);
    wait_until_all_know_all(&nodes);
    let all: Vec<&Node> = nodes.iter().collect();
    let (asked, next) = std::thread::scope(|threads| {
        let asked = threads.spawn(|| metad(&all, &["step-down", "--yes"]));
        nodes[first].wait_for("main_loop_stopping", PATIENCE);
        freeze(&all, &[]);
        assert!(!nodes[first].has_event("main_loop_stopped"), "the freeze was to come before its end");
        (asked.join().expect("an answer"), nodes[1 - first].wait_for("main_loop_started", PATIENCE))
    });
    assert_eq!(asked.0, 0, "{asked:?}");
    assert!(next.at_ns() > nodes[1 - first].wait_for("frozen", PATIENCE).at_ns());
    assert!(!nodes[1 - first].has_event("unfrozen"), "{}", nodes[1 - first].report());
}

/// The wall clock of one member is a day ahead, and it has seen the freeze come.
#[test]
fn a_member_whose_wall_clock_is_ahead_does_not_end_the_freeze() {
    let etcd = EtcdCluster::start(1);
    let right = NodeBuilder::new("f0").etcd(&etcd).spawn();
    right.wait_for("main_loop_started", PATIENCE);
    let ahead = NodeBuilder::new("f1").etcd(&etcd).env("LD_PRELOAD", install::libfaketime());
    let ahead = ahead.env("FAKETIME", "+1d").env("FAKETIME_DONT_FAKE_MONOTONIC", "1").spawn();
    let nodes = [right, ahead];
    wait_until_all_know_all(&nodes);
    freeze(&[&nodes[0]], &["--for", "6s"]); // by the right clock
    let ended = nodes.iter().map(|node| node.wait_for("unfrozen", PATIENCE).at_ns()).max().expect("two");
    let came = nodes.iter().map(|node| node.wait_for("frozen", PATIENCE).at_ns()).min().expect("two");
    let lasted = Duration::from_nanos(ended - came);
    assert!(lasted >= Duration::from_secs(6), "it was to last 6 s, and lasted {lasted:?}");
    let said = || nodes.iter().filter(|node| node.has_event("freeze_over")).count();
    wait_until("the one that has ended it says so", PATIENCE, || said() > 0);
    assert_eq!(said(), 1, "and no other one");
}

/// Nobody reaches the store at the time when the freeze is to end.
#[test]
fn a_freeze_whose_time_ends_while_etcd_is_away_ends_when_it_is_back() {
    let etcd = EtcdCluster::start(1);
    let nodes = ["f0", "f1"].map(|id| NodeBuilder::new(id).lease_secs(30).etcd(&etcd).spawn());
    wait_for_leader(&nodes, PATIENCE);
    wait_until_all_know_all(&nodes);
    let all: Vec<&Node> = nodes.iter().collect();
    freeze(&all, &["--for", "2s"]);
    etcd.pause(0);
    assert!(!holds_within(Duration::from_secs(3), || nodes.iter().any(|n| n.has_event("unfrozen"))));
    etcd.resume(0);
    nodes.iter().for_each(|node| drop(node.wait_for("unfrozen", PATIENCE)));
    assert_eq!(tenures(&nodes).len(), 1, "and it cost nothing");
}

/// Whatever is under that key freezes, and `metad unfreeze` takes it away.
#[test]
fn a_freeze_that_cannot_be_read_is_a_freeze_and_ends_like_one() {
    let etcd = EtcdCluster::start(1);
    let nodes = crew(&etcd);
    let all: Vec<&Node> = nodes.iter().collect();
    etcd.etcdctl_ok(&["put", "/metad/default/control/meta", "junk"]);
    all.iter().for_each(|node| drop(node.wait_for("frozen", PATIENCE)));
    let asked = metad(&all, &["step-down", "--yes"]);
    assert!(asked.0 == 1 && asked.1.contains("cannot be read"), "{asked:?}");
    let ended = metad(&all, &["unfreeze"]);
    assert!(ended.0 == 0 && ended.1.contains("cannot be read"), "{ended:?}");
    all.iter().for_each(|node| drop(node.wait_for("unfrozen", PATIENCE)));
}

#[test]
fn a_leader_that_is_stopped_in_a_freeze_has_no_successor_until_the_freeze_ends_by_itself() {
    let etcd = EtcdCluster::start(1);
    let nodes = crew(&etcd);
    let first = leader(&nodes).expect("one leads");
    let all: Vec<&Node> = nodes.iter().collect();
    freeze(&all, &["--for", "8s"]);
    nodes[first].signal(Signal::TERM);
    assert_eq!(nodes[first].wait_exit(PATIENCE), 0, "{}", nodes[first].report());
    let stopped = nodes[first].wait_for("main_loop_stopped", PATIENCE);
    wait_until("another one leads", PATIENCE, || leader(&nodes).is_some_and(|i| i != first));
    let next = leader(&nodes).expect("one leads");
    let started = nodes[next].wait_for("main_loop_started", PATIENCE);
    let came = nodes.iter().map(|node| node.wait_for("frozen", PATIENCE).at_ns()).min().expect("three");
    let ended = nodes[next].wait_for("unfrozen", PATIENCE);
    assert!(ended.at_ns() - came >= 8_000_000_000, "it was to last 8 s");
    assert!(stopped.at_ns() < ended.at_ns() && ended.at_ns() <= started.at_ns(), "only after the freeze");
    assert_eq!(tenures(&nodes).len(), 2);
}

#[test]
fn an_election_is_frozen_and_unfrozen_while_nobody_leads_and_on_an_embedded_store() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("store.db");
    let node = |id: &str, priority: &str| {
        NodeBuilder::new(id).sqlite(&file).env("METAD_NODE__PRIORITY", priority).spawn()
    };
    let observer = node("o", "0");
    observer.wait_for("joined", PATIENCE);
    freeze(&[&observer], &["--for", "1h"]);
    let candidate = node("c", "100");
    candidate.wait_for("joined", PATIENCE);
    assert!(!holds_within(QUIET, || candidate.has_event("leadership_won")), "{}", candidate.report());
    // A second freeze does not take the place of the first one unasked; if it does, it says so.
    let again = metad(&[&observer], &["freeze", "--reason", "still"]);
    assert!(
        again.0 == 1 && again.1.contains("new disks; metad unfreeze ends it, --force replaces it"),
        "{again:?}"
    );
    assert!(again.1.contains("nothing was changed"), "{again:?}");
    let again = metad(&[&observer], &["freeze", "--reason", "still", "--force"]);
    assert!(again.1.contains("before: frozen until 20") && again.1.contains("new disks"), "{again:?}");
    assert!(metad(&[&candidate], &["unfreeze"]).0 == 0);
    candidate.wait_for("main_loop_started", PATIENCE);
}
