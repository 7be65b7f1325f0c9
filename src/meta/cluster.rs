//! The built-in main loop: keeps the workers' registry, sends barriers, and writes a tick if it is told to.
//!
//! One task owns registry and barriers. Requests come through the request queue; writes go out as futures of their own,
//! so that nobody waits for the store but those who asked for what is written. Edits of the registry are written
//! one after the other, in the order of their requests.

mod opening;
mod streams;
mod writing;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::broadcast;

use super::barrier::{BarrierAction, BarrierManager, BarrierSettings, DropReason, Epoch};
use super::codec::{self, Opening};
use super::request_queue::{Listing, Refused, Reply, Request, RequestQueue, Told, Watching};
use super::store::MetaStore;
use super::tick::TickLoop;
use super::workers::{Change, ChangeKind, Edit, Registry, WorkerId, WorkerSpec};
use crate::clock::{Clock, Instant, wall_clock_ms};
use crate::driver::leadership::Leadership;
use crate::driver::main_loop::{BoxFuture, MainLoop, MainLoopEnd};
use crate::protocol::writes::WriteError;
use crate::telemetry::Telemetry;
use crate::telemetry::metrics::BarrierResult;
use streams::Streams;
use writing::{ClusterWrites, Written};

/// How many changes a watcher of the workers may fall behind.
const CHANGES_MAX: usize = 1024;
/// How many edits of the registry may wait for the one that is being written.
const EDITS_MAX: usize = 4096;
/// The longest sleep; each wake is a sign of life.
const SLEEP_MAX: Duration = Duration::from_secs(1);
/// How many requests are taken at once.
const BATCH: usize = 64;
/// How soon expired workers are taken out again when that was refused.
const EXPIRE_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// The main loop of a cluster.
pub struct ClusterLoop {
    /// How barriers are made.
    pub barriers: BarrierSettings,
    /// How long a worker may be silent.
    pub max_heartbeat_interval: Duration,
    /// How long it may take to read what the predecessor has left.
    pub start_timeout: Duration,
    /// The tick, if there is to be one.
    pub tick: Option<TickLoop>,
    /// Where requests come from.
    pub requests: RequestQueue,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Where to count.
    pub telemetry: Telemetry,
}

/// The cluster of one tenure.
struct Cluster {
    clock: Arc<dyn Clock>,
    telemetry: Telemetry,
    store: MetaStore,
    max_heartbeat_interval: Duration,
    registry: Registry,
    barriers: BarrierManager,
    streams: Streams,
    watchers: broadcast::Sender<Change>,
    /// Edits that wait until no other is being written.
    edits: VecDeque<Wish>,
    is_editing: bool,
    /// An edit was refused: nobody expires before that.
    expiry_rests_until: Option<Instant>,
    writing: FuturesUnordered<ClusterWrites>,
}

/// An edit of the registry that somebody wants.
enum Wish {
    Register(WorkerSpec, Reply<Result<(WorkerId, Duration), Refused>>),
    Deregister(WorkerId, Reply<Result<(), Refused>>),
}

/// Who waits for an edit to be written.
enum Waiting {
    Register(WorkerId, Reply<Result<(WorkerId, Duration), Refused>>),
    Deregister(Reply<Result<(), Refused>>),
}

// === impl ClusterLoop ===

impl MainLoop for ClusterLoop {
    fn run(self: Box<Self>, leadership: Leadership) -> BoxFuture<MainLoopEnd> {
        Box::pin(async move {
            tokio::select! {
                biased;
                _ = leadership.lost() => MainLoopEnd::default(),
                end = self.work(&leadership) => end,
                end = tick(self.tick, &leadership) => end,
            }
        })
    }
}

impl ClusterLoop {
    async fn work(&self, leadership: &Leadership) -> MainLoopEnd {
        let store = MetaStore::new(leadership.clone(), "");
        let opening = match opening::open(&store, self.start_timeout, self.clock.as_ref()).await {
            Ok(opening) => opening,
            Err(e) => {
                tracing::error!(error = %e, "cannot load the last leader's state; another member may be able to");
                return MainLoopEnd::default();
            }
        };
        for row in &opening.unreadable {
            tracing::warn!("{row}");
        }
        let mut requests = self.requests.take_requests();
        let mut cluster = Cluster::new(self, store, opening);
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            leadership.heartbeat();
            cluster.act();
            let sleep = cluster.sleep();
            tokio::select! {
                Some(written) = cluster.writing.next() => cluster.written(written),
                n = requests.recv_many(&mut batch, BATCH) => {
                    if n == 0 {
                        return MainLoopEnd::default(); // the request queue is closed: the tenure is over
                    }
                    batch.drain(..).for_each(|request| cluster.handle(request));
                }
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }
}

async fn tick(tick: Option<TickLoop>, leadership: &Leadership) -> MainLoopEnd {
    match tick {
        Some(tick) => tick.tick_until_fenced(leadership).await,
        None => std::future::pending().await,
    }
}

// === impl Cluster ===

impl Cluster {
    fn new(of: &ClusterLoop, store: MetaStore, opening: Opening) -> Self {
        let now = of.clock.now();
        let interval = of.max_heartbeat_interval;
        let cluster = Self {
            clock: of.clock.clone(),
            telemetry: of.telemetry.clone(),
            store,
            max_heartbeat_interval: interval,
            registry: Registry::load(interval, now, opening.workers, opening.next_id),
            barriers: BarrierManager::load(of.barriers, opening.barriers),
            streams: Streams::default(),
            watchers: broadcast::Sender::new(CHANGES_MAX),
            edits: VecDeque::new(),
            is_editing: false,
            expiry_rests_until: None,
            writing: FuturesUnordered::new(),
        };
        cluster.count_workers();
        cluster
    }

