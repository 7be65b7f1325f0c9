//! `metad doctor` and `metad check` on real etcd clusters and real nodes: exactly the right findings, whatever is wrong.
//!
//! The limits that a busy machine alone would break are raised by their keys; what is measured here is made far slower
//! than they allow. A measurement that a busy machine has spoilt is made again.

pub mod impostor;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support;
use crate::support::crew::{PATIENCE, check_status, kill_leader, leads, wait_for_leader};
use crate::support::etcd::EtcdCluster;
use crate::support::node::{Node, NodeBuilder};
use crate::support::poll::{holds_within, wait_until};
use crate::support::slow_disk::SlowDisk;
use crate::support::{http, install, spawn, sudo};
use impostor::{Impostor, Page};
use metad::api::view::checks::ReportDocument;
use metad::diagnosis::checks::{CHECKS, Finding, Report, Skipped, Status, render};
use serde_json::Value;

/// Longer than any examination may take.
const EXAMINATION: Duration = Duration::from_secs(60);
/// This machine is not what is examined here: it is as busy as it is.
const NOT_THIS_MACHINE: &str = "HOST_003,HOST_004,HOST_005,HOST_007";
/// Limits that a busy machine does not break.
const WIDE: [(&str, &str); 3] = [
    ("METAD_CHECKS__FSYNC_P99_MS", "2000"),
    ("METAD_CHECKS__COMMIT_P99_MS", "2000"),
    ("METAD_CHECKS__RTT_P99_MS", "1500"),
];

/// One way to call the doctor.
struct Doctor {
    endpoints: Vec<String>,
    meta: String,
    lease: u64,
    skip: String,
    env: Vec<(&'static str, String)>,
}

/// What it said.
struct Said {
    code: i32,
    report: Value,
    took: Duration,
}

impl Doctor {
    fn of(etcd: &EtcdCluster) -> Self {
        Self::at(etcd.endpoints())
    }

    fn at(endpoints: Vec<String>) -> Self {
        Self {
            endpoints,
            // Nobody listens there.
            meta: "127.0.0.1:9".to_owned(),
            lease: 30,
            skip: NOT_THIS_MACHINE.to_owned(),
            env: WIDE.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(),
        }
    }

    fn asking(mut self, nodes: &[Node]) -> Self {
        self.meta = nodes.iter().map(|n| n.rpc_addr().to_string()).collect::<Vec<_>>().join(",");
        self
    }

    fn lease(mut self, secs: u64) -> Self {
        self.lease = secs;
        self
    }

    fn skip(mut self, codes: &str) -> Self {
        self.skip.push_str(&format!(",{codes}"));
        self
    }

    fn env(mut self, name: &'static str, value: &str) -> Self {
        self.env.retain(|(known, _)| *known != name);
        self.env.push((name, value.to_owned()));
        self
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = spawn::metad_command();
        command.args(args).args(["--meta", &self.meta, "--node-id", "doctor"]);
        command.args(["--etcd-endpoints", &self.endpoints.join(",")]);
        command.args(["--meta-leader-lease-secs", &self.lease.to_string()]);
        command.envs(self.env.iter().cloned());
        command
    }

    fn run(&self) -> Said {
        let began = Instant::now();
        let command = self.command(&["doctor", "-o", "json", "--sample", "1s", "--skip", &self.skip]);
        let output = spawn::output(command, EXAMINATION);
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        let report = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}{errors}"));
        assert!(!errors.contains("panicked"), "{errors}");
        Said { code: output.status.code().expect("it ended by itself"), report, took: began.elapsed() }
    }

    /// Exactly these checks do not pass.
    #[track_caller]
    fn finds(&self, expected: &[&str]) -> Said {
        let expected: BTreeSet<String> = expected.iter().map(|c| (*c).to_owned()).collect();
        let mut said = None;
        let found = holds_within(PATIENCE, || {
            let now = self.run();
            let is_right = now.not_passed() == expected;
            said = Some(now);
            is_right
        });
        let said = said.expect("it was asked");
        assert!(found, "{expected:?} were expected: {:#}", said.report);
        said
    }
}

