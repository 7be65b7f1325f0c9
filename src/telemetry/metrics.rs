//! The metrics: names, help, labels. `src/docs/metrics.md` is written from the page, so the help of a metric says all
//! that there is to say of it: its values, and what a reader would not expect.
//!
//! No lease id and no error text ever becomes a label; the only addresses that do are the configured endpoints of
//! etcd. Every set of labels is bounded. Counting costs a few atomic operations and never waits for a reader.

mod checks;
mod cluster;
mod computed;
mod election;
pub mod grpc;
mod lease;
pub mod limits;
mod members;
mod process;
mod store;
mod text;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::event::Event;
use crate::clock::{Instant, wall_clock_ms};
use crate::election::departure::Departure;
use checks::CheckMetrics;
use cluster::ClusterMetrics;
use computed::{Computed, MetricKind};
use election::ElectionMetrics;
use grpc::GrpcMetrics;
use lease::LeaseMetrics;
use limits::{Limit, LimitMetrics, Listener};
use members::MemberGauges;
use store::StoreMetrics;

pub use cluster::BarrierResult;
pub use lease::RenewalResult;
pub use members::ViewAge;
pub use process::Usage;
pub use store::{LastLook, WriteResult};

/// This process's metrics.
pub struct Metrics {
    registry: Mutex<Registry>,
    election: ElectionMetrics,
    lease: LeaseMetrics,
    store: StoreMetrics,
    cluster: ClusterMetrics,
    grpc: GrpcMetrics,
    limits: LimitMetrics,
    members: MemberGauges,
    checks: CheckMetrics,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

// === impl Metrics: the page ===

impl Metrics {
    pub(super) fn new(node: &str) -> Self {
        let metrics = Self {
            registry: Mutex::new(Registry::default()),
            election: ElectionMetrics::new(node),
            lease: LeaseMetrics::new(),
            store: StoreMetrics::new(),
            cluster: ClusterMetrics::new(),
            grpc: GrpcMetrics::new(),
            limits: LimitMetrics::default(),
            members: MemberGauges::default(),
            checks: CheckMetrics::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&self) {
        let mut r = self.registry();
        self.election.register(&mut r);
        self.lease.register(&mut r);
        self.store.register(&mut r);
        self.cluster.register(&mut r);
        self.grpc.register(&mut r);
        self.limits.register(&mut r);
        self.checks.register(&mut r);
        r.register(
            "metad_build",
            "Version of this software; always 1",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
    }

    /// Registers what is computed at each look: for how long the lease certainly holds, whether a leader is known, and how
    /// old this node's view of the election is, with the members in it.
    pub fn register_view(
        &self,
        holds: impl Fn() -> Duration + Send + Sync + 'static,
        has_leader: impl Fn() -> bool + Send + Sync + 'static,
        view: impl Fn() -> ViewAge + Clone + Send + Sync + 'static,
    ) {
        self.register_computed(
            "metad_lease_remaining_seconds",
            "Time for which this node's lease certainly holds, computed at each scrape",
            move || holds().as_secs_f64(),
        );
        self.register_kind(
            MetricKind::Flag,
            "metad_has_leader",
            "1 while this node sees a leader; 0 also once its view is older than the lease, and says nothing any more",
            move || f64::from(u8::from(has_leader())),
        );
        let seconds = view.clone();
        self.register_computed(
            "metad_picture_age_seconds",
            "Time since the store last confirmed this node's view of the election",
            move || seconds().age.as_secs_f64(),
        );
        let shown = members::Shown { members: self.members.clone(), view: Box::new(view) };
        self.registry().register_collector(Box::new(shown));
    }

    /// Registers what the kernel knows of this process.
    pub fn register_process(&self) {
        process::register(self);
    }

    fn register_computed(
        &self,
        name: &'static str,
        help: &'static str,
        value: impl Fn() -> f64 + Send + Sync + 'static,
    ) {
        self.register_kind(MetricKind::Gauge, name, help, value);
    }

    fn register_kind(
        &self,
        kind: MetricKind,
        name: &'static str,
        help: &'static str,
        value: impl Fn() -> f64 + Send + Sync + 'static,
    ) {
        let computed = Computed { name, help, kind, value: Box::new(value) };
        self.registry().register_collector(Box::new(computed));
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The page, as OpenMetrics.
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry());
        text
    }

    /// The page in Prometheus's own text format.
    pub fn render_classic(&self) -> String {
        text::classic(&self.render())
    }
}

// === impl Metrics: counting ===

impl Metrics {
    pub(super) fn count(&self, event: &Event) {
        self.election.count(event);
        self.store.count(event);
        self.members.count(event);
    }

