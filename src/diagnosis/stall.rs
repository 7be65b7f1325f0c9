//! Did this process stand still? The driver knows when it should have gone on, and the kernel for how long its thread
//! waited for a CPU.

use std::time::Duration;

use super::verdict::Stall;
use crate::clock::Instant;

/// A timer that is late by less is late by chance: a tenth of the lease, within these bounds.
const LATE_MIN: Duration = Duration::from_millis(300);
const LATE_MAX: Duration = Duration::from_secs(1);
/// How long a stall explains what comes after it.
const EXPLAINS: Duration = Duration::from_secs(30);
/// How often the kernel's count is read: it costs a few microseconds.
const COUNT_EVERY: Duration = Duration::from_millis(500);

/// Watches the driver's own punctuality.
pub(super) struct Punctuality {
    late_min: Duration,
    /// When the driver should go on: its timer's end while it sleeps, at once while it works.
    due_at: Instant,
    /// The kernel's count of the time that this thread has waited, and when it was read.
    counted: Option<(Duration, Instant)>,
    worst: Option<(Stall, Instant)>,
}

// === impl Punctuality ===

impl Punctuality {
    pub(super) fn new(ttl: Duration, now: Instant) -> Self {
        let late_min = (ttl / 10).clamp(LATE_MIN, LATE_MAX);
        Self { late_min, due_at: now, counted: None, worst: None }
    }

    /// The driver's work is done, and it sleeps for so long at most. To be called on its thread.
    pub(super) fn sleeps(&mut self, now: Instant, at_most: Duration) {
        self.compare(now); // it may have stood still in the middle of its work
        self.due_at = now + at_most;
        if self.counted.is_none_or(|(_, at)| now.since(at) >= COUNT_EVERY) {
            self.counted = Some((waited(), now));
        }
    }

    /// It is awake. How late is it?
    pub(super) fn woke(&mut self, now: Instant) -> Duration {
        let late = self.compare(now);
        self.due_at = now;
        late
    }

    /// How late it was at worst lately.
    pub(super) fn worst_delay(&self, now: Instant) -> Duration {
        self.worst(now).map_or(Duration::ZERO, |s| s.lasted)
    }

    /// The longest stall lately: a delay that is not just chance.
    pub(super) fn stall(&self, now: Instant) -> Option<Stall> {
        self.worst(now).filter(|s| s.lasted >= self.late_min)
    }

    fn worst(&self, now: Instant) -> Option<Stall> {
        self.worst.filter(|(_, at)| now.since(*at) < EXPLAINS).map(|(stall, _)| stall)
    }

    fn compare(&mut self, now: Instant) -> Duration {
        let late = now.since(self.due_at);
        if self.worst_delay(now) < late {
            self.worst = Some((self.stall_of(now, late), now));
        }
        late
    }

    fn stall_of(&self, now: Instant, lasted: Duration) -> Stall {
        let boot = now.boot_ns().saturating_sub(self.due_at.boot_ns());
        let raw = now.raw_ns().saturating_sub(self.due_at.raw_ns());
        let before = self.counted.filter(|_| lasted >= self.late_min);
        Stall {
            lasted,
            waiting: before.map_or(Duration::ZERO, |(count, _)| waited().saturating_sub(count)),
            suspended: Duration::from_nanos(boot.saturating_sub(raw)),
        }
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
    fn only_what_is_late_by_much_is_a_stall_and_only_for_a_while() {
        let at = Instant::from_millis;
        let mut p = Punctuality::new(Duration::from_secs(5), at(0));
        p.sleeps(at(0), Duration::from_secs(2));
        assert_eq!(p.woke(at(1_050)), Duration::ZERO, "woken by an event");
        p.sleeps(at(1_060), Duration::from_millis(200));
        assert_eq!(p.woke(at(1_700)), Duration::from_millis(440));
        assert_eq!(p.worst_delay(at(1_700)), Duration::from_millis(440));
        assert_eq!(p.stall(at(1_700)), None, "less than a tenth of the lease");
        p.sleeps(at(1_700), Duration::from_millis(200));
        p.woke(at(4_900));
        assert_eq!(p.stall(at(5_000)).unwrap().lasted, Duration::from_secs(3));
        p.sleeps(at(4_900), Duration::from_millis(200));
        p.woke(at(6_000));
        assert_eq!(p.worst_delay(at(6_000)), Duration::from_secs(3), "a shorter one does not hide it");
        assert_eq!((p.stall(at(40_000)), p.worst_delay(at(40_000))), (None, Duration::ZERO));
    }

    #[test]
    fn who_is_stopped_at_work_stands_still_too() {
        let at = Instant::from_millis;
        let mut p = Punctuality::new(Duration::from_secs(5), at(0));
        p.sleeps(at(0), Duration::from_secs(1));
        p.woke(at(900));
        p.sleeps(at(3_900), Duration::from_secs(1));
        assert_eq!(p.stall(at(3_900)).unwrap().lasted, Duration::from_secs(3));
    }

    #[test]
    fn a_suspend_shows_on_one_clock_only() {
        let mut p = Punctuality::new(Duration::from_secs(5), Instant::default());
        p.sleeps(Instant::default(), Duration::from_secs(1));
        let now = Instant::from_nanos(61_000_000_000, 1_000_000_000);
        assert_eq!(p.woke(now), Duration::from_secs(60));
        assert_eq!(p.stall(now).unwrap().suspended, Duration::from_secs(60));
    }
}
