//! The watch on the election: keeps the watched keys up to date and hands each new one to the elector.
//!
//! A watch that breaks or goes silent is not a loss: it is opened again, at another member, from where it was. Before
//! that the store is read: it may have been restored from a backup meanwhile, or be another one. That is how a candidate
//! with a long lease, which asks for nothing in hours, hears of it.

use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::mpsc;

use super::{Driver, Shared};
use crate::election::event::Event;
use crate::election::lease::LeaseTiming;
use crate::protocol::endpoints::Looks;
use crate::protocol::transactions;
use crate::store::codec::WatchedKeys;
use crate::store::{Refusal, StoreError, ask};

/// The pause before a watch is opened again; doubles up to the second one.
const REOPEN_PAUSE: Duration = Duration::from_millis(100);
const REOPEN_PAUSE_MAX: Duration = Duration::from_secs(2);
/// How often the watch shows a sign of life.
const ALIVE_EVERY_MIN: Duration = Duration::from_millis(500);
const ALIVE_EVERY_MAX: Duration = Duration::from_secs(5);

impl Driver {
    /// Begins, unless it has begun. Not before it is known which store is the right one.
    pub(super) fn begin_watching(&mut self) {
        if std::mem::replace(&mut self.watches, true) {
            return;
        }
        let timing = LeaseTiming::new(self.parts.registration.ttl);
        let alive_every = timing.candidate_cadence().clamp(ALIVE_EVERY_MIN, ALIVE_EVERY_MAX);
        let watching = watch(self.parts.clone(), alive_every, self.reports.clone());
        self.parts.tasks.spawn(Box::pin(watching));
    }

    /// Waits for a store that is lost for good, such as a deleted file: whoever elects there next does not know of us.
    pub(super) fn watch_for_loss(&self) {
        let places = self.parts.places.clone();
        self.spawn(async move { Event::StoreChanged(places.until_gone().await) });
    }
}

/// Watches until the receiver is gone. `alive_every`: how often the stream must show a sign of life.
async fn watch(shared: Shared, alive_every: Duration, reports: mpsc::Sender<Event>) {
    let mut watched = None;
    let mut looks = Looks::default();
    let mut pause = REOPEN_PAUSE;
    while !reports.is_closed() {
        let before = watched.as_ref().map(WatchedKeys::revision);
        let ended = follow(&shared, alive_every, &reports, &mut watched).await;
        if let Err(e) = ended {
            if e.refusal() == Some(Refusal::Compacted) {
                watched = None;
            }
            shared.telemetry.store_failed("watch", &e);
            if let Some(how) = another_store(&shared, &mut looks).await {
                let _ = reports.send(Event::StoreChanged(how)).await; // no driver: the process is ending
            }
        }
        let moved = watched.as_ref().map(WatchedKeys::revision) != before;
        pause = if moved { REOPEN_PAUSE } else { (pause * 2).min(REOPEN_PAUSE_MAX) };
        tokio::time::sleep(pause).await;
    }
}

/// Has the store become another one, for certain?
async fn another_store(shared: &Shared, looks: &mut Looks) -> Option<String> {
    let pinned = shared.data_dir.lock().await.pin()?.cluster;
    looks.again(pinned, &shared.places.clusters().await)
}

async fn follow(
    shared: &Shared,
    alive_every: Duration,
    reports: &mpsc::Sender<Event>,
    known: &mut Option<WatchedKeys>,
) -> Result<(), StoreError> {
    let (store, keys) = (shared.store.as_ref(), &shared.keys);
    let newest = known.as_ref().map(WatchedKeys::revision);
    let fresh = transactions::watched_keys(&ask(store, transactions::read(keys)).await?);
    // A watch that begins in the future of a store that went back in time is silent: only a read shows it.
    if let Some(how) = newest.and_then(|newest| transactions::went_back(newest, fresh.revision())) {
        let _ = reports.send(Event::StoreChanged(how)).await; // no driver: the process is ending
        return Ok(());
    }
    let watched = known.get_or_insert(fresh);
    let mut batches = store.watch(keys.watched(), watched.revision(), alive_every).await?;
    loop {
        if reports.send(Event::Seen(watched.view(keys))).await.is_err() {
            return Ok(());
        }
        // Twice the promised interval without a sign of life: the member hangs, whatever the connection says.
        let batch = loop {
            match tokio::time::timeout(alive_every * 2, batches.next()).await {
                Ok(Some(Ok(batch))) if batch.changes.is_empty() => {}
                Ok(Some(batch)) => break batch?,
                Ok(None) => return Err(StoreError::Unknown("the watch ended".into())),
                Err(_) => return Err(StoreError::Unknown("the watch stopped responding".into())),
            }
        };
        watched.fold(batch);
    }
}
