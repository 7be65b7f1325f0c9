//! Asks the meta nodes: who leads, what time it is, what they found themselves.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::super::facts::{Burden, MemberAnswer, MetaFacts, Registered, Seen};
use super::super::{Finding, Reading, Status};
use super::TIMEOUT;
use crate::client::{CallError, CheckClient, ClockOffset, MemberClient};
use crate::clock::{Clock, wall_clock_ms};
use crate::config::Config;
use crate::election::record::{Foreign, Freeze, Member, View};
use crate::journal::rows_prefix;
use crate::proto::metad::{
    CheckFinding, CheckReading, FreezeInfo, MemberBurden, MemberInfo, MembersResponse,
};
use crate::protocol::transactions;
use crate::store::codec::Keys;
use crate::store::codec::history::decode_row;
use crate::store::{Op, Txn, ask as ask_store, open};
use crate::tls::client::Credentials;

/// The most members that are asked.
const MEMBERS_MAX: usize = 64;
/// How often each clock is asked: the quickest answer is the most exact one.
const CLOCK_LOOKS: usize = 5;

/// Who is registered, leads and has led, in etcd's own words; nothing if it does not answer. Another store is only
/// asked through a node, lest a file be made.
pub async fn in_store(config: &Config, clock: Arc<dyn Clock>) -> MetaFacts {
    if !config.store.is_etcd() {
        return MetaFacts::default();
    }
    let keys = Keys::new(&config.node.cluster, &config.meta.group);
    let asked = async {
        let store = open::open(config, clock).await.ok()?;
        let now = ask_store(store.as_ref(), transactions::read(&keys)).await.ok()?;
        Some((of_view(&transactions::watched_keys(&now).view(&keys)), store))
    };
    let Some((mut facts, store)) = tokio::time::timeout(TIMEOUT, asked).await.ok().flatten() else {
        return MetaFacts::default();
    };
    // What is known so far does not depend on this one.
    let past = ask_store(store.as_ref(), Txn::read(vec![Op::List(rows_prefix(&keys))]));
    if let Ok(Ok(past)) = tokio::time::timeout(TIMEOUT, past).await {
        let rows = past.found.iter().flatten().filter_map(|kv| decode_row(&kv.value));
        facts.led.extend(rows.map(|row| row.holder.node));
    }
    facts
}

/// Who is registered, and who has the leader record.
pub fn of_view(view: &View) -> MetaFacts {
    let leader = view.leader.tenure().map(|t| (t.record.holder.node.clone(), t.token.get()));
    let (registered, foreign) = (Some(registered_in(view)), view.foreign.clone());
    let freeze = view.freeze.clone().map(|(freeze, _)| freeze);
    MetaFacts { registered, leader, foreign, freeze, is_read: true, ..MetaFacts::default() }
}

/// Who is registered in a view.
fn registered_in(view: &View) -> Vec<Registered> {
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
    mut facts: MetaFacts,
    addresses: &[String],
    with: &Credentials,
    clock: &Arc<dyn Clock>,
) -> MetaFacts {
    let mut asked = BTreeSet::new();
    // The second round is for those whom the first has named.
    for _ in 0..2 {
        let known = facts.registered.iter().flatten().map(|m| &m.address);
        let fresh: Vec<String> =
            addresses.iter().chain(known).filter(|a| !asked.contains(*a)).cloned().collect();
        let fresh: BTreeSet<String> = fresh.into_iter().take(MEMBERS_MAX).collect();
        let answers = join_all(fresh.iter().map(|address| ask(address, with, clock))).await;
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

async fn ask(
    address: &str,
    with: &Credentials,
    clock: &Arc<dyn Clock>,
) -> (MemberAnswer, Option<Vec<Registered>>) {
    let asked = tokio::time::timeout(TIMEOUT, try_ask(address, with, clock)).await;
    let silence = || CallError::silence(address, format!("no answer within {TIMEOUT:?}"));
    match asked.unwrap_or_else(|_| Err(silence())) {
        Ok((seen, members)) => (MemberAnswer { address: address.to_owned(), seen: Ok(seen) }, Some(members)),
        Err(e) => (MemberAnswer { address: address.to_owned(), seen: Err(e.why) }, None),
    }
}

async fn try_ask(
    address: &str,
    with: &Credentials,
    clock: &Arc<dyn Clock>,
) -> Result<(Seen, Vec<Registered>), CallError> {
    let mut member = MemberClient::lazy(address, with, TIMEOUT)?;
    let answer = member.leader().await?;
    let MembersResponse { members, gone, .. } = member.members().await?;
    let members = members.iter().map(registered).collect();
    let mut checks = CheckClient::lazy(address, with, TIMEOUT)?;
    // A member of an older version has no such service; that is no reason to call it silent.
    let found = checks.checks().await.unwrap_or_default();
    let offset = best_offset(&mut checks, clock.as_ref()).await;
    let answerer = answer.answerer.unwrap_or_default();
    let seen = Seen {
        node: answerer.node,
        role: answerer.role,
        leader: answer.leader.map(|l| (l.node, l.token)),
        foreign: answer.foreign.map(|f| Foreign { key: f.key, value: f.value }),
        freeze: answer.freeze.map(|FreezeInfo { reason, by, since_ms, until_ms }| Freeze {
            reason,
            by,
            since_ms,
            until_ms,
        }),
        probe: Some(answerer.probe).filter(|measured| !measured.is_empty()),
        unready: Some(answerer.unready).filter(|why| !why.is_empty()),
        age: Duration::from_millis(answerer.age_ms),
        is_outdated: answerer.is_outdated,
        vacant_for: answer.vacant_for_ms.map(Duration::from_millis),
        gone: gone.into_iter().map(|g| g.node).collect(),
        ahead_ms: offset.as_ref().map_or(0.0, |o| o.ahead_ms),
        rtt: offset.as_ref().map_or(Duration::ZERO, |o| o.rtt),
        burden: found.burden.map(burden),
        looked_ago: looked_ago(found.at_ms, offset.as_ref()),
        findings: found.findings.into_iter().filter_map(finding).collect(),
    };
    Ok((seen, members))
}

/// How old its findings are. It says when it looked by its own clock.
fn looked_ago(at_ms: u64, offset: Option<&ClockOffset>) -> Duration {
    let ahead_ms = offset.map_or(0.0, |o| o.ahead_ms);
    let now_there_ms = wall_clock_ms() as f64 + ahead_ms;
    Duration::from_secs_f64((now_there_ms - at_ms as f64).max(0.0) / 1000.0)
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

fn reading(r: CheckReading) -> Reading {
    Reading { value: r.value, unit: r.unit, warn: r.warn, lower_is_worse: r.lower_is_worse }
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
        reading: f.reading.map(reading),
    })
}
