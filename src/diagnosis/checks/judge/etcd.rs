//! The etcd cluster: who answers, who leads, whether enough are there.

use std::collections::BTreeSet;

use super::super::facts::{EndpointFacts, EtcdFacts, Facts};
use super::super::{Judgement, Outcome, Status};
use super::{count, etcd, list, millis, ms, skip};
use crate::store::etcd::inspect::ListedMember;
use crate::store::probe::{Finding, MemberStatus, Probe};

/// Connecting and one answer may take so many of the longest round trips.
const ROUND_TRIPS: f64 = 10.0;

/// Every endpoint answers as an etcd.
pub fn endpoints(facts: &Facts) -> Judgement {
    let etcd = etcd(facts)?;
    // Its status takes no login, so one that answers may refuse us all the same.
    let is_bad = |e: &&EndpointFacts| e.probe.status.is_err() || e.probe.refusal().is_some();
    let silent: Vec<&EndpointFacts> = etcd.endpoints.iter().filter(is_bad).collect();
    let slowest = etcd
        .endpoints
        .iter()
        .filter_map(|e| Some((millis(e.probe.status.as_ref().ok()?.1), e)))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let warn = facts.config.checks.rtt_p99_ms as f64 * ROUND_TRIPS;
    let limit = format!("all, each within {}", ms(warn));
    let up = etcd.endpoints.len() - silent.len();
    let refuses =
        if silent.iter().any(|e| e.probe.refusal().is_some()) { " and let this node in" } else { "" };
    let answer = format!("{up} of {} answer{refuses}", count(etcd.endpoints.len(), "endpoint"));
    if !silent.is_empty() {
        let told = silent.iter().map(|e| found_at(&e.probe)).collect::<Vec<_>>().join("; ");
        return Outcome::new(Status::Fail, format!("{answer}; {told}"), limit).fix(fixes(&silent)).made();
    }
    let Some((took, slowest)) = slowest else { return skip("no endpoint is configured") };
    let status = super::above(took, warn, f64::INFINITY);
    let fix = format!("check {}: its CPU, its disk, and the network path to it", slowest.probe.place);
    Outcome::new(status, format!("{answer}, the slowest in {}", ms(took)), limit)
        .fix(fix)
        .reading(took, "ms", warn)
        .made()
}

fn found_at(probe: &Probe) -> String {
    match (probe.fault(), &probe.status) {
        (Some(finding), _) => format!("{} {finding}", probe.place),
        (None, Err(why)) => format!("{}: {why}", probe.place),
        (None, Ok(_)) => format!("{} answers", probe.place),
    }
}

/// What to do about each of them, once where it is the same for all.
fn fixes(silent: &[&EndpointFacts]) -> String {
    let fix = |e: &EndpointFacts| e.probe.fault().unwrap_or(Finding::IsLate).fix();
    let each: BTreeSet<&str> = silent.iter().map(|e| fix(e)).collect();
    match each.len() {
        1 => each.into_iter().collect(),
        _ => silent.iter().map(|e| format!("{}: {}", e.probe.place, fix(e))).collect::<Vec<_>>().join("; "),
    }
}

/// One leader, in the eyes of all members.
pub fn leader(facts: &Facts) -> Judgement {
    let etcd = etcd(facts)?;
    let limit = "one leader, the same for all";
    let leaders: BTreeSet<u64> = etcd.answering().map(|(_, s)| s.leader).collect();
    let without: Vec<String> =
        etcd.answering().filter(|(_, s)| s.leader == 0).map(|(e, _)| etcd.name_of(e)).collect();
    if leaders.is_empty() {
        return skip("no endpoint answers");
    }
    if !without.is_empty() {
        let measured = format!("no leader according to {}", list(&without));
        let fix = "start the members that are down (ETCD_003); if all run, check their disks (ETCD_005) and \
                   the network between them (ETCD_007)";
        return Outcome::new(Status::Fail, measured, limit).fix(fix).made();
    }
    if leaders.len() > 1 {
        let says = |(e, s): (&_, &_)| named_leader(etcd, e, s);
        let measured = list(&etcd.answering().map(says).collect::<Vec<_>>());
        let fix = "check again in a few seconds; if it persists, members are cut off from each other";
        return Outcome::new(Status::Fail, measured, limit).fix(fix).made();
    }
    let id = leaders.first().copied().unwrap_or(0);
    Outcome::new(Status::Pass, format!("{} leads etcd", name(etcd, id)), limit).made()
}

fn named_leader(etcd: &EtcdFacts, endpoint: &EndpointFacts, status: &MemberStatus) -> String {
    format!("{} names {} (term {})", etcd.name_of(endpoint), name(etcd, status.leader), status.raft_term)
}

fn name(etcd: &EtcdFacts, id: u64) -> String {
    let listed = etcd.members.iter().flatten().find(|m| m.id == id && !m.name.is_empty());
    listed.map_or_else(|| format!("member {id:x}"), |m| m.name.clone())
}

