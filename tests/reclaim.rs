//! A node that starts again: it takes its own record back whenever it crashed, whatever the lease; and what becomes
//! of a data dir that is copied, rolled back or lost.

#[path = "support/lib.rs"]
mod support;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use support::crew::{PATIENCE, SCHEDULING_SLACK, assert_kept, between, report, started_ns, tenures};
use support::disaster::copy_dir;
use support::etcd::EtcdCluster;
use support::node::{Node, NodeBuilder, Signal};
use support::poll::{boot_ns, wait_until};
use support::proxy::FaultProxy;

/// A lease that nobody waits for.
const LONG_SECS: u64 = 86_400;
/// The lease of those who do wait for it.
const SHORT: Duration = Duration::from_secs(5);
/// How soon a node leads again after its start.
const RECLAIM: Duration = Duration::from_secs(1);

// --- crashes ---------------------------------------------------------------------------------------------------------

/// How far apart the steps of a start are: each waits for the answer to the one before.
const STEP: Duration = Duration::from_millis(40);
/// Where it is killed, in half steps: in the middle of each, and at its end. What etcd was asked it has done by
/// then, and the node does not know it yet. A start has seven steps at most, when it takes its record back.
const CRASH_POINTS: u32 = 16;

/// The node leads again, under a token greater than any before; how soon. It may have to wait for a CPU, but not for
/// the lease of a day.
fn assert_leads_again(builder: &NodeBuilder, before: Option<u64>, when: &str) -> (Node, Duration) {
    let begin = boot_ns();
    let node = builder.spawn();
    let took = between(begin, started_ns(&node));
    let token = node.wait_for("main_loop_started", PATIENCE).token();
    println!("{when}: leads again in {took:?} with token {token:?}, after {before:?}");
    assert!(took < RECLAIM * 10, "{when}: {took:?}\n{}", node.report());
    assert!(token > before, "{when}: {token:?} after {before:?}");
    (node, took)
}

/// Starts the node behind a slow network and kills it, with its guardian, at this point of its start; adds how soon it
/// led again.
fn crash_at(point: u32, builder: &NodeBuilder, slow: &NodeBuilder, all: &mut Vec<Duration>) -> Vec<Node> {
    let mut crash = |when: &str, before: Option<u64>| {
        let node = slow.spawn();
        node.wait_for("listening", PATIENCE);
        std::thread::sleep(STEP * point / 2);
        node.kill_with_guardian();
        let events: Vec<_> = node.events().iter().map(|event| event.kind().to_owned()).collect();
        println!("{when}: killed after {events:?}");
        let before = node.events().iter().filter_map(|event| event.token()).max().or(before);
        let (again, took) = assert_leads_again(builder, before, when);
        all.push(took);
        [again, node]
    };
    let [again, first] = crash(&format!("point {point} of a first start"), None);
    again.kill_with_guardian();
    let token = again.wait_for("main_loop_started", PATIENCE).token();
    let [last, second] = crash(&format!("point {point} of a reclaim"), token);
    vec![first, again, second, last]
}

#[test]
fn a_node_that_is_killed_at_any_point_of_its_start_leads_again_at_once_whatever_the_lease() {
    let etcd = EtcdCluster::start(1);
    let proxy = FaultProxy::start(etcd.addr(0));
    proxy.delay_replies(STEP);
    let mut all = Vec::new();
    for point in 0..CRASH_POINTS {
        let id = format!("n{point}");
        // A cluster of its own, and the same data dir: only the way to etcd differs.
        let node = NodeBuilder::new(&id).cluster(&id).lease_secs(LONG_SECS);
        let slow = node.clone().endpoints([proxy.addr()]);
        let nodes = crash_at(point, &node.etcd(&etcd), &slow, &mut all);
        let led = tenures(&nodes).len();
        assert!(led >= 2, "{led} tenures\n{}", report(&nodes));
    }
    all.sort();
    let [half, most] = [all[all.len() / 2], all[all.len() - 1]];
    println!("led again within {half:?} in half of {} starts, within {most:?} in all", all.len());
    assert!(half < RECLAIM, "{half:?}");
}

#[test]
fn a_leader_that_is_killed_with_its_guardian_takes_its_record_back() {
    let etcd = EtcdCluster::start(3);
    let node = |id| NodeBuilder::new(id).lease_secs(LONG_SECS).etcd(&etcd);
    let builder = node("a");
    let first = builder.spawn();
    let token = first.wait_for("main_loop_started", PATIENCE).token();
    let follower = node("b").spawn();
    follower.wait_for("joined", PATIENCE);
    first.kill_with_guardian();
    // The follower sees no vacancy, so there is nobody to race with.
    let (again, _) = assert_leads_again(&builder, token, "with a follower");
    let nodes = [first, follower, again];
    assert_eq!(tenures(&nodes).len(), 2);
    let vacant =
        |e: &support::history::TimedEvent| e.kind() == "leader_changed" && e.json["leader"].is_null();
    assert!(!nodes[1].events().iter().any(vacant), "the record never was absent\n{}", report(&nodes));
}

