//! Twenty workers that follow whoever leads, collect every barrier, and write down what they see.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use metad::client::{BarrierEvent, Barriers, ClientError, MetaClient, WorkerSpec};
use tokio::runtime::Runtime;
use tokio::time::Instant;

use crate::soak::epochs::{Seen, Stretch};
use crate::support::poll::holds_within;

/// How many there are.
pub const WORKERS: usize = 20;
/// How long a worker needs to collect a barrier.
const WORK: Duration = Duration::from_millis(20);
/// How soon one tries again after an error.
const PAUSE: Duration = Duration::from_millis(100);
/// How long one call may take; then the addresses are looked up again.
const CALL_PATIENCE: Duration = Duration::from_secs(10);
/// All workers have found the leader by then.
const FOLLOW_PATIENCE: Duration = Duration::from_secs(60);

/// All workers, at work until this is dropped.
pub struct Workers {
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

#[derive(Default)]
struct Shared {
    addresses: Mutex<Vec<String>>,
    stretches: Mutex<Vec<Stretch>>,
}

// === impl Workers ===

impl Workers {
    /// Starts them; they know these members.
    pub fn start(addresses: Vec<String>) -> Self {
        let shared = Arc::new(Shared { addresses: Mutex::new(addresses), ..Shared::default() });
        let runtime = Runtime::new().expect("a runtime");
        for worker in 0..WORKERS {
            runtime.spawn(live(worker, shared.clone()));
        }
        Self { shared, runtime: Some(runtime) }
    }

    /// Where the members are now: those that were started again listen elsewhere.
    pub fn told_addresses(&self, addresses: Vec<String>) {
        *lock(&self.shared.addresses) = addresses;
    }

    /// Waits until each of them was told of a commit by the leader with this token.
    #[track_caller]
    pub fn wait_until_all_follow(&self, token: u64) {
        let follows = |worker| {
            let all = lock(&self.shared.stretches);
            let mut under = all.iter().filter(|s| s.worker == worker && s.token == token);
            under.any(|s| s.seen.iter().any(|seen| matches!(seen, Seen::Committed(_))))
        };
        let all = holds_within(FOLLOW_PATIENCE, || (0..WORKERS).all(follows));
        let missing: Vec<_> = (0..WORKERS).filter(|worker| !follows(*worker)).collect();
        assert!(all, "these workers do not follow the leader with token {token}: {missing:?}");
    }

    /// What they saw so far.
    pub fn seen(&self) -> Vec<Stretch> {
        lock(&self.shared.stretches).clone()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic")
}

// === a worker's life ===

async fn live(worker: usize, shared: Arc<Shared>) {
    let port = 7000 + u16::try_from(worker).expect("few workers");
    let spec = WorkerSpec { host: "soak".into(), port, kind: "compute".into(), labels: [].into() };
    loop {
        let addresses = lock(&shared.addresses).clone();
        let client = MetaClient::new(addresses).expect("addresses").deadline(CALL_PATIENCE);
        if let Ok(registered) = client.register_worker(spec.clone()).await {
            let every = registered.max_heartbeat_interval / 3;
            tokio::select! {
                _ = follow(&client, worker, registered.worker_id, &shared) => {}
                _ = give_signs(&client, registered.worker_id, every) => {}
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// From leader to leader, until nobody is found or the worker has to register again.
async fn follow(client: &MetaClient, worker: usize, id: u64, shared: &Shared) -> Result<(), ClientError> {
    loop {
        let barriers = client.barriers(id).await?;
        let token = barriers.leader_token();
        let index = {
            let mut all = lock(&shared.stretches);
            all.push(Stretch { worker, token, seen: Vec::new() });
            all.len() - 1
        };
        let note = |seen| lock(&shared.stretches)[index].seen.push(seen);
        if let Err(e @ ClientError::NotFound { .. }) = attend(barriers, note).await {
            return Err(e);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Collects each barrier a little after it came, and listens meanwhile: a commit that did not wait would be seen.
async fn attend(mut barriers: Barriers, note: impl Fn(Seen)) -> Result<(), ClientError> {
    let mut work: VecDeque<(Instant, u64)> = VecDeque::new();
    loop {
        let done_at = work.front().map_or_else(Instant::now, |(at, _)| *at);
        tokio::select! {
            event = barriers.next() => match event? {
                BarrierEvent::Barrier(barrier) => {
                    note(Seen::Barrier { epoch: barrier.epoch, previous: barrier.previous_epoch });
                    work.push_back((Instant::now() + WORK, barrier.epoch));
                }
                BarrierEvent::Committed(committed) => note(Seen::Committed(committed.epoch)),
                BarrierEvent::Dropped(_) | BarrierEvent::SetAside(_) => {}
            },
            () = tokio::time::sleep_until(done_at), if !work.is_empty() => {
                let (_, epoch) = work.pop_front().expect("not empty");
                note(Seen::Collects(epoch));
                barriers.collected(epoch).await?;
            }
        }
    }
}

async fn give_signs(client: &MetaClient, id: u64, every: Duration) -> Result<(), ClientError> {
    loop {
        tokio::time::sleep(every).await;
        // Any other error: nobody leads at the moment.
        if let Err(e @ ClientError::NotFound { .. }) = client.heartbeat(id).await {
            return Err(e);
        }
    }
}
