//! What a main loop knows of its deadline: `Leadership::remaining` and `on_deadline`.
//! A warning comes before the main loop is told to stop, and with healthy renewals none comes.

use std::time::Duration;

use metad::driver::leadership::Leadership;

use crate::support::crew::PATIENCE;
use crate::support::etcd::EtcdCluster;
use crate::support::node::{Node, NodeBuilder};
use crate::support::poll::{holds_within, wait_until};
use crate::support::proxy::FaultProxy;
use crate::support::{ourselves, spawn};

const LEASE_SECS: u64 = 5;

/// Not a test but a node, made with the library. Its main loop says when it is warned, and when it is told to stop.
#[test]
#[ignore = "started by another test, as a node"]
fn a_node_whose_main_loop_listens_for_warnings() {
    let config = metad::config::load(None, metad::config::process_env(), &[]).expect("valid").config;
    let events = metad::telemetry::printer::Printer::start(std::io::stdout()).expect("a thread");
    let main_loop = async |leadership: Leadership| {
        let mut warnings = leadership.on_deadline(0.5);
        while let Some(left) = warnings.next().await {
            println!("\nwarned with {} ms left", left.as_millis());
        }
        let (left, is_over) = (leadership.remaining(), leadership.check().is_err());
        println!("\ntold to stop with {} ms left, over: {is_over}", left.as_millis());
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let builder = metad::node::Node::builder(config).main_loop(main_loop).events(events);
        let node = builder.guardian_program(spawn::metad_program()).start().await.expect("started");
        node.wait().await
    });
}

fn warnings(node: &Node) -> Vec<u64> {
    let words = |line: String| line.strip_prefix("warned with ").map(str::to_owned);
    let lines = node.stdout().lines().map(str::to_owned).filter_map(words).collect::<Vec<_>>();
    lines.iter().filter_map(|l| l.split(' ').next()?.parse().ok()).collect()
}

#[test]
fn a_main_loop_is_warned_once_for_each_time_that_renewals_stop_and_never_while_they_come() {
    let etcd = EtcdCluster::start(1);
    let proxy = FaultProxy::start(etcd.addr(0));
    let node = NodeBuilder::new("a")
        .lease_secs(LEASE_SECS)
        .env("METAD_STORE__ETCD__ENDPOINTS", proxy.addr().to_string())
        .spawn_program(ourselves::command(a_node_whose_main_loop_listens_for_warnings));
    node.wait_for("main_loop_started", PATIENCE);
    let warned = |times| move |node: &Node| warnings(node).len() >= times;
    assert!(!holds_within(Duration::from_secs(LEASE_SECS), || warned(1)(&node)), "{}", node.report());

    proxy.black_hole();
    wait_until("it is warned", PATIENCE, || warned(1)(&node));
    proxy.pass();
    let again = || warned(2)(&node) || node.has_event("main_loop_stopping");
    assert!(!holds_within(Duration::from_secs(3), again), "{}", node.report());

    // Armed again by the renewals that came; this time the store itself is silent, for good.
    etcd.pause(0);
    node.wait_for("main_loop_stopped", PATIENCE);
    let told = |node: &Node| node.stdout().lines().position(|l| l.starts_with("told to stop"));
    wait_until("what it said is read", PATIENCE, || told(&node).is_some());
    let said = node.stdout();
    assert!(said.contains("\ntold to stop with 0 ms left, over: true"), "{said}");
    let last_warning = said.lines().collect::<Vec<_>>().iter().rposition(|l| l.starts_with("warned"));
    assert!(last_warning < told(&node), "the warning comes first: {said}");
    let left = warnings(&node);
    assert!(left.len() == 2 && left.iter().all(|ms| (1..LEASE_SECS * 500).contains(ms)), "{left:?}");
}
