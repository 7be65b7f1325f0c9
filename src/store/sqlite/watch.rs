//! Noticing what other processes changed.
//!
//! Every commit writes to the write-ahead log, and inotify tells of that at once and for nothing: looking at the
//! file every 50 ms instead cost an idle leader 0.2 CPU seconds a minute. But a commit is written before the disk has
//! it, and can be seen only after that, of which nothing tells; so we look a few times more after each event. Once a
//! second, and when a lease is due, we look into the database whatever inotify says.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use rusqlite::Transaction;
use rustix::fs::inotify;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{SqliteStore, StoreError, failed, store_row};
use crate::clock::Instant;
use crate::election::record::Revision;
use crate::store::{Change, KeyRange, Refusal, WatchBatch};

/// How often the database is looked into at least.
const LOOK_AT_LEAST: Duration = Duration::from_secs(1);
/// The same where inotify does not work.
const LOOK_WITHOUT_INOTIFY: Duration = Duration::from_millis(50);
/// One commit writes several times; this much later it is over.
const COMMIT_LASTS: Duration = Duration::from_millis(1);

/// After these pauses we look again: the commit that wrote may have waited for its disk, or for a CPU.
const LOOK_AGAIN_AFTER: [Duration; 3] =
    [Duration::from_millis(5), Duration::from_millis(25), Duration::from_millis(125)];

struct Watcher {
    store: SqliteStore,
    range: KeyRange,
    /// Tells when the write-ahead log is written.
    log: Option<AsyncFd<OwnedFd>>,
    seen: Revision,
    /// How often we have looked since the log was written.
    looks: usize,
    next_end: Option<Instant>,
    begun: bool,
    told_at: Instant,
    alive_every: Duration,
}

/// What one look into the database shows.
struct Look {
    revision: Revision,
    changes: Vec<Change>,
    next_end: Option<Instant>,
}

/// The stream of changes in `range` after `after`.
pub(super) fn changes(
    store: SqliteStore,
    range: KeyRange,
    after: Revision,
    alive_every: Duration,
) -> BoxStream<'static, Result<WatchBatch, StoreError>> {
    let told_at = store.clock.now();
    let log = follow_log(&store.path)
        .inspect_err(|e| tracing::warn!(error = %e, "no inotify; polling the store every 50 ms instead"))
        .ok();
    let (looks, next_end, begun) = (0, None, false);
    let watcher = Watcher { store, range, log, seen: after, looks, next_end, begun, told_at, alive_every };
    stream::unfold(watcher, |mut watcher| async move {
        let batch = watcher.next().await;
        Some((batch, watcher))
    })
    .boxed()
}

fn follow_log(database: &Path) -> std::io::Result<AsyncFd<OwnedFd>> {
    let mut log = OsString::from(database);
    log.push("-wal");
    let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    inotify::add_watch(&fd, Path::new(&log), inotify::WatchFlags::MODIFY)?;
    // SAFETY: the descriptor is owned by the `AsyncFd`, which never gives it away.
    let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    fd.map_err(|e| std::io::Error::other(format!("{e:?}")))
}

impl Watcher {
    async fn next(&mut self) -> Result<WatchBatch, StoreError> {
        loop {
            let look = self.look().await?;
            let now = self.store.clock.now();
            let news = look.revision > self.seen || !self.begun;
            (self.begun, self.next_end, self.seen) = (true, look.next_end, self.seen.max(look.revision));
            if news || now.since(self.told_at) >= self.alive_every {
                self.told_at = now;
                return Ok(WatchBatch { revision: self.seen, changes: look.changes });
            }
            self.wait(now).await;
        }
    }

    /// Until somebody writes, or it is time to look anyway.
    async fn wait(&mut self, now: Instant) {
        let at_least = if self.log.is_some() { pause_after(self.looks) } else { LOOK_WITHOUT_INOTIFY };
        let sign_of_life = self.alive_every.saturating_sub(now.since(self.told_at));
        let lease_end = self.next_end.map_or(at_least, |end| now.until(end));
        let due = at_least.min(sign_of_life).min(lease_end).max(COMMIT_LASTS);
        let written = tokio::time::timeout(due, self.written()).await;
        self.looks = if written.is_ok() { 0 } else { self.looks.saturating_add(1) };
    }

    async fn written(&self) {
        let Some(log) = &self.log else { return std::future::pending().await };
        let Ok(mut ready) = log.readable().await else { return std::future::pending().await };
        tokio::time::sleep(COMMIT_LASTS).await;
        let mut events = [0; 4096];
        while rustix::io::read(log.get_ref(), &mut events).is_ok_and(|n| n > 0) {}
        ready.clear_ready();
    }

    async fn look(&self) -> Result<Look, StoreError> {
        let (range, seen, begun, clock) =
            (self.range.clone(), self.seen, self.begun, self.store.clock.clone());
        let looked = self.store.look(move |tx| look(tx, clock.now(), &range, begun, seen)).await?;
        if let Some(look) = looked {
            return Ok(look);
        }
        let range = self.range.clone();
        // Each transaction of a writer begins by ending the leases that are due.
        let looked = self.store.run(move |tx, now| look(tx, now, &range, false, seen)).await?;
        looked.ok_or_else(|| StoreError::Unknown("a lease ended while it was looked for".into()))
    }
}

/// How long until the next look, if nothing tells of a write before: so often we have looked since the last one.
fn pause_after(looks: usize) -> Duration {
    LOOK_AGAIN_AFTER.get(looks).copied().unwrap_or(LOOK_AT_LEAST)
}

/// What has changed; `None`: a lease is due, and only a writer can end it.
fn look(
    tx: &Transaction<'_>,
    now: Instant,
    range: &KeyRange,
    begun: bool,
    seen: Revision,
) -> Result<Option<Look>, StoreError> {
    let row = store_row(tx).map_err(failed)?;
    let ends: Option<i64> =
        tx.query_row("SELECT min(ends_boot_ns) FROM lease", [], |r| r.get(0)).map_err(failed)?;
    // Leases end on the boot clock alone.
    let next_end = ends.map(|ns| Instant::from_nanos(ns.cast_unsigned(), u64::MAX));
    if next_end.is_some_and(|end| now.reached(end)) {
        return Ok(None);
    }
    let revision = row.revision;
    if begun && revision <= seen {
        return Ok(Some(Look { revision, changes: vec![], next_end }));
    }
    match super::changes(tx, row, range, seen).map_err(failed)? {
        Some(changes) => Ok(Some(Look { revision, changes, next_end })),
        None => Err(StoreError::Refused(Refusal::Compacted, format!("deletions after {seen} are forgotten"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_that_waits_for_its_disk_is_looked_for_again_and_an_idle_store_once_a_second() {
        let pauses: Vec<u128> = (0..5).map(|looks| pause_after(looks).as_millis()).collect();
        assert_eq!(pauses, [5, 25, 125, 1_000, 1_000]);
    }
}
