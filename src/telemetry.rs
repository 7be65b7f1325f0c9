//! What happens, said once: every transition is one typed event, and log line, metric and stream all come from it.
//!
//! Emitting never blocks: the election must not wait for a log. Lines go through a bounded queue to a thread
//! that writes; what does not fit is dropped and counted. The JSON lines of `--events` have a writer of their
//! own, and the main loop's start and end wait (for a bounded time) until theirs is out.
//!
//! This module must not decide anything.

pub mod event;
pub mod headroom;
#[cfg(feature = "node")]
mod lines;
#[cfg(feature = "node")]
pub mod log;
pub mod metrics;
pub mod printer;
pub mod terminal;
mod trouble;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future;
use futures_util::stream::{self, Stream, StreamExt};
use tokio::sync::broadcast::{self, error::RecvError};

use crate::clock::{Clock, millis, wall_clock_ms};
pub use event::{Event, Stamped};
use headroom::{Headroom, Series};
use metrics::Metrics;
use printer::Printer;
use trouble::Trouble;

/// How many events a slow reader may fall behind before it misses some.
const STREAM_MAX: usize = 256;
/// How many events are kept for those who come later.
const RECENT_MAX: usize = 100;

/// The one emit path. Clones share it.
#[derive(Clone)]
pub struct Telemetry {
    inner: Arc<TelemetryInner>,
}

struct TelemetryInner {
    node: String,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    headroom: Mutex<Headroom>,
    stream: broadcast::Sender<Arc<Stamped>>,
    recent: Mutex<VecDeque<Arc<Stamped>>>,
    trouble: Mutex<Trouble>,
    printer: Option<Printer>,
}

impl Telemetry {
    /// The emit path of this node; `printer` gets every event as a JSON line.
    pub fn new(node: &str, clock: Arc<dyn Clock>, printer: Option<Printer>) -> Self {
        let stream = broadcast::Sender::new(STREAM_MAX);
        let (metrics, headroom) = (Metrics::new(node), Mutex::default());
        Self {
            inner: Arc::new(TelemetryInner {
                node: node.to_owned(),
                clock,
                metrics,
                headroom,
                stream,
                recent: Mutex::default(),
                trouble: Mutex::default(),
                printer,
            }),
        }
    }

    /// Says that something happened. Never blocks.
    pub fn emit(&self, event: Event) {
        event.log();
        self.inner.metrics.count(&event);
        let stamped = Arc::new(Stamped {
            node: self.inner.node.clone(),
            boot_ns: self.inner.clock.now().boot_ns(),
            wall_ms: wall_clock_ms(),
            event,
        });
        if let Some(printer) = &self.inner.printer {
            printer.print(stamped.clone());
        }
        // The driver must not wait for a reader that is kept from running; the ring can do without one event.
        // Strangers must not push out what has happened.
        if !matches!(stamped.event, Event::CallRefused { .. })
            && let Ok(mut recent) = self.inner.recent.try_lock()
        {
            recent.truncate(RECENT_MAX - 1);
            recent.push_front(stamped.clone());
        }
        let _ = self.inner.stream.send(stamped); // nobody listens: fine
    }

    /// The store did not do what the driver asked for. Said when such a time begins, and now and then while it lasts.
    pub fn store_failed(&self, what: &'static str, error: &impl ToString) {
        let mut trouble = self.inner.trouble.lock().unwrap_or_else(|e| e.into_inner());
        if trouble.is_to_be_said(self.inner.clock.now()) {
            self.emit(Event::StoreTrouble { what, error: error.to_string() });
        }
    }

    /// The store has answered the driver: such a time is over.
    pub fn store_answered(&self) {
        let mut trouble = self.inner.trouble.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(lasted) = trouble.over(self.inner.clock.now()) {
            self.emit(Event::StoreRecovered { after_ms: millis(lasted) });
        }
    }

    /// Waits until all events emitted so far are printed, for a bounded time.
    pub async fn flushed(&self) {
        if let Some(printer) = &self.inner.printer {
            printer.flushed().await;
        }
    }

