//! The one place that reads a clock.
//!
//! A lease is a promise about time, so every instant in metad is a *pair* of readings:
//! `CLOCK_BOOTTIME`, which counts suspend (`std::time::Instant` does not: rust-lang/rust#87906), and
//! `CLOCK_MONOTONIC_RAW`, which NTP cannot slow down (chrony may slew the other clocks by 8.3 %).
//! A deadline has passed as soon as it has passed on *either* of them, so neither a suspend nor a slewed
//! clock can make us believe in a lease for too long.
//!
//! Not covered: a pause of the whole virtual machine that its clocks do not show (`kvm-clock`); there only
//! the fencing token protects. See `src/docs/limits.md`.
//!
//! This module must not know anything about elections. Wall time is for display only, never for a decision.

use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A moment on this machine, as read on both clocks. Only differences on one machine have a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Instant {
    boot_ns: u64,
    raw_ns: u64,
}

/// A source of time. Everything outside this module gets `now` as an argument or through this trait.
pub trait Clock: Send + Sync + 'static {
    /// Reads both clocks.
    fn now(&self) -> Instant;
}

/// The clocks of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsClock;

/// A clock for tests: stands still until it is advanced, may run at a wrong rate.
///
/// Clones share the same time. `rate_ppm` is the error of this clock against the time it is advanced by:
/// +1000 runs 0.1 % fast.
#[derive(Clone, Debug, Default)]
pub struct SimClock {
    inner: Arc<Mutex<SimReading>>,
}

#[derive(Debug, Default)]
struct SimReading {
    boot_ns: u64,
    raw_ns: u64,
    boot_rate_ppm: i64,
    raw_rate_ppm: i64,
}

/// A span of time as people write it, such as `90s`, `1h 30m` or `7d`; a day has 24 hours.
///
/// # Errors
/// It is none; the text says what to write.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let span = text.parse::<jiff::Span>().ok();
    let signed = span.and_then(|s| s.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok());
    let read = signed.and_then(|d| Duration::try_from(d).ok()).filter(|d| !d.is_zero());
    read.ok_or_else(|| format!("{text:?} is not a duration; write one such as 30m, 24h or 7d"))
}

// === impl Instant ===

impl Instant {
    /// An instant from two readings in nanoseconds; for tests, and for deadlines kept in shared memory.
    pub const fn from_nanos(boot_ns: u64, raw_ns: u64) -> Self {
        Self { boot_ns, raw_ns }
    }

    /// An instant at the same number of milliseconds on both clocks; for tests and transcripts.
    pub const fn from_millis(ms: u64) -> Self {
        Self { boot_ns: ms * 1_000_000, raw_ns: ms * 1_000_000 }
    }

    /// Nanoseconds on `CLOCK_BOOTTIME`: comparable between processes of one machine, for display and logs.
    pub const fn boot_ns(self) -> u64 {
        self.boot_ns
    }

    /// Nanoseconds on `CLOCK_MONOTONIC_RAW`.
    pub const fn raw_ns(self) -> u64 {
        self.raw_ns
    }

    /// Has `deadline` passed at this moment, on either clock?
    pub fn reached(self, deadline: Instant) -> bool {
        self.boot_ns >= deadline.boot_ns || self.raw_ns >= deadline.raw_ns
    }

    /// How long until `deadline`: the smaller of both clocks' answers, zero once it has passed.
    pub fn until(self, deadline: Instant) -> Duration {
        let boot = deadline.boot_ns.saturating_sub(self.boot_ns);
        let raw = deadline.raw_ns.saturating_sub(self.raw_ns);
        Duration::from_nanos(boot.min(raw))
    }

    /// How long since `earlier`: the larger of both clocks' answers.
    pub fn since(self, earlier: Instant) -> Duration {
        let boot = self.boot_ns.saturating_sub(earlier.boot_ns);
        let raw = self.raw_ns.saturating_sub(earlier.raw_ns);
        Duration::from_nanos(boot.max(raw))
    }

    /// The deadline that is later on each clock. Deadlines of a lease only ever move this way.
    pub fn later(self, other: Instant) -> Instant {
        Instant { boot_ns: self.boot_ns.max(other.boot_ns), raw_ns: self.raw_ns.max(other.raw_ns) }
    }

    /// The deadline that is reached as soon as one of the two is.
    pub fn earlier(self, other: Instant) -> Instant {
        Instant { boot_ns: self.boot_ns.min(other.boot_ns), raw_ns: self.raw_ns.min(other.raw_ns) }
    }
}

impl std::ops::Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, rhs: Duration) -> Instant {
        let ns = u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX);
        Instant { boot_ns: self.boot_ns.saturating_add(ns), raw_ns: self.raw_ns.saturating_add(ns) }
    }
}

impl std::ops::Sub<Duration> for Instant {
    type Output = Instant;

    fn sub(self, rhs: Duration) -> Instant {
        let ns = u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX);
        Instant { boot_ns: self.boot_ns.saturating_sub(ns), raw_ns: self.raw_ns.saturating_sub(ns) }
    }
}

