//! The configuration file: TOML with the line and column of every key.
//!
//! `toml::Table` forgets where a value stood, so the file is read as a spanned tree and flattened to
//! (key, value, origin). Faults are reported in the order of the file.

use std::ops::Range;
use std::path::Path;

use toml::Value;
use toml::de::{DeTable, DeValue};

use super::error::ConfigError;
use super::keys::{self, Key, Kind};
use super::origin::{Origin, Spot};
use super::suggest;

/// One assignment of the file.
pub(super) type Assignment = (&'static Key, Value, Origin);

/// The file's name and text, for places and excerpts.
struct Source<'t> {
    path: &'t Path,
    text: &'t str,
}

/// An assignment before it is checked: what was found at which path.
struct Entry<'d, 'i> {
    path: String,
    key_span: Range<usize>,
    value_span: Range<usize>,
    value: &'d DeValue<'i>,
}

/// Reads the file and checks names and types, each by itself; values are checked after the merge.
pub(super) fn read(path: &Path) -> Result<Vec<Result<Assignment, ConfigError>>, ConfigError> {
    let bytes =
        std::fs::read(path).map_err(|error| ConfigError::Unreadable { path: path.to_owned(), error })?;
    let text = str::from_utf8(&bytes).map_err(|error| not_utf8(path, &bytes, error.valid_up_to()))?;
    // Some editors begin a file with a byte order mark; without it, columns are what the reader sees.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let source = Source { path, text };
    let document = DeTable::parse(text).map_err(|error| source.syntax_error(&error))?;

    let mut entries = Vec::new();
    flatten(document.get_ref(), "", &mut entries);
    entries.sort_by_key(|entry| entry.key_span.start);
    Ok(entries.iter().map(|entry| source.assignment(entry)).collect())
}

/// Collects what is not a known section, with its full path.
fn flatten<'d, 'i>(table: &'d DeTable<'i>, section: &str, entries: &mut Vec<Entry<'d, 'i>>) {
    for (key, value) in table {
        let name = key.get_ref();
        let path = if section.is_empty() { name.to_string() } else { format!("{section}.{name}") };
        match value.get_ref() {
            // A quoted key may contain a dot; it is not the path that it looks like.
            DeValue::Table(inner) if keys::find_section(&path).is_some() && !name.contains('.') => {
                flatten(inner, &path, entries);
            }
            other => {
                let path = if name.contains('.') { format!("{section}.\"{name}\"") } else { path };
                entries.push(Entry { path, key_span: key.span(), value_span: value.span(), value: other });
            }
        }
    }
}

/// Turns a parsed value into one of the key's type, or says what it is instead.
fn convert(kind: Kind, value: &DeValue<'_>) -> Result<Value, String> {
    match (kind, value) {
        (Kind::Switch, DeValue::Boolean(on)) => Ok(Value::Boolean(*on)),
        (Kind::Switch, _) => Err(describe(value)),
        (Kind::Integer { .. }, DeValue::Integer(number)) => {
            let parsed = i64::from_str_radix(number.as_str(), number.radix());
            parsed.map(Value::Integer).map_err(|_| number.to_string())
        }
        (Kind::Integer { .. }, _) => Err(describe(value)),
        (Kind::Endpoints | Kind::Command, DeValue::Array(items)) => {
            let items = items.iter().map(|item| match item.get_ref() {
                DeValue::String(text) => Ok(Value::String(text.to_string())),
                other => Err(format!("{} in the list", describe(other))),
            });
            items.collect::<Result<_, _>>().map(Value::Array)
        }
        (Kind::Endpoints | Kind::Command, _) => Err(describe(value)),
        (_, DeValue::String(text)) => Ok(Value::String(text.to_string())),
        (_, _) => Err(describe(value)),
    }
}

fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the string {:?}", text.as_ref()),
        DeValue::Integer(number) => format!("the number {number}"),
        DeValue::Float(number) => format!("the decimal number {number}"),
        DeValue::Boolean(word) => format!("the boolean {word}"),
        DeValue::Datetime(date) => format!("the date {date}"),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a section".to_owned(),
    }
}

