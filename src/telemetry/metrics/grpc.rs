//! The gRPC calls that this node serves, under the names that dashboards for gRPC servers know.
//!
//! Labels are made once for each method, when it is called for the first time; a call then costs a few atomic
//! additions. Codes have the names that Go's gRPC library gives them, as those dashboards expect.

use std::sync::OnceLock;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// The codes in the order of their numbers.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];
/// The number of `Canceled`: the caller went away before the end.
pub const CANCELED: usize = 1;
/// The number of `Unknown`.
pub const UNKNOWN: usize = 2;

/// Which method.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct MethodLabels {
    /// `package.Service`.
    pub grpc_service: String,
    /// Its name.
    pub grpc_method: String,
    /// `unary`, `client_stream`, `server_stream` or `bidi_stream`.
    pub grpc_type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HandledLabels {
    grpc_service: String,
    grpc_method: String,
    grpc_type: &'static str,
    grpc_code: &'static str,
}

/// The families. Clones share them.
#[derive(Clone)]
pub struct GrpcMetrics {
    started: Family<MethodLabels, Counter>,
    handled: Family<HandledLabels, Counter>,
    seconds: Family<MethodLabels, Histogram, fn() -> Histogram>,
}

/// One method's counters.
pub struct MethodMetrics {
    families: GrpcMetrics,
    labels: MethodLabels,
    started: OnceLock<Counter>,
    seconds: OnceLock<Histogram>,
    handled: [OnceLock<Counter>; CODES.len()],
}

// === impl GrpcMetrics ===

impl GrpcMetrics {
    pub(super) fn new() -> Self {
        let latency = || Histogram::new(exponential_buckets(0.000_25, 4.0, 10)); // 0.25 ms … 65 s
        Self {
            started: Family::default(),
            handled: Family::default(),
            seconds: Family::new_with_constructor(latency),
        }
    }

    pub(super) fn register(&self, r: &mut Registry) {
        r.register(
            "grpc_server_started",
            "gRPC calls that began; a method appears with its first call, one that does not exist as unknown",
            self.started.clone(),
        );
        r.register(
            "grpc_server_handled",
            "gRPC calls that ended, by code; Canceled: the caller disconnected, or the deadline passed",
            self.handled.clone(),
        );
        r.register(
            "grpc_server_handling_seconds",
            "Duration of a gRPC call; of a stream, its whole life",
            self.seconds.clone(),
        );
    }

    /// The counters of a method; they appear with its first call. Make them for methods that exist: every one is
    /// a new label.
    pub fn method(&self, labels: MethodLabels) -> MethodMetrics {
        MethodMetrics {
            families: self.clone(),
            labels,
            started: OnceLock::new(),
            seconds: OnceLock::new(),
            handled: std::array::from_fn(|_| OnceLock::new()),
        }
    }
}

// === impl MethodMetrics ===

impl MethodMetrics {
    /// A call began.
    pub fn started(&self) {
        let counter = || self.families.started.get_or_create_owned(&self.labels);
        self.started.get_or_init(counter).inc();
    }

    /// A call ended with this code's number.
    pub fn handled(&self, code: usize, took: Duration) {
        let code = if code < CODES.len() { code } else { UNKNOWN };
        self.handled[code].get_or_init(|| self.counter(code)).inc();
        let histogram = || self.families.seconds.get_or_create_owned(&self.labels);
        self.seconds.get_or_init(histogram).observe(took.as_secs_f64());
    }

    fn counter(&self, code: usize) -> Counter {
        let MethodLabels { grpc_service, grpc_method, grpc_type } = self.labels.clone();
        let labels = HandledLabels { grpc_service, grpc_method, grpc_type, grpc_code: CODES[code] };
        self.families.handled.get_or_create_owned(&labels)
    }
}
