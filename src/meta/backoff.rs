//! How long a program that failed is left alone before it is started again.

use std::time::Duration;

/// The pause after the first failure.
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// The longest pause; each is twice the one before.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A program that ran for so long worked, whatever happened then: the pauses begin anew.
const RAN_WELL: Duration = Duration::from_secs(60);

/// The pauses of one tenure.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

// === impl Backoff ===

impl Backoff {
    pub(super) fn new() -> Self {
        Self { next: PAUSE_MIN }
    }

    /// The pause after a failure of a program that ran for so long.
    pub(super) fn after(&mut self, ran_for: Duration) -> Duration {
        let pause = if ran_for >= RAN_WELL { PAUSE_MIN } else { self.next };
        self.next = (pause * 2).min(PAUSE_MAX);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew_after_a_good_run() {
        let mut backoff = Backoff::new();
        let mut after = |secs: u64| backoff.after(Duration::from_secs(secs)).as_secs_f64();
        assert_eq!([(); 8].map(|()| after(1)), [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]);
        assert_eq!([after(59), after(60), after(59)], [30.0, 0.5, 1.0]);
    }
}
