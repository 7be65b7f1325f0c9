//! The gRPC services. Every member serves them, followers too.
//!
//! Handlers never touch the store: they read the driver's snapshot, and leave requests in the main loop's request queue. A
//! follower's answer says how old its view is.

mod authorize;
pub mod barrier;
mod checks;
pub mod cluster;
mod counting;
mod deadline;
pub mod election;
mod health;
pub mod history;
mod members;
mod methods;
mod own_worker;
mod refuse;
pub mod requests;
mod slow;
pub mod state;
mod steering;

use std::future::Future;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::service::Routes;
use tower::ServiceBuilder;

use crate::api::auth::{Gate, Security};
use crate::clock::Clock;
use crate::diagnosis::checks::background::Latest;
use crate::driver::DriverHandle;
use crate::journal::Past;
use crate::limits::{self, Bounds, Guard, Kinds};
use crate::meta::request_queue::RequestQueue;
use crate::proto::DESCRIPTORS;
use crate::proto::meta::meta_member_service_server::MetaMemberServiceServer;
use crate::proto::metad::barrier_service_server::BarrierServiceServer;
use crate::proto::metad::check_service_server::CheckServiceServer;
use crate::proto::metad::cluster_service_server::ClusterServiceServer;
use crate::proto::metad::election_service_server::ElectionServiceServer;
use crate::proto::metad::state_service_server::StateServiceServer;
use crate::telemetry::Telemetry;
use crate::tls::client::Credentials;
use authorize::Authorize;
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
/// The largest report of a worker on its stream: two numbers.
const REPORT_BYTES_MAX: usize = 1024;
/// The one call whose requests are a stream: they are bounded one by one.
const STREAM_OF_REPORTS: &str = "/metad.v1.BarrierService/Stream";

/// What the services need.
#[derive(Clone)]
pub struct RpcParts {
    /// The driver's snapshot.
    pub driver: DriverHandle,
    /// The history.
    pub past: watch::Receiver<Arc<Past>>,
    /// The command that looks at the keys of the election.
    pub look_command: std::sync::Arc<str>,
    /// The clock, for ages.
    pub clock: Arc<dyn Clock>,
    /// Where requests for the main loop are left.
    pub requests: RequestQueue,
    /// Does the main loop keep workers and send barriers?
    pub serves_cluster: bool,
    /// The events, and where calls are counted.
    pub telemetry: Telemetry,
    /// What this node shows to others.
    pub credentials: Credentials,
    /// What the background checks found last.
    pub checks: watch::Receiver<Arc<Latest>>,
}

/// Serves until `stop` resolves, then lets running requests end.
///
/// # Errors
/// The descriptors of the services are broken.
pub async fn serve(
    listener: TcpListener,
    parts: RpcParts,
    bounds: Bounds,
    security: Security,
    stop: impl Future<Output = ()>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let (reporter, health) = tonic_health::server::health_reporter();
    let follow = tokio::spawn(health::follow(reporter, parts.clone()));
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let kinds = Kinds {
        is_probe: |_| false,
        is_metered: |path| path != STREAM_OF_REPORTS,
        is_costly: methods::is_costly,
    };
    let guard = Guard::new(bounds, parts.clock.clone(), parts.telemetry.clone(), kinds);
    let authorize =
        Authorize(Gate::new(methods::role_of, security.access, guard.clone(), parts.clock.clone()));
    let counting = Counting { methods: methods(&parts)?, clock: parts.clock.clone() };
    let election = ElectionServiceServer::new(Election::new(parts.clone()));
    let members = MetaMemberServiceServer::new(Members::new(parts.clone()));
    let cluster = ClusterServiceServer::new(Cluster::new(parts.clone()));
    let barriers = BarrierServiceServer::new(Barriers::new(parts.clone()));
    let checks = CheckServiceServer::new(Checks::new(parts.clone()));
    let state = StateServiceServer::new(State::new(parts));
    let routes = Routes::new(health.max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(reflection.max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(election.max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(members.max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(cluster.max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(barriers.max_decoding_message_size(REPORT_BYTES_MAX))
        .add_service(checks.max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(state.max_decoding_message_size(STATE_REQUEST_BYTES_MAX))
        .prepare();
    // Counting is outside of the deadlines, so that it counts what they refuse.
    let service = ServiceBuilder::new().layer(counting).layer(Deadlines).layer(authorize).service(routes);
    limits::serve(listener, service, guard, security.tls, stop).await;
    follow.abort();
    Ok(())
}

/// All that is served, health and reflection too.
fn methods(parts: &RpcParts) -> Result<Methods, prost::DecodeError> {
    let health = tonic_health::pb::FILE_DESCRIPTOR_SET;
    let reflection = tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET;
    Methods::of(&[DESCRIPTORS, health, reflection], parts.telemetry.metrics().grpc())
}
