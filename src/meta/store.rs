//! The fenced meta store: what a main loop may keep under `state/`.
//!
//! Every write goes through the driver's one fenced write, so it happens only while our token is on the leader
//! record. Reads are linearizable. An area is a prefix that its owner never leaves: the user's own metadata is
//! in `user/`.

use futures_util::StreamExt;
use futures_util::stream::BoxStream;

use crate::driver::leadership::Leadership;
use crate::driver::reads::{Changes, Entry, Snapshot};
use crate::election::record::Revision;
use crate::protocol::writes::{Change, Write, WriteError, check_name};
use crate::store::{Refusal, StoreError};

/// The most keys that may be asked for at once.
pub const PAGE_MAX: usize = 1000;
/// The most keys that are read at once: 32 MiB, if all of them are as large as can be.
pub const READ_MAX: usize = 64;
/// How many are read before it is known how large they are.
const FEW: usize = 8;
/// As many keys as may be are read at once if they are expected to take no more than this.
const SMALL_BYTES_MAX: usize = 2 * 1024 * 1024;

/// A part of an area, sorted by name, all at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatePage {
    /// The store's revision.
    pub revision: Revision,
    /// What was found.
    pub entries: Vec<Entry>,
    /// There may be more: ask again, after the last of these.
    pub more: bool,
}

/// An area of the store, for one tenure.
#[derive(Clone)]
pub struct MetaStore {
    leadership: Leadership,
    area: String,
}

/// Has a watch ended because the store no longer knows the changes that it would have to tell?
pub fn is_forgotten(error: &StoreError) -> bool {
    error.refusal() == Some(Refusal::Compacted)
}

// === impl MetaStore ===

impl MetaStore {
    /// The keys under `state/<area>`; an area ends with a slash, or is empty: all of them. It has at most
    /// [`AREA_BYTES_MAX`](crate::protocol::writes::AREA_BYTES_MAX) bytes.
    pub fn new(leadership: Leadership, area: &str) -> Self {
        Self { leadership, area: area.to_owned() }
    }

    /// The leadership that every write needs.
    pub fn leadership(&self) -> &Leadership {
        &self.leadership
    }

