//! `metad freeze`: no planned change and no claim of a vacancy meanwhile, shown everywhere, by any member, with no leader too.

use std::time::Duration;

use serde_json::Value;

use crate::support::crew::{PATIENCE, leader, tenures, wait_for_leader, wait_until_all_know_all};
use crate::support::etcd::EtcdCluster;
use crate::support::node::{Node, NodeBuilder, Signal};
use crate::support::poll::{holds_within, wait_until};
use crate::support::{http, spawn};

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
    let ended = nodes[next].wait_for("unfrozen", PATIENCE);
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
    // A second freeze takes the place of the first one, and says so.
    let again = metad(&[&observer], &["freeze", "--reason", "still"]);
    assert!(again.1.contains("before: frozen until 20") && again.1.contains("new disks"), "{again:?}");
    assert!(metad(&[&candidate], &["unfreeze"]).0 == 0);
    candidate.wait_for("main_loop_started", PATIENCE);
}
