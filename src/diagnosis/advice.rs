//! Which lease? The stalls that this node has recorded while it led are replayed against leases of several lengths.
//!
//! What a recording can say: a stall is known to lie between two signs of life, and where in the cycle of renewals it would have
//! begun under another lease nobody knows; so a number of losses is a range, with the likely one. A stall that ended the
//! tenure is known as far as this node has seen it, and then only to have been over when it joined again.

pub mod replay;

use std::time::Duration;

use crate::clock::{Instant, millis};
use crate::election::lease::{LEASE_SECS_MIN, LeaseTiming};
use crate::journal::stalls::{RecordedStall, StallOf, StallRecord};
use replay::{CyclePhase, Outage, losses};

/// The leases that are tried, in seconds, besides the configured one.
const LADDER_SECS: [u64; 9] = [LEASE_SECS_MIN, 5, 10, 15, 20, 30, 60, 120, 300];
/// What is recommended to several nodes lies between these: the shortest leaves room for a retry, and after a crash of a machine
/// nobody waits for longer than the longest.
const RECOMMENDED_SECS: std::ops::RangeInclusive<u64> = 5..=60;
/// From this lease on a node is taken to be alone: nobody takes over from it.
const ALONE_SECS: u64 = 86_400;
/// Less time as the leader says nothing.
const ENOUGH: Duration = Duration::from_secs(24 * 3600);
/// Less is not enough to go down with the lease: a week has a weekend, a backup and a busy day.
const ENOUGH_FOR_LESS: Duration = Duration::from_secs(7 * 24 * 3600);
/// A month shows its worst stall; the next one's may be worse by this.
const RESERVE: f64 = 1.5;
/// How long after the end of its lease a dead machine is replaced at the latest.
const EXPIRY_LAG: Duration = Duration::from_millis(500);

/// A lease, and what it would have come to.
#[derive(Clone, Debug, PartialEq)]
pub struct LeaseCandidate {
    /// The lease.
    pub ttl: Duration,
    /// How often leadership would have been lost: at least, probably, at most.
    pub losses: [usize; 3],
    /// The longest stall of the store that it survives for sure.
    pub survives: Duration,
    /// How long there is no leader at most after a crash of the leader's machine.
    pub machine_dies: Duration,
}

/// What the recording says.
#[derive(Clone, Debug, PartialEq)]
pub struct LeaseAdvice {
    /// The configured lease.
    pub configured: Duration,
    /// When the recording began, in milliseconds since the Unix epoch; `None`: there is none.
    pub began_ms: Option<u64>,
    /// For how long this node has led in it.
    pub led: Duration,
    /// How long a renewal and its validating read took together, on average.
    pub answer: Duration,
    /// The least part of the lease that was left at a renewal.
    pub lowest_headroom: Option<f64>,
    /// How many stalls there were: of the store, and of this process.
    pub stalls: [usize; 2],
    /// The longest of each.
    pub longest: [Duration; 2],
    /// How many are not among them, because their hour had worse ones.
    pub left_out: u64,
    /// How often leadership was lost by them.
    pub lost: usize,
    /// How many of those nobody has seen to end.
    pub unended: usize,
    /// The leases that were in force at the stalls.
    pub recorded_under: Vec<Duration>,
    /// The leases that were tried, the shortest first.
    pub candidates: Vec<LeaseCandidate>,
    /// The lease that is recommended; `None`: there is too little to say so.
    pub recommended: Option<Duration>,
    /// Why.
    pub why: String,
}

/// As how long a stall counts.
#[derive(Clone, Copy)]
enum Length {
    Least,
    Middle,
    Most,
}

