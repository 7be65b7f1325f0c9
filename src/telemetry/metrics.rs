//! The metrics: names, help, labels. No lease id, address or error text ever becomes a label.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::event::Event;

/// Renewals from 1 ms to 16 s.
const RENEWAL_BUCKETS_SECS: [f64; 8] = [0.001, 0.004, 0.016, 0.063, 0.25, 1.0, 4.0, 16.0];

/// This process's metrics.
pub struct Metrics {
    registry: Mutex<Registry>,
    node: String,
    leads: Family<NameLabel, Gauge>,
    has_leader: Gauge,
    leader_changes: Counter,
    transitions: Family<TransitionLabels, Counter>,
    terminations: Family<ReasonLabel, Counter>,
    claims: Family<ResultLabel, Counter>,
    token: Gauge<u64, AtomicU64>,
    lease_ttl: Gauge<f64, AtomicU64>,
    renewals: Histogram,
    store_troubles: Counter,
    writes_fenced: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NameLabel {
    name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TransitionLabels {
    direction: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

/// A gauge that is computed when somebody looks: otherwise it would stand still between two renewals.
struct Computed {
    name: &'static str,
    help: &'static str,
    value: Box<dyn Fn() -> f64 + Send + Sync>,
}

// === impl Metrics ===

impl Metrics {
    pub(super) fn new(node: &str) -> Self {
        let metrics = Self {
            registry: Mutex::new(Registry::default()),
            node: node.to_owned(),
            leads: Family::default(),
            has_leader: Gauge::default(),
            leader_changes: Counter::default(),
            transitions: Family::default(),
            terminations: Family::default(),
            claims: Family::default(),
            token: Gauge::default(),
            lease_ttl: Gauge::default(),
            renewals: Histogram::new(RENEWAL_BUCKETS_SECS),
            store_troubles: Counter::default(),
            writes_fenced: Counter::default(),
        };
        metrics.register();
        metrics.set_leads(false);
        metrics
    }

    fn register(&self) {
        let mut r = self.registry.lock().unwrap_or_else(|e| e.into_inner());
        r.register("leader_election_master_status", "1 while this node's main loop runs", self.leads.clone());
        r.register("metad_has_leader", "1 while this node sees a leader", self.has_leader.clone());
        r.register("metad_leader_changes_seen", "Changes of the leader", self.leader_changes.clone());
        r.register(
            "metad_leadership_transitions",
            "Own leaderships gained and lost",
            self.transitions.clone(),
        );
        r.register(
            "metad_lease_terminations",
            "Own tenures ended; resigned_* and main_loop_ended are benign",
            self.terminations.clone(),
        );
        r.register("metad_election_campaigns", "Claims of the vacant seat, by result", self.claims.clone());
        r.register("metad_leader_token", "Fencing token of the leader seen last", self.token.clone());
        r.register(
            "metad_lease_ttl_seconds",
            "Granted time to live of this node's lease",
            self.lease_ttl.clone(),
        );
        r.register(
            "metad_lease_keepalive_duration_seconds",
            "From sending a renewal to its answer",
            self.renewals.clone(),
        );
        r.register("metad_store_troubles", "Times that the store began to fail", self.store_troubles.clone());
        r.register(
            "metad_writes_fenced",
            "Writes of this node that the store refused because another member leads",
            self.writes_fenced.clone(),
        );
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        r.register("metad_build", "The software", build);
    }

    /// Registers a gauge that is computed at each look.
    pub fn register_computed(
        &self,
        name: &'static str,
        help: &'static str,
        value: impl Fn() -> f64 + Send + Sync + 'static,
    ) {
        let computed = Computed { name, help, value: Box::new(value) };
        self.registry
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .register_collector(Box::new(Arc::new(computed)));
    }

    /// Registers what the kernel knows of this process.
    pub fn register_process(&self) {
        let start = crate::clock::wall_clock_ms() as f64 / 1000.0;
        self.register_computed("process_start_time_seconds", "Start, since the Unix epoch", move || start);
        self.register_computed("process_cpu_seconds_total", "User and system time", cpu_seconds);
        self.register_computed("process_resident_memory_bytes", "Resident memory", resident_bytes);
        self.register_computed("process_open_fds", "Open file descriptors", || {
            std::fs::read_dir("/proc/self/fd").map_or(0.0, |fds| fds.count() as f64)
        });
    }

    /// Takes in the granted time to live.
    pub fn set_lease_ttl(&self, ttl: Duration) {
        self.lease_ttl.set(ttl.as_secs_f64());
    }

    /// Takes in how long a renewal took.
    pub fn observe_renewal(&self, took: Duration) {
        self.renewals.observe(took.as_secs_f64());
    }

    pub(super) fn count(&self, event: &Event) {
        match event {
            Event::LeaderChanged { leader, token, .. } => {
                self.has_leader.set(i64::from(leader.is_some()));
                self.leader_changes.inc();
                if let Some(token) = token {
                    self.token.set(token.get());
                }
            }
            Event::LeadershipWon { .. } => self.claim("won"),
            Event::ClaimLost => self.claim("lost"),
            Event::WriteFenced { .. } => {
                self.writes_fenced.inc();
            }
            Event::MainLoopStarted { .. } => {
                self.set_leads(true);
                self.transition("gained", "won");
            }
            Event::MainLoopStopped { reason, .. } => {
                self.set_leads(false);
                self.transition("lost", reason.as_str());
                self.terminations.get_or_create(&ReasonLabel { reason: reason.as_str() }).inc();
            }
            Event::StoreTrouble { .. } => {
                self.store_troubles.inc();
            }
            _ => {}
        }
    }

    fn claim(&self, result: &'static str) {
        self.claims.get_or_create(&ResultLabel { result }).inc();
    }

    fn transition(&self, direction: &'static str, reason: &'static str) {
        self.transitions.get_or_create(&TransitionLabels { direction, reason }).inc();
    }

    fn set_leads(&self, leads: bool) {
        self.leads.get_or_create(&NameLabel { name: self.node.clone() }).set(i64::from(leads));
    }

    /// The text that Prometheus reads.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(|e| e.into_inner());
        // Writing to a String does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
        text
    }
}

/// Fields 14 and 15 of proc(5)'s stat, counted after the command's closing parenthesis.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / rustix::param::clock_ticks_per_second() as f64
}

fn resident_bytes() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = statm.split_whitespace().nth(1).and_then(|p| p.parse().ok()).unwrap_or(0.0);
    pages * rustix::param::page_size() as f64
}

// === impl Computed ===

impl fmt::Debug for Computed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Computed").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Collector for Computed {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let gauge = ConstGauge::new((self.value)());
        let metric = encoder.encode_descriptor(self.name, self.help, None, gauge.metric_type())?;
        gauge.encode(metric)
    }
}
