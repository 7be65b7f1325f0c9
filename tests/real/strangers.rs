//! What somebody who may write to etcd, or reach a node's port, can do by mistake or out of malice: keep a vacancy
//! open, stop a node, put a key where the leader record is, or be sent a password. On real processes and a real etcd.

mod recorder;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::support;
use crate::support::crew::{
    PATIENCE, between, check_status, leads, report, slack, started_ns, tenures, wait_until_all_know_all,
};
use crate::support::etcd::EtcdCluster;
use crate::support::node::{Node, NodeBuilder};
use crate::support::poll::wait_until;
use crate::support::spawn;
use metad::proto::metad::election_service_client::ElectionServiceClient;
use metad::proto::metad::{LeaderRequest, LeaderResponse, PrepareRequest, StepDownRequest};
use recorder::Recorder;
use tonic::Code;
use tonic::transport::Channel;

const LEASE: Duration = Duration::from_secs(5);
/// Where a foreign candidate would be.
const STRAY_KEY: &str = "/metad/default/election/meta/stray";

fn nodes(etcd: &EtcdCluster, ids: &[&str]) -> Vec<Node> {
    let mut all: Vec<Node> = Vec::new();
    for id in ids {
        all.push(NodeBuilder::new(id).etcd(etcd).lease_secs(LEASE.as_secs()).spawn());
        // The first one leads.
        all[0].wait_for("main_loop_started", PATIENCE);
    }
    wait_until_all_know_all(&all);
    all
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(PATIENCE * 2, future).await.expect("in time") })
}

async fn election(address: String) -> ElectionServiceClient<Channel> {
    let channel = Channel::from_shared(format!("http://{address}")).expect("an address").connect_lazy();
    ElectionServiceClient::new(channel)
}

/// What the node says of the leader and of itself.
fn asked(node: &Node) -> LeaderResponse {
    let address = node.rpc_addr().to_string();
    block_on(async {
        election(address).await.leader(LeaderRequest {}).await.expect("an answer").into_inner()
    })
}

// === Prepare ===

/// Asks a candidate to stand ready, again and again.
#[derive(Default)]
struct Pest {
    /// How often it was told "ready", and how often it was answered at all.
    ready: AtomicU64,
    answered: AtomicU64,
    is_over: AtomicBool,
}

