//! What happened in a seed: lines for a person, counters for the twins of the invariants.

use std::collections::BTreeMap;

use crate::simulation::clock::MS;

/// How many lines a failure shows.
const LINES_SHOWN: usize = 60;

/// The lines. Kept only when asked for: a failing seed is simply played again.
#[derive(Debug)]
pub struct Trace {
    on: bool,
    lines: Vec<String>,
}

/// How often each thing that must be reachable was reached.
#[derive(Clone, Debug, Default)]
pub struct Tally(pub BTreeMap<&'static str, u64>);

impl Trace {
    /// Empty, and `on` or not.
    pub fn new(on: bool) -> Self {
        Self { on, lines: Vec::new() }
    }

    /// Adds a line.
    pub fn add(&mut self, now: u64, line: impl FnOnce() -> String) {
        if self.on {
            self.lines.push(format!("{:>12.3} ms  {}", now as f64 / MS as f64, line()));
        }
    }

    /// The last lines.
    pub fn tail(&self) -> String {
        self.lines[self.lines.len().saturating_sub(LINES_SHOWN)..].join("\n")
    }

    /// All lines.
    pub fn all(&self) -> String {
        self.lines.join("\n")
    }
}

impl Tally {
    /// Counts.
    pub fn count(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    /// Adds another seed's counters.
    pub fn add(&mut self, other: &Tally) {
        for (what, n) in &other.0 {
            *self.0.entry(what).or_default() += n;
        }
    }
}
