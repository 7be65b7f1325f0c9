//! `metad upgrade-order`, and rolling upgrades that follow it.

use crate::support::crew::{PATIENCE, leader, tenures, wait_for_leader, wait_until_all_know_all};
use crate::support::etcd::EtcdCluster;
use crate::support::node::{Node, NodeBuilder, Signal};
use crate::support::poll::wait_until;
use crate::support::spawn;

/// A version that nobody runs.
const OTHER: &str = "99.0.0";

/// Its exit code, and all that it printed.
fn upgrade_order(nodes: &[Node], args: &[&str]) -> (i32, String) {
    let addresses: Vec<String> = nodes.iter().map(|n| n.rpc_addr().to_string()).collect();
    let addresses = addresses.join(",");
    let args = [&["upgrade-order", "--meta", &addresses], args].concat();
    let (code, out, errors) = spawn::metad(&args, PATIENCE * 2);
    (code, out + &errors)
}

#[test]
fn the_leader_is_named_last_and_nobody_while_a_member_is_missing() {
    let etcd = EtcdCluster::start(1);
    let nodes = ["u0", "u1", "u2"].map(|id| NodeBuilder::new(id).lease_secs(60).etcd(&etcd).spawn());
    let first = wait_for_leader(&nodes, PATIENCE);
    wait_until_all_know_all(&nodes);
    let said = upgrade_order(&nodes, &["--wait"]);
    assert_eq!(said, (0, format!("all 3 members run {}\n", env!("CARGO_PKG_VERSION"))));
    assert_eq!(upgrade_order(&nodes, &["--next"]), (0, String::new()));

    let (code, table) = upgrade_order(&nodes, &["--to", OTHER]);
    let rows: Vec<&str> = table.lines().skip(1).filter_map(|row| row.split_whitespace().next()).collect();
    assert_eq!((code, rows.len(), rows.last().copied()), (0, 3, Some(nodes[first].id())), "{table}");
    let next = upgrade_order(&nodes, &["--to", OTHER, "--next", "--wait"]);
    assert_eq!(next, (0, format!("{}\n", rows[0])));

    // One that stands still is registered, and does not take part.
    let other = (0..3).find(|i| *i != first).expect("three");
    nodes[other].pause();
    let wait = ["--to", OTHER, "--next", "--wait", "--timeout", "4s"];
    let said = upgrade_order(&nodes, &wait);
    let silent = format!("{} does not take part", nodes[other].id());
    assert!(said.0 == 1 && said.1.contains(&silent), "{said:?}");
    assert_eq!(
        upgrade_order(&nodes, &["--to", OTHER, "--next"]).0,
        0,
        "who does not wait is told all the same"
    );
    nodes[other].resume();
    assert_eq!(upgrade_order(&nodes, &wait), next, "twin");

    nodes[other].signal(Signal::TERM);
    nodes[other].wait_exit(PATIENCE);
    wait_until("it is missed", PATIENCE, || nodes[first].has_event("member_left"));
    let said = upgrade_order(&nodes, &wait);
    assert!(said.0 == 1 && said.1.contains(&format!("{} is gone", nodes[other].id())), "{said:?}");
    let said = upgrade_order(&nodes, &[&wait[..], &["--without", nodes[other].id()]].concat());
    assert_eq!(said.0, 0, "{said:?}");
}

/// `make upgrade-test` names a binary of the commit before, under an older version.
#[test]
#[ignore = "needs METAD_TEST_OLD_BINARY, which make upgrade-test builds"]
fn a_rolling_upgrade_from_the_commit_before_changes_the_leader_once() {
    let old = std::env::var_os("METAD_TEST_OLD_BINARY").expect("METAD_TEST_OLD_BINARY: make upgrade-test");
    for run in 0..5 {
        let etcd = EtcdCluster::start(1);
        let members = if run % 2 == 0 { 3 } else { 5 };
        let builders: Vec<NodeBuilder> =
            (0..members).map(|i| NodeBuilder::new(&format!("u{i}")).lease_secs(30).etcd(&etcd)).collect();
        let mut nodes: Vec<Node> = builders.iter().map(|b| b.clone().program(&old).spawn()).collect();
        let mut ended = Vec::new();
        let first = wait_for_leader(&nodes, PATIENCE);
        wait_until_all_know_all(&nodes);
        let mut order = Vec::new();
        loop {
            let (code, next) = upgrade_order(&nodes, &["--wait", "--next"]);
            assert_eq!(code, 0, "{next}");
            let Some(i) = nodes.iter().position(|n| n.id() == next.trim()) else {
                assert_eq!(next, "");
                break;
            };
            order.push(i);
            nodes[i].signal(Signal::TERM);
            nodes[i].wait_exit(PATIENCE);
            let new = builders[i].spawn();
            new.wait_for("joined", PATIENCE); // as systemd waits for READY=1
            ended.push(std::mem::replace(&mut nodes[i], new));
        }
        assert_eq!((order.len(), order.last()), (members, Some(&first)), "{order:?}");
        ended.extend(nodes);
        let changes = tenures(&ended).len() - 1;
        println!(
            "run {run}: {members} members restarted in the order {order:?}, changes of the leader: {changes}"
        );
        assert_eq!(changes, 1);
        assert!(leader(&ended).is_some());
    }
}
