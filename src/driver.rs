//! The driver: the one loop where elector, store and clock meet.
//!
//! It runs on a thread and a current-thread runtime of its own, so that nothing the main loop does can starve
//! a renewal. `Driver::select` waits and returns one event; `Driver::apply` is synchronous: it feeds the
//! elector and carries out what it asks for. Requests run as tasks that report back through one bounded queue.
//! The price of this shape: the driver never waits for a request, so it must treat every answer as late.
//!
//! Only the driver renews, and only it decides that leadership is over. Nothing is released in `Drop`: a killed
//! leader must look like a crashed one.

mod acting;
pub mod deadline;
mod freezing;
pub mod fuse;
mod handle;
mod handover;
mod joining;
pub mod leadership;
pub mod main_loop;
pub mod observer;
pub mod peers;
mod priority;
pub mod readiness;
pub mod reads;
mod remember;
mod slots;
pub mod tasks;
mod watchdog;
mod watcher;
mod writes;

pub use freezing::FreezeError;
pub use handle::{Busy, DriverHandle};
pub use handover::PREPARE_TIMEOUT;
pub use priority::PriorityError;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, watch};

use crate::clock::{Clock, Instant, wall_clock_ms};
use crate::data_dir::{DataDir, DataDirError};
use crate::election::elector::{Elector, ElectorSettings};
use crate::election::event::{Action, Event, ReadId};
use crate::election::history::Ending;
use crate::election::lease::Lease;
use crate::election::probe::MemberHealth;
use crate::election::record::{LeaderRecord, MemberId, Registration};
use crate::election::status::{Role, Status};
use crate::guardian::Guardianship;
use crate::guardian::horizon::{Change, End};
use crate::protocol::effects::{self, Effect, Here};
use crate::store::Store;
use crate::store::codec::Keys;
use crate::store::places::Places;
use crate::telemetry::Telemetry;
use freezing::Freezer;
use fuse::DeadMansSwitch;
use main_loop::{MainLoop, Tenure};
use observer::{Moment, Observer};
use peers::Peers;
use readiness::Readiness;
use remember::Remembered;
use tasks::Tasks;
use watchdog::{Watchdog, WatchdogTimes};

/// How many events may wait. Tasks wait for room; the watch, which could be many, waits too.
const INBOX_MAX: usize = 1024;
/// The longest sleep: a timer may be late (suspend, a starved CPU), the clock is not.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// Everything a driver is made of.
pub struct DriverParts {
    /// The store, for the election alone.
    pub store: Arc<dyn Store>,
    /// The store again, on connections of its own, for the main loop's writes.
    pub main_store: Arc<dyn Store>,
    /// Whose answers count, for both of them, and whether the store is still there.
    pub places: Arc<dyn Places>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Where the keys are.
    pub keys: Keys,
    /// The cluster's name.
    pub cluster: String,
    /// What to register; lease and identity are filled in.
    pub registration: Registration,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// What this node remembers.
    pub data_dir: DataDir,
    /// Ends the process when its lease is over; not armed yet.
    pub fuse: Arc<dyn DeadMansSwitch>,
    /// Our guardian, if there is one.
    pub guardian: Option<Arc<dyn Guardianship>>,
    /// The other members.
    pub peers: Arc<dyn Peers>,
    /// Is this member ready to lead?
    pub readiness: Readiness,
    /// What its probes have come to before the driver begins: untried, where it has any.
    pub health: MemberHealth,
    /// Where to tell.
    pub telemetry: Telemetry,
    /// What runs while we lead.
    pub main_loop: Box<dyn MainLoop>,
    /// Where it runs.
    pub main_tasks: Arc<dyn Tasks>,
    /// Who records and explains, in the order in which they are told.
    pub observers: Vec<Box<dyn Observer>>,
    /// Told when this member has decided to end, before it takes its leave of disk and store.
    pub on_end: Box<dyn Fn(&Ending) + Send>,
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// How long a main loop gets to end when nobody is in a hurry.
    pub stop: Duration,
    /// How long a leader record that was won may stay without a main loop.
    pub start: Duration,
    /// How long a main loop that was started may take to be warm, while it leads.
    pub warm_up: Duration,
    /// How long a main loop that gives signs of life may be silent; `None`: for ever.
    pub main_loop: Option<Duration>,
    /// How long a better member must be there before we make way for it; `None`: we never do.
    pub failback_delay: Option<Duration>,
    /// How long the store may be away when the process starts.
    pub store: Duration,
}

