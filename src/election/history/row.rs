//! One row of the history: a tenure from its token to its end, and what was known at that moment.
//!
//! Two may say how a tenure ended: the next leader, by what it saw, and the holder itself, often only at its next
//! start. The holder knows better, whoever comes first.

use super::Reason;
use crate::election::departure::Departure;
use crate::election::record::{LeaderRecord, MemberId, Token};

/// How many rows are kept.
pub const ROWS_MAX: usize = 1000;
/// How often a leader leaves a sign of life in its data dir, in milliseconds: all that it says of its end if it dies.
pub const SIGN_EVERY_MS: u64 = 60_000;
/// How many rows one opening closes at most, newest first. More than one is open only after leaders that never got
/// to write.
const CLOSED_AT_ONCE: usize = 8;
/// How many rows one opening deletes at most; with the others it must fit into one transaction.
const PRUNED_AT_ONCE: usize = 90;

/// A tenure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its token.
    pub token: Token,
    /// Who led.
    pub holder: MemberId,
    /// Where it answered gRPC.
    pub address: String,
    /// When its main loop started, by its own wall clock, in milliseconds since the Unix epoch.
    pub from_ms: u64,
    /// For how long nobody had led, as the holder saw it; `None`: it did not see the tenure before end.
    pub gap_ms: Option<u64>,
    /// The node that led before.
    pub previous: Option<String>,
    /// How it ended; `None`: as far as is known it has not.
    pub end: Option<End>,
}

/// The end of a tenure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// When, by the wall clock of whoever says so; at the latest then.
    pub at_ms: u64,
    /// Why.
    pub reason: Reason,
    /// What a person should know besides.
    pub detail: String,
    /// What the holder knew at that moment.
    pub seen: Option<Seen>,
    /// Does the holder itself say so?
    pub by_holder: bool,
}

/// What a leader knew when its main loop was told to stop.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Seen {
    /// How old the last renewal was that its lease rested on.
    pub ack_age_ms: Option<u64>,
    /// The place of the store that answered the slowest, or has not answered for the longest.
    pub slowest: Option<String>,
    /// How long that took, or has been taking.
    pub slowest_ms: Option<u64>,
    /// How late the driver was at worst in the last half minute: a starved CPU, or a process that stood still.
    pub tick_delay_ms: u64,
}

/// How long nobody led before a tenure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// In milliseconds, by the wall clocks of those who led.
    pub ms: u64,
    /// It may have been longer: the one before left without a word, and its main loop may have ended before its record.
    pub at_least: bool,
}

/// The tenure before, as the one that follows saw it end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// Its record.
    pub record: LeaderRecord,
    /// Its token.
    pub token: Token,
    /// How it left.
    pub how: Departure,
    /// When that was seen.
    pub at_ms: u64,
}

/// What the opening of a row changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowOpening {
    /// The row that is opened.
    pub row: Row,
    /// The rows that it closes.
    pub closed: Vec<Row>,
    /// The rows that are too many.
    pub pruned: Vec<Token>,
}

// === impl Row ===

impl Row {
    /// The row of a tenure that the record shows.
    pub fn of(record: &LeaderRecord, token: Token) -> Self {
        Self {
            token,
            holder: record.holder.clone(),
            address: record.address.clone(),
            from_ms: record.acquired_ms,
            gap_ms: None,
            previous: None,
            end: None,
        }
    }

    /// Takes in what somebody says about its end. True: that has changed the row.
    pub fn close(&mut self, end: End) -> bool {
        let is_news = match &self.end {
            None => true,
            // A holder that does not know either has nothing to correct.
            Some(known) => !known.by_holder && end.by_holder && end.reason != Reason::Vanished,
        };
        if is_news {
            self.end = Some(end);
        }
        is_news
    }

    /// This row with the end of another view of the same tenure.
    pub fn ended_as(mut self, other: &Row) -> Self {
        if let Some(end) = other.end.clone() {
            self.close(end);
        }
        self
    }

    /// How long it lasted, or has lasted by `now_ms`.
    pub fn held_ms(&self, now_ms: u64) -> u64 {
        self.end.as_ref().map_or(now_ms, |e| e.at_ms).saturating_sub(self.from_ms)
    }
}

// === impl Gap ===

