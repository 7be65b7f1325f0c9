//! Connections, and how often a limit kept a client from something.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Which listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// The one for gRPC.
    Grpc,
    /// The one for probes, metrics and the page.
    Http,
}

/// What was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Connections in all: a new one was closed.
    Connections,
    /// Connections of one address: a new one was closed.
    ConnectionsPerAddress,
    /// Connections on which nobody was let in: a new one was closed.
    Strangers,
    /// An idle connection made way for a new one.
    MadeWay,
    /// The time until the first request.
    FirstRequest,
    /// The time between two requests.
    Idle,
    /// The time in which a client must take something of what is sent.
    SlowReader,
    /// Requests at once.
    Requests,
    /// Requests of costly kinds in a second.
    Costly,
    /// Bytes of requests that are being read.
    Bytes,
    /// Readers of the events: the oldest made way.
    Readers,
    /// The name that was asked for is not one of ours.
    Host,
    /// The file descriptors of this process.
    Descriptors,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ListenerLabel {
    listener: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabels {
    listener: &'static str,
    limit: &'static str,
}

#[derive(Default)]
pub(super) struct LimitMetrics {
    connections: Family<ListenerLabel, Gauge>,
    reached: Family<LimitLabels, Counter>,
}

// === impl Listener ===

impl Listener {
    /// Its name in the metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Listener::Grpc => "grpc",
            Listener::Http => "http",
        }
    }
}

// === impl Limit ===

impl Limit {
    const ALL: [Limit; 13] = [
        Limit::Connections,
        Limit::ConnectionsPerAddress,
        Limit::Strangers,
        Limit::MadeWay,
        Limit::FirstRequest,
        Limit::Idle,
        Limit::SlowReader,
        Limit::Requests,
        Limit::Costly,
        Limit::Bytes,
        Limit::Readers,
        Limit::Host,
        Limit::Descriptors,
    ];

    /// Its name in the metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Limit::Connections => "connections",
            Limit::ConnectionsPerAddress => "connections_per_address",
            Limit::Strangers => "unauthenticated_connections",
            Limit::MadeWay => "made_way",
            Limit::FirstRequest => "first_request",
            Limit::Idle => "idle",
            Limit::SlowReader => "slow_reader",
            Limit::Requests => "requests",
            Limit::Costly => "costly",
            Limit::Bytes => "bytes",
            Limit::Readers => "readers",
            Limit::Host => "host",
            Limit::Descriptors => "descriptors",
        }
    }
}

// === impl LimitMetrics ===

impl LimitMetrics {
    pub(super) fn register(&self, r: &mut Registry) {
        r.register(
            "metad_connections",
            "Open connections of clients, by listener: grpc, http",
            self.connections.clone(),
        );
        r.register(
            "metad_limits_reached",
            "Times that a limit refused a client's request or closed its connection",
            self.reached.clone(),
        );
        for listener in [Listener::Grpc, Listener::Http] {
            self.set_connections(listener, 0);
            for limit in Limit::ALL {
                let _ = self.counter(listener, limit);
            }
        }
    }

    pub(super) fn set_connections(&self, listener: Listener, n: usize) {
        let label = ListenerLabel { listener: listener.as_str() };
        self.connections.get_or_create(&label).set(i64::try_from(n).unwrap_or(i64::MAX));
    }

    pub(super) fn reached(&self, listener: Listener, limit: Limit) {
        self.counter(listener, limit).inc();
    }

    fn counter(&self, listener: Listener, limit: Limit) -> Counter {
        let labels = LimitLabels { listener: listener.as_str(), limit: limit.as_str() };
        self.reached.get_or_create(&labels).clone()
    }
}
