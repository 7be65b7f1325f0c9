//! Each fact has one place: who adds a key, a check or a metric writes it once, and finds the other files by name.

use std::collections::BTreeSet;

use metad::config::KEYS;
use metad::diagnosis::checks::CHECKS;
use metad::election::exit::EXITS;
use metad::election::history::Reason;

use crate::{generated, tidy};

/// The Rust files of `src`, with each text on one line, however it is broken there.
fn sources() -> Vec<(String, String)> {
    let rust = tidy::files("src").into_iter().filter(|(name, _)| name.ends_with(".rs"));
    let read = |path| std::fs::read_to_string(path).expect("a source file");
    rust.map(|(name, path)| (name, joined(&read(path)))).collect()
}

/// A text that is continued after a backslash, on one line and without its escapes.
fn joined(text: &str) -> String {
    let mut parts = text.split("\\\n");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.trim_start()).replace("\\\"", "\"")
}

/// Every text must be in one of the files.
#[track_caller]
fn assert_in_one_file(what: &str, texts: impl IntoIterator<Item = String>) {
    let sources = sources();
    let mut count = 0;
    for text in texts {
        let quoted = format!("\"{text}\"");
        let found: Vec<_> =
            sources.iter().filter(|(_, source)| source.contains(&quoted)).map(|(name, _)| name).collect();
        assert!(found.len() == 1, "{what} {text:?} must be written in one file, not in {found:?}");
        count += 1;
    }
    assert!(count >= 10, "no {what} was looked for");
}

#[test]
fn what_is_said_of_a_key_is_in_one_file() {
    assert_in_one_file("the help of a key", KEYS.iter().map(|key| key.help.to_owned()));
    let flags = KEYS.iter().filter_map(|key| key.flag);
    assert_in_one_file("the help of a flag", flags.map(|flag| flag.help.to_owned()));
}

#[test]
fn what_is_said_of_a_check_is_in_one_file() {
    assert_in_one_file("the title of a check", CHECKS.iter().map(|check| check.title.to_owned()));
    assert_in_one_file("the reason of a check", CHECKS.iter().map(|check| check.why.to_owned()));
}

#[test]
fn a_metric_is_named_in_one_file() {
    assert_in_one_file("the metric", generated::metrics::names());
}

#[test]
fn what_an_ending_means_is_in_one_file() {
    assert_in_one_file("the meaning of an exit code", EXITS.map(|(_, meaning)| meaning.to_owned()));
    assert_in_one_file("the meaning of a reason", Reason::ALL.map(|reason| reason.meaning().to_owned()));
}

#[test]
fn a_default_in_prose_is_that_of_its_key() {
    let mut seen = 0;
    for (name, path) in ["README.md", "src/docs"].into_iter().flat_map(tidy::files) {
        let Ok(text) = std::fs::read_to_string(path) else { continue }; // an image
        for key in KEYS {
            let opening = format!("`{}` (", key.name());
            let shown = text.split(&opening).skip(1).filter_map(|rest| rest.split_once(')'));
            for (value, _) in shown.filter(|(value, _)| value.chars().all(|c| c.is_ascii_digit())) {
                assert_eq!(value, key.example(), "{name}: the default of {}", key.path);
                seen += 1;
            }
        }
    }
    assert!(seen >= 2, "no default was found");
}

/// The files that the numbered steps below a heading of CONTRIBUTING.md name.
fn files_to_touch<'p>(page: &'p str, heading: &str) -> BTreeSet<&'p str> {
    let section = page.split("\n## ").find(|section| section.lines().next() == Some(heading));
    let section = section.unwrap_or_else(|| panic!("no section {heading}"));
    let is_step = |paragraph: &&str| paragraph.starts_with("1. ");
    let steps = section.split("\n\n").find(is_step).unwrap_or_else(|| panic!("no steps in {heading}"));
    let quoted = steps.split('`').skip(1).step_by(2);
    quoted
        .filter(|quote| ["src/", "tests/", "config/", "proto/"].iter().any(|top| quote.starts_with(top)))
        .collect()
}

#[test]
fn the_steps_name_no_more_files_than_they_say() {
    let path = tidy::root().join("CONTRIBUTING.md");
    let page = std::fs::read_to_string(path).expect("the page for contributors");
    for (heading, count) in [
        ("To add a configuration key", 2),
        ("To add a metric", 2),
        ("To add a check", 3),
        ("To add an RPC", 4),
        ("To add a command", 3),
        ("To add a store", 6),
    ] {
        let files = files_to_touch(&page, heading);
        assert_eq!(files.len(), count, "{heading}: {files:?}");
    }
}
