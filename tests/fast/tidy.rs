//! The repository's own rules, as tests: shape, import order, names, words.
//!
//! Each rule looks at the whole tree and reports `file:line: what, why, how to mend`. Each has a test of its own
//! beside it, in `tests/fast/tidy/`, which shows it something bad and sees it noticed.

mod content;
mod finding;
mod imports;
mod shape;
mod source;
mod tokens;

use std::fs;
use std::path::{Path, PathBuf};

use finding::{Finding, assert_none};
use source::Source;

/// What is looked through for words, beside `src`.
const TEXTS: [&str; 19] = [
    "src",
    "tests",
    "config",
    "proto",
    "benches",
    "examples",
    "docs",
    ".ci",
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "Makefile",
    "Cargo.toml",
    "docker-compose.yml",
    "rustfmt.toml",
    "clippy.toml",
    "deny.toml",
    ".gitignore",
    "LICENSE",
];
/// What is not text, or not ours.
const NOT_OURS: [&str; 7] = [
    "tests/etcd/bin",
    "tests/etcd/data",
    "tests/fuzz/Cargo.lock",
    "tests/fuzz/target",
    "tests/fuzz/corpus",
    "tests/fuzz/artifacts",
    "tests/real/page/node_modules",
];

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files at or below a path of the repository, with their paths from its root, in order.
pub fn files(below: &str) -> Vec<(String, PathBuf)> {
    let path = root().join(below);
    if NOT_OURS.contains(&below) || !path.exists() {
        return vec![];
    }
    if path.is_file() {
        return vec![(below.to_owned(), path)];
    }
    let entries = fs::read_dir(&path).unwrap_or_else(|e| panic!("{below}: {e}"));
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names.iter().flat_map(|name| files(&format!("{below}/{name}"))).collect()
}

/// The Rust files below a folder.
fn rust(below: &str) -> Vec<Source> {
    let read = |(name, path): (String, PathBuf)| {
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{name}: {e}"));
        Source::parse(&name, &text)
    };
    let sources: Vec<_> =
        files(below).into_iter().filter(|(name, _)| name.ends_with(".rs")).map(read).collect();
    assert!(!sources.is_empty(), "no Rust below {below}: the rules would hold for nothing");
    sources
}

/// Holds every file of `src` to a rule.
#[track_caller]
fn hold(rule: &str, check: fn(&Source) -> Vec<Finding>) {
    let findings: Vec<_> = rust("src").iter().flat_map(check).collect();
    assert_none(rule, &findings);
}

#[test]
fn every_file_opens_with_its_purpose() {
    let sources = rust("src").into_iter().chain(rust("tests"));
    let findings: Vec<_> = sources.flat_map(|s| shape::check_opening(&s)).collect();
    assert_none("every file opens with its purpose", &findings);
}

#[test]
fn names_say_what_is_inside() {
    hold("names say what is inside", shape::check_names);
}

#[test]
fn no_file_is_too_long() {
    hold("no file is too long", shape::check_file_length);
}

#[test]
fn half_of_the_files_are_short() {
    assert_none("half of the files are short", &shape::check_median(&rust("src")));
}

#[test]
fn no_function_is_too_long() {
    hold("no function is too long", shape::check_function_length);
}

#[test]
fn most_functions_are_short() {
    assert_none("most functions are short", &shape::check_usual_length(&rust("src")));
}

#[test]
fn modules_import_only_those_before_them() {
    hold("modules import only those before them", imports::check_order);
}

#[test]
fn the_election_is_pure() {
    hold("the election is pure", imports::check_election);
}

#[test]
fn clocks_are_read_in_one_place() {
    hold("clocks are read in one place", imports::check_clock_reads);
}

#[test]
fn the_servers_never_touch_the_store() {
    hold("the servers never touch the store", imports::check_servers);
}

#[test]
fn one_file_writes_the_history() {
    assert!(root().join(content::HISTORY).exists(), "the rule would hold for nothing");
    hold("one file writes the history", content::check_history_keys);
}

#[test]
fn words_that_are_gone_are_shown_to_nobody() {
    hold("words that are gone are shown to nobody", content::check_gone_words);
}

#[test]
fn metrics_have_names_of_their_own() {
    let names: Vec<_> = rust("src").iter().flat_map(content::metric_names).collect();
    let has_metrics = root().join(content::METRICS).exists();
    assert_eq!(has_metrics, !names.is_empty(), "metrics are found where they are");
    assert_none("metrics have names of their own", &content::check_metric_names(&names));
}

#[test]
fn unsafe_code_says_why_it_is_sound() {
    let sources = rust("src").into_iter().chain(rust("tests"));
    let findings: Vec<_> = sources.flat_map(|s| content::check_unsafe(&s)).collect();
    assert_none("unsafe code says why it is sound", &findings);
}

#[test]
fn the_sample_configuration_shows_the_defaults() {
    let (name, reference) = ("config/metad.toml", metad::config::reference());
    if std::env::var_os("METAD_TIDY_WRITE").is_some() {
        fs::write(root().join(name), &reference).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    let file = fs::read_to_string(root().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert_none("the sample shows the defaults", &content::check_reference(name, &file, &reference));
}

#[test]
fn texts_are_about_the_software() {
    let files = TEXTS.iter().flat_map(|below| files(below));
    let files = files.filter(|(name, _)| !name.ends_with("go.sum")); // hashes hold any letters
    // What is not UTF-8 is no text.
    let texts = files.filter_map(|(name, path)| Some((name, fs::read_to_string(path).ok()?)));
    let findings: Vec<_> = texts.flat_map(|(name, text)| content::check_words(&name, &text)).collect();
    assert_none("texts are about the software", &findings);
}
