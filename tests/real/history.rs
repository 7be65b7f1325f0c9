//! The history on real processes: every way to lose leadership leaves its row, with the right reason; who reads it,
//! and who may steer.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support;
use crate::support::crew::{PATIENCE, leads, report, wait_for_leader, wait_until_all_know_all};
use crate::support::etcd::EtcdCluster;
use crate::support::node::{Node, NodeBuilder, Signal};
use crate::support::poll::wait_until;
use crate::support::{fenced, http, ourselves, spawn, witness};
use metad::proto::metad::HistoryRequest;
use metad::proto::metad::election_service_client::ElectionServiceClient;
use serde_json::Value;
use tonic::Code;

/// A lease that nobody waits for.
const LONG_SECS: u64 = 86_400;

/// What a metad command prints, and its exit code.
fn metad(args: &[&str]) -> (i32, String, String) {
    spawn::metad(args, PATIENCE * 2)
}

/// All rows, oldest first, as this node shows them.
fn rows(node: &Node) -> Vec<Value> {
    let (code, json, said) = metad(&["history", "-o", "json", "--meta", &node.rpc_addr().to_string()]);
    if code != 0 {
        assert!(said.contains("has not read the history yet"), "{said}");
        return vec![];
    }
    let json: Value = serde_json::from_str(&json).expect("JSON");
    json["tenures"].as_array().expect("rows").clone()
}

/// The row of a tenure, once this node shows it like that.
#[track_caller]
fn wait_for_row(node: &Node, token: u64, like: impl Fn(&Value) -> bool) -> Value {
    let mut last = vec![];
    let found = support::poll::holds_within(PATIENCE, || {
        last = rows(node);
        last.iter().any(|row| row["token"] == token && like(row))
    });
    assert!(found, "no such row of token {token} in {last:#?}\n{}", node.report());
    last.into_iter().find(|row| row["token"] == token).expect("it was there")
}

/// The row, once its holder has said this.
#[track_caller]
fn wait_for_reason(node: &Node, token: u64, reason: &str, said_by: &str) -> Value {
    wait_for_row(node, token, |row| row["reason"] == reason && row["said_by"] == said_by)
}

/// Waits until one of two leads; the leader, its token, and the other one.
#[track_caller]
fn led(nodes: &[Node]) -> (usize, u64) {
    let at = wait_for_leader(nodes, PATIENCE);
    (at, nodes[at].wait_for("main_loop_started", PATIENCE).token().expect("a token"))
}

/// Two nodes that can be started again, one of which leads.
struct Pair {
    builders: [NodeBuilder; 2],
    nodes: Vec<Node>,
}

impl Pair {
    fn start(builder: impl Fn(&str) -> NodeBuilder) -> Self {
        let builders = ["a", "b"].map(builder);
        let first = builders[0].spawn();
        first.wait_for("main_loop_started", PATIENCE);
        let second = builders[1].spawn();
        let nodes = vec![first, second];
        wait_until_all_know_all(&nodes);
        Self { builders, nodes }
    }

    /// Ends the leader in this way, and starts it again once the other one leads: the token that is over, and the one
    /// that still answers.
    #[track_caller]
    fn change(&mut self, exit: i32, act: impl FnOnce(&Node, &Node)) -> (u64, usize) {
        let (at, token) = led(&self.nodes);
        // A row that was never opened is another story.
        wait_for_row(&self.nodes[1 - at], token, |_| true);
        act(&self.nodes[at], &self.nodes[1 - at]);
        assert_eq!(self.nodes[at].wait_exit(PATIENCE), exit, "{}", report(&self.nodes));
        wait_until("the other one leads", PATIENCE, || leads(&self.nodes[1 - at]));
        (token, at)
    }

