//! Which lease fits, from what a node has recorded.

use serde::Serialize;

use super::{SchemaVersion, Time};
use crate::clock::millis;
use crate::diagnosis::advice::{LeaseAdvice, LeaseCandidate};

/// `metad advise lease`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AdviceDocument {
    /// The form of this document.
    pub schema_version: SchemaVersion,
    /// When the recording began; nothing is older than 30 days.
    pub began: Option<Time>,
    /// For how long this node has led in it.
    pub led_ms: u64,
    /// The least part of the lease that was left when a renewal was confirmed.
    pub lowest_headroom: Option<f64>,
    /// The stalls of the store.
    pub store_stalls: usize,
    /// The longest of them, as long as it can have been.
    pub longest_store_stall_ms: u64,
    /// The stalls of this process, or of its machine.
    pub process_stalls: usize,
    /// The longest of them, as long as it can have been.
    pub longest_process_stall_ms: u64,
    /// The stalls that are not kept, because their hour had worse ones.
    pub left_out: u64,
    /// The stalls that cost the leadership.
    pub lost: usize,
    /// Those of them that nobody has seen to end.
    pub unended: usize,
    /// The leases that were in force at the stalls.
    pub recorded_under_secs: Vec<u64>,
    /// The configured lease.
    pub configured_secs: u64,
    /// The lease that is recommended; null: there is too little to say so.
    pub recommended_secs: Option<u64>,
    /// Why.
    pub why: String,
    /// The leases that were tried, the shortest first.
    pub leases: Vec<LeaseTrial>,
}

/// What a lease would have come to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LeaseTrial {
    /// The lease.
    pub lease_secs: u64,
    /// How often leadership would have been lost at least.
    pub at_least: usize,
    /// How often it would probably have been lost.
    pub likely: usize,
    /// How often it would have been lost at most.
    pub at_most: usize,
    /// The longest stall of the store that it survives for sure.
    pub survives_ms: u64,
    /// For how long nobody leads at most after a crash of the leader's machine.
    pub machine_dies_ms: u64,
}

impl From<&LeaseAdvice> for AdviceDocument {
    fn from(advice: &LeaseAdvice) -> Self {
        let ([store_stalls, process_stalls], [of_store, of_process]) = (advice.stalls, advice.longest);
        Self {
            schema_version: SchemaVersion,
            began: advice.began_ms.map(Time),
            led_ms: millis(advice.led),
            lowest_headroom: advice.lowest_headroom,
            store_stalls,
            longest_store_stall_ms: millis(of_store),
            process_stalls,
            longest_process_stall_ms: millis(of_process),
            left_out: advice.left_out,
            lost: advice.lost,
            unended: advice.unended,
            recorded_under_secs: advice.recorded_under.iter().map(|ttl| ttl.as_secs()).collect(),
            configured_secs: advice.configured.as_secs(),
            recommended_secs: advice.recommended.map(|ttl| ttl.as_secs()),
            why: advice.why.clone(),
            leases: advice.candidates.iter().map(LeaseTrial::from).collect(),
        }
    }
}

impl From<&LeaseCandidate> for LeaseTrial {
    fn from(candidate: &LeaseCandidate) -> Self {
        let [at_least, likely, at_most] = candidate.losses;
        Self {
            lease_secs: candidate.ttl.as_secs(),
            at_least,
            likely,
            at_most,
            survives_ms: millis(candidate.survives),
            machine_dies_ms: millis(candidate.machine_dies),
        }
    }
}