struct Driver {
    elector: Elector,
    parts: Shared,
    main_loop: Option<Box<dyn MainLoop>>,
    tenure: Option<Tenure>,
    watchdog: Watchdog,
    observers: Vec<Box<dyn Observer>>,
    inbox: mpsc::Receiver<Event>,
    reports: mpsc::Sender<Event>,
    status: watch::Sender<Arc<Status>>,
    confirmed_at: Instant,
    /// The reads under way, and when each was asked for; each is answered within a bounded time.
    reads_asked: Vec<(ReadId, Instant)>,
    ticked_boot_ns: Arc<AtomicU64>,
    /// The last leader we saw, kept while nobody leads.
    last_leader: Option<LeaderRecord>,
    remembered: Remembered,
    /// When the first join is given up, if the store does not answer; `None`: it has worked, and later ones never are.
    join_until: Option<Instant>,
    watches: bool,
    stopped_by: Option<Ending>,
    on_end: Box<dyn Fn(&Ending) + Send>,
    /// The process has been ended: nothing more may happen in it.
    is_over: bool,
}

/// What the tasks share with the driver.
#[derive(Clone)]
struct Shared {
    store: Arc<dyn Store>,
    main_store: Arc<dyn Store>,
    places: Arc<dyn Places>,
    clock: Arc<dyn Clock>,
    keys: Keys,
    cluster: String,
    registration: Registration,
    data_dir: Arc<Mutex<DataDir>>,
    fuse: Arc<dyn DeadMansSwitch>,
    guardian: Option<Arc<dyn Guardianship>>,
    peers: Arc<dyn Peers>,
    tasks: Arc<dyn Tasks>,
    telemetry: Telemetry,
    main_tasks: Arc<dyn Tasks>,
}

impl Shared {
    /// Writes the data dir. fsync can take seconds on a bad disk; a thread of its own keeps the renewals going.
    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut DataDir) -> Result<T, DataDirError> + Send + 'static,
    ) -> Result<T, String> {
        let mut dir = self.data_dir.clone().lock_owned().await;
        let done =
            tasks::unblock(self.tasks.as_ref(), move || work(&mut dir).map_err(|e| e.to_string())).await;
        done.unwrap_or_else(|| Err("the thread that writes the data dir has panicked".into()))
    }

    /// From now on only this cluster's answers count, for the guardian too.
    fn pin(&self, cluster: u64) {
        self.places.pin(cluster);
        if let Some(guardian) = &self.guardian {
            guardian.tell_pinned(cluster);
        }
    }
}

/// Starts the driver's thread. The second value resolves when this member is done.
///
/// # Errors
/// The system has no thread or no runtime to give.
pub fn start(parts: DriverParts) -> std::io::Result<(DriverHandle, tokio::sync::oneshot::Receiver<Ending>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (driver, handle) = prepare(parts, Arc::new(runtime.handle().clone()));
    let (done, ending) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("driver".into()).spawn(move || {
        let ending = runtime.block_on(driver);
        let _ = done.send(ending); // nobody waits: the process is ending
    })?;
    Ok((handle, ending))
}

/// A driver that begins when it is polled, and runs its own tasks there.
pub fn prepare(
    parts: DriverParts,
    tasks: Arc<dyn Tasks>,
) -> (impl Future<Output = Ending> + Send, DriverHandle) {
    let (driver, handle) = Driver::new(parts, tasks);
    (driver.run(), handle)
}

// === impl Driver: the loop ===

impl Driver {
    fn new(parts: DriverParts, tasks: Arc<dyn Tasks>) -> (Self, DriverHandle) {
        let (mut registration, dir) = (parts.registration, &parts.data_dir);
        (registration.member.uuid, registration.member.incarnation) = (dir.uuid(), dir.incarnation());
        let now = parts.clock.now();
        let elector = Elector::new(ElectorSettings {
            me: registration.member.clone(),
            stop_timeout: parts.timeouts.stop,
            start_timeout: parts.timeouts.start,
            failback_delay: parts.timeouts.failback_delay,
        });
        let status = Arc::new(Status::of(&elector, registration.member.clone(), &parts.cluster, now));
        let (status, watched) = watch::channel(status);
        let (reports, inbox) = mpsc::channel(INBOX_MAX);
        let ticked_boot_ns = Arc::new(AtomicU64::new(now.boot_ns()));
        let handle = DriverHandle {
            commands: reports.clone(),
            status: watched,
            ticked_boot_ns: ticked_boot_ns.clone(),
            shuts_down: Arc::default(),
            freezer: Freezer::new(parts.store.clone(), parts.keys.clone(), tasks.clone()),
        };
        let shared = Shared {
            store: parts.store,
            main_store: parts.main_store,
            places: parts.places,
            clock: parts.clock,
            keys: parts.keys,
            cluster: parts.cluster,
            registration,
            data_dir: Arc::new(Mutex::new(parts.data_dir)),
            fuse: parts.fuse,
            guardian: parts.guardian,
            peers: parts.peers,
            tasks,
            telemetry: parts.telemetry,
            main_tasks: parts.main_tasks,
        };
        if parts.health != MemberHealth::default() {
            let _ = reports.try_send(Event::Probed(parts.health)); // the queue is empty: there is room
        }
        let following = readiness::follow(&parts.readiness, reports.clone());
        shared.tasks.spawn(Box::pin(following));
        let driver = Self {
            elector,
            parts: shared,
            main_loop: Some(parts.main_loop),
            tenure: None,
            watchdog: Watchdog::new(WatchdogTimes {
                silence: parts.timeouts.main_loop,
                start: parts.timeouts.start,
                warm_up: parts.timeouts.warm_up,
            }),
            observers: parts.observers,
            inbox,
            reports,
            status,
            confirmed_at: now,
            reads_asked: Vec::new(),
            ticked_boot_ns,
            last_leader: None,
            remembered: Remembered::default(),
            join_until: Some(now + parts.timeouts.store),
            watches: false,
            stopped_by: None,
            on_end: parts.on_end,
            is_over: false,
        };
        (driver, handle)
    }