    #[track_caller]
    fn start_again(&mut self, at: usize) {
        // Dropping a node ends its guardian, which may have something to write.
        wait_until("its guardian is done", PATIENCE, || self.nodes[at].tree().is_empty());
        self.nodes[at] = self.builders[at].spawn();
        let joined = self.nodes[at].wait_for("joined", PATIENCE);
        // Whoever is asked to hand over must know to whom.
        if !self.nodes[1 - at].is_alive() {
            return;
        }
        let (id, start) = (self.nodes[at].id(), joined.u64("incarnation"));
        wait_until("the other one knows it", PATIENCE, || {
            let page =
                http::get(self.nodes[1 - at].http_addr(), "/api/v1/state", PATIENCE).expect("an answer").1;
            let state: Value = serde_json::from_str(&page).expect("JSON");
            let members = state["members"].as_array().expect("members");
            members.iter().any(|m| m["node"] == id && m["incarnation"].as_u64() == start)
        });
    }
}

fn step_down(node: &Node) {
    let (code, said, error) = metad(&["step-down", "--meta", &node.rpc_addr().to_string()]);
    assert_eq!(code, 0, "{error}");
    assert!(said.contains(" leads now, token "), "{said}");
}

/// The planned ways, and a kill: what every store can do.
fn walk(pair: &mut Pair) -> Vec<u64> {
    let (killed, at) = pair.change(137, |leader, _| leader.kill());
    let row = wait_for_row(&pair.nodes[1 - at], killed, |r| !r["reason"].is_null());
    assert_eq!((&row["reason"], &row["planned"]), (&"vanished".into(), &false.into()), "{row}");
    let (_, token) = led(&pair.nodes);
    let next = wait_for_row(&pair.nodes[1 - at], token, |_| true);
    assert_eq!((&next["previous"], &next["reason"]), (&"a".into(), &Value::Null), "{next}");
    assert!(next["gap_ms"].as_u64().is_some_and(|gap| gap < 30_000), "{next}");
    pair.start_again(at);

    let (resigned, at) = pair.change(75, |leader, _| step_down(leader));
    let row = wait_for_reason(&pair.nodes[1 - at], resigned, "resigned_request", "holder");
    assert_eq!((&row["planned"], &row["node"]), (&true.into(), &"b".into()), "{row}");
    assert_eq!(row["previous"], "a", "closing a row keeps what its opening has written: {row}");
    pair.start_again(at);

    let (stopped, at) = pair.change(0, |leader, _| leader.signal(Signal::TERM));
    let row = wait_for_reason(&pair.nodes[1 - at], stopped, "resigned_signal", "holder");
    assert_eq!((&row["planned"], &row["node"]), (&true.into(), &"a".into()), "{row}");
    pair.start_again(at);
    vec![killed, resigned, stopped]
}

/// Everything is stopped, and one starts again: the rows are still there.
fn assert_survives(pair: &mut Pair, tokens: &[u64]) {
    let (at, _) = led(&pair.nodes);
    for at in [1 - at, at] {
        pair.nodes[at].signal(Signal::TERM);
        assert_eq!(pair.nodes[at].wait_exit(PATIENCE), 0, "{}", pair.nodes[at].report());
    }
    pair.start_again(0);
    wait_for_row(&pair.nodes[0], tokens[0], |_| true);
    let rows = rows(&pair.nodes[0]);
    let kept: Vec<u64> = rows.iter().filter_map(|r| r["token"].as_u64()).collect();
    assert!(tokens.iter().all(|t| kept.contains(t)), "{tokens:?} in {kept:?}");
    assert!(kept.windows(2).all(|pair| pair[0] < pair[1]), "{kept:?}");
    let open: Vec<_> = rows.iter().filter(|r| r["reason"].is_null()).collect();
    assert!(open.len() <= 1, "only the present tenure is open: {open:?}");
    let time = |row: &Value, key: &str| row[key].as_str().map(str::to_owned).expect("a time");
    let overlap = rows.windows(2).find(|pair| time(&pair[0], "to") > time(&pair[1], "from"));
    assert!(overlap.is_none(), "one machine has one clock: {overlap:#?}");
}

#[test]
fn planned_ends_and_a_kill_leave_their_rows_on_etcd() {
    let etcd = EtcdCluster::start(1);
    let mut pair = Pair::start(|id| NodeBuilder::new(id).etcd(&etcd).lease_secs(LONG_SECS));
    let tokens = walk(&mut pair);
    assert_survives(&mut pair, &tokens);
    let writes = fenced::check(&etcd, "default", &[]).unwrap_or_else(|e| panic!("{e}"));
    assert!(writes.opened >= 4, "every opening was under its token: {writes:?}");
}

