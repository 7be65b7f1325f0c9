//! What is said of the leader, in every channel and in every state of the world: the truth, and the same everywhere.
//!
//! A row makes a state, and names a node that is asked. Then all channels, the page in a browser among them, must come to say the same, and their answers are
//! never older than they say: what is older than the lease is unknown.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;

use crate::page::browser::Browser;

use crate::support::crew::{PATIENCE, wait_until_all_know_all};
use crate::support::etcd::EtcdCluster;
use crate::support::node::{Node, NodeBuilder};
use crate::support::poll::{boot_ns, holds_within, wait_until};
use crate::support::proxy::FaultProxy;
use crate::support::spawn::metad;
use crate::support::{http, install};
use metad::proto::metad::election_service_client::ElectionServiceClient;
use metad::proto::metad::{LeaderRequest, LeaderResponse};
use serde_json::{Value, json};

/// How long a command gets.
const ANSWER: Duration = Duration::from_secs(20);
/// The leader record would be the only key here.
const FOREIGN_KEY: &str = "/metad/default/election/meta/a-stranger";
const LEASE_SECS: u64 = 5;

/// What a channel says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    Leads(String),
    Nobody,
    Unknown,
    /// A channel that has no word for more.
    Somebody,
    /// The same.
    NotSomebody,
    /// What does not say one of these.
    Nonsense(String),
}

impl Said {
    fn of(leader: Option<&str>, is_outdated: bool) -> Self {
        match leader {
            Some(node) => Said::Leads(node.into()),
            None if is_outdated => Said::Unknown,
            None => Said::Nobody,
        }
    }

    /// Does it say this truth, as far as it can?
    fn is_true(&self, truth: &Said) -> bool {
        match self {
            Said::Somebody => matches!(truth, Said::Leads(_)),
            Said::NotSomebody => !matches!(truth, Said::Leads(_)),
            said => said == truth,
        }
    }
}

fn leads(node: &str) -> Said {
    Said::Leads(node.into())
}

/// Asks with a command; the exit code must fit what is printed.
fn command(node: &Node, args: &[&str]) -> (i32, String) {
    let address = node.rpc_addr().to_string();
    let (code, said, error) = metad(&[args, &["--meta", &address]].concat(), ANSWER);
    (code, said + &error)
}

fn by_document(node: &Node, what: &str) -> Said {
    let (code, said) = command(node, &[what, "-o", "json"]);
    let Ok(document) = serde_json::from_str::<Value>(&said) else { return Said::Nonsense(said) };
    let outdated = document["answerer"]["is_outdated"] == true;
    let said = Said::of(document["leader"]["node"].as_str(), outdated);
    let expected = match said {
        Said::Leads(_) => 0,
        Said::Unknown => 3,
        _ => 2,
    };
    if code == expected { said } else { Said::Nonsense(format!("{said:?} with the exit code {code}")) }
}

/// What people read: the first table, or the line instead of it.
fn by_table(node: &Node) -> Said {
    let (code, said) = command(node, &["status"]);
    let mut lines = said.lines();
    let first = lines.next().unwrap_or_default();
    match (code, first.split_whitespace().next()) {
        (0, Some("LEADER")) => {
            leads(lines.next().and_then(|l| l.split_whitespace().next()).unwrap_or_default())
        }
        (2, Some("no")) => Said::Nobody,
        (3, Some("leader")) if first.starts_with("leader unknown: ") => Said::Unknown,
        _ => Said::Nonsense(format!("{code}: {said}")),
    }
}

fn by_members(node: &Node) -> Said {
    let (code, said) = command(node, &["members"]);
    let of_role = |role: &str| {
        let words = said.lines().map(|l| l.split_whitespace().collect::<Vec<_>>());
        words.filter(|w| w.get(1) == Some(&role)).map(|w| w[0].to_owned()).collect::<Vec<_>>()
    };
    match (code, of_role("leader").as_slice()) {
        (0, [one]) => leads(one),
        (0, []) => Said::Nobody,
        (3, _) => Said::Unknown,
        _ => Said::Nonsense(format!("{code}: {said}")),
    }
}

