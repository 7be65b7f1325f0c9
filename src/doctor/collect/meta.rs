//! Asks the meta nodes: who leads, what time it is, what they found themselves.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::super::facts::{MemberAnswer, MetaFacts, Registered, Seen};
use super::super::measured::Burden;
use super::super::{Finding, Reading, Status};
use super::PATIENCE;
use crate::client::{CallError, CheckClient, ClockOffset, MemberClient};
use crate::clock::Clock;
use crate::config::{Config, StoreKind};
use crate::election::record::{Member, View};
use crate::proto::metad::{CheckFinding, MemberBurden, MemberInfo};
use crate::store::codec::Keys;
use crate::store::{Request, Response, open, verbs};

/// The most members that are asked.
const MEMBERS_MAX: usize = 64;
/// How often each clock is asked: the quickest answer is the most exact one.
const CLOCK_LOOKS: usize = 5;

/// Who is registered, in etcd's own words. SQLite is only asked through a node, lest a file be made.
pub async fn registered_in_store(config: &Config, clock: Arc<dyn Clock>) -> Option<Vec<Registered>> {
    if config.store.kind != StoreKind::Etcd {
        return None;
    }
    let keys = Keys::new(&config.node.cluster, &config.meta.group);
    let asked = async {
        let store = open::open(config, clock).await.ok()?;
        match store.call(Request::Txn(verbs::read(&keys))).await {
            Ok(Response::Txn(reply)) => Some(verbs::picture(&reply).view(&keys)),
            _ => None,
        }
    };
    let view = tokio::time::timeout(PATIENCE, asked).await.ok()??;
    Some(registered_in(&view))
}

/// Who is registered in a view.
pub fn registered_in(view: &View) -> Vec<Registered> {
    let one = |m: &Member| Registered {
        node: m.registration.member.node.clone(),
        uuid: m.registration.member.uuid.to_string(),
        address: m.registration.rpc_address.clone(),
        version: m.registration.version.clone(),
        ttl: m.registration.ttl,
        incarnation: m.registration.member.incarnation.0,
    };
    view.members.iter().map(one).collect()
}

/// Asks all that are registered, and these addresses. Where nobody could say who is registered, a member can.
pub async fn collect(
    registered: Option<Vec<Registered>>,
    addresses: &[String],
    clock: &Arc<dyn Clock>,
) -> MetaFacts {
    let mut facts = MetaFacts { registered, answers: Vec::new() };
    let mut asked = BTreeSet::new();
    // The second round is for those whom the first has named.
    for _ in 0..2 {
        let known = facts.registered.iter().flatten().map(|m| &m.address);
        let fresh: Vec<String> =
            addresses.iter().chain(known).filter(|a| !asked.contains(*a)).cloned().collect();
        let fresh: BTreeSet<String> = fresh.into_iter().take(MEMBERS_MAX).collect();
        let answers = join_all(fresh.iter().map(|address| ask(address, clock))).await;
        asked.extend(fresh);
        for (answer, members) in answers {
            if facts.registered.is_none() {
                facts.registered = members;
            }
            facts.answers.push(answer);
        }
    }
    only_once(&mut facts.answers);
    facts
}

/// A node may be reached at several addresses.
fn only_once(answers: &mut Vec<MemberAnswer>) {
    let mut nodes = BTreeSet::new();
    answers.retain(|a| a.seen.as_ref().map_or(true, |s| nodes.insert(s.node.clone())));
}

async fn ask(address: &str, clock: &Arc<dyn Clock>) -> (MemberAnswer, Option<Vec<Registered>>) {
    let asked = tokio::time::timeout(PATIENCE, try_ask(address, clock)).await;
    let silence = || CallError::silence(address, format!("no answer within {PATIENCE:?}"));
    match asked.unwrap_or_else(|_| Err(silence())) {
        Ok((seen, members)) => (MemberAnswer { address: address.to_owned(), seen: Ok(seen) }, Some(members)),
        Err(e) => (MemberAnswer { address: address.to_owned(), seen: Err(e.why) }, None),
    }
}

async fn try_ask(address: &str, clock: &Arc<dyn Clock>) -> Result<(Seen, Vec<Registered>), CallError> {
    let mut member = MemberClient::lazy(address, PATIENCE)?;
    let answer = member.leader().await?;
    let members = member.members().await?.members.iter().map(registered).collect();
    let mut checks = CheckClient::lazy(address, PATIENCE)?;
    // A member of an older version has no such service; that is no reason to call it silent.
    let found = checks.checks().await.unwrap_or_default();
    let offset = best_offset(&mut checks, clock.as_ref()).await;
    let answerer = answer.answerer.unwrap_or_default();
    let seen = Seen {
        node: answerer.node,
        role: answerer.role,
        leader: answer.leader.map(|l| (l.node, l.token)),
        age: Duration::from_millis(answerer.age_ms),
        ahead_ms: offset.as_ref().map_or(0.0, |o| o.ahead_ms),
        rtt: offset.map_or(Duration::ZERO, |o| o.rtt),
        burden: found.burden.map(burden),
        findings: found.findings.into_iter().filter_map(finding).collect(),
    };
    Ok((seen, members))
}

async fn best_offset(of: &mut CheckClient, clock: &dyn Clock) -> Option<ClockOffset> {
    let mut best: Option<ClockOffset> = None;
    for _ in 0..CLOCK_LOOKS {
        let Ok(offset) = of.clock(clock).await else { break };
        if best.as_ref().is_none_or(|b| offset.rtt < b.rtt) {
            best = Some(offset);
        }
    }
    best
}

fn registered(m: &MemberInfo) -> Registered {
    Registered {
        node: m.node.clone(),
        uuid: m.uuid.clone(),
        address: m.rpc_address.clone(),
        version: m.version.clone(),
        ttl: Duration::from_secs(m.lease_ttl_secs),
        incarnation: m.incarnation,
    }
}

fn burden(b: MemberBurden) -> Burden {
    Burden { cpu_percent: b.cpu_percent, rss_bytes: b.rss_bytes, headroom: b.headroom }
}

fn finding(f: CheckFinding) -> Option<Finding> {
    Some(Finding {
        status: Status::from_name(&f.status)?,
        code: f.code,
        name: f.name,
        title: f.title,
        measured: f.measured,
        limit: f.limit,
        why: f.why,
        fix: f.fix,
        doc: f.doc,
        reading: f.reading.map(|r| Reading { value: r.value, unit: r.unit, warn: r.warn }),
    })
}
