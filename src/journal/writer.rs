//! Writes the history: one row per tenure, in the store. The only place that does.
//!
//! The row of a tenure is opened under its token ([`transactions::fenced`]), in a write that also closes what an earlier
//! leader has left open and deletes what is too much. A holder that knows how its tenure ended says so itself, when it
//! leaves or at its next start; there it has no token any more, and the row's own revision is the guard.
//!
//! All of it is best effort: no start and no hand-over waits for it, a stop waits for its row for [`CLOSE_TIMEOUT`] at
//! most, and no failure of it costs leadership. A row that was not closed is closed by the next leader.

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::tenure_file::TenureFile;
use crate::election::history::row::{Left, ROWS_MAX, Row, RowOpening};
use crate::election::record::{Revision, Token};
use crate::protocol::transactions;
use crate::store::codec::Keys;
use crate::store::codec::history::{decode_row, encode_row};
use crate::store::{Guard, KeyValue, Op, Store, StoreError, Txn, ask};

/// How long a leader that leaves may take to close its row; it gives its lease back at the same time.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a write of the history is tried, and the pause between two tries.
const TRIES_MAX: u32 = 60;
const TRY_PAUSE: Duration = Duration::from_secs(1);
/// The pause when somebody else has written at the same time.
const RACE_PAUSE: Duration = Duration::from_millis(50);
/// How often a row may change under us before we leave it to the others.
const MERGES_MAX: u32 = 4;

/// The history of the cluster, as one node writes it. Clones share it.
#[derive(Clone)]
pub(super) struct Writer {
    inner: Arc<WriterInner>,
}

struct WriterInner {
    keys: Keys,
    /// The main loop's connections: the election's are for the election.
    store: Arc<dyn Store>,
    file: TenureFile,
    /// Our own row, once it is there.
    own: Mutex<Option<OwnRow>>,
    /// One of our writes at a time: what is said about our past comes before our next tenure.
    turn: tokio::sync::Mutex<()>,
}

/// A row as its opening has written it: with the node that led before, which only the store knew.
#[derive(Clone, Debug)]
struct OwnRow {
    row: Row,
    at: Revision,
}

/// What this node has to say.
#[derive(Debug)]
pub(super) enum HistoryEntry {
    /// Our tenure has begun, after one that we may have seen end.
    Begun(Row, Option<Left>),
    /// A tenure of an earlier start has ended.
    Ended(Row),
}

/// How a try ended.
#[derive(Debug, PartialEq, Eq)]
enum WriteTry {
    /// It is written, or not ours to write any more.
    Done,
    Again,
}

// === impl Writer ===

impl Writer {
    pub(super) fn new(keys: Keys, store: Arc<dyn Store>, file: TenureFile) -> Self {
        let inner =
            WriterInner { keys, store, file, own: Mutex::default(), turn: tokio::sync::Mutex::default() };
        Self { inner: Arc::new(inner) }
    }

    /// Writes an entry, however often it takes, up to [`TRIES_MAX`].
    pub(super) async fn write(self, entry: HistoryEntry) {
        for _ in 0..TRIES_MAX {
            let tried = {
                let _turn = self.inner.turn.lock().await;
                self.try_write(&entry).await
            };
            let pause = match tried {
                Ok(WriteTry::Done) => return,
                Ok(WriteTry::Again) => RACE_PAUSE,
                Err(e) => {
                    tracing::debug!(error = %e, "cannot write the history; trying again");
                    TRY_PAUSE
                }
            };
            tokio::time::sleep(pause).await;
        }
        tracing::warn!("the history lacks an entry: the store has not taken it in {TRIES_MAX} tries");
    }

    async fn try_write(&self, entry: &HistoryEntry) -> Result<WriteTry, StoreError> {
        match entry {
            HistoryEntry::Begun(row, left) => self.open(row, left.as_ref()).await,
            HistoryEntry::Ended(row) => {
                let tried = self.settle(self.inner.store.as_ref(), row, Revision(0)).await?;
                if tried == WriteTry::Done {
                    let file = self.inner.file.clone();
                    let _ = tokio::task::spawn_blocking(move || file.forget_past()).await; // it may be told again
                }
                Ok(tried)
            }
        }
    }

