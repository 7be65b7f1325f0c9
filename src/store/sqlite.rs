//! The embedded store: one SQLite file elects among the processes of one machine.
//!
//! The same contract on the same path as etcd: registrations, leader record, revisions, leases, guarded
//! transactions. Each verb that writes is one `BEGIN IMMEDIATE` transaction with `synchronous = FULL`; a read has a
//! connection of its own and takes no lock, so that it is answered whoever holds the writers' one. A lease ends on
//! `CLOCK_BOOTTIME`, read *inside* the transaction, after the lock is held, so never before its time to live
//! has passed since the renewal left. A file that was left by another boot holds no living lease: whoever held
//! one is dead.
//!
//! Not for several machines: SQLite's locks do not work over network file systems, so those are refused. Other
//! processes' changes are noticed within 50 ms.

mod complaint;
mod place;
mod queue;
mod schema;
mod watch;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::places::{Health, Places};
use super::{
    ANSWER_BYTES_MAX, Change, Guard, Header, KeyRange, KeyValue, Op, Refusal, Renewal, Request, Response,
    Store, StoreError, Txn, TxnReply, WatchBatch, after_prefix,
};
use crate::clock::{Clock, Instant};
use crate::election::lease::LeaseId;
use crate::election::record::Revision;

use complaint::Complaint;
use place::Place;
use queue::{Fate, Queue};
pub use schema::OpenError;

/// How long a request may take beyond the wait for other processes.
const WORK_TIMEOUT: Duration = Duration::from_secs(1);
/// For how many revisions deletions are remembered for watches that start in the past.
const DELETIONS_REMEMBERED: i64 = 10_000;

/// A SQLite file behind the contract.
#[derive(Clone)]
pub struct SqliteStore {
    writer: Queue,
    reader: Queue,
    clock: Arc<dyn Clock>,
    path: PathBuf,
    place: Arc<Place>,
    complaint: Arc<Complaint>,
    /// The leases of which a renewal is under way: another one would only wait behind it.
    renewing: Arc<Mutex<BTreeSet<LeaseId>>>,
}

/// A renewal under way; over when this is dropped.
struct Renewing {
    lease: LeaseId,
    all: Arc<Mutex<BTreeSet<LeaseId>>>,
}

/// What the row of the store itself says.
#[derive(Clone, Copy)]
struct StoreRow {
    cluster: u64,
    revision: Revision,
    forgotten: Revision,
}

// === impl SqliteStore ===

impl SqliteStore {
    /// Opens the file, creating it if needed, and waits up to `busy_timeout` for other processes at each verb.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(path: &Path, busy_timeout: Duration, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let owned = path.to_owned();
        let opened = tokio::task::spawn_blocking(move || schema::open(&owned, busy_timeout))
            .await
            .map_err(|e| OpenError::io(path, e))??;
        let timeout = busy_timeout + WORK_TIMEOUT;
        Ok(Self {
            writer: Queue::new(opened.writer, timeout),
            reader: Queue::new(opened.reader, timeout),
            clock,
            path: path.to_owned(),
            place: Arc::new(opened.place),
            complaint: Arc::default(),
            renewing: Arc::default(),
        })
    }

    /// Waits for an answer for at least so long, however slow the disk is.
    pub fn answer_within(mut self, timeout: Duration) -> Self {
        let timeout = timeout.max(self.timeout());
        self.writer.set_timeout(timeout);
        self.reader.set_timeout(timeout);
        self
    }

    fn timeout(&self) -> Duration {
        self.writer.timeout()
    }

    /// Reads, without any lock.
    async fn look<R, F>(&self, work: F) -> Result<R, StoreError>
    where
        R: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<R, StoreError> + Send + 'static,
    {
        let place = self.place.clone();
        self.reader
            .call(move |c, _| in_place(&place, || c.transaction().map_err(failed).and_then(|tx| work(&tx))))
            .await
    }

    /// Writes; or reads what only a writer can tell.
    async fn run<R, F>(&self, work: F) -> Result<R, StoreError>
    where
        R: Send + 'static,
        F: FnOnce(&Transaction<'_>, Instant) -> Result<R, StoreError> + Send + 'static,
    {
        let (clock, place) = (self.clock.clone(), self.place.clone());
        let done = self
            .writer
            .call(move |c, fate| in_place(&place, || transact(c, fate, clock.as_ref(), work)))
            .await;
        self.complaint.note(&self.path, self.place.index(), &done);
        done
    }

    /// What a transaction reads that writes nothing; `None`: a lease has ended, and only a writer can end it.
    async fn read(&self, txn: &Txn) -> Result<Option<TxnReply>, StoreError> {
        let (txn, clock) = (txn.clone(), self.clock.clone());
        self.look(move |tx| {
            // The snapshot begins with the first read, so what it does not show has not been done before we were asked.
            let reply = txn_reply(tx, &txn)?;
            let is_over = any_lease_over(tx, clock.now()).map_err(failed)?;
            Ok((!is_over).then_some(reply))
        })
        .await
    }

    /// `None`: one is under way.
    fn begin_renewal(&self, lease: LeaseId) -> Option<Renewing> {
        let mut renewing = self.renewing.lock().unwrap_or_else(PoisonError::into_inner);
        renewing.insert(lease).then(|| Renewing { lease, all: self.renewing.clone() })
    }
}

