//! What clients may take of this process: connections, time, requests, bytes, descriptors.
//!
//! Both listeners are served here, so that both have the same limits. The rule behind all of them: strangers may take
//! from each other, never from the lease. A connection that asks for nothing makes way for one that does; what the
//! store needs is kept aside; and a probe always has a place.
//!
//! This module must not know what is served.

mod connections;
pub mod descriptors;
mod exchange;
mod handshake;
pub mod rate;
mod refusals;
mod serve;

use std::io;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::Semaphore;

use crate::clock::Clock;
use crate::config::{HttpConfig, RpcConfig};
use crate::telemetry::Telemetry;
use crate::telemetry::metrics::limits::{Limit, Listener};
use connections::Connections;

pub use connections::Newcomer;
pub use exchange::Hold;
pub use handshake::Remote;
pub use refusals::Refusals;
pub use serve::serve;

/// How many connections beyond the limit are kept for probes.
const PROBES_MAX: usize = 16;
/// A new connection gets this part of the idle time for its first request.
const FIRST_OF_IDLE: u32 = 6;
/// And no less.
const FIRST_MIN: Duration = Duration::from_secs(1);
/// What is said to whoever would be one too many.
pub const AT_LIMIT: &str = "this node is at its limit of requests; try again a little later";
/// How long a reader of HTTP may take nothing.
const HTTP_WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// How much of everything there may be on one listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Which listener.
    pub listener: Listener,
    /// Connections at once.
    pub connections: usize,
    /// Connections of one address.
    pub per_address: usize,
    /// Connections on which nobody was let in yet.
    pub strangers: usize,
    /// Connections beyond, for probes alone.
    pub probes: usize,
    /// Requests and streams at once.
    pub requests: usize,
    /// Requests and streams of one connection.
    pub requests_per_connection: u32,
    /// Bytes of requests that are being read.
    pub bytes: usize,
    /// From a connection to its first request.
    pub first_request: Duration,
    /// A connection without a request.
    pub idle: Duration,
    /// A client that takes nothing.
    pub write: Duration,
    /// Requests of costly kinds in a second.
    pub costly_per_sec: u32,
}

/// The limits of one listener, and what counts against them.
pub struct Guard {
    bounds: Bounds,
    connections: Arc<Connections>,
    requests: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    telemetry: Telemetry,
    clock: Arc<dyn Clock>,
    costly: DefaultDirectRateLimiter,
    kinds: Kinds,
    refusals: Refusals,
}

/// Kinds of requests, by their paths.
#[derive(Clone, Copy)]
pub struct Kinds {
    /// What a connection of the probes' reserve may ask for.
    pub is_probe: fn(&str) -> bool,
    /// Does the body of this request count as a whole? A stream's messages are bounded one by one.
    pub is_metered: fn(&str) -> bool,
    /// Does the answer take much work?
    pub is_costly: fn(&str) -> bool,
}

// === impl Bounds ===

impl Bounds {
    /// Those of the gRPC listener. `room`: how many descriptors there are for both listeners.
    pub fn rpc(config: &RpcConfig, room: usize) -> Self {
        let connections = number(config.max_connections).min(room * 2 / 3).max(1);
        Self {
            listener: Listener::Grpc,
            connections,
            per_address: number(config.max_connections_per_address),
            strangers: strangers(config.max_unauthenticated_connections, connections),
            probes: 0,
            requests: number(config.max_requests),
            requests_per_connection: u32::try_from(config.max_requests_per_connection).unwrap_or(u32::MAX),
            bytes: number(config.max_bytes_in_flight_mib) * 1024 * 1024,
            first_request: Duration::from_secs(config.first_request_timeout_secs),
            idle: Duration::from_secs(config.idle_timeout_secs),
            write: Duration::from_secs(config.write_timeout_secs),
            costly_per_sec: u32::try_from(config.max_costly_requests_per_sec).unwrap_or(u32::MAX),
        }
    }

    /// Those of the HTTP listener.
    pub fn http(config: &HttpConfig, room: usize) -> Self {
        let idle = Duration::from_secs(config.idle_timeout_secs);
        let connections = number(config.max_connections).min((room / 3).saturating_sub(PROBES_MAX)).max(1);
        Self {
            listener: Listener::Http,
            connections,
            per_address: number(config.max_connections_per_address),
            strangers: strangers(config.max_unauthenticated_connections, connections),
            probes: PROBES_MAX,
            requests: connections + PROBES_MAX,
            requests_per_connection: 1,
            bytes: 1024 * 1024,
            first_request: (idle / FIRST_OF_IDLE).max(FIRST_MIN),
            idle,
            write: HTTP_WRITE_TIMEOUT,
            costly_per_sec: u32::try_from(config.max_costly_requests_per_sec).unwrap_or(u32::MAX),
        }
    }

    /// How many may follow the events: no more than leave half of the connections to others.
    pub fn readers(&self, wanted: u64) -> usize {
        number(wanted).min(self.connections / 2)
    }
}

/// They leave half of the connections to those who are known.
fn strangers(wanted: u64, connections: usize) -> usize {
    number(wanted).min(connections / 2).max(1)
}

fn number(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

// === impl Guard ===

impl Guard {
    /// The limits of a listener on which nothing has happened yet.
    pub fn new(bounds: Bounds, clock: Arc<dyn Clock>, telemetry: Telemetry, kinds: Kinds) -> Arc<Self> {
        let per_second = NonZeroU32::new(bounds.costly_per_sec).unwrap_or(NonZeroU32::MIN);
        Arc::new(Self {
            connections: Connections::new(bounds),
            requests: Arc::new(Semaphore::new(bounds.requests.min(Semaphore::MAX_PERMITS))),
            bytes: Arc::new(Semaphore::new(bounds.bytes.min(Semaphore::MAX_PERMITS))),
            costly: RateLimiter::direct(Quota::per_second(per_second)),
            bounds,
            refusals: Refusals::new(telemetry.clone()),
            telemetry,
            clock,
            kinds,
        })
    }

    /// Where refusals on this listener are told.
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// Who only connects and goes, as some probes do, was not refused.
    fn failed_handshake(&self, address: IpAddr, error: &io::Error) {
        if error.kind() == io::ErrorKind::InvalidData {
            self.refusals.tell(self.clock.now(), "a TLS handshake", &format!("{address}: {error}"));
        }
    }

    /// Is there room for a request for `path`, if that is a costly one? To be asked once it is known who calls: those who are
    /// refused take nothing from the others.
    pub fn allows_costly(&self, path: &str) -> bool {
        let is_allowed = !(self.kinds.is_costly)(path) || self.costly.check().is_ok();
        if !is_allowed {
            self.reached(Limit::Costly);
        }
        is_allowed
    }

    fn reached(&self, limit: Limit) {
        self.telemetry.metrics().limit_reached(self.bounds.listener, limit);
    }

    fn admit(&self, from: IpAddr) -> Result<Arc<connections::ConnectionPlace>, Limit> {
        let admitted = connections::admit(&self.connections, from, self.clock.now());
        self.count_connections();
        admitted
    }

    fn count_connections(&self) {
        self.telemetry.metrics().set_connections(self.bounds.listener, self.connections.count());
    }
}
