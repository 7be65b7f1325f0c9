//! What the predecessor has left, read page by page at the beginning of a tenure.
//!
//! Every page proves that the leader record carried our token at its revision. From the first one on nobody else can
//! have written here, and we have not begun to: so all pages together are one state, whatever their revisions.

use std::time::Duration;

use crate::clock::Clock;
use crate::meta::codec::{self, Opening, RowReader};
use crate::meta::store::MetaStore;
use crate::meta::workers::WORKERS_MAX;
use crate::protocol::writes::WriteError;

/// How many rows one answer may have. A worker with the longest labels takes 11 KiB.
const PAGE_ROWS: usize = 200;
/// How many rows there may be in all: no leader writes more than half of them.
const ROWS_MAX: usize = 2 * WORKERS_MAX + 100;
/// How many bytes they may have in all.
const BYTES_MAX: usize = 256 * 1024 * 1024;
/// How soon a page is asked for again.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Why it cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum CannotOpen {
    /// More than any leader writes.
    #[error(
        "there are more than {ROWS_MAX} rows or {BYTES_MAX} bytes under state/{}; delete keys that are not \
         metad's",
        codec::PREFIX
    )]
    TooMuch,
    /// The store refuses.
    #[error("the store has refused to show state/{} for {for_so_long:?}: {error}", codec::PREFIX)]
    Refused { for_so_long: Duration, error: WriteError },
}

/// Reads it. A store that is away is waited for, as long as leadership lasts; one that refuses, for `timeout`.
pub(super) async fn open(
    store: &MetaStore,
    timeout: Duration,
    clock: &dyn Clock,
) -> Result<Opening, CannotOpen> {
    let (mut reading, mut after) = (RowReader::default(), String::new());
    let (mut rows, mut bytes) = (0, 0);
    let mut refused_since = None;
    loop {
        store.leadership().heartbeat();
        let page = match store.proven_page(codec::PREFIX, &after, PAGE_ROWS).await {
            Ok(page) => page,
            // Over: wait to be told, so that there is one way to end.
            Err(WriteError::Lost(_) | WriteError::Fenced(_)) => std::future::pending().await,
            Err(error) => {
                tracing::warn!(%error, "cannot read the state of the last leader; retrying");
                let now = clock.now();
                let since = *refused_since.get_or_insert(now);
                if error.may_pass() {
                    refused_since = None; // waiting for a store that is away is no hang
                } else if now.since(since) >= timeout {
                    return Err(CannotOpen::Refused { for_so_long: timeout, error });
                }
                tokio::time::sleep(AGAIN_AFTER).await;
                continue;
            }
        };
        refused_since = None;
        for entry in &page.entries {
            reading.row(&entry.name, &entry.value);
            bytes += entry.name.len() + entry.value.len();
        }
        rows += page.entries.len();
        if rows > ROWS_MAX || bytes > BYTES_MAX {
            return Err(CannotOpen::TooMuch);
        }
        match page.entries.last() {
            Some(last) if page.entries.len() == PAGE_ROWS => after.clone_from(&last.name),
            _ => return Ok(reading.opening()),
        }
    }
}
