//! The checks of a running node: the cheap ones every minute, and those of the leadership at every change of it.
//!
//! They run on the main runtime, never on the driver's thread, and one look at a time. What was found last is kept
//! for gRPC, HTTP and the metrics to show; a result that differs from the last one is an event, once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;

use super::changes::{self, Change};
use super::collect::etcd::EtcdCollector;
use super::collect::host::HostCollector;
use super::collect::{Depth, meta};
use super::facts::{Facts, PastFacts, Registered};
use super::measured::{Burden, Measured};
use super::{CHECKS, Check, Finding, Report, Status};
use crate::clock::{Clock, Instant, wall_clock_ms};
use crate::config::{Config, StoreKind};
use crate::driver::history;
use crate::driver::status::{self, Role};
use crate::telemetry::metrics::Usage;
use crate::telemetry::{Event, Stamped, Telemetry};

/// The first look comes so late at most: a node that has just started has no leader yet.
const FIRST_LOOK: Duration = Duration::from_secs(10);
/// How often the clock is looked at, to see whether it stood still.
const TICK: Duration = Duration::from_secs(1);
/// How many starts of nodes are remembered.
const PAST_MAX: usize = 256;
/// The checks that are made at every change of the leader, and at every start of a node.
const AT_ONCE: [&str; 2] = ["LEADER_003", "CLUSTER_005"];

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
}

/// What the checks of a running node need.
pub struct BackgroundParts {
    /// Its configuration, and what that warns of itself.
    pub config: Config,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Where to tell, and where to hear of changes.
    pub telemetry: Telemetry,
    /// The history, as the driver reads it.
    pub history: watch::Receiver<Arc<history::Past>>,
    /// The driver's snapshots.
    pub snapshots: watch::Receiver<Arc<status::Status>>,
}

/// The collectors; away while a look is under way.
struct Collectors {
    etcd: Option<EtcdCollector>,
    host: HostCollector,
}

struct Background {
    parts: BackgroundParts,
    events: broadcast::Receiver<Arc<Stamped>>,
    memory: Memory,
    latest: watch::Sender<Arc<Latest>>,
}

/// What was seen so far.
struct Memory {
    starts: VecDeque<(u64, String)>,
    leaderless_since: Option<Instant>,
    /// How many unplanned changes of the leader the last look counted.
    unplanned: usize,
    stood_still: Duration,
    headroom: Option<f64>,
    holds_until: Option<Instant>,
    ticked_at: Instant,
    /// What the process had used at the last look, and when that was.
    used: (Usage, Instant),
}

/// Begins to check. The future ends with the node; the receiver shows what was found last.
pub fn start(parts: BackgroundParts) -> (watch::Receiver<Arc<Latest>>, impl Future<Output = ()> + Send) {
    let (latest, receiver) = watch::channel(Arc::default());
    let events = parts.telemetry.subscribe();
    let memory = Memory::new(parts.clock.now());
    let background = Background { parts, events, memory, latest };
    (receiver, background.run())
}

// === impl Background ===