/// The last row is of the tenure that goes on, if there is one.
fn by_history(node: &Node) -> Said {
    let (code, said) = command(node, &["history"]);
    let row = said.lines().rfind(|l| l.starts_with(" 20")).unwrap_or_default();
    let node = row.split_whitespace().nth(1).unwrap_or_default();
    match (code, row.contains("(leads)"), row.contains("(unknown)")) {
        (0, true, false) => leads(node),
        (0, false, false) => Said::Nobody,
        (3, false, _) => Said::Unknown,
        _ => Said::Nonsense(format!("{code}: {said}")),
    }
}

fn by_wait(node: &Node) -> Said {
    match command(node, &["wait", "leader", "--timeout", "1s"]) {
        (0, _) => Said::Somebody,
        (1, _) => Said::NotSomebody,
        other => Said::Nonsense(format!("{other:?}")),
    }
}

/// It asks all members that the node names, so it may know more than the node does.
fn by_nagios(node: &Node) -> Said {
    let (code, said) = command(node, &["check", "leader-exists", "-o", "nagios"]);
    let text = said.strip_prefix("METAD ").unwrap_or_default();
    match (code, text.split_once(" - LEADER_001 ")) {
        (0, Some(("OK", says))) => leads(says.split(" leads").next().unwrap_or_default()),
        (1, Some(("WARNING", says))) | (2, Some(("CRITICAL", says))) if says.starts_with("no leader") => {
            Said::Nobody
        }
        (2, Some(("CRITICAL", says))) if says.starts_with("unknown") => Said::Unknown,
        _ => Said::Nonsense(format!("{code}: {said}")),
    }
}

fn by_metrics(node: &Node) -> Said {
    let (_, page) = http::get(node.http_addr(), "/metrics", ANSWER).expect("metrics");
    // Who is a member is not known either, where nothing is.
    let tells_members = page.lines().any(|l| l.starts_with("metad_member_up{"));
    match (page.lines().find_map(|l| l.strip_prefix("metad_has_leader ")), tells_members) {
        (Some("1"), true) => Said::Somebody,
        (Some("0"), true) => Said::Nobody,
        (Some("0"), false) => Said::Unknown,
        other => Said::Nonsense(format!("{other:?}")),
    }
}

fn by_grpc(node: &Node) -> LeaderResponse {
    let url = format!("http://{}", node.rpc_addr());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut client = ElectionServiceClient::connect(url).await.expect("it listens");
        client.leader(LeaderRequest {}).await.expect("an answer").into_inner()
    })
}

fn by_http(node: &Node) -> Value {
    let (_, page) = http::get(node.http_addr(), "/api/v1/state", ANSWER).expect("a state");
    serde_json::from_str(&page).expect("JSON")
}

fn by_readyz(node: &Node) -> Said {
    match http::get(node.http_addr(), "/readyz", ANSWER).expect("a probe").0 {
        200 => Said::Somebody, // it has heard of the store, which is all that it says
        503 => Said::NotSomebody,
        code => Said::Nonsense(code.to_string()),
    }
}

thread_local! {
    /// The browser of this test, and the node whose page it shows.
    static BROWSER: RefCell<Option<(SocketAddr, Browser)>> = const { RefCell::new(None) };
}

/// What is written on top of the page.
fn by_page(node: &Node) -> Said {
    BROWSER.with_borrow_mut(|shown| {
        let address = node.http_addr();
        let (at, browser) = shown.get_or_insert_with(|| (address, Browser::open(address)));
        if *at != address {
            browser.ask("open", json!({ "url": format!("http://{address}/") }));
            *at = address;
        }
        let page = browser.texts();
        let verdict = page["verdict"].as_str().unwrap_or_default();
        match (page["level"].as_str(), verdict.split_once(" leads")) {
            (Some("lost"), None) => Said::Unknown,
            (Some("bad"), None) if verdict == "No leader" => Said::Nobody,
            (Some("good" | "warn" | "bad"), Some((leader, _))) => leads(leader),
            _ => Said::Nonsense(format!("{page}")),
        }
    })
}

