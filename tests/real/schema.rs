//! The JSON of HTTP and of `-o json`, on real nodes, is what `src/docs/json.schema.json` says, field by field.

mod validator;

use std::process::Stdio;

use crate::support::crew::{PATIENCE, wait_until_all_know_all};
use crate::support::etcd::EtcdCluster;
use crate::support::node::{Node, NodeBuilder};
use crate::support::poll::wait_until;
use crate::support::{http, spawn};
use serde_json::{Value, json};
use validator::Validator;

const STRAY_KEY: &str = "/metad/default/election/meta/stray";

/// The schema as it is published, but closed: here a field that it does not name is an error.
struct Schema(Value);

impl Schema {
    fn read() -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/json.schema.json");
        let text = std::fs::read_to_string(path).expect("the schema");
        let mut schema: Value = serde_json::from_str(&text).expect("JSON");
        for (name, of) in schema["$defs"].as_object_mut().expect("definitions") {
            let Some(fields) = of.get("properties").and_then(Value::as_object) else { continue };
            let names: Vec<_> = fields.keys().cloned().map(Value::from).collect();
            let mut required = of["required"].as_array().cloned().unwrap_or_default();
            required.sort_by_key(Value::to_string);
            assert_eq!(required, names, "{name}: every field is always there");
            of["additionalProperties"] = false.into();
        }
        Self(schema)
    }

    /// What is wrong with a document.
    fn faults(&self, document: &str, json: &Value) -> Vec<String> {
        let mut schema = self.0.clone();
        let whole = schema.as_object_mut().expect("a map");
        assert!(whole["$defs"].get(document).is_some(), "no {document}");
        whole.remove("anyOf");
        whole.insert("$ref".into(), format!("#/$defs/{document}").into());
        Validator::new(&schema).faults(json)
    }

    #[track_caller]
    fn check(&self, (document, json): &(&str, Value)) {
        assert_eq!(self.faults(document, json), Vec::<String>::new(), "{document}: {json:#}");
    }
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text:?}"))
}

fn get(node: &Node, path: &str) -> Value {
    parsed(&http::get(node.http_addr(), path, PATIENCE).expect("an answer").1)
}

fn metad(node: &Node, args: &[&str]) -> Value {
    let at = node.rpc_addr().to_string();
    let (_, out, said) = spawn::metad(&[args, &["-o", "json", "--meta", &at]].concat(), PATIENCE);
    assert!(!out.is_empty(), "{args:?}: {said}");
    parsed(&out)
}

/// Of a node that has just begun to lead, which is too little for a recommendation.
fn advice(node: &Node) -> Value {
    let dir = node.data_dir().display().to_string();
    let (code, out, said) = spawn::metad(&["advise", "lease", "-o", "json", "--data-dir", &dir], PATIENCE);
    assert_eq!(code, 1, "{said}");
    parsed(&out)
}

/// All documents that a node has, as HTTP and the commands show them.
fn documents(node: &Node) -> Vec<(&'static str, Value)> {
    vec![
        ("LeaderDocument", get(node, "/leader")),
        ("StateDocument", get(node, "/api/v1/state")),
        ("HistoryDocument", get(node, "/api/v1/history")),
        ("ChecksDocument", get(node, "/api/v1/checks")),
        ("HeadroomDocument", get(node, "/api/v1/headroom")),
        ("StatusDocument", metad(node, &["status"])),
        ("LeaderDocument", metad(node, &["leader"])),
        ("MembersDocument", metad(node, &["members"])),
        ("HistoryDocument", metad(node, &["history"])),
    ]
}

/// What `metad watch` prints through one node while something is done, until a tenure has ended.
fn watched(node: &Node, act: impl FnOnce()) -> Vec<Value> {
    let log = tempfile::NamedTempFile::new().expect("a file");
    let mut command = spawn::metad_command();
    command.args(["watch", "-o", "json", "--meta", &node.rpc_addr().to_string()]);
    command.stdout(log.reopen().expect("the same file")).stderr(Stdio::null());
    let mut child = spawn::spawn(command).expect("metad watch");
    let lines = || std::fs::read_to_string(log.path()).expect("a file");
    wait_until("the first line", PATIENCE, || lines().contains('\n'));
    act();
    wait_until("the end of a tenure", PATIENCE, || lines().contains("\"last_ended\":{"));
    let _ = child.kill();
    let _ = child.wait();
    let text = lines();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(parsed).collect()
}

