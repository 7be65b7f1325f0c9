//! Who may import whom, and what the election must not know.

use super::finding::Finding;
use super::source::{Path, Source};

/// The modules, each of which may import only those before it. `docs` holds pages and imports nothing.
pub const ORDER: [&str; 20] = [
    "docs",
    "clock",
    "files",
    "election",
    "config",
    "telemetry",
    "limits",
    "proto",
    "client",
    "store",
    "protocol",
    "guardian",
    "driver",
    "journal",
    "diagnosis",
    "meta",
    "api",
    "node",
    "cli",
    "main",
];

/// What makes the election anything but values and rules.
const NOT_IN_ELECTION: [&str; 12] = [
    "tokio",
    "async",
    "await",
    "serde",
    "serde_json",
    "tracing",
    "log",
    "SystemTime",
    "println",
    "eprintln",
    "rand",
    "rustix",
];

/// Calls that read a clock, as ends of paths.
const CLOCK_READS: [&[&str]; 5] = [
    &["Instant", "now"],
    &["SystemTime", "now"],
    &["Timestamp", "now"],
    &["Zoned", "now"],
    &["UNIX_EPOCH", "elapsed"],
];

fn rank(module: &str) -> Option<usize> {
    ORDER.iter().position(|m| *m == module)
}

/// A path from the crate's root; `None` if it leads to another crate or to a child.
fn resolve(source: &Source, path: &Path) -> Option<Vec<String>> {
    let mut at = [source.module(), path.inside.clone()].concat();
    let mut segments = path.segments.as_slice();
    match segments.first()?.as_str() {
        "crate" => at.clear(),
        "metad" if source.path == "src/main.rs" => at.clear(),
        "self" => {}
        "super" => {
            while let [first, rest @ ..] = segments
                && first == "super"
            {
                at.pop();
                segments = rest;
            }
            return Some([&at, segments].concat());
        }
        _ => return None,
    }
    Some([&at, &segments[1..]].concat())
}

/// What a file imports from this crate: line, and path from the root.
fn own_paths(source: &Source) -> Vec<(usize, Vec<String>)> {
    source.paths().iter().filter_map(|p| Some((p.line, resolve(source, p)?))).collect()
}

/// A module imports only modules to its left.
pub fn check_order(source: &Source) -> Vec<Finding> {
    let module = source.module();
    let Some(here) = module.first() else { return vec![] }; // lib.rs declares them all
    let Some(rank_here) = rank(here) else {
        let text =
            format!("`{here}` has no place in the import order; give it one in tests/fast/tidy/imports.rs");
        return vec![Finding::new(&source.path, 1, text)];
    };
    let judge = |(line, path): (usize, Vec<String>)| {
        let there = path.first().map_or("*", String::as_str);
        let why = match rank(there) {
            Some(rank) if rank <= rank_here => return None,
            Some(_) => format!(
                "`{here}` imports `{there}`, which comes after it; what both need belongs to the left"
            ),
            None => format!(
                "`{here}` names `{there}` at the crate's root, which hides what it needs; name the module"
            ),
        };
        Some(Finding::new(&source.path, line, format!("{why} ({})", ORDER.join(" → "))))
    };
    own_paths(source).into_iter().filter_map(judge).collect()
}

/// The election sees `clock::Instant` and nothing else, and has no way to wait, to log or to read a clock.
pub fn check_election(source: &Source) -> Vec<Finding> {
    if source.module().first().is_none_or(|m| m != "election") {
        return vec![];
    }
    let find = |line, what: String| {
        let why = "the election is values and rules only, so that daemon, transcripts and simulation share it; \
                   take it as an argument, or do it in the driver";
        Finding::new(&source.path, line, format!("{what}: {why}"))
    };
    let is_own = |path: &[String]| match path {
        [first, ..] if first == "election" => true,
        [first, second] => first == "clock" && second == "Instant",
        _ => false,
    };
    let imports = own_paths(source).into_iter().filter(|(_, path)| !is_own(path));
    let imports = imports.map(|(line, path)| find(line, format!("imports `{}`", path.join("::"))));
    let words = source.tokens.iter().filter_map(|t| Some((t.line, t.word()?)));
    let words = words.filter(|(_, word)| NOT_IN_ELECTION.contains(word));
    let words = words.map(|(line, word)| find(line, format!("mentions `{word}`")));
    let is_std_instant = |p: &&Path| p.segments.starts_with(&["std".into(), "time".into(), "Instant".into()]);
    let paths = source.paths();
    let instants = paths.iter().filter(is_std_instant);
    let instants = instants.map(|p| find(p.line, "`std::time::Instant`".to_owned()));
    imports.chain(words).chain(instants).collect()
}

/// Only `clock.rs` reads a clock.
pub fn check_clock_reads(source: &Source) -> Vec<Finding> {
    if source.path == "src/clock.rs" {
        return vec![];
    }
    let find = |line, what: &str| {
        let why = "clocks are read in src/clock.rs alone, because an instant is two readings and std's stops in \
                   suspend; take `now` as an argument, or use `clock::OsClock` or `clock::wall_clock_ms`";
        Finding::new(&source.path, line, format!("`{what}`: {why}"))
    };
    let is_read = |path: &&Path| {
        CLOCK_READS
            .iter()
            .any(|end| path.segments.windows(2).any(|pair| pair.iter().zip(*end).all(|(a, b)| a == b)))
    };
    let paths = source.paths();
    let paths = paths.iter().filter(is_read).map(|p| find(p.line, &p.segments.join("::")));
    let words = source.tokens.iter().filter(|t| t.word() == Some("clock_gettime"));
    paths.chain(words.map(|t| find(t.line, "clock_gettime"))).collect()
}

