//! What the lease of a leader had to survive: the stalls of the store and of this process, and how soon renewals were
//! confirmed. One file in the data dir, for 30 days; `metad advise lease` replays it.
//!
//! Bounded: one line for each hour, and the [`STALLS_PER_HOUR`] worst stalls of it. Nothing is decided by it, and nothing
//! waits for it: a thread of its own writes ([`file::StallLog`]). A stall is known as well as it was seen: its beginning and its
//! end lie between two signs of life, so it has a shortest and a longest length.

pub mod file;
pub mod recorder;
pub mod watch;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::millis;
use crate::election::lease::LeaseTiming;

/// A shorter silence is no stall: two of them in a row cost no lease that metad accepts.
pub const STALL_MIN: Duration = Duration::from_millis(500);
/// For how long it is kept.
pub const KEPT_DAYS: u64 = 30;
/// How many stalls of one hour are kept: the worst.
pub const STALLS_PER_HOUR: usize = 16;
const HOUR_MS: u64 = 3_600_000;
const KEPT_MS: u64 = KEPT_DAYS * 24 * HOUR_MS;
/// A wall clock that was wrong may have dated something in the future: this far ahead of now it is thrown away.
const AHEAD_MS: u64 = 24 * HOUR_MS;

/// What did not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StallOf {
    /// The store, or the way to it: renewals were not answered.
    Store,
    /// This process, or its machine: it did not run.
    Process,
}

/// A stall, as a leader has seen it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedStall {
    /// Of what.
    pub of: StallOf,
    /// When it was over, by the wall clock, or when it was last seen, in milliseconds since the Unix epoch.
    pub ended_ms: u64,
    /// It certainly lasted so long.
    pub least_ms: u64,
    /// It certainly lasted no longer; `None`: nobody has seen its end.
    pub most_ms: Option<u64>,
    /// The granted lease at that time.
    pub ttl_ms: u64,
    /// Did it cost the leadership?
    pub lost: bool,
}

/// An hour, or a part of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RecordedHour {
    /// Hours since the Unix epoch.
    pub hour: u64,
    /// The granted lease, that of the last tenure in it.
    pub ttl_ms: u64,
    /// How long this node led in it.
    pub led_ms: u64,
    /// How many renewals were confirmed.
    pub renewals: u64,
    /// How long they took together, from the send to the validating read; a stalled one counts as [`STALL_MIN`].
    pub answers_us: u64,
    /// The least part of the lease that was left when one was confirmed, in thousandths.
    pub lowest_permille: u64,
    /// The stalls that are not kept, because the hour had worse ones.
    pub stalls_left_out: u64,
}

/// A line of the file. An unknown one is left out: a newer version may have written it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StallLine {
    /// The first line: what this file is, and in which version.
    Stalls(u32),
    /// More of an hour.
    Hour(RecordedHour),
    /// A stall.
    Stall(RecordedStall),
    /// The node has joined again: what was lost and not seen to end was over by now.
    Back(u64),
}

/// All that is recorded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StallRecord {
    hours: BTreeMap<u64, RecordedHour>,
    /// In the order in which they ended.
    stalls: Vec<RecordedStall>,
}

// === impl RecordedStall ===

impl RecordedStall {
    fn hour(&self) -> u64 {
        self.ended_ms / HOUR_MS
    }

    /// What is kept rather: what cost leadership, then what lasted longest.
    fn weight(&self) -> (bool, u64) {
        (self.lost, self.most_ms.unwrap_or(self.least_ms))
    }
}

// === impl RecordedHour ===

impl RecordedHour {
    /// An hour in which nothing has happened yet.
    pub fn at(now_ms: u64) -> Self {
        Self { hour: now_ms / HOUR_MS, lowest_permille: 1000, ..Self::default() }
    }

    fn add(&mut self, more: &Self) {
        self.ttl_ms = if more.ttl_ms > 0 { more.ttl_ms } else { self.ttl_ms };
        self.led_ms = self.led_ms.saturating_add(more.led_ms).min(HOUR_MS);
        self.renewals = self.renewals.saturating_add(more.renewals);
        self.answers_us = self.answers_us.saturating_add(more.answers_us);
        self.lowest_permille = self.lowest_permille.min(more.lowest_permille);
        self.stalls_left_out = self.stalls_left_out.saturating_add(more.stalls_left_out);
    }
}

// === impl StallRecord ===

impl StallRecord {
    /// The hours, oldest first.
    pub fn hours(&self) -> impl Iterator<Item = &RecordedHour> {
        self.hours.values()
    }

    /// The stalls, in the order in which they ended.
    pub fn stalls(&self) -> &[RecordedStall] {
        &self.stalls
    }

    /// Takes in a line.
    pub fn take(&mut self, line: StallLine) {
        match line {
            StallLine::Stalls(_) => {}
            StallLine::Hour(more) => match self.hours.get_mut(&more.hour) {
                Some(hour) => hour.add(&more),
                None => drop(self.hours.insert(more.hour, more)),
            },
            StallLine::Stall(stall) => self.take_stall(stall),
            StallLine::Back(at_ms) => {
                if let Some(last) = self.stalls.last_mut().filter(|s| s.lost && s.most_ms.is_none()) {
                    // It began within one cadence before the first renewal that was not answered.
                    let timing = LeaseTiming::new(Duration::from_millis(last.ttl_ms));
                    let seen_ms = last.least_ms + millis(timing.leader_cadence() + timing.retry_cadence());
                    last.most_ms = Some(seen_ms.saturating_add(at_ms.saturating_sub(last.ended_ms)));
                }
            }
        }
    }

