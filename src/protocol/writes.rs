//! The one fenced write: everything under `state/` is written by this transaction, and by no other.
//!
//! A write happens once or not at all, and the caller learns which. An answer that is lost leaves its outcome
//! unknown, and neither a read nor a mere repetition settles that: the write may still be on its way, or have
//! been followed by another. So each write takes a slot, a key of its own whose revision it
//! compares and whose value it replaces by the name of this very write. A repetition under the same comparison
//! then either happens, or finds our name (it had happened), or another one (it never will).

use std::collections::BTreeSet;

use super::transactions::{self, Answer};
use crate::election::history::Reason;
use crate::election::record::{Revision, Token};
use crate::store::codec::Keys;
use crate::store::{Guard, KeyValue, Op, Refusal, Response, StoreError, Txn, TxnReply};

/// The largest value. etcd refuses requests above `--max-request-bytes` (1.5 MiB), and slows down well before.
pub const VALUE_BYTES_MAX: usize = 512 * 1024;
/// The largest sum of keys and values in one write.
pub const WRITE_BYTES_MAX: usize = 1024 * 1024;
/// The most changes, and the most expectations, in one write.
pub const CHANGES_MAX: usize = 100;
/// The longest name of a key, without its area.
pub const NAME_BYTES_MAX: usize = 1024;
/// The longest name of an area, which stands before its owner's names.
pub const AREA_BYTES_MAX: usize = 64;

/// A write under `state/`: all of it happens, if every key is as expected, or nothing. Names are without the
/// prefix. No name may be changed twice.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Write {
    /// The `mod_revision` that each of these keys must have; 0: it must be absent.
    pub expected: Vec<(String, Revision)>,
    /// What to do.
    pub changes: Vec<Change>,
}

/// A change of one key under `state/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Write it.
    Put(String, Vec<u8>),
    /// Delete it; no error if it is absent.
    Delete(String),
}

/// Leadership is over, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("leadership is over: {0}")]
pub struct Lost(pub Reason);

/// Why a write of the main loop did not happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// We do not lead any more; nothing was sent.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// The store knows a newer leader than us.
    #[error("fenced: token {0} is no longer the leader's")]
    Fenced(Token),
    /// A key is not at the expected revision.
    #[error("{key} is at revision {found}, not at {expected} (0: absent)")]
    Conflict {
        /// The key, as it was named.
        key: String,
        /// What was expected.
        expected: Revision,
        /// What it is.
        found: Revision,
    },
    /// Not now: try again a little later. Nothing was sent.
    #[error("cannot write at the moment: {0}")]
    Busy(String),
    /// More than fits into one write. Nothing was sent.
    #[error("too large: {0}")]
    TooLarge(String),
    /// Not the name of a key. Nothing was sent.
    #[error("invalid key: {0}")]
    BadName(String),
    /// The key is changed twice in one write. Nothing was sent.
    #[error("{0:?} is changed twice in one write")]
    Twice(String),
    /// A try was sent, and leadership ended before its outcome was known: it may or may not have happened.
    #[error("outcome of the write unknown ({0}); read it from the next leader")]
    Unknown(String),
    /// The store refuses it on its merits.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A slot, as it was last seen.
#[derive(Clone, Copy, Debug)]
pub struct WriteSlot {
    /// Which one.
    pub index: usize,
    /// The revision that its key had. Wrong at first in a later tenure; the first refusal corrects it.
    pub revision: Revision,
}

/// A write under way. It is sent until [`PendingWrite::answered`] says what has become of it.
#[derive(Debug)]
pub struct PendingWrite<'a> {
    write: &'a Write,
    keys: &'a Keys,
    token: Token,
    slot: &'a mut WriteSlot,
    /// Of this very write, unlike any other's in any tenure.
    name: Vec<u8>,
    /// May a try have happened that we have no answer to?
    is_open: bool,
}

/// What an answer says of a try.
#[derive(Debug, PartialEq, Eq)]
pub enum Tried {
    /// It has happened, at this revision.
    Done(Revision),
    /// The slot has moved on under us: ours has not happened, and cannot any more under the old comparison. To be sent
    /// again.
    SlotMoved,
    /// Nobody knows. To be sent again, after a pause.
    Unanswered,
    /// The leader record does not carry our token.
    Fenced,
    /// It has not happened.
    Failed(WriteError),
}

// === impl Write ===

impl Write {
    /// One key's new value, if its revision is still `expected`.
    pub fn put(name: &str, value: Vec<u8>, expected: Revision) -> Self {
        Self {
            expected: vec![(name.to_owned(), expected)],
            changes: vec![Change::Put(name.to_owned(), value)],
        }
    }