    /// Closes our row, or writes it if it was never opened. To be bounded by the caller.
    pub(super) async fn close(&self, store: &dyn Store, row: &Row) {
        let opened = self.inner.own.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let opened = opened.filter(|o| o.row.token == row.token).map(|o| (o.row.ended_as(row), o.at));
        let (row, known) = opened.unwrap_or_else(|| (row.clone(), Revision(0)));
        if let Err(e) = self.settle(store, &row, known).await {
            tracing::debug!(error = %e, "the history was not told; the next start does it");
        }
    }

    async fn open(&self, row: &Row, left: Option<&Left>) -> Result<WriteTry, StoreError> {
        let keys = &self.inner.keys;
        let reply = ask(self.inner.store.as_ref(), Txn::read(vec![Op::List(rows_prefix(keys))])).await?;
        let found = reply.found.into_iter().next().unwrap_or_default();
        if let Some(ours) = found.iter().find(|kv| kv.key == row_key(keys, row.token)) {
            // An earlier try, whose answer was lost.
            self.note_own(decode_row(&ours.value), ours.modified);
            return Ok(WriteTry::Done);
        }
        let known: Vec<Row> = found.iter().filter_map(|kv| decode_row(&kv.value)).collect();
        let opening = RowOpening::plan(row.clone(), left, &known, ROWS_MAX);
        let reply = ask(self.inner.store.as_ref(), open_txn(keys, &opening, &found)).await?;
        if reply.succeeded {
            self.note_own(Some(opening.row), reply.header.revision);
            return Ok(WriteTry::Done);
        }
        let is_fenced = transactions::refused_by_fence(&reply, row.token);
        Ok(if is_fenced { WriteTry::Done } else { WriteTry::Again })
    }

    /// Brings what the holder says into the row, whoever has written it meanwhile.
    async fn settle(&self, store: &dyn Store, row: &Row, known: Revision) -> Result<WriteTry, StoreError> {
        let key = row_key(&self.inner.keys, row.token);
        let (mut row, mut expected) = (row.clone(), known);
        for _ in 0..MERGES_MAX {
            let txn = Txn {
                guards: vec![Guard::ModRevision(key.clone(), expected)],
                then: vec![Op::Put(key.clone(), encode_row(&row), None)],
                otherwise: vec![Op::Get(key.clone())],
            };
            let reply = ask(store, txn).await?;
            if reply.succeeded {
                return Ok(WriteTry::Done);
            }
            let found = reply.found.into_iter().flatten().next();
            expected = found.as_ref().map_or(Revision(0), |kv| kv.modified);
            let Some(found) = found else { continue };
            // Not to be read, or another store's tenure of the same number: not to be replaced.
            let Some(mut theirs) = decode_row(&found.value).filter(|theirs| theirs.holder == row.holder)
            else {
                return Ok(WriteTry::Done);
            };
            if !row.end.clone().is_some_and(|end| theirs.close(end)) {
                return Ok(WriteTry::Done);
            }
            row = theirs;
        }
        Ok(WriteTry::Again)
    }

    fn note_own(&self, row: Option<Row>, at: Revision) {
        let opened = row.map(|row| OwnRow { row, at });
        *self.inner.own.lock().unwrap_or_else(PoisonError::into_inner) = opened;
    }
}

/// Opens one row, closes others, deletes the oldest; only under the token, and only once.
fn open_txn(keys: &Keys, opening: &RowOpening, found: &[KeyValue]) -> Txn {
    let key = row_key(keys, opening.row.token);
    let mut guards = vec![Guard::ModRevision(key.clone(), Revision(0))];
    let mut then = vec![Op::Put(key, encode_row(&opening.row), None)];
    for row in &opening.closed {
        let key = row_key(keys, row.token);
        let at = found.iter().find(|kv| kv.key == key).map_or(Revision(0), |kv| kv.modified);
        guards.push(Guard::ModRevision(key.clone(), at));
        then.push(Op::Put(key, encode_row(row), None));
    }
    then.extend(opening.pruned.iter().map(|token| Op::Delete(row_key(keys, *token))));
    transactions::fenced(keys, opening.row.token, guards, then)
}

/// What the keys of all rows begin with.
pub fn rows_prefix(keys: &Keys) -> String {
    format!("{}history/", keys.prefix())
}

/// Sorts as the token does.
fn row_key(keys: &Keys, token: Token) -> String {
    format!("{}{:020}", rows_prefix(keys), token.get())
}