impl Said {
    fn findings(&self) -> &[Value] {
        self.report["findings"].as_array().expect("findings")
    }

    fn not_passed(&self) -> BTreeSet<String> {
        let bad = self.findings().iter().filter(|f| f["status"] != "pass");
        bad.map(|f| f["code"].as_str().expect("a code").to_owned()).collect()
    }

    #[track_caller]
    fn finding(&self, code: &str) -> &Value {
        let found = self.findings().iter().find(|f| f["code"] == code);
        found.unwrap_or_else(|| panic!("no {code} in {:#}", self.report))
    }

    /// A finding says what was measured, why it matters, and what to do.
    #[track_caller]
    fn assert_says(&self, code: &str, status: &str, measured: &str) {
        let f = self.finding(code);
        assert_eq!(f["status"], status, "{f:#}");
        let text = f["measured"].as_str().expect("text");
        assert!(text.contains(measured), "{measured:?} is not in {text:?}");
        for field in ["limit", "why", "fix", "doc"] {
            assert!(f[field].as_str().is_some_and(|t| !t.is_empty()), "{code} has no {field}");
        }
    }
}

/// What is wrong with the etcd under test itself: Debian's has known faults, and says so.
fn with_version(etcd: &EtcdCluster, mut codes: Vec<&'static str>) -> Vec<&'static str> {
    if !etcd.is_at_least(3, 5) {
        codes.push("ETCD_016");
    }
    codes
}

fn three_nodes(etcd: &EtcdCluster, lease: u64) -> Vec<Node> {
    let node = |id: &str| NodeBuilder::new(id).lease_secs(lease).etcd(etcd).spawn();
    let nodes: Vec<Node> = ["e0", "e1", "e2"].map(node).into();
    wait_for_leader(&nodes, PATIENCE);
    for node in &nodes {
        node.wait_for("joined", PATIENCE);
    }
    nodes
}

#[test]
fn a_healthy_cluster_of_three_is_all_green() {
    let etcd = EtcdCluster::start(3);
    let nodes = three_nodes(&etcd, 30);
    let said = Doctor::of(&etcd).asking(&nodes).finds(&with_version(&etcd, vec![]));
    assert_eq!(said.code, i32::from(!etcd.is_at_least(3, 5)), "{:#}", said.report);
    let made: BTreeSet<&str> = said.findings().iter().filter_map(|f| f["code"].as_str()).collect();
    for code in ["LEADER_001", "LEADER_002", "CLUSTER_001", "HOST_001", "ETCD_003", "ETCD_005", "LEASE_004"] {
        assert!(made.contains(code), "{code} was made: {made:?}");
    }
    assert!(said.finding("ETCD_015")["measured"].as_str().is_some_and(|m| m.contains("1.5 MiB")), "asked");
    // Without a node that runs, what etcd is asked is found out all the same, and that nobody leads any more.
    drop(nodes);
    wait_until("the registrations have ended", PATIENCE * 2, || {
        etcd.etcdctl_ok(&["get", "--prefix", "--keys-only", "/metad/default/nodes/"]).trim().is_empty()
    });
    let alone = Doctor::of(&etcd).finds(&with_version(&etcd, vec!["LEADER_001"]));
    alone.assert_says("LEADER_001", "fail", "no meta node answers");
    assert!(alone.findings().iter().any(|f| f["code"] == "ETCD_009"), "{:#}", alone.report);
    let left = etcd.etcdctl_ok(&["get", "--prefix", "--keys-only", "/metad/default/doctor/"]);
    assert_eq!(left.trim(), "", "the doctor leaves nothing behind");
}

#[test]
fn the_member_with_the_slow_disk_is_named() {
    if !sudo::may_trace() && sudo::runs(the_member_with_the_slow_disk_is_named, "strace") {
        return;
    }
    let etcd = EtcdCluster::builder().members(3).arg("--unsafe-no-fsync=false");
    // Debian's etcd knows no such flag, and always syncs.
    let etcd =
        if install::EtcdInstall::find().is_at_least(3, 5) { etcd } else { EtcdCluster::builder().members(3) };
    let etcd = etcd.start();
    let slow = (etcd.leader() + 1) % 3;
    // Asked last, because whoever is asked first makes the writes.
    let mut endpoints = etcd.endpoints();
    let last = endpoints.remove(slow);
    endpoints.push(last.clone());
    let _disk = SlowDisk::under(etcd.pid(slow), Duration::from_millis(700));
    let doctor = Doctor::at(endpoints).env("METAD_CHECKS__FSYNC_P99_MS", "400");
    // What waits for such a disk may count as a slow apply too, sooner or later.
    let doctor = doctor.env("METAD_CHECKS__COMMIT_P99_MS", "400").skip("ETCD_018");
    let said = doctor.finds(&with_version(&etcd, vec!["ETCD_005", "ETCD_006"]));
    for code in ["ETCD_005", "ETCD_006"] {
        let measured = said.finding(code)["measured"].as_str().expect("text");
        assert!(measured.contains(&last), "{measured}");
        assert!(!measured.contains(&etcd.endpoint(etcd.leader())), "only that one: {measured}");
    }
    assert_eq!(said.code, 2);
}

#[test]
fn a_missing_quorum_is_found_and_named() {
    let etcd = EtcdCluster::start(3);
    let doctor = Doctor::of(&etcd);
    etcd.kill(0);
    let said = doctor.finds(&with_version(&etcd, vec!["ETCD_001", "ETCD_003"]));
    said.assert_says("ETCD_003", "warn", "2 of 3 voters online");
    etcd.kill(1);
    let said = doctor.finds(&with_version(&etcd, vec!["ETCD_001", "ETCD_002", "ETCD_003"]));
    said.assert_says("ETCD_003", "fail", "1 of 3 voters online");
    said.assert_says("ETCD_001", "fail", &etcd.endpoint(1));
    said.assert_says("ETCD_002", "fail", "no leader");
    assert_eq!(said.code, 2);
}

#[test]
fn a_database_that_fills_up_is_told_before_and_after_it_is_full() {
    let etcd = EtcdCluster::builder().arg("--quota-backend-bytes=4194304").start();
    let doctor = Doctor::of(&etcd).skip("ETCD_004");
    doctor.finds(&with_version(&etcd, vec![]));
    let value = "x".repeat(120_000);
    let fill = |key: &str| etcd.etcdctl(&["put", key, &value]).status.success();
    wait_until("four fifths are used", PATIENCE, || {
        assert!(fill("filler"));
        doctor.run().not_passed().contains("ETCD_010")
    });
    let said = doctor.finds(&with_version(&etcd, vec!["ETCD_010"]));
    said.assert_says("ETCD_010", said.finding("ETCD_010")["status"].as_str().expect("text"), "of 4.0 MiB");
    wait_until("etcd is full", PATIENCE, || !fill("filler"));
    let said = doctor.finds(&with_version(&etcd, vec!["ETCD_009", "ETCD_010", "ETCD_013", "LEASE_001"]));
    said.assert_says("ETCD_013", "fail", "NOSPACE");
    said.assert_says("LEASE_001", "fail", "space exceeded");
    assert_eq!(said.code, 2);
}

#[test]
fn the_lease_is_judged_by_the_number_of_nodes_and_by_what_etcd_grants() {
    let etcd = EtcdCluster::builder().arg("--heartbeat-interval=400").arg("--election-timeout=4000").start();
    let single = NodeBuilder::new("single").cluster("one").lease_secs(15).etcd(&etcd).spawn();
    single.wait_for("main_loop_started", PATIENCE);
    let nodes = [single];
    let doctor = || Doctor::of(&etcd).env("METAD_NODE__CLUSTER", "one").asking(&nodes);
    let said = doctor().lease(15).finds(&with_version(&etcd, vec!["LEASE_003"]));
    said.assert_says("LEASE_003", "warn", "one node, and a lease of 15 s");
    assert!(said.finding("LEASE_003")["fix"].as_str().is_some_and(|f| f.contains("= 86400")));
    assert_eq!(said.code, 1);
    doctor().lease(86_400).finds(&with_version(&etcd, vec![]));
    // Three are expected, and one is there; and 3 s are less than etcd grants.
    let more = doctor().lease(3).env("METAD_CHECKS__EXPECTED_MEMBERS", "3").skip("ETCD_004,LEASE_002");
    let said = more.finds(&with_version(&etcd, vec!["CLUSTER_001", "LEASE_001"]));
    said.assert_says("LEASE_001", "warn", "etcd grants 6 s");
    said.assert_says("CLUSTER_001", "warn", "1 of 3 members answer");
}

#[test]
fn a_lease_of_a_day_on_three_nodes_is_warned_of() {
    let etcd = EtcdCluster::start(1);
    let nodes = three_nodes(&etcd, 86_400);
    let doctor = Doctor::of(&etcd).asking(&nodes).lease(86_400).skip("ETCD_004");
    let said = doctor.finds(&with_version(&etcd, vec!["LEASE_004"]));
    said.assert_says("LEASE_004", "warn", "3 nodes, and a lease of 86400 s");
    assert_eq!(said.code, 1);
}

#[test]
fn a_clock_that_is_ahead_is_found() {
    let etcd = EtcdCluster::start(1);
    let right = NodeBuilder::new("right").lease_secs(30).etcd(&etcd).spawn();
    let ahead =
        NodeBuilder::new("ahead").lease_secs(30).etcd(&etcd).env("LD_PRELOAD", install::libfaketime());
    let ahead = ahead.env("FAKETIME", "+10s").env("FAKETIME_DONT_FAKE_MONOTONIC", "1").spawn();
    let nodes = [right, ahead];
    wait_for_leader(&nodes, PATIENCE);
    nodes.iter().for_each(|n| drop(n.wait_for("joined", PATIENCE)));
    let doctor = Doctor::of(&etcd).asking(&nodes).skip("ETCD_004");
    let said = doctor.finds(&with_version(&etcd, vec!["HOST_001"]));
    said.assert_says("HOST_001", "fail", "the clock of ahead is");
}

#[test]
fn what_is_not_etcd_hangs_or_talks_nonsense_is_a_finding_and_no_hang() {
    let etcd = EtcdCluster::start(1);
    let silent = Impostor::silent();
    let other = Impostor::other_server();
    for (endpoint, says) in [(silent.endpoint(), "does not answer"), (other.endpoint(), "is not etcd")] {
        let said = Doctor::at(vec![endpoint.clone()]).finds(&["ETCD_001", "ETCD_003"]);
        said.assert_says("ETCD_001", "fail", says);
        said.assert_says("ETCD_001", "fail", &endpoint);
        assert_eq!(said.code, 2);
        assert!(said.took < EXAMINATION / 2, "{:?}", said.took);
    }
    for (page, says) in [
        (Page::Endless, "longer than 4 MiB"),
        (Page::Garbage, "nothing of etcd"),
        (Page::Silence, "no answer within"),
        (Page::Refusal, "\"503\""),
    ] {
        let front = Impostor::before(etcd.addr(0), page);
        let doctor = Doctor::at(vec![front.endpoint()]).skip("ETCD_004");
        let said = doctor.finds(&with_version(&etcd, vec!["ETCD_005", "ETCD_006", "ETCD_007"]));
        said.assert_says("ETCD_005", "unknown", says);
        assert_eq!(said.code, 3, "what is not known is not fine: {:#}", said.report);
        assert!(said.took < EXAMINATION / 2, "{:?}", said.took);
    }
}

#[test]
fn an_etcd_that_is_slow_in_bursts_is_found_whenever_one_looks() {
    let etcd = EtcdCluster::start(1);
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                etcd.pause(0);
                std::thread::sleep(Duration::from_millis(700));
                etcd.resume(0);
                std::thread::sleep(Duration::from_millis(300));
            }
        });
        let doctor = Doctor::of(&etcd).env("METAD_CHECKS__RTT_P99_MS", "100");
        for _ in 0..4 {
            let command = doctor.command(&["check", "ETCD_008", "-o", "nagios"]);
            let output = spawn::output(command, EXAMINATION);
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            if output.status.code() == Some(0) {
                over.store(true, std::sync::atomic::Ordering::Relaxed);
                panic!("slow in bursts, and found to be well: {said}");
            }
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    etcd.resume(0);
    let command = Doctor::of(&etcd).command(&["check", "ETCD_008", "-o", "nagios"]);
    let output = spawn::output(command, EXAMINATION);
    assert_eq!(output.status.code(), Some(0), "twin: {}", String::from_utf8_lossy(&output.stdout));
}