/// What the recording says about this lease, and others. `is_alone`: there is no other node that could take over.
pub fn advise(record: &StallRecord, configured: Duration, is_alone: bool) -> LeaseAdvice {
    let stalls = record.stalls();
    let of = |of: StallOf| stalls.iter().filter(move |s| s.of == of);
    let longest = |kind| Duration::from_millis(of(kind).map(worst_ms).max().unwrap_or(0));
    let mut leases: Vec<Duration> = LADDER_SECS.map(Duration::from_secs).to_vec();
    leases.push(configured);
    leases.sort_unstable();
    leases.dedup();
    let lowest = record.hours().filter(|h| h.renewals > 0).map(|h| h.lowest_permille).min();
    let mut recorded_under: Vec<_> = stalls.iter().map(|s| Duration::from_millis(s.ttl_ms)).collect();
    recorded_under.sort_unstable();
    recorded_under.dedup();
    let mut advice = LeaseAdvice {
        configured,
        began_ms: record.began_ms(),
        led: record.led(),
        answer: record.mean_answer(),
        lowest_headroom: lowest.map(|permille| permille as f64 / 1000.0),
        stalls: [of(StallOf::Store).count(), of(StallOf::Process).count()],
        longest: [longest(StallOf::Store), longest(StallOf::Process)],
        left_out: record.hours().map(|h| h.stalls_left_out).sum(),
        lost: stalls.iter().filter(|s| s.lost).count(),
        unended: stalls.iter().filter(|s| s.most_ms.is_none()).count(),
        recorded_under,
        candidates: leases.into_iter().map(|ttl| candidate(record, ttl)).collect(),
        recommended: None,
        why: String::new(),
    };
    (advice.recommended, advice.why) = advice.recommend(is_alone || configured.as_secs() >= ALONE_SECS);
    advice
}

/// What one lease would have come to.
pub fn candidate(record: &StallRecord, ttl: Duration) -> LeaseCandidate {
    let (timing, answer) = (LeaseTiming::new(ttl), record.mean_answer());
    let replayed = |length, phase| {
        let outages: Vec<Outage> = record.stalls().iter().map(|s| outage(s, length, timing)).collect();
        losses(&outages, Instant::default(), ttl, answer, phase)
    };
    let least = replayed(Length::Least, CyclePhase::Best);
    let most = replayed(Length::Most, CyclePhase::Worst).max(least);
    let likely = replayed(Length::Middle, CyclePhase::AsItComes).clamp(least, most);
    LeaseCandidate {
        ttl,
        losses: [least, likely, most],
        survives: timing.survived_stall(answer),
        machine_dies: ttl + EXPIRY_LAG,
    }
}

fn worst_ms(stall: &RecordedStall) -> u64 {
    stall.most_ms.unwrap_or(stall.least_ms)
}

/// A stall as an outage of a length within its bounds. What nobody has seen to end lasts longer than any lease at most, and what
/// has cost a lease costs every shorter one.
fn outage(stall: &RecordedStall, length: Length, timing: LeaseTiming) -> Outage {
    let (of, ttl) = (stall.of, timing.ttl());
    let known_least = Duration::from_millis(stall.least_ms);
    let is_lost = stall.lost && millis(ttl) <= stall.ttl_ms;
    let least = if is_lost { known_least.max(ttl) } else { known_least };
    let most = stall.most_ms.map_or(ttl * 2, Duration::from_millis).max(least);
    // The attempt that ends a stall of the store leaves up to one retry after its end: where the range begins and ends.
    let retry = if of == StallOf::Store { timing.retry_cadence() } else { Duration::ZERO };
    let lasted = match length {
        Length::Least if is_lost => least,
        Length::Least => least.saturating_sub(retry),
        Length::Middle if stall.most_ms.is_none() => least,
        // It was over when the node was back, which was started again meanwhile; a tenure's end is no better bound.
        Length::Middle if stall.lost => most,
        Length::Middle => (least + most) / 2,
        Length::Most => most + retry,
    };
    let ended = Instant::from_millis(stall.ended_ms);
    if stall.lost {
        // Its beginning was seen, its end at most from afar.
        let from = ended - known_least;
        return Outage { of, from, to: from + lasted };
    }
    Outage { of, from: ended - lasted, to: ended }
}

