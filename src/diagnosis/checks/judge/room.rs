//! Room in etcd: database, quota, alarms, history, request size.

use std::collections::BTreeSet;

use super::super::facts::{EndpointFacts, EtcdFacts, Facts, REVISIONS_MAX};
use super::super::page::{COMPACTED, QUOTA};
use super::super::{Judgement, Outcome, Skip, Status};
use super::{etcd, list, mib, skip};
use crate::protocol::writes::WRITE_BYTES_MAX;
use crate::store::probe::{Alarm, MemberStatus};

/// What etcd takes for a quota when none is given.
const QUOTA_DEFAULT: u64 = 2 << 30;
/// What etcd is made for.
const QUOTA_MAX: u64 = 8 << 30;
/// From here on the database is all but full, in percent.
const FULL_PERCENT: f64 = 95.0;
/// A file of less than this is not worth defragmenting.
const FRAGMENTED_BYTES: u64 = 100 << 20;
/// How to make room.
const MAKE_ROOM: &str = "etcdctl compact $(etcdctl endpoint status -w json | jq '.[0].Status.header.revision'), then \
                         etcdctl defrag, one member after the other";

/// The quota in force, if the member tells it in any way.
pub(in crate::diagnosis::checks) fn quota_of(e: &EndpointFacts, s: &MemberStatus) -> Option<u64> {
    let shown = || e.page.as_ref().ok().and_then(|p| p.number(QUOTA)).map(|q| q as u64);
    let given = || e.learned.as_ref()?.flag("quota-backend-bytes")?.parse().ok();
    s.quota.or_else(shown).or_else(given).filter(|q| *q > 0)
}

type Answering<'f> = Vec<(&'f EndpointFacts, &'f MemberStatus)>;

fn endpoints(facts: &Facts) -> Result<(&EtcdFacts, Answering<'_>), Skip> {
    let etcd = etcd(facts)?;
    let all: Vec<_> = etcd.answering().collect();
    if all.is_empty() { Err(Skip::new("no endpoint answers")) } else { Ok((etcd, all)) }
}

/// Size against quota.
pub fn database(facts: &Facts) -> Judgement {
    let (etcd, all) = endpoints(facts)?;
    let part = |(e, s): &(&EndpointFacts, &MemberStatus)| {
        let quota = quota_of(e, s).unwrap_or(QUOTA_DEFAULT);
        s.db_size as f64 * 100.0 / quota as f64
    };
    let fullest = all.iter().map(|x| (part(x), x)).max_by(|a, b| a.0.total_cmp(&b.0));
    let Some((percent, (e, s))) = fullest else { return skip("no endpoint answers") };
    let assumed = if quota_of(e, s).is_some() { "" } else { " (etcd's default; its own is unknown)" };
    let quota = quota_of(e, s).unwrap_or(QUOTA_DEFAULT);
    let warn = facts.config.checks.db_size_percent as f64;
    let measured =
        format!("{}: {} of {}{assumed}, {percent:.0} %", etcd.name_of(e), mib(s.db_size), mib(quota));
    Outcome::new(super::above(percent, warn, FULL_PERCENT.max(warn)), measured, format!("{warn:.0} %"))
        .fix(format!("{MAKE_ROOM}; or start etcd with a larger --quota-backend-bytes"))
        .reading(percent, "%", warn)
        .made()
}

/// The quota itself.
pub fn quota(facts: &Facts) -> Judgement {
    let (etcd, all) = endpoints(facts)?;
    let largest = all.iter().filter_map(|(e, s)| Some((quota_of(e, s)?, e))).max_by_key(|(q, _)| *q);
    let Some((quota, e)) = largest else { return skip("no member reports its quota") };
    let status = if quota > QUOTA_MAX { Status::Warn } else { Status::Pass };
    Outcome::new(status, format!("{}: {}", etcd.name_of(e), mib(quota)), format!("up to {}", mib(QUOTA_MAX)))
        .fix("--quota-backend-bytes=8589934592")
        .made()
}

