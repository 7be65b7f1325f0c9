//! What an idle cluster costs etcd: nothing that its members have to sync to their logs.

use std::time::Duration;

use crate::support::crew::{PATIENCE, check_status, wait_for_leader};
use crate::support::etcd::EtcdCluster;
use crate::support::http;
use crate::support::node::{Node, NodeBuilder};
use crate::support::poll::wait_until;
use serde_json::Value;

/// So long nothing is to be written, while every node makes its checks once a second.
const QUIET: Duration = Duration::from_secs(8);

/// When the node last made its checks.
fn looked_at(node: &Node) -> Option<String> {
    let (_, page) = http::get(node.http_addr(), "/api/v1/checks", PATIENCE).ok()?;
    serde_json::from_str::<Value>(&page).ok()?["at"].as_str().map(str::to_owned)
}

#[test]
fn idle_nodes_have_etcd_write_nothing_and_notice_an_alarm_all_the_same() {
    let etcd = EtcdCluster::builder().syncs().start();
    let node = |id: &str| {
        let builder = NodeBuilder::new(id).lease_secs(30).without_tick().etcd(&etcd);
        builder.env("METAD_CHECKS__INTERVAL_SECS", "1").spawn()
    };
    let nodes: Vec<Node> = ["a", "b", "c"].map(node).into();
    wait_for_leader(&nodes, PATIENCE);
    nodes.iter().for_each(|n| drop(n.wait_for("joined", PATIENCE)));
    let syncs = || etcd.metric(0, "etcd_disk_wal_fsync_duration_seconds_count");
    let looked = || nodes.iter().map(looked_at).collect::<Vec<_>>();
    // A start writes a few rows; after that any such time will do.
    wait_until("nothing is written while every node checks", PATIENCE, || {
        let (before, looks) = (syncs(), looked());
        std::thread::sleep(QUIET);
        let all_looked = looked().iter().zip(looks).all(|(now, then)| then.is_some() && *now > then);
        all_looked && syncs() == before
    });
    let before = syncs();
    etcd.etcdctl_ok(&["put", "key", "value"]);
    assert!(syncs() > before, "twin: a write is counted");
    assert!(nodes.iter().all(|n| check_status(n, "ETCD_013") == Some(0)), "no alarm yet");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        use etcd_client::{AlarmAction, AlarmType, Client};
        let mut client = Client::connect([etcd.endpoint(0)], None).await.expect("connected");
        client.alarm(AlarmAction::Activate, AlarmType::Nospace, None).await.expect("raised");
    });
    wait_until("every node notices the alarm", PATIENCE, || {
        nodes.iter().all(|n| check_status(n, "ETCD_013") == Some(2))
    });
}
