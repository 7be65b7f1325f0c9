//! The guardian, on real processes: what is killed, in which order, and how soon somebody else leads.

use std::time::Duration;

use crate::support;
use crate::support::crew::{PATIENCE, assert_not_early, assert_second_leads, leads, report};
use crate::support::etcd::EtcdCluster;
use crate::support::node::{Node, NodeBuilder, Signal};
use crate::support::poll::{boot_ns, holds_within, wait_until};
use crate::support::proxy::FaultProxy;
use crate::support::usage::wake_ups;
use crate::support::{history, witness};

/// A lease that no test waits for: whoever takes over before it ends was let in by a guardian.
const LONG_SECS: u64 = 86_400;

/// Starts a leader and a follower of it.
fn pair(leader: &NodeBuilder, follower: &NodeBuilder) -> Vec<Node> {
    let first = leader.spawn();
    first.wait_for("main_loop_started", PATIENCE);
    let second = follower.spawn();
    second.wait_for("joined", PATIENCE);
    vec![first, second]
}

fn on_etcd(id: &str, etcd: &EtcdCluster, lease_secs: u64) -> NodeBuilder {
    NodeBuilder::new(id).etcd(etcd).lease_secs(lease_secs)
}

fn kill(pid: u32) {
    support::spawn::signal(pid, Signal::KILL);
}

#[test]
fn after_kill_9_another_leads_at_once_whatever_the_lease() {
    let etcd = EtcdCluster::start(3);
    let nodes = pair(&on_etcd("a", &etcd, LONG_SECS), &on_etcd("b", &etcd, LONG_SECS));
    nodes[0].kill();
    assert_second_leads(&nodes);
}

#[test]
fn the_same_on_the_embedded_store() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("metad.db");
    let node = |id| NodeBuilder::new(id).sqlite(&file).lease_secs(LONG_SECS);
    let nodes = pair(&node("a"), &node("b"));
    nodes[0].kill();
    assert_second_leads(&nodes);
}

/// The store is away when its leader is killed, and the guardian's connection with it.
#[test]
fn a_revoke_that_finds_the_store_away_is_tried_until_it_is_back() {
    let etcd = EtcdCluster::start(1);
    let proxy = FaultProxy::start(etcd.addr(0));
    let behind = NodeBuilder::new("a").endpoints([proxy.addr()]).lease_secs(LONG_SECS);
    let nodes = pair(&behind, &on_etcd("b", &etcd, LONG_SECS));
    proxy.refuse();
    nodes[0].kill();
    assert!(!holds_within(Duration::from_secs(3), || leads(&nodes[1])), "twin: nothing could be revoked");
    proxy.pass();
    assert_second_leads(&nodes);
}

#[test]
fn a_guardian_that_only_waits_for_its_store_ends_on_sigterm_and_one_that_watches_does_not() {
    let etcd = EtcdCluster::start(1);
    let node = on_etcd("a", &etcd, LONG_SECS).spawn();
    node.wait_for("main_loop_started", PATIENCE);
    let guardian = node.guardian();
    support::spawn::signal(guardian, Signal::TERM);
    assert!(!holds_within(Duration::from_millis(500), || node.guardian() != guardian), "twin: it watches on");
    etcd.pause_all();
    node.kill();
    let name = || std::fs::read_to_string(format!("/proc/{guardian}/comm")).unwrap_or_default();
    wait_until("it says that it waits for the store", PATIENCE, || name().trim() == "metad: revoking");
    // As systemd does, to all that is left, when the main process has crashed.
    support::spawn::signal(guardian, Signal::TERM);
    assert!(!holds_within(Duration::from_secs(2), || name().is_empty()), "twin: it goes on trying");
    std::thread::sleep(Duration::from_secs(4));
    support::spawn::signal(guardian, Signal::TERM);
    wait_until("it ends", PATIENCE, || name().is_empty());
    etcd.resume_all();
}

#[test]
fn without_a_guardian_only_the_lease_ends_a_tenure() {
    let etcd = EtcdCluster::start(1);
    let off = |id| on_etcd(id, &etcd, 5).env("METAD_NODE__GUARDIAN", "false");
    let nodes = pair(&off("a"), &off("b"));
    nodes[0].pause(); // from here on it renews nothing
    let asked = boot_ns();
    let lease = nodes[0].wait_for("joined", PATIENCE).str("lease").to_owned();
    let said = etcd.etcdctl_ok(&["lease", "timetolive", &lease, "-w", "json"]);
    nodes[0].kill();
    let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    let left =
        said["ttl"].as_u64().unwrap_or_else(|| panic!("its lease is over before it was killed: {said}"));
    assert!(left > 0, "twin: its lease lives when it is killed: {said}");
    assert_second_leads(&nodes);
    // etcd counts down in whole seconds, rounded down: the lease lived for at least as long.
    let gap = Duration::from_nanos(nodes[1].wait_for("main_loop_started", PATIENCE).at_ns() - asked);
    assert!(gap >= Duration::from_secs(left), "{gap:?}, although its lease had {left} s to live");
}

