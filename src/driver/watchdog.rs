//! Watches over the main loop's start and its signs of life.
//!
//! It counts only time in which this process itself ran: after a suspended machine or a SIGSTOP the main loop has
//! been silent because nothing ran, and must not pay for it. Time is therefore added up from wake to wake of the
//! driver, and each wake adds a little at most.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Instant;
use crate::election::event::Event;
use crate::election::history::Reason;

/// The most that one wake may add: twice the driver's longest sleep.
const STEP_MAX: Duration = Duration::from_secs(2);

/// What a main loop lets its driver know, without a message.
#[derive(Debug, Default)]
pub(super) struct Signs {
    heartbeats: AtomicU64,
    /// One of the three below.
    phase: AtomicU8,
    has_started: AtomicBool,
}

/// It is being started.
const STARTING: u8 = 0;
/// It has been started, and cannot do its work yet.
const WARMING_UP: u8 = 1;
/// It runs, or has a reason why it does not at the moment.
const SETTLED: u8 = 2;

/// What a main loop may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct WatchdogTimes {
    /// Between two signs of life; `None` switches the watch over them off.
    pub(super) silence: Option<Duration>,
    /// To be started; always watched.
    pub(super) start: Duration,
    /// From the first start on until it runs, however often it is started meanwhile. Never less than a start may take.
    pub(super) warm_up: Duration,
}

/// The watchdog of one tenure. A start has its time; after it the first sign of life arms the other watch.
#[derive(Debug)]
pub(super) struct Watchdog {
    times: WatchdogTimes,
    signs: Arc<Signs>,
    counted: u64,
    silent: Duration,
    starting: Duration,
    /// Starting or warming up.
    cold: Duration,
    looked_at: Option<Instant>,
}

// === impl Signs ===

impl Signs {
    pub(super) fn heartbeat(&self) {
        self.heartbeats.fetch_add(1, Ordering::Relaxed);
    }

    /// Owes no sign of life until the next one.
    pub(super) fn rest(&self) {
        self.heartbeats.store(0, Ordering::Relaxed);
    }

    /// What should run is being started, and has `start_timeout` for it.
    pub(super) fn starting(&self) {
        self.phase.store(STARTING, Ordering::Relaxed);
    }

    /// It has been started, and has `warm_up_timeout` until it runs.
    pub(super) fn warming_up(&self) {
        self.phase.store(WARMING_UP, Ordering::Relaxed);
    }

    /// It runs. True: for the first time.
    pub(super) fn started(&self) -> bool {
        self.phase.store(SETTLED, Ordering::Relaxed);
        !self.has_started.swap(true, Ordering::Relaxed)
    }

    /// Has it ever run?
    pub(super) fn has_started(&self) -> bool {
        self.has_started.load(Ordering::Relaxed)
    }
}

// === impl Watchdog ===

impl Watchdog {
    pub(super) fn new(times: WatchdogTimes) -> Self {
        Self {
            times,
            signs: Arc::default(),
            counted: 0,
            silent: Duration::ZERO,
            starting: Duration::ZERO,
            cold: Duration::ZERO,
            looked_at: None,
        }
    }

    /// What the main loop lets us know.
    pub(super) fn signs(&self) -> Arc<Signs> {
        self.signs.clone()
    }

    /// Does the main loop take too long to start, or has it been silent for too long? What follows.
    pub(super) fn bites(&mut self, now: Instant) -> Option<Event> {
        let step = self.looked_at.map_or(Duration::ZERO, |at| now.since(at)).min(STEP_MAX);
        self.looked_at = Some(now);
        if self.is_late(step) {
            return Some(Event::Shutdown(Reason::StartTimeout));
        }
        self.is_silent(step).then_some(Event::MainLoopHung)
    }

    fn is_late(&mut self, step: Duration) -> bool {
        let phase = self.signs.phase.load(Ordering::Relaxed);
        self.starting = if phase == STARTING { self.starting + step } else { Duration::ZERO };
        self.cold = if phase == SETTLED { Duration::ZERO } else { self.cold + step };
        self.starting >= self.times.start || self.cold >= self.times.warm_up.max(self.times.start)
    }

