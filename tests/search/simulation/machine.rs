//! What a process has of its machine: tasks, disk, switch, the way to the store and to the others. Each is the simulation's
//! implementation of a trait that the driver asks for.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, FuturesUnordered};
use futures_util::{StreamExt, TryFutureExt};
use metad::clock::Clock;
use metad::data_dir::Disk;
use metad::driver::fuse::DeadMansSwitch;
use metad::driver::peers::{Peers, Prepared};
use metad::driver::tasks::Tasks;
use metad::election::lease::LeaseId;
use metad::election::record::{MemberUuid, Revision, Token};
use metad::guardian::horizon::{Change, End, Horizon};
use metad::store::places::Places;
use metad::store::{KeyRange, Renewal, Request, Response, Store, StoreError, WatchBatch};
use tokio::sync::oneshot;

use crate::simulation::clock::MS;
use crate::simulation::host::Process;
use crate::simulation::invariants::Happened;
use crate::simulation::network::{CALM_TRIP_MAX, From};
use crate::simulation::world::{Sim, World};

/// The contract of a store: an answer after a bounded time, at the latest "unknown".
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
/// So long an attempt to renew stays open for its answer.
const RENEWAL_TIMEOUT: Duration = Duration::from_secs(8);
/// The slowest disk.
const DISK_MAX: u64 = 20 * MS;

/// One process, for whatever belongs to it.
#[derive(Clone)]
pub struct Machine {
    pub sim: Sim,
    pub h: usize,
    pub pid: u32,
    pub clock: Arc<dyn Clock>,
    /// Tasks that have not been polled yet.
    pub fresh: Arc<Mutex<Vec<BoxFuture<'static, ()>>>>,
    pub horizon: Arc<Horizon>,
}

pub fn nanos(ns: u64) -> Duration {
    Duration::from_nanos(ns)
}

impl Machine {
    pub fn dice(&self, below: u64) -> u64 {
        self.sim.lock().dice.below(below)
    }

    fn add(&self, task: BoxFuture<'static, ()>) {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner).push(task);
    }
}

impl Tasks for Machine {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.add(task);
    }

    fn spawn_blocking(&self, work: Box<dyn FnOnce() + Send>) {
        let takes = nanos(self.dice(DISK_MAX));
        self.add(Box::pin(async move {
            tokio::time::sleep(takes).await;
            work();
        }));
    }
}

impl DeadMansSwitch for Machine {
    fn horizon(&self) -> Arc<Horizon> {
        self.horizon.clone()
    }

    fn set(&self, end: Option<End>) -> Change {
        let change = self.horizon.change_to(end);
        self.horizon.set(end);
        change
    }

    fn end_process(&self, _code: i32) {
        self.sim.lock().end(self.h, Some(self.pid), "its main loop does not end");
    }
}

// === the disk ===

impl Disk for Machine {
    fn read(&self, name: &str) -> std::io::Result<Option<Vec<u8>>> {
        Ok(self.sim.lock().hosts[self.h].files.get(name).cloned())
    }

    fn replace(&mut self, name: &str, content: &[u8]) -> std::io::Result<()> {
        let mut world = self.sim.lock();
        let (errors, crashes) = match world.calm {
            true => (0, 0),
            false => (world.plan.disk_errors, world.plan.disk_crashes),
        };
        if world.dice.percent(errors) {
            world.tally.count("disk errors");
            return Err(std::io::Error::other("the disk is broken"));
        }
        let dies = world.dice.percent(crashes);
        // It may have been written, or not.
        if !dies || world.dice.percent(50) {
            world.hosts[self.h].files.insert(name.to_owned(), content.to_owned());
        }
        if dies {
            world.tally.count("crashes at a write of the disk");
            world.end(self.h, Some(self.pid), "crash at a write of the disk");
            return Err(std::io::Error::other("the process is gone"));
        }
        Ok(())
    }

    fn location(&self) -> &Path {
        Path::new("the simulated disk")
    }
}

// === the store ===

impl Machine {
    /// Sends a request, and gives what its answer will come to.
    fn send(&self, request: Request) -> oneshot::Receiver<Result<Response, StoreError>> {
        let (answer, answered) = oneshot::channel();
        let mut world = self.sim.lock();
        if world.process(self.h, self.pid).is_some() {
            let call = world.name();
            world.calls.insert(call, answer);
            world.send(self.h, From::Process(self.h, self.pid), call, request);
        }
        answered
    }