#[test]
fn planned_ends_and_a_kill_leave_their_rows_on_the_embedded_store() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("metad.db");
    let mut pair = Pair::start(|id| NodeBuilder::new(id).sqlite(&file).lease_secs(LONG_SECS));
    let tokens = walk(&mut pair);
    assert_survives(&mut pair, &tokens);
}

#[test]
fn a_leader_that_lost_its_record_or_its_lease_says_why_at_its_next_start() {
    let etcd = EtcdCluster::start(1);
    let mut pair = Pair::start(|id| NodeBuilder::new(id).etcd(&etcd));

    let delete = ["del", "/metad/default/election/meta/leader"];
    let (deleted, at) = pair.change(75, |_, _| drop(etcd.etcdctl_ok(&delete)));
    let row = wait_for_row(&pair.nodes[1 - at], deleted, |r| !r["reason"].is_null());
    assert_eq!(row["planned"], false, "{row}");
    pair.start_again(at);
    let row = wait_for_reason(&pair.nodes[1 - at], deleted, "record_deleted", "holder");
    assert!(row["seen"]["ack_age_ms"].as_u64().is_some_and(|ms| ms < 5_000), "{row}");

    // Suspended until after H: its guardian kills it, and tells.
    let (hung, at) = pair.change(137, |leader, _| leader.pause());
    wait_for_reason(&pair.nodes[1 - at], hung, "vanished", "successor");
    pair.start_again(at);
    // The kernel timer comes first, unless the guardian has to wait for a CPU and finds both due.
    let ended = |row: &Value| row["reason"] == "kernel_timer" || row["reason"] == "guardian_kill";
    wait_for_row(&pair.nodes[1 - at], hung, |row| ended(row) && row["said_by"] == "holder");

    let (lost, at) = pair.change(75, |leader, _| {
        etcd.pause(0);
        leader.wait_for("stopped", PATIENCE);
        etcd.resume(0);
    });
    wait_for_reason(&pair.nodes[1 - at], lost, "vanished", "successor");
    pair.start_again(at);
    let row = wait_for_reason(&pair.nodes[1 - at], lost, "renew_deadline", "holder");
    assert_eq!(row["planned"], false);
    let seen = &row["seen"];
    assert!(seen["ack_age_ms"].as_u64().is_some_and(|ms| ms > 3_000), "{row}");
    assert!(seen["slowest"].as_str().is_some_and(|s| s.contains(&etcd.endpoint(0))), "{row}");
    assert!(seen["slowest_ms"].as_u64().is_some_and(|ms| ms > 3_000), "the member at fault: {row}");
    let (_, table, _) = metad(&["history", "--meta", &pair.nodes[1 - at].rpc_addr().to_string()]);
    assert!(table.contains("renew_deadline") && table.contains(" took "), "{table}");
}

/// Not a test but a node, made with the library: its main loop blocks its runtime for ever. The test below starts this
/// program again to be it.
#[test]
#[ignore = "started by another test, as a node"]
fn a_node_whose_main_loop_blocks_for_ever() {
    let config = metad::config::load(None, metad::config::process_env(), &[]).expect("valid").config;
    let events = metad::telemetry::printer::Printer::start(std::io::stdout()).expect("a thread");
    let main_loop = async |_| loop {
        std::thread::park();
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let builder = metad::node::Node::builder(config).main_loop(main_loop).events(events);
        let node = builder.guardian_program(spawn::metad_program()).start().await.expect("started");
        node.wait().await
    });
}

