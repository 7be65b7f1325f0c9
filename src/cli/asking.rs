//! Which of the named members is asked: all of them, side by side, and the first that answers counts.
//!
//! One that hangs or is gone must not cost those that are well. One that answers with an outdated view counts only where
//! nobody else answers soon.

use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{Stream, StreamExt};

use super::Failure;
use super::args::MetaArgs;
use super::query::CANNOT_ASK;
use super::target::{self, Addressees};
use crate::client::{CallError, MemberClient};
use crate::proto::metad::LeaderResponse;
use crate::tls::client::Credentials;

/// How long a member gets to answer.
pub(super) const TIMEOUT: Duration = Duration::from_secs(3);
/// How long somebody who knows more is waited for, once one with an outdated view has answered.
const KNOWS_MORE_TIMEOUT: Duration = Duration::from_millis(500);

/// A member that has answered, and what it says of the leader.
pub(super) struct Answer {
    pub(super) member: MemberClient,
    pub(super) leader: LeaderResponse,
}

// === impl Answer ===

impl Answer {
    fn is_outdated(&self) -> bool {
        self.leader.answerer.as_ref().is_some_and(|a| a.is_outdated)
    }
}

/// Does the member that answers take part in the election?
pub(super) fn takes_part(answer: &LeaderResponse) -> bool {
    let role = answer.answerer.as_ref().map(|a| a.role.as_str());
    role.is_some_and(|role| ["follower", "claiming", "starting", "leader"].contains(&role))
}

/// What these members answer, in the order of their answers.
pub(super) fn all(target: &Addressees) -> impl Stream<Item = Result<Answer, CallError>> + use<> {
    let asked = target.addresses.iter().map(|address| one(address.clone(), target.credentials.clone()));
    asked.collect::<FuturesUnordered<_>>()
}

async fn one(address: String, credentials: Credentials) -> Result<Answer, CallError> {
    let mut member = MemberClient::connect(&address, &credentials, TIMEOUT).await?;
    let leader = member.leader().await?;
    Ok(Answer { member, leader })
}

/// The next answer; not for long where there is one that would do.
async fn next<A>(answers: &mut (impl Stream<Item = A> + Unpin), has_one: bool) -> Option<A> {
    match has_one {
        false => answers.next().await,
        true => tokio::time::timeout(KNOWS_MORE_TIMEOUT, answers.next()).await.unwrap_or(None),
    }
}

/// Those of the named members that answer about as soon as the first one does.
pub(super) async fn answering(target: &Addressees) -> Vec<String> {
    let mut answers = std::pin::pin!(all(target));
    let mut found: Vec<String> = Vec::new();
    loop {
        match next(&mut answers, !found.is_empty()).await {
            Some(answer) => found.extend(answer.ok().map(|a| a.member.address().to_owned())),
            None => return found,
        }
    }
}

/// The first answer of the members that were named.
pub(super) async fn first(args: &MetaArgs) -> Result<Answer, Failure> {
    first_of(&target::target(args)?).await
}

/// The first answer of these members.
pub(super) async fn first_of(target: &Addressees) -> Result<Answer, Failure> {
    best_of(target, |answer| !answer.is_outdated()).await
}

/// The first of these members that takes part in the election and hears from the store; if there is none, the first that
/// answers.
pub(super) async fn first_that_takes_part(target: &Addressees) -> Result<Answer, Failure> {
    best_of(target, |answer| !answer.is_outdated() && takes_part(&answer.leader)).await
}

async fn best_of(target: &Addressees, is_good: impl Fn(&Answer) -> bool) -> Result<Answer, Failure> {
    let mut answers = std::pin::pin!(all(target));
    let (mut failures, mut other) = (Vec::new(), None);
    loop {
        match next(&mut answers, other.is_some()).await {
            Some(Ok(answer)) if is_good(&answer) => return Ok(answer),
            Some(Ok(answer)) => other = other.or(Some(answer)),
            Some(Err(e)) => failures.push(e.to_string()),
            None => break,
        }
    }
    other.ok_or_else(|| Failure::new(CANNOT_ASK, failures.join("\n       ")))
}
