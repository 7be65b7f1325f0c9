//! The one fenced write: everything under `state/` is written here, and nowhere else.
//!
//! A write happens once or not at all, and the caller learns which. An answer that is lost leaves its outcome
//! unknown, and neither a read nor a mere repetition settles that: the write may still be on its way, or have
//! been followed by another. So each write takes one of [`SLOTS`] slots, a key of its own whose revision it
//! compares and whose value it replaces by the name of this very write. A repetition under the same comparison
//! then either happens, or finds our name (it had happened), or another one (it never will). The slots also
//! bound how many writes are under way.
//!
//! A caller that goes away while its write is under way has asked for something that may or may not happen,
//! but not later than the next write in its slot.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::leadership::{Leadership, WriteError};
use crate::clock::Instant;
use crate::election::record::{Revision, Token};
use crate::protocol::transactions;
use crate::store::codec::Keys;
use crate::store::{Guard, KeyValue, Op, Refusal, Request, Response, StoreError, Txn, TxnReply};
use crate::telemetry::metrics::WriteResult;

/// How many writes may be under way at once.
pub const SLOTS: usize = 64;
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
/// How soon a write whose outcome is unknown is repeated.
const SETTLE_PAUSE: Duration = Duration::from_millis(100);

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

/// Where the writes of one tenure take their turns.
#[derive(Debug)]
pub(super) struct Slots {
    free: Mutex<Vec<Slot>>,
    writes: AtomicU64,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    index: usize,
    /// The revision that the slot's key had when we last saw it. Wrong at first in a later tenure; the first
    /// refusal corrects it.
    revision: Revision,
}

/// A slot in use; it goes back when this is dropped.
struct Taken<'a> {
    slots: &'a Slots,
    slot: Slot,
}

/// A write under way, for the metrics. One that is dropped before its end has an unknown outcome.
struct Counted<'a> {
    leadership: &'a Leadership,
    began: Instant,
    result: WriteResult,
}

/// What a decided try means.
enum Tried {
    Done(Revision),
    /// The slot has moved on under us; ours has not happened and cannot any more under the old comparison.
    SlotMoved(Revision),
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

    /// The same, with names of so many bytes at most.
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

// === impl Slots ===

impl Slots {
    pub(super) fn new() -> Self {
        // The last one is taken first, so that a quiet main loop keeps to one slot.
        let free = (0..SLOTS).rev().map(|index| Slot { index, revision: Revision(0) }).collect();
        Self { free: Mutex::new(free), writes: AtomicU64::new(0) }
    }

    fn take(&self) -> Option<Taken<'_>> {
        self.free.lock().unwrap_or_else(|e| e.into_inner()).pop().map(|slot| Taken { slots: self, slot })
    }

    /// The name of one write, unlike any other's in any tenure.
    fn next_name(&self, token: Token) -> Vec<u8> {
        let n = self.writes.fetch_add(1, Ordering::Relaxed);
        format!("{{\"token\":{},\"write\":{n}}}", token.get()).into_bytes()
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.slots.free.lock().unwrap_or_else(|e| e.into_inner()).push(self.slot);
    }
}

// === impl Counted ===

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.leadership.metrics().write_ended(self.result, self.leadership.now().since(self.began));
    }
}

// === impl Leadership: writing ===