fn not_utf8(path: &Path, bytes: &[u8], at: usize) -> ConfigError {
    let before = &bytes[..at];
    let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    ConfigError::NotUtf8 {
        path: path.to_owned(),
        line: before.iter().filter(|byte| **byte == b'\n').count() + 1,
        column: String::from_utf8_lossy(&before[line_start..]).chars().count() + 1,
        byte: bytes.get(at).copied().unwrap_or_default(),
    }
}

// === impl Source ===

impl Source<'_> {
    fn assignment(&self, entry: &Entry<'_, '_>) -> Result<Assignment, ConfigError> {
        if let Some(key) = keys::find(&entry.path) {
            let mut spot = self.spot(entry.value_span.clone());
            if let DeValue::Array(items) = entry.value {
                spot.items = items.iter().map(|item| self.spot(item.span())).collect();
            }
            let origin = Origin::File(Box::new(spot));
            return match convert(key.kind, entry.value) {
                Ok(value) => Ok((key, value, origin)),
                Err(found) => Err(ConfigError::wrong_type(key, origin, found)),
            };
        }
        if let Some(section) = keys::find_section(&entry.path) {
            return Err(ConfigError::WrongType {
                origin: Origin::File(Box::new(self.spot(entry.value_span.clone()))),
                key: section,
                expected: "a section".to_owned(),
                found: describe(entry.value),
                fix: format!("[{section}] on a line of its own, and its keys below"),
            });
        }
        Err(ConfigError::UnknownKey {
            origin: Origin::File(Box::new(self.spot_of_key(entry.key_span.clone()))),
            key: entry.path.clone(),
            hint: suggest::for_path(&entry.path),
        })
    }

    /// The place of an unknown key. Its value is cut off: it may be a password under a wrong name.
    fn spot_of_key(&self, span: Range<usize>) -> Spot {
        let line_end = self.text[span.end..].find('\n').map_or(self.text.len(), |at| span.end + at);
        let rest = &self.text[span.end..line_end];
        let shown = rest.find('=').map_or(rest.len(), |equals| equals + 1);
        let ellipsis = if shown < rest.len() { " …" } else { "" };
        self.spot_with(span.clone(), |line_start| {
            format!("{}{ellipsis}", &self.text[line_start..span.end + shown])
        })
    }

    fn spot(&self, span: Range<usize>) -> Spot {
        let start = span.start;
        self.spot_with(span, |line_start| {
            let line_end = self.text[start..].find('\n').map_or(self.text.len(), |at| start + at);
            self.text[line_start..line_end].trim_end().to_owned()
        })
    }

    /// Line, column and excerpt of `span`, where `show` gives the text of the line from its first byte on.
    fn spot_with(&self, span: Range<usize>, show: impl FnOnce(usize) -> String) -> Spot {
        let line_start = self.text[..span.start].rfind('\n').map_or(0, |newline| newline + 1);
        let line = self.text[..span.start].matches('\n').count() + 1;
        let before = &self.text[line_start..span.start];
        let shown = show(line_start);

        let gutter = " ".repeat(line.to_string().len());
        // Tabs are kept so that the carets stand under the text whatever their width.
        let indent: String = before.chars().map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let marked = self.text[span].lines().next().map_or(0, |marked| marked.chars().count());
        let carets = "^".repeat(marked.max(1));
        Spot {
            file: self.path.to_owned(),
            line,
            column: before.chars().count() + 1,
            excerpt: format!("{gutter} |\n{line} | {shown}\n{gutter} | {indent}{carets}\n"),
            items: Vec::new(),
        }
    }

    fn syntax_error(&self, error: &toml::de::Error) -> ConfigError {
        let spot = self.spot(error.span().filter(|span| self.is_inside(span)).unwrap_or(0..0));
        ConfigError::Syntax {
            path: self.path.to_owned(),
            line: spot.line,
            column: spot.column,
            message: error.to_string(),
        }
    }

    fn is_inside(&self, span: &Range<usize>) -> bool {
        self.text.get(span.clone()).is_some()
    }
}
