//! What the driver sees that belongs into the history: how a leader left, for how long nobody led, and what we knew
//! when our own tenure ended. It only looks; nothing is decided by it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::Driver;
use super::history::{CLOSE_PATIENCE, Entry, Past};
use super::last_words::LastWords;
use super::status::Status;
use crate::clock::{Instant, millis, wall_clock_ms};
use crate::election::departure::Departure;
use crate::election::history::Ending;
use crate::election::history::row::{End, Left, Row, Seen};
use crate::election::record::Token;

/// How long leaving waits for the last words to be written: a disk that hangs must not keep the seat.
const WRITE_PATIENCE: Duration = Duration::from_millis(100);
/// How often the data dir is told that the tenure goes on.
const SIGN_EVERY: Duration = Duration::from_secs(60);

pub(super) struct Notes {
    /// The last tenure of an earlier start, until the history is told.
    past: Option<Row>,
    /// Where the history is shown, until the reading begins.
    shown: Option<watch::Sender<Arc<Past>>>,
    /// The last leader that we saw leave, and when.
    left: Option<(Left, Instant)>,
    /// Our own tenure.
    own: Option<Row>,
    /// What we knew when its main loop was told to stop.
    seen: Option<Seen>,
    /// When its main loop had ended.
    ended_ms: Option<u64>,
}

// === impl Notes ===

impl Notes {
    pub(super) fn new(past: Option<Row>, shown: watch::Sender<Arc<Past>>) -> Self {
        Self { past, shown: Some(shown), left: None, own: None, seen: None, ended_ms: None }
    }

    /// A leader is gone, and perhaps there is a next one: how it left, and for how long nobody led.
    fn note_change(&mut self, now: Instant, old: &Status, new: &Status) -> (Option<Departure>, Option<u64>) {
        let how = Departure::seen(&old.view, &new.view);
        if let Some((how, tenure)) = how.zip(old.leader()) {
            let (record, token, at_ms) = (tenure.record.clone(), tenure.token, wall_clock_ms());
            self.left = Some((Left { record, token, how, at_ms }, now));
        }
        let is_new = new.leader().map(|t| t.token) != old.leader().map(|t| t.token);
        (how, new.leader().filter(|_| is_new).and_then(|_| self.gap_ms(now)))
    }

    fn gap_ms(&self, now: Instant) -> Option<u64> {
        self.left.as_ref().map(|(_, at)| millis(now.since(*at)))
    }

    /// Our row, as it ended for this reason.
    fn closed_row(&self, ending: &Ending) -> Option<Row> {
        let mut row = self.own.clone()?;
        row.close(End {
            at_ms: self.ended_ms.unwrap_or_else(wall_clock_ms),
            reason: ending.reason,
            detail: ending.detail.clone(),
            seen: self.seen.clone(),
            by_holder: true,
        });
        Some(row)
    }
}

/// Tells the data dir that the tenure begins, and then that it goes on, until it has ended.
async fn leave_signs(words: LastWords, row: Row) {
    let begin = {
        let words = words.clone();
        move || words.begin(&row)
    };
    let _ = tokio::task::spawn_blocking(begin).await; // it would have said so
    loop {
        tokio::time::sleep(SIGN_EVERY).await;
        let words = words.clone();
        if !tokio::task::spawn_blocking(move || words.still_here()).await.unwrap_or(false) {
            return;
        }
    }
}

// === impl Driver: the history ===

impl Driver {
    /// Reads the history on the main loop's runtime: the driver's own must not wait for a thousand rows.
    pub(super) fn begin_reading(&mut self) -> tokio::task::AbortHandle {
        let history = self.parts.history.clone();
        let shown = self.notes.shown.take().unwrap_or_default();
        self.parts.main_runtime.spawn(history.follow(shown)).abort_handle()
    }

    pub(super) fn note_change(&mut self, old: &Status, new: &Status) -> (Option<Departure>, Option<u64>) {
        self.notes.note_change(self.parts.clock.now(), old, new)
    }

    /// We have joined: the history may hear what became of our last tenure.
    pub(super) fn tell_past(&mut self) {
        if let Some(row) = self.notes.past.take() {
            self.parts.main_runtime.spawn(self.parts.history.clone().write(Entry::Ended(row)));
        }
    }

    /// The record is ours.
    pub(super) fn begin_row(&mut self, token: Token) {
        let tenure = self.elector.view().seat.tenure().filter(|t| t.token == token);
        self.notes.own = Some(Row {
            token,
            holder: self.me(),
            address: self.parts.registration.rpc_address.clone(),
            from_ms: tenure.map_or_else(wall_clock_ms, |t| t.record.acquired_ms),
            gap_ms: None,
            previous: None,
            end: None,
        });
    }

    /// The main loop starts. It does not wait for the history.
    pub(super) fn open_row(&mut self) {
        let gap_ms = self.notes.gap_ms(self.parts.clock.now());
        let Some(row) = &mut self.notes.own else { return };
        (row.from_ms, row.gap_ms) = (wall_clock_ms(), gap_ms);
        let (row, left) = (row.clone(), self.notes.left.as_ref().map(|(left, _)| left.clone()));
        let history = self.parts.history.clone();
        let (words, begun) = (history.words().clone(), row.clone());
        tokio::spawn(leave_signs(words, begun)); // the main loop's runtime may hang from now on
        self.parts.main_runtime.spawn(history.write(Entry::Begun(row, left)));
    }

    /// Our main loop is told to stop: what do we know?
    pub(super) fn look_around(&mut self) {
        let now = self.parts.clock.now();
        let slowest = self.parts.store.slowest();
        self.notes.seen = Some(Seen {
            ack_age_ms: self.elector.lease().map(|l| millis(l.ack_age(now))),
            slowest_ms: slowest.as_ref().map(|(_, took)| millis(*took)),
            slowest: slowest.map(|(place, _)| place),
            tick_delay_ms: millis(self.vitals.punctuality().worst_delay(now)),
        });
    }

    /// Our main loop has ended; giving the record up and leaving may take longer.
    pub(super) fn note_end(&mut self) {
        self.notes.ended_ms = Some(wall_clock_ms());
    }

    /// Writes down how our tenure ended, for the next start. What it returns tells the history, in a bounded time,
    /// beside whatever else there is to do.
    pub(super) async fn close_row(&self, ending: &Ending) -> impl Future<Output = ()> + use<> {
        let row = self.notes.closed_row(ending);
        if let Some(row) = row.clone() {
            let words = self.parts.history.words().clone();
            let written = tokio::task::spawn_blocking(move || words.end(&row));
            let _ = tokio::time::timeout(WRITE_PATIENCE, written).await; // then the next start knows less
        }
        let (history, store) = (self.parts.history.clone(), self.parts.store.clone());
        async move {
            if let Some(row) = row {
                let _ = tokio::time::timeout(CLOSE_PATIENCE, history.close(store.as_ref(), &row)).await;
            }
        }
    }

    /// The same for a process that ends at once.
    pub(super) fn last_words(&self, ending: &Ending) -> impl FnOnce() + Send + 'static + use<> {
        let (row, words) = (self.notes.closed_row(ending), self.parts.history.words().clone());
        move || row.iter().for_each(|row| words.end(row))
    }
}
