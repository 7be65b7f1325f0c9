//! The shape of files and functions, and their names.

use super::finding::Finding;
use super::source::{Function, Source};

/// The longest file.
const FILE_LINES_MAX: usize = 700;
/// The median of all files is no longer.
const FILE_LINES_MEDIAN_MAX: usize = 200;
/// The longest function.
const FUNCTION_LINES_MAX: usize = 70;
/// So many functions of a hundred stay within [`FUNCTION_LINES_USUAL`].
const USUAL_PERCENT: usize = 90;
/// How long most functions are at most.
const FUNCTION_LINES_USUAL: usize = 40;

/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 7] = ["util", "utils", "common", "manager", "managers", "helper", "helpers"];

/// Every file says first what it is for.
pub fn check_opening(source: &Source) -> Vec<Finding> {
    let first = source.text.lines().next().unwrap_or_default();
    if first.starts_with("//!") && first.len() > "//! ".len() {
        return vec![];
    }
    let text = "the file does not open with `//!`: a reader learns there what it is for and what it must not do; \
                write one sentence of each";
    vec![Finding::new(&source.path, 1, text)]
}

/// No `mod.rs`, and no module whose name says nothing.
pub fn check_names(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let stem = source.path.trim_end_matches(".rs").rsplit('/').next().unwrap_or_default();
    if stem == "mod" {
        let text = "`mod.rs`: with `foo.rs` beside `foo/` a listing of src is the code map; rename it to its folder's";
        findings.push(Finding::new(&source.path, 1, text));
    }
    let declared = source.tokens.windows(2).filter(|pair| pair[0].word() == Some("mod"));
    let declared = declared.filter_map(|pair| Some((pair[1].line, pair[1].word()?)));
    // What `proto/common.proto` generates has the name that RisingWave gave it.
    let declared = declared.filter(|(_, name)| !(*name == "common" && source.path == "src/proto.rs"));
    for (line, name) in std::iter::once((1, stem)).chain(declared) {
        if EMPTY_NAMES.contains(&name) {
            let text = format!(
                "a module named `{name}` collects whatever has no place; name it after what it holds"
            );
            findings.push(Finding::new(&source.path, line, text));
        }
    }
    findings
}

/// No file is too long to be read at one go.
pub fn check_file_length(source: &Source) -> Vec<Finding> {
    if source.lines() <= FILE_LINES_MAX {
        return vec![];
    }
    let text = format!(
        "the file has {} lines, the limit is {FILE_LINES_MAX}: nobody reads that at one go; move a part that has \
         a name of its own to a file below {}/",
        source.lines(),
        source.path.trim_end_matches(".rs")
    );
    vec![Finding::new(&source.path, FILE_LINES_MAX + 1, text)]
}

/// Half of the files are short.
pub fn check_median(sources: &[Source]) -> Vec<Finding> {
    let mut by_length: Vec<_> = sources.iter().collect();
    by_length.sort_by_key(|s| s.lines());
    let Some(median) = by_length.get(by_length.len().saturating_sub(1) / 2) else { return vec![] };
    println!("{} files, median {} lines", sources.len(), median.lines());
    if median.lines() <= FILE_LINES_MEDIAN_MAX {
        return vec![];
    }
    let longest: Vec<_> =
        by_length.iter().rev().take(5).map(|s| format!("{} ({})", s.path, s.lines())).collect();
    let text = format!(
        "half of the files have {} lines or more, the limit is {FILE_LINES_MEDIAN_MAX}: files gather what could \
         stand alone; split some of the longest, {}",
        median.lines(),
        longest.join(", ")
    );
    vec![Finding::new(&median.path, 1, text)]
}

/// No function is longer than a screen.
pub fn check_function_length(source: &Source) -> Vec<Finding> {
    let long = source.functions().into_iter().filter(|f| f.lines > FUNCTION_LINES_MAX);
    let find = |f: Function| {
        let text = format!(
            "`{}` has {} lines, the limit is {FUNCTION_LINES_MAX}: it does not fit on a screen; give its steps names",
            f.name, f.lines
        );
        Finding::new(&source.path, f.line, text)
    };
    long.map(find).collect()
}

