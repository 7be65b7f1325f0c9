//! The checks of a running node: the cheap ones every minute, and those of the leadership at every change of it.
//!
//! They run on the main runtime, never on the driver's thread, and one look at a time. What was found last is kept
//! for gRPC, HTTP and the metrics to show; a result that differs from the last one is an event, once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::changes::{self, Change};
use super::collect::etcd::EtcdCollector;
use super::collect::host::HostCollector;
use super::collect::{Depth, meta};
use super::facts::{Burden, Facts, MetaFacts, PastFacts};
use super::measured::Measured;
use super::{CHECKS, Check, Finding, Report, Status};
use crate::clock::{Clock, Instant, wall_clock_ms};
use crate::config::{ChecksConfig, Config};
use crate::diagnosis::prober::ProbeRound;
use crate::election::record::{Incarnation, Member, MemberUuid};
use crate::election::status::{self, Role};
use crate::journal::Past;
use crate::telemetry::metrics::Usage;
use crate::telemetry::{Event, Telemetry};
use crate::tls::client::Credentials;

/// The first look comes so late at most: a node that has just started has no leader yet.
const FIRST_LOOK: Duration = Duration::from_secs(10);
/// How often the clock is looked at, to see whether it stood still.
const TICK: Duration = Duration::from_secs(1);
/// How many starts of nodes are remembered, and how many nodes.
const PAST_MAX: usize = 256;
/// The headroom that is judged is at least that of so long: the series has steps of ten seconds.
const HEADROOM_MIN: Duration = Duration::from_secs(60);
/// The checks that are made whenever what they count has changed, and not only at a look.
pub const AT_ONCE: [&str; 2] = ["LEADER_003", "CLUSTER_005"];

/// What was found last.
#[derive(Clone, Debug, Default)]
pub struct Latest {
    /// When, in milliseconds since the Unix epoch; 0: not yet.
    pub at_ms: u64,
    /// What, in the order of [`CHECKS`].
    pub findings: Vec<Finding>,
    /// The numbers behind it, of the last whole look.
    pub measured: Measured,
    /// What this process used before that look.
    pub burden: Option<Burden>,
    /// What this node runs with, as [`Config::told`] has it.
    pub settings: Arc<[(&'static str, String)]>,
}

/// What the checks of a running node need.
pub struct BackgroundParts {
    /// Its configuration.
    pub config: Config,
    /// Its limits, whenever they are read again. Certificates may be others then, too.
    pub limits: watch::Receiver<ChecksConfig>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Where to tell.
    pub telemetry: Telemetry,
    /// The history, as this node reads it.
    pub history: watch::Receiver<Arc<Past>>,
    /// The driver's snapshots.
    pub snapshots: watch::Receiver<Arc<status::Status>>,
    /// What other members are shown.
    pub credentials: Credentials,
    /// What the prober has seen last.
    pub looks: watch::Receiver<Arc<ProbeRound>>,
}

/// The collectors; away while a look is under way.
struct Collectors {
    etcd: Option<EtcdCollector>,
    host: HostCollector,
}

struct Background {
    parts: BackgroundParts,
    memory: Memory,
    latest: watch::Sender<Arc<Latest>>,
}

/// What was seen so far.
struct Memory {
    /// When which node has started.
    starts: VecDeque<(u64, String)>,
    /// The last start of each node that was seen.
    nodes: BTreeMap<String, (MemberUuid, Incarnation)>,
    /// What was told of each check last: one that is not made for a while has not changed.
    told: BTreeMap<String, Status>,
    leaderless_since: Option<Instant>,
    /// How many unplanned changes of the leader, and starts of nodes, there were in the window.
    counted: (usize, usize),
    stood_still: Duration,
    ticked_at: Instant,
    /// What the process had used at the last look, and when that was.
    used: (Usage, Instant),
}

/// Begins to check. The future ends with the node; the receiver shows what was found last.
pub fn start(parts: BackgroundParts) -> (watch::Receiver<Arc<Latest>>, impl Future<Output = ()> + Send) {
    let (latest, receiver) =
        watch::channel(Arc::new(Latest { settings: parts.config.told().into(), ..Latest::default() }));
    let memory = Memory::new(parts.clock.now());
    let background = Background { parts, memory, latest };
    (receiver, background.run())
}

// === impl Collectors ===

impl Collectors {
    /// Certificates may be others now. What was counted so far still counts.
    fn reopen(&mut self) {
        self.etcd.iter_mut().for_each(EtcdCollector::reopen);
    }
}

// === impl Background ===

impl Background {
    async fn run(mut self) {
        // At most one look at a time: it takes the collectors along and brings them back.
        let (mut collectors, mut looks) = (Some(self.collectors()), JoinSet::new());
        let mut is_stale = false;
        let mut next = self.due(FIRST_LOOK);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                changed = self.parts.snapshots.changed() => match changed {
                    Ok(()) => self.see(),
                    Err(_) => return, // no driver: the node is ending
                },
                _ = tick.tick() => {
                    let now = self.parts.clock.now();
                    self.memory.tick(now);
                    self.count_changes();
                    if self.take_limits() {
                        // A look that is under way has the old certificates.
                        is_stale = collectors.is_none();
                        collectors.iter_mut().for_each(Collectors::reopen);
                        next = self.due(Duration::ZERO);
                    }
                    if next.is_some_and(|at| now.reached(at)) && let Some(with) = collectors.take() {
                        next = self.due(Duration::MAX);
                        looks.spawn(self.look(with));
                    }
                }
                Some(done) = looks.join_next() => {
                    collectors = Some(match done {
                        Ok((mut with, _)) if std::mem::take(&mut is_stale) => {
                            with.reopen();
                            with
                        }
                        Ok((with, facts)) => {
                            self.judge(facts);
                            with
                        }
                        Err(_) => self.collectors(), // it has panicked: begin anew
                    });
                }
            }
        }
    }

