//! The contract that every store keeps: leases, guarded transactions, a watch.
//!
//! The contract is small on purpose: a lease can be granted, renewed and revoked; a transaction compares
//! revisions and then puts, deletes and gets; a watch tells what changed. What the election makes of it
//! (claim, register, release, …) is written once, in [`crate::protocol`], for all stores, and one conformance suite
//! (`tests/real/store_conformance.rs`) holds every store to it.
//!
//! What a store promises:
//!
//! - revisions grow with every transaction that changes something; all its changes share one;
//! - no transaction writes one key twice ([`Refusal::Invalid`]);
//! - a transaction is atomic, and linearizable, also when it only reads;
//! - a lease that is not renewed ends, never before its time to live has passed since the last renewal was
//!   *received*; with it go all keys that hang on it, in one revision;
//! - a put that names no lease detaches the key; a put that names an unknown lease is refused;
//! - an error says [`StoreError::Refused`] (certainly did not and will not happen) or
//!   [`StoreError::Unknown`] (may have happened, may yet happen). Unknown is the default.
//!
//! This module must not know who leads or why.

pub mod codec;
#[cfg(feature = "node")]
pub mod etcd;
pub mod memory;
#[cfg(feature = "driver")]
pub mod network_fs;
#[cfg(feature = "node")]
pub mod open;
#[cfg(feature = "driver")]
pub mod places;
#[cfg(feature = "driver")]
pub mod probe;
#[cfg(feature = "node")]
pub mod sqlite;
pub mod unreliable;

use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;

use crate::clock::Instant;
use crate::election::lease::LeaseId;
use crate::election::record::Revision;

/// The most guards, and the most operations in each branch, that one transaction may hold (etcd's `--max-txn-ops` is
/// 128 for each).
pub const TXN_OPS_MAX: usize = 110;

/// What is asked of a store. A renewal goes through [`Store::renew`]; etcd refuses it elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// Create a lease under a name of our choice.
    Grant {
        /// The name.
        lease: LeaseId,
        /// The wish; the answer says what was granted.
        ttl: Duration,
    },
    /// Renew it.
    Renew(LeaseId),
    /// End it, and delete everything that hangs on it. No error if it does not exist.
    Revoke(LeaseId),
    /// Compare, then act.
    Txn(Txn),
}

/// What a store answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Response {
    /// The lease exists, with this time to live.
    Granted(Header, Duration),
    /// The lease was renewed for so long, or does not exist (as far as the one who answered knows).
    Renewed(Header, Option<Duration>),
    /// The lease does not exist any more.
    Revoked(Header),
    /// The transaction was decided.
    Txn(TxnReply),
}

/// What every answer says about the store itself. The answer to a revoke of an unknown lease may be without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Header {
    /// Which store it is. An etcd that is made anew under the same names keeps it; then only the revision tells.
    pub cluster: u64,
    /// The store's revision.
    pub revision: Revision,
    /// The raft term of the member that answered; 0 where there is none.
    pub raft_term: u64,
}

/// A transaction: if all guards hold `then`, else `otherwise`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Txn {
    /// All must hold.
    pub guards: Vec<Guard>,
    /// Done if they do.
    pub then: Vec<Op>,
    /// Done if they do not.
    pub otherwise: Vec<Op>,
}

/// A comparison.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Guard {
    /// The key's `mod_revision` is this; 0: the key is absent.
    ModRevision(String, Revision),
    /// No key begins with this.
    PrefixEmpty(String),
}

/// An operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// Write a value, hanging on this lease or on none.
    Put(String, Vec<u8>, Option<LeaseId>),
    /// Delete a key; no error if it is absent.
    Delete(String),
    /// Read one key.
    Get(String),
    /// Read all keys that begin with this.
    List(String),
    /// Read some of them.
    Page {
        /// What they begin with.
        prefix: String,
        /// Only keys after this one; "": from the first one on.
        after: String,
        /// At most so many.
        limit: usize,
    },
}

/// A decided transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TxnReply {
    /// About the store. If the transaction wrote, `revision` is that of its writes.
    pub header: Header,
    /// Did the guards hold?
    pub succeeded: bool,
    /// What each `Get`, `List` and `Page` found, in their order, sorted by key.
    pub found: Vec<Vec<KeyValue>>,
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyValue {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Vec<u8>,
    /// The revision that created it.
    pub created: Revision,
    /// The revision of its last write.
    pub modified: Revision,
    /// The lease it hangs on.
    pub lease: Option<LeaseId>,
}

/// A half-open range of keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyRange {
    /// The first key.
    pub from: String,
    /// The first key beyond.
    pub to: String,
}

/// A piece of a watch: everything that happened up to `revision`. Without changes it is a sign of life.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WatchBatch {
    /// The view is complete up to here.
    pub revision: Revision,
    /// What changed, in order.
    pub changes: Vec<Change>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// A key was written.
    Put(KeyValue),
    /// A key is gone.
    Deleted(String),
}

/// One answer to a renewal, with the moment its own request left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// Taken before that very request left.
    pub stamp: Instant,
    /// About the store; `raft_term` is that of the member that answered.
    pub header: Header,
    /// `None`: no such lease.
    pub ttl: Option<Duration>,
}

/// The largest answer that is read: a page of keys, or all that a new leader needs to know.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Why a request did not work.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum StoreError {
    /// It certainly did not happen and will not.
    #[error("refused by the store: {1}")]
    Refused(Refusal, String),
    /// It may have happened, or may yet happen.
    #[error("no answer from the store: {0}")]
    Unknown(String),
}

