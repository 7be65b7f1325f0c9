//! Replays stalls against a lease: how often would leadership have been lost?
//!
//! The deadlines are those of the elector, by the same code: [`Renewal`] says when to renew, [`Lease`] when it is over. Here are
//! only the time that passes, a store that answers or does not, and a process that runs or does not. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Instant;
use crate::election::lease::{Lease, LeaseId, LeaseTiming};
use crate::election::renewal::Renewal;
use crate::journal::stalls::StallOf;

/// A stall on the time line of the replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// Of what.
    pub of: StallOf,
    /// When it began.
    pub from: Instant,
    /// When it was over.
    pub to: Instant,
}

/// Where in the cycle of renewals a stall begins. Under another lease than the recorded one nobody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CyclePhase {
    /// Where it comes to lie if renewals go on at their pace.
    AsItComes,
    /// Just after a renewal was confirmed.
    Best,
    /// Just before the next one would have been.
    Worst,
}

/// The stalls of one kind, in order and apart from each other.
#[derive(Debug, Default)]
struct Spans(Vec<(Instant, Instant)>);

struct Replay {
    store: Spans,
    process: Spans,
    phase: CyclePhase,
    /// How long a renewal and its validating read take together.
    answer: Duration,
    timing: LeaseTiming,
    lease: Lease,
    renewal: Renewal,
    /// The stamps of the renewals that will be answered, oldest first.
    under_way: VecDeque<Instant>,
    is_answered: bool,
    now: Instant,
}

/// How often a leader that renews from `began` on would have lost a lease of `ttl`. After each loss somebody leads again as
/// soon as store and process go on.
pub fn losses(
    outages: &[Outage],
    began: Instant,
    ttl: Duration,
    answer: Duration,
    phase: CyclePhase,
) -> usize {
    let spans = |of| Spans::of(outages.iter().filter(|o| o.of == of));
    let mut replay = Replay {
        store: spans(StallOf::Store),
        process: spans(StallOf::Process),
        phase,
        answer: answer.max(Duration::from_micros(1)),
        timing: LeaseTiming::new(ttl),
        lease: Lease::granted(LeaseId(1), ttl, began),
        renewal: Renewal::default(),
        under_way: VecDeque::new(),
        is_answered: false,
        now: began,
    };
    replay.begin();
    let mut lost = 0;
    while let Some(is_lost) = replay.step() {
        lost += usize::from(is_lost);
    }
    lost
}

// === impl Spans ===

impl Spans {
    fn of<'a>(outages: impl Iterator<Item = &'a Outage>) -> Self {
        let mut spans: Vec<_> = outages.map(|o| (o.from, o.to)).collect();
        spans.sort_by_key(|(from, _)| from.boot_ns());
        let mut apart: Vec<(Instant, Instant)> = Vec::new();
        for (from, to) in spans {
            match apart.last_mut().filter(|last| last.1.reached(from)) {
                Some(last) => last.1 = last.1.later(to),
                None => apart.push((from, to)),
            }
        }
        Self(apart)
    }

    /// The first that is not over by then.
    fn next(&self, now: Instant) -> Option<(Instant, Instant)> {
        self.0.get(self.0.partition_point(|(_, to)| now.reached(*to))).copied()
    }

    /// When the one that is under way is over, else `now`.
    fn over(&self, now: Instant) -> Instant {
        self.next(now).filter(|(from, _)| now.reached(*from)).map_or(now, |(_, to)| to)
    }
}

// === impl Replay ===

impl Replay {
    /// A new tenure begins.
    fn begin(&mut self) {
        self.lease = Lease::granted(LeaseId(1), self.timing.ttl(), self.now);
        self.renewal.restart(self.now, self.timing.leader_cadence(), 0);
        self.renewal.hurry(self.now);
        self.under_way.clear();
        self.is_answered = false;
    }

    /// The next thing that happens; `true`: leadership is lost by it. `None`: nothing more can happen to it.
    fn step(&mut self) -> Option<bool> {
        self.skip_quiet_time()?;
        let answered_at = self.under_way.front().map(|stamp| *stamp + self.answer);
        let due = self.renewal.due_at().earlier(self.lease.step_down_at());
        let due = answered_at.map_or(due, |at| at.earlier(due)).later(self.now);
        self.now = self.process.over(due);
        if self.now.reached(self.lease.step_down_at()) {
            self.now = self.process.over(self.store.over(self.now));
            self.begin();
            return Some(true);
        }
        if answered_at.is_some_and(|at| self.now.reached(at)) {
            self.confirm();
        } else if self.now.reached(self.renewal.due_at()) {
            self.renew();
        }
        Some(false)
    }

