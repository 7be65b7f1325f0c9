//! The same many times over, and for long: `make probes`.

use std::time::Duration;

use super::{FAILURE, Probed, Ward, builder, file, times};
use crate::support::crew::{
    PATIENCE, assert_kept, leader, report, setting, started_ns, tenures, wait_for_leader,
};
use crate::support::etcd::EtcdCluster;
use crate::support::hogs::Hogs;
use crate::support::node::{Node, NodeBuilder};
use crate::support::poll::{boot_ns, holds_within};
use crate::support::slow_disk::SlowDisk;
use crate::support::{spawn, witness};

/// Longer than anybody waits.
const FOR_EVER: Duration = Duration::from_secs(600);
/// What is wrong with the leader.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Illness {
    /// Its probe command ends with exit code 1.
    Fails,
    /// Its probe command does not end.
    Hangs,
    /// Its fsync(2) does not return, by a library that is loaded first.
    StalledDisk,
    /// The same, by strace.
    TracedDisk,
}

/// How long it took, from what was done to the leader, and from when its probe began to fail.
#[derive(Clone, Copy, Debug)]
struct Took {
    since_fault: Duration,
    since_failing: Duration,
    /// How long processes had to wait for a CPU meanwhile, which is no fault of metad's.
    waited: Duration,
}