/// Why a store refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// A lease of this name exists.
    LeaseExists,
    /// No lease of this name exists.
    LeaseNotFound,
    /// The store is full.
    NoSpace,
    /// Wrong credentials, or no permission.
    Denied,
    /// What is there is no store that we can use.
    NotAStore,
    /// The request breaks a limit of the store, or its answer is larger than [`ANSWER_BYTES_MAX`].
    TooLarge,
    /// The request contradicts itself: it writes one key twice.
    Invalid,
    /// The watch's starting point is no longer known; read again.
    Compacted,
    /// The request never left.
    NotSent,
}

/// A store: all that the election needs. What else an opened one can tell is in `places`.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Asks for something and waits for the answer, for a bounded time.
    ///
    /// # Errors
    /// As the module says. A reading request may be repeated at will; a writing one only if its guards make a
    /// second copy harmless.
    async fn call(&self, request: Request) -> Result<Response, StoreError>;

    /// Renews a lease, with as many attempts at as many places as it takes. Each answer comes with its own
    /// stamp; the stream ends after a bounded time.
    fn renew(&self, lease: LeaseId) -> BoxStream<'static, Result<Renewal, StoreError>>;

    /// Tells all changes in `range` after `after`, and shows a sign of life at least every `alive_every`. A
    /// stream that is silent for longer is dead: drop it and open another.
    ///
    /// # Errors
    /// [`Refusal::Compacted`] if the changes since `after` are no longer known.
    async fn watch(
        &self,
        range: KeyRange,
        after: Revision,
        alive_every: Duration,
    ) -> Result<BoxStream<'static, Result<WatchBatch, StoreError>>, StoreError>;

    /// Where it is, for messages: endpoints or a file.
    fn location(&self) -> String;
}

// === impl Op ===

impl Op {
    fn written_key(&self) -> Option<&str> {
        match self {
            Op::Put(key, ..) | Op::Delete(key) => Some(key),
            Op::Get(_) | Op::List(_) | Op::Page { .. } => None,
        }
    }
}

// === impl Txn ===

impl Txn {
    /// A transaction that only reads.
    pub fn read(then: Vec<Op>) -> Self {
        Self { then, ..Self::default() }
    }

    /// The key that one of its branches writes twice, if there is one.
    pub fn key_written_twice(&self) -> Option<&str> {
        [&self.then, &self.otherwise].into_iter().find_map(|ops| {
            let mut seen = std::collections::BTreeSet::new();
            ops.iter().filter_map(Op::written_key).find(|key| !seen.insert(*key))
        })
    }

    /// Does it write, whatever its guards say?
    pub fn writes(&self) -> bool {
        self.written_keys().next().is_some()
    }

    /// The keys that it writes, whatever its guards say.
    pub fn written_keys(&self) -> impl Iterator<Item = &str> {
        self.then.iter().chain(&self.otherwise).filter_map(Op::written_key)
    }
}

/// Asks for a transaction. A guard that does not hold is an answer too.
///
/// # Errors
/// As [`Store::call`].
pub async fn ask(store: &dyn Store, txn: Txn) -> Result<TxnReply, StoreError> {
    match store.call(Request::Txn(txn)).await? {
        Response::Txn(reply) => Ok(reply),
        other => Err(StoreError::Unknown(format!("unexpected answer: {other:?}"))),
    }
}

// === impl Request ===

impl Request {
    /// May it change anything?
    pub fn writes(&self) -> bool {
        match self {
            Request::Grant { .. } | Request::Revoke(_) => true,
            Request::Renew(_) => false,
            Request::Txn(txn) => txn.writes(),
        }
    }
}

// === impl Response ===

impl Response {
    /// The header, whatever was asked.
    pub fn header(&self) -> Header {
        match self {
            Response::Granted(h, _) | Response::Renewed(h, _) | Response::Revoked(h) => *h,
            Response::Txn(reply) => reply.header,
        }
    }
}

// === impl KeyRange ===

impl KeyRange {
    /// All keys that begin with `prefix`. It must not be empty; metad's never is.
    pub fn prefix(prefix: &str) -> Self {
        Self { from: prefix.to_owned(), to: after_prefix(prefix) }
    }

    /// All keys that begin with this and come after another one; "": all.
    pub fn page(prefix: &str, after: &str) -> Self {
        let all = Self::prefix(prefix);
        let next = format!("{after}\0");
        if after.is_empty() || next <= all.from { all } else { Self { from: next, ..all } }
    }

    /// Is the key in it?
    pub fn contains(&self, key: &str) -> bool {
        self.from.as_str() <= key && key < self.to.as_str()
    }
}

/// The first key after all keys that begin with `prefix`: its last character, one further. metad's own prefixes
/// are ASCII and end in `/`; a user's may end in any character, the last one there is included.
pub fn after_prefix(prefix: &str) -> String {
    let mut to = prefix.to_owned();
    while let Some(last) = to.pop() {
        if let Some(next) = (last..=char::MAX).nth(1) {
            to.push(next);
            break;
        }
    }
    to
}

// === impl StoreError ===

impl StoreError {
    /// The refusal of a transaction that writes one key twice.
    pub(crate) fn twice(key: &str) -> Self {
        StoreError::Refused(Refusal::Invalid, format!("the transaction writes {key} twice"))
    }

    /// Refused, or unknown, in one word.
    pub fn kind(&self) -> &'static str {
        match self {
            StoreError::Refused(..) => "refused",
            StoreError::Unknown(_) => "unknown",
        }
    }

    /// The refusal, if it is one.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            StoreError::Refused(r, _) => Some(*r),
            StoreError::Unknown(_) => None,
        }
    }
}
