//! What a worker says about itself when it registers, and the bounds of it.
//!
//! This file must not know who is registered already.

use std::collections::BTreeMap;

/// The longest host name, in bytes: what DNS allows.
pub const HOST_BYTES_MAX: usize = 253;
/// The longest kind, in characters.
pub const KIND_CHARS_MAX: usize = 63;
/// The most labels of one worker.
pub const LABELS_MAX: usize = 16;
/// The longest key of a label, in bytes.
pub const LABEL_KEY_BYTES_MAX: usize = 63;
/// The longest value of a label, in bytes.
pub const LABEL_VALUE_BYTES_MAX: usize = 255;

/// What a worker says about itself. Host and port are what others reach it by, and who it is: a worker that
/// registers under the same address again is the same one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WorkerSpec {
    /// A host name or an IP address, as others are to use it; at most [`HOST_BYTES_MAX`].
    pub host: String,
    /// A port; not 0.
    pub port: u16,
    /// What it does: `compute`, `compactor`, or any other name of at most [`KIND_CHARS_MAX`] of
    /// `A-Z a-z 0-9 . _ -`.
    pub kind: String,
    /// Whatever else the cluster wants to know of it; at most [`LABELS_MAX`].
    pub labels: BTreeMap<String, String>,
}

/// What is wrong with a [`WorkerSpec`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Not something that can be connected to.
    #[error("host {0:?} must have 1 to {HOST_BYTES_MAX} bytes, without blanks and control characters")]
    Host(String),
    /// Not something that can be connected to.
    #[error("port 0 cannot be connected to")]
    Port,
    /// Not a name.
    #[error("kind {0:?} must have 1 to {KIND_CHARS_MAX} characters of A-Z a-z 0-9 . _ -")]
    Kind(String),
    /// Too many of them; the field says how many.
    #[error("{0} labels are more than {LABELS_MAX}")]
    LabelCount(usize),
    /// Not a name.
    #[error(
        "label key {0:?} must have 1 to {LABEL_KEY_BYTES_MAX} bytes, without blanks and control characters"
    )]
    LabelKey(String),
    /// Too long; the field is the key.
    #[error("the value of label {0:?} must have at most {LABEL_VALUE_BYTES_MAX} bytes, none of them control")]
    LabelValue(String),
}

// === impl WorkerSpec ===

impl WorkerSpec {
    /// Is it within its bounds?
    ///
    /// # Errors
    /// The first thing that is not. What the message quotes is cut off, so that it is bounded as well.
    pub fn check(&self) -> Result<(), SpecError> {
        if !is_name(&self.host) || self.host.len() > HOST_BYTES_MAX {
            return Err(SpecError::Host(quoted(&self.host)));
        }
        if self.port == 0 {
            return Err(SpecError::Port);
        }
        if !is_kind(&self.kind) {
            return Err(SpecError::Kind(quoted(&self.kind)));
        }
        if self.labels.len() > LABELS_MAX {
            return Err(SpecError::LabelCount(self.labels.len()));
        }
        self.labels.iter().try_for_each(|(key, value)| check_label(key, value))
    }
}

fn check_label(key: &str, value: &str) -> Result<(), SpecError> {
    if !is_name(key) || key.len() > LABEL_KEY_BYTES_MAX {
        return Err(SpecError::LabelKey(quoted(key)));
    }
    if value.len() > LABEL_VALUE_BYTES_MAX || value.chars().any(char::is_control) {
        return Err(SpecError::LabelValue(key.to_owned()));
    }
    Ok(())
}

fn is_kind(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (1..=KIND_CHARS_MAX).contains(&text.len()) && text.chars().all(fits)
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(|c| c.is_control() || c.is_whitespace())
}

fn quoted(text: &str) -> String {
    const CHARS_MAX: usize = 80;
    text.chars().take(CHARS_MAX).collect()
}