    /// Is it a write that can be done at all?
    ///
    /// # Errors
    /// It is larger than a write may be, or contradicts itself. Nothing was sent.
    pub fn check(&self) -> Result<(), WriteError> {
        self.check_within(NAME_BYTES_MAX)
    }

    /// The same, of a write whose names stand in an area.
    ///
    /// # Errors
    /// As [`Write::check`].
    pub fn check_in_area(&self) -> Result<(), WriteError> {
        self.check_within(NAME_BYTES_MAX + AREA_BYTES_MAX)
    }

    fn check_within(&self, name_bytes_max: usize) -> Result<(), WriteError> {
        for (what, n) in [("changes", self.changes.len()), ("expectations", self.expected.len())] {
            if n > CHANGES_MAX {
                return Err(WriteError::TooLarge(format!(
                    "{n} {what}; at most {CHANGES_MAX} fit into one write"
                )));
            }
        }
        for name in self.expected.iter().map(|(name, _)| name) {
            check_length(name, name_bytes_max)?;
        }
        let (mut sum, mut names) = (0, BTreeSet::new());
        for (name, value) in self.changes.iter().map(Change::parts) {
            check_length(name, name_bytes_max)?;
            if !names.insert(name) {
                return Err(WriteError::Twice(name.to_owned()));
            }
            if value.len() > VALUE_BYTES_MAX {
                let n = value.len();
                let why = format!("the value of {name:?} has {n} bytes; at most {VALUE_BYTES_MAX} fit");
                return Err(WriteError::TooLarge(why));
            }
            sum += name.len() + value.len();
        }
        if sum > WRITE_BYTES_MAX {
            return Err(WriteError::TooLarge(format!(
                "{sum} bytes in one write; at most {WRITE_BYTES_MAX} fit"
            )));
        }
        Ok(())
    }

    fn ops(&self, keys: &Keys) -> Vec<Op> {
        let op = |change: &Change| match change {
            Change::Put(name, value) => Op::Put(keys.state(name), value.clone(), None),
            Change::Delete(name) => Op::Delete(keys.state(name)),
        };
        self.changes.iter().map(op).collect()
    }
}

// === impl Change ===

impl Change {
    fn parts(&self) -> (&str, &[u8]) {
        match self {
            Change::Put(name, value) => (name, value),
            Change::Delete(name) => (name, &[]),
        }
    }
}

/// # Errors
/// The name cannot be that of a key under `state/`.
pub fn check_name(name: &str) -> Result<(), WriteError> {
    check_length(name, NAME_BYTES_MAX)
}

fn check_length(name: &str, max: usize) -> Result<(), WriteError> {
    if name.is_empty() || name.len() > max {
        let n = name.len();
        return Err(WriteError::BadName(format!("a key of {n} bytes; use 1 to {max}")));
    }
    Ok(())
}

// === impl WriteError ===

impl WriteError {
    /// Has the store not answered, or was it not reached? The same may work a little later.
    pub fn may_pass(&self) -> bool {
        matches!(self, WriteError::Store(StoreError::Unknown(_) | StoreError::Refused(Refusal::NotSent, _)))
    }
}

// === impl PendingWrite ===

impl<'a> PendingWrite<'a> {
    /// The `nth` write of the tenure with this token.
    pub fn new(write: &'a Write, keys: &'a Keys, token: Token, slot: &'a mut WriteSlot, nth: u64) -> Self {
        let name = format!("{{\"token\":{},\"write\":{nth}}}", token.get()).into_bytes();
        Self { write, keys, token, slot, name, is_open: false }
    }

    /// What to send. Safe to deliver twice and late.
    pub fn txn(&self) -> Txn {
        let (keys, slot_key) = (self.keys, self.slot.key(self.keys));
        let expected = &self.write.expected;
        let mut guards = vec![Guard::ModRevision(slot_key.clone(), self.slot.revision)];
        guards.extend(expected.iter().map(|(n, at)| Guard::ModRevision(keys.state(n), *at)));
        let mut then = vec![Op::Put(slot_key.clone(), self.name.clone(), None)];
        then.extend(self.write.ops(keys));
        let mut txn = transactions::fenced(keys, self.token, guards, then);
        txn.otherwise.push(Op::Get(slot_key));
        txn.otherwise.extend(expected.iter().map(|(n, _)| Op::Get(keys.state(n))));
        txn
    }

    /// What an answer to [`PendingWrite::txn`] says.
    pub fn answered(&mut self, answer: &Answer) -> Tried {
        match answer {
            Ok(Response::Txn(reply)) => self.judge(reply),
            Err(StoreError::Refused(refusal, why)) if *refusal != Refusal::NotSent => {
                Tried::Failed(self.over(StoreError::Refused(*refusal, why.clone()).into()))
            }
            answer => {
                self.is_open |= !matches!(answer, Err(StoreError::Refused(Refusal::NotSent, _)));
                Tried::Unanswered
            }
        }
    }

