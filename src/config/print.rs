//! The configuration as TOML: the one in force, and the sample file with every key.

use std::fmt::Write;

use toml::Table;

use super::Config;
use super::keys::{Fallback, KEYS, Key, SECTIONS};
use super::layers::lookup;
use super::origin::Origins;
use super::value::{quote, value_text};

const RENDER_HEAD: &str = "\
# The effective configuration. It holds no secrets: it names only the file of etcd's password.
";

const REFERENCE_HEAD: &str = "\
# Every key of metad, with its default. Nothing is set in this file: a line that begins with # and a key is
# that key's default or, where the default is computed, an example. Take the # away to set it.
#
# A value comes from the defaults, then this file, then the environment, then the flags; each later one
# replaces single keys. `metad config print --origins` shows the effective values and their origins, and
# `metad config check` reads a file without starting anything. Unknown keys are errors. SIGHUP reloads
# log.filter, node.priority, the keys of [checks], and all certificates, tokens and the access file; the
# files of [tls] and [auth] are also read again by themselves when they change. Every other change needs a
# restart. Relative paths count from the working directory. The variables of lists take items separated by
# commas.
";

/// Longest line of prose in the sample file.
const WIDTH: usize = 110;

/// The sample file `config/metad.toml`: every key, commented out, with default, range, variable and reason.
pub fn reference() -> String {
    let mut out = REFERENCE_HEAD.to_owned();
    for (section, help) in SECTIONS {
        out += &format!("\n# {help}\n[{section}]\n");
        for key in KEYS.iter().filter(|key| key.section() == section) {
            out += "\n";
            out += &reference_entry(key);
        }
    }
    out
}

/// The configuration as TOML, with a comment on the origin of each value when there are origins.
pub(super) fn render(table: &Table, origins: Option<&Origins>) -> String {
    let mut out = RENDER_HEAD.to_owned();
    for (section, _) in SECTIONS {
        let _ = writeln!(out, "\n[{section}]");
        for key in KEYS.iter().filter(|key| key.section() == section) {
            out += &match lookup(table, key.path) {
                Some(value) => format!("{} = {}", key.name(), value_text(value)),
                None => format!("# {} is not set: {}", key.name(), without_value(key)),
            };
            if let Some(origins) = origins {
                // A file's name may hold a line end, and a comment must not.
                let origin = origins.get(key.path).to_string().replace(char::is_control, "?");
                let _ = write!(out, "  # {origin}");
            }
            out.push('\n');
        }
    }
    out
}

/// The value of one key as TOML, if it has one.
pub(super) fn current(config: &Config, key: &Key) -> Option<String> {
    let table = Table::try_from(config).ok()?;
    lookup(&table, key.path).map(value_text)
}

fn without_value(key: &Key) -> &'static str {
    match key.fallback {
        Fallback::Computed { from, .. } => from,
        Fallback::Unset { means, .. } => means,
        Fallback::Integer(_) | Fallback::Text(_) | Fallback::Switch(_) | Fallback::EmptyList => "",
    }
}

fn reference_entry(key: &Key) -> String {
    let (value, default) = match key.fallback {
        Fallback::Integer(number) => (number.to_string(), number.to_string()),
        Fallback::Text(text) => (quote(text), quote(text)),
        Fallback::Switch(on) => (on.to_string(), on.to_string()),
        Fallback::EmptyList => ("[]".to_owned(), "[]".to_owned()),
        Fallback::Computed { from, example } => (quote(example), from.to_owned()),
        Fallback::Unset { means, example } => (quote(example), format!("not set, {means}")),
    };
    let flag = key.flag.map_or(String::new(), |flag| format!(" · {}", flag.name));
    format!(
        "{}# Default: {default}\n# Takes: {}\n# Set by: {}{flag}\n#{} = {value}\n",
        comment(key.help),
        key.expected(),
        key.env(),
        key.name()
    )
}

/// Breaks a text into comment lines.
fn comment(text: &str) -> String {
    let mut out = String::new();
    let mut line = String::from("#");
    for word in text.split(' ') {
        if line.chars().count() + 1 + word.chars().count() > WIDTH {
            out += &format!("{line}\n");
            line = String::from("#");
        }
        line += &format!(" {word}");
    }
    out + &line + "\n"
}