impl Pest {
    /// Begins to ask the node at this address, for the tenures that it sees and for one that never was.
    fn begin(address: String) -> Arc<Self> {
        let pest = Arc::new(Pest::default());
        let asking = pest.clone();
        thread::spawn(move || {
            block_on(async {
                let mut client = election(address).await;
                while !asking.is_over.load(Ordering::Relaxed) {
                    let leader = client.leader(LeaderRequest {}).await.ok();
                    let token = leader.and_then(|l| l.into_inner().leader).map_or(0, |l| l.token);
                    for token in [token, 1] {
                        if let Ok(answer) = client.prepare(PrepareRequest { token }).await {
                            asking.answered.fetch_add(1, Ordering::Relaxed);
                            asking.ready.fetch_add(u64::from(answer.into_inner().ready), Ordering::Relaxed);
                        }
                    }
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            });
        });
        pest
    }
}

#[test]
fn a_stranger_that_asks_the_candidates_to_stand_ready_keeps_no_vacancy_open() {
    let etcd = EtcdCluster::start(1);
    let nodes = nodes(&etcd, &["a", "b", "c"]);
    let pests: Vec<_> = nodes[1..].iter().map(|n| Pest::begin(n.rpc_addr().to_string())).collect();
    let count =
        |of: fn(&Pest) -> &AtomicU64| pests.iter().map(|p| of(p).load(Ordering::Relaxed)).collect::<Vec<_>>();
    wait_until("each candidate said that it is ready", PATIENCE, || {
        count(|p| &p.ready).iter().all(|n| *n > 2)
    });
    nodes[0].kill();
    let before = count(|p| &p.answered);
    wait_until("another leads", LEASE + PATIENCE, || nodes[1..].iter().any(leads));
    let after = count(|p| &p.answered);
    let next = nodes[1..].iter().find(|n| leads(n)).expect("one of them");
    let (died, started) = (nodes[0].died_ns().expect("it is dead"), started_ns(next));
    let vacant = between(died, started);
    // Its guardian frees the seat; without the stranger that takes milliseconds. A candidate that were bound by a
    // Prepare would wait for 2 s.
    assert!(
        vacant < Duration::from_secs(1) + slack(died, started),
        "nobody led for {vacant:?}\n{}",
        report(&nodes)
    );
    wait_until("the stranger went on asking", PATIENCE, || {
        count(|p| &p.answered).iter().zip(&before).all(|(now, then)| now > then)
    });
    println!("vacant for {vacant:?}; answered {before:?}, {after:?}, ready {:?}", count(|p| &p.ready));
    pests.iter().for_each(|p| p.is_over.store(true, Ordering::Relaxed));
    assert_eq!(tenures(&nodes).len(), 2);
}

#[test]
fn a_candidate_stands_ready_only_for_the_tenure_that_it_sees() {
    let etcd = EtcdCluster::start(1);
    let nodes = nodes(&etcd, &["a", "b"]);
    let token = asked(&nodes[1]).leader.expect("a leads").token;
    let prepare = |token| {
        let address = nodes[1].rpc_addr().to_string();
        let call = async move { election(address).await.prepare(PrepareRequest { token }).await };
        block_on(call).expect("an answer").into_inner()
    };
    for wrong in [0, 1, token - 1, token + 1, u64::MAX] {
        let answer = prepare(wrong);
        assert!(!answer.ready && answer.why.contains(&token.to_string()), "{wrong}: {answer:?}");
    }
    wait_until("it is ready for the leader's own tenure", PATIENCE, || prepare(token).ready);
}

#[test]
fn a_flood_of_requests_to_step_down_is_refused_and_changes_nothing() {
    let etcd = EtcdCluster::start(1);
    let nodes = nodes(&etcd, &["a", "b"]);
    let token = asked(&nodes[0]).leader.expect("a leads").token;
    let address = nodes[0].rpc_addr().to_string();
    let codes = block_on(async {
        let client = election(address).await;
        let calls = (0..200).map(|_| {
            let mut client = client.clone();
            async move {
                // Nobody of that name is there, so each of these would only cost.
                let request = StepDownRequest { to: "nobody".to_owned(), expected_token: None };
                client.step_down(request).await.expect_err("refused").code()
            }
        });
        futures_util::future::join_all(calls).await
    });
    let times = |code| codes.iter().filter(|c| **c == code).count();
    assert!(times(Code::NotFound) > 0, "some were looked at: {codes:?}");
    assert!(times(Code::ResourceExhausted) > 100, "most were not: {codes:?}");
    assert_eq!(asked(&nodes[0]).leader.expect("a still leads").token, token);
    let address = nodes[0].rpc_addr().to_string();
    wait_until("an operator is heard again", PATIENCE, || {
        let (code, _, _) = spawn::metad(&["step-down", "--yes", "--meta", &address], PATIENCE);
        code == 0
    });
}

// === registrations and leader records ===

fn registration(node: &str, lease: &str) -> String {
    format!(
        r#"{{"node":"{node}","uuid":"00000000-0000-0000-0000-000000000bad","incarnation":7,
        "rpc_address":"127.0.0.1:1","http_address":"127.0.0.1:1","priority":900,"version":"9",
        "lease_duration_seconds":600,"lease":"{lease}"}}"#
    )
}

fn grant(etcd: &EtcdCluster) -> String {
    let said = etcd.etcdctl_ok(&["lease", "grant", "600"]);
    said.split_whitespace().nth(1).expect("lease ID granted ...").to_owned()
}

