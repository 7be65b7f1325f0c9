//! Changes of the leader, counted: does the leadership flap?
//!
//! This is the rule that NATS calls META_003. Planned changes do not count, and the window moves on by itself, so a
//! warning clears without anybody's doing.

use std::sync::Arc;

use crate::election::history::Reason;
use crate::election::history::row::{End, Row};

/// A leader that resigns says so itself, but perhaps after its successor has called it gone: so long an unplanned
/// end waits for the holder's own word before it counts.
const SETTLES_MS: u64 = 3_000;

/// One change of the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Why.
    pub reason: Reason,
}

/// The changes that the history tells of: all that have ended, and are settled.
pub fn of_rows(rows: &[Arc<Row>], now_ms: u64) -> Vec<Change> {
    let ends = rows.iter().filter_map(|row| row.end.as_ref());
    let all = ends.map(|end| (end, Change { at_ms: end.at_ms, reason: end.reason }));
    let is_settled =
        |end: &End, c: &Change| end.by_holder || c.reason.is_planned() || end.at_ms + SETTLES_MS <= now_ms;
    all.filter(|(end, c)| is_settled(end, c)).map(|(_, c)| c).collect()
}

/// The unplanned changes in the window that ends now.
pub fn unplanned(changes: &[Change], now_ms: u64, window_ms: u64) -> impl Iterator<Item = &Change> {
    let from = now_ms.saturating_sub(window_ms);
    changes.iter().filter(move |c| !c.reason.is_planned() && c.at_ms > from && c.at_ms <= now_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::election::history::Reason;
    use crate::election::record::{Incarnation, MemberId, MemberUuid, Revision, Token};

    fn row(reason: Reason, by_holder: bool) -> Arc<Row> {
        let holder = MemberId { node: "n".into(), uuid: MemberUuid(1), incarnation: Incarnation(1) };
        Arc::new(Row {
            token: Token::new(Revision(1)).unwrap(),
            holder,
            address: String::new(),
            from_ms: 0,
            gap_ms: None,
            previous: None,
            end: Some(End { at_ms: 1_000, reason, detail: String::new(), seen: None, by_holder }),
        })
    }

    #[test]
    fn an_end_that_only_the_successor_has_told_counts_once_the_holder_has_had_its_say() {
        let counted = |reason, by_holder, now_ms| {
            unplanned(&of_rows(&[row(reason, by_holder)], now_ms), now_ms, 600_000).count()
        };
        assert_eq!(counted(Reason::Vanished, false, 3_999), 0);
        assert_eq!(counted(Reason::Vanished, false, 4_000), 1);
        assert_eq!(counted(Reason::RenewDeadline, true, 1_000), 1, "that is its say");
        assert_eq!(counted(Reason::ResignedSignal, true, 60_000), 0);
        assert_eq!(counted(Reason::HandedOver, false, 60_000), 0);
        let open = Arc::new(Row { end: None, ..Row::clone(&row(Reason::Fuse, true)) });
        assert_eq!(of_rows(&[open], 60_000), [], "whoever leads has not left");
    }

    #[test]
    fn only_unplanned_changes_count_and_only_for_a_while() {
        let change = |at_ms, planned| {
            let reason = if planned { Reason::HandedOver } else { Reason::Vanished };
            Change { at_ms, reason }
        };
        let changes = [change(1_000, false), change(2_000, true), change(3_000, false), change(9_000, false)];
        assert_eq!(
            unplanned(&changes, 5_000, 10_000).count(),
            2,
            "what lies ahead is a clock that was set back"
        );
        assert_eq!(unplanned(&changes, 11_000, 10_000).count(), 2);
        assert_eq!(unplanned(&changes, 13_001, 10_000).count(), 1);
        assert_eq!(unplanned(&changes, 20_000, 10_000).count(), 0, "it clears by itself");
    }
}
