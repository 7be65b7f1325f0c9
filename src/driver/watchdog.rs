//! Watches over the main loop's signs of life.
//!
//! It counts only time in which this process itself ran: after a suspended machine or a SIGSTOP the main loop has
//! been silent because nothing ran, and must not pay for it. Time is therefore added up from wake to wake of the
//! driver, and each wake adds a little at most.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Instant;

/// The most that one wake may add: twice the driver's longest sleep.
const STEP_MAX: Duration = Duration::from_secs(2);

/// The watchdog of one tenure. The first sign of life arms it.
#[derive(Debug)]
pub(super) struct Watchdog {
    timeout: Option<Duration>,
    heartbeats: Arc<AtomicU64>,
    counted: u64,
    silent: Duration,
    looked_at: Option<Instant>,
}

// === impl Watchdog ===

impl Watchdog {
    /// `None` switches it off.
    pub(super) fn new(timeout: Option<Duration>) -> Self {
        Self { timeout, heartbeats: Arc::default(), counted: 0, silent: Duration::ZERO, looked_at: None }
    }

    /// What the main loop counts up.
    pub(super) fn heartbeats(&self) -> Arc<AtomicU64> {
        self.heartbeats.clone()
    }

    /// Has the main loop been silent for too long?
    pub(super) fn bites(&mut self, now: Instant) -> bool {
        let Some(timeout) = self.timeout else { return false };
        let step = self.looked_at.map_or(Duration::ZERO, |at| now.since(at)).min(STEP_MAX);
        self.looked_at = Some(now);
        let heartbeats = self.heartbeats.load(Ordering::Relaxed);
        if heartbeats == 0 || heartbeats != self.counted {
            (self.counted, self.silent) = (heartbeats, Duration::ZERO);
            return false;
        }
        self.silent += step;
        self.silent >= timeout
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn at(secs: u64) -> Instant {
        Instant::from_millis(secs * 1000)
    }

    /// The first second in which it bites, when it is looked at each second.
    fn bites_at(dog: &mut Watchdog, seconds: std::ops::Range<u64>) -> Option<u64> {
        seconds.into_iter().find(|s| dog.bites(at(*s)))
    }

    #[test]
    fn silence_counts_from_the_last_sign_of_life() {
        let mut dog = Watchdog::new(Some(TIMEOUT));
        dog.heartbeats().fetch_add(1, Ordering::Relaxed);
        assert_eq!(bites_at(&mut dog, 0..9), None);
        dog.heartbeats().fetch_add(1, Ordering::Relaxed);
        assert_eq!(bites_at(&mut dog, 9..100), Some(19));
    }

    #[test]
    fn a_main_loop_that_never_gave_a_sign_owes_none() {
        assert_eq!(bites_at(&mut Watchdog::new(Some(TIMEOUT)), 0..1000), None);
    }

    #[test]
    fn time_in_which_nothing_ran_does_not_count() {
        let mut dog = Watchdog::new(Some(TIMEOUT));
        dog.heartbeats().fetch_add(1, Ordering::Relaxed);
        assert_eq!(bites_at(&mut dog, 0..5), None);
        assert!(!dog.bites(at(500)), "suspended for more than eight minutes");
        assert_eq!(bites_at(&mut dog, 501..600), Some(504));
    }

    #[test]
    fn it_can_be_switched_off() {
        let mut dog = Watchdog::new(None);
        dog.heartbeats().fetch_add(1, Ordering::Relaxed);
        assert_eq!(bites_at(&mut dog, 0..1000), None);
    }
}
