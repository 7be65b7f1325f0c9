//! A value as it is typed, and as TOML on one line.

use std::fmt::Write;

use toml::Value;

use super::keys::{Key, Kind};

/// Makes a value of the key's type from what was typed; `None` when it is not of that type.
///
/// Blanks around numbers and list items are dropped: they come from YAML and from `$(cat file)`.
pub(super) fn parse_text(key: &Key, text: &str) -> Option<Value> {
    match key.kind {
        Kind::Integer { .. } => text.trim().parse().ok().map(Value::Integer),
        Kind::Switch => text.trim().parse().ok().map(Value::Boolean),
        Kind::Endpoints => {
            // As etcdctl takes it: a comma may stand behind the last one, too.
            let text = text.trim();
            let items = text.strip_suffix(',').unwrap_or(text).split(',');
            Some(Value::Array(items.map(|item| Value::String(item.trim().to_owned())).collect()))
        }
        Kind::Command => {
            let words = || text.split_whitespace().map(|word| Value::String(word.to_owned())).collect();
            match text.trim_start().starts_with('[') {
                true => text.trim().parse().ok().filter(is_command),
                false => Some(Value::Array(words())),
            }
        }
        Kind::Name | Kind::Text | Kind::Path | Kind::Address | Kind::Choice(_) => {
            Some(Value::String(text.to_owned()))
        }
    }
}

fn is_command(value: &Value) -> bool {
    value.as_array().is_some_and(|items| items.iter().all(Value::is_str))
}

/// A value as TOML on one line. (The toml crate may spread a text or a list over several, which leaves no
/// room for a comment behind it.)
pub(super) fn value_text(value: &Value) -> String {
    match value {
        Value::String(text) => quote(text),
        Value::Array(items) => format!("[{}]", items.iter().map(value_text).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

pub(super) fn quote(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
