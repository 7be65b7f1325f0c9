//! Noticing what other processes changed: a look at the file every 50 ms, a look into it when it changed.
//!
//! The look at the file is one `stat` of the write-ahead log, which every commit touches. Its time stamp is
//! coarse, so once a second, and when a lease is due, we look into the database whatever the file says.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};

use super::{SqliteStore, StoreError, store_row};
use crate::clock::Instant;
use crate::election::record::Revision;
use crate::store::{Change, KeyRange, Refusal, WatchBatch};

/// How often the file is looked at.
const POLL: Duration = Duration::from_millis(50);
/// How often the database is looked into at least.
const LOOK_AT_LEAST: Duration = Duration::from_secs(1);

struct Watcher {
    store: SqliteStore,
    range: KeyRange,
    wal: PathBuf,
    seen: Revision,
    file_state: Option<(SystemTime, u64)>,
    next_end: Option<Instant>,
    looked_at: Option<Instant>,
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
    let mut wal = store.path.clone().into_os_string();
    wal.push("-wal");
    let wal = PathBuf::from(wal);
    let watcher = Watcher {
        store,
        range,
        wal,
        seen: after,
        file_state: None,
        next_end: None,
        looked_at: None,
        told_at,
        alive_every,
    };
    stream::unfold(watcher, |mut watcher| async move {
        let batch = watcher.next().await;
        Some((batch, watcher))
    })
    .boxed()
}

impl Watcher {
    async fn next(&mut self) -> Result<WatchBatch, StoreError> {
        loop {
            let now = self.store.clock.now();
            if self.is_look_due(now) {
                let look = self.look().await?;
                let news = look.revision > self.seen || self.looked_at.is_none();
                self.looked_at = Some(now);
                self.next_end = look.next_end;
                self.seen = self.seen.max(look.revision);
                if news {
                    self.told_at = now;
                    return Ok(WatchBatch { revision: self.seen, changes: look.changes });
                }
            }
            if now.since(self.told_at) >= self.alive_every {
                self.told_at = now;
                return Ok(WatchBatch { revision: self.seen, changes: vec![] });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn is_look_due(&mut self, now: Instant) -> bool {
        let file_state = file_state(&self.wal);
        let touched = file_state != self.file_state;
        self.file_state = file_state;
        touched
            || self.next_end.is_some_and(|end| now.reached(end))
            || self.looked_at.is_none_or(|at| now.since(at) >= LOOK_AT_LEAST)
    }

    async fn look(&self) -> Result<Look, StoreError> {
        let (range, seen) = (self.range.clone(), self.seen);
        self.store
            .run(move |tx, _now| {
                let row = store_row(tx).map_err(super::failed)?;
                let changes =
                    super::changes(tx, row, &range, seen).map_err(super::failed)?.ok_or_else(|| {
                        StoreError::Refused(
                            Refusal::Compacted,
                            format!("deletions after {seen} are forgotten"),
                        )
                    })?;
                let sql = "SELECT min(ends_boot_ns) FROM lease";
                let ends: Option<i64> = tx.query_row(sql, [], |r| r.get(0)).map_err(super::failed)?;
                // Leases end on the boot clock alone.
                let next_end = ends.map(|ns| Instant::from_nanos(ns.cast_unsigned(), u64::MAX));
                Ok(Look { revision: row.revision, changes, next_end })
            })
            .await
    }
}

fn file_state(path: &Path) -> Option<(SystemTime, u64)> {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len()))
}