    /// All events from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Stamped>> {
        self.inner.stream.subscribe()
    }

    /// The last events, the oldest first, and then all as they happen; see [`Telemetry::events`].
    pub fn events_with_recent(&self) -> impl Stream<Item = Result<Arc<Stamped>, u64>> + Send + use<> {
        let next = self.events();
        let recent = self.inner.recent.lock().unwrap_or_else(|e| e.into_inner());
        let recent: Vec<_> = recent.iter().rev().cloned().collect();
        let known = recent.clone();
        // What happens between the two is in both.
        let is_new = move |event: &Arc<Stamped>| !known.iter().any(|k| Arc::ptr_eq(k, event));
        let next = next.filter(move |event| future::ready(event.as_ref().ok().is_none_or(&is_new)));
        stream::iter(recent.into_iter().map(Ok)).chain(next)
    }

    /// All events from now on; `Err`: so many were missed, because the reader was too slow. Ends with
    /// [`Event::Stopped`], so that a reader keeps nobody from stopping.
    pub fn events(&self) -> impl Stream<Item = Result<Arc<Stamped>, u64>> + Send + use<> {
        stream::unfold(Some(self.subscribe()), |receiver| async {
            let mut receiver = receiver?;
            match receiver.recv().await {
                Ok(stamped) => {
                    let is_last = matches!(stamped.event, Event::Stopped { .. });
                    Some((Ok(stamped), Some(receiver).filter(|_| !is_last)))
                }
                Err(RecvError::Lagged(missed)) => Some((Err(missed), Some(receiver))),
                Err(RecvError::Closed) => None,
            }
        })
    }

    /// A renewal was confirmed, so long after the last one, when this part of the lease was left.
    pub fn renewed(&self, since_last: Option<Duration>, headroom: f64) {
        self.inner.metrics.renewal_confirmed(since_last, headroom);
        // The driver must not wait for a reader that is kept from running; the series can do without one value.
        if let Ok(mut ring) = self.inner.headroom.try_lock() {
            ring.record(wall_clock_ms() / 1000, headroom);
        }
    }

    /// How much of the lease was left at the renewals of the last `since`.
    pub fn headroom(&self, since: Duration) -> Series {
        let ring = self.inner.headroom.lock().unwrap_or_else(|e| e.into_inner());
        ring.series(wall_clock_ms() / 1000, since.as_secs())
    }

    /// The metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SimClock;
    use crate::election::history::Reason;

    #[tokio::test]
    async fn a_stream_of_events_tells_what_it_has_missed_and_ends_with_the_node() {
        let telemetry = Telemetry::new("n", Arc::new(SimClock::default()), None);
        let events = telemetry.events();
        for _ in 0..STREAM_MAX + 3 {
            telemetry.emit(Event::ClaimLost);
        }
        let reason = Reason::ResignedSignal;
        telemetry.emit(Event::Stopped { reason, detail: String::new(), code: 0 });
        let told: Vec<_> = events.map(|event| event.map(|e| e.event.kind())).collect().await;
        assert_eq!((told.len(), told[0]), (STREAM_MAX + 1, Err(4)));
        assert_eq!(told.last(), Some(&Ok("stopped")), "and here it has ended");
    }

    #[tokio::test]
    async fn who_comes_later_is_told_the_last_events_once_each() {
        let telemetry = Telemetry::new("n", Arc::new(SimClock::default()), None);
        (0..RECENT_MAX + 5).for_each(|_| telemetry.emit(Event::ClaimLost));
        let events = telemetry.events_with_recent();
        telemetry.emit(Event::Stopped { reason: Reason::ResignedSignal, detail: String::new(), code: 0 });
        let told: Vec<_> = events.map(|event| event.map(|e| e.event.kind())).collect().await;
        assert_eq!((told.len(), told.last()), (RECENT_MAX + 1, Some(&Ok("stopped"))));
    }
}
