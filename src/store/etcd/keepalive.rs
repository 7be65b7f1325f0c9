//! The keep-alive engine: renewals that one hung member cannot hold up.
//!
//! Every attempt is a *fresh* stream. etcd handles the messages of one stream strictly one after the other, and
//! a message to a hung etcd leader blocks it for 7 s (`v3rpc/lease.go`, `ReqTimeout`), while a new stream is
//! answered as soon as there is a new leader. Attempts are hedged over the members; each carries its own stamp,
//! and a late answer still counts with it, so nothing that is under way is cancelled before its time.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::Shared;
use super::convert::{revision, seconds};
use super::member::{Member, OPEN_RENEWALS_MAX, status_error, wants_a_new_login};
use crate::clock::Instant;
use crate::election::lease::LeaseId;
use crate::proto::etcd::LeaseKeepAliveRequest;
use crate::store::{Header, Renewal, StoreError};

/// How long an attempt may stay open at least: longer than the 7 s after which etcd itself gives up.
const ATTEMPT_LIFETIME_MIN: Duration = Duration::from_secs(8);

type Answer = Result<Renewal, StoreError>;

/// Starts a round of attempts. Must be called on a runtime.
pub(super) fn renew(shared: Arc<Shared>, lease: LeaseId) -> BoxStream<'static, Answer> {
    let (answers, stream) = mpsc::channel(shared.members.len().max(1));
    tokio::spawn(round(shared, lease, answers));
    ReceiverStream::new(stream).boxed()
}

async fn round(shared: Arc<Shared>, lease: LeaseId, answers: mpsc::Sender<Answer>) {
    for (index, member) in shared.order() {
        if member.open_renewals.fetch_add(1, Ordering::Relaxed) >= OPEN_RENEWALS_MAX {
            member.open_renewals.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        // Ends the wait below as soon as this attempt is answered, well or badly.
        let (settled, wait) = tokio::sync::oneshot::channel();
        let (shared_, answers_) = (shared.clone(), answers.clone());
        tokio::spawn(async move {
            let answer = bounded_attempt(&shared_, &member, lease).await;
            member.open_renewals.fetch_sub(1, Ordering::Relaxed);
            let good = answer.is_ok();
            if good {
                shared_.preferred.store(index, Ordering::Relaxed);
            }
            let _ = answers_.send(answer).await; // nobody listens any more: nothing to tell
            let _ = settled.send(good);
        });
        if let Ok(Ok(true)) = tokio::time::timeout(shared.hedge_delay(), wait).await {
            return;
        }
    }
}

async fn bounded_attempt(shared: &Shared, member: &Member, lease: LeaseId) -> Answer {
    let stamp = shared.clock.now(); // before anything of this attempt leaves
    member.asked(stamp);
    let lifetime = shared.options.request_timeout.max(ATTEMPT_LIFETIME_MIN);
    match tokio::time::timeout(lifetime, own_attempt(shared, member, lease, stamp)).await {
        Ok(answer) => {
            member.heard(stamp, answer.as_ref().is_ok() || is_from_member(&answer));
            if answer.as_ref().is_err_and(wants_a_new_login) {
                member.forget_connection();
            }
            if answer.is_ok() {
                let now = shared.clock.now();
                member.answered(stamp, now);
                shared.record_round_trip(now.since(stamp));
            }
            answer
        }
        Err(_) => Err(StoreError::Unknown(format!("{} did not answer for {lifetime:?}", member.name()))),
    }
}

/// An attempt whose answer counts as none if it comes from another cluster.
async fn own_attempt(shared: &Shared, member: &Member, lease: LeaseId, stamp: Instant) -> Answer {
    shared.check_stray(member).await?;
    let renewal = attempt(member, lease, stamp).await?;
    shared.check_cluster(member, renewal.header.cluster)?;
    Ok(renewal)
}

fn is_from_member(answer: &Answer) -> bool {
    matches!(answer, Err(e) if e.refusal().is_some_and(|r| r != crate::store::Refusal::NotSent))
}

async fn attempt(member: &Member, lease: LeaseId, stamp: Instant) -> Answer {
    let connection = member.connection(stamp).await?;
    let message = LeaseKeepAliveRequest { id: lease.0 };
    // One message, then half-close: the stream ends with its answer.
    let mut request = tonic::Request::new(stream::once(std::future::ready(message)));
    connection.dress(&mut request);
    let answered = member.lease_client(&connection).lease_keep_alive(request).await;
    let mut answers = answered.map_err(|s| status_error(&s))?.into_inner();
    let answer = answers.message().await.map_err(|s| status_error(&s))?;
    // An end without an answer is not a success (etcd ends the stream so when it shuts down).
    let answer = answer.ok_or_else(|| StoreError::Unknown("the stream ended without an answer".into()))?;
    if answer.id != lease.0 {
        return Err(StoreError::Unknown(format!(
            "an answer for lease {:016x} instead of {lease}",
            answer.id
        )));
    }
    let header = answer.header.unwrap_or_default();
    let header = Header {
        cluster: header.cluster_id,
        revision: revision(header.revision),
        raft_term: header.raft_term,
    };
    let ttl = (answer.ttl > 0).then(|| seconds(answer.ttl));
    Ok(Renewal { stamp, header, ttl })
}
