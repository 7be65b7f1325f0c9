//! One diagnosis of an endpoint: a node that does not start, the doctor, and a node that runs say the same of it, and
//! advise the same.

use std::path::Path;

use crate::doctor::impostor::Impostor;
use crate::support::crew::PATIENCE;
use crate::support::etcd::EtcdCluster;
use crate::support::node::{Node, NodeBuilder};
use crate::support::poll::wait_until;
use crate::support::{http, spawn};
use serde_json::Value;

type Env = Vec<(&'static str, String)>;

/// An endpoint, and what must be said of it.
struct Case {
    name: &'static str,
    endpoint: String,
    env: Env,
    finding: &'static str,
    fix: &'static str,
}

fn case(name: &'static str, endpoint: impl Into<String>, finding: &'static str, fix: &'static str) -> Case {
    Case { name, endpoint: endpoint.into(), env: vec![], finding, fix }
}

impl Case {
    fn with(mut self, name: &'static str, file: &Path) -> Self {
        self.env.push((name, file.display().to_string()));
        self
    }

    /// What a program of metad says with this endpoint alone, and its exit code.
    fn asked(&self, args: &[&str]) -> (Option<i32>, String) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = spawn::metad_command();
        command.args(args).args(["--etcd-endpoints", &self.endpoint]).current_dir(folder.path());
        command.env("METAD_STORE__ETCD__START_TIMEOUT_SECS", "1").envs(self.env.iter().cloned());
        let output = spawn::output(command, PATIENCE);
        let [told, errors] =
            [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
        (output.status.code(), (told + &errors).replace("\\\"", "\""))
    }

    fn judge(&self) {
        let serve = ["serve", "--node-id", "n", "--listen-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0"];
        let (code, said) = self.asked(&serve);
        assert_eq!(code, Some(69), "{}: {said}", self.name);
        self.assert_named("the start", &said);
        let (code, said) = self.asked(&["check", "ETCD_001", "--meta", "127.0.0.1:9", "-o", "json"]);
        assert_eq!(code, Some(2), "{}: {said}", self.name);
        self.assert_named("the doctor", &said);
    }

    fn assert_named(&self, who: &str, said: &str) {
        for what in [&self.endpoint, self.finding, self.fix] {
            assert!(said.contains(what), "{}: {who} must say {what:?}: {said}", self.name);
        }
        assert!(!said.contains("panicked"), "{}: {said}", self.name);
    }
}

fn judge_all(cases: &[Case]) {
    std::thread::scope(|s| {
        for case in cases {
            s.spawn(|| case.judge());
        }
    });
}

#[test]
fn what_is_found_at_an_endpoint_is_told_alike_by_the_start_and_the_doctor() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = NodeBuilder::new("other").sqlite(folder.path().join("db")).spawn();
    node.wait_for("main_loop_started", PATIENCE);
    let silent = Impostor::silent();
    judge_all(&[
        case(
            "closed",
            "http://127.0.0.1:1",
            "refuses connections: nothing listens there",
            "start etcd there",
        ),
        case(
            "no name",
            "http://no-such-host.invalid:2379",
            "has a name that does not resolve",
            "correct the name",
        ),
        case("silent", silent.endpoint(), "accepts connections but does not answer", "stopped or hung"),
        case(
            "web",
            Impostor::other_server().endpoint(),
            "is not etcd (it answers \"HTTP/1.1 404",
            "client port is 2379",
        ),
        case(
            "metad's HTTP",
            node.http_addr().to_string(),
            "it is metad's own HTTP port",
            "correct host and port",
        ),
        case(
            "metad's gRPC",
            node.rpc_addr().to_string(),
            "a gRPC server without etcd's services",
            "correct host and port",
        ),
    ]);
}

