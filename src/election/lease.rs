//! The arithmetic of one lease: what we may believe, and until when.
//!
//! Every number that follows from the time to live is computed here and nowhere else. A lease's
//! two instants are `H` ([`Lease::holds_until`]: when the lease may end for all we know) and `S`
//! ([`Lease::step_down_at`]: when the main loop is told to stop). Both are anchored at the moment the request
//! *left*, because the store's own count starts after that (etcd `lease/lessor.go` refreshes to now + ttl).
//! The popular alternative, counting from the moment the answer arrived (etcd `client/v3/lease.go`), believes
//! for too long by the time the answer took. `src/docs/protocol.md`, sections 3 and 4, has the proof.
//!
//! Not guaranteed: anything at all, if clocks run wrong by more than [`CLOCK_RATE_ERROR_PPM`].

use std::fmt;
use std::time::Duration;

use crate::clock::Instant;

/// ρ: how wrong, in millionths, any clock involved may run while its machine runs.
pub const CLOCK_RATE_ERROR_PPM: u32 = 1000;
/// m: time between a look at the clock and the effect it allows.
pub const GATE_SLOP: Duration = Duration::from_millis(50);
/// The delay between two ranks of candidates after a vacancy. Safety never depends on it.
pub const RANK_DELAY: Duration = Duration::from_millis(150);
/// The longest that a request of the election is waited for.
const ANSWER_TIMEOUT_MAX: Duration = Duration::from_secs(15);
/// The shortest lease that metad accepts in its configuration, in seconds.
pub const LEASE_SECS_MIN: u64 = 3;

/// The name of a lease in the store: 63 random bits, chosen by us. Printed as etcdctl prints it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId(pub i64);

/// All durations that follow from a granted time to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LeaseTiming {
    ttl: Duration,
}

/// A lease that the store granted, and how long it certainly holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    id: LeaseId,
    timing: LeaseTiming,
    holds_until: Instant,
}

// === impl LeaseId ===

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

// === impl LeaseTiming ===

impl LeaseTiming {
    /// The timing of a lease of `ttl`, as granted (never as asked: etcd raises short ones).
    pub const fn new(ttl: Duration) -> Self {
        Self { ttl }
    }

    /// The granted time to live.
    pub const fn ttl(self) -> Duration {
        self.ttl
    }

    /// How long after its stamp an ack lets us believe: `ttl·(1−2ρ) − m`.
    pub fn span(self) -> Duration {
        let drift = self.ttl.saturating_mul(2 * CLOCK_RATE_ERROR_PPM) / 1_000_000;
        self.ttl.saturating_sub(drift).saturating_sub(GATE_SLOP)
    }

    /// B: how long before `H` the main loop is told to stop.
    pub fn stop_budget(self) -> Duration {
        (self.ttl / 40).clamp(Duration::from_millis(100), Duration::from_secs(2))
    }

    /// c: how often a leader renews.
    pub fn leader_cadence(self) -> Duration {
        (self.ttl / 20).clamp(Duration::from_millis(100), Duration::from_secs(1))
    }

    /// How often a candidate renews.
    pub fn candidate_cadence(self) -> Duration {
        self.ttl / 3
    }

    /// r: how soon the next attempt follows while the last one is unanswered.
    pub fn retry_cadence(self) -> Duration {
        (self.ttl / 100).clamp(Duration::from_millis(50), Duration::from_millis(500))
    }

    /// How long an answer to a request of the election is worth waiting for: an ack and the read that validates it
    /// come one after the other, and both must be back before `S`. On a long lease nobody waits that long.
    pub fn answer_timeout(self) -> Duration {
        (self.ttl * 9 / 20).min(ANSWER_TIMEOUT_MAX)
    }

    /// How much of the lease must be left when a main loop starts: `B + ttl/4`.
    pub fn start_margin(self) -> Duration {
        self.stop_budget() + self.ttl / 4
    }

    /// The longest stall of the store that a leader is sure to survive, where a renewal and its validating read take `rtt` together:
    /// `ttl(1−2ρ) − m − B − c − r − 2·rtt`.
    pub fn survived_stall(self, rtt: Duration) -> Duration {
        [self.stop_budget(), self.leader_cadence(), self.retry_cadence(), rtt * 2]
            .into_iter()
            .fold(self.span(), Duration::saturating_sub)
    }
}

// === impl Lease ===

impl Lease {
    /// A lease whose grant was asked for at `stamp`. The grant is a committed write and counts as the first ack.
    pub fn granted(id: LeaseId, ttl: Duration, stamp: Instant) -> Self {
        let timing = LeaseTiming::new(ttl);
        Self { id, timing, holds_until: stamp + timing.span() }
    }

    /// Its name in the store.
    pub fn id(&self) -> LeaseId {
        self.id
    }

    /// The durations that follow from its time to live.
    pub fn timing(&self) -> LeaseTiming {
        self.timing
    }

