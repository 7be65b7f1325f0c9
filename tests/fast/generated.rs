//! What documents list of the code is written from the code. METAD_TIDY_WRITE=1 writes it anew.
//!
//! Each list has one place in the code, which its first line in the document names; a copy would go stale.

pub mod metrics;

use std::collections::BTreeSet;

use metad::diagnosis::checks::{CHECKS, Check, Group, catalog, render};
use metad::election::exit::EXITS;
use metad::election::history::Reason;

use crate::tidy;

const END: &str = "<!-- end -->";

/// Holds what a document shows of `source`, between the two comments that say so, against what it should show.
#[track_caller]
fn assert_generated(document: &str, source: &str, expected: &str) {
    let path = tidy::root().join(document);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{document}: {e}"));
    let (before, found, after) = parts(&text, source).unwrap_or_else(|e| panic!("{document}: {e}"));
    if found != expected && std::env::var_os("METAD_TIDY_WRITE").is_some() {
        let text = [before, expected, after].concat();
        return std::fs::write(&path, text).unwrap_or_else(|e| panic!("{document}: {e}"));
    }
    let lines = || found.lines().zip(expected.lines());
    let (is, should) = lines().find(|(a, b)| a != b).unwrap_or(("another length", expected));
    assert!(
        found == expected,
        "{document} does not show what {source} says:\n{is}\ninstead of\n{should}\n\
         METAD_TIDY_WRITE=1 cargo test --test fast generated"
    );
}

/// A document before, in and after the part that is made from `source`.
fn parts<'t>(text: &'t str, source: &str) -> Result<(&'t str, &'t str, &'t str), String> {
    let begin = format!(
        "<!-- {source} says this; METAD_TIDY_WRITE=1 cargo test --test fast generated writes it -->\n"
    );
    let start = text.find(&begin).ok_or_else(|| format!("no line {begin}"))? + begin.len();
    let end = start + text[start..].find(END).ok_or_else(|| format!("no line {END}"))?;
    Ok((&text[..start], &text[start..end], &text[end..]))
}

/// A table with a blank line on either side, which Markdown wants between it and a comment.
fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let line = |cells: [String; N]| format!("| {} |\n", cells.map(|c| c.replace('|', "\\|")).join(" | "));
    let rows: String = rows.into_iter().map(line).collect();
    format!("\n{}{}{rows}\n", line(head.map(str::to_owned)), line([(); N].map(|()| "---".to_owned())))
}

#[test]
fn the_readme_lists_the_exit_codes() {
    let rows = EXITS.map(|(exit, meaning)| [exit.code().to_string(), meaning.to_owned()]);
    assert_generated("README.md", "src/election/exit.rs", &table(["code", "means"], rows));
}

#[test]
fn the_sample_configuration_lists_every_key() {
    let (path, expected) = (tidy::root().join("config/metad.toml"), metad::config::reference());
    if std::env::var_os("METAD_TIDY_WRITE").is_some() {
        std::fs::write(&path, &expected).expect("written");
    }
    let found = std::fs::read_to_string(&path).expect("the sample");
    let differ = found.lines().zip(expected.lines()).find(|(a, b)| a != b);
    assert!(found == expected, "{differ:?}: METAD_TIDY_WRITE=1 cargo test --test fast generated");
}

#[test]
fn the_page_of_the_history_lists_the_reasons() {
    let mut reasons = Reason::ALL;
    reasons.sort_by_key(|reason| !reason.is_planned());
    let row = |reason: Reason| {
        let planned = if reason.is_planned() { "yes" } else { "no" };
        [format!("`{reason}`"), planned.to_owned(), reason.meaning().to_owned()]
    };
    let expected = table(["reason", "planned", "means"], reasons.map(row));
    assert_generated("src/docs/history.md", "src/election/history.rs", &expected);
}

#[test]
fn the_page_of_checks_lists_them_all() {
    let row = |c: &Check| {
        let code = format!("<a id=\"{}\"></a>`{}`", c.code.to_lowercase(), c.code);
        let name = format!("`{}`", c.name);
        [code, name, c.title.into(), c.limit.into(), c.why.into(), c.fix.into()]
    };
    let head = ["code", "name", "what", "limit", "why", "what to do"];
    let of = |group: Group| {
        let (first, rest) = group.as_str().split_at(1);
        let heading = if group == Group::Etcd { "etcd".into() } else { first.to_uppercase() + rest };
        format!("## {heading}\n{}", table(head, catalog::of(group).map(row)))
    };
    let expected = "\n".to_owned() + &Group::ALL.map(of).concat();
    assert_generated("src/docs/checks.md", "src/diagnosis/checks/catalog.rs", &expected);
}

#[test]
fn every_check_has_a_name_of_its_own_and_is_explained() {
    for check in CHECKS {
        let explained = render::explanation(check);
        for text in [check.code, check.name, check.title, check.limit, check.why, check.fix] {
            assert!(!text.is_empty() && explained.contains(text), "{}: {explained}", check.code);
        }
    }
    let names: BTreeSet<&str> = CHECKS.iter().flat_map(|c| [c.code, c.name]).collect();
    assert_eq!(names.len(), CHECKS.len() * 2, "no two checks share a code or a name");
}