/// Most functions are short.
pub fn check_usual_length(sources: &[Source]) -> Vec<Finding> {
    let all: Vec<(&str, Function)> =
        sources.iter().flat_map(|s| s.functions().into_iter().map(|f| (s.path.as_str(), f))).collect();
    let mut long: Vec<_> = all.iter().filter(|(_, f)| f.lines > FUNCTION_LINES_USUAL).collect();
    println!("{} functions, {} of them above {FUNCTION_LINES_USUAL} lines", all.len(), long.len());
    if long.len() * 100 <= all.len() * (100 - USUAL_PERCENT) {
        return vec![];
    }
    long.sort_by_key(|(_, f)| std::cmp::Reverse(f.lines));
    let why = format!(
        "{} of {} functions have more than {FUNCTION_LINES_USUAL} lines, and {USUAL_PERCENT} % shall not",
        long.len(),
        all.len()
    );
    let find = |(path, f): &&(&str, Function)| {
        Finding::new(path, f.line, format!("`{}` has {} lines: {why}; give its steps names", f.name, f.lines))
    };
    long.iter().map(find).collect()
}

mod tests {
    use super::super::finding::lines;
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source::parse(path, text)
    }

    /// A function of so many lines.
    fn function(lines: usize) -> String {
        format!("fn f() {{\n{}}}\n", "    g();\n".repeat(lines - 2))
    }

    #[test]
    fn a_file_without_its_purpose_is_noticed() {
        for text in ["", "use x;\n//! late", "// a comment", "//!\nempty", "\n//! a line late"] {
            assert_eq!(lines(&check_opening(&source("src/x.rs", text))), [1], "{text:?}");
        }
        assert_eq!(check_opening(&source("src/x.rs", "//! What it is for.\n")), []);
    }

    #[test]
    fn a_name_that_says_nothing_is_noticed() {
        for (path, text, line) in [
            ("src/store/mod.rs", "", 1),
            ("src/utils.rs", "", 1),
            ("src/api/helpers.rs", "", 1),
            ("src/api.rs", "\npub mod common;", 2),
            ("src/api.rs", "\n\nmod manager {}", 3),
        ] {
            assert_eq!(lines(&check_names(&source(path, text))), [line], "{path} {text}");
        }
        for (path, text) in [("src/proto.rs", "pub mod common {}"), ("src/model.rs", "mod x; // mod util;")] {
            assert_eq!(check_names(&source(path, text)), [], "{path} {text}");
        }
    }

    #[test]
    fn a_long_file_is_noticed() {
        let of = |lines| check_file_length(&source("src/x.rs", &"x\n".repeat(lines))).len();
        assert_eq!((of(FILE_LINES_MAX), of(FILE_LINES_MAX + 1)), (0, 1));
    }

    #[test]
    fn a_long_median_is_noticed() {
        let of = |lengths: &[usize]| {
            let files: Vec<_> = lengths.iter().map(|n| source("src/x.rs", &"x\n".repeat(*n))).collect();
            check_median(&files).len()
        };
        assert_eq!((of(&[1, 200, 700]), of(&[1, 201, 202]), of(&[])), (0, 1, 0));
    }

    #[test]
    fn a_long_function_is_noticed() {
        let of = |lines| check_function_length(&source("src/x.rs", &function(lines))).len();
        assert_eq!((of(FUNCTION_LINES_MAX), of(FUNCTION_LINES_MAX + 1)), (0, 1));
        let hidden = format!("impl X {{ mod y {{ {} }} }}", function(FUNCTION_LINES_MAX + 1));
        assert_eq!(check_function_length(&source("src/x.rs", &hidden)).len(), 1, "wherever it stands");
    }

    #[test]
    fn many_longish_functions_are_noticed() {
        let of = |short: usize, long: usize| {
            let text = function(FUNCTION_LINES_USUAL).repeat(short)
                + &function(FUNCTION_LINES_USUAL + 1).repeat(long);
            check_usual_length(&[source("src/x.rs", &text)]).len()
        };
        assert_eq!((of(9, 1), of(8, 2), of(0, 0)), (0, 2, 0));
    }
}