    /// A look; the collectors come back from it. What etcd's members say of themselves the prober has just asked.
    fn look(&self, mut with: Collectors) -> impl Future<Output = (Collectors, Facts)> + Send + use<> {
        let (mut facts, known) = (Facts::of(self.parts.config.clone(), vec![]), self.known());
        let credentials = self.parts.credentials.clone();
        let (probes, clock) = (self.parts.looks.borrow().probes.clone(), self.parts.clock.clone());
        async move {
            facts.host = Some(with.host.collect(Depth::CHEAP).await);
            if let Some(etcd) = with.etcd.as_mut().filter(|_| !probes.is_empty()) {
                facts.etcd = Some(etcd.collect(Depth::CHEAP, Some(probes)).await);
            }
            facts.meta = Some(meta::collect(known, &[], &credentials, &clock).await);
            (with, facts)
        }
    }

    fn every(&self) -> Duration {
        Duration::from_secs(self.parts.config.checks.interval_secs)
    }

    /// When the next look is due, in so long at most; never, if the checks are off.
    fn due(&self, at_most: Duration) -> Option<Instant> {
        let every = self.every();
        (!every.is_zero()).then(|| self.parts.clock.now() + every.min(at_most))
    }

    /// Were the limits read again?
    fn take_limits(&mut self) -> bool {
        let is_new = self.parts.limits.has_changed().unwrap_or(false);
        if is_new {
            self.parts.config.checks = self.parts.limits.borrow_and_update().clone();
        }
        if is_new && self.every().is_zero() {
            // What was found would be shown for ever.
            self.publish(Latest::default());
            self.memory.told.clear();
        }
        is_new
    }

    fn collectors(&self) -> Collectors {
        let (config, clock) = (&self.parts.config, &self.parts.clock);
        // What cannot be opened here has not been opened by the driver either, and that says so.
        let etcd = config.store.is_etcd().then(|| EtcdCollector::new(config, clock.clone()).ok()).flatten();
        Collectors { etcd, host: HostCollector::new(config, true, clock.clone()) }
    }