#[test]
fn a_leader_that_its_fuse_ended_is_told_of_by_its_guardian() {
    let etcd = EtcdCluster::start(1);
    let builder = NodeBuilder::new("a").env("METAD_STORE__ETCD__ENDPOINTS", etcd.endpoint(0));
    let program = ourselves::command(a_node_whose_main_loop_blocks_for_ever);
    let blocked = builder.spawn_program(program);
    let token = blocked.wait_for("main_loop_started", PATIENCE).token().expect("a token");
    let next = NodeBuilder::new("b").etcd(&etcd).spawn();
    next.wait_for("joined", PATIENCE);
    etcd.pause(0);
    let code = blocked.wait_exit(PATIENCE);
    // The fuse comes first, and the kernel timer, due 20 ms later, only where the fuse had to wait for a CPU as long; a
    // guardian that had to wait as well finds its own kill due, and counts it as its own.
    let starved = witness::starved_before(blocked.ended_ns().expect("dead"));
    let reasons = match code {
        76 => vec!["fuse"],
        137 if starved => vec!["kernel_timer", "guardian_kill"],
        code => panic!("exit {code}, starved: {starved}: {}", blocked.report()),
    };
    etcd.resume(0);
    next.wait_for("main_loop_started", PATIENCE);
    // It could not write its row itself, its runtime being blocked; the next leader has seen its record.
    wait_for_reason(&next, token, "vanished", "successor");
    wait_until("its guardian is done", PATIENCE, || blocked.tree().is_empty());
    let again = builder.spawn();
    again.wait_for("joined", PATIENCE);
    let is_its_word = |row: &Value| row["said_by"] == "holder" && reasons.iter().any(|r| row["reason"] == *r);
    let row = wait_for_row(&next, token, is_its_word);
    assert_eq!((&row["node"], &row["planned"]), (&"a".into(), &false.into()), "{row}");
}

#[test]
fn the_history_is_bounded() {
    let etcd = EtcdCluster::start(1);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let key = |token: u64| format!("/metad/default/history/{token:020}");
    runtime.block_on(async {
        let mut client = etcd_client::Client::connect([etcd.endpoint(0)], None).await.expect("etcd");
        // Tokens are revisions, so the store has to be beyond those that are made up here.
        for token in 1..=1_050_u64 {
            let row = format!(
                r#"{{"token":{token},"node":"old","uuid":"01234567-89ab-cdef-0123-456789abcdef","incarnation":1,
                    "address":"h:1","from_ms":{token},"to_ms":{token},"reason":"vanished","planned":false}}"#
            );
            client.put(key(token), row, None).await.expect("a row");
        }
    });
    let builder = NodeBuilder::new("a").etcd(&etcd);
    let node = builder.spawn();
    let token = node.wait_for("main_loop_started", PATIENCE).token().expect("a token");
    wait_for_row(&node, token, |row| row["previous"] == "old");
    let count = etcd.etcdctl_ok(&["get", "--prefix", "--keys-only", "/metad/default/history/"]);
    assert_eq!(count.split_whitespace().count(), 1_000);
    let kept = rows(&node);
    assert_eq!((kept.len(), &kept[0]["token"]), (1_000, &52.into()), "the oldest are gone");
    let since = metad(&["history", "--since", "1h", "--limit", "5", "--meta", &node.rpc_addr().to_string()]);
    assert_eq!(since.1.lines().count(), 4, "the head and the present tenure: {}", since.1);
    let tokens: Vec<u64> = kept.iter().filter_map(|row| row["token"].as_u64()).collect();
    assert_eq!(runtime.block_on(in_pages(&node, 300)), tokens);
}

/// The tokens of the whole history, read in pages, oldest first.
async fn in_pages(node: &Node, limit: u32) -> Vec<u64> {
    let url = format!("http://{}", node.rpc_addr());
    let mut client = ElectionServiceClient::connect(url).await.expect("it listens");
    let asked = |page_token: &str| HistoryRequest { since_ms: 0, limit, page_token: page_token.to_owned() };
    let unknown = client.history(asked("yesterday")).await.expect_err("no such page");
    assert_eq!(unknown.code(), Code::InvalidArgument, "{unknown:?}");
    let (mut tokens, mut next) = (vec![], String::new());
    loop {
        let page = client.history(asked(&next)).await.expect("a page").into_inner();
        assert!(page.tenures.len() <= limit as usize && !page.tenures.is_empty(), "{}", page.tenures.len());
        tokens.splice(0..0, page.tenures.iter().map(|tenure| tenure.token));
        next = page.next_page_token;
        if next.is_empty() {
            return tokens;
        }
    }
}

