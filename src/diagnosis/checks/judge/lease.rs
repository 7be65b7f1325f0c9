//! The lease: granted as asked, long enough for etcd, and right for the number of nodes.

use std::time::Duration;

use super::super::facts::Facts;
use super::super::{Judgement, Outcome, Skip, Status};
use super::{count, etcd, host, millis, ms, p99_ms, past, skip};
use crate::diagnosis::advice::words;
use crate::election::lease::LeaseTiming;

/// A lease of this length suits one node: a day.
const SINGLE: Duration = Duration::from_secs(86_400);
/// Longer than this, nobody waits for a fail-over among several.
const SEVERAL_MAX: Duration = Duration::from_secs(60);
/// The lease should be so many of the slowest answers.
const ANSWERS: f64 = 20.0;
/// Less than this part of the lease left, and the next lost renewal matters.
const HEADROOM_WARN: f64 = 0.5;
const HEADROOM_FAIL: f64 = 0.33;

/// etcd raises short leases without a word.
pub fn granted(facts: &Facts) -> Judgement {
    let etcd = etcd(facts)?;
    let shortest = match &etcd.shortest_lease {
        None => return skip("no lease was requested"),
        Some(Err(why)) => {
            let fix = "check ETCD_002, ETCD_003 and ETCD_013 first";
            let measured = format!("etcd grants no lease: {why}");
            return Outcome::new(Status::Fail, measured, "a lease").fix(fix).made();
        }
        Some(Ok(shortest)) => *shortest,
    };
    let asked = facts.ttl();
    // etcd grants no lease below 1.5 of its election timeouts, in whole seconds.
    let election = shortest.as_secs_f64() / 1.5;
    let measured = format!(
        "{} s are configured, and etcd grants {} s (none below {} s: its election timeout is about {election:.1} s)",
        asked.as_secs(),
        asked.max(shortest).as_secs(),
        shortest.as_secs()
    );
    let status = if shortest > asked { Status::Warn } else { Status::Pass };
    let fix = format!(
        "meta.meta_leader_lease_secs = {}, or start etcd with a shorter --election-timeout",
        shortest.as_secs()
    );
    Outcome::new(status, measured, "the requested lease").fix(fix).made()
}

/// The lease against the slowest answers.
pub fn latency(facts: &Facts) -> Judgement {
    let etcd = etcd(facts)?;
    let mut answers: Vec<Duration> = etcd.endpoints.iter().flat_map(|e| e.reads.iter().copied()).collect();
    answers.extend(etcd.writes.iter().flatten().flatten());
    let Some(slowest) = p99_ms(&answers) else { return skip("no endpoint answers") };
    let ttl = facts.ttl();
    let ratio = millis(ttl) / slowest.max(0.001);
    let status = match ratio {
        r if r >= ANSWERS => Status::Pass,
        r if r >= ANSWERS / 2.0 => Status::Warn,
        _ => Status::Fail,
    };
    let survives = LeaseTiming::new(ttl).survived_stall(Duration::from_secs_f64(slowest / 1000.0));
    let measured = format!(
        "etcd answers in {}; a lease of {} s survives a stall of {:.1} s",
        ms(slowest),
        ttl.as_secs(),
        survives.as_secs_f64()
    );
    let needed = (slowest * ANSWERS / 1000.0).ceil().max(3.0);
    Outcome::new(status, measured, format!("a lease of {ANSWERS} such answers"))
        .fix(format!("meta.meta_leader_lease_secs = {needed:.0}"))
        .reading(slowest, "ms", millis(ttl) / ANSWERS)
        .made()
}

