//! What the built-in main loop does: workers and barriers.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::ResultLabel;

/// What became of a barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarrierResult {
    /// Its epoch is committed.
    Committed,
    /// Not all workers collected it in time.
    TimedOut,
    /// A worker left before it had collected it.
    WorkerLeft,
    /// Its commit was not written.
    CommitFailed,
}

pub(super) struct ClusterMetrics {
    workers: Gauge,
    aside: Gauge,
    barriers: Family<ResultLabel, Counter>,
    latency: Histogram,
}

// === impl BarrierResult ===

impl BarrierResult {
    const ALL: [BarrierResult; 4] = [
        BarrierResult::Committed,
        BarrierResult::TimedOut,
        BarrierResult::WorkerLeft,
        BarrierResult::CommitFailed,
    ];

    fn label(self) -> ResultLabel {
        let result = match self {
            BarrierResult::Committed => "committed",
            BarrierResult::TimedOut => "timed_out",
            BarrierResult::WorkerLeft => "worker_left",
            BarrierResult::CommitFailed => "commit_failed",
        };
        ResultLabel { result }
    }
}

// === impl ClusterMetrics ===

impl ClusterMetrics {
    pub(super) fn new() -> Self {
        Self {
            workers: Gauge::default(),
            aside: Gauge::default(),
            barriers: Family::default(),
            latency: Histogram::new(exponential_buckets(0.002, 2.0, 14)), // 2 ms … 16 s
        }
    }

    pub(super) fn register(&self, r: &mut Registry) {
        r.register("metad_workers", "Registered workers, on the leader", self.workers.clone());
        r.register(
            "metad_workers_set_aside",
            "Workers that barriers do not wait for, on the leader",
            self.aside.clone(),
        );
        r.register(
            "metad_barriers",
            "Barriers of this leader: committed, timed_out, worker_left, commit_failed",
            self.barriers.clone(),
        );
        r.register(
            "metad_barrier_latency_seconds",
            "Time from a barrier's injection to its commit",
            self.latency.clone(),
        );
        for result in BarrierResult::ALL {
            let _ = self.barriers.get_or_create(&result.label());
        }
    }

    pub(super) fn set_workers(&self, n: usize) {
        self.workers.set(i64::try_from(n).unwrap_or(i64::MAX));
    }

    pub(super) fn set_aside(&self, n: usize) {
        self.aside.set(i64::try_from(n).unwrap_or(i64::MAX));
    }

    pub(super) fn barrier(&self, result: BarrierResult) {
        self.barriers.get_or_create(&result.label()).inc();
    }

    pub(super) fn committed(&self, latency: Duration) {
        self.barrier(BarrierResult::Committed);
        self.latency.observe(latency.as_secs_f64());
    }
}