    fn is_silent(&mut self, step: Duration) -> bool {
        let Some(timeout) = self.times.silence else { return false };
        let heartbeats = self.signs.heartbeats.load(Ordering::Relaxed);
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

    const WARM_UP: Duration = Duration::from_secs(60);

    fn watchdog(silence: Option<Duration>) -> Watchdog {
        Watchdog::new(WatchdogTimes { silence, start: TIMEOUT, warm_up: WARM_UP })
    }

    /// Of a main loop that runs.
    fn running(timeout: Option<Duration>) -> Watchdog {
        let dog = watchdog(timeout);
        assert!(dog.signs().started() && !dog.signs().started(), "the first time only once");
        dog
    }

    /// The first second in which it bites, when it is looked at each second.
    fn bites_at(dog: &mut Watchdog, seconds: std::ops::Range<u64>) -> Option<u64> {
        seconds.into_iter().find(|s| dog.bites(at(*s)) == Some(Event::MainLoopHung))
    }

    #[test]
    fn silence_counts_from_the_last_sign_of_life() {
        let mut dog = running(Some(TIMEOUT));
        dog.signs().heartbeat();
        assert_eq!(bites_at(&mut dog, 0..9), None);
        dog.signs().heartbeat();
        assert_eq!(bites_at(&mut dog, 9..100), Some(19));
    }

    #[test]
    fn a_main_loop_that_never_gave_a_sign_owes_none() {
        assert_eq!(bites_at(&mut running(Some(TIMEOUT)), 0..1000), None);
    }

    #[test]
    fn time_in_which_nothing_ran_does_not_count() {
        let mut dog = running(Some(TIMEOUT));
        dog.signs().heartbeat();
        assert_eq!(bites_at(&mut dog, 0..5), None);
        assert_eq!(dog.bites(at(500)), None, "suspended for more than eight minutes");
        assert_eq!(bites_at(&mut dog, 501..600), Some(504));
    }

    #[test]
    fn it_can_be_switched_off() {
        let mut dog = running(None);
        dog.signs().heartbeat();
        assert_eq!(bites_at(&mut dog, 0..1000), None);
    }

    /// The first second in which it is late, when it is looked at each second.
    fn late_at(dog: &mut Watchdog, mut seconds: std::ops::Range<u64>) -> Option<u64> {
        seconds.find(|s| dog.bites(at(*s)) == Some(Event::Shutdown(Reason::StartTimeout)))
    }

    #[test]
    fn each_start_has_its_time_and_a_pause_costs_none() {
        let mut dog = watchdog(None);
        assert_eq!(late_at(&mut dog, 0..9), None);
        dog.signs().started();
        assert_eq!(late_at(&mut dog, 9..100), None, "it runs");
        dog.signs().starting();
        assert_eq!(late_at(&mut dog, 100..200), Some(109));
    }

    #[test]
    fn a_warm_up_takes_longer_than_a_start_and_not_for_ever() {
        let mut dog = watchdog(None);
        assert_eq!(late_at(&mut dog, 0..9), None);
        dog.signs().warming_up();
        assert_eq!(late_at(&mut dog, 9..100), Some(60), "counted from the start on");
    }

    #[test]
    fn a_warm_up_that_begins_again_and_again_has_its_time_once() {
        let mut dog = watchdog(None);
        for second in (0..60).step_by(2) {
            dog.signs().starting();
            assert_eq!(late_at(&mut dog, second..second + 1), None);
            dog.signs().warming_up();
            assert_eq!(late_at(&mut dog, second + 1..second + 2), None);
        }
        assert_eq!(late_at(&mut dog, 60..100), Some(60));
        // Twin: one that has run in between has its time again.
        dog.signs().started();
        assert_eq!(late_at(&mut dog, 100..101), None);
        dog.signs().warming_up();
        assert_eq!(late_at(&mut dog, 101..200), Some(160));
    }

    #[test]
    fn a_start_is_never_cut_short_by_a_shorter_warm_up() {
        let times = WatchdogTimes { silence: None, start: TIMEOUT, warm_up: Duration::from_secs(1) };
        assert_eq!(late_at(&mut Watchdog::new(times), 0..100), Some(10));
    }
}
