//! Process 1 of a container, and `--init`: the node is its child, and whatever dies inside is replaced at once.

use std::process::Command;
use std::time::Duration;

use crate::support::crew::{PATIENCE, assert_second_leads};
use crate::support::etcd::EtcdCluster;
use crate::support::node::{Node, NodeBuilder, Signal};
use crate::support::poll::{holds_within, wait_until};
use crate::support::{spawn, sudo};

/// A lease that no test waits for.
const LONG_SECS: u64 = 86_400;

fn on_etcd(id: &str, etcd: &EtcdCluster) -> NodeBuilder {
    NodeBuilder::new(id).etcd(etcd).lease_secs(LONG_SECS)
}

/// Waits until this one leads, and starts a follower.
fn with_follower(first: Node, etcd: &EtcdCluster) -> [Node; 2] {
    first.wait_for("main_loop_started", PATIENCE);
    let second = on_etcd("b", etcd).spawn();
    second.wait_for("joined", PATIENCE);
    [first, second]
}

/// The process of the node itself: the one whose parent is the init.
#[track_caller]
fn inner(node: &Node) -> u32 {
    let is_node = |pid: &u32| spawn::name_and_parent(*pid) == ("metad".to_owned(), node.init());
    node.tree().into_iter().find(is_node).expect("its node")
}

#[test]
fn a_node_that_is_killed_under_its_init_is_replaced_at_once_and_the_init_ends_with_its_code() {
    let etcd = EtcdCluster::start(1);
    let nodes = with_follower(on_etcd("a", &etcd).arg("--init").spawn(), &etcd);
    nodes[0].kill_within(inner(&nodes[0]));
    assert_second_leads(&nodes);
    assert_eq!(nodes[0].wait_exit(PATIENCE), 137, "{}", nodes[0].report());
    wait_until("nothing is left of it", PATIENCE, || nodes[0].tree().is_empty());
}

#[test]
fn an_init_that_is_killed_takes_its_node_along_and_another_leads_at_once() {
    let etcd = EtcdCluster::start(1);
    let nodes = with_follower(on_etcd("a", &etcd).arg("--init").spawn(), &etcd);
    nodes[0].kill();
    assert_second_leads(&nodes);
    wait_until("nothing is left of it", PATIENCE, || nodes[0].tree().is_empty());
}

#[test]
fn a_signal_to_the_init_is_the_nodes_and_comes_once() {
    let etcd = EtcdCluster::start(1);
    let nodes = with_follower(on_etcd("a", &etcd).arg("--init").spawn(), &etcd);
    nodes[0].signal(Signal::HUP);
    wait_until("the node reloads", PATIENCE, || nodes[0].stderr().contains("reload"));
    // A service manager signals both; the init passes its own on.
    spawn::signal(inner(&nodes[0]), Signal::TERM);
    nodes[0].signal(Signal::TERM);
    assert_eq!(nodes[0].wait_exit(PATIENCE), 0, "{}", nodes[0].report());
    assert_second_leads(&nodes);
    assert!(nodes[0].has_event("leadership_resigned"), "it handed over: {}", nodes[0].report());
    assert!(!nodes[0].stderr().contains("second signal"), "{}", nodes[0].stderr());
}

/// A parent that ignores SIGCHLD leaves that to its children; then nobody who ends can be waited for.
#[test]
fn an_init_ends_with_its_node_also_where_the_end_of_children_was_ignored() {
    let mut command = Command::new("env");
    command.arg("--ignore-signal=CHLD").arg(spawn::metad_program()).args(["serve", "--events", "--init"]);
    let node = NodeBuilder::new("a").spawn_program(command);
    node.wait_for("main_loop_started", PATIENCE);
    node.kill_within(inner(&node));
    assert_eq!(node.wait_exit(PATIENCE), 137, "{}", node.report());
}

#[test]
fn an_init_does_not_wait_for_a_store_that_is_away() {
    let etcd = EtcdCluster::start(1);
    let node = on_etcd("a", &etcd).arg("--init").spawn();
    node.wait_for("main_loop_started", PATIENCE);
    etcd.pause_all();
    node.kill_within(inner(&node));
    assert!(
        !holds_within(Duration::from_secs(1), || !node.is_alive()),
        "twin: the guardian tries, and it waits a little"
    );
    assert_eq!(node.wait_exit(PATIENCE), 137, "then it ends: whoever restarts the container must not wait");
    etcd.resume_all();
}

/// The program's tree is gone before the next one leads, and what has lost its parent is reaped.
#[test]
fn a_program_in_a_container_ends_with_its_node_before_another_leads() {
    let etcd = EtcdCluster::start(1);
    let script = "trap '' TERM; for i in 1 2 3; do (setsid sleep 0.1 &); done; (trap '' TERM; setsid sleep 1000) & sleep 1000";
    let leader = on_etcd("a", &etcd).arg("--init").payload(&["sh", "-c", script]).spawn();
    let nodes = with_follower(leader, &etcd);
    wait_until("the program's tree", PATIENCE, || nodes[0].tree().len() >= 6);
    let zombies = || {
        let is_zombie = |pid: &u32| {
            std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
        };
        nodes[0].tree().iter().filter(|pid| is_zombie(pid)).count()
    };
    wait_until("orphans are reaped", PATIENCE, || zombies() == 0);
    nodes[0].kill_within(inner(&nodes[0]));
    assert_second_leads(&nodes);
    let sleeping = |pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|c| c.contains("sleep"))
    };
    assert!(!nodes[0].tree().iter().any(sleeping), "orphans: {:?}", nodes[0].tree());
    assert_eq!(nodes[0].wait_exit(PATIENCE), 137);
}

#[test]
fn as_process_1_it_is_an_init_without_being_asked() {
    let this = as_process_1_it_is_an_init_without_being_asked;
    if sudo::runs(this, "a namespace of processes") {
        return;
    }
    let etcd = EtcdCluster::start(1);
    let mut container = Command::new("unshare");
    container.args(["--pid", "--fork", "--kill-child", "--mount-proc"]).arg(spawn::metad_program());
    container.args(["serve", "--events", "--etcd-endpoints", &etcd.endpoint(0)]);
    let nodes = with_follower(on_etcd("a", &etcd).spawn_program(container), &etcd);
    assert!(!nodes[0].stderr().contains("no guardian"), "{}", nodes[0].stderr());
    nodes[0].kill_within(inner(&nodes[0]));
    assert_second_leads(&nodes);
    assert_eq!(nodes[0].wait_exit(PATIENCE), 137, "{}", nodes[0].report());
}