/// Waits until the node has seen what etcd's revision is now.
fn wait_until_seen(etcd: &EtcdCluster, node: &Node) {
    let said = etcd.etcdctl_ok(&["get", "nothing", "-w", "json"]);
    let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    let revision = said["header"]["revision"].as_u64().expect("a revision");
    wait_until("the node has seen it", PATIENCE, || {
        !node.is_alive() || asked(node).answerer.is_some_and(|a| a.revision >= revision)
    });
}

#[test]
fn a_registration_counts_under_its_own_key_and_lease_only() {
    let etcd = EtcdCluster::start(1);
    let builders = ["a", "b"].map(|id| NodeBuilder::new(id).etcd(&etcd).lease_secs(LEASE.as_secs()));
    let first = builders[0].spawn();
    first.wait_for("main_loop_started", PATIENCE);
    let mut nodes = vec![first, builders[1].spawn()];
    wait_until_all_know_all(&nodes);
    let lease = grant(&etcd);
    let put = |key: &str, value: String, on_lease: bool| {
        let key = format!("/metad/default/nodes/{key}");
        let lease = format!("--lease={lease}");
        let mut args = vec!["put", &key, &value];
        args.extend(on_lease.then_some(lease.as_str()));
        etcd.etcdctl_ok(&args);
    };
    put("0-before-all", registration("b", &lease), true); // names a living node, with another uuid
    put("zzz", registration("a", &lease), true);
    put("x", registration("x", &lease), false); // hangs on nothing, so it would never go
    put("y", registration("y", "1234"), true); // hangs on another lease than it says
    put("z", registration("z", &lease), true); // twin: this one counts
    let names = |node: &Node| {
        let address = node.rpc_addr().to_string();
        let (_, out, _) = spawn::metad(&["members", "-o", "json", "--meta", &address], PATIENCE);
        let said: serde_json::Value = serde_json::from_str(&out).unwrap_or_default();
        let names = said["members"].as_array().into_iter().flatten().map(|m| m["node"].to_string());
        names.collect::<Vec<_>>()
    };
    for node in &nodes {
        wait_until_seen(&etcd, node);
        assert!(node.is_alive(), "a stranger's registration ended it\n{}", node.report());
        assert_eq!(names(node), ["\"a\"", "\"b\"", "\"z\""]);
    }
    // A start on the same data dir reads the registration of its name in another way.
    nodes[1].kill();
    nodes[1] = builders[1].spawn();
    nodes[1].wait_for("joined", PATIENCE);
    assert_eq!(tenures(&nodes).len(), 1, "the leader went on leading");
}

// === foreign candidates ===

/// Runs a command that shows the cluster as this node sees it; its exit code, and all it prints.
fn shown(command: &[&str], node: &Node) -> (i32, String) {
    let address = node.rpc_addr().to_string();
    let (code, out, err) = spawn::metad(&[command, &["--meta", &address]].concat(), PATIENCE);
    (code, out + &err)
}