    /// One attempt, which may first have to connect and log in. The stamp is taken right before it leaves.
    async fn attempt(self, lease: LeaseId, wait: Duration) -> Result<Renewal, StoreError> {
        tokio::time::sleep(wait).await;
        let stamp = self.clock.now();
        let answered = self.send(Request::Renew(lease)).map_err(|_| unknown());
        match tokio::time::timeout(RENEWAL_TIMEOUT, answered).await {
            Ok(Ok(Ok(Response::Renewed(header, ttl)))) => Ok(Renewal { stamp, header, ttl }),
            Ok(Ok(Ok(_))) | Err(_) => Err(unknown()),
            Ok(Ok(Err(e)) | Err(e)) => Err(e),
        }
    }
}

fn unknown() -> StoreError {
    StoreError::Unknown("no answer".into())
}

#[async_trait]
impl Store for Machine {
    async fn call(&self, request: Request) -> Result<Response, StoreError> {
        match tokio::time::timeout(REQUEST_TIMEOUT, self.send(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(unknown()),
        }
    }

    /// An attempt, and where answers are slow up to two more, one after the other; each may have to wait for a login.
    fn renew(&self, lease: LeaseId) -> BoxStream<'static, Result<Renewal, StoreError>> {
        let attempts = FuturesUnordered::new();
        let (more, slow_login) = {
            let world = self.sim.lock();
            let (hedges, slow_login) =
                (world.dice.percent(world.plan.slow), world.dice.percent(world.plan.slow));
            (if hedges { world.dice.below(3) } else { 0 }, !world.calm && slow_login)
        };
        for i in 0..=more {
            let login = if slow_login { self.dice(2_000 * MS) } else { 0 };
            attempts.push(self.clone().attempt(lease, nanos(i * 60 * MS + login)));
        }
        attempts.boxed()
    }

    async fn watch(
        &self,
        range: KeyRange,
        after: Revision,
        alive_every: Duration,
    ) -> Result<BoxStream<'static, Result<WatchBatch, StoreError>>, StoreError> {
        let mut batches = self.sim.lock().open_watch(self.h, range, after, alive_every);
        Ok(stream::poll_fn(move |cx| batches.poll_recv(cx)).boxed())
    }

    fn location(&self) -> String {
        "the simulated store".into()
    }
}

#[async_trait]
impl Places for Machine {
    async fn diagnose(&self, _question: &Request) -> String {
        "nobody answers".into()
    }
}

// === the others ===

impl Machine {
    /// Somebody at this address who runs.
    fn awake(world: &mut World, address: &str) -> Option<usize> {
        let h: usize = address.strip_prefix("host")?.split(':').next()?.parse().ok()?;
        let lost = !world.calm && world.dice.percent(20);
        world.hosts[h].process.as_ref().filter(|p| !p.paused && !lost).map(|_| h)
    }
}

#[async_trait]
impl Peers for Machine {
    fn keep_warm(&self, _addresses: &[&str]) {}

    async fn prepare(&self, address: &str, token: Token) -> Option<Prepared> {
        let trip_max = if self.sim.lock().calm { CALM_TRIP_MAX } else { 60 * MS };
        tokio::time::sleep(nanos(self.dice(trip_max))).await;
        let answer = {
            let mut world = self.sim.lock();
            let h = Self::awake(&mut world, address)?;
            world.ask_to_prepare(h, token)
        };
        tokio::time::sleep(nanos(self.dice(trip_max))).await;
        answer
    }

    async fn who_answers(&self, address: &str) -> Option<MemberUuid> {
        tokio::time::sleep(nanos(self.dice(500 * MS))).await;
        let mut world = self.sim.lock();
        let h = Self::awake(&mut world, address)?;
        world.hosts[h].process.as_ref().map(|p| p.me.uuid)
    }
}

impl World {
    /// A candidate is asked whether it would take this tenure over, and answers as over gRPC.
    pub fn ask_to_prepare(&mut self, h: usize, token: Token) -> Option<Prepared> {
        let now = self.clock(h);
        let is_probed = self.hosts[h].is_probed;
        let p: &mut Process = self.hosts[h].process.as_mut()?;
        // Its queue may be full.
        let is_ready = matches!(p.handle.prepare(token.get(), now, || true), Ok(None));
        let (uuid, incarnation, sees) = (p.me.uuid, p.me.incarnation, p.shown.1);
        let is_untried = is_probed && !p.was_probed;
        let healthy_for = p.handle.status().health.healthy_for(now);
        if is_ready {
            p.said_healthy_for = Some(healthy_for);
            self.moment.push(Happened::SaidReady { h, token, sees, is_untried });
        }
        Some(Prepared { uuid, incarnation, is_ready, healthy_for })
    }
}
