//! What code and texts must hold and must not hold: names of metrics, keys of the history, proofs of safety, words.

use std::collections::BTreeMap;

use super::finding::Finding;
use super::source::Source;
use super::tokens::Token;

/// Where the metrics are.
pub const METRICS: &str = "src/telemetry/metrics.rs";
/// The only file that knows the keys of the history.
pub const HISTORY: &str = "src/journal/writer.rs";

/// Words that users met once, and what to say instead.
const GONE: [(&str, &str); 6] = [
    ("seat", "leader record, or vacancy"),
    ("heir", "successor"),
    ("picture", "view"),
    ("desk", "request queue"),
    ("sight", "probe"),
    ("last words", "tenure file"),
];

/// Words about how the software is made instead of what it does, in two halves, lest this file hold them. Those
/// in the second list count in any case.
const WORDS: [&str; 8] = [
    concat!("A", "I"),
    concat!("LL", "M"),
    concat!("GP", "T"),
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("unimpl", "emented!"),
    concat!("to", "do!"),
];
const WORDS_IN_ANY_CASE: [&str; 3] =
    [concat!("agent ", "session"), concat!("clau", "de"), concat!("farm-", "studio")];

/// A metric's name at a place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MetricName {
    name: String,
    path: String,
    line: usize,
}

/// The metrics' names that a file registers, outside of its tests.
pub fn metric_names(source: &Source) -> Vec<MetricName> {
    let around = source.surroundings();
    let is_test = |i: usize| around[i].iter().any(|m| m == "tests");
    let is_name = |text: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    let is_registered = |i: usize| {
        let before = |n: usize| i.checked_sub(n).map(|i| &source.tokens[i]);
        before(1).and_then(Token::mark) == Some("(")
            && before(2).and_then(Token::word).is_some_and(|w| w.starts_with("register"))
    };
    let find = |(i, token): (usize, &Token)| {
        let name = token.text().filter(|t| is_name(t))?;
        let is_metric = is_registered(i) || (source.path == METRICS && name.starts_with("metad_"));
        (is_metric && !is_test(i)).then(|| MetricName {
            name: name.to_owned(),
            path: source.path.clone(),
            line: token.line,
        })
    };
    source.tokens.iter().enumerate().filter_map(find).collect()
}

/// Each metric is registered once. A counter is shown with `_total`, so its name must not be another's without.
pub fn check_metric_names(names: &[MetricName]) -> Vec<Finding> {
    let mut first: BTreeMap<&str, &MetricName> = BTreeMap::new();
    let mut findings = Vec::new();
    for metric in names {
        let shown = metric.name.strip_suffix("_total").unwrap_or(&metric.name);
        if let Some(other) = first.insert(shown, metric) {
            let text = format!(
                "the metric `{}` is already at {}:{}: two of one name make neither readable; rename one, or use one \
                 constant for both places",
                metric.name, other.path, other.line
            );
            findings.push(Finding::new(&metric.path, metric.line, text));
        }
    }
    findings
}

/// Only [`HISTORY`] knows the keys of the history.
pub fn check_history_keys(source: &Source) -> Vec<Finding> {
    if source.path == HISTORY {
        return vec![];
    }
    let strings = source.tokens.iter().filter(|t| t.text().is_some_and(|text| text.contains("history/")));
    let why =
        format!("only {HISTORY} writes the history, so that each tenure has one row; call it from here");
    strings.map(|t| Finding::new(&source.path, t.line, format!("mentions a `history/` key: {why}"))).collect()
}

/// Every `unsafe` says why it is sound, in a comment on it or just above its statement.
pub fn check_unsafe(source: &Source) -> Vec<Finding> {
    let lines: Vec<&str> = source.text.lines().map(str::trim).collect();
    let pairs = source.tokens.windows(2).filter(|pair| pair[0].word() == Some("unsafe"));
    let opens = pairs.filter(|pair| pair[1].mark() == Some("{") || pair[1].word() == Some("impl"));
    let bare = opens.map(|pair| pair[0].line).filter(|line| !is_justified(source, &lines, *line));
    let why =
        "`unsafe` without `// SAFETY:`: the reader must learn why it is sound; write it on the line above";
    bare.map(|line| Finding::new(&source.path, line, why)).collect()
}

