//! The lease and its renewals, and the driver's own punctuality.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::ResultLabel;

/// How full the lease may still be.
const HEADROOM_BUCKETS: [f64; 14] =
    [0.05, 0.1, 0.15, 0.2, 0.25, 0.33, 0.4, 0.5, 0.6, 0.66, 0.7, 0.8, 0.9, 0.95];
/// Around the cadences of renewals: 0.1 s … 1 s of a leader, a third of the lease of a candidate.
const INTERVAL_BUCKETS_SECS: [f64; 12] = [0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 60.0, 600.0];
/// A driver sleeps for at most a second; what is beyond, it was not allowed to run.
const TICK_BUCKETS_SECS: [f64; 11] = [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0];
/// A timer is a millisecond or two late on an idle machine.
const DELAY_BUCKETS_SECS: [f64; 12] =
    [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// What became of an attempt to renew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenewalResult {
    /// The lease lives.
    Renewed,
    /// Whoever answered knows no such lease.
    NotFound,
    /// There was no answer, or a refusal.
    Failed,
}

pub(super) struct LeaseMetrics {
    ttl: Gauge<f64, AtomicU64>,
    durations: Family<ResultLabel, Histogram, fn() -> Histogram>,
    intervals: Histogram,
    headroom: Histogram,
    tick_intervals: Histogram,
    tick_delays: Histogram,
}

// === impl RenewalResult ===

impl RenewalResult {
    const ALL: [RenewalResult; 3] = [RenewalResult::Renewed, RenewalResult::NotFound, RenewalResult::Failed];

    fn label(self) -> ResultLabel {
        let result = match self {
            RenewalResult::Renewed => "renewed",
            RenewalResult::NotFound => "not_found",
            RenewalResult::Failed => "failed",
        };
        ResultLabel { result }
    }
}

// === impl LeaseMetrics ===

impl LeaseMetrics {
    pub(super) fn new() -> Self {
        Self {
            ttl: Gauge::default(),
            // 1 ms … 16 s: etcd itself gives up after 7 s, an attempt of ours after 8 s.
            durations: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 2.0, 15))),
            intervals: Histogram::new(INTERVAL_BUCKETS_SECS),
            headroom: Histogram::new(HEADROOM_BUCKETS),
            tick_intervals: Histogram::new(TICK_BUCKETS_SECS),
            tick_delays: Histogram::new(DELAY_BUCKETS_SECS),
        }
    }

    pub(super) fn register(&self, r: &mut Registry) {
        r.register(
            "metad_lease_ttl_seconds",
            "Granted time to live of this node's lease; 0 before it has one",
            self.ttl.clone(),
        );
        r.register(
            "metad_lease_keepalive_duration_seconds",
            "Time from sending a renewal to its answer: renewed, not_found, failed",
            self.durations.clone(),
        );
        r.register(
            "metad_lease_keepalive_interval_seconds",
            "Time between two confirmed renewals",
            self.intervals.clone(),
        );
        r.register(
            "metad_lease_headroom_ratio",
            "Part of the lease that was left when a renewal was confirmed: a leader's is near 0.95, a \
             candidate's near 0.67; at 0 leadership is lost",
            self.headroom.clone(),
        );
        r.register(
            "metad_lease_tick_interval_seconds",
            "Time between two runs of the election's thread; more than a second: it was kept from running",
            self.tick_intervals.clone(),
        );
        r.register(
            "metad_lease_tick_delay_seconds",
            "Delay of the timer of the election's thread, the first sign of a starved CPU",
            self.tick_delays.clone(),
        );
        for result in RenewalResult::ALL {
            let _ = self.durations.get_or_create(&result.label());
        }
    }

    pub(super) fn set_ttl(&self, ttl: Duration) {
        self.ttl.set(ttl.as_secs_f64());
    }

    pub(super) fn attempt(&self, result: RenewalResult, took: Duration) {
        self.durations.get_or_create(&result.label()).observe(took.as_secs_f64());
    }

    pub(super) fn confirmed(&self, since_last: Option<Duration>, headroom: f64) {
        self.headroom.observe(headroom);
        if let Some(interval) = since_last {
            self.intervals.observe(interval.as_secs_f64());
        }
    }

    pub(super) fn ticked(&self, interval: Duration, delay: Option<Duration>) {
        self.tick_intervals.observe(interval.as_secs_f64());
        if let Some(delay) = delay {
            self.tick_delays.observe(delay.as_secs_f64());
        }
    }
}