#[test]
fn a_killed_candidate_does_not_stand_in_the_way_of_the_next_one() {
    let etcd = EtcdCluster::start(1);
    let mut nodes = pair(&on_etcd("a", &etcd, LONG_SECS), &on_etcd("b", &etcd, LONG_SECS));
    let third = on_etcd("c", &etcd, LONG_SECS).spawn();
    third.wait_for("joined", PATIENCE);
    let dead = nodes.remove(1); // kept: dropping it would end its guardian as well
    dead.kill();
    wait_until("its registration is gone", PATIENCE, || {
        !etcd.etcdctl_ok(&["get", "--prefix", "--keys-only", "/metad/default/nodes/"]).contains("nodes/b")
    });
    nodes.push(third);
    nodes[0].signal(Signal::TERM);
    assert_second_leads(&nodes);
}

#[test]
fn a_dead_guardian_is_replaced_and_the_new_one_does_its_work() {
    let etcd = EtcdCluster::start(1);
    let nodes = pair(&on_etcd("a", &etcd, LONG_SECS), &on_etcd("b", &etcd, LONG_SECS));
    let first = nodes[0].guardian();
    kill(first);
    wait_until("another guardian", PATIENCE, || nodes[0].guardian() != first);
    assert!(!holds_within(Duration::from_secs(1), || !leads(&nodes[0])), "its death alone does no harm");
    nodes[0].kill();
    assert_second_leads(&nodes);
}

#[test]
fn a_stopped_leader_is_killed_once_its_lease_is_over_and_never_acts_again() {
    let etcd = EtcdCluster::start(1);
    let nodes = pair(&on_etcd("a", &etcd, 5), &on_etcd("b", &etcd, 5));
    let told = boot_ns();
    nodes[0].pause();
    let stopped = boot_ns(); // a busy machine takes its time to stop it, and it renews meanwhile
    assert_eq!(nodes[0].wait_exit(PATIENCE), 137, "the kernel timer's kill\n{}", report(&nodes));
    // A busy machine may tell its parent late; whoever leads next was let in after its death.
    let next = nodes[1].wait_for("main_loop_started", PATIENCE).at_ns();
    let died = nodes[0].ended_ns().expect("dead").min(next);
    let lived = Duration::from_nanos(died - stopped);
    let waited = witness::waited(stopped, died);
    assert!(
        lived < Duration::from_millis(5500) + waited,
        "killed after {lived:?}, waited for a CPU: {waited:?}"
    );
    assert_not_early(told, died, Duration::from_secs(5));
    assert_second_leads(&nodes);
}

#[test]
fn a_program_and_its_tree_die_with_metad_before_anybody_else_leads() {
    let etcd = EtcdCluster::start(1);
    let script = "trap '' TERM; (trap '' TERM; setsid sleep 1000) & sleep 1000";
    let leader = on_etcd("a", &etcd, LONG_SECS).payload(&["sh", "-c", script]);
    let nodes = pair(&leader, &on_etcd("b", &etcd, LONG_SECS));
    wait_until("the program's tree", PATIENCE, || nodes[0].tree().len() >= 4);
    nodes[0].kill();
    assert_second_leads(&nodes);
    // It was dead before the lease was revoked, so it is dead now; the guardian itself may still be ending.
    let sleeping = |pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|c| c.contains("sleep"))
    };
    assert!(!nodes[0].tree().iter().any(sleeping), "orphans: {:?}", nodes[0].tree());
    wait_until("the guardian ends", PATIENCE, || nodes[0].tree().is_empty());
}