    /// For how long nobody has led, if this node has seen the last leader go.
    pub fn vacant_for(&self, now: Instant) -> Option<Duration> {
        self.election.vacant_for(now)
    }

    /// The record has changed: how its holder left (`None`: nobody led), and whether somebody leads now.
    pub fn leader_changed(&self, now: Instant, left: Option<Departure>, is_held: bool) {
        self.election.leader_changed(now, left, is_held);
    }

    /// Does a probe of this node fail?
    pub fn set_probe_failing(&self, fails: bool) {
        self.election.set_probe_failing(fails);
    }

    /// Takes in the granted time to live.
    pub fn set_lease_ttl(&self, ttl: Duration) {
        self.lease.set_ttl(ttl);
    }

    /// An attempt to renew has ended, after so long.
    pub fn renewal_ended(&self, result: RenewalResult, took: Duration) {
        self.lease.attempt(result, took);
    }

    pub(super) fn renewal_confirmed(&self, since_last: Option<Duration>, headroom: f64) {
        self.lease.confirmed(since_last, headroom);
    }

    /// The driver looked at the clock, so long after the last time, and, if its timer woke it, so late.
    pub fn driver_ticked(&self, interval: Duration, delay: Option<Duration>) {
        self.lease.ticked(interval, delay);
    }

    /// A request of the election has ended. `op` and `result` are of closed sets.
    pub fn store_asked(&self, op: &'static str, result: &'static str, took: Duration) {
        self.store.requested(op, result, took);
    }

    /// A fenced write began; [`Metrics::write_ended`] must follow.
    pub fn write_began(&self) {
        self.store.write_began();
    }

    /// A fenced write has ended, after so long.
    pub fn write_ended(&self, result: WriteResult, took: Duration) {
        self.store.write_ended(result, took);
    }

    /// A look at an endpoint of etcd was answered after so long, or not at all; `fault`: what was found there, and what
    /// to do about it.
    pub fn endpoint_looked_at(&self, endpoint: &str, rtt: Option<Duration>, fault: Option<(String, String)>) {
        self.store.endpoint(endpoint, rtt, fault, wall_clock_ms());
    }

    /// How each endpoint of etcd did when it was last looked at.
    pub fn endpoints(&self) -> BTreeMap<String, LastLook> {
        self.store.endpoints()
    }

    /// The members that have gone within the last hour, and when, in milliseconds since the Unix epoch.
    pub fn members_gone(&self) -> Vec<(String, u64)> {
        self.members.gone(wall_clock_ms())
    }

    /// So many workers are registered.
    pub fn set_workers(&self, n: usize) {
        self.cluster.set_workers(n);
    }

    /// Barriers do not wait for so many workers.
    pub fn set_workers_aside(&self, n: usize) {
        self.cluster.set_aside(n);
    }

    /// A barrier was committed, so long after its injection.
    pub fn barrier_committed(&self, latency: Duration) {
        self.cluster.committed(latency);
    }

    /// A barrier was dropped.
    pub fn barrier_dropped(&self, why: BarrierResult) {
        self.cluster.barrier(why);
    }

    /// A check has this result: 0 pass, 1 warn, 2 fail, 3 unknown. `code` is of a closed set.
    pub fn check_made(&self, code: &str, status: i32) {
        self.checks.made(code, status);
    }

    /// A check that was made before does not apply any more.
    pub fn check_not_made(&self, code: &str) {
        self.checks.not_made(code);
    }

    /// A limit kept a client from something.
    pub fn limit_reached(&self, listener: Listener, limit: Limit) {
        self.limits.reached(listener, limit);
    }

    /// So many clients are connected.
    pub fn set_connections(&self, listener: Listener, n: usize) {
        self.limits.set_connections(listener, n);
    }

    /// The calls that are served.
    pub fn grpc(&self) -> &GrpcMetrics {
        &self.grpc
    }
}