impl Background {
    async fn run(mut self) {
        let every = Duration::from_secs(self.parts.config.checks.interval_secs);
        if every.is_zero() {
            return;
        }
        // At most one look at a time: it takes the collectors along and brings them back.
        let (mut collectors, mut looks) = (Some(self.collectors()), JoinSet::new());
        let mut next = self.parts.clock.now() + every.min(FIRST_LOOK);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = self.events.recv() => match event {
                    Ok(event) => self.hear(&event),
                    Err(broadcast::error::RecvError::Lagged(_)) => {} // some changes are not counted
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                changed = self.parts.snapshots.changed() => match changed {
                    Ok(()) => self.see(),
                    Err(_) => return, // no driver: the node is ending
                },
                _ = tick.tick() => {
                    let now = self.parts.clock.now();
                    self.memory.tick(now);
                    self.count_changes();
                    if now.reached(next) && let Some(with) = collectors.take() {
                        next = now + every;
                        looks.spawn(look(with, self.parts.config.clone(), self.registered(), self.parts.clock.clone()));
                    }
                }
                Some(done) = looks.join_next() => {
                    match done {
                        Ok((with, facts)) => {
                            collectors = Some(with);
                            self.judge(facts);
                        }
                        Err(_) => collectors = Some(self.collectors()), // it panicked: begin anew
                    }
                }
            }
        }
    }

    fn collectors(&self) -> Collectors {
        let (config, clock) = (&self.parts.config, &self.parts.clock);
        let is_etcd = config.store.kind == StoreKind::Etcd;
        // What cannot be opened here has not been opened by the driver either, and that says so.
        let etcd = is_etcd.then(|| EtcdCollector::new(config, clock.clone()).ok()).flatten();
        Collectors { etcd, host: HostCollector::new(config, clock.clone()) }
    }

    fn changes(&self) -> Vec<Change> {
        changes::of_rows(&self.parts.history.borrow().rows, wall_clock_ms())
    }

    fn past(&self) -> PastFacts {
        self.memory.facts(self.parts.clock.now(), self.changes())
    }

    /// Has the number of unplanned changes grown, or shrunk because the window has moved on?
    fn count_changes(&mut self) {
        let window_ms = self.parts.config.checks.leader_change_window_secs * 1000;
        let unplanned = changes::unplanned(&self.changes(), wall_clock_ms(), window_ms);
        if std::mem::replace(&mut self.memory.unplanned, unplanned) != unplanned {
            self.judge_at_once();
        }
    }

    fn registered(&self) -> Vec<Registered> {
        meta::registered_in(&self.parts.snapshots.borrow().view)
    }

    fn see(&mut self) {
        let now = self.parts.clock.now();
        let snapshot = self.parts.snapshots.borrow_and_update().clone();
        self.memory.see(now, &snapshot);
    }

    fn hear(&mut self, event: &Stamped) {
        if let Event::MemberJoined { member, .. } = &event.event {
            push(&mut self.memory.starts, (event.wall_ms, member.clone()));
            self.judge_at_once();
        }
    }

    /// What is remembered alone is enough for these.
    fn judge_at_once(&mut self) {
        let mut facts = Facts::of(self.parts.config.clone(), vec![]);
        facts.past = Some(self.past());
        let fresh = judged(CHECKS.iter().filter(|c| AT_ONCE.contains(&c.code)), &facts);
        let mut findings = self.latest.borrow().findings.clone();
        findings.retain(|old| !fresh.iter().any(|f| f.code == old.code));
        findings.extend(fresh);
        let latest = self.latest.borrow().clone();
        self.publish(Latest { findings, ..Latest::clone(&latest) });
    }

    fn judge(&mut self, mut facts: Facts) {
        facts.past = Some(self.past());
        let burden = Some(self.memory.burden(self.parts.clock.now()));
        self.memory.begin_anew();
        let findings = judged(CHECKS.iter(), &facts);
        let at_ms = wall_clock_ms();
        self.publish(Latest { at_ms, findings, measured: Measured::of(&facts), burden });
    }

    fn publish(&mut self, mut fresh: Latest) {
        let findings = &mut fresh.findings;
        findings.sort_by_key(|f| CHECKS.iter().position(|c| c.code == f.code));
        let before = self.latest.borrow().clone();
        for f in findings.iter() {
            self.parts.telemetry.metrics().check_made(&f.code, f.status.code());
            let was = before.findings.iter().find(|b| b.code == f.code).map_or(Status::Pass, |b| b.status);
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

async fn look(
    mut with: Collectors,
    config: Config,
    registered: Vec<Registered>,
    clock: Arc<dyn Clock>,
) -> (Collectors, Facts) {
    let mut facts = Facts::of(config, vec![]);
    facts.host = Some(with.host.collect(Depth::CHEAP).await);
    if let Some(etcd) = &mut with.etcd {
        facts.etcd = Some(etcd.collect(Depth::CHEAP).await);
    }
    facts.meta = Some(meta::collect(Some(registered), &[], &clock).await);
    (with, facts)
}

// === impl Memory ===

impl Memory {
    fn new(now: Instant) -> Self {
        Self {
            starts: VecDeque::new(),
            leaderless_since: Some(now),
            unplanned: 0,
            stood_still: Duration::ZERO,
            headroom: None,
            holds_until: None,
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
        self.note_headroom(now, snapshot);
    }

    fn note_headroom(&mut self, now: Instant, snapshot: &status::Status) {
        if snapshot.role != Role::Leader {
            (self.headroom, self.holds_until) = (None, None);
            return;
        }
        // A renewal was confirmed: this much of the old lease was left.
        if let (Some(old), Some(ttl)) = (self.holds_until, snapshot.ttl)
            && snapshot.holds_until != Some(old)
        {
            let left = now.until(old).as_secs_f64() / ttl.as_secs_f64();
            self.headroom = Some(self.headroom.map_or(left, |least| least.min(left)));
        }
        self.holds_until = snapshot.holds_until;
    }

    fn tick(&mut self, now: Instant) {
        self.stood_still = self.stood_still.max(now.since(self.ticked_at).saturating_sub(TICK));
        self.ticked_at = now;
    }

    fn facts(&self, now: Instant, changes: Vec<Change>) -> PastFacts {
        PastFacts {
            now_ms: wall_clock_ms(),
            changes,
            starts: self.starts.iter().cloned().collect(),
            leaderless: self.leaderless_since.map(|at| now.since(at)),
            stood_still: self.stood_still,
            headroom: self.headroom,
        }
    }

    fn burden(&mut self, now: Instant) -> Burden {
        let usage = Usage::now();
        let (before, at) = std::mem::replace(&mut self.used, (usage, now));
        let cpu_percent = (usage.cpu_secs - before.cpu_secs) * 100.0 / now.since(at).as_secs_f64().max(0.1);
        Burden { cpu_percent, rss_bytes: usage.rss_bytes as u64, headroom: self.headroom }
    }

    fn begin_anew(&mut self) {
        (self.stood_still, self.headroom) = (Duration::ZERO, None);
    }
}

fn push<T>(past: &mut VecDeque<T>, fresh: T) {
    if past.len() == PAST_MAX {
        past.pop_front();
    }
    past.push_back(fresh);
}
