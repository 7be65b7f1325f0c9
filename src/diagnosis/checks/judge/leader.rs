//! Who leads, in the eyes of all.

use std::collections::BTreeSet;

use super::super::changes::unplanned;
use super::super::facts::{Facts, MetaFacts, Seen};
use super::super::{Judgement, Outcome, Skip, Status};
use super::{list, meta, past, silence};
use crate::clock::rfc3339;
use crate::election::record::Freeze;
use crate::store::open::look_command;

/// A role in which a main loop may run.
const LEADS: &str = "leader";

fn answers(facts: &Facts) -> Result<Vec<&Seen>, Skip> {
    let meta = meta(facts)?;
    let all: Vec<&Seen> = meta.answers.iter().filter_map(|a| a.seen.as_ref().ok()).collect();
    if all.is_empty() { Err(Skip::new(silence(meta))) } else { Ok(all) }
}

/// What the store and the members say, and the members that have answered; a skip where nobody has said anything.
fn heard<'f>(facts: &'f Facts, what: &str) -> Result<(&'f MetaFacts, Vec<&'f Seen>), Skip> {
    let meta = meta(facts)?;
    let seen: Vec<&Seen> = meta.answers.iter().filter_map(|a| a.seen.as_ref().ok()).collect();
    match meta.registered.is_none() && seen.is_empty() {
        true => Err(Skip::new(format!("neither the store nor a meta node reported {what}"))),
        false => Ok((meta, seen)),
    }
}

/// Somebody leads.
pub fn exists(facts: &Facts) -> Judgement {
    let limit = "a leader, at most one lease after the last one";
    let seen = match answers(facts) {
        Ok(seen) => seen,
        Err(skip) => return nobody_answers(facts, limit).ok_or(skip),
    };
    if let Some(unknown) = all_outdated(&seen, limit) {
        return unknown.made();
    }
    if let Some((node, token)) = seen.iter().filter_map(|s| s.leader.as_ref()).max_by_key(|(_, token)| *token)
    {
        let leads = format!("{node} leads, token {token}");
        let cold = |s: &&&Seen| s.node == *node && s.role == LEADS;
        let Some(why) = seen.iter().find(cold).and_then(|s| s.unready.as_ref()) else {
            return Outcome::new(Status::Pass, leads, limit).made();
        };
        let fix = "there, see the program's log; meta.warm_up_timeout_secs is how long it may take";
        return Outcome::new(Status::Warn, format!("{leads}, without a main loop: {why}"), limit)
            .fix(fix)
            .made();
    }
    // Between two leaders there is none for a moment; a node that was there all the time knows how long it has been.
    let seen_by_others = seen.iter().filter_map(|s| s.vacant_for).max();
    let since = facts.past.as_ref().and_then(|p| p.leaderless).or(seen_by_others);
    let status = match since {
        Some(since) if since <= facts.ttl() => Status::Warn,
        _ => Status::Fail,
    };
    let measured = since.map_or("no leader".to_owned(), |since| format!("no leader for {since:.0?}"));
    if facts.meta.as_ref().and_then(known_freeze).is_some() {
        let measured = format!("{measured}; the election is frozen, so nobody claims the vacancy");
        let fix = "metad unfreeze, when the maintenance is over; metad status says who froze it, and why";
        return Outcome::new(status, measured, limit).fix(fix).made();
    }
    let fix = "metad doctor --only LEADER_005,ETCD_001,ETCD_002,ETCD_013 shows whether the store is healthy; \
               then check metad members: a member needs a priority above 0";
    Outcome::new(status, measured, limit).fix(fix).made()
}

/// Nobody who answers has a view that says anything.
fn all_outdated(seen: &[&Seen], limit: &str) -> Option<Outcome> {
    let newest = seen.iter().min_by_key(|s| s.age).filter(|_| seen.iter().all(|s| s.is_outdated))?;
    let measured = format!(
        "unknown: no meta node has heard from the store within the lease, {} for {:.1?}",
        newest.node, newest.age
    );
    let fix = "metad doctor --only ETCD_001,ETCD_003,ETCD_013 shows what is wrong with the store";
    Some(Outcome::new(Status::Fail, measured, limit).fix(fix))
}

