//! The priority of a running member: `metad priority NODE N` by any member's address, and SIGHUP from its configuration.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::support::crew::{PATIENCE, leads, wait_until_all_know_all};
use crate::support::etcd::EtcdCluster;
use crate::support::node::{Node, NodeBuilder, Signal};
use crate::support::poll::{holds_within, wait_until};
use crate::support::spawn;

/// How long nobody is seen to lead, where somebody would within milliseconds.
const QUIET: Duration = Duration::from_secs(3);

/// Its exit code, and all that it printed. Whom it asks may be another member than the one that it is about.
fn metad(asked: &[&Node], args: &[&str]) -> (i32, String) {
    let addresses: Vec<String> = asked.iter().map(|n| n.rpc_addr().to_string()).collect();
    let (code, out, errors) = spawn::metad(&[args, &["--meta", &addresses.join(",")]].concat(), PATIENCE);
    (code, out + &errors)
}

/// A member's priority, as this node sees it.
fn seen(by: &Node, node: &str) -> Option<u64> {
    let (_, out) = metad(&[by], &["members", "-o", "json"]);
    let page: Value = serde_json::from_str(&out).ok()?;
    page["members"].as_array()?.iter().find(|m| m["node"] == node)?["priority"].as_u64()
}

#[test]
fn a_vacancy_and_a_refusal_go_by_the_priority_that_a_running_member_was_given() {
    let etcd = EtcdCluster::start(1);
    // The id of each, and the order in which they join: without a priority p1 would be next.
    let nodes = ["p0", "p1", "p2"].map(|id| {
        let node = NodeBuilder::new(id).etcd(&etcd).spawn();
        node.wait_for("joined", PATIENCE);
        node
    });
    let [p0, p1, p2] = &nodes;
    p0.wait_for("main_loop_started", PATIENCE);
    wait_until_all_know_all(&nodes);

    let done = metad(&[p1], &["priority", "p2", "200"]);
    assert!(done.0 == 0 && done.1.contains("p2 has priority 200 now (before: 100)"), "{done:?}");
    wait_until("all see it", PATIENCE, || nodes.iter().all(|n| seen(n, "p2") == Some(200)));
    let status = metad(&[p1], &["status"]).1;
    assert!(status.lines().any(|l| l.contains("p2") && l.contains(" 200 ")), "{status}");
    let action = p2.wait_for("admin_action", PATIENCE);
    assert_eq!((action.str("action"), action.str("to")), ("change of its priority", "200"));

    // What cannot be is refused, and changes nothing.
    for (args, code, says) in [
        (["priority", "p0", "0"], 1, "only a follower can get priority 0"),
        (["priority", "p9", "5"], 1, "no member \"p9\" is registered"),
        (["priority", "p0", "1001"], 64, "1000"),
        (["priority", "p0", "-1"], 64, "-1"),
    ] {
        let refused = metad(&[p0], &args);
        assert!(refused.0 == code && refused.1.contains(says), "{args:?}: {refused:?}");
    }
    assert!(leads(p0) && seen(p1, "p0") == Some(100), "{}", p0.report());

    p0.kill();
    p2.wait_for("main_loop_started", PATIENCE);
    // An observer by request: it claims no vacancy, until it is a candidate again.
    let observer = metad(&[p1], &["priority", "p1", "0"]);
    assert_eq!(observer.0, 0, "{observer:?}");
    p2.kill();
    wait_until("the record is gone", PATIENCE, || metad(&[p1], &["leader"]).0 == 2);
    assert!(!holds_within(QUIET, || p1.has_event("leadership_won")), "{}", p1.report());
    assert_eq!(metad(&[p1], &["priority", "p1", "1"]).0, 0);
    p1.wait_for("main_loop_started", PATIENCE);
}

fn write(file: &Path, priority: u16) {
    fs::write(file, format!("[node]\npriority = {priority}\n")).expect("a file");
}

#[test]
fn sighup_puts_the_configured_priority_in_force_whatever_was_set_meanwhile() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = folder.path().join("store.db");
    let start = |id: &str| {
        let file = folder.path().join(id);
        write(&file, 100);
        let node = NodeBuilder::new(id).sqlite(&store).arg("--config").arg(&file).spawn();
        node.wait_for("joined", PATIENCE);
        (node, file)
    };
    let (leader, of_leader) = start("s0");
    let (follower, of_follower) = start("s1");
    leader.wait_for("main_loop_started", PATIENCE);
    let shown = |priority| {
        wait_until("it is shown", PATIENCE, || seen(&leader, "s1") == Some(priority));
    };

    write(&of_follower, 150);
    follower.signal(Signal::HUP);
    shown(150);
    wait_until("it is said", PATIENCE, || follower.messages().contains("SIGHUP: node.priority reloaded"));
    assert!(!follower.messages().contains("restart the node"), "{}", follower.messages());
    assert_eq!(metad(&[&leader], &["priority", "s1", "7"]).0, 0);
    shown(7);
    follower.signal(Signal::HUP);
    shown(150);
    // And there and back.
    write(&of_follower, 0);
    follower.signal(Signal::HUP);
    shown(0);

    // A leader does not become an observer, and says why; another priority it takes.
    write(&of_leader, 0);
    leader.signal(Signal::HUP);
    wait_until("it is refused", PATIENCE, || {
        leader.messages().contains("SIGHUP: node.priority not reloaded: it is leader: only a follower")
    });
    assert_eq!(seen(&follower, "s0"), Some(100));
    write(&of_leader, 50);
    leader.signal(Signal::HUP);
    wait_until("the leader's is shown", PATIENCE, || seen(&follower, "s0") == Some(50));
    assert!(leads(&leader), "{}", leader.report());
}
