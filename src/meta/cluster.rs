//! The built-in main loop: keeps the workers' registry, sends barriers, and writes its tick.
//!
//! One task owns registry and barriers. Requests come through the desk; writes go out as futures of their own,
//! so that nobody waits for the store but those who asked for what is written. Edits of the registry are written
//! one after the other, in the order of their requests.

mod streams;
mod writing;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::broadcast;

use super::barrier::{Action, BarrierManager, BarrierSettings, DropReason};
use super::codec::{self, Opening};
use super::desk::{Desk, Refused, Reply, Request, Watching};
use super::store::MetaStore;
use super::tick::TickLoop;
use super::workers::{Change, ChangeKind, Registry, WorkerId, WorkerSpec};
use crate::clock::{Clock, Instant, wall_clock_ms};
use crate::driver::leadership::{Leadership, WriteError};
use crate::driver::tenure::{BoxFuture, MainLoop, MainLoopEnd};
use crate::telemetry::Telemetry;
use crate::telemetry::metrics::BarrierResult;
use streams::Streams;
use writing::{Writing, Written};

/// How many changes a watcher of the workers may fall behind.
const CHANGES_MAX: usize = 1024;
/// How many edits of the registry may wait for the one that is being written.
const EDITS_MAX: usize = 4096;
/// The longest sleep; each wake is a sign of life.
const SLEEP_MAX: Duration = Duration::from_secs(1);
/// How many requests are taken at once.
const BATCH: usize = 64;
/// How soon a new leader tries again to read what its predecessor has left.
const OPEN_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// The main loop of a cluster.
pub struct ClusterLoop {
    /// How barriers are made.
    pub barriers: BarrierSettings,
    /// How long a worker may be silent.
    pub max_heartbeat_interval: Duration,
    /// The tick that shows who leads.
    pub tick: TickLoop,
    /// Where requests come from.
    pub desk: Desk,
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
    writing: FuturesUnordered<Writing>,
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
    Nobody,
}

// === impl ClusterLoop ===

impl MainLoop for ClusterLoop {
    fn run(self: Box<Self>, leadership: Leadership) -> BoxFuture<MainLoopEnd> {
        Box::pin(async move {
            tokio::select! {
                biased;
                _ = leadership.lost() => MainLoopEnd::default(),
                end = self.work(&leadership) => end,
                end = self.tick.tick_until_fenced(&leadership) => end,
            }
        })
    }
}

impl ClusterLoop {
    async fn work(&self, leadership: &Leadership) -> MainLoopEnd {
        let store = MetaStore::new(leadership.clone(), "");
        let opening = open(&store).await;
        for row in &opening.unreadable {
            tracing::warn!("{row}");
        }
        let mut requests = self.desk.take_requests();
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
                        return MainLoopEnd::default(); // the desk is closed: the tenure is over
                    }
                    batch.drain(..).for_each(|request| cluster.handle(request));
                }
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }
}