/// What the store itself tells when no meta node does. Where nobody has ever led, none is missed; and a node that
/// looks around itself is there, whether it reaches its own address or not.
fn nobody_answers(facts: &Facts, limit: &str) -> Option<Outcome> {
    let meta = facts.meta.as_ref().filter(|m| !m.led.is_empty() || m.leader.is_some())?;
    if facts.past.is_some() {
        return None;
    }
    let measured = match &meta.leader {
        Some((node, token)) => {
            format!("{node} has the leader record, token {token}, but no meta node answers")
        }
        None => {
            let before: Vec<String> = meta.led.iter().cloned().collect();
            format!("there is no leader, and no meta node answers; {} led before", list(&before))
        }
    };
    let fix = "start the meta nodes: systemctl start metad there; or name one that runs with --meta";
    Some(Outcome::new(Status::Fail, measured, limit).fix(fix))
}

/// All name the same one. A member whose view is older than the lease has lost touch with the store.
pub fn agreed(facts: &Facts) -> Judgement {
    let seen = answers(facts)?;
    let limit = "one leader according to all";
    if let Some(unknown) = all_outdated(&seen, limit) {
        return unknown.made();
    }
    let newest = seen.iter().filter_map(|s| s.leader.as_ref()).max_by_key(|(_, token)| *token);
    let name = |l: Option<&(String, u64)>| l.map_or("no leader".to_owned(), |(n, t)| format!("{n} ({t})"));
    let odd: Vec<&&Seen> = seen.iter().filter(|s| s.leader.as_ref() != newest).collect();
    if odd.is_empty() {
        let measured = format!("{} asked, all name {}", super::count(seen.len(), "member"), name(newest));
        return Outcome::new(Status::Pass, measured, limit).made();
    }
    let says = |s: &&Seen| match s.is_outdated {
        true => format!("{} knows nothing (view {:.1?} old)", s.node, s.age),
        false => format!("{} names {} (view {:.1?} old)", s.node, name(s.leader.as_ref()), s.age),
    };
    let measured =
        format!("{}, the others {}", list(&odd.iter().map(|s| says(s)).collect::<Vec<_>>()), name(newest));
    let stale = odd.iter().any(|s| s.is_outdated || s.age > facts.ttl());
    let status = if stale { Status::Fail } else { Status::Warn };
    let nodes: Vec<String> = odd.iter().map(|s| s.node.clone()).collect();
    let fix = format!("on {}: metad doctor --only ETCD_001,ETCD_008 (its view is outdated)", list(&nodes));
    Outcome::new(status, measured, limit).fix(fix).made()
}

/// Not more than one.
pub fn one(facts: &Facts) -> Judgement {
    let seen = answers(facts)?;
    let leaders: Vec<String> = seen.iter().filter(|s| s.role == LEADS).map(|s| s.node.clone()).collect();
    let limit = "one, or none";
    match leaders.len() {
        0 | 1 => {
            Outcome::new(Status::Pass, format!("{} of {} leads", leaders.len(), seen.len()), limit).made()
        }
        n => {
            let measured = format!("{n} members say that they lead: {}", list(&leaders));
            let fix = "stop the one whose token is lower: metad leader --meta ADDRESS shows it";
            Outcome::new(Status::Fail, measured, limit).fix(fix).made()
        }
    }
}

/// The freeze, according to the store, or else to a member. One that knew of it before it lost touch is believed, too.
fn known_freeze(meta: &MetaFacts) -> Option<&Freeze> {
    let seen = meta.answers.iter().filter(|_| !meta.is_read).filter_map(|a| a.seen.as_ref().ok());
    meta.freeze.as_ref().or_else(|| seen.filter_map(|s| s.freeze.as_ref()).next())
}