    fn count_workers(&self) {
        self.telemetry.metrics().set_workers(self.registry.list().count());
    }

    /// Does what the clock asks for, and carries out what the barriers ask for.
    fn act(&mut self) {
        let now = self.clock.now();
        self.edit_next(now);
        self.barriers.handle_timeout(now, wall_clock_ms());
        while let Some(action) = self.barriers.poll_action() {
            match action {
                BarrierAction::Inject { barrier, to } => {
                    for slow in self.streams.inject(barrier, &to) {
                        self.barriers.worker_left(now, slow);
                    }
                }
                BarrierAction::Announce { barrier, latency } => {
                    tracing::debug!(epoch = %barrier.epoch, ?latency, "epoch committed");
                    self.telemetry.metrics().barrier_committed(latency);
                    self.tell_all(
                        now,
                        Told::Committed { epoch: barrier.epoch, checkpoint: barrier.checkpoint },
                    );
                }
                BarrierAction::Commit(barrier) => {
                    let change = codec::commit_change(barrier);
                    self.writing.push(writing::commit(self.store.clone(), barrier.epoch, change));
                }
                BarrierAction::WriteCeiling(epoch) => {
                    let change = codec::ceiling_change(epoch);
                    self.writing.push(writing::ceiling(self.store.clone(), epoch, change));
                }
                BarrierAction::Dropped { barrier, why, missing } => {
                    self.dropped(now, barrier.epoch, why, &missing)
                }
                BarrierAction::SetAside { worker, failures } => {
                    tracing::warn!(
                        worker = worker.0,
                        failures,
                        "a worker is set aside: barriers no longer wait for it"
                    );
                    if !self.streams.send(worker, Told::SetAside { failures }) {
                        self.barriers.worker_left(now, worker);
                    }
                }
                BarrierAction::TakenBack(worker) => {
                    tracing::info!(worker = worker.0, "a worker that was set aside takes part again");
                }
            }
        }
        self.telemetry.metrics().set_workers_aside(self.barriers.set_aside().len());
    }

    fn dropped(&mut self, now: Instant, epoch: Epoch, why: DropReason, missing: &[WorkerId]) {
        let missing: Vec<_> = missing.iter().map(|w| w.0).collect();
        tracing::warn!(%epoch, ?why, ?missing, "a barrier was dropped");
        self.telemetry.metrics().barrier_dropped(result_of(why));
        self.tell_all(now, Told::Dropped { epoch, why });
    }

    fn tell_all(&mut self, now: Instant, told: Told) {
        for slow in self.streams.tell_all(told) {
            self.barriers.worker_left(now, slow);
        }
    }

    fn sleep(&self) -> Duration {
        let now = self.clock.now();
        let expiry = self.registry.next_expiry().filter(|_| !self.is_editing);
        let expiry = expiry.map(|at| self.expiry_rests_until.map_or(at, |rest| Instant::later(at, rest)));
        let next = [self.barriers.poll_timeout(), expiry].into_iter().flatten().reduce(Instant::earlier);
        next.map_or(SLEEP_MAX, |at| now.until(at).min(SLEEP_MAX))
    }

    fn handle(&mut self, request: Request) {
        let now = self.clock.now();
        match request {
            Request::Register(spec, reply) => self.wish(Wish::Register(spec, reply)),
            Request::Deregister(id, reply) => self.wish(Wish::Deregister(id, reply)),
            Request::Heartbeat(id, reply) => answer(reply, self.registry.heartbeat(now, id)),
            Request::List(after, limit, reply) => answer(reply, self.listing(after, limit)),
            Request::Watch(reply) => {
                let now = self.listing(WorkerId(0), usize::MAX);
                answer(reply, Watching { now, changes: self.watchers.subscribe() });
            }
            Request::OpenStream(worker, reply) => {
                if self.registry.get(worker).is_none() {
                    return answer(reply, Err(super::workers::UnknownWorker(worker)));
                }
                let feed = self.streams.open(worker, self.barriers.committed());
                self.barriers.worker_joined(now, worker);
                answer(reply, Ok(feed));
            }
            Request::Collected { worker, stream, epoch } => self.collected(now, worker, stream, epoch),
            Request::CloseStream { worker, stream } => {
                if self.streams.close(worker, stream) {
                    self.barriers.worker_left(now, worker);
                }
            }
        }
    }

