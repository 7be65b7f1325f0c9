//! RisingWave's own components find the meta nodes by `meta.MetaMemberService/Members`; metad speaks it.
//!
//! The messages are written down here once more, after RisingWave's `meta.proto` and `common.proto` and not after ours:
//! a mistake in ours would be on both sides of the wire otherwise.

use std::net::SocketAddr;

use crate::support::crew::{PATIENCE, leader, wait_for_leader};
use crate::support::etcd::EtcdCluster;
use crate::support::node::{Node, NodeBuilder};
use crate::support::poll::wait_until;
use tonic::transport::Endpoint;

#[derive(Clone, PartialEq, prost::Message)]
struct HostAddress {
    #[prost(string, tag = "1")]
    host: String,
    #[prost(int32, tag = "2")]
    port: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct MetaMember {
    #[prost(message, optional, tag = "1")]
    address: Option<HostAddress>,
    #[prost(bool, tag = "2")]
    is_leader: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct MembersRequest {}

#[derive(Clone, PartialEq, prost::Message)]
struct MembersResponse {
    #[prost(message, repeated, tag = "1")]
    members: Vec<MetaMember>,
}

/// What this node says: the members' addresses, sorted, and whether each leads.
fn members(node: &Node) -> Vec<(SocketAddr, bool)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let answer: MembersResponse = runtime.block_on(async {
        let endpoint = Endpoint::from_shared(format!("http://{}", node.rpc_addr())).expect("an address");
        let mut client = tonic::client::Grpc::new(endpoint.connect().await.expect("it listens"));
        client.ready().await.expect("ready");
        let path = "/meta.MetaMemberService/Members".parse().expect("a path");
        let codec = tonic_prost::ProstCodec::default();
        let answer = client.unary(tonic::Request::new(MembersRequest {}), path, codec).await;
        answer.expect("an answer").into_inner()
    });
    let read = |member: MetaMember| {
        let HostAddress { host, port } = member.address.expect("an address");
        (format!("{host}:{port}").parse().expect("host and port"), member.is_leader)
    };
    let mut members: Vec<_> = answer.members.into_iter().map(read).collect();
    members.sort();
    members
}

/// All of these, and who of them leads.
fn expected(nodes: &[&Node], leader: &Node) -> Vec<(SocketAddr, bool)> {
    let mut all: Vec<_> = nodes.iter().map(|n| (n.rpc_addr(), n.rpc_addr() == leader.rpc_addr())).collect();
    all.sort();
    all
}

#[test]
fn its_components_find_the_members_and_the_leader_through_a_fail_over() {
    let etcd = EtcdCluster::start(1);
    let nodes: Vec<_> = ["e0", "e1", "e2"].map(|id| NodeBuilder::new(id).etcd(&etcd).spawn()).into();
    let first = wait_for_leader(&nodes, PATIENCE);
    let all: Vec<_> = nodes.iter().collect();
    for node in &nodes {
        wait_until("it says so", PATIENCE, || members(node) == expected(&all, &nodes[first]));
    }
    nodes[first].kill();
    wait_until("another leads", PATIENCE, || leader(&nodes).is_some_and(|next| next != first));
    let next = leader(&nodes).expect("a leader");
    let left: Vec<_> = (0..3).filter(|n| *n != first).map(|n| &nodes[n]).collect();
    for node in &left {
        wait_until("it says so now", PATIENCE, || members(node) == expected(&left, &nodes[next]));
    }
}
