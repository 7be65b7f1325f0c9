//! Where a value comes from: a layer, and its place there, as messages name it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::keys::Key;
use super::value::{parse_text, value_text};

/// Where a value comes from. Shown as `default`, `file metad.toml:14`, `env METAD_…` or `flag --…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// No layer gave it: the built-in or computed default.
    Default,
    /// The configuration file.
    File(Box<Spot>),
    /// The environment variable of this name.
    Env(String),
    /// The command line flag of this name.
    Flag(String),
}

/// A place in the configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot {
    /// The file, as it was named.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, in characters.
    pub column: usize,
    /// The line's text with carets under the place; empty when it must not be shown.
    pub excerpt: String,
    /// For a list, the place of each item: lists often stand on several lines.
    pub items: Vec<Spot>,
}

/// The origin of every value, by the key's path. What is not in it is a default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins(BTreeMap<&'static str, Origin>);

// === impl Origins ===

impl Origins {
    /// The value of the key with this path comes from here.
    pub(super) fn set(&mut self, path: &'static str, origin: Origin) {
        self.0.insert(path, origin);
    }

    /// Where the value of the key with this path comes from.
    pub fn get(&self, path: &str) -> &Origin {
        self.0.get(path).unwrap_or(&Origin::Default)
    }
}

// === impl Origin ===

impl Origin {
    /// The head of an error message: `metad.toml:14:3: `, `environment METAD_…: `, `flag --…: `, or nothing.
    pub(super) fn head(&self) -> String {
        match self {
            Origin::Default => String::new(),
            Origin::File(spot) => format!("{}:{}:{}: ", spot.file.display(), spot.line, spot.column),
            Origin::Env(name) => format!("environment {name}: "),
            Origin::Flag(flag) => format!("flag {flag}: "),
        }
    }

    /// The lines of the file that an error message shows, or nothing.
    pub(super) fn excerpt(&self) -> &str {
        match self {
            Origin::File(spot) => &spot.excerpt,
            Origin::Default | Origin::Env(_) | Origin::Flag(_) => "",
        }
    }

    /// The place of one item of a list.
    pub(super) fn of_item(&self, index: usize) -> Origin {
        match self {
            Origin::File(spot) => Origin::File(spot.items.get(index).cloned().map_or(spot.clone(), Box::new)),
            other => other.clone(),
        }
    }

    /// The same place without the file's text, for a line that holds a secret.
    pub(super) fn without_excerpt(&self) -> Origin {
        match self {
            Origin::File(spot) => Origin::File(Box::new(Spot { excerpt: String::new(), ..(**spot).clone() })),
            other => other.clone(),
        }
    }

    /// How `example` is written at this place: in the file, as a variable, or as a flag.
    pub(super) fn assignment(&self, key: &Key, example: &str) -> String {
        match self {
            Origin::Env(name) => format!("{name}={example}"),
            Origin::Flag(flag) => format!("{flag} {example}"),
            Origin::Default | Origin::File(_) => match parse_text(key, example) {
                Some(value) => format!("{} = {}", key.name(), value_text(&value)),
                None => format!("{} = {example}", key.name()),
            },
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(spot) => write!(f, "file {}:{}", spot.file.display(), spot.line),
            Origin::Env(name) => write!(f, "env {name}"),
            Origin::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}
