//! Members of another cluster among the endpoints: a member that was bootstrapped again on its own, a wrong address.
//!
//! Such a member answers quickly and knows nothing: no lease, no record. So each answer's cluster id is compared with the
//! pinned one, and an answer from another cluster counts as no answer. An error carries no cluster id; before one is
//! believed, the member is asked which cluster it belongs to, and a member that was found to be a stray is asked that
//! first, each time, until it is one of ours.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::Shared;
use super::member::Member;
use crate::store::places::Belongs;
use crate::store::{Refusal, Request, Response, StoreError};

/// How long a member has to say which cluster it belongs to, while an answer of it waits.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the slower members get once more than half have said which cluster they belong to.
const SLOWER_TIMEOUT: Duration = Duration::from_millis(100);

impl Shared {
    /// Asks one member; an answer of another cluster is none.
    pub(super) async fn ask_own(
        &self,
        member: &Arc<Member>,
        request: &Request,
    ) -> Result<Response, StoreError> {
        self.check_stray(member).await?;
        let answer = member.call(self.clock.as_ref(), request).await;
        match &answer {
            Ok(response) if response.header().cluster != 0 => {
                self.check_cluster(member, response.header().cluster)?;
            }
            // A lease that is not there comes without a header; so does an error.
            Ok(_) => self.check_by_asking(member).await?,
            Err(StoreError::Refused(refusal, _)) if *refusal != Refusal::NotSent => {
                self.check_by_asking(member).await?;
            }
            Err(_) => {}
        }
        answer
    }

    /// Was it a stray when it was asked last, and is it still one?
    pub(super) async fn check_stray(&self, member: &Arc<Member>) -> Result<(), StoreError> {
        let (pinned, known) = (self.pinned(), member.cluster.load(Ordering::Relaxed));
        if pinned == 0 || known == 0 || known == pinned {
            return Ok(());
        }
        self.check_by_asking(member).await?;
        match member.cluster.load(Ordering::Relaxed) {
            cluster if cluster == pinned => Ok(()),
            other => Err(stray(member, other, pinned)), // it does not say
        }
    }

    /// Is an answer from this cluster one?
    pub(super) fn check_cluster(&self, member: &Member, cluster: u64) -> Result<(), StoreError> {
        member.cluster.store(cluster, Ordering::Relaxed);
        let pinned = self.pinned();
        if pinned != 0 && cluster != pinned { Err(stray(member, cluster, pinned)) } else { Ok(()) }
    }

    async fn check_by_asking(&self, member: &Arc<Member>) -> Result<(), StoreError> {
        if self.pinned() == 0 {
            return Ok(());
        }
        match tokio::time::timeout(ASK_TIMEOUT, member.standing(self.clock.as_ref())).await {
            Ok(Some(standing)) => self.check_cluster(member, standing.cluster),
            Ok(None) | Err(_) => Ok(()),
        }
    }

    pub(super) fn pinned(&self) -> u64 {
        self.choice.pinned.load(Ordering::Relaxed)
    }

    /// See [`crate::store::places::Places::clusters`].
    pub(super) async fn clusters(&self, timeout: Duration) -> Vec<Belongs> {
        let silent = |m: &Arc<Member>| Belongs { place: m.name().to_owned(), cluster: None };
        let mut all: Vec<Belongs> = self.members.iter().map(silent).collect();
        let ask = |(i, m): (usize, &Arc<Member>)| {
            let (member, clock) = (m.clone(), self.clock.clone());
            async move { (i, member.standing(clock.as_ref()).await) }
        };
        let mut asked: FuturesUnordered<_> = self.members.iter().enumerate().map(ask).collect();
        let now = || self.clock.now();
        let mut deadline = now() + timeout;
        let mut answered = 0;
        while let Ok(Some((i, standing))) = tokio::time::timeout(now().until(deadline), asked.next()).await {
            let Some(standing) = standing else { continue };
            all[i].cluster = Some(standing.cluster);
            if standing.leads() {
                self.prefer_leader(i, standing.cluster);
            }
            answered += 1;
            if answered * 2 > all.len() {
                deadline = deadline.earlier(now() + SLOWER_TIMEOUT);
            }
        }
        all
    }
}

fn stray(member: &Member, cluster: u64, pinned: u64) -> StoreError {
    StoreError::Unknown(format!(
        "{} belongs to the etcd cluster {cluster:016x}, not to {pinned:016x}; remove it from \
         store.etcd.endpoints",
        member.name()
    ))
}
