//! Looks at an etcd member, for diagnosis.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::StatusResponse;
use futures_util::future::{Either, select};

use super::convert::revision;
use super::error::{error, words};
use super::member::Member;
use super::reach;
use crate::clock::Clock;
use crate::store::probe::{Alarm, MemberStatus, Probe};
use crate::store::{Refusal, Request, StoreError};

/// How long a member may take to answer before a new connection is tried as well.
const REACH_AFTER: Duration = Duration::from_millis(50);

impl Member {
    /// Looks at this member. Nothing of it takes longer than `timeout`. `question` must be one that only a quorum can
    /// answer, as everything that the election asks.
    pub(super) async fn probe(
        self: &Arc<Self>,
        clock: &dyn Clock,
        question: &Request,
        timeout: Duration,
    ) -> Probe {
        let told = pin!(self.ask_both(clock, question, timeout));
        // Who answers at once needs no connection more.
        let looked = pin!(async {
            tokio::time::sleep(REACH_AFTER).await;
            reach::look(self.name(), timeout).await
        });
        match select(told, looked).await {
            Either::Left((probe, _)) if probe.answers() => probe,
            Either::Left((probe, looked)) => Probe { found: Some(looked.await), ..probe },
            Either::Right((found, told)) => Probe { found: Some(found), ..told.await },
        }
    }

    async fn ask_both(self: &Arc<Self>, clock: &dyn Clock, question: &Request, timeout: Duration) -> Probe {
        let at = clock.now();
        let asked = async { self.call(clock, question).await.map(|_| clock.now().since(at)) };
        let told = || within(timeout, self.status(clock));
        let (mut status, decided) = tokio::join!(told(), within(timeout, asked));
        // The newest etcds tell it only to who has logged in, as the question has by now.
        if decided.is_ok() && matches!(status, Err(StoreError::Refused(Refusal::Denied, _))) {
            status = told().await;
        }
        let (place, takes_no_login) = (self.name().to_owned(), self.takes_no_login());
        Probe { place, at, found: None, status: status.map_err(words), decided, takes_no_login }
    }

    /// What it says of itself, and how long that took.
    pub(super) async fn status(
        self: &Arc<Self>,
        clock: &dyn Clock,
    ) -> Result<(MemberStatus, Duration), StoreError> {
        let began = clock.now();
        // Not logged in: most etcds tell that to everybody, and a login may take longer than a look.
        let mut connection = self.connected(began).await?;
        let status = connection.maintenance.status().await.map_err(|e| error(&e))?;
        self.heard(began, true);
        Ok((told(&status), clock.now().since(began)))
    }
}

/// What a member says of itself.
pub(super) fn told(status: &StatusResponse) -> MemberStatus {
    let header = status.header();
    MemberStatus {
        member: header.map_or(0, |h| h.member_id()),
        cluster: header.map_or(0, |h| h.cluster_id()),
        leader: status.leader(),
        raft_term: status.raft_term(),
        revision: header.map_or(0, |h| revision(h.revision()).0),
        version: status.version().to_owned(),
        db_size: u64::try_from(status.db_size()).unwrap_or(0),
        db_in_use: u64::try_from(status.raft_used_db_size()).unwrap_or(0),
        quota: u64::try_from(status.db_size_quota()).ok().filter(|q| *q > 0),
        is_learner: status.is_learner(),
        alarms: status.errors().iter().filter_map(|e| alarm(e)).collect(),
    }
}

/// An answer within this time.
pub(super) async fn within<T>(
    timeout: Duration,
    answer: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    tokio::time::timeout(timeout, answer).await.unwrap_or_else(|_| Err(StoreError::Unknown(silence(timeout))))
}

pub(super) fn silence(timeout: Duration) -> String {
    format!("no answer within {timeout:?}")
}

/// One of the errors in a status, if it is an alarm: "memberID:10276657743932975437 alarm:NOSPACE ". One that no member
/// has raised names none.
fn alarm(error: &str) -> Option<Alarm> {
    let field = |name| error.split_whitespace().find_map(|word| word.strip_prefix(name));
    let member = field("memberID:").and_then(|id| id.parse().ok()).unwrap_or(0);
    Some(Alarm { member, kind: field("alarm:")?.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_are_read_from_the_errors_of_a_status() {
        let raised = |kind: &str| Some(Alarm { member: 10_276_657_743_932_975_437, kind: kind.into() });
        assert_eq!(alarm("memberID:10276657743932975437 alarm:NOSPACE "), raised("NOSPACE"));
        assert_eq!(alarm("memberID:10276657743932975437  alarm:CORRUPT"), raised("CORRUPT"));
        assert_eq!(alarm("alarm:NOSPACE "), Some(Alarm { member: 0, kind: "NOSPACE".into() }));
        assert_eq!(alarm("etcdserver: no leader"), None);
    }
}