    fn changes(&self) -> Vec<Change> {
        changes::of_rows(&self.parts.history.borrow().rows, wall_clock_ms())
    }

    fn past(&self) -> PastFacts {
        self.memory.facts(self.parts.clock.now(), self.changes(), self.headroom())
    }

    /// The least part of the lease that was left lately, as the driver has measured it; `None` while we do not lead.
    fn headroom(&self) -> Option<f64> {
        let leads = self.parts.snapshots.borrow().role == Role::Leader;
        let lately = || self.parts.telemetry.headroom(self.every().max(HEADROOM_MIN));
        let least = leads.then(lately)?.points.iter().map(|p| p.min).reduce(f32::min)?;
        Some(f64::from(least))
    }

    /// Have there been more unplanned changes or starts, or fewer, because the window has moved on?
    fn count_changes(&mut self) {
        let (now_ms, window_ms) =
            (wall_clock_ms(), self.parts.config.checks.leader_change_window_secs * 1000);
        let unplanned = changes::unplanned(&self.changes(), now_ms, window_ms).count();
        let counted = (unplanned, self.memory.starts_since(now_ms.saturating_sub(window_ms)));
        if std::mem::replace(&mut self.memory.counted, counted) != counted {
            self.judge_at_once();
        }
    }

    /// What the driver sees in the store.
    fn known(&self) -> MetaFacts {
        let led = self.parts.history.borrow().rows.iter().map(|row| row.holder.node.clone()).collect();
        let status = self.parts.snapshots.borrow().clone();
        let is_read = !status.is_outdated(self.parts.clock.now());
        MetaFacts { led, is_read, ..meta::of_view(&status.view) }
    }

    fn see(&mut self) {
        let now = self.parts.clock.now();
        let snapshot = self.parts.snapshots.borrow_and_update().clone();
        // A leader's snapshot changes with each renewal, so the history is not counted here but once a second.
        self.memory.see(now, &snapshot);
    }

    /// What is remembered alone is enough for these.
    fn judge_at_once(&mut self) {
        if self.every().is_zero() {
            return;
        }
        let mut facts = Facts::of(self.parts.config.clone(), vec![]);
        facts.past = Some(self.past());
        let fresh = judged(CHECKS.iter().filter(|c| AT_ONCE.contains(&c.code)), &facts);
        let mut latest = Latest::clone(&self.latest.borrow());
        latest.findings.retain(|old| !fresh.iter().any(|f| f.code == old.code));
        latest.findings.extend(fresh);
        self.publish(latest);
    }

    fn judge(&mut self, mut facts: Facts) {
        let past = self.past();
        let burden = Some(self.memory.burden(self.parts.clock.now(), past.headroom));
        facts.past = Some(past);
        facts.config.checks = self.parts.config.checks.clone();
        self.memory.stood_still = Duration::ZERO; // it counts until the next look
        let findings = judged(CHECKS.iter(), &facts);
        let at_ms = wall_clock_ms();
        let settings = self.parts.config.told().into();
        self.publish(Latest { at_ms, findings, measured: Measured::of(&facts), burden, settings });
    }

    fn publish(&mut self, mut fresh: Latest) {
        let findings = &mut fresh.findings;
        findings.sort_by_key(|f| CHECKS.iter().position(|c| c.code == f.code));
        let before = self.latest.borrow().clone();
        for f in findings.iter() {
            self.parts.telemetry.metrics().check_made(&f.code, f.status.code());
            let was = self.memory.told.insert(f.code.clone(), f.status).unwrap_or(Status::Pass);
            if was != f.status {
                self.parts.telemetry.emit(changed(f, was));
            }
        }
        for gone in before.findings.iter().filter(|b| !findings.iter().any(|f| f.code == b.code)) {
            self.parts.telemetry.metrics().check_not_made(&gone.code);
        }
        self.latest.send_replace(Arc::new(fresh));
    }
}

fn changed(f: &Finding, was: Status) -> Event {
    Event::CheckChanged {
        code: f.code.clone(),
        name: f.name.clone(),
        from: was.as_str(),
        status: f.status.as_str(),
        measured: f.measured.clone(),
        fix: f.fix.clone(),
    }
}