/// All channels of one node.
fn said_by(node: &Node) -> BTreeMap<&'static str, Said> {
    let grpc = by_grpc(node);
    let outdated = grpc.answerer.as_ref().is_some_and(|a| a.is_outdated);
    let state = by_http(node);
    let is_outdated = state["answerer"]["is_outdated"] == true;
    BTreeMap::from([
        ("status", by_table(node)),
        ("status -o json", by_document(node, "status")),
        ("leader -o json", by_document(node, "leader")),
        ("members", by_members(node)),
        ("history", by_history(node)),
        ("wait leader", by_wait(node)),
        ("check -o nagios", by_nagios(node)),
        ("metrics", by_metrics(node)),
        ("gRPC", Said::of(grpc.leader.as_ref().map(|l| l.node.as_str()), outdated)),
        ("HTTP", Said::of(state["leader"]["node"].as_str(), is_outdated)),
        ("readyz", by_readyz(node)),
        ("page", by_page(node)),
    ])
}

/// Sooner or later every channel of this node says so; `cluster` is what one that asks the others says too.
#[track_caller]
fn assert_told(state: &str, node: &Node, truth: &Said, cluster: &Said) {
    let mut last = BTreeMap::new();
    let is_true = |channel: &str, said: &Said| match channel {
        "check -o nagios" => said.is_true(cluster),
        "readyz" => *said == if *truth == Said::Unknown { Said::NotSomebody } else { Said::Somebody },
        _ => said.is_true(truth),
    };
    let all = holds_within(PATIENCE, || {
        last = said_by(node);
        last.iter().all(|(channel, said)| is_true(channel, said))
    });
    let table = last.iter().fold(String::new(), |mut table, (channel, said)| {
        let mark = if is_true(channel, said) { ' ' } else { '!' };
        let _ = writeln!(table, "{mark} {channel:16} {said:?}");
        table
    });
    println!("{state}, {}: {truth:?}\n{table}", node.id());
    assert!(all, "{state}, {} is not told as {truth:?}:\n{table}{}", node.id(), node.report());
}

#[track_caller]
fn assert_all_told(state: &str, nodes: &[&Node], truth: &Said) {
    nodes.iter().for_each(|node| assert_told(state, node, truth, truth));
}

fn builder(id: &str, etcd: &EtcdCluster) -> NodeBuilder {
    NodeBuilder::new(id).lease_secs(LEASE_SECS).etcd(etcd)
}

/// The first one leads.
fn crew(etcd: &EtcdCluster, ids: &[&str]) -> Vec<Node> {
    let mut nodes = Vec::new();
    for id in ids {
        nodes.push(builder(id, etcd).spawn());
        nodes.last().expect("just pushed").wait_for("joined", PATIENCE);
        nodes[0].wait_for("main_loop_started", PATIENCE);
    }
    wait_until_all_know_all(&nodes);
    nodes
}

#[test]
fn nodes_that_are_killed() {
    let etcd = EtcdCluster::start(1);
    let nodes = crew(&etcd, &["n1", "n2", "n3"]);
    let [one, two, three] = &nodes[..] else { unreachable!("three were started") };
    assert_all_told("healthy", &[one, two, three], &leads("n1"));
    two.kill();
    assert_all_told("a follower killed", &[one, three], &leads("n1"));
    assert_gone(three, "n2");
    one.kill();
    assert_all_told("the leader killed", &[three], &leads("n3"));
    assert_gone(three, "n1");
    let again = builder("n4", &etcd).spawn();
    again.wait_for("joined", PATIENCE);
    three.kill_with_guardian();
    assert_all_told("the leader and its guardian killed", &[&again], &leads("n4"));
}