fn round(etcd: &EtcdCluster, illness: Illness, round: u64) -> Took {
    let cluster = format!("{illness:?}-{round}");
    let hangs = |node: NodeBuilder, ill: &str| {
        node.env("METAD_META__PROBE_COMMAND", format!(r#"["sh", "-c", "test ! -e {ill} || sleep 600"]"#))
    };
    let probed = match illness {
        Illness::Fails | Illness::Hangs => Probed::Command,
        Illness::StalledDisk | Illness::TracedDisk => Probed::Disk,
    };
    let dir = tempfile::tempdir().expect("a folder");
    let build = |i| {
        let node = builder(etcd, &dir, i, probed).cluster(&cluster).lease_secs(15);
        if illness == Illness::Hangs { hangs(node, &file(&dir, i).display().to_string()) } else { node }
    };
    let ward = Ward::of((0..3).map(build).collect(), dir);
    let first = ward.leader();
    let traced = (illness == Illness::TracedDisk).then(|| SlowDisk::under(ward.nodes[first].pid(), FOR_EVER));
    let began = if traced.is_none() { ward.make_ill(first) } else { boot_ns() };
    let (next, since_failing) = ward.replaced(first);
    let since_fault = Duration::from_nanos(started_ns(&ward.nodes[next]) - began);
    traced.into_iter().for_each(SlowDisk::abandon); // else it keeps the thread, and the process with it
    assert_eq!(ward.nodes[first].wait_exit(PATIENCE), 75, "{}", ward.nodes[first].report());
    assert_eq!(tenures(&ward.nodes).len(), 2, "{}", report(&ward.nodes));
    Took { since_fault, since_failing, waited: witness::waited(began, boot_ns()) }
}

fn percentiles(name: &str, mut all: Vec<Duration>) {
    all.sort();
    let at = |percent: usize| all[(all.len() - 1) * percent / 100];
    println!("  {name}: median {:.2?}, p90 {:.2?}, longest {:.2?}", at(50), at(90), at(100));
}

fn series(illness: Illness) {
    let (etcd, rounds) = (EtcdCluster::start(1), setting("METAD_PROBE_ROUNDS", 50));
    let took: Vec<Took> = (0..rounds).map(|n| round(&etcd, illness, n)).collect();
    let most = FAILURE + Duration::from_secs(1);
    let in_time = took.iter().filter(|t| t.since_failing <= most).count();
    println!(
        "{illness:?}: replaced within {most:?} of the beginning of the failure in {in_time} of {rounds}"
    );
    percentiles("since the probe began to fail", took.iter().map(|t| t.since_failing).collect());
    percentiles("since the fault", took.iter().map(|t| t.since_fault).collect());
    let is_late = |t: &&Took| t.since_failing > most + t.waited;
    assert_eq!(
        took.iter().filter(is_late).count(),
        0,
        "but for the time that processes waited for a CPU: {took:?}"
    );
    assert!(took.iter().all(|t| t.since_failing > FAILURE / 2), "none at once");
}

#[test]
#[ignore = "make probes"]
fn a_leader_whose_probe_command_fails_is_replaced_each_time() {
    series(Illness::Fails);
}

#[test]
#[ignore = "make probes"]
fn a_leader_whose_probe_command_hangs_is_replaced_each_time() {
    series(Illness::Hangs);
}

#[test]
#[ignore = "make probes"]
fn a_leader_whose_disk_stalls_is_replaced_each_time() {
    series(Illness::StalledDisk);
}

#[test]
#[ignore = "make probes"]
fn a_leader_whose_disk_is_held_up_by_strace_is_replaced_each_time() {
    series(Illness::TracedDisk);
}

/// Two groups: one with the defaults, and one with as little patience as is sensible.
#[test]
#[ignore = "make probes"]
fn eight_busy_processes_per_core_change_no_leader() {
    let etcd = EtcdCluster::start(1);
    let both = |node: NodeBuilder| {
        node.env("METAD_META__PROBE_COMMAND", "test -e /").env("METAD_META__PROBE_DISK", "true")
    };
    let usual =
        |i: usize| both(NodeBuilder::new(&format!("u{i}")).etcd(&etcd).cluster("usual").lease_secs(15));
    let hasty = |i: usize| {
        let node = NodeBuilder::new(&format!("h{i}")).etcd(&etcd).cluster("hasty").lease_secs(15);
        times(both(node), 1, 3, Duration::from_secs(5))
    };
    let start = |group: Vec<NodeBuilder>| -> (Vec<Node>, usize) {
        let nodes: Vec<Node> = group.iter().map(NodeBuilder::spawn).collect();
        let first = wait_for_leader(&nodes, PATIENCE);
        (nodes, first)
    };
    let (usual, first) = start((0..2).map(usual).collect());
    let (hasty, hasty_first) = start((0..2).map(hasty).collect());
    let (so_long, hogs) = (Duration::from_secs(setting("METAD_PROBE_BUSY_SECS", 600)), Hogs::on_all_cpus(8));
    let idle = spawn::idle_time();
    assert_kept(&usual, first, so_long);
    assert_eq!((leader(&hasty), tenures(&hasty).len()), (Some(hasty_first), 1), "{}", report(&hasty));
    let said = |nodes: &[Node]| -> usize {
        nodes.iter().map(|n| n.events().iter().filter(|e| e.kind() == "probe_failing").count()).sum()
    };
    println!(
        "{} busy processes for {so_long:?}: 0 changes; probes failed {} and {} times; the CPUs were idle for {:?}",
        hogs.count(),
        said(&usual),
        said(&hasty),
        spawn::idle_time() - idle
    );
}

/// One that comes and goes each second, for long.
#[test]
#[ignore = "make probes"]
fn a_probe_that_flaps_for_long_changes_no_leader() {
    let etcd = EtcdCluster::start(1);
    let dir = tempfile::tempdir().expect("a folder");
    let build = |i| {
        times(builder(&etcd, &dir, i, Probed::Command), 1, 5, Duration::from_secs(4))
            .env("METAD_META__PROBE_COMMAND", super::FLAPPING)
    };
    let builders = (0..3).map(build).collect();
    let ward = Ward::of(builders, dir);
    let (first, so_long) = (ward.leader(), Duration::from_secs(setting("METAD_PROBE_BUSY_SECS", 600)));
    assert!(!holds_within(so_long, || leader(&ward.nodes) != Some(first)), "{}", report(&ward.nodes));
    let said = |kind: &str| ward.nodes.iter().flat_map(Node::events).filter(|e| e.kind() == kind).count();
    println!("flapping for {so_long:?}: 0 changes, {} events of failing probes", said("probe_failing"));
    assert_eq!(tenures(&ward.nodes).len(), 1);
}
