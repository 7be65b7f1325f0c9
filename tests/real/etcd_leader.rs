//! Which member of etcd a node asks first: etcd's leader, wherever it stands in the list.

use crate::support::crew::PATIENCE;
use crate::support::etcd::EtcdCluster;
use crate::support::node::NodeBuilder;
use crate::support::poll::wait_until;

#[test]
fn renewals_writes_and_the_guardians_revoke_go_to_etcds_leader() {
    let etcd = EtcdCluster::start(3);
    let leader = etcd.leader();
    let followers = || (0..etcd.size()).filter(|i| *i != leader);
    let last_in_the_list = followers().chain([leader]).map(|i| etcd.addr(i));
    let node = NodeBuilder::new("n1").etcd_behind(&etcd, last_in_the_list).lease_secs(5).spawn();
    node.wait_for("main_loop_started", PATIENCE);
    let renewed = || etcd.calls(leader, "LeaseKeepAlive");
    wait_until("it renews at etcd's leader", PATIENCE, || renewed() >= 5);
    let asked = |method: &str| -> u64 { followers().map(|i| etcd.calls(i, method)).sum() };
    assert_eq!(asked("LeaseKeepAlive"), 0, "{}", node.report());
    // Its guardian has looked, too: as soon as it was connected.
    node.kill();
    wait_until("the lease is revoked", PATIENCE, || {
        etcd.calls(leader, "LeaseRevoke") + asked("LeaseRevoke") > 0
    });
    assert_eq!(asked("LeaseRevoke"), 0, "{}", node.report());
}