impl Gap {
    /// Before `row`, after the tenure `before` it. The new leader sees a gap begin when the record goes; a leader whose
    /// lease ran out had stopped before that, and says so later, sometimes much later: a store that was away shows
    /// nothing of it.
    pub fn before(row: &Row, before: Option<&Row>) -> Option<Self> {
        let end = before.and_then(|b| b.end.as_ref());
        let is_sign = end.is_some_and(|end| end.by_holder && end.reason == Reason::Vanished);
        let may_have_lived = if is_sign { SIGN_EVERY_MS } else { 0 };
        let between = end.map(|end| row.from_ms.saturating_sub(end.at_ms + may_have_lived));
        let ms = match end {
            Some(end) if end.reason.is_planned() && row.gap_ms.is_some() => row.gap_ms,
            _ => between.max(row.gap_ms),
        }?;
        let is_known = end.is_some_and(|end| (end.by_holder && !is_sign) || end.reason.is_planned());
        Some(Self { ms, at_least: !is_known })
    }
}

// === impl RowOpening ===

impl RowOpening {
    /// What opening `row` means for those that are there, oldest first. Only rows of older tokens are touched.
    pub fn plan(mut row: Row, left: Option<&Left>, known: &[Row], keep: usize) -> Self {
        let mut older: Vec<Row> = known.iter().filter(|r| r.token < row.token).cloned().collect();
        if let Some(left) = left.filter(|l| l.token < row.token)
            && older.iter().all(|r| r.token != left.token)
        {
            older.push(Row::of(&left.record, left.token)); // it had no time to write
            older.sort_by_key(|r| r.token);
        }
        let last = older.last();
        row.previous = last.map(|r| r.holder.node.clone());
        if last.map(|r| r.token) != left.map(|l| l.token) {
            row.gap_ms = None; // somebody has led since the end that we saw
        }
        let mut ends_before = row.from_ms;
        let mut closed = Vec::new();
        for old in older.iter().rev() {
            let mut old = old.clone();
            let from_ms = old.from_ms;
            if closed.len() < CLOSED_AT_ONCE && old.close(end_of(&old, left, ends_before)) {
                closed.push(old);
            }
            ends_before = from_ms;
        }
        let excess = (older.len() + 1).saturating_sub(keep).min(PRUNED_AT_ONCE);
        let pruned: Vec<Token> = older.iter().take(excess).map(|r| r.token).collect();
        closed.retain(|r| !pruned.contains(&r.token));
        Self { row, closed, pruned }
    }
}

/// The end of a row that its holder has left open.
fn end_of(row: &Row, left: Option<&Left>, ends_before: u64) -> End {
    let seen = left.filter(|l| l.token == row.token);
    let reason = seen.map_or(Reason::Vanished, |l| l.how.into());
    let at_ms = seen.map_or(ends_before, |l| l.at_ms).max(row.from_ms);
    End { at_ms, reason, detail: String::new(), seen: None, by_holder: false }
}

