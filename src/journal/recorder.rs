//! Observes the driver for the journal: how a leader left, for how long nobody led, and what was known when our own
//! tenure ended.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::Past;
use super::reader::Reader;
use super::tenure_file::TenureFile;
use super::writer::{CLOSE_TIMEOUT, HistoryEntry, Writer};
use crate::clock::{Clock, Instant, millis, wall_clock_ms};
use crate::driver::observer::{Moment, Observer};
use crate::election::departure::Departure;
use crate::election::history::row::{End, Left, Row, SIGN_EVERY_MS, Seen};
use crate::election::history::{Ending, Reason};
use crate::election::lease::Lease;
use crate::election::record::{Freeze, LeaderRecord, Member, Token};
use crate::election::status::Status;
use crate::store::Store;
use crate::store::codec::Keys;
use crate::store::places::Health;
use crate::telemetry::{Event, Telemetry};

/// How long leaving waits for the tenure file: a disk that hangs must not keep the leader record.
const WRITE_TIMEOUT: Duration = Duration::from_millis(100);
/// How often the data dir is told that the tenure goes on.
const SIGN_EVERY: Duration = Duration::from_millis(SIGN_EVERY_MS);

/// What a recorder is made of.
pub struct RecorderParts {
    /// Where the keys are.
    pub keys: Keys,
    /// The store, for the election: what is left of a tenure is written there when we leave.
    pub store: Arc<dyn Store>,
    /// The store again, on the main loop's connections: all else.
    pub main_store: Arc<dyn Store>,
    /// How the store fares.
    pub health: Arc<dyn Health>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Where to tell.
    pub telemetry: Telemetry,
    /// The tenure file of this data dir.
    pub file: TenureFile,
    /// The last tenure of an earlier start, if the history may not know yet how it ended.
    pub past: Option<Row>,
    /// Our own address, for the row.
    pub address: String,
    /// Where rows are read and written: the driver's runtime must not wait for a thousand of them.
    pub main_runtime: Handle,
    /// How late the driver was at worst lately.
    pub worst_delay: Box<dyn Fn(Instant) -> Duration + Send>,
}

/// Has a row written for each of our tenures, tells who leads, and keeps [`Past`] up to date.
pub struct Recorder {
    parts: RecorderParts,
    writer: Writer,
    reading: tokio::task::AbortHandle,
    notes: Notes,
}

#[derive(Default)]
struct Notes {
    /// The name of the last leader, kept through a vacancy.
    last_leader: Option<String>,
    /// The last leader that we saw leave, and when.
    left: Option<(Left, Instant)>,
    /// Our own tenure.
    own: Option<Row>,
    /// What we knew when its main loop was told to stop.
    seen: Option<Seen>,
    /// H: no main loop of ours runs beyond it.
    holds_until: Option<Instant>,
    /// When its main loop had ended.
    ended_ms: Option<u64>,
}

// === impl Notes ===

impl Notes {
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

    /// An end that is seen now, by the wall clock: at H, if that has passed. A machine that was suspended, or a driver that was
    /// not given a CPU, sees it later.
    fn end_ms(&self, now: Instant, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.holds_until.map_or(0, |h| millis(now.since(h))))
    }

    /// Our row, as it ended for this reason.
    fn closed_row(&self, now: Instant, ending: &Ending) -> Option<Row> {
        let mut row = self.own.clone()?;
        row.close(End {
            at_ms: self.ended_ms.unwrap_or_else(|| self.end_ms(now, wall_clock_ms())).max(row.from_ms),
            reason: ending.reason,
            detail: ending.detail.clone(),
            seen: self.seen.clone(),
            by_holder: true,
        });
        Some(row)
    }
}

/// Tells the data dir that the tenure begins, and then that it goes on, until it has ended.
async fn leave_signs(file: TenureFile, row: Row) {
    let begin = {
        let file = file.clone();
        move || file.begin(&row)
    };
    let _ = tokio::task::spawn_blocking(begin).await; // it would have said so
    loop {
        tokio::time::sleep(SIGN_EVERY).await;
        let file = file.clone();
        if !tokio::task::spawn_blocking(move || file.still_here()).await.unwrap_or(false) {
            return;
        }
    }
}

// === impl Recorder ===

impl Recorder {
    /// Begins to read. The second value is what was read last.
    pub fn start(parts: RecorderParts) -> (Self, watch::Receiver<Arc<Past>>) {
        let (shown, past) = watch::channel(Arc::default());
        let (store, clock) = (parts.main_store.clone(), parts.clock.clone());
        let reader = Reader::new(&parts.keys, store.clone(), clock, parts.telemetry.clone(), shown);
        let reading = parts.main_runtime.spawn(async move { reader.follow().await }).abort_handle();
        let writer = Writer::new(parts.keys.clone(), store, parts.file.clone());
        (Self { parts, writer, reading, notes: Notes::default() }, past)
    }

    fn write(&self, entry: HistoryEntry) {
        self.parts.main_runtime.spawn(self.writer.clone().write(entry));
    }

    fn tell_leader(&self, now: Instant, new: &Status, left: Option<Departure>, gap_ms: Option<u64>) {
        let telemetry = &self.parts.telemetry;
        telemetry.metrics().leader_changed(now, left, new.leader().is_some());
        telemetry.emit(Event::LeaderChanged {
            leader: new.leader_record().map(name),
            token: token(new),
            previous: self.notes.last_leader.clone(),
            // Who deletes its record says why soon after; until then it might as well have been somebody else.
            reason: left.filter(|how| *how != Departure::GivenUp).map(Reason::from),
            gap_ms,
            gap_at_least: gap_ms.is_some()
                && self.notes.left.as_ref().is_some_and(|(left, _)| left.how.is_silent()),
        });
    }

