//! Who may import whom, and what the election must not know.

use super::Source;

/// The modules, each of which may import only those before it. `docs` holds pages and imports nothing.
const ORDER: &str = "docs clock files election config telemetry tls limits proto client store protocol data_dir guardian \
     driver journal diagnosis meta api node cli main";
/// What makes the election anything but values and rules.
const NOT_IN_ELECTION: &str =
    "tokio async await serde serde_json tracing log SystemTime println eprintln rand rustix";

fn is_part(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The words of a line, outside of its strings.
fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split('"').step_by(2).flat_map(|part| part.split(|c| !is_part(c)))
}

/// What a line names below a root, `crate::` for instance: `clock::Instant`, or nothing for a brace or a star.
fn below<'a>(code: &'a str, root: &str) -> impl Iterator<Item = &'a str> {
    let is_root = |at: usize| !code[..at].ends_with(|c| is_part(c) || c == ':');
    let found = code.match_indices(root).filter(move |(at, _)| is_root(*at));
    found.map(|(at, root)| {
        let path = &code[at + root.len()..];
        &path[..path.find(|c| !is_part(c) && c != ':').unwrap_or(path.len())]
    })
}

/// The module that a file is: `["store", "etcd"]` for `src/store/etcd.rs`, nothing for `src/lib.rs`.
fn module(source: &Source) -> Vec<&str> {
    let path = source.path.strip_prefix("src/").unwrap_or(&source.path);
    let path = path.strip_suffix(".rs").unwrap_or(path);
    if path == "lib" { vec![] } else { path.split('/').collect() }
}

/// What a file names of this crate, with its line.
fn own_paths(source: &Source) -> Vec<(usize, &str)> {
    let roots: &[&str] = if source.path == "src/main.rs" { &["crate::", "metad::"] } else { &["crate::"] };
    let in_line = |(line, code)| roots.iter().flat_map(move |root| below(code, root)).map(move |p| (line, p));
    source.code().flat_map(in_line).collect()
}

/// The lines that climb to the crate's root by `super`, where nobody sees which module is meant.
fn climbs(source: &Source) -> Vec<usize> {
    let (mut depth, mut lines) = (module(source).len(), Vec::new());
    for (line, code) in source.code() {
        let opens = code.starts_with("mod ") && code.ends_with('{'); // an inline module, up to `}`
        depth = if code == "}" { module(source).len() } else { depth + usize::from(opens) };
        lines.extend(code.contains(&"super::".repeat(depth)).then_some(line));
    }
    lines
}

/// A module imports only modules before it, and says which.
pub fn check_order(source: &Source) -> Vec<String> {
    let Some(here) = module(source).first().copied() else { return vec![] }; // lib.rs declares them all
    let rank = |module: &str| ORDER.split_whitespace().position(|m| m == module);
    let judge = |(line, path): (usize, &str)| {
        let there = path.split("::").next().unwrap_or_default();
        let is_before = rank(there).is_some_and(|there| Some(there) <= rank(here));
        let what = format!("`{here}` may import a module up to itself in {ORDER}; not `{there}`");
        (!is_before).then(|| source.finding(line, &what))
    };
    let climbs = climbs(source).into_iter();
    let climbs = climbs.map(|line| source.finding(line, "`super` leads out of the module; say `crate::`"));
    own_paths(source).into_iter().filter_map(judge).chain(climbs).collect()
}

/// The election sees `clock::Instant` and nothing else, and has no way to wait, to log or to read a clock.
pub fn check_election(source: &Source) -> Vec<String> {
    let why = "the election is values and rules only; take it as an argument, or do it in the driver";
    let is_own = |path: &str| path == "clock::Instant" || path.starts_with("election::");
    let imported = own_paths(source).into_iter().filter(|(_, path)| !is_own(path));
    let mentioned = source.code().flat_map(|(line, code)| {
        let is_std_instant = move |word: &str| word == "Instant" && code.contains("std::time");
        let is_out = move |w: &&str| NOT_IN_ELECTION.split(' ').any(|n| n == *w) || is_std_instant(w);
        words(code).filter(is_out).map(move |word| (line, word))
    });
    imported.chain(mentioned).map(|(line, what)| source.finding(line, &format!("`{what}`: {why}"))).collect()
}

pub fn check_servers(source: &Source) -> Vec<String> {
    let store = own_paths(source).into_iter().filter(|(_, path)| path.split("::").next() == Some("store"));
    let what = "a slow store must not hang the servers; read the driver's snapshot, or send it a command";
    store.map(|(line, _)| source.finding(line, what)).collect()
}

#[test]
fn imports_that_do_not_belong_there_are_noticed() {
    for (path, text, count) in [
        ("src/store.rs", "use crate::driver::Driver;", 1),
        ("src/store/etcd.rs", "use crate::{clock, driver};", 1),
        ("src/store/etcd.rs", "use super::super::driver::x;", 1),
        ("src/store.rs", "use super::meta;", 1),
        ("src/clock.rs", "mod tests {\n    use super::super::config::Config;\n}", 1),
        ("src/clock.rs", "mod tests {\n}\nuse super::config;", 1),
        ("src/node.rs", "use crate::*;", 1),
        ("src/unheard_of.rs", "use crate::clock;", 1),
        ("src/store/etcd.rs", "use crate::clock::Clock;\nuse super::Txn;", 0),
        ("src/store.rs", "mod tests {\n    use super::*;\n}\n// use crate::driver;", 0),
        ("src/main.rs", "use metad::cli;", 0),
    ] {
        assert_eq!(check_order(&Source::new(path, text)).len(), count, "{path}: {text}");
    }
    for (text, count) in [
        ("use crate::clock::{Clock, Instant};", 1),
        ("use std::time::{Duration, Instant};", 1),
        ("async fn f() {}", 1),
        ("#[derive(serde::Serialize)]", 1),
        ("use crate::clock::Instant;\nuse crate::election::record::X;\nlet a = \"log\"; // async", 0),
    ] {
        assert_eq!(check_election(&Source::new("src/election/lease.rs", text)).len(), count, "{text}");
    }
    assert_eq!(
        check_servers(&Source::new("src/api.rs", "use crate::store::Store; // crate::store")).len(),
        1
    );
}