impl From<Departure> for Reason {
    fn from(how: Departure) -> Self {
        match how {
            Departure::HandedOver => Reason::HandedOver,
            Departure::GivenUp => Reason::RecordDeleted,
            Departure::Vanished | Departure::Reclaimed => Reason::Vanished,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::election::record::{Incarnation, MemberUuid, Nonce, Revision};

    fn token(n: u64) -> Token {
        Token::new(Revision(n)).unwrap()
    }

    fn row(n: u64, end: Option<End>) -> Row {
        let holder =
            MemberId { node: format!("n{n}"), uuid: MemberUuid(n.into()), incarnation: Incarnation(1) };
        Row {
            token: token(n),
            holder,
            address: String::new(),
            from_ms: n * 100,
            gap_ms: None,
            previous: None,
            end,
        }
    }

    fn end(reason: Reason, by_holder: bool) -> End {
        End { at_ms: 1, reason, detail: String::new(), seen: None, by_holder }
    }

    fn left(n: u64, how: Departure) -> Left {
        let record = LeaderRecord {
            holder: row(n, None).holder,
            address: "h:1".into(),
            nonce: Nonce(1),
            ttl: std::time::Duration::from_secs(5),
            acquired_ms: n * 100,
            transitions: 0,
            probe_handed_ms: 0,
        };
        Left { record, token: token(n), how, at_ms: n * 100 + 50 }
    }

    #[test]
    fn the_holder_knows_better_whoever_comes_first() {
        let (theirs, ours) = (end(Reason::HandedOver, false), end(Reason::ResignedSignal, true));
        for order in [[&theirs, &ours], [&ours, &theirs]] {
            let mut row = row(1, None);
            assert!(row.close(order[0].clone()));
            row.close(order[1].clone());
            assert_eq!(row.end, Some(ours.clone()));
        }
        let mut seen = row(1, Some(theirs.clone()));
        assert!(!seen.close(end(Reason::Vanished, true)), "a holder that was killed knows less");
        assert!(seen.close(end(Reason::Fuse, true)), "twin: one that learnt of it knows more");
    }

    #[test]
    fn an_opening_closes_what_is_open_and_says_who_led_before() {
        let known = [row(1, None), row(2, Some(end(Reason::Fenced, true))), row(3, None)];
        let opening = RowOpening::plan(row(9, None), Some(&left(3, Departure::HandedOver)), &known, ROWS_MAX);
        let closed: Vec<_> = opening.closed.iter().map(|r| (r.token.get(), r.end.clone().unwrap())).collect();
        assert_eq!(closed[0].0, 3);
        assert_eq!((closed[0].1.reason, closed[0].1.at_ms), (Reason::HandedOver, 350));
        assert_eq!((closed[1].0, closed[1].1.reason), (1, Reason::Vanished));
        assert_eq!(closed[1].1.at_ms, 200, "at the latest when the next one began");
        assert_eq!((closed.len(), opening.row.previous.as_deref()), (2, Some("n3")));
        assert_eq!(opening.pruned, []);
    }

    #[test]
    fn a_tenure_that_had_no_time_to_write_gets_its_row_from_the_record() {
        let opening =
            RowOpening::plan(row(9, None), Some(&left(5, Departure::Vanished)), &[row(3, None)], ROWS_MAX);
        let tokens: Vec<_> = opening.closed.iter().map(|r| r.token.get()).collect();
        assert_eq!((tokens, opening.row.previous.as_deref()), (vec![5, 3], Some("n5")));
        assert_eq!(opening.closed[0].address, "h:1");
    }

    #[test]
    fn the_oldest_rows_go_and_newer_ones_are_never_touched() {
        let known: Vec<Row> = (1..=10).map(|n| row(n, Some(end(Reason::Vanished, true)))).collect();
        let opening = RowOpening::plan(row(9, None), None, &known, 5);
        assert_eq!(opening.pruned, [1, 2, 3, 4].map(token));
        let known: Vec<Row> = (1..=1200).map(|n| row(n, None)).collect();
        let opening = RowOpening::plan(row(2000, None), None, &known, ROWS_MAX);
        assert_eq!((opening.pruned.len(), opening.closed.len()), (PRUNED_AT_ONCE, CLOSED_AT_ONCE));
    }

    #[test]
    fn a_gap_begins_when_the_main_loop_ended_if_somebody_says_so() {
        let end =
            |at_ms, reason, by_holder| End { at_ms, reason, detail: String::new(), seen: None, by_holder };
        let led = |gap_ms| Row { from_ms: 170_000, gap_ms, ..row(2, None) };
        let lost = row(1, Some(end(4_000, Reason::RenewDeadline, true)));
        let gap = |row: &Row, before: Option<&Row>| Gap::before(row, before).map(|g| (g.ms, g.at_least));
        assert_eq!(
            gap(&led(Some(34)), Some(&lost)),
            Some((166_000, false)),
            "the record went with a frozen etcd"
        );
        let vanished = row(1, Some(end(169_966, Reason::Vanished, false)));
        assert_eq!(gap(&led(Some(34)), Some(&vanished)), Some((34, true)));
        assert_eq!(gap(&led(None), Some(&vanished)), Some((34, true)), "a node that came back alone");
        let handed_over = row(1, Some(end(100, Reason::HandedOver, false)));
        assert_eq!(gap(&led(Some(3)), Some(&handed_over)), Some((3, false)), "wall clocks differ");
        assert_eq!(gap(&led(Some(3)), None), Some((3, true)));
        let sign = row(1, Some(end(100_000, Reason::Vanished, true)));
        assert_eq!(
            gap(&led(None), Some(&sign)),
            Some((10_000, true)),
            "it may have led for a minute after its last sign"
        );
        assert_eq!(gap(&led(None), None), None);
    }
}
