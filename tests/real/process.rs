//! The real binary on the embedded store: start, signals, exit codes, and every command once.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::support::crew::{PATIENCE, tenures, wait_for_leader};
use crate::support::node::{Node, NodeBuilder, Signal};
use crate::support::poll::{holds_within, wait_until};
use crate::support::{http, spawn};
use serde_json::Value;

/// What a metad command prints, and its exit code.
fn metad(args: &[&str]) -> (i32, String, String) {
    spawn::metad(args, PATIENCE)
}

fn leading(node: &Node) -> Value {
    node.wait_for("main_loop_started", PATIENCE).json.clone()
}

#[test]
fn a_single_node_leads_alone_and_gives_everything_back_on_sigterm() {
    let node = NodeBuilder::new("n1");
    let first = node.spawn();
    let token = leading(&first)["token"].as_u64().expect("a token");
    first.signal(Signal::TERM);
    assert_eq!(first.wait_exit(PATIENCE), 0);
    let again = node.spawn();
    assert!(leading(&again)["token"].as_u64() > Some(token), "tokens grow");
    assert_eq!(again.wait_for("joined", PATIENCE).u64("incarnation"), Some(2));
    again.signal(Signal::INT);
    assert_eq!(again.wait_exit(PATIENCE), 0, "SIGINT is the same");
}

#[test]
fn several_processes_elect_one_on_one_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("metad.db");
    let nodes: Vec<Node> =
        ["s0", "s1", "s2"].iter().map(|id| NodeBuilder::new(id).sqlite(&file).spawn()).collect();
    for node in &nodes {
        node.wait_for("joined", PATIENCE);
    }
    let first = wait_for_leader(&nodes, PATIENCE);
    nodes[first].signal(Signal::TERM);
    assert_eq!(nodes[first].wait_exit(PATIENCE), 0);
    let second = wait_for_leader(&nodes, PATIENCE);
    nodes[second].kill();
    wait_for_leader(&nodes, PATIENCE);
    assert_eq!(tenures(&nodes).len(), 3);
}

#[test]
fn after_kill_9_a_node_takes_its_own_record_back_whatever_the_lease() {
    let node = NodeBuilder::new("n1").lease_secs(86_400);
    let first = node.spawn();
    let token = leading(&first)["token"].as_u64();
    first.kill();
    let again = node.spawn();
    let fresh = again.wait_for("main_loop_started", PATIENCE);
    assert!(fresh.json["token"].as_u64() > token, "under a new token");
}

#[test]
fn a_second_process_on_the_same_data_dir_is_refused_and_told_who_holds_it() {
    let node = NodeBuilder::new("n1");
    let first = node.spawn();
    leading(&first);
    let second = node.spawn();
    assert_eq!(second.wait_exit(PATIENCE), 73);
    let said = second.stderr();
    assert!(said.contains("in use by node n1") && said.contains(&first.pid().to_string()), "{said}");
    assert!(first.is_alive(), "twin: the first goes on");
}

#[test]
fn a_second_process_with_the_same_node_id_is_refused_and_told_who_holds_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("metad.db");
    let first = NodeBuilder::new("n1").sqlite(&file).spawn();
    leading(&first);
    let second = NodeBuilder::new("n1").sqlite(&file).spawn();
    assert_eq!(second.wait_exit(PATIENCE), 73);
    let said = second.messages();
    assert!(
        said.contains("node id \"n1\" is in use") && said.contains(&first.rpc_addr().to_string()),
        "{said}"
    );
    assert!(first.is_alive() && !first.has_event("main_loop_stopped"), "twin: the first goes on leading");
}

#[test]
fn the_second_signal_exits_now() {
    // A payload that ignores SIGTERM keeps the first signal waiting for stop_timeout_secs.
    let node = NodeBuilder::new("n1")
        .env("METAD_META__STOP_TIMEOUT_SECS", "3600")
        .payload(&["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"])
        .spawn();
    leading(&node);
    wait_until("the program ignores signals", PATIENCE, || node.stdout().contains("ready"));
    node.signal(Signal::TERM);
    assert!(!holds_within(Duration::from_secs(1), || !node.is_alive()), "the first one waits");
    node.signal(Signal::TERM);
    assert_eq!(node.wait_exit(PATIENCE), 143);
    wait_until("the program is gone as well", PATIENCE, || node.tree().is_empty());
}