    fn listing(&self, after: WorkerId, limit: usize) -> Listing {
        let workers = self.registry.page(after, limit);
        Listing { workers, aside: self.barriers.set_aside().clone(), version: self.registry.version() }
    }

    fn collected(&mut self, now: Instant, worker: WorkerId, stream: u64, epoch: u64) {
        if !self.streams.is_current(worker, stream) {
            return; // the worker has begun anew since
        }
        if let Err(why) = streams::judge(epoch, |epoch| self.barriers.collected(now, worker, epoch)) {
            self.streams.cut(worker, why);
            self.barriers.worker_left(now, worker);
        }
    }
}

// === impl Cluster: edits of the registry ===

impl Cluster {
    fn wish(&mut self, wish: Wish) {
        if self.edits.len() < EDITS_MAX {
            return self.edits.push_back(wish);
        }
        let busy = WriteError::Busy(format!("{EDITS_MAX} workers wait to be registered"));
        match wish {
            Wish::Register(_, reply) => answer(reply, Err(busy.into())),
            Wish::Deregister(_, reply) => answer(reply, Err(busy.into())),
        }
    }

    /// Begins the next edit, unless one is being written. Those that need no writing are done at once.
    fn edit_next(&mut self, now: Instant) {
        while !self.is_editing {
            let mut edit = self.registry.edit();
            let waiting = self.grant_wishes(&mut edit);
            if self.expiry_rests_until.is_none_or(|at| now.reached(at)) {
                self.registry.add_expired(&mut edit, now);
            }
            if edit.is_empty() {
                return;
            }
            let changes = codec::edit_changes(&edit);
            if changes.is_empty() {
                self.edited(now, edit, waiting, Ok(()));
            } else {
                self.is_editing = true;
                self.writing.push(writing::edit(self.store.clone(), edit, waiting, changes));
            }
        }
    }

    /// As many wishes as one edit can grant, in their order; the others wait for the next one.
    fn grant_wishes(&mut self, edit: &mut Edit) -> Vec<Waiting> {
        let mut waiting = Vec::new();
        while !edit.is_full()
            && let Some(wish) = self.edits.pop_front()
        {
            match wish {
                Wish::Register(spec, reply) => match self.registry.add_register(edit, spec.clone()) {
                    Ok(Some(id)) => waiting.push(Waiting::Register(id, reply)),
                    Ok(None) => {
                        self.edits.push_front(Wish::Register(spec, reply));
                        break;
                    }
                    Err(e) => answer(reply, Err(e.into())),
                },
                Wish::Deregister(id, reply) => match self.registry.add_deregister(edit, id) {
                    Ok(true) => waiting.push(Waiting::Deregister(reply)),
                    Ok(false) => {
                        self.edits.push_front(Wish::Deregister(id, reply));
                        break;
                    }
                    Err(e) => answer(reply, Err(e.into())),
                },
            }
        }
        waiting
    }

    fn written(&mut self, written: Written) {
        let now = self.clock.now();
        match written {
            Written::Edit(edit, waiting, result) => {
                self.is_editing = false;
                self.edited(now, edit, waiting, result);
            }
            Written::Commit(epoch, true) => self.barriers.commit_done(now, epoch),
            Written::Commit(epoch, false) => self.barriers.commit_failed(now, epoch),
            Written::Ceiling(epoch, true) => self.barriers.ceiling_written(epoch),
            Written::Ceiling(epoch, false) => self.barriers.ceiling_failed(now, epoch),
        }
    }

    fn edited(&mut self, now: Instant, edit: Edit, waiting: Vec<Waiting>, result: Result<(), WriteError>) {
        let result = result.map_err(Refused::Write);
        self.expiry_rests_until = result.is_err().then(|| now + EXPIRE_AGAIN_AFTER);
        if result.is_ok() {
            match self.registry.apply(now, edit) {
                Ok(changes) => {
                    changes.into_iter().for_each(|change| self.changed(now, change));
                    self.count_workers();
                }
                Err(stale) => tracing::error!("{stale}"), // edits are made one at a time: cannot happen
            }
        }
        for waiting in waiting {
            let result = result.clone();
            match waiting {
                Waiting::Register(id, reply) => {
                    answer(reply, result.map(|()| (id, self.max_heartbeat_interval)));
                }
                Waiting::Deregister(reply) => answer(reply, result),
            }
        }
    }

    fn changed(&mut self, now: Instant, change: Change) {
        if let ChangeKind::Left(_) = change.kind {
            self.streams.cut(change.worker.id, super::request_queue::Cut::Left);
            self.barriers.worker_gone(now, change.worker.id);
        }
        let _ = self.watchers.send(change); // nobody watches: fine
    }
}

fn result_of(why: DropReason) -> BarrierResult {
    match why {
        DropReason::TimedOut => BarrierResult::TimedOut,
        DropReason::WorkerLeft(_) => BarrierResult::WorkerLeft,
        DropReason::CommitFailed => BarrierResult::CommitFailed,
    }
}

/// Whoever asked may have gone away.
fn answer<T>(reply: Reply<T>, value: T) {
    let _ = reply.send(value);
}
