//! The probes of this node: a program, and the disk of the data dir. Each has a thread of its own, which may hang; the
//! thread here only looks, several times a second, and tells the driver what [`SelfProbe`] makes of it.
//!
//! None of this runs on the driver's thread or on the main runtime: neither can hold the other up.

mod command;
mod disk;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::watched::Tools;
use super::{StartError, no_thread};
use crate::clock::{Clock, Instant};
use crate::config::MetaConfig;
use crate::data_dir::Folder;
use crate::driver::DriverHandle;
use crate::election::probe::{MemberHealth, ProbeTimes, SelfProbe};
use crate::telemetry::{Event, Telemetry};

/// How often a node with a probe looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a probe succeeds before that is an event: one that comes and goes is none each second.
const QUIET: Duration = Duration::from_secs(60);

/// What the probes need.
#[derive(Clone)]
struct ProbingParts {
    driver: DriverHandle,
    clock: Arc<dyn Clock>,
    telemetry: Telemetry,
    data_dir: PathBuf,
    /// How often the data dir was synced in earnest.
    syncs: Arc<AtomicU64>,
}

/// The way to begin, change and end probes.
#[derive(Clone)]
pub(super) struct Probing {
    parts: ProbingParts,
    /// Only a node that has ever had a probe has the thread.
    orders: Arc<Mutex<Option<Sender<ProbeOrder>>>>,
}

/// What is probed, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Probes {
    command: Vec<String>,
    disk: bool,
    times: ProbeTimes,
}

/// Something for the looking thread.
enum ProbeOrder {
    Change(Probes),
    Done(ProbeKind, u64, Result<(), String>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProbeKind {
    Command,
    Disk,
}

/// One probe and the thread that makes it.
struct Lane {
    kind: ProbeKind,
    probe: SelfProbe,
    jobs: Option<Sender<Job>>,
    /// Tells the runs of this command from those of the one before.
    generation: u64,
    is_busy: bool,
}

/// What a thread is to do.
struct Job {
    generation: u64,
    work: Box<dyn FnOnce() -> Result<(), String> + Send>,
}

struct ProbeLooker {
    parts: ProbingParts,
    probes: Probes,
    inbox: Receiver<ProbeOrder>,
    sender: Sender<ProbeOrder>,
    command: Lane,
    disk: Lane,
    syncs_seen: u64,
    /// What we have told the driver.
    told: Option<MemberHealth>,
    has_said: bool,
}

/// What is known before the first probe.
pub(super) fn health_at_start(config: &MetaConfig) -> MemberHealth {
    if Probes::of(config).are_off() { MemberHealth::Unprobed } else { MemberHealth::Untried }
}

/// Probes this node, as the configuration says.
pub(super) fn start(
    driver: &DriverHandle,
    tools: &Tools,
    folder: &Folder,
    config: &MetaConfig,
) -> Result<Probing, StartError> {
    let parts = ProbingParts {
        driver: driver.clone(),
        clock: tools.clock.clone(),
        telemetry: tools.telemetry.clone(),
        data_dir: folder.path().into(),
        syncs: folder.syncs(),
    };
    let probing = Probing { parts, orders: Arc::default() };
    probing.set(config)?;
    Ok(probing)
}

// === impl Probes ===

impl Probes {
    fn of(config: &MetaConfig) -> Self {
        Self {
            command: config.probe_command.clone(),
            disk: config.probe_disk,
            times: ProbeTimes {
                interval: Duration::from_secs(config.probe_interval_secs),
                timeout: Duration::from_secs(config.probe_timeout_secs),
                failure: Duration::from_secs(config.probe_failure_secs),
            },
        }
    }

    fn are_off(&self) -> bool {
        self.command.is_empty() && !self.disk
    }
}

// === impl Probing ===

impl Probing {
    /// Probes as this configuration says, from now on. The error: the system has no thread to give.
    pub(super) fn set(&self, config: &MetaConfig) -> Result<(), StartError> {
        let probes = Probes::of(config);
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(orders) = orders.as_ref() {
            let _ = orders.send(ProbeOrder::Change(probes)); // gone: the node is ending
        } else if !probes.are_off() {
            *orders = Some(ProbeLooker::start(self.parts.clone(), probes).map_err(no_thread)?);
        }
        Ok(())
    }
}

// === impl Lane ===

impl Lane {
    fn new(kind: ProbeKind) -> Self {
        let what = match kind {
            ProbeKind::Command => "the probe command",
            ProbeKind::Disk => "a synced write to the data dir",
        };
        Self { kind, probe: SelfProbe::new(what), jobs: None, generation: 0, is_busy: false }
    }

    /// Forgets what was found: it is another probe now.
    fn begin_anew(&mut self) {
        *self = Self {
            jobs: self.jobs.take(),
            generation: self.generation + 1,
            is_busy: self.is_busy,
            ..Self::new(self.kind)
        };
        if self.is_busy {
            self.probe.began(); // a thread that hangs still must not look like one that was never asked
        }
    }

    /// Has the thread do the work. A thread that hangs is given nothing more.
    fn run(&mut self, done: &Sender<ProbeOrder>, work: Box<dyn FnOnce() -> Result<(), String> + Send>) {
        if self.jobs.is_none() {
            self.jobs = self.thread(done.clone()).ok();
        }
        let job = Job { generation: self.generation, work };
        self.is_busy = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        self.probe.began();
    }

    fn thread(&self, done: Sender<ProbeOrder>) -> std::io::Result<Sender<Job>> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let kind = self.kind;
        let name = match kind {
            ProbeKind::Command => "probe-command",
            ProbeKind::Disk => "probe-disk",
        };
        std::thread::Builder::new().name(name.into()).spawn(move || {
            for Job { generation, work } in inbox {
                let _ = done.send(ProbeOrder::Done(kind, generation, work())); // nobody looks any more
            }
        })?;
        Ok(jobs)
    }
}

// === impl ProbeLooker ===

impl ProbeLooker {
    fn start(parts: ProbingParts, probes: Probes) -> std::io::Result<Sender<ProbeOrder>> {
        let (sender, inbox) = mpsc::channel();
        let (command, disk) = (Lane::new(ProbeKind::Command), Lane::new(ProbeKind::Disk));
        let syncs_seen = parts.syncs.load(Ordering::Relaxed);
        let (told, has_said) = (None, false);
        let sends = sender.clone();
        let looker = Self { parts, probes, inbox, sender: sends, command, disk, syncs_seen, told, has_said };
        std::thread::Builder::new().name("probes".into()).spawn(move || looker.run())?;
        Ok(sender)
    }

