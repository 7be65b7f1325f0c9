//! Words that are gone, and keys that one file knows.

use super::{Source, code};

const HISTORY: &str = "src/journal/writer.rs";

/// One word for one thing: these are gone, and what to say instead.
const GONE: [(&str, &str); 12] = [
    ("seat", "leader record, or vacancy"),
    ("picture", "view"),
    ("patience", "timeout"),
    ("heir", "successor"),
    ("ward", "main process"),
    ("obituary", "exit report"),
    ("last words", "tenure file"),
    ("desk", "request queue"),
    ("sight", "probe"),
    ("witness", "probe"),
    ("vital", "probe"),
    ("standstill", "stall"),
];
/// A metric that users have.
const KEPT: &str = "metad_picture_age_seconds";
/// Where some of them are still to go. What is shown to users, the strings below `src`, is free of them there too.
const NOT_YET: &str = "src/api/http/page/ tests/fault/ tests/real/ tests/support/";
/// Words about how the software is made instead of what it does; each with a `-`, lest this file hold them.
const MAKING: &str = "a-i ll-m gp-t to-do fix-me xx-x agent_ses-sion clau-de farm_stu-dio";

/// The words that names are made of, in small letters: ` seat for us ` for `seat_for_us` and `SeatForUs`.
fn plain(text: &str) -> String {
    let (mut words, mut was_small) = (String::from(" "), false);
    for c in text.chars() {
        if !c.is_alphanumeric() || (was_small && c.is_uppercase()) {
            words.push(' ');
        }
        was_small = c.is_lowercase();
        words.extend(c.is_alphanumeric().then(|| c.to_ascii_lowercase()));
    }
    words + " "
}

fn has_word(plain: &str, word: &str) -> bool {
    plain.contains(&format!(" {word} ")) || plain.contains(&format!(" {word}s "))
}

pub fn check_gone(source: &Source) -> Vec<String> {
    let is_not_yet = NOT_YET.split_whitespace().any(|path| source.path.starts_with(path));
    let is_shown = source.path.starts_with("src/") && source.path.ends_with(".rs");
    if source.path == "tests/fast/tidy/words.rs" || (is_not_yet && !is_shown) {
        return vec![];
    }
    source.find(|line| {
        let strings = line.split('"').skip(1).step_by(2).flat_map(|text| text.split(['{', '}']).step_by(2));
        let strings = strings.flat_map(|text| [text, " "]);
        let words = plain(&if is_not_yet { strings.collect() } else { line.replace(KEPT, "") });
        let (word, instead) = GONE.iter().find(|(word, _)| has_word(&words, word))?;
        Some(format!("`{word}`: say {instead}"))
    })
}

pub fn check_making(source: &Source) -> Vec<String> {
    source.find(|line| {
        let words = plain(line);
        let mut making = MAKING.split(' ').map(|word| word.replace('-', "").replace('_', " "));
        let word = making.find(|word| has_word(&words, word))?;
        Some(format!("`{word}` is about how it is made; say what it does"))
    })
}

pub fn check_history_keys(source: &Source) -> Vec<String> {
    let is_named = |line: &str| source.path != HISTORY && code(line).contains("history/");
    let what = format!("only {HISTORY} writes the history, so that each tenure has one row; call it");
    source.find(|line| is_named(line).then(|| what.clone()))
}

#[test]
fn words_and_keys_that_do_not_belong_there_are_noticed() {
    let gone = |path: &str, text: &str| check_gone(&Source::new(path, text)).len();
    for text in
        ["the seat", "let seat_for_us = 1;", "enum Seat {", "SEAT_MAX", "aSeat", "Seats", "last_words"]
    {
        assert_eq!(gone("src/cli.rs", text), 1, "{text}");
    }
    assert_eq!(gone("src/cli.rs", "let a = seated + depict + forward + their + insight;"), 0);
    assert_eq!(gone("tests/real/x.rs", "let seat = 1;\nlet a = \"the seat\";"), 0, "not yet");

    let making = |text: &str| check_making(&Source::new("docs/x.md", text)).len();
    let bad = MAKING.replace('-', "");
    for word in bad.split(' ').flat_map(|word| [word.to_owned(), word.to_uppercase(), word.replace('_', "-")])
    {
        assert_eq!(making(&format!("fine\nit says {word}(\"x\"), here")), 1, "{word}");
    }
    assert_eq!(making("mktemp /tmp/x.XXXXXX; FAIL; MAIL; RAID; todosomething"), 0);

    let key = "format!(\"{prefix}history/{token:020}\")";
    let keys = [("src/driver/x.rs", key), (HISTORY, key), ("src/x.rs", "// history/")];
    assert_eq!(keys.map(|(path, text)| check_history_keys(&Source::new(path, text)).len()), [1, 0, 0]);
}