    async fn run(mut self) -> Ending {
        if self.parts.data_dir.lock().await.pin().is_some() {
            self.begin_watching(); // else once we know which store is the right one
        }
        self.watch_for_loss();
        let status = self.status.subscribe();
        self.parts.tasks.spawn(Box::pin(freezing::end_when_due(self.parts.clone(), status.clone())));
        self.observers.iter_mut().for_each(|o| o.began(&status));
        loop {
            self.act();
            if self.is_over {
                return std::future::pending().await;
            }
            if let Some(ending) = self.stopped_by.take() {
                (self.on_end)(&ending);
                self.leave(&ending).await;
                return ending;
            }
            let event = self.select().await;
            self.apply(event);
        }
    }

    /// Waits for the next event or the next deadline.
    async fn select(&mut self) -> Option<Event> {
        let now = self.parts.clock.now();
        let sleep = self.elector.poll_timeout().map_or(SLEEP_MAX, |at| now.until(at).min(SLEEP_MAX));
        self.observers.iter_mut().for_each(|o| o.sleeps(now, sleep));
        tokio::select! {
            // The event first: after a stall an answer and a deadline are there together. It cannot do harm,
            // because the elector looks at the clock before the event.
            biased;
            event = self.inbox.recv() => event,
            () = tokio::time::sleep(sleep) => None,
        }
    }

    fn apply(&mut self, event: Option<Event>) {
        let now = self.parts.clock.now();
        self.ticked_boot_ns.store(now.boot_ns(), Ordering::Relaxed);
        self.tell(now, |o, moment| o.woke(moment, event.is_none()));
        let lease = self.elector.lease().copied();
        self.confirm(now, event.as_ref());
        if matches!(event, Some(Event::MainLoopEnded(_))) {
            self.observers.iter_mut().for_each(|o| o.main_loop_ended());
        }
        if let Some(event) = event {
            self.hear(now, event);
        }
        if self.elector.main_loop_token().is_some()
            && let Some(event) = self.watchdog.bites(now)
        {
            self.hear(now, event);
        }
        self.elector.handle_timeout(now);
        self.tell(now, |o, moment| o.handled(moment, lease.as_ref()));
        self.remember(now);
    }

    /// Notes since when the store has confirmed what we know: an answer, when it was asked for.
    fn confirm(&mut self, now: Instant, event: Option<&Event>) {
        let at = match event {
            Some(Event::Joined(joined)) => Some(joined.stamp),
            Some(Event::Read { id, answer }) => {
                let asked = self.reads_asked.iter().find(|(asked, _)| asked == id).map(|(_, at)| *at);
                self.reads_asked.retain(|(asked, _)| asked != id);
                asked.filter(|_| answer.is_some())
            }
            // The first view of a watch is one that we had.
            Some(Event::Seen(view)) => Some(now).filter(|_| view.revision > self.elector.view().revision),
            _ => None,
        };
        self.confirmed_at = at.map_or(self.confirmed_at, |at| at.later(self.confirmed_at));
    }

    fn hear(&mut self, now: Instant, event: Event) {
        self.tell(now, |o, moment| o.hears(moment, &event));
        tracing::trace!(?event, "the election hears");
        self.elector.handle_event(now, event);
    }