#[test]
fn every_node_shows_the_history_and_streams_events() {
    let etcd = EtcdCluster::start(1);
    let pair = Pair::start(|id| NodeBuilder::new(id).etcd(&etcd).lease_secs(LONG_SECS));
    let follower = &pair.nodes[1];
    let (at, token) = led(&pair.nodes);
    assert_eq!(at, 0);
    wait_for_row(follower, token, |_| true);
    let mut events = Events::open(follower);
    let grpc = Events::open_grpc(follower);
    pair.nodes[0].kill();
    let changed = events.wait(|e| e["type"] == "leader_changed" && e["leader"] == "b");
    assert!(changed["gap_ms"].as_u64().is_some(), "{changed}");
    let ended = events.wait(|e| e["type"] == "tenure_ended");
    let expected = (Value::from(token), Value::from("vanished"), Value::from(false), Value::from("b"));
    let found = (&ended["token"], &ended["reason"], &ended["planned"], &ended["next"]);
    assert_eq!(found, (&expected.0, &expected.1, &expected.2, &expected.3), "{ended}");
    let get = |path: &str| http::get(follower.http_addr(), path, PATIENCE).expect("an answer");
    let (code, body) = get("/api/v1/history?since=24h");
    let body: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((code, body["tenures"].as_array().map(Vec::len)), (200, Some(2)), "{body}");
    assert_eq!(body["tenures"], Value::from(rows(follower)), "the same as the command shows");
    assert!(body["age_ms"].as_u64().is_some_and(|ms| ms < 60_000), "{body}");
    assert_eq!(get("/api/v1/history?since=yesterday").0, 400);
    // An open stream keeps nobody from stopping, and ends with the reason.
    follower.signal(Signal::TERM);
    events.wait(|e| e["type"] == "stopped" && e["reason"] == "resigned_signal");
    events.wait_end();
    assert_eq!(follower.wait_exit(PATIENCE), 0);
    let kinds = grpc.join().expect("it ends");
    assert!(kinds.contains(&"tenure_ended".to_owned()), "{kinds:?}");
    assert_eq!(kinds.last().map(String::as_str), Some("stopped"));
}

/// The server-sent events of a node.
struct Events(BufReader<TcpStream>);

impl Events {
    fn open(node: &Node) -> Self {
        let mut stream = TcpStream::connect(node.http_addr()).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        write!(stream, "GET /api/v1/events HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
        let mut events = Self(BufReader::new(stream));
        assert!(events.line().expect("a line").contains(" 200 "), "it is there");
        while events.line().is_some_and(|line| !line.trim().is_empty()) {} // the head: now it follows
        events
    }

    /// The same over gRPC: the kinds of all events until the stream ends.
    fn open_grpc(node: &Node) -> std::thread::JoinHandle<Vec<String>> {
        use metad::proto::metad::EventsRequest;
        use metad::proto::metad::election_service_client::ElectionServiceClient;
        let url = format!("http://{}", node.rpc_addr());
        let (opened, wait) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(async {
                let mut client = ElectionServiceClient::connect(url).await.expect("a connection");
                let mut events = client.events(EventsRequest {}).await.expect("a stream").into_inner();
                opened.send(()).expect("waited for");
                let mut kinds = Vec::new();
                while let Ok(Some(event)) = events.message().await {
                    assert_eq!(event.missed, 0);
                    kinds.push(event.r#type);
                }
                kinds
            })
        });
        wait.recv_timeout(PATIENCE).expect("it opens");
        thread
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.0.read_line(&mut line).expect("read in time");
        (read > 0).then_some(line)
    }

    #[track_caller]
    fn wait(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        while let Some(line) = self.line() {
            let event = line.strip_prefix("data: ").and_then(|data| serde_json::from_str(data).ok());
            if let Some(event) = event.filter(&wanted) {
                return event;
            }
        }
        panic!("the stream ended without it");
    }

    fn wait_end(&mut self) {
        while self.line().is_some() {}
    }
}

