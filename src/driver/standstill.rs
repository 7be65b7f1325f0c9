//! Did this process stand still? The driver knows when it should have woken, and the kernel for how long its thread
//! waited for a CPU.

use std::time::Duration;

use super::verdict::Standstill;
use crate::clock::Instant;

/// A timer that is late by less is late by chance: a tenth of the lease, within these bounds.
const LATE_MIN: Duration = Duration::from_millis(300);
const LATE_MAX: Duration = Duration::from_secs(1);
/// How long a standstill explains what comes after it.
const EXPLAINS: Duration = Duration::from_secs(30);
/// How often the kernel's count is read: it costs a few microseconds.
const COUNT_EVERY: Duration = Duration::from_millis(500);

/// Watches the driver's own punctuality.
pub(super) struct Punctuality {
    late_min: Duration,
    /// When the driver should be awake.
    due_at: Instant,
    /// The kernel's count of the time that this thread has waited, and when it was read.
    counted: (Duration, Instant),
    worst: Option<(Standstill, Instant)>,
}

// === impl Punctuality ===

impl Punctuality {
    /// Must be made, and used, on the driver's thread.
    pub(super) fn new(ttl: Duration, now: Instant) -> Self {
        let late_min = (ttl / 10).clamp(LATE_MIN, LATE_MAX);
        Self { late_min, due_at: now, counted: (waited(), now), worst: None }
    }

    /// The driver sleeps for so long at most.
    pub(super) fn sleeps(&mut self, now: Instant, at_most: Duration) {
        self.due_at = now + at_most;
        if now.since(self.counted.1) >= COUNT_EVERY {
            self.counted = (waited(), now);
        }
    }

    /// It is awake. Has it stood still?
    pub(super) fn woke(&mut self, now: Instant) -> bool {
        let lasted = now.since(self.due_at);
        if lasted < self.late_min || !now.reached(self.due_at) {
            return false;
        }
        let boot = now.boot_ns().saturating_sub(self.due_at.boot_ns());
        let raw = now.raw_ns().saturating_sub(self.due_at.raw_ns());
        let standstill = Standstill {
            lasted,
            waiting: waited().saturating_sub(self.counted.0),
            suspended: Duration::from_nanos(boot.saturating_sub(raw)),
        };
        if self.worst(now).is_none_or(|known| known.lasted < lasted) {
            self.worst = Some((standstill, now));
            return true;
        }
        false
    }

    /// The longest standstill lately.
    pub(super) fn worst(&self, now: Instant) -> Option<Standstill> {
        self.worst.filter(|(_, at)| now.since(*at) < EXPLAINS).map(|(standstill, _)| standstill)
    }
}

/// How long this thread has been ready to run without a CPU: the second field of schedstat.
fn waited() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split_whitespace().nth(1).and_then(|n| n.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_timer_that_is_late_is_a_standstill_and_only_for_a_while() {
        let at = Instant::from_millis;
        let mut p = Punctuality::new(Duration::from_secs(5), at(0));
        p.sleeps(at(1_000), Duration::from_millis(200));
        assert!(!p.woke(at(1_050)), "woken by an event");
        p.sleeps(at(1_050), Duration::from_millis(200));
        assert!(!p.woke(at(1_700)), "0.45 s late are less than a tenth of the lease");
        p.sleeps(at(1_700), Duration::from_millis(200));
        assert!(p.woke(at(4_900)));
        assert_eq!(p.worst(at(5_000)).unwrap().lasted, Duration::from_secs(3));
        p.sleeps(at(4_900), Duration::from_millis(200));
        assert!(!p.woke(at(6_000)), "a shorter one is not told again");
        assert_eq!(p.worst(at(40_000)), None);
    }

    #[test]
    fn a_suspend_shows_on_one_clock_only() {
        let mut p = Punctuality::new(Duration::from_secs(5), Instant::default());
        p.sleeps(Instant::default(), Duration::from_secs(1));
        assert!(p.woke(Instant::from_nanos(61_000_000_000, 1_000_000_000)));
        let seen = p.worst(Instant::from_nanos(61_000_000_000, 1_000_000_000)).unwrap();
        assert_eq!(seen.suspended, Duration::from_secs(60));
    }
}