/// Whoever was there within the last hour is missed.
#[track_caller]
fn assert_gone(told_by: &Node, node: &str) {
    let says = |args: &[&str], line: &str| {
        let mut last = (0, String::new());
        let is_said = holds_within(PATIENCE, || {
            last = command(told_by, args);
            last.1.lines().any(|l| l.contains(line) && l.contains(node))
        });
        assert!(is_said, "{args:?} does not say that {node} is gone: {last:?}");
        last.0
    };
    says(&["status"], "gone ");
    says(&["members"], "gone ");
    assert_eq!(says(&["check", "members-online", "-o", "nagios"], "gone within the last hour"), 1);
    assert!(by_http(told_by)["gone"].as_array().is_some_and(|gone| gone.iter().any(|g| g["node"] == node)));
}

#[test]
fn an_etcd_that_is_frozen() {
    let etcd = EtcdCluster::start(1);
    let nodes = crew(&etcd, &["n1", "n2"]);
    let before = boot_ns();
    etcd.pause_all();
    assert_all_told("etcd frozen", &[&nodes[1]], &Said::Unknown);
    // Not older than it says, and not younger; who led is not forgotten.
    let answer = by_grpc(&nodes[1]);
    let age = Duration::from_millis(answer.answerer.expect("it says who it is").age_ms);
    let frozen = Duration::from_nanos(boot_ns() - before);
    assert!(age <= frozen + Duration::from_secs(LEASE_SECS), "{age:?}, frozen for {frozen:?}");
    assert!(age >= Duration::from_secs(LEASE_SECS), "{age:?}");
    assert_eq!(answer.last_known.expect("it led").node, "n1");
    etcd.resume_all();
    assert_all_told("etcd back", &[&nodes[1]], &leads("n2"));
}

#[test]
fn an_etcd_that_is_gone() {
    let etcd = EtcdCluster::start(1);
    let nodes = crew(&etcd, &["n1", "n2"]);
    etcd.kill(0);
    assert_all_told("etcd gone", &[&nodes[1]], &Said::Unknown);
}

#[test]
fn an_etcd_that_is_partly_gone_or_slow() {
    let etcd = EtcdCluster::start(3);
    let nodes = crew(&etcd, &["n1", "n2"]);
    let both = [&nodes[0], &nodes[1]];
    let away = (etcd.leader() + 1) % 3;
    etcd.pause(away);
    assert_all_told("one member of etcd frozen", &both, &leads("n1"));
    etcd.kill(away);
    assert_all_told("one member of etcd gone", &both, &leads("n1"));
    let left: Vec<usize> = (0..3).filter(|i| *i != away).collect();
    for _ in 0..5 {
        left.iter().for_each(|i| etcd.pause(*i));
        std::thread::sleep(Duration::from_millis(1400));
        left.iter().for_each(|i| etcd.resume(*i));
        std::thread::sleep(Duration::from_millis(600));
    }
    assert_all_told("etcd slow in bursts", &both, &leads("n1"));
    etcd.kill(left[0]);
    assert_all_told("etcd without a majority", &[&nodes[1]], &Said::Unknown);
}

#[test]
fn an_etcd_that_is_full() {
    let etcd = EtcdCluster::builder().arg("--quota-backend-bytes=1048576").start();
    let nodes = crew(&etcd, &["n1", "n2"]);
    let value = "x".repeat(100_000);
    assert!(
        holds_within(PATIENCE, || !etcd.etcdctl(&["put", "filler", &value]).status.success()),
        "it is full"
    );
    assert_all_told("etcd full", &[&nodes[0], &nodes[1]], &leads("n1"));
}

#[test]
fn a_node_that_is_cut_off_and_one_that_stood_still() {
    let etcd = EtcdCluster::start(1);
    let nodes = crew(&etcd, &["n1", "n2"]);
    let proxy = FaultProxy::start(etcd.addr(0));
    let behind =
        NodeBuilder::new("n3").lease_secs(LEASE_SECS).etcd_behind(&etcd, [proxy.addr()].into_iter()).spawn();
    behind.wait_for("joined", PATIENCE);
    assert_all_told("healthy, behind a proxy", &[&behind], &leads("n1"));
    proxy.black_hole();
    assert_told("this node cut off", &behind, &Said::Unknown, &leads("n1"));
    assert_all_told("another node cut off", &[&nodes[0], &nodes[1]], &leads("n1"));
    proxy.pass();
    assert_all_told("this node back", &[&behind], &leads("n1"));
    nodes[1].pause();
    std::thread::sleep(Duration::from_secs(LEASE_SECS));
    nodes[1].resume();
    assert_all_told("this node stood still", &[&nodes[1]], &leads("n1"));
}