#[test]
fn a_program_runs_while_its_node_leads_and_its_end_ends_the_node() {
    let script = "echo token=$METAD_TOKEN node=$METAD_NODE_ID cluster=$METAD_CLUSTER; exit 7";
    let node = NodeBuilder::new("n1").payload(&["sh", "-c", script]).spawn();
    assert_eq!(node.wait_exit(PATIENCE), 7, "the program's exit code is ours");
    let token = node.wait_for("main_loop_started", PATIENCE).token().expect("a token");
    let said = node.stdout();
    assert!(said.contains(&format!("token={token} node=n1 cluster=default")), "{said}");
    assert!(node.has_event("leadership_resigned"), "leadership was given up first");
}

#[test]
fn a_program_and_its_children_end_before_leadership_is_given_up() {
    let script = "sleep 1000 & trap 'kill $!; exit 0' TERM; wait";
    let node = NodeBuilder::new("n1").payload(&["sh", "-c", script]).spawn();
    leading(&node);
    wait_until("the program runs", PATIENCE, || node.tree().len() >= 3);
    node.signal(Signal::TERM);
    assert_eq!(node.wait_exit(PATIENCE), 0);
    // The guardian itself may still be ending.
    let command = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let left: Vec<_> = node.tree().into_iter().map(command).filter(|c| c.starts_with("s")).collect();
    assert_eq!(left, Vec::<String>::new(), "sh, sleep");
    wait_until("the guardian ends", PATIENCE, || node.tree().is_empty());
}

#[test]
fn the_commands_show_the_cluster() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("metad.db");
    let leader = NodeBuilder::new("lead").sqlite(&file).spawn();
    leading(&leader);
    let follower = NodeBuilder::new("follow").sqlite(&file).spawn();
    follower.wait_for("joined", PATIENCE);
    let at = follower.rpc_addr().to_string();
    assert_eq!(metad(&["wait", "ready", "--meta", &at]).0, 0);
    assert_eq!(metad(&["wait", "leader", "--meta", &at]).0, 0);
    wait_until("the follower sees both", PATIENCE, || metad(&["members", "--meta", &at]).1.contains("lead"));
    let (code, table, _) = metad(&["status", "--meta", &at]);
    assert_eq!(code, 0);
    assert!(
        table.contains("LEADER") && table.contains("follow") && table.contains("source follow (follower)"),
        "{table}"
    );
    let (_, json, _) = metad(&["status", "-o", "json", "--meta", &format!("127.0.0.1:1,{at}")]);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["leader"]["node"], "lead", "the second address answers when the first does not");
    assert_eq!(json["members"].as_array().map(Vec::len), Some(2));
    let (_, json, _) = metad(&["leader", "-o", "json", "--meta", &at]);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["leader"]["token"].as_u64(), leader.wait_for("main_loop_started", PATIENCE).token());
    for (what, code) in [("live", 0), ("readiness", 0), ("leader", 1)] {
        assert_eq!(metad(&["health", what, "--meta", &at]).0, code, "{what} of a follower");
    }
    assert_eq!(metad(&["health", "leader", "--meta", &leader.rpc_addr().to_string()]).0, 0);
    let watched = watch(&at, || drop(leader));
    assert!(watched.contains("leader lead token") && watched.contains("leader follow token"), "{watched}");
}

