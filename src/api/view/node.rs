//! What only the node itself knows: its lease, who has gone, its store, its process.

use std::time::Duration;

use serde::Serialize;

use super::{StatusDocument, Time};
use crate::clock::{Instant, millis};
use crate::diagnosis::checks::measured::tenths;
use crate::election::lease::LeaseTiming;
use crate::election::record::Tenure;
use crate::election::status::Status;
use crate::telemetry::metrics::{LastLook, Usage};

/// What a dead machine costs beyond its lease: the watch, the claim, and the first fenced write.
const TAKE_OVER: Duration = Duration::from_millis(500);

/// All that a node knows at the moment: `/api/v1/state`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StateDocument {
    /// What every node could say.
    #[serde(flatten)]
    pub status: StatusDocument,
    /// This node's wall clock.
    pub time: Time,
    /// This node's own lease; the leader's, if it leads.
    pub lease: Option<Lease>,
    /// How long it would take until another leads.
    pub failover_budget: Option<FailoverBudget>,
    /// The store, as this node sees it.
    pub store: StoreView,
    /// This node's process.
    pub process: Process,
}

/// A lease as its holder counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Lease {
    /// The granted time to live.
    pub ttl_ms: u64,
    /// How long it certainly still holds.
    pub remaining_ms: u64,
    /// When the main loop would be told to stop, if no renewal were confirmed.
    pub step_down_in_ms: u64,
    /// How long the main loop then has.
    pub stop_budget_ms: u64,
}

/// How long it would take until another leads. A process that dies is replaced as soon as its guardian sees it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct FailoverBudget {
    /// A planned change: the round trip of one write. `None`: unknown.
    pub planned_ms: Option<f64>,
    /// A machine that dies: at most the lease and what follows it.
    pub machine_ms: u64,
}

/// The store.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StoreView {
    /// etcd or sqlite.
    pub kind: &'static str,
    /// The members of etcd.
    pub endpoints: Vec<Endpoint>,
}

/// A member of etcd, as this node last probed it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Endpoint {
    /// Its URL, as it is configured.
    pub endpoint: String,
    /// Did it answer?
    pub up: bool,
    /// How long that took.
    pub rtt_ms: Option<f64>,
    /// When it last answered.
    pub answered: Option<Time>,
    /// What was found there instead, as it follows the URL: "refuses connections: nothing listens there".
    pub finding: Option<String>,
    /// What to do about that.
    pub fix: Option<String>,
}

/// What this node's process uses.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Process {
    /// User and system time since its start.
    pub cpu_secs: f64,
    /// Its resident memory.
    pub rss_bytes: u64,
}

// === impl Lease ===

impl Lease {
    /// This node's own lease.
    pub fn of(status: &Status, now: Instant) -> Option<Self> {
        let (holds_until, ttl) = status.holds_until.zip(status.ttl)?;
        let stop_budget = LeaseTiming::new(ttl).stop_budget();
        let left = now.until(holds_until);
        Some(Self {
            ttl_ms: millis(ttl),
            remaining_ms: millis(left),
            step_down_in_ms: millis(left.saturating_sub(stop_budget)),
            stop_budget_ms: millis(stop_budget),
        })
    }
}

// === impl FailoverBudget ===

impl FailoverBudget {
    /// Of this tenure, with the fastest of these endpoints that answers.
    pub fn of<'a>(tenure: &Tenure, endpoints: impl Iterator<Item = &'a LastLook>) -> Self {
        let fastest = endpoints.filter_map(|look| look.rtt).min();
        Self { planned_ms: fastest.map(tenths_ms), machine_ms: millis(tenure.record.ttl + TAKE_OVER) }
    }
}

// === impl Endpoint ===

impl Endpoint {
    /// What the last probe of this URL showed.
    pub fn of(url: &str, look: &LastLook) -> Self {
        Self {
            endpoint: url.to_owned(),
            up: look.rtt.is_some(),
            rtt_ms: look.rtt.map(tenths_ms),
            answered: look.seen_ms.map(Time),
            finding: look.fault.as_ref().map(|(finding, _)| finding.clone()),
            fix: look.fault.as_ref().map(|(_, fix)| fix.clone()),
        }
    }
}

// === impl Process ===

impl From<Usage> for Process {
    fn from(usage: Usage) -> Self {
        Self { cpu_secs: usage.cpu_secs, rss_bytes: usage.rss_bytes as u64 }
    }
}

fn tenths_ms(d: Duration) -> f64 {
    tenths(d.as_secs_f64() * 1000.0)
}
