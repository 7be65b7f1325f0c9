//! What a main loop knows of its deadline: `Leadership::remaining` and `on_deadline`, and METAD_DEADLINE_FD for a program.
//! A warning comes before the main loop is told to stop, and with healthy renewals none comes.

use std::time::Duration;

use metad::driver::leadership::Leadership;

use crate::support::crew::PATIENCE;
use crate::support::etcd::EtcdCluster;
use crate::support::node::{Node, NodeBuilder};
use crate::support::poll::{boot_ns, holds_within, wait_until};
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

/// The example of `src/docs/run.md`, and what else a shell can do with the descriptor.
const SCRIPT: &str = r#"
deadline_ms() { echo $(od -An -tu8 -N8 /proc/self/fd/$METAD_DEADLINE_FD); }
(echo 1 >/proc/self/fd/$METAD_DEADLINE_FD) 2>/dev/null && echo written
trap 'echo "told at $(cut -d" " -f1 /proc/uptime | tr -d .)0 deadline $(deadline_ms)"; exit 3' TERM
while :; do
  echo "now $(cut -d" " -f1 /proc/uptime | tr -d .)0 deadline $(deadline_ms)"
  sleep 0.1
done
"#;

/// What it read: now and the deadline, both in milliseconds on `CLOCK_BOOTTIME`.
fn readings(node: &Node) -> Vec<(u64, u64)> {
    let reading = |line: &str| {
        let (now, deadline) = line.strip_prefix("now ")?.split_once(" deadline ")?;
        Some((now.parse().ok()?, deadline.parse().ok()?))
    };
    node.stdout().lines().filter_map(reading).collect()
}

#[test]
fn a_program_reads_its_deadline_which_moves_with_each_renewal_and_stands_still_without() {
    let etcd = EtcdCluster::start(1);
    let node = NodeBuilder::new("a")
        .etcd(&etcd)
        .lease_secs(LEASE_SECS)
        .arg("--init") // a node that is started again by its own program file
        .payload(&["sh", "-c", SCRIPT])
        .spawn();
    wait_until("the deadline has moved", PATIENCE, || {
        let seen = readings(&node);
        seen.iter().map(|(_, at)| at).collect::<std::collections::BTreeSet<_>>().len() > 3
    });
    for pair in readings(&node).windows(2) {
        let [(now, deadline), (_, later)] = pair else { unreachable!() };
        assert!(deadline > now && deadline - now <= LEASE_SECS * 1000, "{pair:?}");
        assert!(deadline <= later, "it moves forward: {pair:?}");
    }
    etcd.pause(0);
    assert_eq!(node.wait_exit(PATIENCE), 75, "{}", node.report());
    let (said, told) = (node.stdout(), boot_ns() / 1_000_000);
    assert!(!said.contains("written"), "{said}");
    let (_, last) = said.split_once("told at ").unwrap_or_else(|| panic!("{said}"));
    let (at, deadline) = last.lines().next().and_then(|l| l.split_once(" deadline ")).expect("two numbers");
    let [at, deadline] = [at, deadline].map(|n| n.parse::<u64>().expect("a number"));
    assert!(deadline <= at + 20 && at <= told, "told at S, and not before it: {said}");
    assert!(readings(&node).iter().all(|(_, seen)| *seen <= deadline), "{said}");
}

#[test]
fn a_program_that_is_started_again_reads_it_as_well_and_one_that_never_reads_costs_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let mark = dir.path().join("mark").display().to_string();
    // The first run fails; the second one leaves a grandchild that reads what it has inherited, and never reads itself.
    let script = format!(
        "[ -e {mark} ] || {{ touch {mark}; exit 1; }}
         sh -c 'sleep 3; echo \"deadline $(od -An -tu8 -N8 /proc/self/fd/$METAD_DEADLINE_FD)\"'; exec sleep 600"
    );
    let node = NodeBuilder::new("a")
        .sqlite(dir.path().join("store.db"))
        .lease_secs(3)
        .env("METAD_META__RESTART", "on-failure")
        .payload(&["sh", "-c", &script])
        .spawn();
    wait_until("the second run has read it", PATIENCE, || node.stdout().contains("deadline "));
    let said = node.stdout();
    let deadline =
        said.split_once("deadline ").and_then(|(_, l)| l.lines().next()?.trim().parse::<u64>().ok());
    assert!(deadline.is_some_and(|ms| ms > boot_ns() / 1_000_000 - 3_000), "{said}");
    assert!(!node.has_event("main_loop_stopping"), "{}", node.report());
}