    /// The error of a write that is not sent again, for this reason.
    pub fn over(&self, why: WriteError) -> WriteError {
        if self.is_open { WriteError::Unknown(why.to_string()) } else { why }
    }

    fn judge(&mut self, reply: &TxnReply) -> Tried {
        if reply.succeeded {
            return self.done(reply.header.revision);
        }
        let found = |i: usize| reply.found.get(i).and_then(|kvs| kvs.first());
        // Our name in the slot first: it had happened, whatever became of us since.
        if let Some(slot) = found(1).filter(|kv| kv.value == self.name) {
            return self.done(slot.modified);
        }
        if transactions::refused_by_fence(reply, self.token) {
            return Tried::Fenced;
        }
        let at = |kv: Option<&KeyValue>| kv.map_or(Revision(0), |kv| kv.modified);
        let mut expected = self.write.expected.iter().enumerate();
        match expected.find(|(i, (_, expected))| at(found(i + 2)) != *expected) {
            Some((i, (key, expected))) => {
                let (key, expected, found) = (key.clone(), *expected, at(found(i + 2)));
                Tried::Failed(WriteError::Conflict { key, expected, found })
            }
            None => {
                self.slot.revision = at(found(1));
                Tried::SlotMoved
            }
        }
    }

    fn done(&mut self, revision: Revision) -> Tried {
        self.slot.revision = revision;
        Tried::Done(revision)
    }
}

// === impl WriteSlot ===

impl WriteSlot {
    fn key(&self, keys: &Keys) -> String {
        keys.state(&format!("op/{:02}", self.index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each of these answers to a write, one after the other, says of it; and the slot's revision afterwards.
    fn tried(answers: &[Answer]) -> (Vec<Tried>, Revision) {
        let (write, keys) = (Write::put("k", vec![1], Revision(3)), Keys::new("c", "meta"));
        let mut slot = WriteSlot { index: 0, revision: Revision(0) };
        let mut writing = PendingWrite::new(&write, &keys, token(), &mut slot, 7);
        let tried = answers.iter().map(|answer| writing.answered(answer)).collect();
        (tried, slot.revision)
    }

    fn token() -> Token {
        Token::new(Revision(5)).expect("not zero")
    }

    /// Refused: the leader record, the slot and the key that is written are at these revisions.
    fn refused(leader: u64, slot: (u64, &str), key: u64) -> Answer {
        let row = |modified: u64, value: &str| {
            let (key, value, at) = (String::new(), value.into(), Revision(modified));
            Vec::from([KeyValue { key, value, created: at, modified: at, lease: None }])
        };
        let found = vec![row(leader, ""), row(slot.0, slot.1), row(key, "")];
        Ok(Response::Txn(TxnReply { header: Default::default(), succeeded: false, found }))
    }

    fn lost() -> Answer {
        Err(StoreError::Unknown("timeout".into()))
    }

    const OURS: &str = r#"{"token":5,"write":7}"#;
    const ANOTHER: &str = r#"{"token":5,"write":6}"#;

    #[test]
    fn a_repetition_finds_its_own_name_if_the_write_had_happened() {
        let (said, slot) = tried(&[lost(), refused(9, (8, OURS), 8)]);
        assert_eq!((said, slot), (vec![Tried::Unanswered, Tried::Done(Revision(8))], Revision(8)));
        let (said, slot) = tried(&[lost(), refused(5, (8, ANOTHER), 3)]);
        assert_eq!((said, slot), (vec![Tried::Unanswered, Tried::SlotMoved], Revision(8)), "twin");
    }

    #[test]
    fn the_fence_is_told_from_another_guard() {
        let (said, _) = tried(&[refused(9, (0, ""), 4)]);
        assert_eq!(said, [Tried::Fenced]);
        let (said, _) = tried(&[refused(5, (0, ""), 4)]);
        let conflict = WriteError::Conflict { key: "k".into(), expected: Revision(3), found: Revision(4) };
        assert_eq!(said, [Tried::Failed(conflict)], "twin");
    }

    #[test]
    fn what_may_have_happened_is_not_called_refused() {
        let full = || StoreError::Refused(Refusal::NoSpace, String::new());
        let not_sent = || Err(StoreError::Refused(Refusal::NotSent, String::new()));
        let (said, _) = tried(&[lost(), Err(full())]);
        assert_eq!(said[1], Tried::Failed(WriteError::Unknown(full().to_string())));
        let (said, _) = tried(&[not_sent(), Err(full())]);
        assert_eq!(said, [Tried::Unanswered, Tried::Failed(WriteError::Store(full()))], "twin");
    }
}