#[test]
fn watch_says_why_leadership_changed() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("metad.db");
    let pair = Pair::start(|id| NodeBuilder::new(id).sqlite(&file));
    let mut command = spawn::metad_command();
    command.args(["watch", "--meta", &pair.nodes[1].rpc_addr().to_string()]);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = spawn::spawn(command).expect("metad watch");
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let (heard, said) = std::sync::mpsc::channel();
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| heard.send(line)));
    let line = || said.recv_timeout(PATIENCE).expect("it says more");
    while !line().contains("leader a token") {}
    wait_for_row(&pair.nodes[1], led(&pair.nodes).1, |_| true);
    step_down(&pair.nodes[0]);
    while !line().contains("ended planned: resigned_request") {}
    child.kill().expect("ended");
    child.wait().expect("waited for");
}

#[test]
fn a_step_down_is_refused_up_front_when_the_target_cannot_take_over() {
    let etcd = EtcdCluster::start(1);
    let pair = Pair::start(|id| NodeBuilder::new(id).etcd(&etcd).lease_secs(LONG_SECS));
    let observer = NodeBuilder::new("c").etcd(&etcd).env("METAD_NODE__PRIORITY", "0").spawn();
    observer.wait_for("joined", PATIENCE);
    let (leader, follower) = (&pair.nodes[0], &pair.nodes[1]);
    let at = leader.rpc_addr().to_string();
    wait_until("all are seen", PATIENCE, || {
        metad(&["members", "--meta", &at]).1.lines().filter(|l| l.starts_with(' ')).count() == 4
    });
    let to = |target: &str| metad(&["step-down", "--to", target, "--meta", &at]);
    follower.pause();
    for (target, why) in [
        ("nobody", "no member \"nobody\" is registered"),
        ("a", "leads already"),
        ("b", "cannot take over now"),
        ("c", "priority 0"),
    ] {
        let (code, _, said) = to(target);
        let refused = code == 1 && said.contains(why) && said.contains("nothing was changed");
        assert!(refused, "{target}: {code} {said}");
    }
    assert!(!leader.has_event("main_loop_stopping"), "a refusal costs nothing\n{}", leader.report());
    follower.resume();
    wait_until("the follower answers again", PATIENCE, || {
        metad(&["leader", "--meta", &follower.rpc_addr().to_string()]).0 == 0
    });
    let (code, said, error) = to("b");
    assert_eq!((code, said.starts_with("b leads now")), (0, true), "twin: {said} {error}");
    assert_eq!(leader.wait_exit(PATIENCE), 75);
    let observer_at = observer.rpc_addr().to_string();
    wait_until("the observer knows it", PATIENCE, || {
        metad(&["leader", "--meta", &observer_at]).1.contains(&follower.rpc_addr().to_string())
    });
    follower.pause();
    let (code, _, said) = metad(&["step-down", "--force", "--meta", &observer_at]);
    assert!(code == 1 && said.contains("may still step down"), "a leader that is silent: {code} {said}");
}

/// The record goes only when etcd is back; nobody led long before.
#[test]
fn a_gap_is_as_long_as_nobody_led_whatever_etcd_could_tell() {
    const AWAY: Duration = Duration::from_secs(5);
    let etcd = EtcdCluster::start(1);
    let mut pair = Pair::start(|id| NodeBuilder::new(id).etcd(&etcd).lease_secs(15));
    etcd.pause_all();
    assert_eq!(pair.nodes[0].wait_exit(PATIENCE), 75);
    std::thread::sleep(AWAY);
    etcd.resume_all();
    let started = pair.nodes[1].wait_for("main_loop_started", PATIENCE);
    let stopped = pair.nodes[0].wait_for("main_loop_stopped", PATIENCE);
    let nobody_led = Duration::from_nanos(started.at_ns() - stopped.at_ns());
    let token = started.json["token"].as_u64().expect("a token");
    pair.nodes[0] = pair.builders[0].spawn(); // and now it can tell
    let row = wait_for_row(&pair.nodes[1], token, |row| row["gap_at_least"] == false);
    let gap = Duration::from_millis(row["gap_ms"].as_u64().expect("known"));
    println!("nobody led for {nobody_led:?}; the history says {gap:?}");
    assert!(gap >= AWAY, "{gap:?}, {nobody_led:?}: {row}");
}