#[test]
fn all_that_a_cluster_says_in_json_is_in_the_schema() {
    let schema = Schema::read();
    let etcd = EtcdCluster::start(1);
    let node = |id: &str| NodeBuilder::new(id).etcd(&etcd).env("METAD_CHECKS__INTERVAL_SECS", "1").spawn();
    let first = node("a");
    first.wait_for("main_loop_started", PATIENCE);
    let nodes = [first, node("b")];
    wait_until_all_know_all(&nodes);
    let next = &nodes[1];
    wait_until("it has read the history", PATIENCE, || !get(next, "/api/v1/history")["age_ms"].is_null());
    documents(next).iter().for_each(|shown| schema.check(shown));

    let lines = watched(next, || {
        assert_eq!(spawn::metad(&["step-down", "--meta", &nodes[0].rpc_addr().to_string()], PATIENCE).0, 0);
    });
    assert!(lines.len() >= 2, "{lines:?}");
    lines.into_iter().for_each(|line| schema.check(&("ChangeDocument", line)));
    etcd.etcdctl_ok(&["put", STRAY_KEY, "somebody else"]);
    // By now everything has a value that can have one.
    wait_until("the end is known", PATIENCE, || {
        !get(next, "/api/v1/history")["tenures"][0]["seen"].is_null()
    });
    wait_until("the key is seen", PATIENCE, || !get(next, "/leader")["foreign"].is_null());
    wait_until("the other is gone", PATIENCE, || !get(next, "/api/v1/state")["gone"][0].is_null());
    wait_until("etcd was probed", PATIENCE, || {
        !get(next, "/api/v1/state")["store"]["endpoints"][0]["answered"].is_null()
    });
    wait_until("checks were made", PATIENCE, || !get(next, "/api/v1/checks")["etcd"][0].is_null());
    wait_until("a renewal was counted", PATIENCE, || !get(next, "/api/v1/headroom")["points"][0].is_null());
    let all = documents(next);
    all.iter().for_each(|shown| schema.check(shown));
    let examined = ["doctor", "--only", "etcd-endpoints", "--etcd-endpoints", &etcd.endpoint(0)];
    schema.check(&("ReportDocument", metad(next, &examined)));
    schema.check(&("ReportDocument", metad(next, &["check", "foreign-candidate"])));
    schema.check(&("AdviceDocument", advice(next)));
    let [(_, leader), (_, state), (_, history), _, _, (_, status), (_, command), (_, members), (_, past)] =
        &all[..]
    else {
        panic!("{} documents", all.len());
    };
    assert_eq!(leader["leader"]["node"], "b");
    assert_eq!([&state["leader"], &status["leader"], &command["leader"]], [&leader["leader"]; 3]);
    assert_eq!([&state["foreign"], &status["foreign"], &command["foreign"]], [&leader["foreign"]; 3]);
    assert_eq!([&status["members"], &members["members"]], [&state["members"]; 2]);
    assert_eq!(history["tenures"], past["tenures"]);
}

#[test]
fn what_nobody_knows_is_in_the_schema_too() {
    let schema = Schema::read();
    let node = NodeBuilder::new("a").env("METAD_NODE__PRIORITY", "0");
    let node = node.env("METAD_CHECKS__INTERVAL_SECS", "0").spawn();
    node.wait_for("joined", PATIENCE);
    wait_until("it has read the history", PATIENCE, || !get(&node, "/api/v1/history")["age_ms"].is_null());
    let all = documents(&node);
    all.iter().for_each(|shown| schema.check(shown));
    schema.check(&("AdviceDocument", advice(&node)));
    let (_, state) = &all[1];
    assert_eq!((&state["leader"], &state["store"]["kind"]), (&Value::Null, &json!("sqlite")));
    for (path, wrong) in [
        ("/time", json!(1_700_000_000_000_u64)),
        ("/time", json!("2026-01-02T03:04:05Z")),
        ("/leader", json!("a")),
        ("/answerer/role", json!("king")),
        ("/members/0", json!({ "node": "a" })),
        ("/schema_version", json!(0)),
    ] {
        let mut spoilt = state.clone();
        *spoilt.pointer_mut(path).unwrap_or_else(|| panic!("{path}: {state:#}")) = wrong;
        assert_ne!(schema.faults("StateDocument", &spoilt), Vec::<String>::new(), "twin: {path}");
    }
    let mut more = state.clone();
    more["members"][0]["leader"] = json!(true);
    assert_eq!(schema.faults("StateDocument", &more).len(), 1, "twin: a field that is not described");
    let mut fewer = state.clone();
    fewer.as_object_mut().expect("a map").remove("lease");
    assert_eq!(schema.faults("StateDocument", &fewer).len(), 1, "twin: a field that is left out");
}
