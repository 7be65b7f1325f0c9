//! The gRPC services. Every member serves them, followers too.
//!
//! Handlers never touch the store: they read the driver's snapshot. A follower's answer says how old its
//! picture is.

pub mod convert;
mod election;
mod health;
mod members;

use std::future::Future;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

use crate::clock::Clock;
use crate::driver::DriverHandle;
use crate::proto::DESCRIPTORS;
use crate::proto::meta::meta_member_service_server::MetaMemberServiceServer;
use crate::proto::metad::election_service_server::ElectionServiceServer;
use election::Election;
use members::Members;

/// The largest request that is read; ours are a few bytes.
const REQUEST_BYTES_MAX: usize = 64 * 1024;
/// How many requests one connection may have under way.
const STREAMS_PER_CONNECTION_MAX: u32 = 256;
/// How long a unary request may take; they only read memory.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// What the services need.
#[derive(Clone)]
pub struct RpcParts {
    /// The driver's snapshot.
    pub driver: DriverHandle,
    /// The clock, for ages.
    pub clock: std::sync::Arc<dyn Clock>,
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
    let election = ElectionServiceServer::new(Election::new(parts.clone()));
    let members = MetaMemberServiceServer::new(Members::new(parts));
    let served = Server::builder()
        .concurrency_limit_per_connection(STREAMS_PER_CONNECTION_MAX as usize)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .tcp_nodelay(true)
        .timeout(REQUEST_TIMEOUT)
        .add_service(health)
        .add_service(reflection)
        .add_service(election.max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(members.max_decoding_message_size(REQUEST_BYTES_MAX))
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop)
        .await;
    follow.abort();
    Ok(served?)
}
