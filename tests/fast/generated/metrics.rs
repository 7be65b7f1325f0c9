//! The page of metrics, written from what a node shows.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use metad::clock::OsClock;
use metad::telemetry::metrics::ViewAge;
use metad::telemetry::metrics::grpc::MethodLabels;
use metad::telemetry::{Event, Telemetry};

use super::{assert_generated, table};
use crate::tidy;

/// Its listeners are those of `metad_connections`, and its limits fill a table of their own.
const LIMITS: &str = "metad_limits_reached_total";

/// A metric, as a node's page shows it.
struct Metric {
    name: String,
    kind: String,
    help: String,
    /// Each label with the values that it has.
    labels: Vec<(String, BTreeSet<String>)>,
}

/// The page of a node to which everything has happened that makes a metric appear.
fn page() -> String {
    let telemetry = Telemetry::new("n1", Arc::new(OsClock), None);
    let metrics = telemetry.metrics();
    metrics.register_process();
    metrics.register_view(
        || Duration::ZERO,
        || false,
        || ViewAge { age: Duration::ZERO, is_outdated: false },
    );
    telemetry.emit(Event::MemberJoined { member: "n1".into(), address: String::new() });
    metrics.endpoint_looked_at("http://e1:2379", Some(Duration::ZERO), None);
    metrics.check_made("ETCD_001", 0);
    let (grpc_service, grpc_method) = ("metad.v1.ElectionService".into(), "Leader".into());
    let method = metrics.grpc().method(MethodLabels { grpc_service, grpc_method, grpc_type: "unary" });
    method.started();
    method.handled(0, Duration::ZERO);
    metrics.render_classic()
}

/// The metrics of a page, by name.
fn metrics_of(page: &str) -> Vec<Metric> {
    let mut metrics: Vec<Metric> = Vec::new();
    for line in page.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|l| l.split_once(' ')) {
            let (name, help) = (name.to_owned(), help.trim_end_matches('.').to_owned());
            metrics.push(Metric { name, kind: String::new(), help, labels: vec![] });
            continue;
        }
        let Some(metric) = metrics.last_mut() else { panic!("no help before {line}") };
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            metric.kind = kind.rsplit(' ').next().unwrap_or_default().to_owned();
        } else if let Some((_, labels)) = line.split_once('{') {
            take_labels(metric, labels);
        }
    }
    metrics.sort_by(|a, b| a.name.cmp(&b.name));
    metrics
}

/// Takes in `name="value",…} 1`; the bounds of a histogram are no label to a reader.
fn take_labels(metric: &mut Metric, labels: &str) {
    let labels = labels.rsplit_once('}').map_or(labels, |(labels, _)| labels);
    let pairs = labels.split(',').filter_map(|pair| pair.split_once('='));
    for (name, value) in pairs.filter(|(name, _)| *name != "le") {
        let value = value.trim_matches('"').to_owned();
        match metric.labels.iter_mut().find(|(known, _)| known == name) {
            Some((_, values)) => {
                values.insert(value);
            }
            None => metric.labels.push((name.to_owned(), BTreeSet::from([value]))),
        }
    }
}

#[test]
fn the_page_of_metrics_lists_them_all() {
    let row = |m: Metric| {
        let labels: Vec<String> = m.labels.iter().map(|(name, _)| format!("`{name}`")).collect();
        [format!("`{}`", m.name), m.kind, labels.join(", "), m.help]
    };
    let expected =
        table(["metric", "type", "labels", "what it says"], metrics_of(&page()).into_iter().map(row));
    assert_generated("src/docs/metrics.md", "src/telemetry/metrics", &expected);
}

/// The names under which metrics are registered: what a page adds to them says what kind they are.
pub fn names() -> Vec<String> {
    let bare = |m: Metric| m.name.trim_end_matches("_total").trim_end_matches("_info").to_owned();
    metrics_of(&page()).into_iter().map(bare).collect()
}

#[test]
fn the_help_of_a_metric_names_the_values_of_its_labels() {
    let limits = std::fs::read_to_string(tidy::root().join("src/docs/cluster.md")).expect("the page");
    let mut seen = 0;
    for metric in metrics_of(&page()) {
        let words: Vec<&str> = metric.help.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
        for (label, values) in &metric.labels {
            let is_named = |value: &&String| match (metric.name.as_str(), label.as_str()) {
                (LIMITS, "limit") => limits.contains(&format!("`{value}`")),
                (LIMITS, _) => true,
                (_, "result" | "how" | "listener") => words.contains(&value.as_str()),
                _ => true,
            };
            let missing: Vec<_> = values.iter().filter(|value| !is_named(value)).collect();
            assert!(
                missing.is_empty(),
                "neither its help nor cluster.md names {missing:?} of {}",
                metric.name
            );
            seen += values.len();
        }
    }
    assert!(seen >= 40, "the page was not understood: {seen}");
}