/// Its verdict, too: the network is not to blame for a name.
#[test]
fn a_node_whose_etcd_has_no_name_here_says_so() {
    let node = NodeBuilder::new("n").env("METAD_STORE__ETCD__ENDPOINTS", "http://no-such-host.invalid:2379");
    let node = node.env("METAD_STORE__ETCD__START_TIMEOUT_SECS", "3").spawn();
    assert_eq!(node.wait_exit(PATIENCE), 69, "{}", node.report());
    let verdict = node.wait_for("verdict", PATIENCE);
    assert_eq!(verdict.str("verdict"), "unresolvable");
    for said in ["http://no-such-host.invalid:2379 has a name that does not resolve", "DNS"] {
        assert!(verdict.str("text").contains(said), "{}", verdict.str("text"));
    }
    assert!(!node.messages().contains("network fault"), "{}", node.report());
}

#[test]
fn what_is_wrong_with_tls_is_told_alike_too() {
    let secure = EtcdCluster::builder().members(1).tls().start();
    let plain = EtcdCluster::start(1);
    let other = EtcdCluster::builder().members(1).tls().start();
    let (tls, stranger) = (secure.tls().expect("certificates"), other.tls().expect("certificates"));
    let (ca, port) = ("METAD_STORE__ETCD__CA_FILE", secure.addr(0).port());
    judge_all(&[
        case(
            "TLS, asked in plain",
            secure.endpoint(0),
            "speaks TLS, but the endpoint is plain HTTP",
            "write https://",
        ),
        case(
            "plain, asked with TLS",
            format!("https://{}", plain.addr(0)),
            "is an etcd without TLS",
            "write http://",
        )
        .with(ca, &tls.ca),
        case(
            "another CA",
            format!("https://{}", secure.addr(0)),
            "invalid peer certificate",
            "the CA that signed its certificate",
        )
        .with(ca, &stranger.ca),
        case(
            "another name",
            format!("https://0.0.0.0:{port}"),
            "not valid for name",
            "its certificate is made out to",
        )
        .with(ca, &tls.ca),
        case(
            "no client certificate",
            format!("https://{}", secure.addr(0)),
            "speaks TLS, but the handshake fails",
            "correct store.etcd.cert_file",
        )
        .with(ca, &tls.ca),
    ]);
}

/// What a node says of an endpoint in its JSON, which the page shows: the finding and the fix.
fn told(node: &Node, url: &str) -> Option<(String, String)> {
    let (_, body) = http::get(node.http_addr(), "/api/v1/state", PATIENCE).ok()?;
    let state: Value = serde_json::from_str(&body).ok()?;
    let of = state["store"]["endpoints"].as_array()?.iter().find(|e| e["endpoint"] == url)?.clone();
    Some((of["finding"].as_str()?.to_owned(), of["fix"].as_str()?.to_owned()))
}

#[test]
fn a_node_that_runs_says_the_same_and_its_verdict_too() {
    let etcd = EtcdCluster::start(3);
    let secure = EtcdCluster::builder().members(1).tls().start();
    let silent = Impostor::silent();
    let endpoints = [etcd.endpoints(), vec![silent.endpoint(), secure.endpoint(0)]].concat();
    let node = NodeBuilder::new("n1").endpoints(endpoints).spawn();
    node.wait_for("main_loop_started", PATIENCE);
    for (at, finding, fix) in [
        (silent.endpoint(), "accepts connections but does not answer", "stopped or hung"),
        (secure.endpoint(0), "speaks TLS, but the endpoint is plain HTTP", "write https://"),
    ] {
        let url = format!("http://{at}");
        wait_until("it says what it found there", PATIENCE, || {
            told(&node, &url).is_some_and(|(what, advice)| what.contains(finding) && advice.contains(fix))
        });
        wait_until("so does its verdict", PATIENCE, || {
            node.events()
                .iter()
                .any(|e| e.kind() == "verdict" && e.str("text").contains(&format!("{url} {finding}")))
        });
    }
    let well = format!("http://{}", etcd.addr(0));
    assert_eq!(told(&node, &well), None, "twin: of those that are well nothing is said");
    // One that goes is named for what it is, and forgotten when it is back.
    etcd.kill(0);
    wait_until("the killed one is found", PATIENCE, || {
        told(&node, &well).is_some_and(|(what, _)| what.contains("nothing listens there"))
    });
    etcd.restart(0);
    wait_until("and forgotten", PATIENCE, || told(&node, &well).is_none());
}
