//! Why a call to the cluster failed.

use std::fmt;
use std::time::Duration;

use tonic::Code;

/// Why a call failed. Only [`ClientError::Unknown`] leaves open whether anything was done; after a
/// [`ClientError::GaveUp`] of a call that changes state, nothing was.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// Not an address.
    #[error("{address} is not the address of a member: {why}")]
    BadAddress {
        /// What was given.
        address: String,
        /// What is wrong with it.
        why: String,
    },
    /// The deadline has passed. Registering and heartbeats, which may be repeated, may have been done all the same.
    #[error(
        "{what} within {waited:?}: {}; is metad running, and are these its gRPC addresses?",
        SaidList(said)
    )]
    GaveUp {
        /// What was wanted.
        what: &'static str,
        /// For how long it was tried.
        waited: Duration,
        /// Everyone who was asked, and the last that came of it.
        said: Vec<Said>,
    },
    /// The answer got lost: it may or may not have been done, or be done yet. Never repeated by the client.
    #[error("{what}: outcome at {address} unknown: {why}; read before you retry")]
    Unknown {
        /// What was wanted.
        what: &'static str,
        /// Who was asked.
        address: String,
        /// What happened.
        why: String,
    },
    /// A key is not at the expected revision. Nothing was written.
    #[error("{what}: {address} refused it: {why}; read again")]
    Conflict {
        /// What was wanted.
        what: &'static str,
        /// Who was asked.
        address: String,
        /// Which key, and its revision.
        why: String,
    },
    /// There is no such worker. Nothing was done: register (again).
    #[error("{what}: {address} says: {why}")]
    NotFound {
        /// What was wanted.
        what: &'static str,
        /// Who was asked.
        address: String,
        /// What there is not.
        why: String,
    },
    /// Refused on its merits: repeating it would be refused again. Nothing was done.
    #[error("{what}: {address} refused it ({code:?}): {why}")]
    Refused {
        /// What was wanted.
        what: &'static str,
        /// Who was asked.
        address: String,
        /// The kind of refusal.
        code: Code,
        /// What is wrong, and what would be right.
        why: String,
    },
    /// A stream has ended. Open a new one.
    #[error("{what}: the stream from {address} has ended: {why}; open it again")]
    Ended {
        /// Which stream.
        what: &'static str,
        /// Who sent it.
        address: String,
        /// Why it ended.
        why: String,
    },
}

/// What came of asking someone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Who was asked.
    pub address: String,
    /// The answer, or why there was none.
    pub why: String,
}

struct SaidList<'a>(&'a [Said]);

// === impl SaidList ===

impl fmt::Display for SaidList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no member was queried in time");
        }
        for (i, said) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "; " };
            write!(f, "{comma}{}: {}", said.address, said.why)?;
        }
        Ok(())
    }
}
