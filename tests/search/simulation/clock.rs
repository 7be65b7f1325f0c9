//! A machine's clocks as a function of the simulation's real time: exact, and invertible.
//!
//! Must not know what the readings are used for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metad::clock::{Clock, Instant};
use metad::store::unreliable::Dice;

/// One millisecond of real time; the simulation counts in nanoseconds.
pub const MS: u64 = 1_000_000;
/// One second.
pub const SEC: u64 = 1_000 * MS;

/// How wrong any clock may run, in millionths; two of them differ by at most twice as much.
const RATE_ERROR_PPM: u64 = 1000;

/// Two clocks that run at wrong rates, and have run for a while when the simulation begins.
#[derive(Clone, Copy, Debug)]
pub struct Drift {
    boot_ppm: i64,
    raw_ppm: i64,
    uptime: u64,
}

/// The real time, for all clocks.
#[derive(Clone, Debug, Default)]
pub struct RealTime(Arc<AtomicU64>);

/// A machine's clocks, as its processes read them.
#[derive(Clone, Debug)]
pub struct MachineClock {
    pub drift: Drift,
    pub real: RealTime,
}

impl RealTime {
    /// Nanoseconds since the simulation began.
    pub fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Moves on.
    pub fn set(&self, now: u64) {
        self.0.store(now, Ordering::Relaxed);
    }
}

impl Clock for MachineClock {
    fn now(&self) -> Instant {
        self.drift.now(self.real.now())
    }
}

impl Drift {
    /// Seeded rates; the extremes are drawn often, because the margins are tight only there.
    pub fn draw(dice: &Dice) -> Self {
        let rate = || match dice.below(4) {
            0 => RATE_ERROR_PPM as i64,
            1 => -(RATE_ERROR_PPM as i64),
            _ => dice.below(2 * RATE_ERROR_PPM + 1) as i64 - RATE_ERROR_PPM as i64,
        };
        Self { boot_ppm: rate(), raw_ppm: rate(), uptime: dice.below(1000 * SEC) }
    }

    /// What the clocks show.
    pub fn now(&self, real: u64) -> Instant {
        let t = (real + self.uptime) as i64;
        let shows = |ppm: i64| (t + t * ppm / 1_000_000) as u64;
        Instant::from_nanos(shows(self.boot_ppm), shows(self.raw_ppm))
    }

    /// The first real moment at which `deadline` has passed.
    pub fn when(&self, deadline: Instant) -> u64 {
        let boot = first(self.boot_ppm, deadline.boot_ns());
        let raw = first(self.raw_ppm, deadline.raw_ns());
        boot.min(raw).saturating_sub(self.uptime)
    }
}

/// The first moment at which a clock of this rate shows `target` or more.
fn first(ppm: i64, target: u64) -> u64 {
    let shows = |t: u64| t as i64 + t as i64 * ppm / 1_000_000;
    let mut t = (target as i64 * 1_000_000 / (1_000_000 + ppm)).saturating_sub(2).max(0) as u64;
    while shows(t) < target as i64 {
        t += 1;
    }
    t
}

#[test]
fn a_deadline_is_found_exactly() {
    let dice = Dice::new(1);
    for _ in 0..1000 {
        let (drift, real) = (Drift::draw(&dice), 1 + dice.below(300 * SEC));
        let at = drift.when(drift.now(real));
        assert!(at <= real && drift.now(at).reached(drift.now(real)) && real - at <= 2);
    }
}