#[test]
fn on_a_terminal_a_step_down_asks_first() {
    let node = NodeBuilder::new("a").spawn();
    node.wait_for("main_loop_started", PATIENCE);
    let command =
        format!("{} step-down --force --meta {}", spawn::metad_program().display(), node.rpc_addr());
    let on_terminal = |answer: &str| {
        let mut script = Command::new("script");
        spawn::remove_env(&mut script, "METAD_");
        script.args(["-qec", &command, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = spawn::spawn(script).expect("script(1), of util-linux");
        let mut input = child.stdin.take().expect("piped");
        writeln!(input, "{answer}").expect("asked");
        let output = child.wait_with_output().expect("an end");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, said) = on_terminal("n");
    assert!(said.contains("a leads with token") && said.contains("nothing was changed"), "{said}");
    assert_eq!(code, Some(1));
    assert!(!node.has_event("main_loop_stopping"));
    let (code, _, said) = metad(&["step-down", "--yes", "--meta", &node.rpc_addr().to_string()]);
    assert!(code == 1 && said.contains("no other member could lead after a"), "{code}: {said}");
    assert!(!node.has_event("main_loop_stopping"));
    on_terminal("y");
    node.wait_for("main_loop_stopping", PATIENCE);
    assert_eq!(node.wait_exit(PATIENCE), 75, "twin: a yes is one");
}

#[test]
fn a_dead_node_is_released_by_the_operators_word_and_a_living_one_is_not() {
    let etcd = EtcdCluster::start(1);
    let endpoint = etcd.endpoint(0);
    let builder =
        NodeBuilder::new("a").etcd(&etcd).lease_secs(LONG_SECS).env("METAD_NODE__GUARDIAN", "false");
    let node = builder.spawn();
    node.wait_for("main_loop_started", PATIENCE);
    let release =
        |name: &str| metad(&["release", "--node", name, "--it-is-dead", "--etcd-endpoints", &endpoint]);
    let (code, _, said) = release("a");
    assert!(
        code == 73 && said.contains("answers at") && said.contains(&node.rpc_addr().to_string()),
        "{said}"
    );
    let (code, _, said) = release("b");
    assert!(code == 2 && said.contains("nothing of \"b\"") && said.contains("registered: a"), "{said}");
    let (code, _, said) = metad(&["release", "--node", "a", "--etcd-endpoints", &endpoint]);
    assert!(code == 64 && said.contains("--it-is-dead"), "the operator has to say it: {said}");
    assert!(!node.has_event("main_loop_stopping") && node.is_alive(), "{}", node.report());
    let next = NodeBuilder::new("b").etcd(&etcd).lease_secs(LONG_SECS).spawn();
    next.wait_for("joined", PATIENCE);
    node.kill();
    std::fs::remove_dir_all(node.data_dir()).expect("removed");
    assert!(!next.has_event("main_loop_started"), "the lease of a day holds");
    let (code, said, error) = release("a");
    assert!(code == 0 && said.contains("the leader record are gone"), "{said}{error}");
    next.wait_for("main_loop_started", PATIENCE);
    let (code, _, said) =
        metad(&["release", "--node", "a", "--it-is-dead", "--etcd-endpoints", "127.0.0.1:1"]);
    assert!(code == 1 && said.contains("cannot query the store"), "{code} {said}");
}

#[test]
fn release_works_on_the_embedded_store() {
    let builder = NodeBuilder::new("a").lease_secs(LONG_SECS).env("METAD_NODE__GUARDIAN", "false");
    let node = builder.spawn();
    node.wait_for("main_loop_started", PATIENCE);
    node.kill();
    let dir = node.data_dir().display().to_string();
    let release =
        |dir: &str| metad(&["release", "--node", "a", "--it-is-dead", "--node-id", "a", "--data-dir", dir]);
    let nowhere = node.data_dir().join("nowhere");
    let (code, _, said) = release(&nowhere.display().to_string());
    assert!(code == 78 && said.contains("there is no store at") && !nowhere.exists(), "{code} {said}");
    let (code, said, error) = release(&dir);
    assert!(code == 0 && said.contains("the leader record are gone"), "{said}{error}");
    assert_eq!(release(&dir).0, 2, "twice is once");
}