/// The servers read snapshots and send commands.
pub fn check_servers(source: &Source) -> Vec<Finding> {
    let module = source.module();
    let Some(here) = module.first().filter(|m| *m == "api") else { return vec![] };
    let store = own_paths(source).into_iter().filter(|(_, path)| path.first().is_some_and(|m| m == "store"));
    let find = |(line, path): (usize, Vec<String>)| {
        let why = "the servers never touch the store, so that a slow store cannot hang them; read the driver's \
                   snapshot, or send it a command";
        Finding::new(&source.path, line, format!("`{here}` imports `{}`: {why}", path.join("::")))
    };
    store.map(find).collect()
}

mod tests {
    use super::super::finding::lines;
    use super::*;

    type Check = fn(&Source) -> Vec<Finding>;

    fn at(check: Check, path: &str, text: &str) -> Vec<usize> {
        lines(&check(&Source::parse(path, text)))
    }

    #[test]
    fn an_import_from_the_right_is_noticed() {
        for (path, text) in [
            ("src/store.rs", "use crate::driver::Driver;"),
            ("src/store/etcd.rs", "use crate::{clock, driver};"),
            ("src/store/etcd.rs", "use super::super::driver::x;"),
            ("src/store.rs", "use super::meta;"),
            ("src/store/etcd.rs", "fn f() { crate::node::run() }"),
            ("src/clock.rs", "mod tests { use super::super::config::Config; }"),
            ("src/clock.rs", "mod tests { fn f() -> crate::election::lease::Lease {} }"),
            ("src/node.rs", "use crate::*;"),
            ("src/node.rs", "use crate::Something;"),
            ("src/unheard_of.rs", ""),
            ("src/cli.rs", "pub(in crate::main) fn f() {}"),
        ] {
            assert_eq!(at(check_order, path, text), [1], "{path}: {text}");
        }
    }

    #[test]
    fn an_import_from_the_left_is_fine() {
        for (path, text) in [
            ("src/store/etcd.rs", "use crate::clock::Clock; use super::Txn; use super::super::store::Op;"),
            ("src/store/etcd/watch.rs", "use crate::store::{self, Change}; use super::member::x;"),
            (
                "src/store.rs",
                "pub mod etcd; use etcd::X; mod tests { use super::*; use super::super::clock; }",
            ),
            ("src/store.rs", "// use crate::driver;\nconst X: &str = \"crate::driver::x\";"),
            ("src/main.rs", "use metad::cli; fn main() { metad::node::x() }"),
            ("src/lib.rs", "pub mod main; use crate::cli::x;"),
            ("src/client.rs", "use metad::driver::x;"),
        ] {
            assert_eq!(at(check_order, path, text), [] as [usize; 0], "{path}: {text}");
        }
    }

    #[test]
    fn an_election_that_knows_too_much_is_noticed() {
        let bad = [
            "use crate::clock::OsClock;",
            "use crate::clock::{Clock, Instant};",
            "use crate::clock;",
            "use crate::docs::x;",
            "use std::time::{Duration, Instant};",
            "fn f(x: std::time::Instant) {}",
            "async fn f() {}",
            "use tokio::sync::mpsc;",
            "#[derive(serde::Serialize)] struct X;",
            "fn f() { tracing::info!(\"x\") }",
            "fn f() { println!(\"x\") }",
            "use std::time::SystemTime;",
        ];
        for text in bad {
            assert_eq!(at(check_election, "src/election/lease.rs", text), [1], "{text}");
            assert_eq!(at(check_election, "src/driver.rs", text), [] as [usize; 0], "elsewhere: {text}");
        }
        let good = "use std::time::Duration; use crate::clock::Instant; use super::lease; use crate::election::record::X;";
        assert_eq!(at(check_election, "src/election/elector.rs", good), [] as [usize; 0]);
    }

    #[test]
    fn a_clock_read_elsewhere_is_noticed() {
        for text in [
            "let x = Instant::now();",
            "let x = tokio::time::Instant::now();",
            "let x = Some(0).map_or_else(std::time::SystemTime::now, f);",
            "use rustix::time::clock_gettime;",
            "let x = jiff::Timestamp::now();",
        ] {
            assert_eq!(at(check_clock_reads, "src/driver/x.rs", text), [1], "{text}");
            assert_eq!(at(check_clock_reads, "src/clock.rs", text), [] as [usize; 0], "{text}");
        }
        let good = "let x = OsClock.now(); let y: Instant = clock.now(); // Instant::now()";
        assert_eq!(at(check_clock_reads, "src/driver.rs", good), [] as [usize; 0]);
    }

    #[test]
    fn a_server_that_touches_the_store_is_noticed() {
        for text in
            ["use crate::store::Store;", "fn f() { crate::store::x() }", "use super::super::super::store;"]
        {
            assert_eq!(at(check_servers, "src/api/grpc/leader.rs", text), [1], "{text}");
            assert_eq!(at(check_servers, "src/api/http/page.rs", text), [1], "{text}");
            assert_eq!(at(check_servers, "src/driver/x.rs", text), [] as [usize; 0], "{text}");
        }
        let good = "use crate::driver::Handle; // crate::store";
        assert_eq!(at(check_servers, "src/api/http.rs", good), [] as [usize; 0]);
    }
}
