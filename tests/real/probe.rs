//! `meta.probe_command` and `meta.probe_disk`: a leader that could not do its work makes way for a member that can, once, and
//! says what was measured.

mod series;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::crew::{
    PATIENCE, assert_kept, leader, leads, report, slack, started_ns, tenures, wait_for_leader,
    wait_until_all_know_all,
};
use crate::support::etcd::EtcdCluster;
use crate::support::node::{Node, NodeBuilder, Signal};
use crate::support::poll::{boot_ns, holds_within, wait_until};
use crate::support::{http, spawn, stall};

/// `meta.probe_failure_secs`, which no busy machine reaches by chance: a probe has its timeout, too.
const FAILURE: Duration = Duration::from_secs(2);
/// In which nothing happens that should not.
const QUIET: Duration = Duration::from_secs(4);

/// Nodes, and what is wrong with each of them.
struct Ward {
    dir: TempDir,
    builders: Vec<NodeBuilder>,
    nodes: Vec<Node>,
}

/// What is probed.
#[derive(Clone, Copy, Debug)]
enum Probed {
    Command,
    Disk,
}

fn file(dir: &TempDir, i: usize) -> PathBuf {
    dir.path().join(format!("ill-{i}"))
}

fn times(node: NodeBuilder, interval_secs: u64, timeout_secs: u64, failure: Duration) -> NodeBuilder {
    node.env("METAD_META__PROBE_INTERVAL_SECS", interval_secs.to_string())
        .env("METAD_META__PROBE_TIMEOUT_SECS", timeout_secs.to_string())
        .env("METAD_META__PROBE_FAILURE_SECS", failure.as_secs().to_string())
}

fn builder(etcd: &EtcdCluster, dir: &TempDir, i: usize, probed: Probed) -> NodeBuilder {
    let (node, ill) = (NodeBuilder::new(&format!("p{i}")).etcd(etcd), file(dir, i));
    let node = times(node, 1, 1, FAILURE);
    match probed {
        Probed::Command => node.env("METAD_META__PROBE_COMMAND", format!("test ! -e {}", ill.display())),
        Probed::Disk => stall::while_there(node, &ill).env("METAD_META__PROBE_DISK", "true"),
    }
}

/// Its exit code, and all that it printed.
fn metad(node: &Node, args: &[&str]) -> (i32, String) {
    let address = node.rpc_addr().to_string();
    let (code, out, errors) = spawn::metad(&[args, &["--meta", &address]].concat(), PATIENCE);
    (code, out + &errors)
}

// === impl Ward ===

impl Ward {
    /// Three nodes, none of them ill unless told, one of which leads.
    fn admit(
        etcd: &EtcdCluster,
        probed: Probed,
        ill: &[usize],
        with: impl Fn(NodeBuilder) -> NodeBuilder,
    ) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        ill.iter().for_each(|i| fs::write(file(&dir, *i), "").expect("a file"));
        Self::of((0..3).map(|i| with(builder(etcd, &dir, i, probed))).collect(), dir)
    }

    /// These, once one of them leads and all know each other.
    fn of(builders: Vec<NodeBuilder>, dir: TempDir) -> Self {
        let nodes: Vec<_> = builders.iter().map(NodeBuilder::spawn).collect();
        wait_for_leader(&nodes, PATIENCE);
        wait_until_all_know_all(&nodes);
        Self { dir, builders, nodes }
    }

    fn make_ill(&self, i: usize) -> u64 {
        fs::write(file(&self.dir, i), "").expect("a file");
        boot_ns()
    }

    fn make_well(&self, i: usize) {
        fs::remove_file(file(&self.dir, i)).expect("it was ill");
    }

    fn leader(&self) -> usize {
        leader(&self.nodes).unwrap_or_else(|| panic!("nobody leads\n{}", report(&self.nodes)))
    }

    /// Waits until another one leads; which, and how long that was after the probe of the first one had begun to fail.
    fn replaced(&self, first: usize) -> (usize, Duration) {
        let changed = holds_within(PATIENCE, || leader(&self.nodes).is_some_and(|i| i != first));
        assert!(changed, "nobody took over\n{}", report(&self.nodes));
        let failing = self.nodes[first].wait_for("probe_failing", PATIENCE);
        let next = self.leader();
        (next, Duration::from_nanos(started_ns(&self.nodes[next]) - failing.at_ns()))
    }
}

/// The newest tenure of a node that has ended.
fn ended(node: &Node, leader: &str) -> Value {
    let history = || -> Value {
        let (_, json) = metad(node, &["history", "-o", "json"]);
        serde_json::from_str(&json).unwrap_or_default()
    };
    let find = || {
        let all = history()["tenures"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|t| t["node"] == leader && t["said_by"] == "holder")
    };
    wait_until("the history has it", PATIENCE, || find().is_some());
    find().expect("it was there")
}

