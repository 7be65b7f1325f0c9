//! Reads the history, on every node: a list at first, then its changes as they come.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::watch;

use super::{Past, rows_prefix};
use crate::clock::Clock;
use crate::election::history::row::{Gap, ROWS_MAX, Row};
use crate::store::codec::Keys;
use crate::store::codec::history::decode_row;
use crate::store::{Change, KeyRange, Op, Store, StoreError, Txn, WatchBatch, ask};
use crate::telemetry::event::Ended;
use crate::telemetry::{Event, Telemetry};

/// How often the watch must show a sign of life.
const ALIVE_EVERY: Duration = Duration::from_secs(5);
/// The pause before the history is read again; doubles up to the second one.
const PAUSE: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Reads one cluster's rows.
pub(super) struct Reader {
    prefix: String,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    telemetry: Telemetry,
    past: watch::Sender<Arc<Past>>,
}

/// The rows by key; they sort by token.
type Rows = BTreeMap<String, Arc<Row>>;

// === impl Reader ===

impl Reader {
    pub(super) fn new(
        keys: &Keys,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        telemetry: Telemetry,
        past: watch::Sender<Arc<Past>>,
    ) -> Self {
        Self { prefix: rows_prefix(keys), store, clock, telemetry, past }
    }

    /// Never returns. The driver says when the store does not answer; this one only tries again.
    pub(super) async fn follow(&self) {
        let (mut is_first, mut pause) = (true, PAUSE);
        loop {
            let e = self.read_and_watch(&mut is_first, &mut pause).await;
            tracing::debug!(error = %e, "the history is not up to date");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn read_and_watch(&self, is_first: &mut bool, pause: &mut Duration) -> StoreError {
        let ended = async {
            let reply = ask(self.store.as_ref(), Txn::read(vec![Op::List(self.prefix.clone())])).await?;
            let found = reply.found.into_iter().flatten();
            let mut rows: Rows =
                found.filter_map(|kv| Some((kv.key, Arc::new(decode_row(&kv.value)?)))).collect();
            self.show(&rows, !std::mem::take(is_first));
            *pause = PAUSE;
            let range = KeyRange::prefix(&self.prefix);
            let mut batches = self.store.watch(range, reply.header.revision, ALIVE_EVERY).await?;
            loop {
                let batch = match tokio::time::timeout(ALIVE_EVERY * 2, batches.next()).await {
                    Ok(Some(batch)) => batch?,
                    Ok(None) => return Err(StoreError::Unknown("the watch ended".into())),
                    Err(_) => return Err(StoreError::Unknown("the watch stopped responding".into())),
                };
                if batch.changes.is_empty() {
                    self.confirm();
                } else {
                    fold(&mut rows, batch);
                    self.show(&rows, true);
                }
            }
        };
        let ended: Result<std::convert::Infallible, StoreError> = ended.await;
        ended.err().unwrap_or_else(|| StoreError::Unknown("the watch ended".into()))
    }

    /// Nothing has changed: nobody needs to be woken.
    fn confirm(&self) {
        let now = self.clock.now();
        self.past.send_if_modified(|past| {
            Arc::make_mut(past).confirmed_at = Some(now);
            false
        });
    }

    /// Shows the newest rows, and tells of the tenures that have ended since the last time.
    fn show(&self, rows: &Rows, tell: bool) {
        let excess = rows.len().saturating_sub(ROWS_MAX);
        let rows: Vec<_> = rows.values().skip(excess).cloned().collect();
        let fresh = Arc::new(Past { rows, confirmed_at: Some(self.clock.now()) });
        let old = self.past.send_replace(fresh.clone());
        for (i, row) in fresh.rows.iter().enumerate().filter(|_| tell) {
            let known = old.rows.binary_search_by_key(&row.token, |r| r.token).ok();
            let before = known.and_then(|at| old.rows[at].end.as_ref());
            if let Some(end) = row.end.as_ref().filter(|end| before != Some(*end)) {
                let next = fresh.rows.get(i + 1);
                let gap = next.and_then(|n| Gap::before(n, Some(row.as_ref())));
                let ended = Ended {
                    token: row.token,
                    leader: row.holder.node.clone(),
                    reason: end.reason,
                    detail: end.detail.clone(),
                    held_ms: row.held_ms(end.at_ms),
                    next: next.map(|n| n.holder.node.clone()),
                    gap_ms: gap.map(|g| g.ms),
                    gap_at_least: gap.is_some_and(|g| g.at_least),
                    is_correction: before.is_some(),
                };
                self.telemetry.emit(Event::TenureEnded(Box::new(ended)));
            }
        }
    }
}

fn fold(rows: &mut Rows, batch: WatchBatch) {
    for change in batch.changes {
        match change {
            Change::Put(kv) => match decode_row(&kv.value) {
                Some(row) => rows.insert(kv.key, Arc::new(row)),
                None => rows.remove(&kv.key),
            },
            Change::Deleted(key) => rows.remove(&key),
        };
    }
}