/// One node: a day.
pub fn single(facts: &Facts) -> Judgement {
    if nodes(facts)? > 1 {
        return skip("there are several nodes");
    }
    // A lease of a day would be wrong as soon as those that are merely away are back.
    let led = facts.meta.as_ref().map_or(0, |m| m.led.len());
    if led > 1 && facts.config.checks.expected_members != 1 {
        return skip(format!(
            "{led} nodes have led this cluster; checks.expected_members = 1 would mean one"
        ));
    }
    let ttl = facts.ttl();
    let status = if ttl < SINGLE { Status::Warn } else { Status::Pass };
    let fix = "meta.meta_leader_lease_secs = 86400 (config/single-node.toml); if more nodes are to come: \
               checks.expected_members = 3";
    let measured = format!("one node, and a lease of {} s", ttl.as_secs());
    Outcome::new(status, measured, "86400 s for one node").fix(fix).made()
}

/// Several: at most a minute.
pub fn several(facts: &Facts) -> Judgement {
    let (n, ttl) = (nodes(facts)?, facts.ttl());
    if n == 1 {
        return skip("there is one node only");
    }
    let status = if ttl > SEVERAL_MAX { Status::Warn } else { Status::Pass };
    let mut measured = format!("{}, and a lease of {} s", count(n, "node"), ttl.as_secs());
    if ttl >= SINGLE {
        measured.push_str(
            ": after a crash of a machine there is no leader for up to a day, two if etcd's leader changes",
        );
    }
    let limit = format!("{} s for several nodes", SEVERAL_MAX.as_secs());
    Outcome::new(status, measured, limit).fix("meta.meta_leader_lease_secs = 15").made()
}

fn nodes(facts: &Facts) -> Result<usize, Skip> {
    let unknown = "no meta node is registered, and checks.expected_members is not set";
    facts.members().ok_or_else(|| Skip::new(unknown))
}

/// How much of the lease was left.
pub fn headroom(facts: &Facts) -> Judgement {
    let past = past(facts)?;
    let stood = past.stood_still;
    let Some(left) = past.headroom else { return skip("this node does not lead") };
    let status = match left {
        l if l < HEADROOM_FAIL => Status::Fail,
        l if l < HEADROOM_WARN => Status::Warn,
        _ => Status::Pass,
    };
    let mut measured = format!("lowest headroom {:.0} %", left * 100.0);
    if stood > facts.ttl() / 10 {
        measured.push_str(&format!("; this process stalled for {stood:.1?}"));
    }
    Outcome::new(status, measured, format!("{:.0} %", HEADROOM_WARN * 100.0))
        .fix("metad doctor --only ETCD_005,ETCD_008,HOST_003 shows whether disk, network or CPU is slow")
        .reading(left * 100.0, "%", HEADROOM_WARN * 100.0)
        .lower_is_worse()
        .made()
}

/// The lease against the stalls that this node has recorded while it led.
pub fn recorded(facts: &Facts) -> Judgement {
    let advice = match &host(facts)?.lease_advice {
        None => return skip("no stalls are recorded in the data dir"),
        Some(Err(why)) => return skip(format!("cannot read the recorded stalls: {why}")),
        Some(Ok(advice)) => advice,
    };
    let lost = advice.of_configured().map_or(0, |c| c.losses[1]);
    if lost == 0 && !advice.is_enough() {
        return skip(format!("this node has led for {} only", words(advice.led)));
    }
    let status = if lost > 0 { Status::Warn } else { Status::Pass };
    let times = count(lost, "time");
    let [of_store, of_process] = advice.longest.map(words);
    let measured = format!(
        "a lease of {} would have been lost {times} in {} of leading; the longest stalls: {of_store} of the store, {of_process} of \
         this process",
        words(advice.configured),
        words(advice.led)
    );
    let fix = match advice.recommended {
        Some(ttl) if ttl != advice.configured => {
            format!("meta.meta_leader_lease_secs = {}; metad advise lease says why", ttl.as_secs())
        }
        _ => "metad advise lease; metad doctor shows whether disk, network or CPU is slow".to_owned(),
    };
    Outcome::new(status, measured, "no loss in the recorded time").fix(fix).made()
}