/// What `metad watch` prints while something is done and for a while after.
fn watch(at: &str, act: impl FnOnce()) -> String {
    let mut command = spawn::metad_command();
    command.args(["watch", "--meta", at]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = spawn::spawn(command).expect("metad watch");
    std::thread::sleep(Duration::from_millis(500));
    act();
    wait_until("the change", PATIENCE, || metad(&["leader", "--meta", at]).1.contains("follow"));
    std::thread::sleep(Duration::from_millis(500));
    let _ = child.kill();
    String::from_utf8_lossy(&child.wait_with_output().expect("output").stdout).into_owned()
}

#[test]
fn status_says_when_nobody_leads() {
    let node = NodeBuilder::new("n1").env("METAD_NODE__PRIORITY", "0").spawn();
    node.wait_for("joined", PATIENCE);
    let at = node.rpc_addr().to_string();
    let (code, said, _) = metad(&["status", "--meta", &at]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("no leader"));
    assert_eq!(metad(&["leader", "--meta", &at]).0, 2);
    assert_eq!(metad(&["health", "--meta", &at]).0, 0, "a node without a leader is healthy itself");
}

#[test]
fn http_has_probes_metrics_and_version() {
    let node = NodeBuilder::new("n1").spawn();
    leading(&node);
    let get = |path: &str| http::get(node.http_addr(), path, PATIENCE).expect("an answer");
    wait_until("the snapshot says so", PATIENCE, || get("/leader").0 == 200);
    assert_eq!(get("/livez"), (200, "ok\n".into()));
    assert_eq!(get("/readyz?verbose").1, "[+]driver ok\n[+]election ok\n[+]store ok\nok\n");
    assert!(get("/leader").1.contains("\"role\":\"leader\""));
    assert!(get("/version").1.contains("\"name\":\"metad\""));
    assert_eq!(get("/nothing").0, 404);
    let (code, metrics) = get("/metrics");
    assert_eq!(code, 200);
    for line in [
        "leader_election_master_status{name=\"n1\"} 1",
        "metad_has_leader 1",
        "metad_leadership_transitions_total{direction=\"gained\",reason=\"won\"} 1",
        "process_resident_memory_bytes",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    let remaining =
        metrics.lines().find(|l| l.starts_with("metad_lease_remaining_seconds ")).expect("the metric");
    let value: f64 = remaining.rsplit(' ').next().and_then(|v| v.parse().ok()).expect("a number");
    assert!(value > 1.0 && value < 5.0, "{remaining}");
}

#[test]
fn a_follower_is_ready_but_not_the_leader() {
    let node = NodeBuilder::new("n1").env("METAD_NODE__PRIORITY", "0").spawn();
    node.wait_for("joined", PATIENCE);
    let get = |path: &str| http::get(node.http_addr(), path, PATIENCE).expect("an answer").0;
    wait_until("ready", PATIENCE, || get("/readyz") == 200);
    assert_eq!((get("/livez"), get("/leader")), (200, 503));
}

#[test]
fn configuration_is_checked_and_printed_with_its_origins() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("metad.toml");
    std::fs::write(&file, "[meta]\nmeta_leader_lease_secs = 30\n").expect("a file");
    let path = file.display().to_string();
    assert_eq!(metad(&["config", "check", "--config", &path]).0, 0);
    let (code, printed, _) = metad(&["config", "print", "--origins", "--config", &path, "--cluster", "prod"]);
    assert_eq!(code, 0);
    let line = |key: &str| printed.lines().find(|l| l.starts_with(key)).unwrap_or_default().to_owned();
    assert!(
        line("meta_leader_lease_secs").contains("30")
            && line("meta_leader_lease_secs").contains("metad.toml:2")
    );
    assert!(line("cluster").contains("prod") && line("cluster").contains("flag --cluster"));
    assert!(line("stop_timeout_secs").contains("default"));
    let again = folder.path().join("again.toml");
    std::fs::write(&again, metad(&["config", "print", "--config", &path]).1).expect("a file");
    assert_eq!(
        metad(&["config", "check", "--config", &again.display().to_string()]).0,
        0,
        "what is printed loads"
    );
}

#[test]
fn the_shipped_configurations_are_valid() {
    for file in ["config/metad.toml", "config/single-node.toml"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file).display().to_string();
        let (code, _, said) = metad(&["config", "check", "--config", &path]);
        assert_eq!(code, 0, "{file}: {said}");
    }
    let single = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/single-node.toml").display().to_string();
    let (_, printed, _) = metad(&["config", "print", "--config", &single]);
    assert!(printed.contains("meta_leader_lease_secs = 86400"), "{printed}");
}

#[test]
fn completions_and_help_exist() {
    for shell in ["bash", "zsh", "fish"] {
        let (code, script, _) = metad(&["completions", shell]);
        assert!(code == 0 && script.contains("metad"), "{shell}");
    }
    // clap names the function, and our last line calls it.
    let (_, script, _) = metad(&["completions", "zsh"]);
    assert!(script.contains("function _clap_dynamic_completer_metad()"), "{script}");
    assert!(script.trim_end().ends_with("|| _clap_dynamic_completer_metad \"$@\""), "{script}");
    let (code, help, _) = metad(&["serve", "--help"]);
    assert_eq!(code, 0);
    let words: Vec<&str> = help.split_whitespace().collect(); // lines are wrapped
    assert!(words.join(" ").contains("[env: METAD_META__META_LEADER_LEASE_SECS]"), "{help}");
    assert!(metad(&["--version"]).1.starts_with("metad "));
}

/// What `Type=notify` of the shipped unit waits for.
#[test]
fn a_service_manager_is_told_when_it_has_started_and_that_it_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let manager = std::os::unix::net::UnixDatagram::bind(&path).expect("a socket");
    manager.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let told = || {
        let mut bytes = [0; 64];
        let length = manager.recv(&mut bytes).expect("it is told");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    let node = NodeBuilder::new("n1").env("NOTIFY_SOCKET", &path).spawn();
    assert_eq!(told(), "READY=1");
    node.wait_for("main_loop_started", PATIENCE);
    node.signal(Signal::TERM);
    assert_eq!(told(), "STOPPING=1");
    assert_eq!(node.wait_exit(PATIENCE), 0);
}
