//! The checks: is what metad depends on in order, and if not, what is to be done?
//!
//! Three steps that know nothing of each other: [`collect`] asks and measures, and its results are [`facts`]; each
//! check is a small pure function from facts to a [`Judgement`]; [`render`] writes findings down. [`CHECKS`] is the
//! one list of checks: all that is said of them comes from it, and `src/docs/checks.md` is written from it.
//!
//! `metad doctor` makes all checks, with and without a running node; a node makes the cheap ones all the time
//! ([`background`]), and keeps what it found for others to read. Whatever is asked has a time limit, and whatever is
//! read has a size limit: something that hangs, or talks nonsense, is a finding.
//!
//! This module must not change anything but a key and a lease of its own, and must not decide who leads.

pub mod background;
pub mod catalog;
pub mod changes;
pub mod collect;
pub mod examine;
pub mod facts;
mod judge;
pub mod measured;
pub mod page;
pub mod render;

use serde::{Serialize, Serializer};

pub use catalog::{CHECKS, Check, Group};
pub use facts::Facts;

/// How a check ended. In the order of Nagios' exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// As it should be.
    Pass,
    /// Works, but not as it should.
    Warn,
    /// Does not work, or will not for long.
    Fail,
    /// Could not be found out, although it should.
    Unknown,
}

/// A number that was measured, for those who draw it.
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

/// What a check says: its outcome, or why it was not made.
pub type Judgement = Result<Outcome, Skip>;

/// Why a check was not made: it does not apply here, or nobody has asked for what it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skip(pub String);

/// What a check that was made says.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// How it ended.
    pub status: Status,
    /// What was measured.
    pub measured: String,
    /// What it should be.
    pub limit: String,
    /// A command, or a line of configuration; empty when nothing is to be done.
    pub fix: String,
    /// The number behind it, if it is one.
    pub reading: Option<Reading>,
}

/// One check's result, with all that a person needs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// The code, such as `ETCD_005`.
    pub code: String,
    /// The name for a command line, such as `etcd-slow-fsync`.
    pub name: String,
    /// What is checked, in a few words.
    pub title: String,
    /// How it ended.
    pub status: Status,
    /// What was measured.
    pub measured: String,
    /// What it should be.
    pub limit: String,
    /// Why it matters.
    pub why: String,
    /// What to do; empty when there is nothing.
    pub fix: String,
    /// The command that explains it.
    pub doc: String,
    /// The number behind it, if it is one.
    pub reading: Option<Reading>,
}

/// A check that was not made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// Its code.
    pub code: &'static str,
    /// Why not.
    pub why: String,
}

/// All that an examination has shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// What was found, in the order of [`CHECKS`].
    pub findings: Vec<Finding>,
    /// What was not looked at.
    pub skipped: Vec<Skipped>,
}

// === impl Status ===

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl Status {
    /// Its name in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Pass => "pass",
            Status::Warn => "warn",
            Status::Fail => "fail",
            Status::Unknown => "unknown",
        }
    }

    /// The status of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Status::Pass, Status::Warn, Status::Fail, Status::Unknown].into_iter().find(|s| s.as_str() == name)
    }

    /// The exit code that Nagios gives it; also the value of the metric.
    pub fn code(self) -> i32 {
        match self {
            Status::Pass => 0,
            Status::Warn => 1,
            Status::Fail => 2,
            Status::Unknown => 3,
        }
    }

    /// How bad it is: what is known to be broken is worse than what is not known.
    pub fn severity(self) -> u8 {
        match self {
            Status::Pass => 0,
            Status::Warn => 1,
            Status::Unknown => 2,
            Status::Fail => 3,
        }
    }

    /// The worst of several; a pass if there are none.
    pub fn worst(all: impl IntoIterator<Item = Status>) -> Self {
        all.into_iter().max_by_key(|s| s.severity()).unwrap_or(Status::Pass)
    }
}

// === impl Outcome ===

impl Outcome {
    /// An outcome with what was measured and what it should be.
    pub fn new(status: Status, measured: impl Into<String>, limit: impl Into<String>) -> Self {
        Self { status, measured: measured.into(), limit: limit.into(), fix: String::new(), reading: None }
    }

    /// What to do about it, unless it passed.
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        if self.status != Status::Pass {
            self.fix = fix.into();
        }
        self
    }

    /// That is what the check says.
    pub fn made(self) -> Judgement {
        Ok(self)
    }

    /// The number behind it warns below its limit, not above.
    pub fn lower_is_worse(mut self) -> Self {
        self.reading.iter_mut().for_each(|r| r.lower_is_worse = true);
        self
    }

    /// The number behind it.
    pub fn reading(mut self, value: f64, unit: &str, warn: f64) -> Self {
        self.reading = Some(Reading { value, unit: unit.to_owned(), warn, lower_is_worse: false });
        self
    }
}

// === impl Skip ===

impl Skip {
    /// For this reason.
    pub fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

// === impl Finding ===

impl Finding {
    /// What a check has found.
    pub fn of(check: &Check, outcome: Outcome) -> Self {
        Self {
            code: check.code.to_owned(),
            name: check.name.to_owned(),
            title: check.title.to_owned(),
            status: outcome.status,
            measured: outcome.measured,
            limit: outcome.limit,
            why: check.why.to_owned(),
            fix: outcome.fix,
            doc: check.doc(),
            reading: outcome.reading,
        }
    }
}

// === impl Report ===

impl Report {
    /// How it ended, all in all. Nothing that could be looked at is nothing known.
    pub fn status(&self) -> Status {
        if self.findings.is_empty() {
            return Status::Unknown;
        }
        Status::worst(self.findings.iter().map(|f| f.status))
    }

    /// How many findings have this status.
    pub fn count(&self, status: Status) -> usize {
        self.findings.iter().filter(|f| f.status == status).count()
    }

    /// Adds what some checks say about the facts.
    pub fn judge<'c>(&mut self, checks: impl Iterator<Item = &'c Check>, facts: &Facts) {
        for check in checks {
            match (check.judge)(facts) {
                Ok(outcome) => self.findings.push(Finding::of(check, outcome)),
                Err(Skip(why)) => self.skipped.push(Skipped { code: check.code, why }),
            }
        }
    }
}
