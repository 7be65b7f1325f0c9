//! The account of a probe, each second for as long as it takes.

use super::*;

const TIMES: ProbeTimes = ProbeTimes {
    interval: Duration::from_secs(1),
    timeout: Duration::from_secs(2),
    failure: Duration::from_secs(10),
};
/// Looks in a second.
const LOOKS: u64 = 10;

/// A probe with a clock that moves in tenths of seconds, and something that it probes.
struct Patient {
    probe: SelfProbe,
    tenths: u64,
}

impl Patient {
    fn new() -> Self {
        Self { probe: SelfProbe::new("it"), tenths: 0 }
    }

    fn now(&self) -> Instant {
        Instant::from_millis(self.tenths * 1000 / LOOKS)
    }

    fn health(&self) -> MemberHealth {
        self.probe.health(&TIMES)
    }

    fn has_failed(&self) -> bool {
        self.health().failing().is_some_and(|f| f.has_failed)
    }

    fn look(&mut self) {
        self.tenths += 1;
        let now = self.now();
        self.probe.look(now, &TIMES);
    }

    fn end(&mut self, works: bool) {
        let now = self.now();
        self.probe.ended(now, &TIMES, if works { Ok(()) } else { Err("fails".into()) });
    }

    /// Lives for so many seconds; each run ends at once, as `works` says of its second. The first second of a failure.
    fn live(&mut self, secs: u64, works: impl Fn(u64) -> bool) -> Option<u64> {
        let until = self.tenths + secs * LOOKS;
        while self.tenths < until {
            self.look();
            if self.probe.is_due(&TIMES) {
                self.probe.began();
                self.end(works(self.tenths / LOOKS));
            }
            if self.has_failed() {
                return Some(self.tenths / LOOKS);
            }
        }
        None
    }
}

#[test]
fn it_fails_when_it_has_failed_for_long_enough_and_not_before() {
    let mut patient = Patient::new();
    assert_eq!(patient.health(), MemberHealth::Untried);
    assert_eq!(patient.live(3600, |_| true), None);
    assert!(matches!(patient.health(), MemberHealth::Healthy { .. }));
    let began = patient.tenths / LOOKS;
    let failed = patient.live(60, |_| false).expect("it fails");
    assert!((10..=11).contains(&(failed - began)), "after {} s", failed - began);
    let failing = patient.health().failing().cloned().expect("it fails");
    assert_eq!(
        (failing.measured.as_str(), failing.told(patient.now()).as_str()),
        ("it fails", "it fails, for 10 s")
    );
}

#[test]
fn one_that_comes_and_goes_each_second_never_adds_up() {
    let mut patient = Patient::new();
    assert_eq!(patient.live(3600, |second| second % 2 == 0), None);
    assert!(patient.tenths == 3600 * LOOKS);
}

#[test]
fn one_that_fails_most_of_the_time_adds_up_however_often_it_succeeds() {
    let mut patient = Patient::new();
    let failed = patient.live(600, |second| second % 4 == 0).expect("three seconds of four");
    assert!((20..=60).contains(&failed), "after {failed} s");
    let mut patient = Patient::new();
    assert_eq!(patient.live(600, |second| second % 3 == 0), None, "two seconds of three cancel out");
}

#[test]
fn one_that_never_ends_fails_from_its_timeout_on() {
    let mut patient = Patient::new();
    patient.live(5, |_| true);
    while !patient.probe.is_due(&TIMES) {
        patient.look();
    }
    patient.probe.began();
    let looks = |patient: &mut Patient, until: fn(&Patient) -> bool| {
        let began = patient.tenths;
        while !until(patient) {
            patient.look();
            assert!(patient.tenths < began + 1000, "it never is");
        }
        patient.tenths - began
    };
    let fails = looks(&mut patient, |patient| patient.health().failing().is_some());
    assert_eq!(fails, TIMES.timeout.as_secs() * LOOKS);
    assert_eq!(looks(&mut patient, Patient::has_failed), TIMES.failure.as_secs() * LOOKS);
    assert_eq!(patient.health().failing().expect("it fails").measured, "it has not ended within 2 s");
    patient.end(true);
    assert!(!patient.has_failed(), "a late success is one");
    assert!(patient.health().failing().is_some(), "but half the time has to pass");
    assert_eq!(looks(&mut patient, |patient| patient.health().failing().is_none()), 5 * LOOKS);
}