impl Drop for Renewing {
    fn drop(&mut self) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.lease);
    }
}

/// Does this on the file, if it is still where others find it, and counts only if it still is afterwards.
fn in_place<R>(place: &Place, work: impl FnOnce() -> Result<R, StoreError>) -> Result<R, StoreError> {
    let lost = |how| StoreError::Refused(Refusal::NotAStore, how);
    place.check().map_err(lost)?;
    let done = work();
    place.check().map_err(lost)?;
    done
}

fn transact<R, F>(
    connection: &mut Connection,
    fate: &Fate,
    clock: &dyn Clock,
    work: F,
) -> Result<R, StoreError>
where
    F: FnOnce(&Transaction<'_>, Instant) -> Result<R, StoreError>,
{
    let tx = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(|e| StoreError::Refused(Refusal::NotSent, e.to_string()))?;
    let now = clock.now(); // only now: the lock may have taken a while
    expire(&tx, now).map_err(failed)?;
    let done = work(&tx, now)?; // an error rolls back: nothing happened
    fate.commit()?;
    tx.commit().map_err(|e| StoreError::Unknown(e.to_string()))?;
    Ok(done)
}

/// An error before the commit: the transaction is rolled back, so it is a refusal.
fn failed(e: rusqlite::Error) -> StoreError {
    let refusal = match e.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => Refusal::NoSpace,
        Some(rusqlite::ErrorCode::TooBig) => Refusal::TooLarge,
        Some(rusqlite::ErrorCode::NotADatabase | rusqlite::ErrorCode::DatabaseCorrupt) => Refusal::NotAStore,
        _ => Refusal::NotSent,
    };
    StoreError::Refused(refusal, e.to_string())
}

#[async_trait]
impl Store for SqliteStore {
    async fn call(&self, request: Request) -> Result<Response, StoreError> {
        if let Request::Txn(txn) = &request
            && !txn.writes()
            && let Some(reply) = self.read(txn).await?
        {
            return Ok(Response::Txn(reply));
        }
        self.run(move |tx, now| match request {
            Request::Grant { lease, ttl } => grant(tx, now, lease, ttl),
            Request::Renew(lease) => renew(tx, now, lease),
            Request::Revoke(lease) => {
                end_lease(tx, lease).map_err(failed)?;
                Ok(Response::Revoked(header(tx)?))
            }
            Request::Txn(txn) => txn_reply(tx, &txn).map(Response::Txn),
        })
        .await
    }

