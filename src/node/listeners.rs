//! Where a node listens, and where others are told to reach it.

use std::time::Duration;

use tokio::net::TcpListener;

use super::StartError;
use crate::config::Config;
use crate::election::exit::Exit;
use crate::election::lease::LeaseId;
use crate::election::record::{Incarnation, MemberId, MemberUuid, Registration};
use crate::telemetry::Event;

/// How many connections may wait until they are accepted; the kernel takes less where `net.core.somaxconn` is lower.
const BACKLOG: i32 = 1024;

/// Both listeners, bound.
pub(super) struct Listeners {
    pub(super) rpc: TcpListener,
    pub(super) http: TcpListener,
    pub(super) rpc_address: String,
    pub(super) http_address: String,
}

/// How this node registers.
pub(super) fn registration(config: &Config, listeners: &Listeners) -> Registration {
    let (rpc, http) = (listeners.rpc.local_addr(), listeners.http.local_addr());
    Registration {
        // Uuid and incarnation are the data dir's; the driver fills them in.
        member: MemberId { node: config.node.id.clone(), uuid: MemberUuid(0), incarnation: Incarnation(0) },
        rpc_address: rpc.map_or_else(|_| listeners.rpc_address.clone(), |at| config.node.advertised(at)),
        http_address: http.map_or_else(|_| listeners.http_address.clone(), |at| config.page_address(at)),
        priority: u16::try_from(config.node.priority).unwrap_or(u16::MAX),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ttl: Duration::from_secs(config.meta.meta_leader_lease_secs),
        lease: LeaseId(0),
    }
}

/// Binds them.
///
/// # Errors
/// One is in use, or no address of this machine.
pub(super) async fn bind(config: &Config) -> Result<Listeners, StartError> {
    let rpc = bind_one(&config.rpc.listen_addr, "rpc.listen_addr", "--listen-addr").await?;
    let http = bind_one(&config.http.listen_addr, "http.listen_addr", "--http-addr").await?;
    let address = |l: &TcpListener| l.local_addr().map_or_else(|_| String::from("?"), |a| a.to_string());
    let (rpc_address, http_address) = (address(&rpc), address(&http));
    Ok(Listeners { rpc, http, rpc_address, http_address })
}

async fn bind_one(address: &str, key: &str, flag: &str) -> Result<TcpListener, StartError> {
    let bound = TcpListener::bind(address).await;
    // The library's own backlog is 128: beyond it a burst of clients waits for seconds, until their kernels try again.
    let bound = bound.and_then(|listener| Ok(rustix::net::listen(&listener, BACKLOG).map(|()| listener)?));
    bound.map_err(|e| {
        let (exit, fix) = match e.kind() {
            std::io::ErrorKind::AddrInUse => {
                (Exit::InUse, "stop the process that listens there, or choose another")
            }
            std::io::ErrorKind::PermissionDenied => (
                Exit::Config,
                "ports below 1024 need the capability CAP_NET_BIND_SERVICE; grant it, or choose a higher port",
            ),
            _ => (Exit::Config, "choose an address of this machine"),
        };
        StartError {
            exit,
            message: format!("cannot listen on {address} ({key}): {e}\nfix: {fix} with {flag}"),
        }
    })
}

// === impl Listeners ===

impl Listeners {
    /// That they listen, and where.
    pub(super) fn event(&self) -> Event {
        Event::Listening { rpc: self.rpc_address.clone(), http: self.http_address.clone() }
    }
}