    fn tell_freeze(&self, old: &Status, new: &Status) {
        if old.freeze() == new.freeze() {
            return;
        }
        self.parts.telemetry.emit(match new.freeze().cloned() {
            Some(Freeze { reason, by, until_ms, .. }) => Event::Frozen { reason, by, until_ms },
            None => Event::Unfrozen,
        });
    }

    fn tell_members(&self, old: &Status, new: &Status) {
        let is_in = |view: &[Member], m: &Member| {
            view.iter().any(|o| o.registration.member.node == m.registration.member.node)
        };
        for m in new.view.members.iter().filter(|m| !is_in(&old.view.members, m)) {
            let (member, address) = (m.registration.member.node.clone(), m.registration.rpc_address.clone());
            self.parts.telemetry.emit(Event::MemberJoined { member, address });
        }
        for m in old.view.members.iter().filter(|m| !is_in(&new.view.members, m)) {
            let member = m.registration.member.node.clone();
            self.parts.telemetry.emit(Event::MemberLeft { member });
        }
    }
}

fn name(record: &LeaderRecord) -> String {
    record.holder.node.clone()
}

fn token(status: &Status) -> Option<Token> {
    status.leader().map(|t| t.token)
}

/// Only the reading ends; nothing is released.
impl Drop for Recorder {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

impl Observer for Recorder {
    fn changed(&mut self, now: Instant, old: &Status, new: &Status) {
        let (left, gap_ms) = self.notes.note_change(now, old, new);
        if token(old) != token(new) {
            self.tell_leader(now, new, left, gap_ms);
        }
        self.tell_freeze(old, new);
        self.tell_members(old, new);
        if let Some(record) = new.leader_record() {
            self.notes.last_leader = Some(name(record));
        }
    }

    /// The history may hear what became of our last tenure.
    fn joined(&mut self) {
        if let Some(row) = self.parts.past.take() {
            self.write(HistoryEntry::Ended(row));
        }
    }

    fn won(&mut self, moment: Moment<'_>, token: Token) {
        let tenure = moment.elector.view().leader.tenure().filter(|t| t.token == token);
        self.notes.own = Some(Row {
            token,
            holder: moment.elector.me().clone(),
            address: self.parts.address.clone(),
            from_ms: tenure.map_or_else(wall_clock_ms, |t| t.record.acquired_ms),
            gap_ms: None,
            previous: None,
            end: None,
        });
    }

    /// The main loop does not wait for the history.
    fn main_loop_started(&mut self, moment: Moment<'_>) {
        let gap_ms = self.notes.gap_ms(moment.now);
        if let Some(row) = &mut self.notes.own {
            (row.from_ms, row.gap_ms) = (wall_clock_ms(), gap_ms);
            let (row, left) = (row.clone(), self.notes.left.as_ref().map(|(left, _)| left.clone()));
            // Here, because the main loop's runtime may hang from now on.
            tokio::spawn(leave_signs(self.parts.file.clone(), row.clone()));
            self.write(HistoryEntry::Begun(row, left));
        }
    }

    fn main_loop_stopping(&mut self, moment: Moment<'_>) {
        let slowest = self.parts.health.slowest();
        self.notes.seen = Some(Seen {
            ack_age_ms: moment.elector.lease().map(|l| millis(l.ack_age(moment.now))),
            slowest_ms: slowest.as_ref().map(|(_, took)| millis(*took)),
            slowest: slowest.map(|(place, _)| place),
            tick_delay_ms: millis((self.parts.worst_delay)(moment.now)),
        });
    }

    fn handled(&mut self, moment: Moment<'_>, _: Option<&Lease>) {
        if let Some(lease) = moment.elector.lease() {
            self.notes.holds_until = Some(lease.holds_until());
        }
    }

    fn main_loop_ended(&mut self) {
        self.notes.ended_ms = Some(self.notes.end_ms(self.parts.clock.now(), wall_clock_ms()));
    }

    fn process_ends(&self, ending: &Ending) -> Option<Box<dyn FnOnce() + Send>> {
        let now = self.parts.clock.now();
        let (row, file) = (self.notes.closed_row(now, ending)?, self.parts.file.clone());
        Some(Box::new(move || file.end(&row)))
    }

    /// Writes down how our tenure ended, for the next start.
    fn ends(&mut self, ending: &Ending) -> BoxFuture<'static, ()> {
        let now = self.parts.clock.now();
        let seen_ms = self.notes.end_ms(now, wall_clock_ms());
        self.notes.ended_ms.get_or_insert(seen_ms); // the same for the file and the store
        let (row, file) = (self.notes.closed_row(now, ending), self.parts.file.clone());
        Box::pin(async move {
            let Some(row) = row else { return };
            let written = tokio::task::spawn_blocking(move || file.end(&row));
            let _ = tokio::time::timeout(WRITE_TIMEOUT, written).await; // then the next start knows less
        })
    }

    /// Tells the history.
    fn leaves(&mut self, ending: &Ending) -> BoxFuture<'static, ()> {
        let row = self.notes.closed_row(self.parts.clock.now(), ending);
        let (writer, store) = (self.writer.clone(), self.parts.store.clone());
        Box::pin(async move {
            if let Some(row) = row {
                let _ = tokio::time::timeout(CLOSE_TIMEOUT, writer.close(store.as_ref(), &row)).await;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_is_seen_after_h_was_at_h() {
        let at = Instant::from_millis;
        let mut notes = Notes::default();
        assert_eq!(notes.end_ms(at(9_000), 50_000), 50_000, "no lease yet");
        notes.holds_until = Some(at(10_000));
        assert_eq!(notes.end_ms(at(9_000), 50_000), 50_000);
        assert_eq!(notes.end_ms(at(610_000), 651_000), 51_000, "the machine was suspended");
    }
}