fn judged<'c>(checks: impl Iterator<Item = &'c Check>, facts: &Facts) -> Vec<Finding> {
    let mut report = Report::default();
    report.judge(checks, facts);
    report.findings
}

// === impl Memory ===

impl Memory {
    fn new(now: Instant) -> Self {
        Self {
            starts: VecDeque::new(),
            leaderless_since: Some(now),
            counted: (0, 0),
            nodes: BTreeMap::new(),
            told: BTreeMap::new(),
            stood_still: Duration::ZERO,
            ticked_at: now,
            used: (Usage::now(), now),
        }
    }

    fn see(&mut self, now: Instant, snapshot: &status::Status) {
        if snapshot.leader().is_some() {
            self.leaderless_since = None;
        } else {
            self.leaderless_since.get_or_insert(now);
        }
        self.note_starts(&snapshot.view.members);
    }

    fn starts_since(&self, from_ms: u64) -> usize {
        self.starts.iter().filter(|(at_ms, _)| *at_ms > from_ms).count()
    }

    /// A registration that has only come back, because a lease was lost or the store was away, is no start; nor is one
    /// that was there before us.
    fn note_starts(&mut self, members: &[Member]) {
        let is_first = self.nodes.is_empty();
        for id in members.iter().map(|m| &m.registration.member) {
            let start = (id.uuid, id.incarnation);
            if self.nodes.get(&id.node) != Some(&start) {
                if self.nodes.len() == PAST_MAX {
                    self.nodes.clear(); // names that never come back
                }
                self.nodes.insert(id.node.clone(), start);
                if !is_first {
                    push(&mut self.starts, (wall_clock_ms(), id.node.clone()));
                }
            }
        }
    }

    fn tick(&mut self, now: Instant) {
        self.stood_still = self.stood_still.max(now.since(self.ticked_at).saturating_sub(TICK));
        self.ticked_at = now;
    }

    fn facts(&self, now: Instant, changes: Vec<Change>, headroom: Option<f64>) -> PastFacts {
        PastFacts {
            now_ms: wall_clock_ms(),
            changes,
            starts: self.starts.iter().cloned().collect(),
            leaderless: self.leaderless_since.map(|at| now.since(at)),
            stood_still: self.stood_still,
            headroom,
        }
    }

    fn burden(&mut self, now: Instant, headroom: Option<f64>) -> Burden {
        let usage = Usage::now();
        let (before, at) = std::mem::replace(&mut self.used, (usage, now));
        let cpu_percent = (usage.cpu_secs - before.cpu_secs) * 100.0 / now.since(at).as_secs_f64().max(0.1);
        Burden { cpu_percent, rss_bytes: usage.rss_bytes as u64, headroom }
    }
}

fn push<T>(past: &mut VecDeque<T>, fresh: T) {
    if past.len() == PAST_MAX {
        past.pop_front();
    }
    past.push_back(fresh);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::election::record::{MemberId, Registration, Revision};

    fn member(node: &str, incarnation: u64) -> Member {
        let id = MemberId { node: node.into(), uuid: MemberUuid(1), incarnation: Incarnation(incarnation) };
        Member { registration: Registration::of(id), created: Revision(1), generation: Revision(1) }
    }

    #[test]
    fn a_registration_that_comes_back_is_no_start() {
        let mut memory = Memory::new(Instant::default());
        memory.note_starts(&[member("a", 7)]); // was there before us
        for _ in 0..5 {
            memory.note_starts(&[]);
            memory.note_starts(&[member("a", 7)]);
        }
        assert_eq!(memory.starts_since(0), 0, "away for a while");
        memory.note_starts(&[member("a", 8), member("b", 1)]);
        let started: Vec<&str> = memory.starts.iter().map(|(_, node)| node.as_str()).collect();
        assert_eq!(started, ["a", "b"], "twin: a next start, and a new node");
    }
}
