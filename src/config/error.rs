//! What can be wrong with a configuration. Each message names the place, the value and the fix.
//!
//! The process that meets one of these ends with exit code 78; that is the caller's affair.

use std::path::PathBuf;

use super::keys::Key;
use super::origin::Origin;

/// Why a configuration was refused. Its text has several lines and ends without a newline.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error(
        "{}: cannot read the configuration file: {error}\nfix: check the path (--config, METAD_CONFIG) and \
         its permissions, or omit it to use the defaults",
        path.display()
    )]
    Unreadable {
        /// The file, as it was named.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The file is not UTF-8, which TOML must be.
    #[error(
        "{}:{line}:{column}: byte 0x{byte:02x} is not UTF-8, which TOML must be\n\
         fix: save the file as UTF-8",
        path.display()
    )]
    NotUtf8 {
        /// The file, as it was named.
        path: PathBuf,
        /// The line of the byte, from 1.
        line: usize,
        /// The column of the byte, from 1.
        column: usize,
        /// The byte itself.
        byte: u8,
    },
    /// The file is not TOML; the text shows the line with a caret.
    #[error(
        "{}:{line}:{column}: {}\nfix: correct this line; strings need double quotes, numbers do not",
        path.display(), message.trim_end()
    )]
    Syntax {
        /// The file, as it was named.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
        /// What the TOML parser said.
        message: String,
    },
    /// A key or section that does not exist. The text never shows the value, which may be a password.
    #[error("{}unknown key `{key}`\n{}fix: {hint}", origin.head(), origin.excerpt())]
    UnknownKey {
        /// Where it stands.
        origin: Origin,
        /// The key or variable as it was written.
        key: String,
        /// A suggestion, or the keys there are.
        hint: String,
    },
    /// A value of another type than the key has.
    #[error("{}{key}: expected {expected}, found {found}\n{}fix: write {fix}", origin.head(), origin.excerpt())]
    WrongType {
        /// Where it stands.
        origin: Origin,
        /// The path of the key or section.
        key: &'static str,
        /// What the value must look like.
        expected: String,
        /// What it is instead.
        found: String,
        /// How it is written.
        fix: String,
    },
    /// A value of the right type that cannot be used.
    #[error("{}{key} = {value}: {problem}\n{}fix: {fix}", origin.head(), origin.excerpt())]
    Invalid {
        /// Where it comes from.
        origin: Origin,
        /// The path of the key.
        key: &'static str,
        /// The value, as TOML; secrets in it are masked.
        value: String,
        /// What is wrong with it.
        problem: String,
        /// What to do.
        fix: String,
    },
    /// Several of these, in the order in which they stand and override each other.
    #[error("{}", all(.0))]
    Several(Vec<ConfigError>),
    /// The list of keys and the structs disagree. Only a fault in metad, or a path that is not UTF-8 in a
    /// configuration made in memory, leads here.
    #[error(
        "the configuration cannot be converted: {0}\nfix: use paths that are UTF-8; else report this as a bug"
    )]
    Schema(String),
}

fn all(faults: &[ConfigError]) -> String {
    let texts: Vec<String> = faults.iter().map(ToString::to_string).collect();
    format!("{}\n{} errors", texts.join("\n\n"), texts.len())
}

// === impl ConfigError ===

impl ConfigError {
    /// Nothing, one of them, or several.
    pub(super) fn of(mut faults: Vec<Self>) -> Result<(), Self> {
        match faults.len() {
            0 => Ok(()),
            1 => Err(faults.remove(0)),
            _ => Err(Self::Several(faults)),
        }
    }

    pub(super) fn schema(error: &dyn std::error::Error) -> Self {
        Self::Schema(error.to_string().trim_end().to_owned())
    }

    pub(super) fn wrong_type(key: &Key, origin: Origin, found: String) -> Self {
        let fix = origin.assignment(key, &key.example());
        Self::WrongType { key: key.path, expected: key.expected(), found, fix, origin }
    }
}