    /// One renewal of a lease is under way at most: behind a stall many would only wait for each other's sync. One that
    /// comes too early has no answer of its own.
    fn renew(&self, lease: LeaseId) -> BoxStream<'static, Result<Renewal, StoreError>> {
        let Some(renewing) = self.begin_renewal(lease) else { return stream::empty().boxed() };
        let store = self.clone();
        stream::once(async move {
            let _renewing = renewing;
            let stamp = store.clock.now();
            let answer = store.call(Request::Renew(lease)).await?;
            let ttl = if let Response::Renewed(_, ttl) = answer { ttl } else { None };
            Ok(Renewal { stamp, header: answer.header(), ttl })
        })
        .boxed()
    }

    async fn watch(
        &self,
        range: KeyRange,
        after: Revision,
        alive_every: Duration,
    ) -> Result<BoxStream<'static, Result<WatchBatch, StoreError>>, StoreError> {
        Ok(watch::changes(self.clone(), range, after, alive_every))
    }

    fn location(&self) -> String {
        self.path.display().to_string()
    }
}

#[async_trait]
impl Places for SqliteStore {
    async fn until_gone(&self) -> String {
        self.place.until_lost().await
    }

    async fn diagnose(&self, _question: &Request) -> String {
        self.location()
    }
}

impl Health for SqliteStore {
    fn complaint(&self) -> Option<String> {
        self.complaint.get()
    }
}

// === requests, inside one transaction ===

fn store_row(tx: &Transaction<'_>) -> rusqlite::Result<StoreRow> {
    tx.query_row("SELECT cluster, revision, forgotten FROM store", [], |row| {
        let cluster: i64 = row.get(0)?;
        let (at, forgotten) = (revision(row.get(1)?), revision(row.get(2)?));
        Ok(StoreRow { cluster: cluster.cast_unsigned(), revision: at, forgotten })
    })
}

fn header(tx: &Transaction<'_>) -> Result<Header, StoreError> {
    let row = store_row(tx).map_err(failed)?;
    Ok(Header { cluster: row.cluster, revision: row.revision, raft_term: 0 })
}

fn revision(stored: i64) -> Revision {
    Revision(stored.cast_unsigned())
}

fn next_revision(tx: &Transaction<'_>) -> rusqlite::Result<i64> {
    tx.query_row("UPDATE store SET revision = revision + 1 RETURNING revision", [], |row| row.get(0))
}

fn expire(tx: &Transaction<'_>, now: Instant) -> rusqlite::Result<()> {
    let now_ns = now.boot_ns().cast_signed();
    let mut over = tx.prepare_cached("SELECT id FROM lease WHERE ends_boot_ns <= ?1")?;
    let over: Vec<i64> = over.query_map([now_ns], |row| row.get(0))?.collect::<Result<_, _>>()?;
    over.into_iter().try_for_each(|id| end_lease(tx, LeaseId(id)))
}

/// Has a lease ended that nobody has noticed yet?
fn any_lease_over(tx: &Connection, now: Instant) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM lease WHERE ends_boot_ns <= ?1)";
    tx.query_row(sql, [now.boot_ns().cast_signed()], |row| row.get(0))
}

