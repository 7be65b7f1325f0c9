//! What the probes of a member come to: looks and results in, a state of health out. Time is an argument.
//!
//! The time in which a probe fails counts up; the time in which it succeeds counts down, twice as fast, not below
//! zero; at [`ProbeTimes::failure`] the probe *has failed*. So one that fails for at most two thirds of the time never adds up
//! to a failure, and one that fails for longer does, however often it succeeds in between. Whoever has anything on this
//! account is not ready to lead. Time in which this process itself did not run does not count.

use std::time::Duration;

use crate::clock::Instant;

/// The most that one look adds. Looks come several times a second; a longer pause is one in which we did not run.
const STEP_MAX: Duration = Duration::from_secs(1);
/// The time between two changes of leader because of a probe, unless the next one has been healthy for longer.
pub const APART: Duration = Duration::from_secs(300);
/// How many times faster success counts down than failure counts up.
const HEALING: u32 = 2;

/// The times of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeTimes {
    /// From the beginning of one run to that of the next.
    pub interval: Duration,
    /// What a run may take; one that takes longer fails from then on, whether it ever ends or not.
    pub timeout: Duration,
    /// How long a leader fails before it hands over.
    pub failure: Duration,
}

/// What a member's probes have come to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub enum MemberHealth {
    /// It has no probe.
    #[default]
    Unprobed,
    /// The first run has not ended yet.
    Untried,
    /// Nothing has failed for so long that it would still count.
    Healthy {
        /// Since when.
        since: Instant,
    },
    /// Something fails, or has failed too recently.
    Failing(Failing),
}

/// A probe that fails.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Failing {
    /// Since when it counts.
    pub since: Instant,
    /// What was measured, in words.
    pub measured: String,
    /// It fails now, and has for so long that a leader hands over.
    pub has_failed: bool,
}

/// One probe: its runs, and the account of its failures.
#[derive(Clone, Debug)]
pub struct SelfProbe {
    /// What is probed, as the subject of a sentence.
    what: &'static str,
    looked_at: Option<Instant>,
    /// Since the present run began.
    running: Option<Duration>,
    /// Since the last run began.
    began_ago: Option<Duration>,
    /// Since something else has shown that it works.
    vetoed_ago: Option<Duration>,
    /// The last result.
    last: Option<Result<(), ()>>,
    failed_for: Duration,
    failing_since: Option<Instant>,
    measured: String,
    healthy_since: Instant,
}

// === impl MemberHealth ===

impl MemberHealth {
    /// Why such a member does not take over; `None`: it would.
    pub fn unready(&self) -> Option<String> {
        match self {
            MemberHealth::Unprobed | MemberHealth::Healthy { .. } => None,
            MemberHealth::Untried => Some("its probe has not been answered yet".to_owned()),
            MemberHealth::Failing(failing) => Some(format!("its probe fails: {}", failing.measured)),
        }
    }

    /// How long it has been healthy. One without a probe always was.
    pub fn healthy_for(&self, now: Instant) -> Duration {
        match self {
            MemberHealth::Unprobed => Duration::MAX,
            MemberHealth::Healthy { since } => now.since(*since),
            MemberHealth::Untried | MemberHealth::Failing(_) => Duration::ZERO,
        }
    }

    /// What fails.
    pub fn failing(&self) -> Option<&Failing> {
        match self {
            MemberHealth::Failing(failing) => Some(failing),
            MemberHealth::Unprobed | MemberHealth::Untried | MemberHealth::Healthy { .. } => None,
        }
    }

    /// The health of who has both probes: the worse one.
    pub fn and(self, other: MemberHealth) -> MemberHealth {
        match (self, other) {
            (MemberHealth::Unprobed, one) | (one, MemberHealth::Unprobed) => one,
            (MemberHealth::Failing(a), MemberHealth::Failing(b)) => MemberHealth::Failing(Failing {
                since: a.since.earlier(b.since),
                measured: format!("{}; {}", a.measured, b.measured),
                has_failed: a.has_failed || b.has_failed,
            }),
            (one @ MemberHealth::Failing(_), _) | (_, one @ MemberHealth::Failing(_)) => one,
            (MemberHealth::Untried, _) | (_, MemberHealth::Untried) => MemberHealth::Untried,
            (MemberHealth::Healthy { since: a }, MemberHealth::Healthy { since: b }) => {
                MemberHealth::Healthy { since: a.later(b) }
            }
        }
    }
}