// --- data dirs -------------------------------------------------------------------------------------------------------

/// A folder beside a node's data dir.
fn beside(node: &Node, name: &str) -> PathBuf {
    node.data_dir().with_file_name(name)
}

/// A node that leads and, with no guardian, leaves its record behind when it is killed.
fn lone_leader(etcd: &EtcdCluster, lease: Duration) -> (NodeBuilder, Node) {
    let builder = NodeBuilder::new("a").lease_secs(lease.as_secs()).etcd(etcd);
    let builder = builder.env("METAD_NODE__GUARDIAN", "false");
    let node = builder.spawn();
    node.wait_for("main_loop_started", PATIENCE);
    (builder, node)
}

fn stop(node: &Node) {
    node.signal(Signal::TERM);
    assert_eq!(node.wait_exit(PATIENCE), 0, "{}", node.report());
}

/// Leads, but not before the dead one's lease has ended: the record was a stranger's.
fn assert_waits_for_the_lease(stranger: &Node, dead: &Node) {
    let waited = between(dead.died_ns().expect("dead"), started_ns(stranger));
    assert!(waited > SHORT / 2, "it took a stranger's record: {waited:?}\n{}", stranger.report());
    assert!(waited < SHORT + Duration::from_secs(1) + SCHEDULING_SLACK, "{waited:?}");
    assert_eq!(stranger.wait_for("joined", PATIENCE).u64("incarnation"), Some(1), "a new identity");
}

#[test]
fn a_copy_of_a_data_dir_in_use_is_refused_and_the_original_goes_on() {
    let etcd = EtcdCluster::start(1);
    let (builder, original) = lone_leader(&etcd, SHORT);
    let folder = beside(&original, "copy");
    copy_dir(original.data_dir(), &folder);
    let copy = builder.clone().data_dir(&folder).spawn();
    assert_eq!(copy.wait_exit(PATIENCE), 73, "{}", copy.report());
    let said = copy.stderr();
    let address = original.rpc_addr().to_string();
    assert!(said.contains("this data dir is a copy"), "{said}");
    assert!(said.contains("node id \"a\" is in use") && said.contains(&address), "{said}");
    assert!(said.contains("--node-id"), "the way out: {said}");
    assert_kept(&[original, copy], 0, SHORT);
}

#[test]
fn a_copy_of_a_data_dir_whose_original_has_moved_on_starts_as_a_stranger() {
    let etcd = EtcdCluster::start(1);
    let (builder, first) = lone_leader(&etcd, SHORT);
    let folder = beside(&first, "copy");
    copy_dir(first.data_dir(), &folder);
    first.kill();
    let second = builder.spawn();
    second.wait_for("main_loop_started", PATIENCE);
    assert!(between(first.died_ns().expect("dead"), started_ns(&second)) < SHORT / 2, "twin: its own record");
    second.kill();
    let copy = builder.clone().data_dir(&folder).spawn();
    assert_waits_for_the_lease(&copy, &second);
    // And now it is the original that comes second.
    let original = builder.spawn();
    assert_eq!(original.wait_exit(PATIENCE), 73, "{}", original.report());
    assert!(original.stderr().contains(&copy.rpc_addr().to_string()), "{}", original.stderr());
    let nodes = [first, second, copy, original];
    assert_eq!(tenures(&nodes).len(), 3);
    assert!(nodes[2].is_alive() && !nodes[2].has_event("main_loop_stopping"), "{}", nodes[2].report());
}

#[test]
fn a_data_dir_that_was_rolled_back_gets_a_new_identity_and_leaves_its_old_record_alone() {
    let etcd = EtcdCluster::start(1);
    let (builder, first) = lone_leader(&etcd, SHORT);
    let old = beside(&first, "old");
    stop(&first);
    copy_dir(first.data_dir(), &old);
    let second = builder.spawn();
    second.wait_for("main_loop_started", PATIENCE);
    second.kill();
    // In place: the folder itself stays, so this is no copy.
    for file in ["identity", "state"] {
        std::fs::copy(old.join(file), second.data_dir().join(file)).expect("copied");
    }
    let stale = builder.spawn();
    assert_eq!(stale.wait_exit(PATIENCE), 75, "restart me\n{}", stale.report());
    let said = stale.stderr();
    assert!(said.contains("data_dir_stale") && said.contains("the next start has a new identity"), "{said}");
    let stranger = builder.spawn();
    assert_waits_for_the_lease(&stranger, &second);
    assert_eq!(tenures(&[first, second, stale, stranger]).len(), 3);
}

#[test]
fn a_node_that_lost_its_data_dir_waits_for_its_old_lease() {
    let etcd = EtcdCluster::start(1);
    let (builder, first) = lone_leader(&etcd, SHORT);
    first.kill();
    std::fs::remove_dir_all(first.data_dir()).expect("removed");
    let stranger = builder.spawn();
    assert_waits_for_the_lease(&stranger, &first);
    assert_eq!(tenures(&[first, stranger]).len(), 2);
}