    /// Until the node has ended. The first probe is made at once: until it has passed, this member claims after all others.
    fn run(mut self) {
        self.begin_what_is_due();
        while self.look() {}
    }

    /// `false`: the node has ended.
    fn look(&mut self) -> bool {
        let order = match self.inbox.recv_timeout(LOOK_EVERY) {
            Ok(order) => Some(order),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return false,
        };
        let (now, times) = (self.parts.clock.now(), self.probes.times);
        // Before the order: what has come late must not undo what time has done.
        self.command.probe.look(now, &times);
        self.disk.probe.look(now, &times);
        let syncs = self.parts.syncs.load(Ordering::Relaxed);
        if std::mem::replace(&mut self.syncs_seen, syncs) != syncs {
            self.disk.probe.vetoed(now);
        }
        match order {
            Some(ProbeOrder::Change(probes)) => self.change(probes),
            Some(ProbeOrder::Done(kind, generation, result)) => self.done(now, kind, generation, result),
            None => {}
        }
        self.begin_what_is_due();
        self.tell(now);
        !self.parts.driver.has_ended()
    }

    fn change(&mut self, probes: Probes) {
        if probes.command != self.probes.command {
            self.command.begin_anew();
        }
        if probes.disk != self.probes.disk {
            self.disk.begin_anew();
        }
        self.probes = probes;
    }

    fn done(&mut self, now: Instant, kind: ProbeKind, generation: u64, result: Result<(), String>) {
        let times = self.probes.times;
        let lane = match kind {
            ProbeKind::Command => &mut self.command,
            ProbeKind::Disk => &mut self.disk,
        };
        lane.is_busy = false;
        if lane.generation == generation {
            lane.probe.ended(now, &times, result);
        }
    }

    fn begin_what_is_due(&mut self) {
        let times = self.probes.times;
        let is_due = |lane: &Lane| !lane.is_busy && lane.probe.is_due(&times);
        if !self.probes.command.is_empty() && is_due(&self.command) {
            let (command, timeout) = (self.probes.command.clone(), times.timeout);
            self.command.run(&self.sender, Box::new(move || command::run(&command, timeout)));
        }
        if self.probes.disk && is_due(&self.disk) {
            let dir = self.parts.data_dir.clone();
            self.disk.run(&self.sender, Box::new(move || disk::write_and_sync(&dir)));
        }
    }

    fn health(&self) -> MemberHealth {
        let of = |is_on: bool, lane: &Lane| match is_on {
            true => lane.probe.health(&self.probes.times),
            false => MemberHealth::Unprobed,
        };
        of(!self.probes.command.is_empty(), &self.command).and(of(self.probes.disk, &self.disk))
    }

    fn tell(&mut self, now: Instant) {
        let health = self.health();
        let failing = health.failing();
        self.parts.telemetry.metrics().set_probe_failing(failing.is_some());
        match failing {
            Some(failing) if !self.has_said => {
                self.has_said = true;
                self.parts.telemetry.emit(Event::ProbeFailing { measured: failing.measured.clone() });
            }
            None if self.has_said && health.healthy_for(now) >= QUIET => {
                self.has_said = false;
                self.parts.telemetry.emit(Event::ProbeRecovered);
            }
            _ => {}
        }
        // A driver that is behind is told at the next look.
        if self.told.as_ref() != Some(&health) && self.parts.driver.probed(health.clone()).is_ok() {
            self.told = Some(health);
        }
    }
}