// === impl LeaseAdvice ===

impl LeaseAdvice {
    /// What the configured lease would have come to.
    pub fn of_configured(&self) -> Option<&LeaseCandidate> {
        self.candidates.iter().find(|c| c.ttl == self.configured)
    }

    /// Is there enough to say something?
    pub fn is_enough(&self) -> bool {
        self.led >= ENOUGH
    }

    fn longest_of_all(&self) -> Duration {
        self.longest.into_iter().max().unwrap_or_default()
    }

    /// Would it have held whatever nobody knows, and would it with a stall that is worse than the worst?
    fn holds(&self, candidate: &LeaseCandidate) -> bool {
        candidate.losses[2] == 0 && candidate.survives >= self.longest_of_all().mul_f64(RESERVE)
    }

    fn recommend(&self, is_alone: bool) -> (Option<Duration>, String) {
        if is_alone {
            let why = "no other node takes over from this one, so a shorter lease only adds reasons to exit";
            return (Some(self.configured.max(Duration::from_secs(ALONE_SECS))), why.to_owned());
        }
        if !self.is_enough() {
            let why = format!(
                "not enough data: this node has led for {} of the recorded time, and {} are needed; ask the node that leads, or \
                 ask again later",
                words(self.led),
                words(ENOUGH)
            );
            return (None, why);
        }
        let fits = |c: &&LeaseCandidate| RECOMMENDED_SECS.contains(&c.ttl.as_secs());
        let shortest = self.candidates.iter().filter(fits).find(|c| self.holds(c));
        let longest = words(self.longest_of_all());
        match (self.of_configured().filter(|c| self.holds(c)), shortest) {
            (Some(now), Some(less)) if less.ttl < now.ttl && self.led >= ENOUGH_FOR_LESS => {
                let why = format!(
                    "the longest stall was {longest}; a lease of {} survives {}, and a dead machine is replaced {} sooner",
                    words(less.ttl),
                    words(less.survives),
                    words(now.ttl - less.ttl)
                );
                (Some(less.ttl), why)
            }
            (Some(now), less) => {
                let mut why =
                    format!("the longest stall was {longest}, and it survives {}", words(now.survives));
                if let Some(less) = less.filter(|less| less.ttl < now.ttl) {
                    let (less, week) = (words(less.ttl), words(ENOUGH_FOR_LESS));
                    why += &format!("; {less} would have held too, but to go down takes {week} of leading");
                }
                (Some(now.ttl), why)
            }
            (None, Some(more)) => {
                let why = format!(
                    "the longest stall was {longest}; {} is the shortest lease that survives it with a reserve of half as much",
                    words(more.ttl)
                );
                (Some(more.ttl), why)
            }
            (None, None) => self.recommend_the_best(&longest),
        }
    }

    /// None holds: the one that loses least; of those the configured one, else the shortest.
    fn recommend_the_best(&self, longest: &str) -> (Option<Duration>, String) {
        let fits = self.candidates.iter().filter(|c| RECOMMENDED_SECS.contains(&c.ttl.as_secs()));
        let best = fits.min_by_key(|c| (c.losses[1], c.losses[2], c.ttl != self.configured, c.ttl));
        let unended = match self.unended {
            0 => String::new(),
            n => format!(" ({n} of the stalls ended a tenure and nobody has seen them end)"),
        };
        let why = format!(
            "no lease up to {} s survives the longest stall, {longest}{unended}, with a reserve: find its cause; metad doctor \
             shows whether disk, network or CPU is slow",
            RECOMMENDED_SECS.end()
        );
        (best.map(|c| c.ttl), why)
    }
}

