//! The numbers behind the findings: what the last look measured of each member of etcd and of each meta node, for
//! those who draw them.

use serde::Serialize;

use super::facts::{EndpointFacts, EtcdFacts, Facts, Seen};
use super::judge::millis;
use super::judge::room::quota_of;
use super::page::{COMMIT, FSYNC};
use crate::store::probe::MemberStatus;

/// What one look has measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Measured {
    /// The meta nodes that answered.
    pub members: Vec<MemberNumbers>,
    /// The members of etcd that answered.
    pub etcd: Vec<EndpointNumbers>,
}

/// What was measured of a meta node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MemberNumbers {
    /// Its node id.
    pub node: String,
    /// The round trip to it, in milliseconds.
    pub rtt_ms: f64,
    /// By how much its wall clock is ahead of ours, in milliseconds.
    pub skew_ms: f64,
    /// How much of one CPU it used, as it says.
    pub cpu_percent: Option<f64>,
    /// Its resident memory, as it says.
    pub rss_bytes: Option<u64>,
    /// The least part of its lease that was left, while it leads.
    pub headroom: Option<f64>,
}

/// What was measured of a member of etcd.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EndpointNumbers {
    /// Its URL, as it is configured.
    pub endpoint: String,
    /// Its name in etcd, or its URL.
    pub name: String,
    /// Does it lead etcd?
    pub is_leader: bool,
    /// Its version.
    pub version: String,
    /// The 99th percentile of its syncs of the log, in milliseconds, if it shows that.
    pub fsync_p99_ms: Option<f64>,
    /// The same of its commits.
    pub commit_p99_ms: Option<f64>,
    /// The size of its database.
    pub db_bytes: u64,
    /// Its quota, if it tells.
    pub quota_bytes: Option<u64>,
}

// === impl Measured ===

impl Measured {
    /// Out of the facts of a look.
    pub fn of(facts: &Facts) -> Self {
        let seen = facts.meta.iter().flat_map(|m| &m.answers).filter_map(|a| a.seen.as_ref().ok());
        let of_etcd = |etcd: &EtcdFacts| etcd.answering().map(|(e, s)| endpoint(etcd, e, s)).collect();
        Self {
            members: seen.map(member).collect(),
            etcd: facts.etcd.as_ref().map(of_etcd).unwrap_or_default(),
        }
    }
}

/// One digit: more is noise.
pub fn tenths(x: f64) -> f64 {
    (x * 10.0).round() / 10.0
}

fn member(seen: &Seen) -> MemberNumbers {
    MemberNumbers {
        node: seen.node.clone(),
        rtt_ms: tenths(millis(seen.rtt)),
        skew_ms: tenths(seen.ahead_ms),
        cpu_percent: seen.burden.map(|b| tenths(b.cpu_percent)),
        rss_bytes: seen.burden.map(|b| b.rss_bytes),
        headroom: seen.burden.and_then(|b| b.headroom),
    }
}

fn endpoint(etcd: &EtcdFacts, facts: &EndpointFacts, status: &MemberStatus) -> EndpointNumbers {
    let before = facts.page_before.as_ref().map(|(page, _)| page);
    let p99_ms = |name| facts.page.as_ref().ok().and_then(|page| page.p99_ms(name, before)).map(tenths);
    EndpointNumbers {
        endpoint: facts.probe.place.clone(),
        name: etcd.name_of(facts),
        is_leader: status.leader == status.member,
        version: status.version.clone(),
        fsync_p99_ms: p99_ms(FSYNC),
        commit_p99_ms: p99_ms(COMMIT),
        db_bytes: status.db_size,
        quota_bytes: quota_of(facts, status),
    }
}
