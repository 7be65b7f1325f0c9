//! Sees the stalls that a leader's lease has to survive, by what the driver does. Pure: the time is an argument.

use std::time::Duration;

use super::{RecordedHour, RecordedStall, STALL_MIN, StallLine, StallOf};
use crate::clock::{Instant, millis};
use crate::election::lease::Lease;

/// How often a part of an hour is written: a kill loses no more.
const PART_EVERY: Duration = Duration::from_secs(60);

/// What is seen of one process.
#[derive(Debug)]
pub struct StallWatch {
    /// When the driver went to sleep, and when it should have gone on.
    slept_at: Instant,
    due_at: Instant,
    /// `None` while it does not lead.
    leading: Option<Leading>,
    /// Leadership was lost: what the rest of the process sees of the lease says nothing.
    is_over: bool,
    /// What is to be written.
    lines: Vec<StallLine>,
}

/// While it leads.
#[derive(Debug)]
struct Leading {
    lease: Lease,
    /// The last sign of life of the store, or the end of a stall of ours.
    heard_at: Instant,
    /// The first renewal since then.
    asked_at: Option<Instant>,
    /// A stall of ours that may yet turn out to have cost the leadership.
    stood_still: Option<RecordedStall>,
    /// What is not written yet.
    part: RecordedHour,
    part_since: Instant,
    counted_at: Instant,
}

// === impl StallWatch ===

impl StallWatch {
    /// One that has seen nothing.
    pub fn new(now: Instant) -> Self {
        Self { slept_at: now, due_at: now, leading: None, is_over: false, lines: Vec::new() }
    }

    /// What is to be written by now.
    pub fn drain(&mut self) -> impl Iterator<Item = StallLine> {
        self.lines.drain(..)
    }

    /// The driver's work is done. It may have stood still in the middle of it.
    pub fn sleeps(&mut self, now: Instant, now_ms: u64, at_most: Duration) {
        self.compare(now, now_ms);
        self.settle();
        (self.slept_at, self.due_at) = (now, now + at_most);
    }

    /// The driver goes on.
    pub fn woke(&mut self, now: Instant, now_ms: u64) {
        self.compare(now, now_ms);
        (self.slept_at, self.due_at) = (now, now);
    }

    fn compare(&mut self, now: Instant, now_ms: u64) {
        let late = now.since(self.due_at);
        let Some(leading) = self.leading.as_mut().filter(|_| late >= STALL_MIN) else { return };
        let most = now.since(self.slept_at);
        leading.stood_still = Some(leading.stall(StallOf::Process, now_ms, late, Some(most)));
        // What the store did meanwhile nobody has seen.
        (leading.heard_at, leading.asked_at) = (now, None);
    }

    fn settle(&mut self) {
        let stood_still = self.leading.as_mut().and_then(|l| l.stood_still.take());
        self.lines.extend(stood_still.map(StallLine::Stall));
    }

    /// A renewal leaves.
    pub fn asked(&mut self, now: Instant) {
        if let Some(leading) = &mut self.leading {
            leading.asked_at.get_or_insert(now);
        }
    }

    /// The elector has taken in an event; this is its lease while a main loop runs on it.
    pub fn handled(&mut self, now: Instant, now_ms: u64, lease: Option<Lease>) {
        let lease = lease.filter(|_| !self.is_over);
        match (&mut self.leading, lease) {
            (Some(leading), Some(lease)) if leading.lease.id() == lease.id() => {
                let stall = leading.handled(now, now_ms, lease);
                self.lines.extend(stall.map(StallLine::Stall));
                if now.since(leading.part_since) >= PART_EVERY {
                    leading.part_since = now;
                    self.lines.push(leading.end_part(now_ms));
                }
            }
            (None, None) => {}
            (_, lease) => {
                self.ends(now_ms);
                self.leading = lease.map(|lease| Leading::begin(lease, now, now_ms));
                // From the beginning on the file says under which lease.
                self.lines.extend(self.leading.as_mut().map(|leading| leading.end_part(now_ms)));
            }
        }
    }

    /// The time of the lease is over: leadership is lost.
    pub fn lost(&mut self, now: Instant, now_ms: u64) {
        if let Some(leading) = &mut self.leading {
            let of_store = || {
                let least = leading.asked_at.map_or(Duration::ZERO, |at| now.since(at));
                leading.stall(StallOf::Store, now_ms, least, None)
            };
            let stall = leading.stood_still.clone().unwrap_or_else(of_store);
            leading.stood_still = None;
            self.lines.push(StallLine::Stall(RecordedStall { lost: true, ..stall }));
        }
        self.is_over = true;
        self.ends(now_ms);
    }

    /// Nothing more is to come of this tenure.
    pub fn ends(&mut self, now_ms: u64) {
        self.settle();
        let part = self.leading.take().map(|mut leading| leading.end_part(now_ms));
        self.lines.extend(part);
    }
}

// === impl Leading ===