#[test]
fn a_node_that_lost_its_data_dir_under_a_long_lease_says_how_to_free_its_seat() {
    let etcd = EtcdCluster::start(1);
    let (builder, first) = lone_leader(&etcd, Duration::from_secs(LONG_SECS));
    let lease = first.wait_for("joined", PATIENCE).str("lease").to_owned();
    first.kill();
    std::fs::remove_dir_all(first.data_dir()).expect("removed");
    let stranger = builder.spawn();
    assert_eq!(stranger.wait_exit(Duration::from_secs(60) + PATIENCE), 73, "{}", stranger.report());
    let said = stranger.stderr();
    let command = ["lease", "revoke", lease.trim_start_matches('0')];
    assert!(said.contains("etcdctl lease revoke") && said.contains(&lease), "{said}");
    etcd.etcdctl_ok(&command);
    let next = builder.spawn();
    next.wait_for("main_loop_started", PATIENCE);
    wait_until("it leads alone", PATIENCE, || next.has_event("leader_changed"));
    assert_eq!(tenures(&[first, stranger, next]).len(), 2);
}

// --- proof of death --------------------------------------------------------------------------------------------------

/// Makes the folder look as if a process on another machine, in another boot, had left it.
fn move_from_elsewhere(folder: &Path) {
    let inode = std::fs::metadata(folder).expect("a folder").ino();
    edit(&folder.join("identity"), |json| json["binding"] = format!("another machine:{inode}").into());
    edit(&folder.join("state"), |json| json["boot"] = "another boot".into());
}

fn edit(file: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    let mut json = serde_json::from_slice(&std::fs::read(file).expect("read")).expect("JSON");
    change(&mut json);
    std::fs::write(file, json.to_string()).expect("written");
}

#[test]
fn a_data_dir_from_another_machine_leaves_the_record_of_a_process_alone_that_may_live_there() {
    let etcd = EtcdCluster::start(1);
    let (builder, original) = lone_leader(&etcd, SHORT);
    // A clone of the volume: for all that the files say, the same folder.
    let folder = beside(&original, "clone");
    copy_dir(original.data_dir(), &folder);
    move_from_elsewhere(&folder);
    let clone = builder.clone().data_dir(&folder);
    for word in ["false", "true"] {
        let clone = clone.clone().env("METAD_NODE__DATA_DIR_EXCLUSIVE", word).spawn();
        if word == "false" {
            assert_eq!(clone.wait_exit(PATIENCE), 73, "{}", clone.report());
            assert!(clone.stderr().contains("/etc/machine-id"), "{}", clone.stderr());
            assert!(
                original.is_alive() && !original.has_event("main_loop_stopping"),
                "{}",
                original.report()
            );
            // The stranger that it became says nothing about the next clone.
            std::fs::remove_dir_all(&folder).expect("removed");
            original.kill();
            copy_dir(original.data_dir(), &folder);
            move_from_elsewhere(&folder);
        } else {
            clone.wait_for("main_loop_started", PATIENCE);
            let took = between(original.died_ns().expect("dead"), started_ns(&clone));
            assert!(
                took < SHORT / 2 + SCHEDULING_SLACK,
                "by the operator's word it takes its record back: {took:?}"
            );
            assert_eq!(tenures(&[original, clone]).len(), 2);
            return;
        }
    }
}

#[test]
fn a_machine_that_got_another_name_is_told_both_causes_and_the_command() {
    let etcd = EtcdCluster::start(1);
    let (builder, first) = lone_leader(&etcd, Duration::from_secs(LONG_SECS));
    first.kill();
    move_from_elsewhere(first.data_dir());
    let stranger = builder.spawn();
    assert_eq!(stranger.wait_exit(Duration::from_secs(60) + PATIENCE), 73, "{}", stranger.report());
    let said = stranger.stderr();
    for part in
        ["another machine", "/etc/machine-id", "metad release --node a --it-is-dead", "data_dir_exclusive"]
    {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    assert_eq!(tenures(&[first, stranger]).len(), 1);
}

#[test]
fn a_crashed_leader_that_starts_with_priority_0_gives_its_record_up_at_once() {
    let etcd = EtcdCluster::start(1);
    let (builder, first) = lone_leader(&etcd, Duration::from_secs(LONG_SECS));
    let other = NodeBuilder::new("b").lease_secs(LONG_SECS).etcd(&etcd).spawn();
    other.wait_for("joined", PATIENCE);
    first.kill();
    let observer = builder.env("METAD_NODE__PRIORITY", "0").spawn();
    // Its lease of a day is not waited for.
    other.wait_for("main_loop_started", PATIENCE);
    observer.wait_for("joined", PATIENCE);
    assert!(!observer.has_event("leadership_won"), "{}", observer.report());
    assert_eq!(tenures(&[first, other, observer]).len(), 2);
}
