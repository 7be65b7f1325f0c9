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

// === impl Leadership: its deadline ===

impl Leadership {
    /// Warnings before S: one each time that less than this fraction of the granted lease [remains](Self::remaining),
    /// armed again by each renewal that lifts it above. 0.5 is a good choice; above 0.8 also a healthy leader is warned
    /// between two renewals. What is below 0 counts as 0 (never), what is above 1 as 1.
    ///
    /// ```no_run
    /// # use metad::driver::leadership::Leadership;
    /// # async fn main_loop(leadership: Leadership) {
    /// let mut warnings = leadership.on_deadline(0.5);
    /// while let Some(left) = warnings.next().await {
    ///     println!("renewals fail; {left:?} left: finish what is under way, begin nothing long");
    /// }
    /// println!("told to stop");
    /// # }
    /// ```
    ///
    /// Not guaranteed: that a warning comes before every end. There is none where leadership ends from one moment to the
    /// next (a request, a deleted record), and none where the task that waits for it gets no CPU between the fraction
    /// and S: a process that is stopped, or a runtime that is blocked, for as long. And a warning is no loss: a renewal
    /// may still come, so nothing has to be given up.
    pub fn on_deadline(&self, fraction: f64) -> DeadlineWarnings {
        let part = if fraction.is_nan() { 0.0 } else { fraction.clamp(0.0, 1.0) };
        DeadlineWarnings { leadership: self.clone(), threshold: self.ttl().mul_f64(part), is_armed: true }
    }
}

// === impl DeadlineWarnings ===

impl DeadlineWarnings {
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