    /// Carries out what the elector asks for. The fuse and the snapshot follow the state first: no action may
    /// run under a deadline that the fuse does not know.
    fn act(&mut self) {
        loop {
            self.set_deadlines();
            self.publish();
            match self.elector.poll_action() {
                Some(action) if !self.is_over => self.perform(action),
                _ => return,
            }
        }
    }

    fn set_deadlines(&self) {
        let end = |l: &Lease| End {
            stop: l.step_down_at(),
            kill: l.kill_at(),
            guardian: l.guardian_until(),
            fuse: l.holds_until(),
        };
        let change = self.parts.fuse.set(self.elector.fused_lease().map(end));
        let moved = matches!(change, Change::Begun | Change::Moved);
        if let Some(guardian) = self.parts.guardian.as_ref().filter(|_| moved) {
            guardian.tell_moved(change == Change::Begun);
        }
    }

    fn perform(&mut self, action: Action) {
        self.tell(self.parts.clock.now(), |o, moment| o.asks(moment, &action));
        tracing::debug!(?action, "the election asks");
        if let Action::Read(id) = action {
            self.reads_asked.push((id, self.parts.clock.now()));
        }
        self.parts.registration.priority =
            self.elector.priority().unwrap_or(self.parts.registration.priority);
        let here = Here {
            keys: &self.parts.keys,
            registration: &self.parts.registration,
            ttl: self.elector.lease().map_or(Duration::ZERO, |l| l.timing().ttl()),
            newest: self.newest(),
            transitions: self.last_leader.as_ref().map_or(0, |r| r.transitions + 1),
            probe_handed_ms: self.last_leader.as_ref().map_or(0, |r| r.probe_handed_ms),
            wall_ms: wall_clock_ms(),
        };
        match effects::effect(&here, action) {
            Effect::Join => {
                self.spawn(joining::join(self.parts.clone(), self.newest(), self.join_until));
            }
            Effect::Renew(lease) => self.renew(lease),
            Effect::Ask(question) => self.ask(question),
            Effect::Prepare { token, wanted } => {
                let (peers, view) = (self.parts.peers.clone(), self.elector.view().clone());
                let probe_fails = self.elector.health().failing().is_some();
                self.spawn(handover::ask(peers, view, self.me(), token, wanted, probe_fails));
            }
            Effect::StartMainLoop(token) => self.start_main_loop(token),
            Effect::StopMainLoop(reason) => {
                if let Some(tenure) = &self.tenure {
                    tenure.stop(reason);
                }
                self.tell(self.parts.clock.now(), |o, moment| o.main_loop_told(moment, reason));
            }
            Effect::AbortMainLoop => {
                if let Some(tenure) = &self.tenure {
                    tenure.abort();
                }
            }
            Effect::EndProcess(ending) => self.end_process(&ending),
            Effect::Report(transition) => self.report(transition),
            Effect::Stop(ending) => self.stopped_by = Some(self.explained(ending)),
        }
    }
}

// === impl Driver: the snapshot ===

impl Driver {
    /// Who we are.
    fn me(&self) -> MemberId {
        self.elector.me().clone()
    }

    /// Tells those who record and explain, one after the other.
    fn tell(&mut self, now: Instant, mut what: impl FnMut(&mut dyn Observer, Moment<'_>)) {
        let moment = Moment { now, elector: &self.elector, confirmed_at: self.confirmed_at };
        self.observers.iter_mut().for_each(|o| what(o.as_mut(), moment));
    }

    /// The ending in words, where it has none of its own.
    fn explained(&mut self, ending: Ending) -> Ending {
        if !ending.detail.is_empty() {
            return ending;
        }
        let mut said = None;
        self.tell(self.parts.clock.now(), |o, moment| {
            said = said.take().or_else(|| o.explains(moment, &ending))
        });
        Ending { detail: said.unwrap_or_default(), ..ending }
    }

    fn publish(&mut self) {
        let fresh = Status::of(&self.elector, self.me(), &self.parts.cluster, self.confirmed_at);
        let old = self.status.borrow().clone();
        if *old == fresh {
            return;
        }
        if fresh.role == Role::Leader {
            handover::keep_warm(self.parts.peers.as_ref(), &fresh.view, &fresh.me);
        }
        let fresh = Arc::new(fresh);
        // First, lest somebody hears of a change and is then shown what was before it. A renewal alone wakes nobody: it
        // comes all the time.
        self.status.send_if_modified(|known| {
            *known = fresh.clone();
            !old.is_renewed_by(&fresh)
        });
        let now = self.parts.clock.now();
        self.observers.iter_mut().for_each(|o| o.changed(now, &old, &fresh));
        if let Some(record) = fresh.leader_record() {
            self.last_leader = Some(record.clone());
        }
    }
}