/// A span of time, as short as it can be read.
pub fn words(d: Duration) -> String {
    let ms = millis(d);
    match ms / 1000 {
        0 => format!("{ms} ms"),
        s @ 1..120 if ms.is_multiple_of(1000) => format!("{s} s"),
        1..120 => format!("{:.1} s", ms as f64 / 1000.0),
        s @ 120..7_200 => format!("{} min", s / 60),
        s @ 7_200..172_800 => format!("{} h", s / 3_600),
        s => format!("{} d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::stalls::{RecordedHour, StallLine};

    const HOUR_MS: u64 = 3_600_000;

    fn record(hours: u64, stalls: &[(StallOf, u64, Option<u64>)]) -> StallRecord {
        let mut record = StallRecord::default();
        for hour in 0..hours {
            let renewed = RecordedHour {
                led_ms: HOUR_MS,
                renewals: 4_000,
                answers_us: 8_000_000,
                ..RecordedHour::at(0)
            };
            record.take(StallLine::Hour(RecordedHour { hour: 1_000 + hour, ..renewed }));
        }
        for (i, (of, least_ms, most_ms)) in stalls.iter().enumerate() {
            let stall = RecordedStall {
                of: *of,
                ended_ms: (1_001 + i as u64) * HOUR_MS,
                least_ms: *least_ms,
                most_ms: *most_ms,
                ttl_ms: 15_000,
                lost: most_ms.is_none(),
            };
            record.take(StallLine::Stall(stall));
        }
        record
    }

    fn advise(record: &StallRecord, secs: u64) -> LeaseAdvice {
        super::advise(record, Duration::from_secs(secs), false)
    }

    fn losses(advice: &LeaseAdvice, secs: u64) -> [usize; 3] {
        advice.candidates.iter().find(|c| c.ttl.as_secs() == secs).expect("a candidate").losses
    }

    #[test]
    fn too_little_says_nothing_and_says_so() {
        for record in [StallRecord::default(), record(23, &[(StallOf::Store, 2_000, Some(2_100))])] {
            let advice = advise(&record, 15);
            assert_eq!(advice.recommended, None);
            assert!(advice.why.starts_with("not enough data: this node has led for "), "{}", advice.why);
        }
    }

    #[test]
    fn a_range_is_as_wide_as_what_nobody_knows() {
        let one = |least, most| advise(&record(48, &[(StallOf::Store, least, Some(most))]), 15);
        assert_eq!(losses(&one(8_000, 8_700), 15), [0, 0, 0]);
        assert_eq!(losses(&one(8_000, 8_700), 5), [1, 1, 1]);
        let [least, _, most] = losses(&one(9_000, 9_700), 10);
        assert_eq!((least, most), (0, 1));
        let ended_a_tenure = advise(&record(48, &[(StallOf::Process, 14_000, None)]), 15);
        assert_eq!((losses(&ended_a_tenure, 10), losses(&ended_a_tenure, 300)), ([1, 1, 1], [0, 0, 1]));
        assert_eq!((ended_a_tenure.lost, ended_a_tenure.unended), (1, 1));
    }

    #[test]
    fn the_shortest_lease_that_holds_with_a_reserve_is_recommended() {
        let of = |hours, stall_ms: u64, secs| {
            let advice = advise(&record(hours, &[(StallOf::Store, stall_ms, Some(stall_ms))]), secs);
            advice.recommended.map(|d| d.as_secs()).unwrap()
        };
        assert_eq!(of(48, 16_000, 15), 30, "15 s would have been lost");
        assert_eq!(of(48, 12_000, 15), 20, "15 s would have held, with no reserve");
        assert_eq!(of(48, 1_000, 15), 15, "two days are not enough to go down");
        assert_eq!(of(24 * 8, 1_000, 15), 5);
        assert_eq!(
            of(24 * 8, 1_000, 4),
            4,
            "what is configured holds, and is shorter than what is recommended"
        );
        assert_eq!(of(48, 70_000, 15), 15, "none of those that are recommended holds, or is better");
        assert_eq!(of(48, 50_000, 15), 60, "it holds, with no reserve");
        let alone = super::advise(&StallRecord::default(), Duration::from_secs(15), true);
        assert_eq!(alone.recommended, Some(Duration::from_secs(86_400)));
    }
}