#[test]
fn when_the_guardian_dies_the_program_is_ended_and_leadership_given_up() {
    let etcd = EtcdCluster::start(1);
    let leader = on_etcd("a", &etcd, LONG_SECS).payload(&["sh", "-c", "setsid sleep 1000 & sleep 1000"]);
    let nodes = pair(&leader, &on_etcd("b", &etcd, LONG_SECS));
    wait_until("the program's tree", PATIENCE, || nodes[0].tree().len() >= 4);
    kill(nodes[0].guardian());
    assert_eq!(nodes[0].wait_exit(PATIENCE), 75, "{}", report(&nodes));
    let is_of_the_program = |pid: &u32| ["sh", "sleep"].contains(&&*support::spawn::name_and_parent(*pid).0);
    assert!(!nodes[0].tree().iter().any(is_of_the_program), "nothing of it is left: {:?}", nodes[0].tree());
    wait_until("the next guardian ends as well", PATIENCE, || nodes[0].tree().is_empty());
    let stopping = nodes[0].wait_for("main_loop_stopping", PATIENCE);
    assert_eq!(stopping.str("reason"), "guardian_lost", "{}", report(&nodes));
    assert_second_leads(&nodes);
}

/// The first one's death alone is one event, so it is done often enough for a zombie to be left by chance.
#[test]
fn a_guardian_that_dies_again_and_again_leaves_no_zombie() {
    let node = NodeBuilder::new("n1").spawn();
    node.wait_for("main_loop_started", PATIENCE);
    for _ in 0..10 {
        let guardian = node.guardian();
        kill(guardian);
        wait_until("another guardian", PATIENCE, || node.guardian() != guardian);
    }
    let zombies = || {
        let all = std::fs::read_dir("/proc").expect("/proc is mounted").flatten();
        let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let stat = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let is_zombie = |pid: &u32| stat(*pid).rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z'));
        let is_child = |pid: &u32| support::spawn::name_and_parent(*pid).1 == node.pid();
        pids.filter(is_child).filter(is_zombie).collect::<Vec<_>>()
    };
    assert!(holds_within(Duration::from_secs(2), || zombies().is_empty()), "{:?}", zombies());
}

#[test]
fn it_sleeps_while_nothing_happens() {
    let etcd = EtcdCluster::start(1);
    let node = on_etcd("a", &etcd, 15).payload(&["sleep", "1000"]).spawn();
    node.wait_for("main_loop_started", PATIENCE);
    let guardian = node.guardian();
    std::thread::sleep(Duration::from_secs(1)); // it gets its connection ready
    let (began, before) = (boot_ns(), wake_ups(guardian));
    std::thread::sleep(Duration::from_secs(5));
    let woken = wake_ups(guardian) - before;
    let secs = Duration::from_nanos(boot_ns() - began).as_secs_f64();
    assert!(woken > 0, "twin: it moves its timer and answers pings");
    assert!((woken as f64) < 5.0 * secs, "woken {woken} times in {secs:.1} s");
}

#[test]
fn it_is_shown_under_its_own_name() {
    let node = NodeBuilder::new("n1").spawn();
    let guardian = node.guardian();
    let read = |file| std::fs::read_to_string(format!("/proc/{guardian}/{file}")).expect("it lives");
    assert_eq!(read("comm").trim(), "metad: guardian", "as top shows it");
    assert!(read("cmdline").starts_with("metad: guardian of n1\0"), "as ps shows it: {:?}", read("cmdline"));
    assert_eq!(support::spawn::name_and_parent(node.pid()).0, "metad");
}

#[test]
fn a_clean_stop_leaves_no_guardian_behind() {
    let node = NodeBuilder::new("n1").spawn();
    node.wait_for("main_loop_started", PATIENCE);
    node.guardian();
    node.signal(Signal::TERM);
    assert_eq!(node.wait_exit(PATIENCE), 0);
    wait_until("the guardian ends", PATIENCE, || node.tree().is_empty());
}

#[test]
fn a_supervisor_that_is_faster_than_the_guardian_waits_for_the_end_of_the_old_program() {
    let etcd = EtcdCluster::start(1);
    let builder = on_etcd("a", &etcd, LONG_SECS).payload(&["sleep", "1000"]);
    let first = builder.spawn();
    let sleeping = |pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|c| c.starts_with("sleep"))
    };
    wait_until("the program", PATIENCE, || first.tree().iter().any(sleeping));
    let guardian = first.guardian();
    support::spawn::signal(guardian, Signal::STOP);
    first.kill();
    let second = builder.spawn();
    let early = holds_within(Duration::from_secs(2), || second.has_event("main_loop_started"));
    assert!(first.tree().iter().any(sleeping), "twin: the old program is still there");
    assert!(!early, "two programs at once\n{}", second.report());
    support::spawn::signal(guardian, Signal::CONT);
    second.wait_for("main_loop_started", PATIENCE);
    assert!(!first.tree().iter().any(sleeping), "the old program is gone");
    history::check(&[first.trace(), second.trace()]).unwrap_or_else(|e| panic!("{e}"));
}
