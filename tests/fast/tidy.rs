//! The repository's own rules that no lint knows: import order, sizes and names of files, words.
//!
//! Each rule looks at lines, and reports `file:line: what, and how to mend it`. It relies on rustfmt: one import in a
//! line, a block's end below its beginning. `Cargo.toml` and `clippy.toml` have the rules that are lints.

mod imports;
mod shape;
mod words;

use std::fs;
use std::path::{Path, PathBuf};

/// Where texts are.
const TEXTS: &str = "src tests config proto benches examples docs .ci README.md CONTRIBUTING.md CHANGELOG.md Makefile \
     Cargo.toml docker-compose.yml rustfmt.toml clippy.toml deny.toml .gitignore LICENSE";
/// What is not text, or not ours.
const NOT_OURS: &str = "tests/etcd/bin tests/etcd/data tests/fuzz/Cargo.lock tests/fuzz/target tests/fuzz/corpus \
     tests/fuzz/artifacts tests/real/page/node_modules";

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files at or below a path of the repository, with their paths from its root, in order.
pub fn files(below: &str) -> Vec<(String, PathBuf)> {
    let path = root().join(below);
    if NOT_OURS.split_whitespace().any(|path| path == below) || !path.exists() {
        return vec![];
    }
    if path.is_file() {
        return vec![(below.to_owned(), path)];
    }
    let entries = fs::read_dir(&path).unwrap_or_else(|e| panic!("{below}: {e}"));
    let mut names: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
    names.sort();
    names.iter().flat_map(|name| files(&format!("{below}/{}", name.display()))).collect()
}

/// A file, by its path from the root of the repository.
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.text.lines())
    }

    /// Its lines without comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines().map(|(number, line)| (number, code(line)))
    }

    /// What is wrong with its lines.
    fn find(&self, wrong: impl Fn(&str) -> Option<String>) -> Vec<String> {
        self.lines().filter_map(|(number, line)| Some(self.finding(number, &wrong(line)?))).collect()
    }

    fn finding(&self, line: usize, what: &str) -> String {
        format!("{}:{line}: {what}", self.path)
    }
}

/// A line without its comment; `://` is in the midst of an URL.
fn code(line: &str) -> &str {
    let end = line.match_indices("//").find(|(at, _)| !line[..*at].ends_with(':'));
    end.map_or(line, |(at, _)| &line[..at])
}

/// Every text of ours; what is not UTF-8 is none.
fn texts() -> Vec<Source> {
    let is_ours = |path: &str| !path.ends_with("go.sum") && !path.ends_with(".min.js");
    let files = TEXTS.split_whitespace().flat_map(files).filter(|(path, _)| is_ours(path));
    files.filter_map(|(path, file)| Some(Source { path, text: fs::read_to_string(file).ok()? })).collect()
}

fn rust(below: &str) -> Vec<Source> {
    let is_below = |s: &Source| s.path.starts_with(below) && s.path.ends_with(".rs");
    let sources: Vec<_> = texts().into_iter().filter(is_below).collect();
    assert!(!sources.is_empty(), "no Rust below {below}: the rules would hold for nothing");
    sources
}

/// Holds each of these files to a rule.
#[track_caller]
fn hold(sources: &[Source], rule: fn(&Source) -> Vec<String>) {
    let findings: Vec<_> = sources.iter().flat_map(rule).collect();
    assert!(findings.is_empty(), "{} findings\n{}", findings.len(), findings.join("\n"));
}

#[test]
fn modules_import_what_they_may() {
    hold(&rust("src"), imports::check_order);
    hold(&rust("src/election"), imports::check_election);
    hold(&rust("src/api"), imports::check_servers);
}

#[test]
fn files_open_with_their_purpose_and_are_short() {
    hold(&rust("src"), shape::check_opening);
    hold(&rust("tests"), shape::check_opening);
    hold(&rust("src"), shape::check_length);
    let median = shape::median(&rust("src"));
    assert!(median <= shape::LINES_MEDIAN_MAX, "half of the files have {median} lines or more; split some");
}

#[test]
fn names_say_what_they_name() {
    hold(&rust("src"), shape::check_names);
    let sources = rust("src");
    let mut shared = shape::shared_types(&sources);
    for name in shape::SHARED_TYPES.split_whitespace() {
        assert!(shared.remove(name).is_some(), "`{name}` is one type now: take it off the list");
    }
    assert!(shared.is_empty(), "rename the less important one of {shared:#?}");
}

#[test]
fn words_and_keys_are_where_they_belong() {
    hold(&texts(), words::check_gone);
    hold(&texts(), words::check_making);
    hold(&rust("src"), words::check_history_keys);
}
