//! The checks: what was found, and the numbers behind it.

use serde::Serialize;

use super::{SchemaVersion, Time};
use crate::diagnosis::checks::background::Latest;
use crate::diagnosis::checks::measured::Measured;
use crate::diagnosis::checks::{Finding, Report, Skipped, Status};

/// What a node found when it last checked itself: `/api/v1/checks`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChecksDocument {
    /// The form of this document.
    pub schema_version: SchemaVersion,
    /// When; `None`: not yet.
    pub at: Option<Time>,
    /// One for each check.
    pub findings: Vec<Finding>,
    /// The meta nodes and the members of etcd that answered.
    #[serde(flatten)]
    pub measured: Measured,
}

/// What an examination has shown: `metad doctor` and `metad check`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReportDocument {
    /// The form of this document.
    pub schema_version: SchemaVersion,
    /// The worst of the findings.
    pub status: Status,
    /// One for each check.
    pub findings: Vec<Finding>,
    /// What was not looked at.
    pub skipped: Vec<Skipped>,
}

// === impl ChecksDocument ===

impl ChecksDocument {
    /// What this node found last.
    pub fn of(latest: &Latest) -> Self {
        Self {
            schema_version: SchemaVersion,
            at: Some(latest.at_ms).filter(|at| *at > 0).map(Time),
            findings: latest.findings.clone(),
            measured: latest.measured.clone(),
        }
    }
}

// === impl ReportDocument ===

impl ReportDocument {
    /// The report of an examination.
    pub fn of(report: &Report) -> Self {
        Self {
            schema_version: SchemaVersion,
            status: report.status(),
            findings: report.findings.clone(),
            skipped: report.skipped.clone(),
        }
    }
}