fn changes_of(node: &Node, code: &str) -> Vec<String> {
    let events = node.events();
    let of = events.iter().filter(|e| e.kind() == "check_changed" && e.str("code") == code);
    of.map(|e| e.str("status").to_owned()).collect()
}

#[test]
fn flapping_is_raised_once_everywhere_at_once_and_clears_by_itself() {
    let etcd = EtcdCluster::start(1);
    let window = 20;
    let builder = |id: &str| {
        let builder = NodeBuilder::new(id).etcd(&etcd).env("METAD_CHECKS__INTERVAL_SECS", "1");
        builder.env("METAD_CHECKS__LEADER_CHANGE_WINDOW_SECS", window.to_string())
    };
    let observer = builder("observer").env("METAD_NODE__PRIORITY", "0").spawn();
    observer.wait_for("joined", PATIENCE);
    let builders = ["a", "b"].map(builder);
    let mut nodes: Vec<Node> = builders.iter().map(NodeBuilder::spawn).collect();
    nodes.iter().for_each(|n| drop(n.wait_for("joined", PATIENCE)));
    let mut check = Doctor::of(&etcd).env("METAD_CHECKS__INTERVAL_SECS", "1");
    check.meta = observer.rpc_addr().to_string();
    let nagios = || {
        let output = spawn::output(check.command(&["check", "leader-flapping", "-o", "nagios"]), EXAMINATION);
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    // Planned changes do not count.
    for _ in 0..3 {
        let i = wait_for_leader(&nodes, PATIENCE);
        nodes[i].signal(support::node::Signal::TERM);
        nodes[i].wait_exit(PATIENCE);
        nodes[i] = builders[i].spawn();
        nodes[i].wait_for("joined", PATIENCE);
    }
    wait_until("the observer has counted", PATIENCE, || check_status(&observer, "LEADER_003") == Some(0));
    assert_eq!(changes_of(&observer, "LEADER_003"), Vec::<String>::new(), "{}", observer.report());
    // Unplanned ones do.
    for _ in 0..5 {
        kill_leader(&mut nodes, &builders);
    }
    let raised = observer.wait_event(
        |e| e.kind() == "check_changed" && e.str("code") == "LEADER_003" && e.str("status") == "warn",
        PATIENCE,
    );
    assert!(raised.str("measured").contains("unplanned changes"), "{}", raised.json);
    assert_eq!(check_status(&observer, "LEADER_003"), Some(1), "the metric");
    wait_until("it says of itself what no other process can", PATIENCE, || {
        check_status(&observer, "HOST_006") == Some(0) && check_status(&observer, "HOST_007").is_some()
    });
    wait_until("whoever leads says so, too", PATIENCE, || {
        nodes.iter().any(|n| leads(n) && check_status(n, "LEADER_003") == Some(1))
    });
    let (code, line) = nagios();
    assert_eq!(code, Some(1), "{line}");
    assert!(line.starts_with("METAD WARNING - LEADER_003 "), "{line}");
    assert!(line.contains("| 'leader-flapping'="), "with perf data: {line}");
    let (_, page) = http::get(observer.http_addr(), "/api/v1/checks", PATIENCE).expect("it serves");
    let page: Value = serde_json::from_str(&page).expect("JSON");
    let shown = page["findings"].as_array().expect("findings").iter().find(|f| f["code"] == "LEADER_003");
    assert_eq!(shown.expect("shown")["status"], "warn", "{page:#}");
    assert!(observer.stderr().contains("leader-flapping"), "the log");
    let cleared = Duration::from_secs(window) + PATIENCE;
    observer.wait_event(
        |e| e.kind() == "check_changed" && e.str("code") == "LEADER_003" && e.str("status") == "pass",
        cleared,
    );
    assert_eq!(changes_of(&observer, "LEADER_003"), ["warn", "pass"], "once, and cleared");
    let (code, line) = nagios();
    assert_eq!(code, Some(0), "{line}");
    assert!(line.contains("METAD OK"), "{line}");
}

// --- what is written down --------------------------------------------------------------------------------------------

/// A report with one finding of each kind.
fn sample() -> Report {
    let check = |code: &str| CHECKS.iter().find(|c| c.code == code).expect("a check");
    let outcome = metad::diagnosis::checks::Outcome::new;
    let findings = vec![
        Finding::of(check("ETCD_001"), outcome(Status::Pass, "3 of 3 endpoints answer", "all")),
        Finding::of(
            check("ETCD_005"),
            outcome(Status::Warn, "m2 syncs its log within 24 ms | 99 of 100", "10 ms")
                .fix("use an `SSD`")
                .reading(24.25, "ms", 10.0),
        ),
        Finding::of(
            check("ETCD_013"),
            outcome(Status::Fail, "NOSPACE at m1", "none").fix("etcdctl alarm disarm"),
        ),
        Finding::of(check("ETCD_007"), outcome(Status::Unknown, "no metrics: m3", "a page").fix("curl m3")),
    ];
    let skipped = vec![Skipped { code: "LEADER_003", why: "no node has answered".to_owned() }];
    Report { findings, skipped }
}

/// Compares with a file under `tests/real/doctor/`; METAD_REWRITE_GOLDEN=1 writes it anew.
#[track_caller]
fn assert_golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real/doctor").join(name);
    if std::env::var_os("METAD_REWRITE_GOLDEN").is_some() {
        std::fs::write(&path, text).expect("written");
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert_eq!(text, golden, "{name} is another; if that is right: METAD_REWRITE_GOLDEN=1");
}

#[test]
fn the_forms_of_a_report_are_these() {
    let report = sample();
    let group = metad::diagnosis::checks::Group::Etcd;
    let text = render::group(group, &report, render::Colours::Off) + &render::summary(&report);
    assert_golden("report.txt", &text);
    let json = serde_json::to_string_pretty(&ReportDocument::of(&report)).expect("JSON");
    assert_golden("report.json", &(json + "\n"));
    assert_golden("report.md", &render::markdown(&report));
    assert_golden("report.nagios", &render::nagios(&report));
    assert!(!text.contains('\u{1b}'), "no colours off a terminal");
}

/// Who has not said which store gets the node's: not a file that nobody has made.
#[test]
fn what_the_doctor_is_not_told_a_node_tells_it() {
    let etcd = EtcdCluster::start(1);
    let node = NodeBuilder::new("n1").etcd(&etcd).lease_secs(7).spawn();
    node.wait_for("main_loop_started", PATIENCE);
    let address = node.rpc_addr().to_string();
    let examine = |more: &[&str]| {
        let args = ["doctor", "-o", "json", "--sample", "1s", "--meta", &address];
        let (_, said, error) = spawn::metad(&[&args[..], more].concat(), EXAMINATION);
        let report: Value = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said}{error}"));
        report
    };
    let of = |report: &Value, list: &str, code: &str| {
        let rows = report[list].as_array().expect("a list").clone();
        rows.into_iter().find(|row| row["code"] == code)
    };
    let report = examine(&[]);
    assert_eq!(
        of(&report, "findings", "ETCD_001").expect("it looks at etcd")["status"],
        "pass",
        "{report:#}"
    );
    let disk = of(&report, "findings", "HOST_004").expect("the data dir")["measured"].to_string();
    assert!(disk.contains(node.data_dir().to_str().expect("UTF-8")), "{disk}");
    let other = examine(&["--store", "sqlite"]);
    assert!(of(&other, "findings", "ETCD_001").is_none(), "twin: what is given counts: {other:#}");
    // With the file of this node what only its unit gives comes from the node; not with another node's.
    let file = tempfile::NamedTempFile::new().expect("a file");
    for (id, is_its_own) in [("n1", true), ("n2", false)] {
        let endpoint = etcd.endpoint(0);
        let content = format!("[node]\nid = \"{id}\"\n[store.etcd]\nendpoints = [\"{endpoint}\"]\n");
        std::fs::write(file.path(), content).expect("written");
        let report = examine(&["--config", file.path().to_str().expect("UTF-8"), "--only", "HOST_004"]);
        let disk = of(&report, "findings", "HOST_004").expect("the data dir")["measured"].to_string();
        assert_eq!(disk.contains(node.data_dir().to_str().expect("UTF-8")), is_its_own, "{id}: {disk}");
        assert_eq!(disk.contains("not there yet"), !is_its_own, "{id}: {disk}");
    }
}