#[test]
fn what_has_worked_in_earnest_is_worth_more() {
    let mut patient = Patient::new();
    patient.live(3, |_| true);
    patient.probe.began();
    for _ in 0..600 {
        patient.look();
        let now = patient.now();
        patient.probe.vetoed(now);
    }
    assert!(patient.health().failing().is_none(), "a minute in which only the probe hangs");
    patient.end(false);
    assert!(patient.health().failing().is_none());
    patient.live(2, |_| true);
    assert!(patient.live(60, |_| false).is_some(), "twin: the veto ends");
}

#[test]
fn time_in_which_this_process_did_not_run_does_not_count() {
    let mut patient = Patient::new();
    patient.live(3, |_| true);
    while !patient.probe.is_due(&TIMES) {
        patient.look();
    }
    patient.probe.began();
    patient.tenths += 3600 * LOOKS; // stopped for an hour, the probe as well
    patient.look();
    assert!(patient.health().failing().is_none());
    patient.end(true);
    assert!(patient.health().failing().is_none());
    patient.probe.began();
    patient.end(false);
    patient.tenths += 3600 * LOOKS;
    patient.look();
    assert!(!patient.has_failed(), "one failure, an hour ago by the clock");
}

/// Looks come late, and runs take nearly as long as they may: an hour of that, in many ways.
#[test]
fn an_hour_on_a_starved_cpu_is_no_failure() {
    for seed in 1..20_u64 {
        let (mut patient, mut random) = (Patient::new(), seed);
        let mut next = move |most: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % most
        };
        let mut ends_at = 0;
        while patient.tenths < 3600 * LOOKS {
            patient.tenths += next(25); // up to 2.5 s late
            patient.look();
            if patient.probe.is_running() && patient.tenths >= ends_at {
                patient.end(true);
            }
            if patient.probe.is_due(&TIMES) {
                patient.probe.began();
                ends_at = patient.tenths + next(TIMES.timeout.as_secs() * LOOKS - 2);
            }
            assert!(!patient.has_failed(), "seed {seed}, after {} s", patient.tenths / LOOKS);
        }
    }
}

#[test]
fn of_two_probes_the_worse_one_counts() {
    let (early, late) = (Instant::from_millis(1), Instant::from_millis(2));
    let healthy = |since| MemberHealth::Healthy { since };
    let failing = |since, has_failed| {
        MemberHealth::Failing(Failing { since, measured: format!("f{has_failed}"), has_failed })
    };
    assert_eq!(MemberHealth::Unprobed.and(MemberHealth::Unprobed), MemberHealth::Unprobed);
    assert_eq!(MemberHealth::Unprobed.and(healthy(early)), healthy(early));
    assert_eq!(healthy(late).and(healthy(early)), healthy(late));
    assert_eq!(healthy(late).and(MemberHealth::Untried), MemberHealth::Untried);
    assert_eq!(MemberHealth::Untried.and(failing(late, false)), failing(late, false));
    let both = failing(late, true).and(failing(early, false));
    assert_eq!(both.failing().map(|f| (f.since, f.has_failed)), Some((early, true)));
    assert_eq!(both.unready(), Some("its probe fails: ftrue; ffalse".into()));
    assert_eq!(healthy(early).healthy_for(late), Duration::from_millis(1));
    assert_eq!(
        (MemberHealth::Unprobed.healthy_for(late), both.healthy_for(late)),
        (Duration::MAX, Duration::ZERO)
    );
}