// === impl OsClock ===

impl Clock for OsClock {
    fn now(&self) -> Instant {
        Instant {
            boot_ns: read_ns(rustix::time::ClockId::Boottime),
            raw_ns: read_ns(rustix::time::ClockId::MonotonicRaw),
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "this is the place")]
fn read_ns(id: rustix::time::ClockId) -> u64 {
    let t = rustix::time::clock_gettime(id);
    // Both clocks count from boot, so neither field is ever negative.
    (t.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(t.tv_nsec as u64)
}

/// Milliseconds since the Unix epoch on the wall clock. For display, and for epochs to resemble time: never for a
/// decision.
#[allow(clippy::disallowed_methods, reason = "this is the place")]
pub fn wall_clock_ms() -> u64 {
    unix_ms(std::time::SystemTime::now())
}

/// The same of a moment that the system has noted; 0 if it is before the epoch.
pub fn unix_ms(at: std::time::SystemTime) -> u64 {
    at.duration_since(std::time::UNIX_EPOCH).map_or(0, millis)
}

/// Milliseconds of the wall clock as RFC 3339 in UTC. A clock beyond the year 9999 counts as its end: what is
/// written with it must stay readable.
pub fn rfc3339(ms: u64) -> String {
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    format!("{:.3}", jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX))
}

/// Whole milliseconds, for the wire and for people.
pub fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

// === impl SimClock ===

impl SimClock {
    /// A clock whose two readings run `boot_rate_ppm` and `raw_rate_ppm` millionths too fast (or too slow).
    pub fn with_rates(boot_rate_ppm: i64, raw_rate_ppm: i64) -> Self {
        Self { inner: Arc::new(Mutex::new(SimReading { boot_rate_ppm, raw_rate_ppm, ..Default::default() })) }
    }

    /// Lets real time pass; the readings move at this clock's own rates.
    pub fn advance(&self, real: Duration) {
        let ns = i128::try_from(real.as_nanos()).unwrap_or(i128::MAX);
        let mut r = self.inner.lock().unwrap_or_else(|e| e.into_inner());
        let step = |ppm: i64| u64::try_from(ns + ns * i128::from(ppm) / 1_000_000).unwrap_or(0);
        let (boot, raw) = (step(r.boot_rate_ppm), step(r.raw_rate_ppm));
        r.boot_ns += boot;
        r.raw_ns += raw;
    }
}

impl Clock for SimClock {
    fn now(&self) -> Instant {
        let r = self.inner.lock().unwrap_or_else(|e| e.into_inner());
        Instant { boot_ns: r.boot_ns, raw_ns: r.raw_ns }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_time_are_read_as_people_write_them() {
        for (text, secs) in [
            ("1h", 3600),
            ("90s", 90),
            ("24h", 86_400),
            ("1h 30m", 5400),
            ("30d", 2_592_000),
            ("1w", 604_800),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(secs)), "{text}");
        }
        for bad in ["", "h", "24", "0h", "-1h", "an hour", "1h;", "99999999999999999w", "1ä"] {
            assert!(parse_duration(bad).is_err_and(|e| e.contains("24h")), "{bad}");
        }
    }

    #[test]
    fn a_deadline_has_passed_when_it_has_passed_on_either_clock() {
        let deadline = Instant::from_nanos(100, 100);
        assert!(!Instant::from_nanos(99, 99).reached(deadline));
        assert!(Instant::from_nanos(100, 0).reached(deadline), "suspend shows on BOOTTIME only");
        assert!(Instant::from_nanos(0, 100).reached(deadline), "slewing shows on MONOTONIC_RAW only");
        assert_eq!(Instant::from_nanos(90, 20).until(deadline), Duration::from_nanos(10));
        assert_eq!(Instant::from_nanos(90, 20).since(Instant::default()), Duration::from_nanos(90));
    }

    #[test]
    fn the_earlier_of_two_deadlines_is_reached_exactly_when_one_of_them_is() {
        let (a, b) = (Instant::from_nanos(10, 50), Instant::from_nanos(30, 20));
        for now in [(9, 19), (10, 0), (0, 20), (40, 40)] {
            let now = Instant::from_nanos(now.0, now.1);
            assert_eq!(now.reached(a.earlier(b)), now.reached(a) || now.reached(b));
        }
    }

    #[test]
    fn the_os_clocks_move_forward() {
        let a = OsClock.now();
        let b = OsClock.now();
        assert!(b.boot_ns() >= a.boot_ns() && b.raw_ns() >= a.raw_ns() && a.boot_ns() > 0);
    }

    #[test]
    fn a_simulated_clock_drifts_as_told() {
        let clock = SimClock::with_rates(1000, -1000);
        clock.advance(Duration::from_secs(1));
        assert_eq!(clock.now(), Instant::from_nanos(1_001_000_000, 999_000_000));
    }
}
