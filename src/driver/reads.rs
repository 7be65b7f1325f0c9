//! Reading under `state/`: linearizable, all of one answer at one revision.
//!
//! A read is not fenced: what it shows was true, but another member may lead by the time it is shown. Only
//! [`Leadership::proven_page`], with which a tenure opens, proves at its revision that the token was ours.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;

use super::leadership::Leadership;
use crate::election::record::Revision;
use crate::protocol::writes::WriteError;
use crate::store::{self, KeyRange, KeyValue, Op, StoreError, Txn, TxnReply};

/// How often a watch shows a sign of life.
const ALIVE_EVERY: Duration = Duration::from_secs(5);

/// A key under `state/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name, without the prefix.
    pub name: String,
    /// Its value.
    pub value: Vec<u8>,
    /// The revision of its last write.
    pub revision: Revision,
}

/// What a read showed, all at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The store's revision. A watch from here on misses nothing.
    pub revision: Revision,
    /// What was found, sorted by name.
    pub entries: Vec<Entry>,
}

/// A piece of a watch: everything that happened up to `revision`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// The view is complete up to here.
    pub revision: Revision,
    /// What was written, or deleted: the name alone.
    pub changes: Vec<Result<Entry, String>>,
}

// === impl Leadership: reading ===

impl Leadership {
    /// Reads a key under `state/`.
    ///
    /// # Errors
    /// We do not lead any more, or the store's.
    pub async fn get(&self, name: &str) -> Result<Option<(Vec<u8>, Revision)>, WriteError> {
        Ok(self.look_up(name).await?.1.map(|entry| (entry.value, entry.revision)))
    }

    /// Reads a key under `state/`, and says at which revision of the store: a watch from there on misses nothing.
    ///
    /// # Errors
    /// We do not lead any more, or the store's.
    pub async fn look_up(&self, name: &str) -> Result<(Revision, Option<Entry>), WriteError> {
        let reply = self.ask(vec![Op::Get(self.keys().state(name))]).await?;
        let Snapshot { revision, entries } =
            self.snapshot_of(reply.header.revision, reply.found.into_iter().flatten());
        Ok((revision, entries.into_iter().next()))
    }

    /// Reads at most `limit` keys that begin with `prefix` and come after `after` ("": from the first one on).
    ///
    /// # Errors
    /// We do not lead any more, or the store's.
    pub async fn page(&self, prefix: &str, after: &str, limit: usize) -> Result<Snapshot, WriteError> {
        let after = if after.is_empty() { String::new() } else { self.keys().state(after) };
        let reply = self.ask(vec![Op::Page { prefix: self.keys().state(prefix), after, limit }]).await?;
        Ok(self.snapshot_of(reply.header.revision, reply.found.into_iter().flatten()))
    }

    /// Reads at most `limit` keys that begin with `prefix` and come after `after`, and proves that nothing of an earlier
    /// leader can be missing: at the revision of the answer the leader record carried our token.
    ///
    /// # Errors
    /// We do not lead any more, or the store's.
    pub async fn proven_page(&self, prefix: &str, after: &str, limit: usize) -> Result<Snapshot, WriteError> {
        let after = if after.is_empty() { String::new() } else { self.keys().state(after) };
        let page = Op::Page { prefix: self.keys().state(prefix), after, limit };
        let reply = self.ask(vec![Op::Get(self.keys().leader()), page]).await?;
        let mut found = reply.found.into_iter();
        let record = found.next().and_then(|kvs| kvs.into_iter().next());
        if record.is_none_or(|kv| kv.modified != self.token().revision()) {
            self.report_fenced();
            return Err(WriteError::Fenced(self.token()));
        }
        Ok(self.snapshot_of(reply.header.revision, found.flatten()))
    }

    /// Every change of a key that begins with `prefix`, after this revision.
    ///
    /// # Errors
    /// We do not lead any more, or the store's.
    pub async fn watch(
        &self,
        prefix: &str,
        after: Revision,
    ) -> Result<BoxStream<'static, Result<Changes, StoreError>>, WriteError> {
        self.check()?;
        let range = KeyRange::prefix(&self.keys().state(prefix));
        let batches = self.store().watch(range, after, ALIVE_EVERY).await?;
        let root = self.keys().state("");
        let changes = batches.map(move |batch| {
            batch.map(|b| Changes {
                revision: b.revision,
                changes: b.changes.into_iter().map(|c| change_of(&root, c)).collect(),
            })
        });
        Ok(changes.boxed())
    }

    async fn ask(&self, ops: Vec<Op>) -> Result<TxnReply, WriteError> {
        self.check()?;
        Ok(store::ask(self.store(), Txn::read(ops)).await?)
    }

    fn snapshot_of(&self, revision: Revision, found: impl Iterator<Item = KeyValue>) -> Snapshot {
        let root = self.keys().state("");
        Snapshot { revision, entries: found.map(|kv| entry_of(&root, kv)).collect() }
    }
}

fn entry_of(root: &str, kv: KeyValue) -> Entry {
    let name = kv.key.strip_prefix(root).unwrap_or(&kv.key).to_owned();
    Entry { name, value: kv.value, revision: kv.modified }
}

fn change_of(root: &str, change: store::Change) -> Result<Entry, String> {
    match change {
        store::Change::Put(kv) => Ok(entry_of(root, kv)),
        store::Change::Deleted(key) => Err(key.strip_prefix(root).unwrap_or(&key).to_owned()),
    }
}