// === impl Failing ===

impl Failing {
    /// What was measured, and for how long.
    pub fn told(&self, now: Instant) -> String {
        format!("{}, for {} s", self.measured, now.since(self.since).as_secs())
    }
}

// === impl SelfProbe ===

impl SelfProbe {
    /// Of this, the subject of a sentence; nothing has run yet.
    pub fn new(what: &'static str) -> Self {
        Self {
            what,
            looked_at: None,
            running: None,
            began_ago: None,
            vetoed_ago: None,
            last: None,
            failed_for: Duration::ZERO,
            failing_since: None,
            measured: String::new(),
            healthy_since: Instant::default(),
        }
    }

    /// Counts the time since the last look.
    pub fn look(&mut self, now: Instant, times: &ProbeTimes) {
        let step = self.looked_at.map_or(Duration::ZERO, |at| now.since(at)).min(STEP_MAX);
        self.looked_at = Some(now);
        for ago in [&mut self.running, &mut self.began_ago, &mut self.vetoed_ago] {
            *ago = ago.map(|ago| ago + step);
        }
        if self.is_failing() {
            self.failed_for = (self.failed_for + step).min(times.failure);
        } else {
            self.failed_for = self.failed_for.saturating_sub(step * HEALING);
            self.heal(now);
        }
        let is_late = self.running.is_some_and(|running| running >= times.timeout);
        if is_late && !self.is_vetoed(times) && !self.is_failing() {
            self.fail(now, &format!("has not ended within {} s", times.timeout.as_secs()));
        }
    }

    /// Is it time for the next run?
    pub fn is_due(&self, times: &ProbeTimes) -> bool {
        !self.is_running() && self.began_ago.is_none_or(|ago| ago >= times.interval)
    }

    /// Has a run begun that has not ended?
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// A run begins.
    pub fn began(&mut self) {
        (self.running, self.began_ago) = (Some(Duration::ZERO), Some(Duration::ZERO));
    }

    /// It has ended. A late success is one, too: it works again.
    pub fn ended(&mut self, now: Instant, times: &ProbeTimes, result: Result<(), String>) {
        self.running = None;
        match result {
            Err(why) if !self.is_vetoed(times) => self.fail(now, &why),
            Ok(()) | Err(_) => self.succeed(now),
        }
    }

    /// What is probed was used in earnest, and has worked: that is worth more than a probe.
    pub fn vetoed(&mut self, now: Instant) {
        self.vetoed_ago = Some(Duration::ZERO);
        if self.last.is_some() {
            self.succeed(now);
        }
    }

    /// What it comes to.
    pub fn health(&self, times: &ProbeTimes) -> MemberHealth {
        match (&self.last, self.failing_since) {
            (None, _) => MemberHealth::Untried,
            (Some(_), None) => MemberHealth::Healthy { since: self.healthy_since },
            (Some(last), Some(since)) => MemberHealth::Failing(Failing {
                since,
                measured: self.measured.clone(),
                has_failed: last.is_err() && self.failed_for >= times.failure,
            }),
        }
    }

    fn is_failing(&self) -> bool {
        matches!(self.last, Some(Err(_)))
    }

    fn is_vetoed(&self, times: &ProbeTimes) -> bool {
        self.vetoed_ago.is_some_and(|ago| ago < times.timeout)
    }

    fn fail(&mut self, now: Instant, why: &str) {
        self.failing_since.get_or_insert(now);
        self.measured = format!("{} {why}", self.what);
        self.last = Some(Err(()));
    }

    fn succeed(&mut self, now: Instant) {
        if self.last.is_none() {
            self.healthy_since = now;
        }
        self.last = Some(Ok(()));
        self.heal(now);
    }

    fn heal(&mut self, now: Instant) {
        if self.failed_for.is_zero() && self.failing_since.take().is_some() {
            self.healthy_since = now;
        }
    }
}

#[cfg(test)]
#[path = "probe_tests.rs"]
mod tests;