#[test]
fn a_leader_whose_probe_fails_makes_way_once_and_one_that_fails_is_not_ready() {
    let etcd = EtcdCluster::start(1);
    let mut ward = Ward::admit(&etcd, Probed::Command, &[], |node| node);
    let first = ward.leader();
    let began = ward.make_ill(first);
    let (second, after) = ward.replaced(first);
    assert!(after > FAILURE / 2, "at once: {after:?}");
    assert!(after <= FAILURE + Duration::from_secs(1) + slack(began, boot_ns()), "too late: {after:?}");
    let stopping = ward.nodes[first].wait_for("main_loop_stopping", PATIENCE);
    assert_eq!(stopping.str("reason"), "probe_failed");
    assert_eq!(ward.nodes[first].wait_exit(PATIENCE), 75, "{}", ward.nodes[first].report());

    let id = ward.builders[first].node_id();
    let tenure = ended(&ward.nodes[second], &id);
    assert_eq!((&tenure["reason"], &tenure["planned"]), (&"probe_failed".into(), &false.into()));
    let detail = tenure["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("the probe command ended with exit code 1, for "), "{tenure}");

    // It comes back as ill as it went: nobody hands over to it, not even when asked to.
    let again = ward.builders[first].spawn();
    again.wait_for("probe_failing", PATIENCE);
    ward.nodes.push(again);
    wait_until("they know each other", PATIENCE, || registered(&ward.nodes[second]).contains(&id));
    let refused = metad(&ward.nodes[second], &["step-down", "--yes", "--to", &id]);
    assert!(refused.0 != 0 && refused.1.contains("its probe fails: the probe command ended"), "{refused:?}");

    // The next one fails, too. Less than five minutes have passed, and nobody has been healthy for longer.
    ward.make_ill(second);
    let leads_on = ward.nodes[second].wait_for("leads_on", PATIENCE);
    assert!(leads_on.str("why").contains("less than 5 minutes ago"), "{leads_on:?}");
    assert_stays(&ward, second);
    assert_eq!(tenures(&ward.nodes).len(), 2);
}

/// Those that are there now, as this node sees them; it also tells who has gone of late.
fn registered(by: &Node) -> Vec<String> {
    let page: Value = serde_json::from_str(&metad(by, &["members", "-o", "json"]).1).unwrap_or_default();
    let members = page["members"].as_array().cloned().unwrap_or_default();
    members.iter().filter_map(|member| Some(member["node"].as_str()?.to_owned())).collect()
}

/// It leads on, and does not say so again.
fn assert_stays(ward: &Ward, leading: usize) {
    let node = &ward.nodes[leading];
    assert!(!holds_within(QUIET, || !leads(node)), "it made way\n{}", report(&ward.nodes));
    assert_eq!(node.events().iter().filter(|e| e.kind() == "leads_on").count(), 1, "{}", node.report());
}

#[test]
fn a_leader_whose_disk_hangs_makes_way_and_its_process_ends() {
    let etcd = EtcdCluster::start(1);
    let ward = Ward::admit(&etcd, Probed::Disk, &[], |node| node);
    let first = ward.leader();
    let began = ward.make_ill(first);
    let (second, after) = ward.replaced(first);
    assert!(
        after > FAILURE / 2 && after <= FAILURE + Duration::from_secs(1) + slack(began, boot_ns()),
        "{after:?}"
    );
    assert_eq!(ward.nodes[first].wait_exit(PATIENCE), 75, "{}", ward.nodes[first].report());
    let tenure = ended(&ward.nodes[second], &ward.builders[first].node_id());
    let detail = tenure["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("a synced write to the data dir has not ended within 1 s"), "{tenure}");
    assert_eq!(tenures(&ward.nodes).len(), 2);
}

#[test]
fn where_all_fail_one_leads_on_and_says_so_everywhere_and_a_failing_member_claims_last() {
    let etcd = EtcdCluster::start(1);
    let ward = Ward::admit(&etcd, Probed::Command, &[0, 1, 2], |node| node);
    let first = ward.leader();
    let leads_on = ward.nodes[first].wait_for("leads_on", PATIENCE);
    assert!(leads_on.str("why").contains("no other member is ready"), "{leads_on:?}");
    assert_stays(&ward, first);
    shown_everywhere(&ward.nodes[first]);

    // Its death leaves a vacancy, which the only one that is well takes, whatever the rank of the others.
    let well = (first + 2) % 3;
    ward.make_well(well);
    wait_until("it is well", PATIENCE, || !metad(&ward.nodes[well], &["status"]).1.contains("fails"));
    ward.nodes[first].kill();
    wait_until("another one leads", PATIENCE, || leader(&ward.nodes).is_some());
    assert_eq!(ward.leader(), well, "{}", report(&ward.nodes));

    // And where there is none that is well, another one does.
    ward.nodes[well].kill();
    let last = 3 - first - well;
    wait_until("the last one leads", PATIENCE, || leads(&ward.nodes[last]));
    assert_eq!(tenures(&ward.nodes).len(), 3);
}

/// Each channel says that the leader fails its probe.
fn shown_everywhere(node: &Node) {
    let measured = "the probe command ended with exit code 1";
    let status = metad(node, &["status"]).1;
    assert!(status.contains(measured), "{status}");
    let (_, state) = http::get(node.http_addr(), "/api/v1/state", PATIENCE).expect("an answer");
    let state: Value = serde_json::from_str(&state).expect("JSON");
    assert!(state["answerer"]["probe"].as_str().is_some_and(|p| p.contains(measured)), "{state}");
    let (_, metrics) = http::get(node.http_addr(), "/metrics", PATIENCE).expect("an answer");
    assert!(metrics.contains("\nmetad_probe_failing 1\n"), "{metrics}");
    let check = metad(node, &["check", "LEADER_007"]);
    assert!(check.0 == 2 && check.1.contains(measured), "{check:?}");
}

#[test]
fn a_member_that_was_not_probed_yet_is_not_ready_and_leads_where_nobody_else_is_left() {
    let etcd = EtcdCluster::start(1);
    let first = NodeBuilder::new("p0").etcd(&etcd).spawn();
    first.wait_for("main_loop_started", PATIENCE);
    // The first run of its probe does not end.
    let second = times(NodeBuilder::new("p1").etcd(&etcd), 600, 600, Duration::from_secs(1000));
    let second = second.env("METAD_META__PROBE_COMMAND", "sleep 600").spawn();
    second.wait_for("joined", PATIENCE);
    let nodes = [first, second];
    wait_until_all_know_all(&nodes);
    let refused = metad(&nodes[0], &["step-down", "--yes", "--to", "p1"]);
    assert!(refused.0 != 0 && refused.1.contains("its probe has not been answered yet"), "{refused:?}");
    nodes[0].kill();
    wait_until("the last one leads", PATIENCE, || leads(&nodes[1]));
}

/// Fails in every second second.
const FLAPPING: &str = r#"["sh", "-c", "test $(($(date +%s) % 2)) = 0"]"#;

#[test]
fn a_probe_that_comes_and_goes_each_second_changes_nothing() {
    let etcd = EtcdCluster::start(1);
    let flaps = |node: NodeBuilder| {
        times(node, 1, 5, Duration::from_secs(4)).env("METAD_META__PROBE_COMMAND", FLAPPING)
    };
    let ward = Ward::admit(&etcd, Probed::Command, &[], flaps);
    let first = ward.leader();
    ward.nodes[first].wait_for("probe_failing", PATIENCE);
    assert_kept(&ward.nodes, first, QUIET);
    let said = |node: &Node| node.events().iter().filter(|e| e.kind().starts_with("probe_")).count();
    assert!(ward.nodes.iter().all(|node| said(node) <= 1), "{}", report(&ward.nodes));
}

#[test]
fn probes_are_read_again_on_sighup() {
    let dir = tempfile::tempdir().expect("a folder");
    let config = dir.path().join("metad.toml");
    let write = |text: &str| fs::write(&config, text).expect("a file");
    write("");
    let node = NodeBuilder::new("n1").arg("--config").arg(&config).spawn();
    node.wait_for("main_loop_started", PATIENCE);
    let said = |text: &str| wait_until(text, PATIENCE, || node.stderr().contains(text));
    write("[meta]\nprobe_command = [\"/no/such/probe\"]\n");
    node.signal(Signal::HUP);
    said("meta.probe_command not reloaded: cannot run \\\"/no/such/probe\\\"");
    write(
        "[meta]\nprobe_command = [\"sh\", \"-c\", \"echo out of order >&2; exit 3\"]\nprobe_interval_secs = 1\n",
    );
    node.signal(Signal::HUP);
    let failing = node.wait_for("probe_failing", PATIENCE);
    assert_eq!(failing.str("measured"), "the probe command ended with exit code 3: out of order");
    write("[meta]\nprobe_disk = true\nprobe_interval_secs = 1\n");
    node.signal(Signal::HUP);
    wait_until("the disk is well", PATIENCE, || !metad(&node, &["status"]).1.contains("fails"));
    assert!(node.data_dir().join("disk-probe").exists(), "twin: it is probed");
}