/// Is there a proof on this line, or above the statement that it belongs to?
fn is_justified(source: &Source, lines: &[&str], line: usize) -> bool {
    let proves = |n: usize| source.comments.iter().any(|(at, text)| *at == n && text.contains("SAFETY:"));
    let is_comment = |n: usize| lines[n - 1].starts_with("//");
    let mut above = line - 1;
    // The lines of the same statement, which end where another ends or a block opens.
    while above > 0
        && !is_comment(above)
        && !lines[above - 1].ends_with([';', '{', '}'])
        && !lines[above - 1].is_empty()
    {
        above -= 1;
    }
    let first = (1..=above).rev().take_while(|n| is_comment(*n)).last().unwrap_or(above + 1);
    proves(line) || (first..=above).any(proves)
}

/// No text talks about how the software is made.
pub fn check_words(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let lower = line.to_lowercase();
        let exact = WORDS.iter().filter(|word| has_word(line, word));
        for word in exact.chain(WORDS_IN_ANY_CASE.iter().filter(|word| has_word(&lower, word))) {
            let text = format!(
                "`{word}` is about how the software is made, and readers come for what it does; finish what is open, \
                 or say what the reader needs"
            );
            findings.push(Finding::new(path, i + 1, text));
        }
    }
    findings
}

/// What users read says the words of the field: no text of the program has one of those that are gone.
pub fn check_gone_words(source: &Source) -> Vec<Finding> {
    let texts = source.tokens.iter().filter_map(|t| Some((t.line, t.text()?)));
    let find = |(line, text): (usize, &str)| {
        let lower = text.to_lowercase();
        let gone = GONE.iter().find(|(word, _)| has_word(&lower, word));
        gone.map(|(word, instead)| Finding::new(&source.path, line, format!("`{word}`: say {instead}")))
    };
    texts.filter_map(find).collect()
}

fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word).any(|(at, _)| {
        let after = line[at + word.len()..].chars().next();
        !is_part(line[..at].chars().next_back()) && (word.ends_with('!') || !is_part(after))
    })
}

/// The sample configuration is what the code says it is.
pub fn check_reference(path: &str, file: &str, reference: &str) -> Vec<Finding> {
    if file == reference {
        return vec![];
    }
    let (mut in_file, mut in_code) = (file.lines(), reference.lines());
    let mut line = 0;
    let (found, expected) = loop {
        line += 1;
        match (in_file.next(), in_code.next()) {
            (None, None) => break ("another line end", "one line end at the end"),
            (a, b) if a != b => break (a.unwrap_or("the end"), b.unwrap_or("the end")),
            _ => {}
        }
    };
    let text = format!(
        "{found:?} instead of {expected:?}: the sample must show the defaults that are in force; write what \
         `metad::config::reference()` returns into it (METAD_TIDY_WRITE=1 with this test does)"
    );
    vec![Finding::new(path, line, text)]
}

mod tests {
    use super::super::finding::lines;
    use super::*;

    #[test]
    fn a_word_that_is_gone_is_noticed_in_what_users_read_only() {
        let at = |text: &str| lines(&check_gone_words(&source("src/cli.rs", text)));
        assert_eq!(at("// the seat\nlet a = \"the seat is free\";\nlet seat = \"seated\";"), [2]);
    }

    fn source(path: &str, text: &str) -> Source {
        Source::parse(path, text)
    }