/// META_006, with the rule that also holds for even numbers: lost as soon as fewer than n/2 + 1 are online.
pub fn quorum(facts: &Facts) -> Judgement {
    let etcd = etcd(facts)?;
    let answers = |id: u64| etcd.answering().any(|(_, s)| s.member == id);
    let (voters, online, offline) = match &etcd.members {
        Some(members) => {
            let voters: Vec<_> = members.iter().filter(|m| !m.is_learner).collect();
            let elsewhere = |name: &str| etcd.others.iter().any(|(n, up)| n == name && *up);
            let called = |m: &ListedMember| {
                if m.name.is_empty() { format!("{:x}", m.id) } else { m.name.clone() }
            };
            let off: Vec<String> = voters
                .iter()
                .filter(|m| !answers(m.id) && !elsewhere(&called(m)))
                .map(|m| called(m))
                .collect();
            (voters.len(), voters.len() - off.len(), off)
        }
        None => {
            let silent =
                etcd.endpoints.iter().filter(|e| e.probe.status.is_err()).map(|e| e.probe.place.clone());
            let silent: Vec<String> = silent.collect();
            (etcd.endpoints.len(), etcd.endpoints.len() - silent.len(), silent)
        }
    };
    let quorum = voters / 2 + 1;
    let mut measured = format!("{online} of {} online", count(voters, "voter"));
    if !offline.is_empty() {
        measured.push_str(&format!("; offline: {}", list(&offline)));
    }
    // If a majority decides, the others are merely out of our reach.
    let decides = etcd.decides();
    let status = match online {
        n if n < quorum && !decides => Status::Fail,
        n if n < voters => Status::Warn,
        _ => Status::Pass,
    };
    if online < quorum && decides {
        measured
            .push_str(" from here; etcd still decides, so it has its quorum and some are only unreachable");
    } else if status == Status::Warn && online == quorum {
        measured.push_str("; one more failure stops etcd, and metad with it");
    }
    Outcome::new(status, measured, format!("{voters} of {voters}; quorum {quorum}"))
        .fix("start them again: systemctl start etcd there. Never add a member before a dead one is removed")
        .reading(online as f64, "", voters as f64)
        .lower_is_worse()
        .made()
}

/// An odd number, neither one nor too many.
pub fn members(facts: &Facts) -> Judgement {
    let etcd = etcd(facts)?;
    let Some(members) = &etcd.members else { return skip("no member lists the others") };
    let n = members.iter().filter(|m| !m.is_learner).count();
    let limit = "3, 5 or 7 voters";
    let survives = n.saturating_sub(1) / 2;
    let measured = format!("{}: etcd survives the loss of {survives}", count(n, "voter"));
    let single = facts.members() == Some(1);
    // One etcd for one node is a deliberate small setup; the node dies with the machine anyway.
    let status = match n {
        3 | 5 | 7 => Status::Pass,
        1 if single => Status::Pass,
        _ => Status::Warn,
    };
    let fix = if n < 3 {
        "add members until there are three: etcdctl member add"
    } else {
        "remove one, or add one: etcdctl member remove, etcdctl member add"
    };
    Outcome::new(status, measured, limit).fix(fix).made()
}

/// One cluster, and no learners.
pub fn one_cluster(facts: &Facts) -> Judgement {
    let etcd = etcd(facts)?;
    let clusters: BTreeSet<u64> = etcd.answering().map(|(_, s)| s.cluster).collect();
    let limit = "one cluster, voters only";
    if clusters.is_empty() {
        return skip("no endpoint answers");
    }
    if clusters.len() > 1 {
        let says = etcd.answering().map(|(e, s)| format!("{} is of cluster {:x}", e.probe.place, s.cluster));
        let measured = list(&says.collect::<Vec<_>>());
        let fix = "store.etcd.endpoints = the members of one cluster only";
        return Outcome::new(Status::Fail, measured, limit).fix(fix).made();
    }
    let learners: Vec<String> =
        etcd.answering().filter(|(_, s)| s.is_learner).map(|(e, _)| etcd.name_of(e)).collect();
    if !learners.is_empty() {
        let measured = format!("learners do not serve metad's requests: {}", list(&learners));
        let fix = "etcdctl member promote ID, or leave it out of store.etcd.endpoints";
        return Outcome::new(Status::Warn, measured, limit).fix(fix).made();
    }
    let cluster = clusters.first().copied().unwrap_or(0);
    Outcome::new(Status::Pass, format!("all are voters of cluster {cluster:x}"), limit).made()
}

/// An etcd that takes no login lets everybody in.
pub fn login(facts: &Facts) -> Judgement {
    let etcd = etcd(facts)?;
    let limit = "authentication is enabled";
    let Some(user) = &facts.config.store.etcd.username else { return skip("no login is configured") };
    let open: Vec<String> =
        etcd.endpoints.iter().filter(|e| e.probe.takes_no_login).map(|e| e.probe.place.clone()).collect();
    if !open.is_empty() {
        let measured = format!(
            "authentication is not enabled at {}: nodes work without the login of {user:?}, and so does \
             everybody else who reaches etcd",
            list(&open)
        );
        let fix = "etcdctl auth enable: nodes log in at once (metad doctor --role prints the commands for the user); \
                   or remove store.etcd.username and password_file";
        return Outcome::new(Status::Warn, measured, limit).fix(fix).made();
    }
    if !etcd.endpoints.iter().any(|e| e.probe.decided.is_ok()) {
        return skip("no endpoint lets this node in");
    }
    Outcome::new(Status::Pass, format!("etcd lets {user:?} in by its login"), limit).made()
}
