//! The checks: what was found, and the numbers behind it.

use serde::Serialize;

use super::{SchemaVersion, Time, tenths};
use crate::diagnosis::checks;
use crate::diagnosis::checks::background::Latest;
use crate::diagnosis::checks::measured::{EndpointNumbers, MemberNumbers};

/// What a node found when it last checked itself: `/api/v1/checks`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChecksDocument {
    /// The form of this document.
    pub schema_version: SchemaVersion,
    /// When; `None`: not yet.
    pub at: Option<Time>,
    /// One for each check.
    pub findings: Vec<Finding>,
    /// The meta nodes that answered.
    pub members: Vec<MeasuredMember>,
    /// The members of etcd that answered.
    pub etcd: Vec<MeasuredEndpoint>,
}

/// What an examination has shown: `metad doctor` and `metad check`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReportDocument {
    /// The form of this document.
    pub schema_version: SchemaVersion,
    /// The worst of the findings.
    pub status: &'static str,
    /// One for each check.
    pub findings: Vec<Finding>,
    /// What was not looked at.
    pub skipped: Vec<Skipped>,
}

/// How a check ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// The code, such as `ETCD_005`.
    pub code: String,
    /// The name for a command line, such as `etcd-slow-fsync`.
    pub name: String,
    /// What is checked, in a few words.
    pub title: String,
    /// pass, warn, fail or unknown.
    pub status: &'static str,
    /// What was measured.
    pub measured: String,
    /// What it should be.
    pub limit: String,
    /// Why it matters.
    pub why: String,
    /// What to do; empty when there is nothing.
    pub fix: String,
    /// Where it is explained.
    pub doc: String,
    /// The number behind it, if it is one.
    pub reading: Option<Reading>,
}

/// The number behind a finding.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reading {
    /// The number.
    pub value: f64,
    /// Its unit: `ms`, `%`, `B`, or none.
    pub unit: String,
    /// From here on it is a warning.
    pub warn: f64,
    /// Is it the lower number that is worse?
    pub lower_is_worse: bool,
}

/// A check that was not made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// Its code.
    pub code: String,
    /// Why not.
    pub why: String,
}

/// What was measured of a meta node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MeasuredMember {
    /// Its node id.
    pub node: String,
    /// The round trip to it.
    pub rtt_ms: f64,
    /// By how much its wall clock is ahead of the answerer's.
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
pub struct MeasuredEndpoint {
    /// Its URL, as it is configured.
    pub endpoint: String,
    /// Its name in etcd.
    pub name: String,
    /// Does it lead etcd?
    pub is_leader: bool,
    /// Its version.
    pub version: String,
    /// The 99th percentile of its syncs of the log.
    pub fsync_p99_ms: Option<f64>,
    /// The 99th percentile of its commits.
    pub commit_p99_ms: Option<f64>,
    /// The size of its database.
    pub db_bytes: u64,
    /// Its quota, if it tells.
    pub quota_bytes: Option<u64>,
}

// === impl ChecksDocument ===

impl ChecksDocument {
    /// What this node found last.
    pub fn of(latest: &Latest) -> Self {
        Self {
            schema_version: SchemaVersion,
            at: Some(latest.at_ms).filter(|at| *at > 0).map(Time),
            findings: latest.findings.iter().map(Finding::of).collect(),
            members: latest.measured.members.iter().map(MeasuredMember::of).collect(),
            etcd: latest.measured.etcd.iter().map(MeasuredEndpoint::of).collect(),
        }
    }
}

// === impl ReportDocument ===

impl ReportDocument {
    /// The report of an examination.
    pub fn of(report: &checks::Report) -> Self {
        let skipped = |s: &checks::Skipped| Skipped { code: s.code.to_owned(), why: s.why.clone() };
        Self {
            schema_version: SchemaVersion,
            status: report.status().as_str(),
            findings: report.findings.iter().map(Finding::of).collect(),
            skipped: report.skipped.iter().map(skipped).collect(),
        }
    }
}

// === impl Finding ===

impl Finding {
    /// The same for those who read it.
    pub fn of(f: &checks::Finding) -> Self {
        Self {
            code: f.code.clone(),
            name: f.name.clone(),
            title: f.title.clone(),
            status: f.status.as_str(),
            measured: f.measured.clone(),
            limit: f.limit.clone(),
            why: f.why.clone(),
            fix: f.fix.clone(),
            doc: f.doc.clone(),
            reading: f.reading.as_ref().map(|r| Reading {
                value: r.value,
                unit: r.unit.clone(),
                warn: r.warn,
                lower_is_worse: r.lower_is_worse,
            }),
        }
    }
}

// === impl MeasuredMember ===

impl MeasuredMember {
    fn of(m: &MemberNumbers) -> Self {
        Self {
            node: m.node.clone(),
            rtt_ms: tenths(m.rtt_ms),
            skew_ms: tenths(m.skew_ms),
            cpu_percent: m.burden.map(|b| tenths(b.cpu_percent)),
            rss_bytes: m.burden.map(|b| b.rss_bytes),
            headroom: m.burden.and_then(|b| b.headroom),
        }
    }
}

// === impl MeasuredEndpoint ===

impl MeasuredEndpoint {
    fn of(e: &EndpointNumbers) -> Self {
        Self {
            endpoint: e.endpoint.clone(),
            name: e.name.clone(),
            is_leader: e.is_leader,
            version: e.version.clone(),
            fsync_p99_ms: e.fsync_p99_ms.map(tenths),
            commit_p99_ms: e.commit_p99_ms.map(tenths),
            db_bytes: e.db_bytes,
            quota_bytes: e.quota_bytes,
        }
    }
}