    /// H: the lease certainly lives until here, and for all we know no longer.
    pub fn holds_until(&self) -> Instant {
        self.holds_until
    }

    /// S: the main loop is told to stop here.
    pub fn step_down_at(&self) -> Instant {
        self.holds_until - self.timing.stop_budget()
    }

    /// `H − B/4`: a main loop that has not ended is ended the hard way.
    pub fn kill_at(&self) -> Instant {
        self.holds_until - self.timing.stop_budget() / 4
    }

    /// `H − B/8`: a guardian that stands still is killed, and the program with it.
    pub fn guardian_until(&self) -> Instant {
        self.holds_until - self.timing.stop_budget() / 8
    }

    /// Has `H` passed?
    pub fn is_over(&self, now: Instant) -> bool {
        now.reached(self.holds_until)
    }

    /// How old the request is whose ack the lease still rests on.
    pub fn ack_age(&self, now: Instant) -> Duration {
        now.since(self.holds_until - self.timing.span())
    }

    /// Is a suspended machine what has brought the end near? Then the clock that counts suspend is ahead of the
    /// other one, by more than slewing explains.
    pub fn was_suspended(&self, now: Instant) -> bool {
        let left = |deadline: u64, now: u64| Duration::from_nanos(deadline.saturating_sub(now));
        let boot = left(self.holds_until.boot_ns(), now.boot_ns());
        let raw = left(self.holds_until.raw_ns(), now.raw_ns());
        raw.saturating_sub(boot) > self.timing.ttl() / 10
    }

    /// Is enough of the lease left to start a main loop?
    pub fn allows_start(&self, now: Instant) -> bool {
        now.until(self.holds_until) >= self.timing.start_margin()
    }

    /// Moves `H` for an ack of the request that left at `stamp`. Never backwards, and never once `H` has passed:
    /// an ack that arrives later may be that of a lease whose revoke is already under way (etcd's lessor
    /// refreshes a lease that its expiry scan has taken; `src/docs/protocol.md`, Lemma R).
    pub fn extend(&mut self, now: Instant, stamp: Instant, ttl: Duration) -> bool {
        if self.is_over(now) {
            return false;
        }
        self.timing = LeaseTiming::new(ttl);
        self.holds_until = self.holds_until.later(stamp + self.timing.span());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    #[test]
    fn the_deadline_counts_from_the_send_and_never_moves_back() {
        let mut lease = Lease::granted(LeaseId(1), Duration::from_secs(10), at(1_000));
        assert_eq!(lease.holds_until(), at(1_000 + 9_980 - 50));
        assert!(lease.extend(at(9_000), at(2_000), Duration::from_secs(10)));
        assert_eq!(lease.holds_until(), at(2_000 + 9_930), "from the stamp, not from the arrival at 9 s");
        assert!(lease.extend(at(9_100), at(1_500), Duration::from_secs(10)), "a late ack is no harm");
        assert_eq!(lease.holds_until(), at(11_930));
    }

    #[test]
    fn a_suspend_is_told_from_a_slewed_clock() {
        let lease = Lease::granted(LeaseId(1), Duration::from_secs(10), at(0));
        let ns = |ms: u64| ms * 1_000_000;
        let late = |boot: u64, raw: u64| lease.was_suspended(Instant::from_nanos(ns(boot), ns(raw)));
        assert!(late(12_000, 3_000), "asleep for nine seconds");
        assert!(!late(9_950, 9_200), "slewed by 8 %");
        assert!(!late(12_000, 12_000), "stopped, but awake");
        assert_eq!(lease.ack_age(at(4_000)), Duration::from_secs(4));
    }

    #[test]
    fn a_lease_that_is_over_stays_over() {
        let mut lease = Lease::granted(LeaseId(1), Duration::from_secs(10), at(0));
        assert!(
            lease.extend(at(9_929), at(9_000), Duration::from_secs(10)),
            "twin: one millisecond earlier it counts"
        );
        let mut lease = Lease::granted(LeaseId(1), Duration::from_secs(10), at(0));
        assert!(!lease.extend(at(9_930), at(9_000), Duration::from_secs(10)));
        assert_eq!(lease.holds_until(), at(9_930));
    }

    #[test]
    fn the_survived_stall_is_nine_tenths_of_a_lease_of_ten_seconds() {
        let rtt = Duration::from_millis(5);
        for (secs, fraction) in [(5, 0.88), (10, 0.90), (30, 0.92)] {
            let ttl = Duration::from_secs(secs);
            let survived = LeaseTiming::new(ttl).survived_stall(rtt);
            assert!(survived.as_secs_f64() / ttl.as_secs_f64() >= fraction, "{secs}: {survived:?}");
        }
    }

    #[test]
    fn lease_ids_read_as_etcdctl_prints_them() {
        assert_eq!(LeaseId(0x3269_5410_dcc0_ca06).to_string(), "32695410dcc0ca06");
    }
}