impl Leadership {
    /// Does a [`Write`], if we still lead and every key is as expected. Returns the revision that all written
    /// keys have now.
    ///
    /// A try whose outcome is unknown is repeated until it is known, or until leadership is over: then the error is
    /// [`WriteError::Unknown`]. After every other error nothing has happened.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn write(&self, write: &Write) -> Result<Revision, WriteError> {
        write.check_within(NAME_BYTES_MAX + AREA_BYTES_MAX)?;
        self.check()?;
        self.check_headroom()?;
        let mut counted = self.count_write();
        let written = self.write_in_a_slot(write).await;
        counted.result = match &written {
            Ok(_) => WriteResult::Written,
            Err(WriteError::Unknown(_)) => WriteResult::Unknown,
            Err(_) => WriteResult::Refused,
        };
        written
    }

    async fn write_in_a_slot(&self, write: &Write) -> Result<Revision, WriteError> {
        let busy = || WriteError::Busy(format!("{SLOTS} writes are in flight"));
        let mut taken = self.slots().take().ok_or_else(busy)?;
        let name = self.slots().next_name(self.token());
        let mut is_open = false; // may a try have happened that we have no answer to?
        let over = |is_open, e: WriteError| if is_open { WriteError::Unknown(e.to_string()) } else { e };
        loop {
            self.check().map_err(|lost| over(is_open, lost.into()))?;
            let txn = self.txn(write, &taken.slot, &name);
            match self.store().call(Request::Txn(txn)).await {
                Ok(Response::Txn(reply)) => match self.judge(write, &name, &reply) {
                    Tried::Done(revision) => {
                        taken.slot.revision = revision;
                        return Ok(revision);
                    }
                    Tried::SlotMoved(revision) => taken.slot.revision = revision,
                    Tried::Failed(e @ WriteError::Fenced(_)) => return Err(over(is_open, e)),
                    Tried::Failed(e) => return Err(e),
                },
                Err(StoreError::Refused(refusal, why)) if refusal != Refusal::NotSent => {
                    return Err(over(is_open, StoreError::Refused(refusal, why).into()));
                }
                answer => {
                    is_open |= !matches!(answer, Err(StoreError::Refused(Refusal::NotSent, _)));
                    tokio::time::sleep(SETTLE_PAUSE).await;
                }
            }
        }
    }

    fn count_write(&self) -> Counted<'_> {
        self.metrics().write_began();
        Counted { leadership: self, began: self.now(), result: WriteResult::Unknown }
    }

    fn txn(&self, write: &Write, slot: &Slot, name: &[u8]) -> Txn {
        let keys = self.keys();
        let slot_key = slot_key(keys, slot.index);
        let mut guards = vec![Guard::ModRevision(slot_key.clone(), slot.revision)];
        guards.extend(write.expected.iter().map(|(n, at)| Guard::ModRevision(keys.state(n), *at)));
        let mut then = vec![Op::Put(slot_key.clone(), name.to_vec(), None)];
        then.extend(write.ops(keys));
        let mut txn = transactions::fenced(keys, self.token(), guards, then);
        txn.otherwise.push(Op::Get(slot_key));
        txn.otherwise.extend(write.expected.iter().map(|(n, _)| Op::Get(keys.state(n))));
        txn
    }

    fn judge(&self, write: &Write, name: &[u8], reply: &TxnReply) -> Tried {
        if reply.succeeded {
            return Tried::Done(reply.header.revision);
        }
        let found = |i: usize| reply.found.get(i).and_then(|kvs| kvs.first());
        // Our name in the slot first: it had happened, whatever became of us since.
        if let Some(slot) = found(1).filter(|kv| kv.value == name) {
            return Tried::Done(slot.modified);
        }
        if transactions::refused_by_fence(reply, self.token()) {
            self.report_fenced();
            return Tried::Failed(WriteError::Fenced(self.token()));
        }
        let at = |kv: Option<&KeyValue>| kv.map_or(Revision(0), |kv| kv.modified);
        let differs =
            write.expected.iter().enumerate().find(|(i, (_, expected))| at(found(i + 2)) != *expected);
        match differs {
            Some((i, (key, expected))) => {
                let (key, expected, found) = (key.clone(), *expected, at(found(i + 2)));
                Tried::Failed(WriteError::Conflict { key, expected, found })
            }
            None => Tried::SlotMoved(at(found(1))),
        }
    }
}

fn slot_key(keys: &Keys, index: usize) -> String {
    keys.state(&format!("op/{index:02}"))
}
