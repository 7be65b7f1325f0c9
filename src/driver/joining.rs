//! Carries out a join: the machine of [`crate::protocol::join`] says what, this does it, and judges the failures.

use std::time::Duration;

use super::tasks::{Tasks, unblock};
use super::{Shared, raise};
use crate::clock::{Instant, wall_clock_ms};
use crate::data_dir::{DataDir, DataDirError};
use crate::election::event::{Event, Joined};
use crate::election::history::{Ending, Reason};
use crate::election::record::{Registration, Revision};
use crate::protocol::join::{Join, JoinFailure, JoinPlan, Next, Pin};
use crate::protocol::{endpoints, transactions};
use crate::store::{Request, ask, probe};

/// How long a silent holder of our node id is waited for: its lease may be ending.
const HOLDER_TIMEOUT: Duration = Duration::from_secs(60);
/// The pause before our node id is looked at again.
const HOLDER_PAUSE: Duration = Duration::from_millis(500);

/// Joins, or says why not. `newest`: the newest revision that this process has seen.
pub(super) async fn join(shared: Shared, newest: Revision) -> Event {
    let began = shared.clock.now();
    loop {
        match try_join(&shared, newest).await {
            Ok(joined) => {
                shared.trouble.over();
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
                let dir = shared.data_dir.clone().lock_owned().await;
                let ending = match on_disk(shared.tasks.as_ref(), dir, |dir| dir.become_stranger()).await {
                    Ok(()) => Ending::with_detail(Reason::DataDirStale, "the next start has a new identity"),
                    Err(why) => Ending::with_detail(Reason::DiskFailed, why),
                };
                return Event::JoinFailed(Some(ending));
            }
            Err(failure) => return Event::JoinFailed(judge(&shared, failure).await),
        }
    }
}

async fn try_join(shared: &Shared, newest: Revision) -> Result<Joined, JoinFailure> {
    let (mut pin, floor, own_leases) = {
        let dir = shared.data_dir.lock().await;
        (dir.pin(), dir.floor(), dir.own_leases())
    };
    if let Some(pin) = &mut pin {
        pin.revision = pin.revision.max(newest);
    }
    agree(shared, pin).await?;
    if floor > Revision(0) {
        raise::raise(shared, floor).await?;
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
                // fsync can take seconds on a bad disk; a thread of its own keeps the renewals going.
                let dir = shared.data_dir.clone().lock_owned().await;
                let lease = on_disk(shared.tasks.as_ref(), dir, |dir| dir.next_lease())
                    .await
                    .map_err(JoinFailure::Disk)?;
                if let Some(guardian) = &shared.guardian {
                    guardian.tell_lease(lease);
                }
                join.persisted(lease)
            }
            Next::Done(joined, pin) => {
                let dir = shared.data_dir.clone().lock_owned().await;
                on_disk(shared.tasks.as_ref(), dir, move |dir| dir.settle(pin))
                    .await
                    .map_err(JoinFailure::Disk)?;
                return Ok(joined);
            }
            Next::Failed(failure) => return Err(failure),
        };
    }
}

/// Looks at the endpoints before a join, and pins their cluster.
async fn agree(shared: &Shared, pin: Option<Pin>) -> Result<(), JoinFailure> {
    let looks = shared.places.clusters().await;
    if looks.is_empty() {
        return Ok(()); // a store in one place
    }
    match endpoints::agree(pin.map(|p| p.cluster), shared.has_joined(), &looks)? {
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
            shared.trouble.report("join", &e);
            JoinFailure::of(&e)
        }
    }
}

/// Puts a revision that was seen on disk, so that the next start refuses a store that has not got it. In the
/// background: a slow disk must not eat up the lease.
pub(super) async fn note_revision(shared: Shared, revision: Revision) {
    let dir = shared.data_dir.clone().lock_owned().await;
    if let Err(why) = on_disk(shared.tasks.as_ref(), dir, move |dir| dir.note_revision(revision)).await {
        tracing::warn!(error = %why, "cannot record the store's revision in the data dir");
    }
}

async fn call(shared: &Shared, request: Request) -> transactions::Answer {
    let answer = shared.store.call(request).await;
    if let Err(e) = &answer {
        shared.trouble.report("join", e);
    }
    answer
}