    fn take_stall(&mut self, stall: RecordedStall) {
        let hour = stall.hour();
        let at = self.stalls.partition_point(|s| s.ended_ms <= stall.ended_ms);
        self.stalls.insert(at, stall);
        let of_hour = || self.stalls.iter().enumerate().filter(|(_, s)| s.hour() == hour);
        if of_hour().count() > STALLS_PER_HOUR
            && let Some((least, _)) = of_hour().min_by_key(|(_, s)| s.weight())
        {
            self.stalls.remove(least);
            let counted = RecordedHour { stalls_left_out: 1, ..RecordedHour::at(hour * HOUR_MS) };
            self.take(StallLine::Hour(counted));
        }
    }

    /// Did a process that could not say so any more lose its leadership at that time? Then it is recorded, unless it is known.
    pub fn take_killed(&mut self, killed: RecordedStall) {
        let near = |s: &RecordedStall| s.lost && s.ended_ms.abs_diff(killed.ended_ms) <= killed.ttl_ms;
        if !self.stalls.iter().any(near) {
            self.take_stall(killed);
        }
    }

    /// Forgets what is older than [`KEPT_DAYS`].
    pub fn forget_old(&mut self, now_ms: u64) {
        let kept = now_ms.saturating_sub(KEPT_MS)..=now_ms.saturating_add(AHEAD_MS);
        self.hours.retain(|hour, _| kept.contains(&(hour.saturating_mul(HOUR_MS))));
        self.stalls.retain(|s| kept.contains(&s.ended_ms));
    }

    /// How long this node led in all.
    pub fn led(&self) -> Duration {
        Duration::from_millis(self.hours().map(|h| h.led_ms).sum())
    }

    /// The lease of the last tenure.
    pub fn last_ttl(&self) -> Option<Duration> {
        self.hours.values().rev().map(|h| h.ttl_ms).find(|ms| *ms > 0).map(Duration::from_millis)
    }

    /// When the first hour began, in milliseconds since the Unix epoch.
    pub fn began_ms(&self) -> Option<u64> {
        self.hours.keys().next().map(|hour| hour * HOUR_MS)
    }

    /// How long a renewal and its validating read take together.
    pub fn mean_answer(&self) -> Duration {
        let sum = |of: fn(&RecordedHour) -> u64| self.hours().map(of).sum::<u64>();
        Duration::from_micros(sum(|h| h.answers_us).checked_div(sum(|h| h.renewals)).unwrap_or(0))
    }

    /// The lines that say it all.
    fn lines(&self) -> impl Iterator<Item = StallLine> {
        let hours = self.hours.values().cloned().map(StallLine::Hour);
        let stalls = self.stalls.iter().cloned().map(StallLine::Stall);
        std::iter::once(StallLine::Stalls(file::VERSION)).chain(hours).chain(stalls)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = 24 * HOUR_MS;

    fn stall(ended_ms: u64, least_ms: u64) -> RecordedStall {
        let most_ms = Some(least_ms);
        RecordedStall { of: StallOf::Store, ended_ms, least_ms, most_ms, ttl_ms: 15_000, lost: false }
    }

    #[test]
    fn of_each_hour_the_worst_are_kept_and_the_rest_is_counted() {
        let mut record = StallRecord::default();
        (0..100).for_each(|i| record.take(StallLine::Stall(stall(HOUR_MS + i, 1_000 + i))));
        record.take(StallLine::Stall(RecordedStall { lost: true, ..stall(HOUR_MS + 500, 600) }));
        record.take(StallLine::Stall(stall(3 * HOUR_MS, 501)));
        let kept: Vec<u64> = record.stalls().iter().map(|s| s.least_ms).collect();
        let expected: Vec<u64> = (1_085..1_100).chain([600, 501]).collect();
        assert_eq!(kept, expected, "the longest, what cost leadership, and another hour's");
        assert_eq!(record.hours().map(|h| h.stalls_left_out).sum::<u64>(), 85);
    }

    #[test]
    fn a_month_fits_and_what_is_older_or_from_the_future_goes() {
        let (mut record, now) = (StallRecord::default(), 400 * DAY_MS);
        for hour in 0..400 * 24 + 100 {
            record.take(StallLine::Hour(RecordedHour { led_ms: 5, ..RecordedHour::at(hour * HOUR_MS) }));
        }
        for at in [1, now - KEPT_MS - 1, now - KEPT_MS, now, now + 3 * DAY_MS] {
            record.take(StallLine::Stall(stall(at, 900)));
        }
        record.forget_old(now);
        let hours = record.hours().count();
        assert!((720..=745).contains(&hours), "{hours}");
        let kept: Vec<u64> = record.stalls().iter().map(|s| s.ended_ms).collect();
        assert_eq!(kept, [now - KEPT_MS, now]);
    }

    #[test]
    fn a_stall_that_ended_a_tenure_was_over_when_the_node_was_back() {
        let mut record = StallRecord::default();
        let lost = RecordedStall { most_ms: None, lost: true, ..stall(50_000, 14_000) };
        record.take(StallLine::Back(10));
        record.take(StallLine::Stall(lost.clone()));
        record.take(StallLine::Back(57_000));
        record.take(StallLine::Back(99_000));
        assert_eq!(record.stalls()[0].most_ms, Some(14_000 + 7_000 + 750 + 150));
        let killed = RecordedStall { of: StallOf::Process, ended_ms: 52_000, ..lost };
        record.take_killed(killed.clone());
        assert_eq!(record.stalls().len(), 1, "known");
        record.take_killed(RecordedStall { ended_ms: 90_000, ..killed });
        assert_eq!(record.stalls().len(), 2);
    }
}
