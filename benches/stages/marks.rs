//! Where the time of a hand-over goes, by the traces that both nodes leave of what their electors heard and asked for.

use std::fs;

use serde_json::Value;

use super::median;
use super::support::node::Node;

/// In the order in which they usually come. The next node renews and validates its lease when it is asked, and again when
/// it leads; it waits for neither if there is enough of the lease.
const NAMES: [&str; 8] = [
    "told to stop",
    "its main loop has ended",
    "the candidates have answered",
    "write sent",
    "committed, as the old leader hears",
    "seen by the next node",
    "its main loop is asked for",
    "its main loop has started",
];

/// When each mark was reached, in milliseconds from the signal on, of each run.
#[derive(Default)]
pub struct Stages([Vec<f64>; NAMES.len()]);

// === impl Stages ===

impl Stages {
    /// Takes the marks of one hand-over, from the traces of both.
    pub fn note(&mut self, asked: u64, old: &Node, next: &Node, started: u64) {
        let (old, next) = (Marks::of(old), Marks::of(next));
        let at = [
            old.heard(asked, "shutdown"),
            old.heard(asked, "main_loop_ended"),
            old.heard(asked, "prepared"),
            old.asked(asked, "HandOver"),
            old.heard(asked, "handed_over"),
            next.heard(asked, "seen"),
            next.asked(asked, "StartMainLoop"),
            Some(started),
        ];
        for (all, at) in self.0.iter_mut().zip(at) {
            all.extend(at.map(|at| (at - asked) as f64 / 1e6));
        }
    }

    /// Prints the medians.
    pub fn print(self) {
        for (name, all) in NAMES.iter().zip(self.0).filter(|(_, all)| !all.is_empty()) {
            println!("  {:>8.2} ms  {name}", median(all));
        }
    }
}

/// The lines of a trace.
struct Marks(Vec<Value>);

impl Marks {
    fn of(node: &Node) -> Self {
        let text =
            node.trace_file().map(|file| fs::read_to_string(file).expect("a trace")).unwrap_or_default();
        Self(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// When its elector first heard this, from this moment on.
    fn heard(&self, from: u64, what: &str) -> Option<u64> {
        self.first(from, "woke", |line| {
            let heard = line["heard"].as_array().into_iter().flatten();
            heard.into_iter().any(|heard| heard.get(what).is_some() || heard.as_str() == Some(what))
        })
    }

    /// When its elector first asked for this.
    fn asked(&self, from: u64, what: &str) -> Option<u64> {
        self.first(from, "asked", |line| {
            line["action"].as_str().is_some_and(|action| action.starts_with(what))
        })
    }

    fn first(&self, from: u64, kind: &str, is_it: impl Fn(&Value) -> bool) -> Option<u64> {
        let lines = self.0.iter().map(|line| &line[kind]).filter(|line| is_it(line));
        lines.filter_map(|line| line["at"]["boot_ns"].as_u64()).find(|at| *at >= from)
    }
}
