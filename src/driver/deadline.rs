//! Warnings before the deadline of a leadership, for a main loop that has something to finish or to refuse before it is
//! told to stop.

use std::time::Duration;

use super::leadership::Leadership;

/// The longest sleep: a timer does not count suspend, the clock of the lease does.
const SLEEP_MAX: Duration = Duration::from_secs(1);
/// The shortest sleep of one that waits for a renewal, whatever the lease.
const SLEEP_MIN: Duration = Duration::from_millis(25);
/// How often a lease is looked at while a renewal is waited for: twice as often as a leader renews.
const LOOKS_PER_LEASE: u32 = 40;

/// Warns each time that the lease runs low, from [`Leadership::on_deadline`].
pub struct DeadlineWarnings {
    leadership: Leadership,
    /// The warning is due when less than this is left.
    threshold: Duration,
    /// Has no warning been given since the lease was last above it?
    is_armed: bool,
}

// === impl DeadlineWarnings ===

impl DeadlineWarnings {
    pub(super) fn new(leadership: Leadership, fraction: f64) -> Self {
        let part = if fraction.is_nan() { 0.0 } else { fraction.clamp(0.0, 1.0) };
        let threshold = leadership.ttl().mul_f64(part);
        Self { leadership, threshold, is_armed: true }
    }

    /// Waits until less than the fraction is left, and returns what is: renewals have not come for some time. The next
    /// warning comes only after a renewal has come meanwhile. `None`: leadership is over, and so is this.
    ///
    /// It may be dropped at any await point: no warning is lost by that.
    pub async fn next(&mut self) -> Option<Duration> {
        loop {
            let left = self.leadership.remaining();
            if left.is_zero() {
                return None;
            }
            let is_low = left < self.threshold;
            if is_low && self.is_armed {
                self.is_armed = false;
                return Some(left);
            }
            self.is_armed = !is_low;
            let pause = match is_low {
                true => (self.leadership.ttl() / LOOKS_PER_LEASE).max(SLEEP_MIN).min(left),
                // A little more, so that less than the threshold is left afterwards, and not exactly that.
                false => left - self.threshold + Duration::from_millis(1),
            };
            tokio::select! {
                _ = self.leadership.lost() => return None,
                () = tokio::time::sleep(pause.min(SLEEP_MAX)) => {}
            }
        }
    }
}
