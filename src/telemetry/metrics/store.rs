//! The store as this node sees it: requests of the election, writes of the main loop, and etcd's members.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::ResultLabel;
use crate::telemetry::event::Event;

/// What a request of the election is about; a closed set, for labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    op: &'static str,
    result: &'static str,
}

/// A configured endpoint: there are as many as the configuration names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndpointLabel {
    endpoint: String,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteResult {
    /// It happened.
    Written,
    /// It did not and will not happen.
    Refused,
    /// Leadership ended before its outcome was known, or the caller went away.
    Unknown,
}

/// How an endpoint did when it was last looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastLook {
    /// The round trip; `None`: it did not answer.
    pub rtt: Option<Duration>,
    /// When it last answered, in milliseconds since the Unix epoch; `None`: never.
    pub seen_ms: Option<u64>,
    /// What was found there, and what to do about it, if it does not do what it should.
    pub fault: Option<(String, String)>,
}

pub(super) struct StoreMetrics {
    troubles: Counter,
    requests: Family<RequestLabels, Histogram, fn() -> Histogram>,
    writes: Family<ResultLabel, Histogram, fn() -> Histogram>,
    writes_in_flight: Gauge,
    writes_fenced: Counter,
    endpoint_up: Family<EndpointLabel, Gauge>,
    endpoint_rtt: Family<EndpointLabel, Histogram, fn() -> Histogram>,
    endpoint_seen: Family<EndpointLabel, Gauge<f64, AtomicU64>>,
    /// As many as are configured.
    last_looks: Mutex<BTreeMap<String, LastLook>>,
}

// === impl WriteResult ===

impl WriteResult {
    const ALL: [WriteResult; 3] = [WriteResult::Written, WriteResult::Refused, WriteResult::Unknown];

    fn label(self) -> ResultLabel {
        let result = match self {
            WriteResult::Written => "written",
            WriteResult::Refused => "refused",
            WriteResult::Unknown => "unknown",
        };
        ResultLabel { result }
    }
}

// === impl StoreMetrics ===

impl StoreMetrics {
    pub(super) fn new() -> Self {
        let latency = || Histogram::new(exponential_buckets(0.001, 2.0, 14)); // 1 ms … 8 s
        Self {
            troubles: Counter::default(),
            requests: Family::new_with_constructor(latency),
            writes: Family::new_with_constructor(latency),
            writes_in_flight: Gauge::default(),
            writes_fenced: Counter::default(),
            endpoint_up: Family::default(),
            endpoint_rtt: Family::new_with_constructor(latency),
            endpoint_seen: Family::default(),
            last_looks: Mutex::default(),
        }
    }

    pub(super) fn register(&self, r: &mut Registry) {
        r.register("metad_store_troubles", "Times that the store began to fail", self.troubles.clone());
        r.register(
            "metad_store_request_duration_seconds",
            "A request of the election with all its hedges: ok, refused, unknown",
            self.requests.clone(),
        );
        r.register(
            "metad_write_duration_seconds",
            "A fenced write of the main loop until its outcome was known: written, refused, unknown",
            self.writes.clone(),
        );
        r.register(
            "metad_writes_in_flight",
            "Fenced writes in flight, 64 at most",
            self.writes_in_flight.clone(),
        );
        r.register(
            "metad_writes_fenced",
            "Writes of this node that the store refused because another member leads",
            self.writes_fenced.clone(),
        );
        r.register(
            "metad_etcd_endpoint_up",
            "1 if the last probe of this endpoint, every 5 s, was answered in time; it is a linearizable \
             read, so it needs etcd's majority",
            self.endpoint_up.clone(),
        );
        r.register(
            "metad_etcd_endpoint_rtt_seconds",
            "Round trip of a linearizable read through this endpoint",
            self.endpoint_rtt.clone(),
        );
        r.register(
            "metad_etcd_last_seen_timestamp_seconds",
            "When this endpoint last answered, since the Unix epoch; 0: never",
            self.endpoint_seen.clone(),
        );
        let _ = self.requests.get_or_create(&RequestLabels { op: "read", result: "ok" });
        for result in WriteResult::ALL {
            let _ = self.writes.get_or_create(&result.label());
        }
    }

    pub(super) fn count(&self, event: &Event) {
        match event {
            Event::StoreTrouble { .. } => self.troubles.inc(),
            Event::WriteFenced { .. } => self.writes_fenced.inc(),
            _ => return,
        };
    }

    pub(super) fn requested(&self, op: &'static str, result: &'static str, took: Duration) {
        self.requests.get_or_create(&RequestLabels { op, result }).observe(took.as_secs_f64());
    }

    pub(super) fn write_began(&self) {
        self.writes_in_flight.inc();
    }

    pub(super) fn write_ended(&self, result: WriteResult, took: Duration) {
        self.writes_in_flight.dec();
        self.writes.get_or_create(&result.label()).observe(took.as_secs_f64());
    }

    pub(super) fn endpoint(
        &self,
        endpoint: &str,
        rtt: Option<Duration>,
        fault: Option<(String, String)>,
        now_ms: u64,
    ) {
        let label = EndpointLabel { endpoint: endpoint.to_owned() };
        self.endpoint_up.get_or_create(&label).set(i64::from(rtt.is_some()));
        let seen = self.endpoint_seen.get_or_create(&label);
        if let Some(rtt) = rtt {
            seen.set(now_ms as f64 / 1000.0);
            self.endpoint_rtt.get_or_create(&label).observe(rtt.as_secs_f64());
        }
        let mut looks = self.looks();
        let last_seen = looks.get(endpoint).and_then(|look| look.seen_ms);
        let seen_ms = rtt.map(|_| now_ms).or(last_seen);
        looks.insert(endpoint.to_owned(), LastLook { rtt, seen_ms, fault });
    }

    pub(super) fn endpoints(&self) -> BTreeMap<String, LastLook> {
        self.looks().clone()
    }

    fn looks(&self) -> MutexGuard<'_, BTreeMap<String, LastLook>> {
        self.last_looks.lock().unwrap_or_else(|e| e.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_that_does_not_answer_keeps_the_time_of_its_last_answer() {
        let metrics = StoreMetrics::new();
        let rtt = Some(Duration::from_millis(2));
        metrics.endpoint("a", rtt, None, 5_000);
        metrics.endpoint("b", None, None, 5_000);
        let hangs = Some(("hangs".to_owned(), "look at it".to_owned()));
        metrics.endpoint("a", None, hangs.clone(), 10_000);
        let looks = metrics.endpoints();
        assert_eq!(looks["a"], LastLook { rtt: None, seen_ms: Some(5_000), fault: hangs });
        assert_eq!(looks["b"], LastLook { rtt: None, seen_ms: None, fault: None });
        metrics.endpoint("a", rtt, None, 15_000);
        assert_eq!(metrics.endpoints()["a"], LastLook { rtt, seen_ms: Some(15_000), fault: None });
    }
}