/// What is in use of the file.
pub fn fragmentation(facts: &Facts) -> Judgement {
    let (etcd, all) = endpoints(facts)?;
    let used = |s: &MemberStatus| s.db_in_use as f64 * 100.0 / s.db_size.max(1) as f64;
    let is_bad = |s: &MemberStatus| s.db_size > FRAGMENTED_BYTES && used(s) < 50.0;
    let bad: Vec<String> = all
        .iter()
        .filter(|(_, s)| is_bad(s))
        .map(|(e, s)| format!("{}: {:.0} % of {} in use", etcd.name_of(e), used(s), mib(s.db_size)))
        .collect();
    let limit = format!("50 % in use, from {} on", mib(FRAGMENTED_BYTES));
    if bad.is_empty() {
        let least = all.iter().map(|(_, s)| used(s)).fold(100.0, f64::min);
        return Outcome::new(Status::Pass, format!("at least {least:.0} % in use"), limit).made();
    }
    Outcome::new(Status::Warn, list(&bad), limit)
        .fix("etcdctl defrag, one member after the other: it blocks that member")
        .made()
}

/// NOSPACE, CORRUPT.
pub fn alarms(facts: &Facts) -> Judgement {
    let (etcd, all) = endpoints(facts)?;
    let alarms: BTreeSet<&Alarm> = all.iter().flat_map(|(_, s)| &s.alarms).collect();
    if alarms.is_empty() {
        return Outcome::new(Status::Pass, "none", "none").made();
    }
    let name = |id: u64| {
        let listed = etcd.members.iter().flatten().find(|m| m.id == id);
        listed.map_or_else(|| format!("{id:x}"), |m| m.name.clone())
    };
    let raised: Vec<String> = alarms.iter().map(|a| format!("{} at {}", a.kind, name(a.member))).collect();
    let fix = if alarms.iter().any(|a| a.kind == "CORRUPT") {
        "stop that member, remove it (etcdctl member remove), and add it again with an empty data dir"
            .to_owned()
    } else {
        format!("{MAKE_ROOM}; then etcdctl alarm disarm")
    };
    Outcome::new(Status::Fail, list(&raised), "none").fix(fix).made()
}

/// Is old history ever thrown away?
pub fn compaction(facts: &Facts) -> Judgement {
    let (_, all) = endpoints(facts)?;
    let revision = all.iter().map(|(_, s)| s.revision).max().unwrap_or(0);
    let shown = |(e, _): &(&EndpointFacts, &MemberStatus)| e.page.as_ref().ok()?.number(COMPACTED);
    let compacted_at = all.iter().filter_map(shown).fold(-1.0, f64::max);
    let set = all.iter().find_map(|(e, _)| {
        let learned = e.learned.as_ref()?;
        let retention = learned.flag("auto-compaction-retention").filter(|r| *r != "0")?;
        Some(format!(
            "--auto-compaction-mode={} --auto-compaction-retention={retention}",
            learned.flag("auto-compaction-mode").unwrap_or("periodic")
        ))
    });
    let limit = format!("compacted before {REVISIONS_MAX} revisions");
    let (status, measured) = match (set, facts.etcd.as_ref().and_then(|e| e.never_compacted)) {
        (Some(flags), _) => (Status::Pass, format!("revision {revision}; {flags}")),
        (None, Some(true)) => (Status::Warn, format!("revision {revision}, never compacted")),
        (None, _) if compacted_at > 0.0 => {
            (Status::Pass, format!("revision {revision}, compacted at {compacted_at:.0}"))
        }
        (None, _) => (Status::Pass, format!("revision {revision}")),
    };
    Outcome::new(status, measured, limit)
        .fix("start etcd with --auto-compaction-mode=periodic --auto-compaction-retention=1h")
        .reading(revision as f64, "", REVISIONS_MAX as f64)
        .made()
}

/// Does our largest write fit?
pub fn requests(facts: &Facts) -> Judgement {
    let etcd = etcd(facts)?;
    let flag = etcd
        .endpoints
        .iter()
        .find_map(|e| e.learned.as_ref()?.flag("max-request-bytes")?.parse::<u64>().ok());
    let Some(accepted) = etcd.request_bytes_max.or(flag) else {
        return skip("no member reports its limit");
    };
    let largest = WRITE_BYTES_MAX as u64;
    let status = if accepted < largest + largest / 8 { Status::Fail } else { Status::Pass };
    let measured = format!("etcd accepts requests of {}", mib(accepted));
    Outcome::new(status, measured, format!("more than {}, metad's largest write", mib(largest)))
        .fix("start etcd with --max-request-bytes=1572864, its default")
        .reading(accepted as f64, "B", largest as f64)
        .lower_is_worse()
        .made()
}