    fn renew(&mut self) {
        self.renewal.sent(self.now, self.timing);
        self.is_answered = false;
        let is_lost =
            self.store.next(self.now).is_some_and(|(from, _)| (self.now + self.answer).reached(from));
        if !is_lost {
            self.under_way.push_back(self.now);
        }
    }

    fn confirm(&mut self) {
        let Some(stamp) = self.under_way.pop_front() else { return };
        self.renewal.answered(self.timing.leader_cadence());
        self.renewal.acked(stamp, self.timing.ttl(), 0);
        let read = self.renewal.begin_read();
        for ack in self.renewal.validated(read, 0) {
            self.lease.extend(self.now, ack.stamp, ack.ttl);
        }
        self.is_answered = self.under_way.is_empty();
    }

    /// While nothing stalls, one cycle is like the next: goes on with the last but one before the next stall.
    fn skip_quiet_time(&mut self) -> Option<()> {
        if !self.is_answered {
            return Some(());
        }
        let begins = |spans: &Spans| spans.next(self.now).map(|(from, _)| from);
        let next = begins(&self.store).into_iter().chain(begins(&self.process)).reduce(Instant::earlier)?;
        let cycle = self.timing.leader_cadence();
        let stamp = self.renewal.due_at() - cycle;
        let quiet = stamp.until(next);
        if quiet < cycle * 4 + self.answer * 2 {
            return Some(());
        }
        let instant = Duration::from_millis(1);
        let stamp = match self.phase {
            CyclePhase::AsItComes => stamp + whole_cycles(quiet - self.answer, cycle),
            CyclePhase::Best => next - self.answer - instant,
            CyclePhase::Worst => next - self.answer - cycle + instant,
        };
        self.renewal.restart(stamp, cycle, 0);
        self.lease = Lease::granted(LeaseId(1), self.timing.ttl(), stamp);
        self.now = stamp + self.answer;
        Some(())
    }
}

/// As many whole cycles as fit, but for the last.
fn whole_cycles(time: Duration, cycle: Duration) -> Duration {
    let n = (time.as_nanos() / cycle.as_nanos().max(1)).saturating_sub(1);
    Duration::from_nanos(u64::try_from(n * cycle.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: Duration = Duration::from_millis(2);
    const TTL: Duration = Duration::from_secs(15);

    fn stall(of: StallOf, from_ms: u64, lasted_ms: u64) -> Outage {
        Outage { of, from: Instant::from_millis(from_ms), to: Instant::from_millis(from_ms + lasted_ms) }
    }

    fn lost(outages: &[Outage], phase: CyclePhase) -> usize {
        losses(outages, Instant::from_millis(0), TTL, ANSWER, phase)
    }

    #[test]
    fn no_stall_no_loss() {
        assert_eq!(lost(&[], CyclePhase::AsItComes), 0);
    }

    #[test]
    fn the_length_that_is_survived_for_sure_is_that_of_the_protocol() {
        let sure = crate::clock::millis(LeaseTiming::new(TTL).survived_stall(ANSWER));
        for from in (0..3_000).step_by(37).map(|ms| 600_000 + ms) {
            for phase in [CyclePhase::AsItComes, CyclePhase::Worst] {
                assert_eq!(lost(&[stall(StallOf::Store, from, sure)], phase), 0, "{from} {phase:?}");
            }
        }
        let more = |ms| lost(&[stall(StallOf::Store, 600_000, sure + ms)], CyclePhase::Worst);
        assert_eq!((more(200), more(0)), (1, 0), "c and r later nobody is sure");
        let best = |ms| lost(&[stall(StallOf::Store, 600_000, sure + ms)], CyclePhase::Best);
        assert_eq!((best(700), best(1_000)), (0, 1));
    }

    #[test]
    fn a_stall_of_many_leases_is_one_loss_and_two_that_follow_each_other_are_one_stall() {
        let phases = [CyclePhase::AsItComes, CyclePhase::Best, CyclePhase::Worst];
        for of in [StallOf::Store, StallOf::Process] {
            let lost = |outages: &[Outage]| phases.map(|phase| lost(outages, phase));
            assert_eq!(lost(&[stall(of, 100_000, 900_000)]), [1; 3]);
            assert_eq!(lost(&[stall(of, 100_000, 8_000), stall(of, 107_999, 8_000)]), [1; 3]);
            assert_eq!(lost(&[stall(of, 100_000, 8_000), stall(of, 110_000, 8_000)]), [0; 3]);
        }
        let both = [stall(StallOf::Process, 100_000, 8_000), stall(StallOf::Store, 107_000, 8_000)];
        assert_eq!(lost(&both, CyclePhase::AsItComes), 1, "one of the store that our own has hidden");
    }
}
