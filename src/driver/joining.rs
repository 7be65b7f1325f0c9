//! Carries out a join: the machine of [`crate::protocol::join`] says what, this does it, and judges the failures.

use std::time::Duration;

use futures_util::future::join_all;

use super::Shared;
use crate::clock::{Instant, wall_clock_ms};
use crate::election::event::{Event, Joined};
use crate::election::history::{Ending, Reason};
use crate::election::record::{Registration, Revision};
use crate::protocol::join::{self, Join, JoinFailure, JoinPlan, Next, Pin};
use crate::protocol::{endpoints, raise, transactions};
use crate::store::{Request, ask, probe};

/// How long a silent holder of our node id is waited for: its lease may be ending.
const HOLDER_TIMEOUT: Duration = Duration::from_secs(60);
/// The pause before our node id is looked at again.
const HOLDER_PAUSE: Duration = Duration::from_millis(500);

/// Joins, or says why not. `newest`: the newest revision that this process has seen. `until`: how long the store may be
/// away; a node that has once joined (`None`) waits for it for ever.
pub(super) async fn join(shared: Shared, newest: Revision, until: Option<Instant>) -> Event {
    let began = shared.clock.now();
    loop {
        match try_join(&shared, newest, until.is_none()).await {
            Ok(joined) => {
                shared.telemetry.store_answered();
                return Event::Joined(joined);
            }
            Err(JoinFailure::Taken(holder)) => {
                if let Some(ending) = judge_holder(&shared, &holder, began).await {
                    return Event::JoinFailed(Some(ending));
                }
                tokio::time::sleep(HOLDER_PAUSE).await;
            }
            Err(JoinFailure::RolledBack) => {
                // The elector knows itself by the old identity, so this needs a new start of the process.
                let ending = match shared.on_disk(|dir| dir.become_stranger()).await {
                    Ok(()) => Ending::with_detail(Reason::DataDirStale, "the next start has a new identity"),
                    Err(why) => Ending::with_detail(Reason::DiskFailed, why),
                };
                return Event::JoinFailed(Some(ending));
            }
            Err(failure) => return Event::JoinFailed(judge(&shared, failure, until).await),
        }
    }
}

async fn try_join(shared: &Shared, newest: Revision, has_joined: bool) -> Result<Joined, JoinFailure> {
    let (mut pin, floor, own_leases) = {
        let dir = shared.data_dir.lock().await;
        (dir.pin(), dir.floor(), dir.own_leases())
    };
    if let Some(pin) = &mut pin {
        pin.revision = pin.revision.max(newest);
    }
    agree(shared, pin, has_joined).await?;
    if floor > Revision(0) {
        raise(shared, floor).await?;
    }
    let (keys, registration) = (shared.keys.clone(), shared.registration.clone());
    let plan = JoinPlan { keys, registration, own_leases, pin, wall_ms: wall_clock_ms() };
    let (mut join, mut next) = Join::start(plan);
    loop {
        next = match next {
            Next::Ask(request) => {
                let stamp = shared.clock.now();
                join.answered(stamp, &call(shared, request).await)
            }
            Next::Persist => {
                let lease = shared.on_disk(|dir| dir.next_lease()).await.map_err(JoinFailure::Disk)?;
                if let Some(guardian) = &shared.guardian {
                    guardian.tell_lease(lease);
                }
                join.persisted(lease)
            }
            Next::Done(joined, pin) => {
                shared.on_disk(move |dir| dir.settle(pin)).await.map_err(JoinFailure::Disk)?;
                return Ok(joined);
            }
            Next::Failed(failure) => return Err(failure),
        };
    }
}

/// Looks at the endpoints before a join, and pins their cluster.
async fn agree(shared: &Shared, pin: Option<Pin>, has_joined: bool) -> Result<(), JoinFailure> {
    let looks = shared.places.clusters().await;
    if looks.is_empty() {
        return Ok(()); // a store in one place
    }
    match endpoints::agree(pin.map(|p| p.cluster), has_joined, &looks)? {
        Some(cluster) => shared.pin(cluster),
        None => return Err(silent(shared).await),
    }
    Ok(())
}

/// The store's own words for why nobody answers: refused, wrong certificate, no leader.
async fn silent(shared: &Shared) -> JoinFailure {
    match ask(shared.store.as_ref(), transactions::read(&shared.keys)).await {
        Ok(_) => JoinFailure::Retry("no endpoint has reported its cluster".into()),
        Err(e) => {
            shared.telemetry.store_failed("join", &e);
            e.into()
        }
    }
}

/// Lifts the store's revision to `floor` at least. Safe to repeat: it looks first.
async fn raise(shared: &Shared, floor: Revision) -> Result<(), JoinFailure> {
    let (store, keys) = (shared.store.as_ref(), &shared.keys);
    let mut said = false;
    loop {
        let at = ask(store, raise::look(keys)).await?.header.revision;
        let missing = raise::missing(at, floor)?;
        if missing == 0 {
            break;
        }
        if !std::mem::replace(&mut said, true) {
            let (from, to) = (at.0, floor.0);
            tracing::info!(from, to, "raising the store's revision above the tokens it has lost");
        }
        let lift = || store.call(Request::Txn(raise::lift(keys)));
        for answer in join_all((0..missing.min(raise::AT_ONCE)).map(|_| lift())).await {
            answer?;
        }
    }
    ask(store, raise::clean(keys)).await?;
    Ok(())
}

/// Puts a revision that was seen on disk, so that the next start refuses a store that has not got it. In the
/// background: a slow disk must not eat up the lease.
pub(super) async fn note_revision(shared: Shared, revision: Revision) {
    if let Err(why) = shared.on_disk(move |dir| dir.note_revision(revision)).await {
        tracing::warn!(error = %why, "cannot record the store's revision in the data dir");
    }
}

async fn call(shared: &Shared, request: Request) -> transactions::Answer {
    let answer = shared.store.call(request).await;
    if let Err(e) = &answer {
        shared.telemetry.store_failed("join", e);
    }
    answer
}

/// Is a failure final? `None`: try again.
async fn judge(shared: &Shared, failure: JoinFailure, until: Option<Instant>) -> Option<Ending> {
    match failure {
        // A password that is being changed is refused for a while; who has led or followed waits for it.
        JoinFailure::Denied(_) if until.is_none() => None,
        JoinFailure::Retry(why) if until.is_some_and(|until| shared.clock.now().reached(until)) => {
            let found = match join::advice(&why) {
                Some(advice) => advice.to_owned(),
                None => shared.places.diagnose(&probe::question(&shared.keys)).await,
            };
            Some(Ending::with_detail(Reason::StoreUnavailable, format!("{why}\n{found}")))
        }
        failure => failure.ending(&shared.keys),
    }
}

/// Another data dir is registered under our node id. If it answers, it lives and we must go; if not, its lease
/// may be ending.
async fn judge_holder(shared: &Shared, holder: &Registration, since: Instant) -> Option<Ending> {
    let uuid = shared.peers.who_answers(&holder.rpc_address).await;
    // With a wildcard or a shared address we may have reached ourselves, or somebody else.
    if uuid == Some(holder.member.uuid) {
        return Some(join::in_use(holder));
    }
    if shared.clock.now().since(since) < HOLDER_TIMEOUT {
        return None;
    }
    let estranged = shared.data_dir.lock().await.estranged();
    Some(join::held(holder, HOLDER_TIMEOUT, estranged))
}
