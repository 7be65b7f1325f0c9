//! What Prometheus and Grafana are given: the page of metrics, the alerts, the dashboard, and the list in the docs.
//!
//! Alerts and dashboard are held against the pages of real nodes, so a metric that is renamed, or that a follower does
//! not show, fails here and not in somebody's night.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::crew::{PATIENCE, leader, leads, report, wait_for_leader};
use crate::support::etcd::EtcdCluster;
use crate::support::install::on_path;
use crate::support::node::{Node, NodeBuilder, Signal};
use crate::support::poll::wait_until;
use crate::support::{http, spawn};
use serde_json::Value;
use yaml_rust2::{Yaml, YamlLoader};

const ALERTS: &str = "config/prometheus/alerts.yml";
const ALERTS_TEST: &str = "config/prometheus/alerts_test.yml";
const DASHBOARD: &str = "config/grafana/metad.json";
/// What our metrics' names begin with.
const OURS: [&str; 4] = ["metad_", "leader_election_", "grpc_server_", "process_"];

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn yaml(name: &str) -> Yaml {
    YamlLoader::load_from_str(&read(name)).unwrap_or_else(|e| panic!("{name}: {e}")).remove(0)
}

fn dashboard() -> Value {
    serde_json::from_str(&read(DASHBOARD)).unwrap_or_else(|e| panic!("{DASHBOARD}: {e}"))
}

/// Runs promtool, which must be content.
#[track_caller]
fn promtool(args: &[&str], input: &str) {
    assert!(on_path("promtool").is_some(), "promtool is missing: run `apt-get install prometheus`");
    let folder = tempfile::tempdir().expect("a folder");
    let stdin = folder.path().join("stdin");
    std::fs::write(&stdin, input).expect("a file");
    let mut command = Command::new("sh");
    let script = "stdin=$1; shift; exec promtool \"$@\" <\"$stdin\"";
    command.args(["-c", script, "sh"]).arg(&stdin).args(args).current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = spawn::output(command, PATIENCE);
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "promtool {args:?}: {}", said.concat());
}