    #[test]
    fn a_metric_registered_twice_is_noticed() {
        let names = |files: &[(&str, &str)]| -> Vec<MetricName> {
            files.iter().flat_map(|(path, text)| metric_names(&source(path, text))).collect()
        };
        for (files, line) in [
            (&[(METRICS, "r.register(\"metad_a\", h);\nr.register(\"metad_a\", h);")][..], 2),
            (&[(METRICS, "const A: &str = \"metad_a\";\n\nconst B: &str = \"metad_a\";")][..], 3),
            (
                &[
                    (METRICS, "r.register(\"metad_a\");"),
                    ("src/node.rs", "\nm.register_computed(\"metad_a\", f);"),
                ][..],
                2,
            ),
            (&[(METRICS, "r.register(\"metad_a_total\");\nr.register(\n\"metad_a\");")][..], 3),
            (&[("src/a.rs", "register(\"up\");\nregister(\"up\");")][..], 2),
        ] {
            assert_eq!(lines(&check_metric_names(&names(files))), [line], "{files:?}");
        }
        let good = "r.register(\"metad_a\", \"Help\");\nr.register(\"metad_b\", \"Help\");\n\
                    mod tests { fn t() { assert!(text.contains(\"metad_a\")); r.register(\"metad_b\") } }";
        let good = names(&[(METRICS, good), ("src/cli.rs", "f(\"metad_a\"); // register(\"metad_a\")")]);
        assert_eq!((good.len(), check_metric_names(&good)), (2, vec![]));
    }

    #[test]
    fn a_history_key_elsewhere_is_noticed() {
        let text = "\nlet key = format!(\"{prefix}history/{token:020}\");";
        assert_eq!(lines(&check_history_keys(&source("src/driver/x.rs", text))), [2]);
        assert_eq!(check_history_keys(&source(HISTORY, text)), []);
        assert_eq!(check_history_keys(&source("src/x.rs", "// history/\nlet a = \"history\";")), []);
    }

    #[test]
    fn an_unsafe_without_a_proof_is_noticed() {
        for (text, line) in [
            ("fn f() {\n    unsafe { g() }\n}", 2),
            ("// SAFETY: far away\n\nunsafe { g() }", 3),
            ("// SAFETY: of the first\nunsafe { g() };\nunsafe { h() };", 3),
            ("// safe enough\nunsafe impl Send for X {}", 2),
            ("let x = \"SAFETY:\";\nunsafe { g() }", 2),
        ] {
            assert_eq!(lines(&check_unsafe(&source("src/x.rs", text))), [line], "{text}");
        }
        for text in [
            "// SAFETY: so\nunsafe { g() }",
            "// SAFETY: so,\n// and so\nlet x =\n    unsafe { g() };",
            "unsafe { g() } // SAFETY: so",
            "// unsafe { }\nunsafe fn f() {}",
            "let s = \"unsafe {\";",
        ] {
            assert_eq!(check_unsafe(&source("src/x.rs", text)), [], "{text}");
        }
    }

    #[test]
    fn a_word_about_the_making_is_noticed() {
        for word in WORDS.iter().chain(&WORDS_IN_ANY_CASE) {
            let text = format!("fine\nit says {word}(\"x\"), here");
            assert_eq!(lines(&check_words("docs/x.md", &text)), [2], "{word}");
        }
        let upper = WORDS_IN_ANY_CASE[1].to_uppercase();
        assert_eq!(lines(&check_words("README.md", &upper)), [1], "{upper}");
        let inside = "mktemp /tmp/x.XXXXXX; FAIL; MAIL; RAID; Status::unimplemented(x); todos";
        assert_eq!(check_words("Makefile", inside), []);
    }

    #[test]
    fn a_sample_that_differs_is_noticed() {
        for (file, line) in [("a\nB\n", 2), ("a\n", 2), ("a\nb\nc\n", 3), ("a\nb", 3), ("", 1)] {
            assert_eq!(lines(&check_reference("config/metad.toml", file, "a\nb\n")), [line], "{file:?}");
        }
        assert_eq!(check_reference("config/metad.toml", "a\nb\n", "a\nb\n"), []);
    }
}