/// No node, no file: who has named a check must not be told that all is well.
#[test]
fn what_was_asked_for_by_name_and_could_not_be_looked_at_is_unknown() {
    let folder = tempfile::tempdir().expect("a folder");
    let asked = |args: &[&str]| {
        let mut command = spawn::metad_command();
        command.args(args).args(["--meta", "127.0.0.1:9"]).current_dir(folder.path());
        let output = spawn::output(command, EXAMINATION);
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    for code in ["ETCD_001", "LEADER_001", "CLUSTER_001", "LEASE_005", "HOST_008"] {
        let (exit, said) = asked(&["doctor", "--only", code]);
        assert_eq!(exit, Some(3), "{code}: {said}");
        assert!(said.contains(&format!("{code} skipped")) && said.contains("1 unknown"), "{said}");
        assert!(said.contains("no configuration file is named"), "{said}");
        assert!(said.contains("no node answers at 127.0.0.1:9"), "{said}");
        let (exit, json) = asked(&["doctor", "--only", code, "-o", "json"]);
        let json: Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!((exit, &json["status"]), (Some(3), &Value::from("unknown")), "{json:#}");
        assert_eq!(asked(&["check", code]).0, Some(3), "as monitoring is told");
    }
    let (exit, said) = asked(&["doctor", "--only", "CONFIG_001"]);
    assert_eq!(exit, Some(0), "twin: this one needs nobody: {said}");
    assert!(said.starts_with("settings of this command: "), "{said}");
}

#[test]
fn wrong_names_and_plain_usage_are_told_apart() {
    let doctor = Doctor::at(vec!["127.0.0.1:9".to_owned()]);
    let output = spawn::output(doctor.command(&["doctor", "--only", "ETCD_999"]), EXAMINATION);
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).contains("\"ETCD_999\""));
    let output = spawn::output(doctor.command(&["doctor", "--list"]), EXAMINATION);
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(CHECKS.iter().all(|c| listed.contains(c.code) && listed.contains(c.name)), "{listed}");
    let check = CHECKS.iter().find(|c| c.code == "ETCD_005").expect("a check");
    assert_eq!(spawn::metad(&["explain", "etcd-slow-fsync"], EXAMINATION).1, render::explanation(check));
    assert_eq!(spawn::metad(&["explain", "ETCD_999"], EXAMINATION).0, 64);
    // The lower case and the name will do.
    let output = spawn::output(doctor.command(&["check", "etcd_001"]), EXAMINATION);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("× ETCD_001") && text.contains("Fix: "), "{text}");
}