/// A wall clock that stands still makes nothing look fresh: ages are counted on another one.
#[test]
fn a_node_whose_wall_clock_stands_still() {
    let etcd = EtcdCluster::start(1);
    let nodes = crew(&etcd, &["n1"]);
    let frozen = builder("n2", &etcd).env("LD_PRELOAD", install::libfaketime());
    let frozen =
        frozen.env("FAKETIME", "2026-11-28 12:00:00").env("FAKETIME_DONT_FAKE_MONOTONIC", "1").spawn();
    frozen.wait_for("joined", PATIENCE);
    assert_all_told("its clock stands still", &[&frozen], &leads("n1"));
    etcd.pause_all();
    assert_all_told("its clock stands still, and etcd is frozen", &[&frozen], &Said::Unknown);
    drop(nodes);
}

#[test]
fn a_single_node_and_a_standstill() {
    let single = NodeBuilder::new("n1").lease_secs(LEASE_SECS).spawn();
    assert_all_told("a single node", &[&single], &leads("n1"));
    let etcd = EtcdCluster::start(1);
    etcd.etcdctl_ok(&["put", FOREIGN_KEY, "somebody"]);
    let node = builder("n1", &etcd).spawn();
    node.wait_for("joined", PATIENCE);
    assert_all_told("a standstill", &[&node], &Said::Nobody);
    etcd.etcdctl_ok(&["del", FOREIGN_KEY]);
    assert_all_told("twin: and no more", &[&node], &leads("n1"));
}

#[test]
fn a_sqlite_file_that_is_locked() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("store.db");
    let node = |id| NodeBuilder::new(id).lease_secs(LEASE_SECS).sqlite(&file).spawn();
    let nodes = [node("n1"), node("n2")];
    nodes.iter().for_each(|n| drop(n.wait_for("joined", PATIENCE)));
    wait_until("one leads", PATIENCE, || nodes.iter().any(|n| n.has_event("main_loop_started")));
    let leader = nodes.iter().position(|n| n.has_event("main_loop_started")).expect("one leads");
    let follower = &nodes[1 - leader];
    assert_all_told("SQLite", &[follower], &leads(nodes[leader].id()));
    let connection = rusqlite::Connection::open(&file).expect("a database");
    connection.execute_batch("BEGIN EXCLUSIVE").expect("locked");
    assert_all_told("SQLite locked", &[follower], &Said::Unknown);
}

/// All nodes end with their file, and no channel makes anything of their silence.
#[test]
fn a_sqlite_file_that_is_gone() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("store.db");
    let node = NodeBuilder::new("n1").lease_secs(LEASE_SECS).sqlite(&file).spawn();
    node.wait_for("main_loop_started", PATIENCE);
    std::fs::remove_file(&file).expect("it is there");
    let code = node.wait_exit(PATIENCE);
    assert!(code == 78 && node.stderr().contains("store.db"), "{code}: {}", node.report());
    for args in
        [&["status"][..], &["leader"], &["members"], &["history"], &["wait", "leader", "--timeout", "1s"]]
    {
        let (code, said) = command(&node, args);
        assert!(code == 1 && said.contains("Connection refused"), "{args:?}: {code}: {said}");
    }
    let (code, said) = command(&node, &["check", "leader-exists", "-o", "nagios"]);
    assert!(code == 3 || code == 2, "{code}: {said}");
    assert!(!said.contains("leads"), "{said}");
    for path in ["/api/v1/state", "/metrics", "/readyz", "/"] {
        assert!(http::get(node.http_addr(), path, ANSWER).is_err(), "{path}");
    }
}