/// What the predecessor has left, read at a revision at which we certainly lead.
async fn open(store: &MetaStore) -> Opening {
    loop {
        match store.snapshot(codec::PREFIX).await {
            Ok(rows) => {
                return codec::read(rows.entries.iter().map(|e| (e.name.as_str(), e.value.as_slice())));
            }
            // Over: wait to be told, so that there is one way to end.
            Err(WriteError::Lost(_) | WriteError::Fenced(_)) => std::future::pending().await,
            Err(e) => {
                tracing::warn!(error = %e, "cannot read what the last leader has left; trying again");
                store.leadership().heartbeat(); // waiting for a store that is away is no hang
                tokio::time::sleep(OPEN_AGAIN_AFTER).await;
            }
        }
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
                Action::Inject { barrier, to } => {
                    for slow in self.streams.inject(barrier, &to) {
                        self.barriers.worker_left(now, slow);
                    }
                }
                Action::Announce { barrier, latency } => {
                    tracing::debug!(epoch = %barrier.epoch, ?latency, "epoch committed");
                    self.telemetry.metrics().barrier_committed(latency);
                    for slow in self.streams.announce(barrier) {
                        self.barriers.worker_left(now, slow);
                    }
                }
                Action::Commit(barrier) => {
                    let change = codec::commit_change(barrier);
                    self.writing.push(writing::commit(self.store.clone(), barrier.epoch, change));
                }
                Action::WriteCeiling(epoch) => {
                    let change = codec::ceiling_change(epoch);
                    self.writing.push(writing::ceiling(self.store.clone(), epoch, change));
                }
                Action::Dropped { barrier, why, missing } => {
                    let missing: Vec<_> = missing.iter().map(|w| w.0).collect();
                    tracing::warn!(epoch = %barrier.epoch, ?why, ?missing, "a barrier was dropped");
                    self.telemetry.metrics().barrier_dropped(result_of(why));
                }
            }
        }
    }

    fn sleep(&self) -> Duration {
        let now = self.clock.now();
        let expiry = self.registry.next_expiry().filter(|_| !self.is_editing);
        let next = [self.barriers.poll_timeout(), expiry].into_iter().flatten().reduce(Instant::earlier);
        next.map_or(SLEEP_MAX, |at| now.until(at).min(SLEEP_MAX))
    }

    fn handle(&mut self, request: Request) {
        let now = self.clock.now();
        match request {
            Request::Register(spec, reply) => self.wish(Wish::Register(spec, reply)),
            Request::Deregister(id, reply) => self.wish(Wish::Deregister(id, reply)),
            Request::Heartbeat(id, reply) => answer(reply, self.registry.heartbeat(now, id)),
            Request::List(reply) => answer(reply, self.registry.list().cloned().collect()),
            Request::Watch(reply) => {
                let workers = self.registry.list().cloned().collect();
                let (version, changes) = (self.registry.version(), self.watchers.subscribe());
                answer(reply, Watching { workers, version, changes });
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
            let (edit, waiting) = match self.edits.pop_front() {
                Some(Wish::Register(spec, reply)) => match self.registry.prepare_register(spec) {
                    Ok((id, edit)) => (edit, Waiting::Register(id, reply)),
                    Err(e) => {
                        answer(reply, Err(e.into()));
                        continue;
                    }
                },
                Some(Wish::Deregister(id, reply)) => match self.registry.prepare_deregister(id) {
                    Ok(edit) => (edit, Waiting::Deregister(reply)),
                    Err(e) => {
                        answer(reply, Err(e.into()));
                        continue;
                    }
                },
                None => match self.registry.prepare_expire(now) {
                    Some(edit) => (edit, Waiting::Nobody),
                    None => return,
                },
            };
            let changes = codec::edit_changes(&edit);
            if changes.is_empty() {
                self.edited(now, edit, waiting, Ok(()));
            } else {
                self.is_editing = true;
                self.writing.push(writing::edit(self.store.clone(), edit, waiting, changes));
            }
        }
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

    fn edited(
        &mut self,
        now: Instant,
        edit: super::workers::Edit,
        waiting: Waiting,
        result: Result<(), WriteError>,
    ) {
        let result = result.map_err(Refused::Write);
        if result.is_ok() {
            match self.registry.apply(now, edit) {
                Ok(changes) => {
                    changes.into_iter().for_each(|change| self.changed(now, change));
                    self.count_workers();
                }
                Err(stale) => tracing::error!("{stale}"), // edits are made one at a time: cannot happen
            }
        }
        match waiting {
            Waiting::Register(id, reply) => answer(reply, result.map(|()| (id, self.max_heartbeat_interval))),
            Waiting::Deregister(reply) => answer(reply, result),
            Waiting::Nobody => {}
        }
    }

    fn changed(&mut self, now: Instant, change: Change) {
        if let ChangeKind::Left(_) = change.kind
            && self.streams.cut(change.worker.id, super::desk::Cut::Left)
        {
            self.barriers.worker_left(now, change.worker.id);
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