impl Leading {
    fn begin(lease: Lease, now: Instant, now_ms: u64) -> Self {
        Self {
            lease,
            heard_at: now,
            asked_at: None,
            stood_still: None,
            part: RecordedHour::at(now_ms),
            part_since: now,
            counted_at: now,
        }
    }

    fn handled(&mut self, now: Instant, now_ms: u64, lease: Lease) -> Option<RecordedStall> {
        self.part.led_ms += millis(now.since(self.counted_at));
        self.counted_at = self.counted_at + Duration::from_millis(millis(now.since(self.counted_at)));
        let before = std::mem::replace(&mut self.lease, lease);
        if before.holds_until() == lease.holds_until() {
            return None;
        }
        let (timing, answer) = (lease.timing(), lease.ack_age(now));
        let left = now.until(before.holds_until()).as_secs_f64() / timing.ttl().as_secs_f64();
        self.part.renewals += 1;
        self.part.answers_us += u64::try_from(answer.min(STALL_MIN).as_micros()).unwrap_or(0);
        self.part.lowest_permille = self.part.lowest_permille.min((left * 1000.0) as u64);
        let (heard_at, asked_at) = (self.heard_at, self.asked_at.take());
        self.heard_at = now;
        let asked_at = asked_at.filter(|at| now.since(*at) >= STALL_MIN)?;
        // An attempt that was answered late waited for the end of the stall. One that was answered at once left after it;
        // the one before that did not.
        let seen_until = if answer >= STALL_MIN { now } else { now - answer - timing.retry_cadence() };
        let least = seen_until.since(asked_at);
        Some(self.stall(StallOf::Store, now_ms, least, Some(now.since(heard_at))))
    }

    fn stall(&self, of: StallOf, ended_ms: u64, least: Duration, most: Option<Duration>) -> RecordedStall {
        RecordedStall {
            of,
            ended_ms,
            least_ms: millis(least),
            most_ms: most.map(|d| d.as_nanos().div_ceil(1_000_000) as u64),
            ttl_ms: millis(self.lease.timing().ttl()),
            lost: false,
        }
    }

    fn end_part(&mut self, now_ms: u64) -> StallLine {
        self.part.ttl_ms = millis(self.lease.timing().ttl());
        StallLine::Hour(std::mem::replace(&mut self.part, RecordedHour::at(now_ms)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::election::lease::LeaseId;

    const TTL: Duration = Duration::from_secs(15);

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    /// A leader that wakes at `ms`, where its lease was renewed by a request that left at `stamp_ms`, and sleeps again.
    fn wakes(watch: &mut StallWatch, ms: u64, stamp_ms: u64) {
        watch.woke(at(ms), ms);
        watch.handled(at(ms), ms, Some(Lease::granted(LeaseId(1), TTL, at(stamp_ms))));
        watch.sleeps(at(ms), ms, Duration::from_millis(700));
    }

    fn stalls(watch: &mut StallWatch) -> Vec<(StallOf, u64, Option<u64>)> {
        let stall = |line| match line {
            StallLine::Stall(s) => Some((s.of, s.least_ms, s.most_ms)),
            _ => None,
        };
        watch.drain().filter_map(stall).collect()
    }

    #[test]
    fn a_stall_of_the_process_is_none_of_the_store_and_hides_none_behind_it() {
        let mut watch = StallWatch::new(at(0));
        wakes(&mut watch, 0, 0);
        watch.asked(at(100)); // under way when the process stops
        watch.sleeps(at(100), 100, Duration::from_millis(100));
        wakes(&mut watch, 3_200, 100);
        assert_eq!(stalls(&mut watch), [(StallOf::Process, 3_000, Some(3_100))], "and no other");
        watch.asked(at(3_300));
        (4..=8).for_each(|s| wakes(&mut watch, s * 1_000 - 400, 100));
        wakes(&mut watch, 8_000, 7_900);
        let [(StallOf::Store, least, Some(most))] = stalls(&mut watch)[..] else {
            panic!("one of the store")
        };
        assert!(least <= 7_900 - 3_300 && most == 8_000 - 3_200, "{least} to {most}");
    }

    #[test]
    fn what_ends_a_tenure_is_recorded_once_and_nothing_after_it() {
        for (wakes_at, expected) in [(14_700, StallOf::Store), (60_000, StallOf::Process)] {
            let mut watch = StallWatch::new(at(0));
            wakes(&mut watch, 0, 0);
            watch.asked(at(700));
            if expected == StallOf::Store {
                (1..=20).for_each(|i| wakes(&mut watch, i * 700, 0));
            }
            watch.woke(at(wakes_at), wakes_at);
            watch.lost(at(wakes_at), wakes_at);
            wakes(&mut watch, wakes_at + 10, 0);
            let lost: Vec<_> = watch
                .drain()
                .filter_map(|line| match line {
                    StallLine::Stall(s) => Some((s.of, s.lost)),
                    _ => None,
                })
                .collect();
            assert_eq!(lost, [(expected, true)]);
        }
    }
}
