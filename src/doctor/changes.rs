//! Changes of the leader, counted: does the leadership flap?
//!
//! This is the rule that NATS calls META_003. Planned changes do not count, and the window moves on by itself, so a
//! warning clears without anybody's doing.

/// One change of the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Did somebody want it?
    pub planned: bool,
}

/// How many unplanned changes there were in the window that ends now.
pub fn unplanned(changes: &[Change], now_ms: u64, window_ms: u64) -> usize {
    let from = now_ms.saturating_sub(window_ms);
    changes.iter().filter(|c| !c.planned && c.at_ms > from && c.at_ms <= now_ms).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unplanned_changes_count_and_only_for_a_while() {
        let change = |at_ms, planned| Change { at_ms, planned };
        let changes = [change(1_000, false), change(2_000, true), change(3_000, false), change(9_000, false)];
        assert_eq!(unplanned(&changes, 5_000, 10_000), 2, "what lies ahead is a clock that was set back");
        assert_eq!(unplanned(&changes, 11_000, 10_000), 2);
        assert_eq!(unplanned(&changes, 13_001, 10_000), 1);
        assert_eq!(unplanned(&changes, 20_000, 10_000), 0, "it clears by itself");
    }
}