#[test]
fn a_key_beside_the_leader_record_is_named_wherever_one_looks() {
    let etcd = EtcdCluster::start(1);
    etcd.etcdctl_ok(&["put", STRAY_KEY, "somebody else"]);
    let node = NodeBuilder::new("a").etcd(&etcd).lease_secs(LEASE.as_secs());
    let node = node.env("METAD_CHECKS__INTERVAL_SECS", "1").spawn();
    node.wait_for("joined", PATIENCE);
    wait_until_seen(&etcd, &node);
    assert!(!leads(&node), "it waits behind the other candidate");
    let command = "etcdctl get --prefix /metad/default/election/meta/";
    let names_it = |text: &str| [STRAY_KEY, "somebody else", command].iter().all(|part| text.contains(part));
    for look in [&["status"][..], &["leader"], &["status", "-o", "json"], &["leader", "-o", "json"]] {
        let (code, text) = shown(look, &node);
        assert_eq!(code, 2, "{look:?}: nobody leads\n{text}");
        assert!(names_it(&text), "{look:?}:\n{text}");
    }
    let endpoints = etcd.endpoints().join(",");
    let address = node.rpc_addr().to_string();
    let doctor =
        ["doctor", "--etcd-endpoints", &endpoints, "--meta", &address, "--only", "foreign-candidate"];
    let (code, out, err) = spawn::metad(&doctor, PATIENCE);
    assert!(code == 2 && names_it(&out), "{code}\n{out}{err}");
    let (_, state) = support::http::get(node.http_addr(), "/api/v1/state", PATIENCE).expect("the state");
    assert!(names_it(&state), "{state}");
    wait_until("its own check fails", PATIENCE, || check_status(&node, "LEADER_005") == Some(2));
    // Twin: it is the key that keeps it from leading, and nothing else.
    etcd.etcdctl_ok(&["del", STRAY_KEY]);
    node.wait_for("main_loop_started", PATIENCE);
    wait_until("its own check passes", PATIENCE, || check_status(&node, "LEADER_005") == Some(0));
    // One that queues behind a leader of ours would follow it.
    etcd.etcdctl_ok(&["put", STRAY_KEY, "somebody else"]);
    wait_until_seen(&etcd, &node);
    let (code, text) = shown(&["status"], &node);
    assert!(code == 0 && names_it(&text), "{code}\n{text}");
    wait_until("its own check warns", PATIENCE, || check_status(&node, "LEADER_005") == Some(1));
    // A record that cannot be read is nobody's that we know.
    etcd.etcdctl_ok(&["del", STRAY_KEY]);
    etcd.etcdctl_ok(&["put", "/metad/default/election/meta/leader", "scribble"]);
    assert_eq!(node.wait_exit(PATIENCE), 75);
}

// === passwords ===

#[test]
fn the_password_goes_to_no_address_of_the_member_list() {
    // Three members that all advertise the same place, which leads to the third and writes down what it is sent.
    let recorder = Recorder::new();
    let urls = format!("--advertise-client-urls=http://{}", recorder.address());
    let etcd = EtcdCluster::builder().members(3).arg(urls).start();
    recorder.lead_to(etcd.addr(2));
    etcd.enable_auth("metad", "correct-horse");
    let dir = tempfile::tempdir().expect("a directory");
    let password = dir.path().join("password");
    std::fs::write(&password, "correct-horse\n").expect("written");
    let node = NodeBuilder::new("a").endpoints(&etcd.endpoints()[..2]).lease_secs(LEASE.as_secs());
    let node = node
        .env("METAD_STORE__ETCD__USERNAME", "metad")
        .env("METAD_STORE__ETCD__PASSWORD_FILE", &password)
        .env("METAD_CHECKS__INTERVAL_SECS", "1");
    let node = node.spawn();
    node.wait_for("main_loop_started", PATIENCE);
    // In clear text: a password in it could be read.
    wait_until("the third member was looked at", PATIENCE, || recorder.has_heard("PRI * HTTP/2.0"));
    wait_until("and judged", PATIENCE, || check_status(&node, "ETCD_001").is_some());
    let calls = recorder.calls();
    let endpoints = etcd.endpoints()[..2].join(",");
    let mut doctor = spawn::metad_command();
    doctor.args(["doctor", "--etcd-endpoints", &endpoints]);
    doctor.env("METAD_STORE__ETCD__USERNAME", "metad").env("METAD_STORE__ETCD__PASSWORD_FILE", &password);
    let said = spawn::output(doctor, PATIENCE);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(recorder.calls() > calls, "doctor looked as well");
    assert!(!recorder.has_heard("correct-horse"), "sent to a place that nobody configured\n{said}");
    // Twin: whoever does log in there is heard.
    let mut stranger = spawn::metad_command();
    stranger.args(["doctor", "--etcd-endpoints", &recorder.address().to_string()]);
    stranger.env("METAD_STORE__ETCD__USERNAME", "metad").env("METAD_STORE__ETCD__PASSWORD_FILE", &password);
    spawn::output(stranger, PATIENCE);
    assert!(recorder.has_heard("correct-horse"), "a configured endpoint is logged in at");
}