fn end_lease(tx: &Transaction<'_>, lease: LeaseId) -> rusqlite::Result<()> {
    tx.execute("DELETE FROM lease WHERE id = ?1", [lease.0])?;
    let mut keys = tx.prepare_cached("SELECT key FROM kv WHERE lease = ?1")?;
    let keys: Vec<String> = keys.query_map([lease.0], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let mut written = None;
    keys.iter().try_for_each(|key| delete(tx, key, &mut written))
}

fn grant(tx: &Transaction<'_>, now: Instant, lease: LeaseId, ttl: Duration) -> Result<Response, StoreError> {
    let ends = (now + ttl).boot_ns().cast_signed();
    let ttl_ms = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
    let inserted = tx
        .execute(
            "INSERT OR IGNORE INTO lease (id, ttl_ms, ends_boot_ns) VALUES (?1, ?2, ?3)",
            params![lease.0, ttl_ms, ends],
        )
        .map_err(failed)?;
    if inserted == 0 {
        return Err(StoreError::Refused(Refusal::LeaseExists, format!("lease {lease} exists")));
    }
    Ok(Response::Granted(header(tx)?, ttl))
}

fn renew(tx: &Transaction<'_>, now: Instant, lease: LeaseId) -> Result<Response, StoreError> {
    let sql = "UPDATE lease SET ends_boot_ns = ?2 + ttl_ms * 1000000 WHERE id = ?1 RETURNING ttl_ms";
    let ttl_ms: Option<i64> = tx
        .query_row(sql, params![lease.0, now.boot_ns().cast_signed()], |row| row.get(0))
        .optional()
        .map_err(failed)?;
    let ttl = ttl_ms.map(|ms| Duration::from_millis(ms.cast_unsigned()));
    Ok(Response::Renewed(header(tx)?, ttl))
}

fn txn_reply(tx: &Transaction<'_>, txn: &Txn) -> Result<TxnReply, StoreError> {
    if let Some(key) = txn.key_written_twice() {
        return Err(StoreError::twice(key));
    }
    let mut succeeded = true;
    for guard in &txn.guards {
        succeeded &= holds(tx, guard).map_err(failed)?;
    }
    let ops = if succeeded { &txn.then } else { &txn.otherwise };
    let mut written = None;
    let mut found = Vec::new();
    for op in ops {
        if let Some(kvs) = act(tx, op, &mut written)? {
            found.push(kvs);
        }
    }
    Ok(TxnReply { header: header(tx)?, succeeded, found })
}

fn holds(tx: &Transaction<'_>, guard: &Guard) -> rusqlite::Result<bool> {
    match guard {
        Guard::ModRevision(key, is) => {
            let sql = "SELECT modified FROM kv WHERE key = ?1";
            let modified: Option<i64> = tx.query_row(sql, [key], |row| row.get(0)).optional()?;
            Ok(revision(modified.unwrap_or(0)) == *is)
        }
        Guard::PrefixEmpty(prefix) => {
            let sql = "SELECT NOT EXISTS (SELECT 1 FROM kv WHERE key >= ?1 AND key < ?2)";
            tx.query_row(sql, [prefix, &after_prefix(prefix)], |row| row.get(0))
        }
    }
}

/// Does one operation. `written` is the revision that all writes of this transaction share.
fn act(
    tx: &Transaction<'_>,
    op: &Op,
    written: &mut Option<i64>,
) -> Result<Option<Vec<KeyValue>>, StoreError> {
    match op {
        Op::Put(key, value, lease) => put(tx, key, value, *lease, written).map(|()| None),
        Op::Delete(key) => delete(tx, key, written).map(|()| None).map_err(failed),
        Op::Get(key) => list(tx, key, &format!("{key}\0"), Revision(0), None).map(Some).map_err(failed),
        Op::List(prefix) => {
            list(tx, prefix, &after_prefix(prefix), Revision(0), None).map(Some).map_err(failed)
        }
        Op::Page { prefix, after, limit } => {
            let range = KeyRange::page(prefix, after);
            list(tx, &range.from, &range.to, Revision(0), Some(*limit)).map(Some).map_err(failed)
        }
    }
}

fn share_revision(tx: &Transaction<'_>, written: &mut Option<i64>) -> rusqlite::Result<i64> {
    match *written {
        Some(revision) => Ok(revision),
        None => Ok(*written.insert(next_revision(tx)?)),
    }
}

/// Deletes a key and remembers that it is gone, so that watches can tell.
fn delete(tx: &Transaction<'_>, key: &str, written: &mut Option<i64>) -> rusqlite::Result<()> {
    if tx.execute("DELETE FROM kv WHERE key = ?1", [key])? == 0 {
        return Ok(());
    }
    let revision = share_revision(tx, written)?;
    tx.execute("INSERT OR IGNORE INTO gone (revision, key) VALUES (?1, ?2)", params![revision, key])?;
    let forgotten = revision - DELETIONS_REMEMBERED;
    if tx.execute("DELETE FROM gone WHERE revision <= ?1", [forgotten])? > 0 {
        tx.execute("UPDATE store SET forgotten = ?1", [forgotten])?;
    }
    Ok(())
}

fn put(
    tx: &Transaction<'_>,
    key: &str,
    value: &[u8],
    lease: Option<LeaseId>,
    written: &mut Option<i64>,
) -> Result<(), StoreError> {
    if let Some(lease) = lease {
        let sql = "SELECT EXISTS (SELECT 1 FROM lease WHERE id = ?1)";
        let exists: bool = tx.query_row(sql, [lease.0], |row| row.get(0)).map_err(failed)?;
        if !exists {
            return Err(StoreError::Refused(Refusal::LeaseNotFound, format!("no lease {lease}")));
        }
    }
    let revision = share_revision(tx, written).map_err(failed)?;
    let sql = "INSERT INTO kv (key, value, created, modified, lease) VALUES (?1, ?2, ?3, ?3, ?4) \
               ON CONFLICT (key) DO UPDATE SET value = ?2, modified = ?3, lease = ?4";
    tx.execute(sql, params![key, value, revision, lease.map(|l| l.0)]).map_err(failed)?;
    Ok(())
}

/// What happened in `range` after `after`, in order; `None` if some of it is forgotten.
fn changes(
    tx: &Connection,
    row: StoreRow,
    range: &KeyRange,
    after: Revision,
) -> rusqlite::Result<Option<Vec<Change>>> {
    if after < row.forgotten {
        return Ok(None);
    }
    let kvs = list(tx, &range.from, &range.to, after, None)?.into_iter();
    let mut changes: Vec<(Revision, Change)> = kvs.map(|kv| (kv.modified, Change::Put(kv))).collect();
    let mut gone = tx.prepare_cached("SELECT revision, key FROM gone WHERE revision > ?1")?;
    let gone =
        gone.query_map([after.0.cast_signed()], |r| Ok((revision(r.get(0)?), r.get::<_, String>(1)?)))?;
    for row in gone {
        let (at, key) = row?;
        if range.contains(&key) {
            changes.push((at, Change::Deleted(key)));
        }
    }
    // One transaction may delete a key and write another; it never touches one key twice. The sort is stable.
    changes.sort_by_key(|(at, _)| *at);
    Ok(Some(changes.into_iter().map(|(_, c)| c).collect()))
}

/// What was written after a revision. With a limit it is a page, whose size is limited too.
fn list(
    tx: &Connection,
    from: &str,
    to: &str,
    after: Revision,
    limit: Option<usize>,
) -> rusqlite::Result<Vec<KeyValue>> {
    let sql = "SELECT key, value, created, modified, lease FROM kv \
               WHERE key >= ?1 AND key < ?2 AND modified > ?3 ORDER BY key LIMIT ?4";
    // SQLite takes a negative limit for none.
    let limit = limit.map_or(-1, |n| i64::try_from(n).unwrap_or(i64::MAX));
    let mut rows = tx.prepare_cached(sql)?;
    let rows = rows.query_map(params![from, to, after.0.cast_signed(), limit], |row| {
        Ok(KeyValue {
            key: row.get(0)?,
            value: row.get(1)?,
            created: revision(row.get(2)?),
            modified: revision(row.get(3)?),
            lease: row.get::<_, Option<i64>>(4)?.map(LeaseId),
        })
    })?;
    let (mut bytes, mut found) = (0, Vec::new());
    for row in rows {
        let kv: KeyValue = row?;
        bytes += kv.key.len() + kv.value.len();
        if limit >= 0 && bytes > ANSWER_BYTES_MAX {
            let why = format!("a page from {from:?} on has more than {ANSWER_BYTES_MAX} bytes");
            let too_big = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_TOOBIG);
            return Err(rusqlite::Error::SqliteFailure(too_big, Some(why)));
        }
        found.push(kv);
    }
    Ok(found)
}