    /// Reads one key.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn get(&self, key: &str) -> Result<Option<Entry>, WriteError> {
        Ok(self.look_up(key).await?.1)
    }

    /// Reads one key, and says at which revision of the store: a watch from there on misses nothing.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn look_up(&self, key: &str) -> Result<(Revision, Option<Entry>), WriteError> {
        let (revision, found) = self.leadership.look_up(&self.inside(key)?).await?;
        Ok((revision, found.map(|e| self.outside(e))))
    }

    /// Reads at most `limit` keys that begin with `prefix` and come after `after` ("": from the first one on). They are
    /// fewer where values are large, and never more than [`READ_MAX`]: the store knows no limit but the number of keys,
    /// so a few are read first, and more only if those are small.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn range(&self, prefix: &str, after: &str, limit: usize) -> Result<StatePage, WriteError> {
        let after = if after.is_empty() { String::new() } else { self.inside(after)? };
        let prefix = format!("{}{prefix}", self.area);
        let limit = limit.clamp(1, READ_MAX);
        let few = limit.min(FEW);
        let first = self.page(&prefix, &after, few).await?;
        let bytes: usize = first.entries.iter().map(|e| e.name.len() + e.value.len()).sum();
        if few == limit || !first.more || bytes * (READ_MAX / FEW) > SMALL_BYTES_MAX {
            return Ok(first);
        }
        match self.page(&prefix, &after, limit).await {
            // Those that follow are not as small.
            Err(WriteError::Store(StoreError::Refused(Refusal::TooLarge, _))) => Ok(first),
            page => page,
        }
    }

    async fn page(&self, prefix: &str, after: &str, limit: usize) -> Result<StatePage, WriteError> {
        let Snapshot { revision, entries } = self.leadership.page(prefix, after, limit).await?;
        let more = entries.len() == limit;
        let entries = entries.into_iter().map(|e| self.outside(e)).collect();
        Ok(StatePage { revision, entries, more })
    }

    /// At most `limit` keys that begin with `prefix` and come after `after`, at a revision at which we certainly led. A
    /// tenure opens with them.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn proven_page(&self, prefix: &str, after: &str, limit: usize) -> Result<Snapshot, WriteError> {
        let after = if after.is_empty() { String::new() } else { self.inside(after)? };
        let page = self.leadership.proven_page(&format!("{}{prefix}", self.area), &after, limit).await?;
        Ok(Snapshot { entries: page.entries.into_iter().map(|e| self.outside(e)).collect(), ..page })
    }

    /// Writes a key, whatever it holds. Returns its revision.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn put(&self, key: &str, value: Vec<u8>) -> Result<Revision, WriteError> {
        self.txn(Write { expected: vec![], changes: vec![Change::Put(key.to_owned(), value)] }).await
    }

    /// Writes a key if its revision is `expected` (0: absent). Returns its new one.
    ///
    /// # Errors
    /// [`WriteError::Conflict`] says what it was instead.
    pub async fn compare_and_set(
        &self,
        key: &str,
        expected: Revision,
        value: Vec<u8>,
    ) -> Result<Revision, WriteError> {
        self.txn(Write::put(key, value, expected)).await
    }

    /// Deletes a key, if it is there. Returns the revision of the deletion.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn delete(&self, key: &str) -> Result<Revision, WriteError> {
        self.txn(Write { expected: vec![], changes: vec![Change::Delete(key.to_owned())] }).await
    }

    /// Does all of it, if every key is as expected, or nothing. Returns the revision of what was written.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn txn(&self, write: Write) -> Result<Revision, WriteError> {
        let expected = write.expected.into_iter().map(|(key, at)| Ok((self.inside(&key)?, at)));
        let changes = write.changes.into_iter().map(|change| {
            Ok(match change {
                Change::Put(key, value) => Change::Put(self.inside(&key)?, value),
                Change::Delete(key) => Change::Delete(self.inside(&key)?),
            })
        });
        let expected = expected.collect::<Result<_, WriteError>>()?;
        let write = Write { expected, changes: changes.collect::<Result<_, WriteError>>()? };
        self.leadership.write(&write).await.map_err(|e| self.name_outside(e))
    }

    /// Every change of a key that begins with `prefix`, after this revision. Ends with an error when the watch
    /// breaks; read again, then.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn watch(
        &self,
        prefix: &str,
        after: Revision,
    ) -> Result<BoxStream<'static, Result<Changes, StoreError>>, WriteError> {
        let changes = self.leadership.watch(&format!("{}{prefix}", self.area), after).await?;
        let this = self.clone();
        let named = changes.map(move |batch| {
            batch.map(|b| Changes {
                changes: b.changes.into_iter().map(|c| this.change_outside(c)).collect(),
                ..b
            })
        });
        Ok(named.boxed())
    }

    fn inside(&self, key: &str) -> Result<String, WriteError> {
        check_name(key)?;
        Ok(format!("{}{key}", self.area))
    }

    fn outside(&self, entry: Entry) -> Entry {
        let name = entry.name.strip_prefix(&self.area).unwrap_or(&entry.name).to_owned();
        Entry { name, ..entry }
    }

    fn change_outside(&self, change: Result<Entry, String>) -> Result<Entry, String> {
        match change {
            Ok(entry) => Ok(self.outside(entry)),
            Err(name) => Err(name.strip_prefix(&self.area).unwrap_or(&name).to_owned()),
        }
    }

    fn name_outside(&self, error: WriteError) -> WriteError {
        match error {
            WriteError::Conflict { key, expected, found } => {
                let key = key.strip_prefix(&self.area).unwrap_or(&key).to_owned();
                WriteError::Conflict { key, expected, found }
            }
            other => other,
        }
    }
}
