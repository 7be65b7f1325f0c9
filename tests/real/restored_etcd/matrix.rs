//! Three nodes, and an etcd that comes back in an older state under them: in every way, for every lease.
//!
//! `METAD_RESTORE_MATRIX=1` runs all of it, one case after the other; without it, a few cases run.

use std::fmt;
use std::time::Duration;

use crate::support::crew::{PATIENCE, SCHEDULING_SLACK, between, report, tenures, wait_for_leader};
use crate::support::disaster::Backup;
use crate::support::etcd::EtcdCluster;
use crate::support::node::{Node, NodeBuilder};
use crate::support::poll::{boot_ns, holds_within};
use crate::support::usage::cpu_secs_if_alive;
use crate::support::witness;

/// What the nodes need to be heard by the new etcd and to be told by it.
const NOTICE: Duration = Duration::from_secs(2);
/// How long the shorter outage lasts, besides what it takes to put the backup back.
const SHORT: Duration = Duration::from_millis(500);
/// How much of a CPU a node may use from the outage to its end.
const CPU_SECS_MAX: f64 = 1.0;
const IDS: [&str; 3] = ["a", "b", "c"];

/// How the older state is put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// The members' folders are copied back: all ids stay.
    Copied,
    /// `etcdctl snapshot restore` under the cluster's own token: a new log, the old ids.
    SameId,
    /// The same under another token: another cluster id.
    NewId,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    members: usize,
    lease_secs: u64,
    /// Is etcd away for longer than the lease?
    long: bool,
    /// Does one of them lead?
    leads: bool,
    how: How,
}

enum Older {
    Folders(Backup),
    Snapshot(std::path::PathBuf),
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { members, lease_secs, how, .. } = self;
        let outage = if self.long { "longer" } else { "shorter" };
        let leads = if self.leads { "one leads" } else { "nobody leads" };
        write!(f, "{members} members, lease {lease_secs} s, outage {outage} than it, {leads}, {how:?}")
    }
}

impl Case {
    fn lease(self) -> Duration {
        Duration::from_secs(self.lease_secs)
    }

    fn builders(self, etcd: &EtcdCluster) -> [NodeBuilder; 3] {
        IDS.map(|id| NodeBuilder::new(id).lease_secs(self.lease_secs).etcd(etcd))
    }

    /// What is in the backup: the record, registrations and leases of nodes that were killed since.
    fn back_up(self, etcd: &EtcdCluster, builders: &[NodeBuilder; 3]) -> (Older, Vec<Node>) {
        let nodes: Vec<_> = builders.iter().map(NodeBuilder::spawn).collect();
        wait_for_leader(&nodes, PATIENCE);
        nodes.iter().for_each(|node| {
            node.wait_for("joined", PATIENCE);
        });
        nodes.iter().for_each(Node::kill_with_guardian);
        let older = match self.how {
            How::Copied => Older::Folders(etcd.back_up()),
            How::SameId | How::NewId => Older::Snapshot(etcd.save_snapshot()),
        };
        (older, nodes)
    }

    fn put_back(self, etcd: &EtcdCluster, older: &Older) {
        (0..etcd.size()).for_each(|i| etcd.kill(i));
        std::thread::sleep(if self.long { self.lease() + NOTICE } else { SHORT });
        let token = Some("restored").filter(|_| self.how == How::NewId);
        match older {
            Older::Folders(backup) => etcd.put_back(backup),
            Older::Snapshot(file) => etcd.put_back_snapshot(file, token),
        }
        (0..etcd.size()).for_each(|i| etcd.restart(i));
        etcd.wait_healthy();
    }

    fn run(self) {
        println!("== {self}");
        let builder = EtcdCluster::builder().members(self.members);
        let etcd = if self.how == How::Copied { builder.start() } else { builder.restores().start() };
        let builders = self.builders(&etcd);
        let (older, mut dead) = self.back_up(&etcd, &builders);
        let priority =
            |b: &NodeBuilder| if self.leads { b.clone() } else { b.clone().env("METAD_NODE__PRIORITY", "0") };
        let running = builders.each_ref().map(priority);
        let nodes: Vec<_> = running.iter().map(NodeBuilder::spawn).collect();
        nodes.iter().for_each(|node| {
            node.wait_for("joined", PATIENCE);
        });
        if self.leads {
            wait_for_leader(&nodes, PATIENCE);
        }
        (0..20).for_each(|i| drop(etcd.etcdctl_ok(&["put", "other", &i.to_string()])));
        std::thread::sleep(Duration::from_secs(1)); // a leader has read since
        let used = nodes.iter().map(|n| cpu_secs_if_alive(n.pid()).unwrap_or(0.0)).collect();
        self.put_back(&etcd, &older);
        self.assert_all_end(&nodes, used);
        let before = highest_token(&dead).max(highest_token(&nodes));
        dead.extend(nodes);
        assert_refused(&mut dead, &builders);
        assert_accepted(&mut dead, &builders, before);
    }