/// The names of our metrics in a PromQL expression.
fn metrics_in(expression: &str) -> BTreeSet<String> {
    let outside = expression.split('"').step_by(2); // no name is between quotes
    let words = outside.flat_map(|part| part.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
    words.filter(|word| OURS.iter().any(|begin| word.starts_with(begin))).map(str::to_owned).collect()
}

/// All expressions of the alerts, with their names.
fn alerts() -> Vec<(String, String)> {
    let text = |yaml: &Yaml| yaml.as_str().unwrap_or_else(|| panic!("{yaml:?} in {ALERTS}")).to_owned();
    let groups = yaml(ALERTS)["groups"].as_vec().expect("groups").clone();
    let rules = groups.iter().flat_map(|group| group["rules"].as_vec().expect("rules").clone());
    rules.map(|rule| (text(&rule["alert"]), text(&rule["expr"]))).collect()
}

/// All expressions of the dashboard, with the titles of their panels.
fn panels() -> Vec<(String, String)> {
    let dashboard = dashboard();
    let annotations = dashboard["annotations"]["list"].as_array().expect("annotations").clone();
    let of_annotations = annotations.iter().map(|a| (a["name"].to_string(), a["expr"].clone()));
    let panels = dashboard["panels"].as_array().expect("panels").clone();
    let of_panels = panels.iter().flat_map(|panel| {
        let targets = panel["targets"].as_array().cloned().unwrap_or_default();
        targets.into_iter().map(|t| (panel["title"].to_string(), t["expr"].clone())).collect::<Vec<_>>()
    });
    let all = of_annotations.chain(of_panels);
    all.map(|(title, e)| (title.clone(), e.as_str().unwrap_or_else(|| panic!("{title}")).to_owned()))
        .collect()
}

fn page(node: &Node) -> String {
    let (code, page) = http::get(node.http_addr(), "/metrics", PATIENCE).expect("an answer");
    assert_eq!(code, 200, "{page}");
    page
}

/// The names of the samples on a page.
fn samples(page: &str) -> BTreeSet<String> {
    let lines = page.lines().filter(|l| !l.starts_with('#'));
    lines.filter_map(|l| l.split(['{', ' ']).next()).map(str::to_owned).collect()
}

/// The names of the families on a page.
fn families(page: &str) -> BTreeSet<String> {
    let types = page.lines().filter_map(|l| l.strip_prefix("# TYPE "));
    types.filter_map(|l| l.split(' ').next()).map(str::to_owned).collect()
}

/// The value of a sample, with its labels as they are printed in any order; `None`: it is not there.
fn value(page: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let is_it = |line: &&str| {
        let (start, rest) = line.split_at(line.find(['{', ' ']).unwrap_or(0));
        start == name && labels.iter().all(|label| rest.contains(label))
    };
    page.lines().find(is_it)?.rsplit(' ').next()?.parse().ok()
}

/// A leader and followers on one etcd, in this order, that have all answered a call.
fn crew(etcd: &EtcdCluster, ids: &[&str]) -> Vec<Node> {
    let mut nodes = Vec::new();
    for id in ids {
        // A long lease: a follower then hears of changes from its watch, one by one, and not from a read.
        let node = NodeBuilder::new(id).etcd(etcd).lease_secs(60).env("METAD_CHECKS__INTERVAL_SECS", "1");
        let node = node.spawn();
        node.wait_for("joined", PATIENCE);
        nodes.push(node);
        wait_for_leader(&nodes, PATIENCE);
    }
    assert_eq!(leader(&nodes), Some(0), "{}", report(&nodes));
    nodes.iter().for_each(status);
    nodes
}

/// A gRPC call, like any other.
#[track_caller]
fn status(node: &Node) {
    let mut command = spawn::metad_command();
    command.args(["status", "--meta", &node.rpc_addr().to_string()]);
    assert!(spawn::output(command, PATIENCE).status.success(), "{}", node.report());
}

/// Waits until every endpoint was looked at and every call is counted, which is a moment after its answer.
fn wait_complete(node: &Node) {
    wait_until("the page is complete", PATIENCE, || {
        let names = samples(&page(node));
        ["metad_etcd_endpoint_rtt_seconds_count", "grpc_server_handling_seconds_count", "metad_check_status"]
            .iter()
            .all(|n| names.contains(*n))
    });
}

#[test]
fn the_alerts_are_valid_and_fire_exactly_when_they_should() {
    promtool(&["check", "rules", ALERTS], "");
    promtool(&["test", "rules", ALERTS_TEST], "");
}

#[test]
fn every_alert_is_seen_to_fire() {
    let tests = yaml(ALERTS_TEST)["tests"].as_vec().expect("tests").clone();
    let mut fired = BTreeSet::new();
    let list = |yaml: &Yaml| yaml.as_vec().cloned().unwrap_or_default();
    for test in &tests {
        for expected in list(&test["alert_rule_test"]).iter().filter(|t| !list(&t["exp_alerts"]).is_empty()) {
            fired.extend(expected["alertname"].as_str().map(str::to_owned));
        }
        for sample in list(&test["promql_expr_test"]).iter().flat_map(|t| list(&t["exp_samples"])) {
            let labels = sample["labels"].as_str().unwrap_or_default().to_owned();
            fired.extend(
                labels.split("alertname=\"").nth(1).and_then(|l| l.split('"').next()).map(str::to_owned),
            );
        }
    }
    let all: BTreeSet<String> = alerts().into_iter().map(|(name, _)| name).collect();
    assert!(all.len() > 10);
    assert_eq!(fired, all, "every alert fires in {ALERTS_TEST}, and no other is named there");
}

/// Prometheus scrapes others as well, perhaps under the same job.
#[test]
fn what_others_export_too_counts_only_beside_a_metric_of_ours() {
    let mut shared = 0;
    for (place, expression) in alerts().into_iter().chain(panels()) {
        let (own, others): (BTreeSet<_>, BTreeSet<_>) =
            metrics_in(&expression).into_iter().partition(|name| name.starts_with("metad_"));
        if !others.is_empty() {
            shared += 1;
            let is_joined = expression.contains(" and on (job, instance) ") && !own.is_empty();
            assert!(is_joined, "{place}: {others:?} may be of other software: {expression}");
        }
    }
    assert!(shared > 5, "the expressions were not understood");
}

#[test]
fn the_dashboard_shows_one_job() {
    for (title, expression) in panels() {
        let names = metrics_in(&expression);
        let selectors: usize = names.iter().map(|name| expression.matches(name.as_str()).count()).sum();
        let of_the_job = expression.matches("{job=\"$job\"").count();
        assert_eq!(of_the_job, selectors, "{title}: each metric is that of the chosen job: {expression}");
    }
}

#[test]
fn the_dashboard_is_well_formed() {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().expect("panels");
    let ids: BTreeSet<u64> = panels.iter().filter_map(|p| p["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len(), "every panel has an id of its own");
    let places: BTreeSet<String> =
        panels.iter().map(|p| format!("{}/{}", p["gridPos"]["x"], p["gridPos"]["y"])).collect();
    assert_eq!(places.len(), panels.len(), "no panel covers another");
    for panel in panels.iter().filter(|p| p["type"] != "row") {
        assert!(!panel["targets"].as_array().expect("targets").is_empty(), "{panel}");
    }
    // Its expressions, as rules, because promtool reads those.
    let mut rules = String::from("groups: [{name: g, rules: [");
    for (n, (_, expression)) in self::panels().iter().enumerate() {
        let plain =
            expression.replace("$__rate_interval", "5m").replace("$__range", "1h").replace("$job", "metad");
        rules.push_str(&format!("{{record: r{n}, expr: {}}},", Value::from(plain)));
    }
    rules.push_str("]}]");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("dashboard.yml");
    std::fs::write(&file, rules).expect("a file");
    promtool(&["check", "rules", "--lint=none", &file.display().to_string()], "");
}

#[test]
fn alerts_dashboard_and_docs_name_what_leader_and_follower_show() {
    let etcd = EtcdCluster::start(1);
    let nodes = crew(&etcd, &["a", "b"]);
    for (node, leads) in nodes.iter().zip([1.0, 0.0]) {
        wait_complete(node);
        let page = page(node);
        promtool(&["check", "metrics"], &page);
        assert_eq!(value(&page, "leader_election_master_status", &[]), Some(leads), "{page}");
        let shown = samples(&page);
        for (place, expression) in alerts().into_iter().chain(panels()) {
            let named = metrics_in(&expression);
            assert!(!named.is_empty(), "{place}: {expression}");
            for name in named.iter() {
                assert!(shown.contains(name), "{place} names {name}, which {} does not show", node.id());
            }
        }
        let (documented, families) = (documented(), families(&page));
        let missing: Vec<_> = families.difference(&documented).collect();
        assert!(missing.is_empty(), "src/docs/metrics.md lacks {missing:?}");
        let gone: Vec<_> = documented.difference(&families).collect();
        assert!(gone.is_empty(), "src/docs/metrics.md names {gone:?}, which {} does not show", node.id());
    }
}

/// The names in the table of the docs, each of which has a type and a meaning.
fn documented() -> BTreeSet<String> {
    let page = read("src/docs/metrics.md");
    let rows = page.lines().filter_map(|l| l.strip_prefix("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_end_matches('|').split('|').map(str::trim).collect();
        assert!(cells.len() == 4 && !cells[3].is_empty(), "{row}");
        assert!(["gauge", "counter", "histogram"].contains(&cells[1]), "{row}");
        cells[0].trim_end_matches('`').to_owned()
    })
    .collect()
}

#[test]
fn the_page_is_open_metrics_for_those_who_ask_for_it() {
    let node = NodeBuilder::new("n1").spawn();
    node.wait_for("main_loop_started", PATIENCE);
    let ask = |accept: &str| http::get_as(node.http_addr(), "/metrics", accept, PATIENCE).expect("an answer");
    // What Prometheus sends.
    let open = ask("application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,*/*;q=0.1").1;
    assert!(open.ends_with("# EOF\n") && open.contains("# TYPE metad_build info\n"), "{open}");
    let plain = ask("*/*").1;
    assert!(!plain.contains("# EOF") && plain.contains("# TYPE metad_build_info gauge\n"), "{plain}");
    promtool(&["check", "metrics"], &plain);
    assert_eq!(samples(&open), samples(&plain), "both show the same");
    assert_eq!(families(&open).len(), open.matches("# TYPE ").count(), "each has a name of its own: {open}");
}

#[test]
fn survivors_count_how_a_leader_left_and_how_long_nobody_led() {
    let etcd = EtcdCluster::start(1);
    let nodes = crew(&etcd, &["a", "b", "c"]);
    // Planned and unplanned changes: a hand-over for which nobody is ready in time is a giving up.
    let seen = |witness: &Node| {
        let page = page(witness);
        let count = |how: &str| {
            let label = format!("how=\"{how}\"");
            value(&page, "metad_leader_changes_seen_total", &[&label]).expect("the counter")
        };
        (count("handed_over") + count("given_up"), count("vanished") + count("reclaimed"))
    };
    assert!(nodes.iter().all(|node| seen(node) == (0.0, 0.0)), "shown from the start");

    nodes[0].signal(Signal::TERM);
    assert_eq!(nodes[0].wait_exit(PATIENCE), 0);
    let second = wait_for_leader(&nodes, PATIENCE);
    let witness = &nodes[3 - second];
    wait_until("the survivor has seen it", PATIENCE, || seen(witness) == (1.0, 0.0));

    nodes[second].kill();
    wait_until("the survivor leads", PATIENCE, || leads(witness));
    wait_until("the survivor has seen it", PATIENCE, || seen(witness) == (1.0, 1.0));
    let page = page(witness);
    assert_eq!(value(&page, "metad_failover_duration_seconds_count", &[]), Some(2.0), "{page}");
    let up = |node: &Node| value(&page, "metad_member_up", &[&format!("member=\"{}\"", node.id())]);
    assert_eq!([&nodes[0], &nodes[second], witness].map(up), [Some(0.0), Some(0.0), Some(1.0)], "{page}");
    let gained = ["direction=\"gained\"", "reason=\"won\""];
    assert_eq!(value(&page, "metad_leadership_transitions_total", &gained), Some(1.0), "{page}");
}

#[test]
fn an_endpoint_that_hangs_is_shown_as_down_and_the_others_as_up() {
    let etcd = EtcdCluster::start(3);
    let nodes = crew(&etcd, &["a"]);
    let up = |i: usize| {
        let endpoint = format!("endpoint=\"http://{}\"", etcd.endpoint(i));
        value(&page(&nodes[0]), "metad_etcd_endpoint_up", &[&endpoint])
    };
    wait_until("all are up", PATIENCE, || (0..3).all(|i| up(i) == Some(1.0)));
    let hung = (etcd.leader() + 1) % 3;
    etcd.pause(hung);
    wait_until("it is down", PATIENCE, || up(hung) == Some(0.0));
    wait_until("twin: the others are up", PATIENCE, || {
        (0..3).all(|i| up(i) == Some(f64::from(u8::from(i != hung))))
    });
    etcd.resume(hung);
    wait_until("it is up again", PATIENCE, || up(hung) == Some(1.0));
    assert!(leads(&nodes[0]), "it cost nothing");
}

#[test]
fn calls_are_counted_by_method_and_code_and_unknown_ones_share_one_label() {
    let node = NodeBuilder::new("n1").env("METAD_NODE__PRIORITY", "0").spawn();
    node.wait_for("joined", PATIENCE);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let codes = runtime.block_on(call_what_is_there_and_what_is_not(&node));
    assert_eq!(
        codes,
        (tonic::Code::Ok, tonic::Code::FailedPrecondition, vec![tonic::Code::Unimplemented; 20])
    );
    let handled = |service: &str, method: &str, code: &str| {
        let labels = [("service", service), ("method", method), ("code", code)];
        let labels = labels.map(|(key, value)| format!("grpc_{key}=\"{value}\""));
        value(&page(&node), "grpc_server_handled_total", &labels.each_ref().map(String::as_str))
    };
    for (service, method, code, count) in [
        ("metad.v1.ElectionService", "Leader", "OK", 1.0),
        ("metad.v1.StateService", "Get", "FailedPrecondition", 1.0),
        ("unknown", "unknown", "Unimplemented", 20.0),
    ] {
        wait_until(method, PATIENCE, || handled(service, method, code) == Some(count));
    }
    let page = page(&node);
    assert!(
        !page.contains("no.such") && !page.contains("Nothing"),
        "no label of a stranger's choice: {page}"
    );
    let stream = ["grpc_method=\"Observe\"", "grpc_type=\"server_stream\""];
    assert_eq!(value(&page, "grpc_server_started_total", &stream), Some(1.0), "{page}");
    wait_until("the stream that was dropped", PATIENCE, || {
        handled("metad.v1.ElectionService", "Observe", "Canceled") == Some(1.0)
    });
}

async fn call_what_is_there_and_what_is_not(node: &Node) -> (tonic::Code, tonic::Code, Vec<tonic::Code>) {
    use metad::proto::metad::election_service_client::ElectionServiceClient;
    use metad::proto::metad::state_service_client::StateServiceClient;
    use metad::proto::metad::{GetRequest, LeaderRequest, LeaderResponse, ObserveRequest};
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", node.rpc_addr()))
        .expect("an address")
        .connect()
        .await
        .expect("a connection");
    let code = |status: Option<tonic::Status>| status.map_or(tonic::Code::Ok, |s| s.code());
    let mut election = ElectionServiceClient::new(channel.clone());
    let known = election.leader(LeaderRequest {}).await;
    let refused = StateServiceClient::new(channel.clone()).get(GetRequest { key: "k".into() }).await;
    let mut unknown = Vec::new();
    for n in 0..20 {
        let mut client = tonic::client::Grpc::new(channel.clone());
        client.ready().await.expect("a connection");
        let names = [format!("/no.such.Service{n}/Leader"), format!("/metad.v1.ElectionService/Nothing{n}")];
        let path = names[n % 2].parse().expect("a path");
        let codec = tonic_prost::ProstCodec::<LeaderRequest, LeaderResponse>::default();
        unknown.push(code(client.unary(tonic::Request::new(LeaderRequest {}), path, codec).await.err()));
    }
    let mut stream = election.observe(ObserveRequest {}).await.expect("a stream").into_inner();
    let _ = stream.message().await.expect("the first one");
    (code(known.err()), code(refused.err()), unknown)
}

#[test]
fn the_headroom_of_the_last_day_is_served() {
    let node = NodeBuilder::new("n1").spawn();
    node.wait_for("main_loop_started", PATIENCE);
    let get = |path: &str| http::get(node.http_addr(), path, PATIENCE).expect("an answer");
    let series = |query: &str| -> Value {
        let (code, text) = get(&format!("/api/v1/headroom{query}"));
        assert_eq!(code, 200, "{text}");
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    };
    let points = |of: Value| of["points"].as_array().expect("points").clone();
    wait_until("a renewal", PATIENCE, || !points(series("")).is_empty());
    for (query, step) in [("", 10), ("?since=30m", 10), ("?since=24h", 60), ("?since=90d", 60)] {
        let shown = series(query);
        assert_eq!(shown["step_secs"], step, "{query}");
        for point in points(shown) {
            let [at, min, median] = [0, 1, 2].map(|i| point[i].as_f64().expect("a number"));
            assert!(at > 1.7e9 && at % f64::from(step) == 0.0, "{point}");
            assert!(0.0 < min && min <= median && median < 1.0, "{point}");
        }
    }
    for query in ["since=yesterday", "since=-1h", "since="] {
        let (code, text) = get(&format!("/api/v1/headroom?{query}"));
        assert!(code == 400 && text.contains("write one"), "{query}: {code} {text}");
    }
}
