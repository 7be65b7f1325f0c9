//! The driver's health in numbers: how punctual it is, and how much of the lease is left when a renewal is confirmed.

use std::time::Duration;

use crate::clock::Instant;
use crate::election::lease::Lease;
use crate::telemetry::Telemetry;

/// The last time of everything.
pub(super) struct Timings {
    telemetry: Telemetry,
    ticked_at: Instant,
    confirmed_at: Option<Instant>,
}

// === impl Timings ===

impl Timings {
    pub(super) fn new(telemetry: Telemetry, now: Instant) -> Self {
        Self { telemetry, ticked_at: now, confirmed_at: None }
    }

    /// The driver has woken up; if by its timer, so late.
    pub(super) fn ticked(&mut self, now: Instant, late: Option<Duration>) {
        self.telemetry.metrics().driver_ticked(now.since(self.ticked_at), late);
        self.ticked_at = now;
    }

    /// The lease before an event and after it: has the event confirmed a renewal?
    pub(super) fn compare(&mut self, now: Instant, before: Option<&Lease>, after: Option<&Lease>) {
        let Some((before, after)) = before.zip(after) else {
            self.confirmed_at = None;
            return;
        };
        if before.id() != after.id() {
            self.confirmed_at = None;
        } else if before.holds_until() != after.holds_until() {
            let left = now.until(before.holds_until()).as_secs_f64();
            let since_last = self.confirmed_at.map(|at| now.since(at));
            self.telemetry.renewed(since_last, left / after.timing().ttl().as_secs_f64());
            self.confirmed_at = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::SimClock;
    use crate::election::lease::LeaseId;

    #[test]
    fn a_renewal_is_counted_when_it_moves_the_deadline_with_what_was_left_before() {
        let telemetry = Telemetry::new("n", Arc::new(SimClock::default()), None);
        let ttl = Duration::from_secs(10);
        let mut timings = Timings::new(telemetry.clone(), Instant::default());
        let at = Instant::from_millis;
        let first = Lease::granted(LeaseId(1), ttl, at(0));
        let mut renewed = first;
        assert!(renewed.extend(at(2_500), at(2_400), ttl));
        timings.compare(at(1_000), Some(&first), Some(&first));
        timings.compare(at(2_500), Some(&first), Some(&renewed));
        timings.compare(at(3_000), Some(&renewed), Some(&Lease::granted(LeaseId(2), ttl, at(3_000))));
        timings.compare(at(4_000), None, Some(&first));
        let series = telemetry.headroom(Duration::from_secs(60));
        let ratios: Vec<f32> = series.points.iter().map(|p| p.median).collect();
        assert_eq!(ratios, [(9_930 - 2_500) as f32 / 10_000.0]);
    }
}