    /// All have ended soon after etcd came back, and none has turned in circles.
    fn assert_all_end(self, nodes: &[Node], before: Vec<f64>) {
        let back = boot_ns();
        let mut used = before.clone();
        let patience = self.lease().min(PATIENCE) + PATIENCE;
        let ended = holds_within(patience, || {
            for (node, used) in nodes.iter().zip(&mut used) {
                *used = cpu_secs_if_alive(node.pid()).unwrap_or(0.0).max(*used);
            }
            nodes.iter().all(|node| !node.is_alive())
        });
        assert!(ended, "{self}: they run on\n{}", report(nodes));
        let bound = self.lease().min(Duration::from_secs(20)) + NOTICE + SCHEDULING_SLACK;
        for ((node, used), before) in nodes.iter().zip(used).zip(before) {
            let (code, cpu) = (node.wait_exit(PATIENCE), used - before);
            let took = between(back, node.ended_ns().expect("ended"));
            println!("{}: exit {code} {took:?} after etcd was back, {cpu:.2} s of CPU", node.id());
            // A leader may hear it from the fence first, or lose its lease; its next start says 78. Where it had to wait
            // for a CPU just then, and only there, its timers were faster than it.
            let starved = || witness::starved_before(node.ended_ns().expect("ended"));
            assert!(
                code == 78 || self.leads && (code == 75 || [76, 137].contains(&code) && starved()),
                "{self}: {code}\n{}",
                report(nodes)
            );
            assert!(took <= bound, "{self}: {took:?}\n{}", node.report());
            assert!(cpu < CPU_SECS_MAX, "{self}: {cpu} s of CPU\n{}", node.report());
        }
        let told = nodes.iter().filter(|n| n.stderr().contains("--accept-new-store")).count();
        assert!(told >= nodes.len() - usize::from(self.leads), "{self}\n{}", report(nodes));
        assert_eq!(tenures(nodes).len(), usize::from(self.leads), "{self}");
    }
}

/// A start without a word for the new store is refused, of every node.
fn assert_refused(all: &mut Vec<Node>, builders: &[NodeBuilder; 3]) {
    let again: Vec<_> = builders.iter().map(NodeBuilder::spawn).collect();
    for node in &again {
        assert_eq!(node.wait_exit(PATIENCE), 78, "{}", node.report());
        assert!(node.stderr().contains("--accept-new-store"), "{}", node.stderr());
    }
    all.extend(again);
}

/// With it one leads, under a token that was never given out before.
fn assert_accepted(all: &mut Vec<Node>, builders: &[NodeBuilder; 3], before: u64) {
    let accepting = builders.each_ref().map(|b| b.clone().arg("--accept-new-store"));
    let nodes: Vec<_> = accepting.iter().map(NodeBuilder::spawn).collect();
    let leader = wait_for_leader(&nodes, PATIENCE * 2);
    let token = nodes[leader].wait_for("main_loop_started", PATIENCE).token().expect("a token");
    println!("accepted: {} leads with token {token}, after {before}", nodes[leader].id());
    assert!(token > before, "{token} after {before}\n{}", report(&nodes));
    all.extend(nodes);
    tenures(all);
}

fn highest_token(nodes: &[Node]) -> u64 {
    let events = nodes.iter().flat_map(Node::events);
    events.filter_map(|event| event.token()).max().unwrap_or(0)
}

/// All cases: an outage cannot be longer than a lease of a day.
fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for members in [1, 3] {
        for lease_secs in [5, 20, 86_400] {
            for long in [false, true] {
                for leads in [true, false] {
                    for how in [How::Copied, How::SameId, How::NewId] {
                        cases.push(Case { members, lease_secs, long, leads, how });
                    }
                }
            }
        }
    }
    cases.retain(|case| !case.long || case.lease_secs < 86_400);
    cases
}

fn is_asked_for() -> bool {
    std::env::var_os("METAD_RESTORE_MATRIX").is_some_and(|v| v == "1")
}

#[test]
fn every_way_of_going_back_in_time_under_running_nodes() {
    if !is_asked_for() {
        println!("skipped: METAD_RESTORE_MATRIX=1 runs all {} cases", all().len());
        return;
    }
    all().into_iter().for_each(Case::run);
}

#[test]
fn an_older_state_under_a_leader_with_a_lease_of_a_day_ends_it() {
    Case { members: 1, lease_secs: 86_400, long: false, leads: true, how: How::Copied }.run();
}

#[test]
fn an_older_state_after_an_outage_longer_than_the_lease_is_refused() {
    Case { members: 1, lease_secs: 5, long: true, leads: true, how: How::SameId }.run();
}

#[test]
fn a_snapshot_that_is_restored_as_another_cluster_ends_candidates_too() {
    Case { members: 3, lease_secs: 86_400, long: false, leads: false, how: How::NewId }.run();
}