type LockedDir = tokio::sync::OwnedMutexGuard<DataDir>;

async fn on_disk<T: Send + 'static>(
    tasks: &dyn Tasks,
    mut dir: LockedDir,
    work: impl FnOnce(&mut DataDir) -> Result<T, DataDirError> + Send + 'static,
) -> Result<T, String> {
    let done = unblock(tasks, move || work(&mut dir).map_err(|e| e.to_string())).await;
    done.unwrap_or_else(|| Err("the thread that writes the data dir has panicked".into()))
}

/// What etcd says itself when it refuses, and what to do about it; then nothing has to be guessed.
const KNOWN_REFUSALS: [(&str, &str); 3] = [
    (
        "database space exceeded",
        "etcd is full (alarm NOSPACE); compact it, defragment each member, then: etcdctl alarm disarm",
    ),
    (
        "corrupt",
        "etcd has found corrupt data on a member (alarm CORRUPT); see etcdctl alarm list, replace that \
         member, then: etcdctl alarm disarm",
    ),
    (
        "learner",
        "this member is a learner, which answers no requests yet; name the voting members, or: etcdctl member promote",
    ),
];

/// Is a failure final? `None`: try again.
async fn judge(shared: &Shared, failure: JoinFailure) -> Option<Ending> {
    match failure {
        // A password that is being changed is refused for a while; who has led or followed waits for it.
        JoinFailure::Denied(_) if shared.has_joined() => None,
        JoinFailure::Denied(why) => {
            let detail = format!(
                "{why}; check store.etcd.username and password_file, and that the user may read and write {}*: metad \
                 doctor --role prints etcd's commands",
                shared.keys.prefix()
            );
            Some(Ending::with_detail(Reason::StoreDenied, detail))
        }
        JoinFailure::StoreChanged(why) => Some(Ending::with_detail(Reason::StoreChanged, why)),
        JoinFailure::Disk(why) => Some(Ending::with_detail(Reason::DiskFailed, why)),
        JoinFailure::Retry(why) if !is_running(shared) => {
            let known = KNOWN_REFUSALS.iter().find(|(said, _)| why.contains(said));
            let found = match known {
                Some((_, advice)) => (*advice).to_owned(),
                None => shared.places.diagnose(&probe::question(&shared.keys)).await,
            };
            Some(Ending::with_detail(Reason::StoreUnavailable, format!("{why}\n{found}")))
        }
        JoinFailure::Retry(_) | JoinFailure::RolledBack | JoinFailure::Taken(_) => None,
    }
}

/// A node that has once joined waits for its store for ever; one that starts says soon that it is not there.
fn is_running(shared: &Shared) -> bool {
    let timeout_at = shared.started_at + shared.store_timeout;
    shared.has_joined() || !shared.clock.now().reached(timeout_at)
}

/// Another data dir is registered under our node id. If it answers, it lives and we must go; if not, its lease
/// may be ending.
async fn judge_holder(shared: &Shared, holder: &Registration, since: Instant) -> Option<Ending> {
    let node = &holder.member.node;
    let place = format!("{} (data dir {}, lease {})", holder.rpc_address, holder.member.uuid, holder.lease);
    let uuid = shared.peers.who_answers(&holder.rpc_address).await;
    // With a wildcard or a shared address we may have reached ourselves, or somebody else.
    if uuid == Some(holder.member.uuid) {
        let detail = format!(
            "node id {node:?} is in use by metad at {place}; stop it, or give this one another --node-id"
        );
        return Some(Ending::with_detail(Reason::NodeIdInUse, detail));
    }
    if shared.clock.now().since(since) < HOLDER_TIMEOUT {
        return None;
    }
    let estranged = shared.data_dir.lock().await.estranged();
    let estranged = estranged.map_or(String::new(), |why| format!("; {why}"));
    let detail = format!(
        "node id {node:?} is registered by {place}, which does not answer, and whose lease has not ended for \
         {HOLDER_TIMEOUT:?}; if it is certainly dead: metad release --node {node} --it-is-dead, with the settings of \
         this node (or etcdctl lease revoke {}){estranged}",
        holder.lease
    );
    Some(Ending::with_detail(Reason::NodeIdInUse, detail))
}
