//! Who leads, how that changed, and how long nobody did.

use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::{ReasonLabel, ResultLabel};
use crate::clock::Instant;
use crate::election::departure::Departure;
use crate::telemetry::event::Event;

/// From a hand-over in one write to a lease of a minute.
const FAILOVER_BUCKETS_SECS: [f64; 14] =
    [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0];
/// The termination that does not end a tenure.
const CANDIDATE_LEASE_LOST: &str = "candidate_lease_lost";

pub(super) struct ElectionMetrics {
    node: String,
    leads: Family<NameLabel, Gauge>,
    token: Gauge<u64, AtomicU64>,
    frozen: Gauge,
    probe_failing: Gauge,
    changes: Family<HowLabel, Counter>,
    failovers: Histogram,
    transitions: Family<TransitionLabels, Counter>,
    terminations: Family<ReasonLabel, Counter>,
    claims: Family<ResultLabel, Counter>,
    hook_runs: Family<ResultLabel, Counter>,
    /// While nobody leads.
    vacancy: Mutex<Option<Vacancy>>,
}

struct Vacancy {
    since: Instant,
    /// How the last leader left.
    how: Departure,
    /// Was the election frozen meanwhile? Then its length says nothing about fail-overs.
    is_frozen: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NameLabel {
    name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HowLabel {
    how: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TransitionLabels {
    direction: &'static str,
    reason: &'static str,
}

// === impl ElectionMetrics ===

impl ElectionMetrics {
    pub(super) fn new(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            leads: Family::default(),
            token: Gauge::default(),
            frozen: Gauge::default(),
            probe_failing: Gauge::default(),
            changes: Family::default(),
            failovers: Histogram::new(FAILOVER_BUCKETS_SECS),
            transitions: Family::default(),
            terminations: Family::default(),
            claims: Family::default(),
            hook_runs: Family::default(),
            vacancy: Mutex::default(),
        }
    }

    pub(super) fn register(&self, r: &mut Registry) {
        r.register(
            "leader_election_master_status",
            "1 while this node's main loop runs; the name that Kubernetes components use",
            self.leads.clone(),
        );
        r.register(
            "metad_leader_token",
            "Fencing token of the leader seen last; differs between nodes while one has an outdated view",
            self.token.clone(),
        );
        r.register(
            "metad_election_frozen",
            "1 while the election is frozen (metad freeze), as this node sees it: nobody takes over",
            self.frozen.clone(),
        );
        r.register(
            "metad_probe_failing",
            "1 while a probe of this node fails (meta.probe_command, meta.probe_disk): it does not take over, and as the \
             leader makes way once it has failed for meta.probe_failure_secs",
            self.probe_failing.clone(),
        );
        r.register(
            "metad_leader_changes_seen",
            "Leaders that followed another, by how that one left: handed_over, given_up, vanished (killed, \
             hung or cut off), reclaimed (killed and back)",
            self.changes.clone(),
        );
        r.register(
            "metad_failover_duration_seconds",
            "Time without a leader record between two leaders, as this node saw it; a hand-over in one write \
             is 0; a leader whose machine died keeps its record until its lease ends, which is not in here, nor is \
             a time in which the election was frozen",
            self.failovers.clone(),
        );
        r.register(
            "metad_leadership_transitions",
            "Own leaderships gained and lost, and why",
            self.transitions.clone(),
        );
        r.register(
            "metad_lease_terminations",
            "Own leases that ended: a tenure's with its reason, a candidate's as candidate_lease_lost",
            self.terminations.clone(),
        );
        r.register(
            "metad_election_campaigns",
            "Claims of a vacancy: won, lost to another member, or refused by the store (it is full, or \
             forbids it)",
            self.claims.clone(),
        );
        r.register(
            "metad_leader_hook_runs",
            "Runs of meta.on_leader_change: ok, failed (another exit code than 0), timeout (killed) or \
             not_started",
            self.hook_runs.clone(),
        );
        self.show_zeros();
    }

    /// A counter that appears with its first event has never risen, as far as Prometheus can see.
    fn show_zeros(&self) {
        self.set_leads(false);
        for how in Departure::ALL {
            let _ = self.changes.get_or_create(&HowLabel { how: how.as_str() });
        }
        let _ = self.transitions.get_or_create(&TransitionLabels { direction: "gained", reason: "won" });
        let _ = self.terminations.get_or_create(&ReasonLabel { reason: CANDIDATE_LEASE_LOST });
        for result in ["won", "lost"] {
            let _ = self.claims.get_or_create(&ResultLabel { result });
        }
        for result in ["ok", "failed", "timeout", "not_started"] {
            let _ = self.hook_runs.get_or_create(&ResultLabel { result });
        }
    }

    pub(super) fn count(&self, event: &Event) {
        match event {
            Event::LeaderChanged { token: Some(token), .. } => {
                self.token.set(token.get());
            }
            Event::LeadershipWon { .. } => self.claim("won"),
            Event::ClaimLost => self.claim("lost"),
            Event::Frozen { .. } => self.froze(),
            Event::Unfrozen => drop(self.frozen.set(0)),
            Event::ClaimRefused { .. } => self.claim("refused"),
            Event::MainLoopStarted { .. } => {
                self.set_leads(true);
                self.transition("gained", "won");
            }
            Event::MainLoopStopped { reason, .. } => {
                self.set_leads(false);
                self.transition("lost", reason.as_str());
                self.terminated(reason.as_str());
            }
            Event::LeaderHookEnded(ended) => {
                self.hook_runs.get_or_create(&ResultLabel { result: ended.result }).inc();
            }
            Event::Rejoining => self.terminated(CANDIDATE_LEASE_LOST),
            _ => {}
        }
    }

    /// For how long nobody has led, if this node has seen the last leader go.
    pub(super) fn vacant_for(&self, now: Instant) -> Option<Duration> {
        let vacancy = self.vacancy.lock().unwrap_or_else(|e| e.into_inner());
        vacancy.as_ref().map(|vacancy| now.since(vacancy.since))
    }

    /// The record has changed: how its holder left (`None`: nobody led), and whether somebody leads now.
    pub(super) fn leader_changed(&self, now: Instant, left: Option<Departure>, is_held: bool) {
        let mut vacancy = self.vacancy.lock().unwrap_or_else(|e| e.into_inner());
        let gap = match left {
            Some(how) => Some(Vacancy { since: now, how, is_frozen: self.frozen.get() == 1 }),
            None => vacancy.take(), // `None` still: the first leader that we see followed nobody
        };
        if !is_held {
            *vacancy = gap;
            return;
        }
        *vacancy = None;
        if let Some(Vacancy { since, how, is_frozen }) = gap {
            if !is_frozen {
                self.failovers.observe(now.since(since).as_secs_f64());
            }
            self.changes.get_or_create(&HowLabel { how: how.as_str() }).inc();
        }
    }

    fn froze(&self) {
        self.frozen.set(1);
        if let Some(vacancy) = self.vacancy.lock().unwrap_or_else(|e| e.into_inner()).as_mut() {
            vacancy.is_frozen = true;
        }
    }

    pub(super) fn set_probe_failing(&self, fails: bool) {
        self.probe_failing.set(i64::from(fails));
    }

    fn claim(&self, result: &'static str) {
        self.claims.get_or_create(&ResultLabel { result }).inc();
    }

    fn transition(&self, direction: &'static str, reason: &'static str) {
        self.transitions.get_or_create(&TransitionLabels { direction, reason }).inc();
    }

    fn terminated(&self, reason: &'static str) {
        self.terminations.get_or_create(&ReasonLabel { reason }).inc();
    }

    fn set_leads(&self, leads: bool) {
        self.leads.get_or_create(&NameLabel { name: self.node.clone() }).set(i64::from(leads));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fail_over_is_counted_with_its_gap_and_its_cause() {
        let m = ElectionMetrics::new("n");
        let mut registry = Registry::default();
        m.register(&mut registry);
        let has = |line: &str| {
            let mut page = String::new();
            prometheus_client::encoding::text::encode(&mut page, &registry).expect("a page");
            assert!(page.lines().any(|l| l == line), "{line} in {page}");
        };
        let at = Instant::from_millis;
        m.leader_changed(at(0), None, true);
        has("metad_failover_duration_seconds_count 0"); // the first leader that is seen followed nobody
        m.leader_changed(at(1_000), Some(Departure::Vanished), false);
        m.leader_changed(at(3_500), None, true);
        m.leader_changed(at(4_000), Some(Departure::HandedOver), true);
        has("metad_failover_duration_seconds_count 2");
        has("metad_failover_duration_seconds_sum 2.5");
        has("metad_leader_changes_seen_total{how=\"handed_over\"} 1");
        has("metad_leader_changes_seen_total{how=\"vanished\"} 1");
        has("metad_leader_changes_seen_total{how=\"reclaimed\"} 0");
    }

    #[test]
    fn a_vacancy_in_a_freeze_is_no_fail_over() {
        let m = ElectionMetrics::new("n");
        let mut registry = Registry::default();
        m.register(&mut registry);
        let frozen = Event::Frozen { reason: "r".into(), by: "b".into(), until_ms: None };
        let (at, gone) = (Instant::from_millis, Some(Departure::Vanished));
        // Frozen before the leader goes, or while nobody leads; and the twin: unfrozen before it goes.
        m.count(&frozen);
        m.leader_changed(at(1_000), gone, false);
        m.count(&Event::Unfrozen);
        m.leader_changed(at(9_000), None, true);
        m.leader_changed(at(10_000), gone, false);
        m.count(&frozen);
        m.count(&Event::Unfrozen);
        m.leader_changed(at(19_000), None, true);
        m.leader_changed(at(20_000), gone, false);
        m.leader_changed(at(20_500), None, true);
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &registry).expect("a page");
        for line in [
            "metad_failover_duration_seconds_count 1",
            "metad_failover_duration_seconds_sum 0.5",
            "metad_leader_changes_seen_total{how=\"vanished\"} 3",
        ] {
            assert!(page.lines().any(|l| l == line), "{line} in {page}");
        }
    }
}
