//! Who was refused, told as events. A stranger that is refused a thousand times a second must not fill the log.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::rate::Rate;
use crate::clock::Instant;
use crate::telemetry::{Event, Telemetry};

/// How often a refusal is told.
const EVERY: Duration = Duration::from_secs(1);
/// How many are told in a row after a while without.
const BURST: u32 = 10;

/// Tells of refusals.
pub struct Refusals {
    telemetry: Telemetry,
    rate: Rate,
    left_out: AtomicU64,
}

// === impl Refusals ===

impl Refusals {
    pub(super) fn new(telemetry: Telemetry) -> Self {
        Self { telemetry, rate: Rate::new(EVERY, BURST), left_out: AtomicU64::new(0) }
    }

    /// This was refused, and why; both name who asked. The next event says how many were left out before it.
    pub fn tell(&self, now: Instant, what: &str, why: String) {
        if !self.rate.allows(now) {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let left_out = self.left_out.swap(0, Ordering::Relaxed);
        self.telemetry.emit(Event::CallRefused { what: what.to_owned(), why, left_out });
    }
}
