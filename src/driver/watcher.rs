//! The watch on the election: keeps one picture up to date and hands each new one to the elector.
//!
//! A watch that breaks or goes silent is not a loss: it is opened again, at another member, from where it was.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::mpsc;

use super::trouble::Trouble;
use crate::election::event::Event;
use crate::store::codec::{Keys, Picture};
use crate::store::{Refusal, Store, StoreError, ask, verbs};

/// The pause before a watch is opened again; doubles up to the second one.
const REOPEN_PAUSE: Duration = Duration::from_millis(100);
const REOPEN_PAUSE_MAX: Duration = Duration::from_secs(2);

/// Watches until the receiver is gone. `alive_every`: how often the stream must show a sign of life.
pub(super) async fn watch(
    store: Arc<dyn Store>,
    keys: Keys,
    alive_every: Duration,
    reports: mpsc::Sender<Event>,
    trouble: Arc<Trouble>,
) {
    let mut picture = None;
    let mut pause = REOPEN_PAUSE;
    while !reports.is_closed() {
        let before = picture.as_ref().map(Picture::revision);
        let ended = follow(store.as_ref(), &keys, alive_every, &reports, &mut picture).await;
        if let Err(e) = ended {
            if e.refusal() == Some(Refusal::Compacted) {
                picture = None;
            }
            trouble.report("watch", &e);
        }
        let moved = picture.as_ref().map(Picture::revision) != before;
        pause = if moved { REOPEN_PAUSE } else { (pause * 2).min(REOPEN_PAUSE_MAX) };
        tokio::time::sleep(pause).await;
    }
}

async fn follow(
    store: &dyn Store,
    keys: &Keys,
    alive_every: Duration,
    reports: &mpsc::Sender<Event>,
    known: &mut Option<Picture>,
) -> Result<(), StoreError> {
    let picture = match known {
        Some(picture) => picture,
        None => known.insert(read(store, keys).await?),
    };
    let mut batches = store.watch(keys.watched(), picture.revision(), alive_every).await?;
    loop {
        if reports.send(Event::Seen(picture.view(keys))).await.is_err() {
            return Ok(());
        }
        // Twice the promised interval without a sign of life: the member hangs, whatever the connection says.
        let batch = loop {
            match tokio::time::timeout(alive_every * 2, batches.next()).await {
                Ok(Some(Ok(batch))) if batch.changes.is_empty() => {}
                Ok(Some(batch)) => break batch?,
                Ok(None) => return Err(StoreError::Unknown("the watch ended".into())),
                Err(_) => return Err(StoreError::Unknown("the watch went silent".into())),
            }
        };
        picture.fold(batch);
    }
}

async fn read(store: &dyn Store, keys: &Keys) -> Result<Picture, StoreError> {
    Ok(verbs::picture(&ask(store, verbs::read(keys)).await?))
}
