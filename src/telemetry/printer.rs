//! The JSON lines of `--events`: written and flushed one by one, by a thread of their own.

use std::io::Write;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use tokio::sync::oneshot;

use super::event::Stamped;

/// How many lines may wait for a slow reader. Beyond it events are dropped: a reader must not stop an election.
const WAITING_MAX: usize = 1024;
/// How long the main loop's start and end wait for their line to be out.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The writing thread's end of the queue.
#[derive(Debug)]
pub struct Printer {
    queue: SyncSender<Item>,
}

enum Item {
    Event(Arc<Stamped>),
    Flushed(oneshot::Sender<()>),
}

impl Printer {
    /// Starts the thread that writes to `out`.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start(out: impl Write + Send + 'static) -> std::io::Result<Self> {
        let (queue, items) = sync_channel(WAITING_MAX);
        std::thread::Builder::new().name("events".into()).spawn(move || write_all(&items, out))?;
        Ok(Self { queue })
    }

    pub(super) fn print(&self, event: Arc<Stamped>) {
        if let Err(TrySendError::Full(_)) = self.queue.try_send(Item::Event(event)) {
            tracing::warn!("the events on stdout are not read; one was dropped");
        }
    }

    pub(super) async fn flushed(&self) {
        let (done, wait) = oneshot::channel();
        if self.queue.try_send(Item::Flushed(done)).is_ok() {
            let _ = tokio::time::timeout(FLUSH_TIMEOUT, wait).await;
        }
    }
}

fn write_all(items: &Receiver<Item>, mut out: impl Write) {
    while let Ok(item) = items.recv() {
        match item {
            Item::Event(event) => {
                // A reader that has gone away is no reason to stop.
                let _ = writeln!(out, "{}", event.to_json()).and_then(|()| out.flush());
            }
            Item::Flushed(done) => {
                let _ = done.send(());
            }
        }
    }
}
