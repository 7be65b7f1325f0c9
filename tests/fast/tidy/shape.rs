//! The sizes of files, and names that tell what they name.

use std::collections::{BTreeMap, BTreeSet};

use super::Source;

/// The longest file; clippy.toml has the longest function.
const LINES_MAX: usize = 600;
/// The median of all files is no longer.
pub const LINES_MEDIAN_MAX: usize = 200;

const EMPTY_NAMES: &str = "util utils common manager managers helper helpers";

/// Names that more than one type has, and that are to go.
pub const SHARED_TYPES: &str = "Answer Barriers Change Check Cluster Counted Deadlines End Ending Entry Event Fate Finding Foreign \
     Guard Inner Leader Lease Member OpenError Page Past Place Process Refusal Refused \
     Renewal Request Said Seen Shared State Status \
     Tenure Token Watching WorkerSpec Write";

/// Every file says first what it is for.
pub fn check_opening(source: &Source) -> Vec<String> {
    let opens = source.text.strip_prefix("//! ").is_some_and(|text| !text.starts_with('\n'));
    if opens { vec![] } else { vec![source.finding(1, "does not open with `//!` and what it is for")] }
}

pub fn check_names(source: &Source) -> Vec<String> {
    let stem = source.path.trim_end_matches(".rs").rsplit('/').next().unwrap_or_default();
    let declared = source.code().filter_map(|(line, code)| {
        let name = code.trim_start().trim_start_matches("pub ").strip_prefix("mod ")?;
        Some((line, name.trim_end_matches([' ', ';', '{'])))
    });
    // What `proto/common.proto` generates has the name that RisingWave gave it.
    let declared = declared.filter(|(_, name)| !(*name == "common" && source.path == "src/proto.rs"));
    let names = std::iter::once((1, stem)).chain(declared);
    let empty = names.filter(|(_, name)| EMPTY_NAMES.split(' ').any(|n| n == *name));
    empty.map(|(line, name)| source.finding(line, &format!("`{name}` holds anything; say what"))).collect()
}

pub fn check_length(source: &Source) -> Vec<String> {
    let lines = source.lines().count();
    if lines <= LINES_MAX {
        return vec![];
    }
    vec![source.finding(LINES_MAX + 1, &format!("{lines} lines; move what has a name to a file of its own"))]
}

pub fn median(sources: &[Source]) -> usize {
    let mut lines: Vec<_> = sources.iter().map(|s| s.lines().count()).collect();
    lines.sort_unstable();
    lines[(lines.len() - 1) / 2]
}

/// The type that a line declares outside of inline modules.
fn type_in(line: &str) -> Option<&str> {
    let line = match line.strip_prefix("pub") {
        Some(rest) => rest.trim_start_matches("(crate)").trim_start_matches("(super)").strip_prefix(' ')?,
        None => line,
    };
    let keywords = ["struct ", "enum ", "trait ", "type "];
    keywords
        .iter()
        .find_map(|keyword| line.strip_prefix(keyword))?
        .split(|c: char| !c.is_alphanumeric())
        .next()
}

/// The names that types of several files have: whoever meets one must ask which is meant.
pub fn shared_types(sources: &[Source]) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut places: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for source in sources {
        for name in source.text.lines().filter_map(type_in) {
            places.entry(name).or_default().insert(&source.path);
        }
    }
    places.retain(|_, paths| paths.len() > 1);
    places
}

#[test]
fn bad_shapes_and_names_are_noticed() {
    for text in ["", "use x;\n//! late", "// a comment", "//!\nempty", "\n//! a line late"] {
        assert_eq!(check_opening(&Source::new("src/x.rs", text)).len(), 1, "{text:?}");
    }
    let file = |lines| Source::new("src/x.rs", &"x\n".repeat(lines));
    assert_eq!([LINES_MAX, LINES_MAX + 1].map(|n| check_length(&file(n)).len()), [0, 1]);
    assert_eq!(median(&[1, 203, 700, 202].map(file)), 202);
    for (path, text, count) in [
        ("src/utils.rs", "", 1),
        ("src/api.rs", "pub mod common;", 1),
        ("src/proto.rs", "pub mod common {", 0),
        ("src/model.rs", "mod x; // mod util;", 0),
    ] {
        assert_eq!(check_names(&Source::new(path, text)).len(), count, "{path} {text}");
    }
    let shared = |a, b| shared_types(&[Source::new("src/a.rs", a), Source::new("src/b.rs", b)]).len();
    assert_eq!(
        (shared("struct A;", "pub(super) enum A {}"), shared("pub trait A {", "type A = u8;")),
        (1, 1)
    );
    assert_eq!(shared("struct A;\nstruct A;", "struct Ab;\n    struct A;\n// struct A"), 0);
}
