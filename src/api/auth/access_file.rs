//! The access file: a line for each token, with its role, its name, and its SHA-256. The token itself is nowhere.
//!
//! Tokens are 256 random bits, so that a plain hash is enough. Do not put a password of a person here.

use std::path::Path;

use ring::digest::{SHA256, digest};
use subtle::ConstantTimeEq;

use super::{AccessRole, Grant};
use crate::tls::files::{FileError, read};

/// How the hash begins, so that another one can come.
const PREFIX: &str = "sha256:";
/// A hash's length in bytes.
const HASH_BYTES: usize = 32;
/// The most tokens: each call with one is compared with all.
const TOKENS_MAX: usize = 1000;
/// The name that means: all of them.
const ANY_NAME: &str = "*";

/// The tokens that are accepted.
#[derive(Clone, Debug, Default)]
pub struct AccessFile(Vec<Entry>);

/// A token that is accepted.
#[derive(Clone)]
struct Entry {
    /// What its bearer may do.
    grant: Grant,
    hash: [u8; HASH_BYTES],
}

// === impl AccessFile ===

impl AccessFile {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read, or a line of it.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let bytes = read(path)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| FileError::new(path, "is not UTF-8"))?;
        Self::parse(text).map_err(|what| FileError::new(path, what))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line.trim()));
        let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let entries: Vec<Entry> = lines
            .map(|(n, line)| Entry::parse(line).map_err(|what| format!("line {n} {what}")))
            .collect::<Result<_, _>>()?;
        match entries.len() {
            n if n > TOKENS_MAX => Err(format!("has {n} tokens; {TOKENS_MAX} are the maximum")),
            _ => Ok(Self(entries)),
        }
    }

    /// The token with this hash. Takes as long for one that is known as for one that is not.
    pub(super) fn find(&self, hash: &[u8; HASH_BYTES]) -> Option<&Grant> {
        let mut found = None;
        for entry in &self.0 {
            if bool::from(entry.hash.as_slice().ct_eq(hash)) {
                found = Some(&entry.grant);
            }
        }
        found
    }
}

// === impl Entry ===

impl Entry {
    fn parse(line: &str) -> Result<Self, String> {
        let mut words = line.split_whitespace();
        let (Some(role), Some(name), Some(hash), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err("is not ROLE NAME sha256:HASH".to_owned()); // never quoted: it may be a token
        };
        let role = AccessRole::from_name(role).ok_or_else(|| {
            let roles = AccessRole::ALL.map(AccessRole::as_str).join(", ");
            format!("has an unknown role; the roles are {roles}")
        })?;
        let hash = hash
            .strip_prefix(PREFIX)
            .and_then(unhex)
            .ok_or("has no sha256: and 64 hexadecimal digits; `metad token` prints them")?;
        let name = Some(name.to_owned()).filter(|name| name != ANY_NAME);
        Ok(Self { grant: Grant { role, name }, hash })
    }
}

/// A hash must not be seen in a debug output.
impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").field("grant", &self.grant).finish_non_exhaustive()
    }
}

/// The line of this token.
pub fn line(role: AccessRole, name: &str, token: &str) -> String {
    format!("{} {name} {PREFIX}{}", role.as_str(), hex(&hash(token.as_bytes())))
}

/// Two digits a byte.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// As the file has it.
pub(super) fn hash(token: &[u8]) -> [u8; HASH_BYTES] {
    let mut bytes = [0; HASH_BYTES];
    bytes.copy_from_slice(digest(&SHA256, token).as_ref());
    bytes
}

fn unhex(digits: &str) -> Option<[u8; HASH_BYTES]> {
    let mut bytes = [0; HASH_BYTES];
    if digits.len() != HASH_BYTES * 2 || !digits.is_ascii() {
        return None;
    }
    for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&digits[at..at + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_is_written() {
        let (ops, any) = (line(AccessRole::Admin, "ops", "t1"), line(AccessRole::Worker, "*", "t2"));
        let file = AccessFile::parse(&format!("# ours\n\n{ops}\n {any} \n")).expect("two tokens");
        let granted = |token: &str| file.find(&hash(token.as_bytes())).map(Grant::to_string);
        assert_eq!(granted("t1"), Some("admin:ops".to_owned()));
        assert_eq!(granted("t2"), Some("worker".to_owned()), "without a name");
        assert_eq!(granted("t3"), None);
        assert_eq!(granted(""), None);
    }

    #[test]
    fn a_bad_line_is_named_and_never_quoted() {
        for (text, part) in [
            ("\nsecret", "line 2 is not ROLE NAME"),
            ("secret ops sha256:00", "line 1 has an unknown role"),
            ("admin ops secret", "line 1 has no sha256:"),
            ("admin ops sha256:zz", "line 1 has no sha256:"),
        ] {
            let error = AccessFile::parse(text).unwrap_err();
            assert!(error.contains(part) && !error.contains("secret"), "{error}");
        }
        let parsed = format!("{:?}", AccessFile::parse(&line(AccessRole::Admin, "o", "t")));
        assert!(parsed.contains("Admin") && !parsed.contains(&hash(b"t")[0].to_string()), "{parsed}");
    }
}
