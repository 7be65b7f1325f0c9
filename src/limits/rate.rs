//! How often something costly is done for whoever asks: anybody may ask, and nobody may wear the node out.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Instant;

/// Once in `every`, and `burst` times in a row after a while without.
pub struct Rate {
    every: Duration,
    burst: u32,
    /// When all that was done so far would have been, one by one.
    paid_until: Mutex<Instant>,
}

// === impl Rate ===

impl Rate {
    /// Nothing was done yet.
    pub fn new(every: Duration, burst: u32) -> Self {
        Self { every, burst, paid_until: Mutex::default() }
    }

    /// May it be done once more now?
    pub fn allows(&self, now: Instant) -> bool {
        let mut paid_until = self.paid_until.lock().unwrap_or_else(PoisonError::into_inner);
        let is_allowed = now.until(*paid_until) <= self.every * self.burst.saturating_sub(1);
        if is_allowed {
            *paid_until = paid_until.later(now) + self.every;
        }
        is_allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_allowed_and_then_one_at_a_time() {
        let rate = Rate::new(Duration::from_secs(1), 3);
        let at = |ms| rate.allows(Instant::from_millis(ms));
        let in_a_row = [10_000; 5].map(at);
        assert_eq!(in_a_row, [true, true, true, false, false]);
        assert_eq!([10_500, 11_000, 11_001, 12_000, 12_500].map(at), [false, true, false, true, false]);
        let after_a_rest = [60_000; 5].map(at);
        assert_eq!(after_a_rest, [true, true, true, false, false]);
    }
}
