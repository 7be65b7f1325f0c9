//! The gRPC services. Every member serves them, followers too.
//!
//! Handlers never touch the store: they read the driver's snapshot, and leave requests at the main loop's desk. A follower's answer says how old its
//! picture is.

mod barrier;
mod checks;
mod cluster;
pub mod convert;
mod counting;
mod deadline;
mod election;
mod health;
mod history;
mod members;
mod methods;
mod rate;
mod refuse;
pub mod requests;
mod slow;
mod state;
mod steering;

use std::future::Future;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

use crate::clock::Clock;
use crate::doctor::background::Latest;
use crate::driver::DriverHandle;
use crate::meta::desk::Desk;
use crate::proto::DESCRIPTORS;
use crate::proto::meta::meta_member_service_server::MetaMemberServiceServer;
use crate::proto::metad::barrier_service_server::BarrierServiceServer;
use crate::proto::metad::check_service_server::CheckServiceServer;
use crate::proto::metad::cluster_service_server::ClusterServiceServer;
use crate::proto::metad::election_service_server::ElectionServiceServer;
use crate::proto::metad::state_service_server::StateServiceServer;
use crate::telemetry::Telemetry;
use barrier::Barriers;
use checks::Checks;
use cluster::Cluster;
use counting::Counting;
use deadline::Deadlines;
use election::Election;
use members::Members;
use methods::Methods;
use state::State;

/// The largest request that is read; most are a few bytes.
const REQUEST_BYTES_MAX: usize = 64 * 1024;
/// The largest request that carries values: larger than any that is accepted, so that the refusal can say why.
const STATE_REQUEST_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How many requests one connection may have under way.
const STREAMS_PER_CONNECTION_MAX: u32 = 256;
/// How often a connection without traffic is asked for a sign of life, and how long it may take to give one: a
/// client that stands still, or whose machine is gone, keeps nothing open.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));

/// What the services need.
#[derive(Clone)]
pub struct RpcParts {
    /// The driver's snapshot.
    pub driver: DriverHandle,
    /// The command that looks at the keys of the election.
    pub look_command: std::sync::Arc<str>,
    /// The clock, for ages.
    pub clock: std::sync::Arc<dyn Clock>,
    /// Where requests for the main loop are left.
    pub desk: Desk,
    /// Does the main loop keep workers and send barriers?
    pub serves_cluster: bool,
    /// The events, and where calls are counted.
    pub telemetry: Telemetry,
    /// What the background checks found last.
    pub checks: watch::Receiver<std::sync::Arc<Latest>>,
}

/// Serves until `stop` resolves, then lets running requests end.
///
/// # Errors
/// The listener failed, or the descriptors are broken.
pub async fn serve(
    listener: TcpListener,
    parts: RpcParts,
    stop: impl Future<Output = ()>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let (reporter, health) = tonic_health::server::health_reporter();
    let follow = tokio::spawn(health::follow(reporter, parts.clone()));
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let counting = Counting { methods: methods(&parts)?, clock: parts.clock.clone() };
    let election = ElectionServiceServer::new(Election::new(parts.clone()));
    let members = MetaMemberServiceServer::new(Members::new(parts.clone()));
    let cluster = ClusterServiceServer::new(Cluster::new(parts.clone()));
    let barriers = BarrierServiceServer::new(Barriers::new(parts.clone()));
    let checks = CheckServiceServer::new(Checks::new(parts.clone()));
    let state = StateServiceServer::new(State::new(parts));
    let served = Server::builder()
        .concurrency_limit_per_connection(STREAMS_PER_CONNECTION_MAX as usize)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .layer(counting) // outside of the deadlines, so that it counts what they refuse
        .layer(Deadlines)
        .add_service(health)
        .add_service(reflection)
        .add_service(election.max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(members.max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(cluster.max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(barriers.max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(checks.max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(state.max_decoding_message_size(STATE_REQUEST_BYTES_MAX))
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop)
        .await;
    follow.abort();
    Ok(served?)
}

/// All that is served, health and reflection too.
fn methods(parts: &RpcParts) -> Result<Methods, prost::DecodeError> {
    let health = tonic_health::pb::FILE_DESCRIPTOR_SET;
    let reflection = tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET;
    Methods::of(&[DESCRIPTORS, health, reflection], parts.telemetry.metrics().grpc())
}
