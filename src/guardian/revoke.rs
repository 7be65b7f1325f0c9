//! Giving a dead node's leases back, on a connection that is open and logged in before it is needed.
//!
//! A thread and a runtime of its own: whatever the store does, the guardian watches on.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock::{Clock, Instant, OsClock};
use crate::config::Config;
use crate::election::lease::LeaseId;
use crate::store::codec::Keys;
use crate::store::open::{self, OpenStore};
use crate::store::{Op, Request, StoreError, Txn};

/// How often the connection is used, so that it and its login stay good.
const USE_EVERY: Duration = Duration::from_secs(30);
/// The pause after a connection that could not be opened or used; doubles up to [`USE_EVERY`].
const OPEN_PAUSE: Duration = Duration::from_secs(1);
/// The pause between two tries to revoke; doubles up to the second one.
const REVOKE_PAUSE: Duration = Duration::from_millis(20);
const REVOKE_PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long the store is asked after its first answer, at least: a lease may be granted for longer than it was asked for.
const TIMEOUT_MIN: Duration = Duration::from_secs(60);
/// How long a store is asked that does not answer at all.
const SILENCE_MAX: Duration = Duration::from_secs(24 * 3600);

/// What is to be revoked, and in which cluster, if that is known.
#[derive(Debug, Default)]
struct Order {
    leases: Vec<LeaseId>,
    cluster: Option<u64>,
}

/// Holds the connection until it is told what to revoke.
pub(super) struct Revoker {
    order: oneshot::Sender<Order>,
    thread: JoinHandle<()>,
}

/// Why not everything is revoked yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NotRevoked {
    /// The store decides, and did not do this.
    Refused,
    /// It cannot be reached, or does not decide.
    Silent,
}

/// For how long it is worth trying.
#[derive(Debug)]
struct Effort {
    ttl: Duration,
    began: Instant,
    /// When the store first refused.
    refused: Option<Instant>,
}

// === impl Effort ===

impl Effort {
    fn note(&mut self, why: NotRevoked, now: Instant) {
        if why == NotRevoked::Refused {
            self.refused.get_or_insert(now);
        }
    }

    /// An etcd that decides lets the leases end by themselves. One without a quorum expires nothing, and whoever becomes
    /// its leader gives each lease its whole time again (its `lessor.Promote`): there the time only begins with an answer.
    fn is_over(&self, now: Instant) -> bool {
        match self.refused {
            Some(first) => now.since(first) > self.ttl.max(TIMEOUT_MIN),
            None => now.since(self.began) > self.ttl.max(SILENCE_MAX),
        }
    }
}

// === impl Revoker ===

impl Revoker {
    /// Begins to connect.
    pub(super) fn start(config: Config) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (order, ordered) = oneshot::channel();
        let work = move || runtime.block_on(serve(config, ordered));
        let thread = std::thread::Builder::new().name("revoke".into()).spawn(work)?;
        Ok(Self { order, thread })
    }

    /// Revokes these leases, for as long as that is worth trying ([`Effort`]). Of a lease that is not found only its own cluster can
    /// say that it has ended: an endpoint that has become another's counts as silent.
    ///
    /// Begins; the thread ends when it is done.
    pub(super) fn revoke(self, leases: Vec<LeaseId>, cluster: Option<u64>) -> JoinHandle<()> {
        let _ = self.order.send(Order { leases, cluster });
        self.thread
    }
}

async fn serve(config: Config, ordered: oneshot::Receiver<Order>) {
    let mut store: Option<Arc<dyn OpenStore>> = None;
    let order = tokio::select! {
        order = ordered => order.unwrap_or_default(),
        never = keep_ready(&config, &mut store) => match never {},
    };
    let ttl = Duration::from_secs(config.meta.meta_leader_lease_secs);
    let clock = OsClock;
    let mut effort = Effort { ttl, began: clock.now(), refused: None };
    let mut pause = REVOKE_PAUSE;
    while let Err(why) = revoke(&config, &mut store, &order).await {
        effort.note(why, clock.now());
        if effort.is_over(clock.now()) {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(REVOKE_PAUSE_MAX);
    }
}

/// Opens the store and uses it from time to time. A file needs no login; it is opened when it is needed.
async fn keep_ready(config: &Config, store: &mut Option<Arc<dyn OpenStore>>) -> std::convert::Infallible {
    if config.store.file().is_some() {
        return std::future::pending().await;
    }
    let keys = Keys::new(&config.node.cluster, &config.meta.group);
    let mut pause = OPEN_PAUSE;
    loop {
        let used = match opened(config, store).await {
            Ok(store) => {
                store.clusters().await; // it learns who leads etcd, where a revoke takes the shortest way
                store.call(Request::Txn(Txn::read(vec![Op::Get(keys.leader())]))).await.is_ok()
            }
            Err(()) => false,
        };
        if used {
            pause = OPEN_PAUSE;
            tokio::time::sleep(USE_EVERY).await;
        } else {
            *store = None; // certificates and password are read again
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(USE_EVERY);
        }
    }
}

async fn opened(config: &Config, store: &mut Option<Arc<dyn OpenStore>>) -> Result<Arc<dyn OpenStore>, ()> {
    if let Some(store) = store {
        return Ok(store.clone());
    }
    // Nobody is there to be told why it failed: the node has opened the same store, and says it itself.
    let fresh = open::open(config, Arc::new(OsClock)).await.map_err(|_| ())?;
    Ok(store.insert(fresh).clone())
}

/// Each lease once; what the store says is gone is gone.
async fn revoke(
    config: &Config,
    store: &mut Option<Arc<dyn OpenStore>>,
    order: &Order,
) -> Result<(), NotRevoked> {
    if order.leases.is_empty() {
        return Ok(());
    }
    let present = opened(config, store).await.map_err(|()| NotRevoked::Silent)?;
    if let Some(cluster) = order.cluster {
        present.pin(cluster);
    }
    let asked = order.leases.iter().map(|lease| present.call(Request::Revoke(*lease)));
    let answers = futures_util::future::join_all(asked).await;
    if answers.iter().all(Result::is_ok) {
        return Ok(());
    }
    if !answers.iter().any(|answer| matches!(answer, Err(StoreError::Refused(..)))) {
        return Err(NotRevoked::Silent);
    }
    *store = None; // certificates and password are read again
    Err(NotRevoked::Refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over(ttl_secs: u64, refused: Option<u64>, now: u64) -> bool {
        let at = |secs| Instant::from_millis(secs * 1000);
        let mut effort = Effort { ttl: Duration::from_secs(ttl_secs), began: at(0), refused: None };
        effort.note(NotRevoked::Silent, at(1));
        if let Some(secs) = refused {
            effort.note(NotRevoked::Refused, at(secs));
            effort.note(NotRevoked::Refused, at(now));
        }
        effort.is_over(at(now))
    }

    #[test]
    fn a_store_that_is_away_is_waited_for_longer_than_the_lease() {
        assert!(!over(15, None, 3_600));
        assert!(over(15, None, 86_401));
        assert!(!over(172_800, None, 100_000), "the lease is longer");
        assert!(!over(15, Some(3_600), 3_660), "it counts from the first answer");
        assert!(over(15, Some(3_600), 3_661));
        assert!(!over(100, Some(0), 100));
    }
}