/// Somebody who goes home and forgets it leaves a cluster without a fail-over.
pub fn frozen(facts: &Facts) -> Judgement {
    let (meta, seen) = heard(facts, "a freeze")?;
    let limit = "no freeze";
    let Some(freeze) = known_freeze(meta) else {
        let is_known = meta.is_read || seen.iter().any(|s| !s.is_outdated);
        return match is_known {
            true => Outcome::new(Status::Pass, "it is not", limit).made(),
            false => Err(Skip::new("no meta node that answers has heard from the store within the lease")),
        };
    };
    let may_be_led = meta.leader.is_some() || seen.iter().any(|s| s.leader.is_some() || s.is_outdated);
    let (status, then) = match may_be_led {
        true => (Status::Warn, "nobody takes over from the present leader"),
        false => (Status::Fail, "nobody leads, and nobody claims the vacancy"),
    };
    let until = freeze.until_ms.map_or_else(|| "somebody ends it".to_owned(), rfc3339);
    let measured = format!("frozen until {until}, by {}, for {:?}; {then}", freeze.by, freeze.reason);
    Outcome::new(status, measured, limit).fix("metad unfreeze").made()
}

/// A leader that fails its probe leads on only while nobody is better.
pub fn probed(facts: &Facts) -> Judgement {
    let seen = answers(facts)?;
    let limit = "every probe passes";
    let failing: Vec<&&Seen> = seen.iter().filter(|s| s.probe.is_some()).collect();
    if failing.is_empty() {
        return Outcome::new(Status::Pass, "none does", limit).made();
    }
    let (status, then) = match failing.iter().any(|s| s.role == LEADS) {
        true => (Status::Fail, "a leader that does makes way as soon as a healthy member is ready"),
        false => (Status::Warn, "a member that does takes over last"),
    };
    let one = |s: &&&Seen| format!("{} ({}): {}", s.node, s.role, s.probe.as_deref().unwrap_or_default());
    let measured = format!("{}; {then}", list(&failing.iter().map(one).collect::<Vec<_>>()));
    let fix = "there, run meta.probe_command by hand, or look at the disk of node.data_dir: metad doctor --only HOST_005";
    Outcome::new(status, measured, limit).fix(fix).made()
}

/// No key but the leader record is where it belongs. The store knows best; SQLite is seen by the members alone.
pub fn foreign(facts: &Facts) -> Judgement {
    let (meta, seen) = heard(facts, "the candidates")?;
    let limit = "the leader record alone";
    let Some(foreign) = meta.foreign.as_ref().or(seen.iter().find_map(|s| s.foreign.as_ref())) else {
        return Outcome::new(Status::Pass, "there is no other key", limit).made();
    };
    let is_led = meta.leader.is_some() || seen.iter().any(|s| s.leader.is_some());
    let (status, then) = match is_led {
        true => (Status::Warn, "no member can take over from the present leader"),
        false => (Status::Fail, "no leader can be elected"),
    };
    let measured =
        format!("the key {:?} has the value {:?}; while it exists, {then}", foreign.key, foreign.value);
    let fix = format!("{}; delete it if it is not needed", look_command(&facts.config));
    Outcome::new(status, measured, limit).fix(fix).made()
}

/// META_003.
pub fn flapping(facts: &Facts) -> Judgement {
    let past = past(facts)?;
    let checks = &facts.config.checks;
    let (most, window) = (checks.max_leader_changes, checks.leader_change_window_secs);
    let changes: Vec<_> = unplanned(&past.changes, past.now_ms, window * 1000).collect();
    let n = changes.len() as u64;
    let status = if n > most { Status::Warn } else { Status::Pass };
    let reasons: BTreeSet<&str> = changes.iter().map(|c| c.reason.as_str()).collect();
    let reasons: Vec<String> = reasons.into_iter().map(str::to_owned).collect();
    let why = if n == 0 { String::new() } else { format!(": {}", list(&reasons)) };
    let measured =
        format!("{} of the leader in {window} s{why}", super::count(changes.len(), "unplanned change"));
    // The last one is the one whose traces are fresh.
    let fix = changes.last().map_or("", |last| last.reason.advice());
    Outcome::new(status, measured, format!("{most} in {window} s"))
        .fix(fix)
        .reading(n as f64, "", most as f64)
        .made()
}
