//! How fast etcd is, and whether it keeps up.

use std::time::Duration;

use super::super::facts::{ELECTIONS_WINDOW, EndpointFacts, EtcdFacts, Facts};
use super::super::page::{
    COMMIT, FAILED_HEARTBEATS, FAILED_PROPOSALS, FSYNC, PEER_RTT, RECEIVED_BYTES, SLOW_APPLIES,
};
use super::super::{Judgement, Outcome, Status};
use super::{above, count, etcd, list, millis, ms, p99_ms, skip};

/// From here on etcd is about to lose its leader (etcd's own alert).
const FSYNC_FAIL_MS: f64 = 500.0;
/// The same for commits.
const COMMIT_FAIL_MS: f64 = 250.0;
/// A write should take no longer; etcd itself warns from here on.
const WRITE_MS: f64 = 100.0;
/// The slowest write (`etcdctl check perf` fails above it).
const WRITE_MAX_MS: f64 = 500.0;
/// More elections than this in a quarter of an hour are too many.
const ELECTIONS_MAX: f64 = 1.0;
/// Requests of so many bytes in a second, and so many writes, are a flood.
const LOAD_BYTES: f64 = 10.0 * 1024.0 * 1024.0;
const LOAD_WRITES: f64 = 1000.0;

/// WAL syncs.
pub fn fsync(facts: &Facts) -> Judgement {
    let fix = "move that member's data dir to a fast disk of its own (SSD), or: ionice -c2 -n0 -p $(pidof \
               etcd); meanwhile meta.meta_leader_lease_secs = 30";
    histogram(facts, FSYNC, "syncs its log", facts.config.checks.fsync_p99_ms, FSYNC_FAIL_MS, fix)
}

/// Backend commits.
pub fn commit(facts: &Facts) -> Judgement {
    let fix = "move that member's data dir to a fast disk of its own (SSD)";
    histogram(facts, COMMIT, "commits", facts.config.checks.commit_p99_ms, COMMIT_FAIL_MS, fix)
}

/// Between etcd's members.
pub fn peers(facts: &Facts) -> Judgement {
    let fix = "place the members closer together, or give etcd --heartbeat-interval of one round trip and \
               --election-timeout of ten";
    let warn = facts.config.checks.rtt_p99_ms;
    histogram(facts, PEER_RTT, "reaches the others", warn, warn as f64 * 3.0, fix)
}

/// The slowest endpoint's 99th percentile of a histogram on its metrics page.
fn histogram(facts: &Facts, name: &str, does: &str, warn_ms: u64, fail: f64, fix: &str) -> Judgement {
    let etcd = etcd(facts)?;
    let p99 =
        |e: &EndpointFacts| e.page.as_ref().ok()?.p99_ms(name, e.page_before.as_ref().map(|(page, _)| page));
    let warn = warn_ms as f64;
    let all: Vec<(f64, &EndpointFacts)> = etcd.endpoints.iter().filter_map(|e| Some((p99(e)?, e))).collect();
    let Some((slowest, _)) = all.iter().max_by(|a, b| a.0.total_cmp(&b.0)) else {
        return no_page(etcd, name);
    };
    let says = |(p99, e): &(f64, &EndpointFacts)| format!("{} {does} with p99 {}", etcd.name_of(e), ms(*p99));
    let slow: Vec<String> = all.iter().filter(|(p99, _)| *p99 > warn).map(says).collect();
    let measured = if slow.is_empty() {
        format!("the slowest of {} {does} with p99 {}", count(all.len(), "member"), ms(*slowest))
    } else {
        list(&slow)
    };
    Outcome::new(above(*slowest, warn, fail.max(warn)), measured, ms(warn))
        .fix(fix)
        .reading(*slowest, "ms", warn)
        .made()
}

/// Why there is nothing to judge: no page can be read, or a single member has no peers.
fn no_page(etcd: &EtcdFacts, name: &str) -> Judgement {
    let broken: Vec<String> = etcd
        .answering()
        .filter_map(|(e, _)| Some(format!("{}: {}", e.probe.place, e.page.as_ref().err()?)))
        .collect();
    if broken.is_empty() {
        return skip(format!("no member has measured {name}"));
    }
    let fix = "check what answers there: curl URL/metrics";
    Outcome::new(Status::Unknown, format!("no metrics: {}", broken.join("; ")), "a metrics page of etcd")
        .fix(fix)
        .made()
}

/// Reads that each member answers by itself.
pub fn reads(facts: &Facts) -> Judgement {
    let etcd = etcd(facts)?;
    let all: Vec<(f64, &EndpointFacts)> =
        etcd.endpoints.iter().filter_map(|e| Some((p99_ms(&e.reads)?, e))).collect();
    let Some((rtt, slowest)) = all.iter().max_by(|a, b| a.0.total_cmp(&b.0)) else {
        return skip("no endpoint answers");
    };
    let warn = facts.config.checks.rtt_p99_ms as f64;
    let fail = (millis(facts.ttl()) / 10.0).max(warn);
    let measured = format!("{} answers a read in {}, the slowest", etcd.name_of(slowest), ms(*rtt));
    let fix = "use closer endpoints, or check the network path: ping and mtr to that host";
    Outcome::new(above(*rtt, warn, fail), measured, ms(warn)).fix(fix).reading(*rtt, "ms", warn).made()
}

/// Writes that a majority agreed to.
pub fn writes(facts: &Facts) -> Judgement {
    let etcd = etcd(facts)?;
    // A disk is allowed to be as slow as its own check allows.
    let warn = WRITE_MS.max(2.0 * facts.config.checks.fsync_p99_ms as f64);
    let limit = format!("p99 {}", ms(warn));
    let took: &[Duration] = match &etcd.writes {
        None => return skip("no write was tried"),
        Some(Err(why)) => {
            let fix = "check ETCD_002, ETCD_003 and ETCD_013 first; for a missing permission: etcdctl role \
                       grant-permission ROLE readwrite --prefix=true /metad/";
            return Outcome::new(Status::Fail, format!("a write failed: {why}"), limit).fix(fix).made();
        }
        Some(Ok(took)) => took,
    };
    let Some(p99) = p99_ms(took) else { return skip("no write was tried") };
    let measured = format!("{}, the slowest took {}", count(took.len(), "write"), ms(p99));
    Outcome::new(above(p99, warn, WRITE_MAX_MS.max(warn)), measured, limit)
        .fix("metad doctor --only ETCD_005,ETCD_006,ETCD_007,ETCD_008 shows whether disk or network is slow")
        .reading(p99, "ms", warn)
        .made()
}

/// The largest growth of a counter since the last look, with the endpoint that shows it.
fn grown<'e>(etcd: &'e EtcdFacts, name: &str) -> Option<(f64, &'e EndpointFacts, Duration)> {
    let of = |e: &'e EndpointFacts| {
        let (before, ago) = e.page_before.as_ref()?;
        Some((e.page.as_ref().ok()?.grown(name, before)?, e, *ago))
    };
    etcd.endpoints.iter().filter_map(of).max_by(|a, b| a.0.total_cmp(&b.0))
}

/// etcd's own elections.
pub fn elections(facts: &Facts) -> Judgement {
    let etcd = etcd(facts)?;
    let Some((n, ago)) = etcd.elections else { return skip("two readings of /metrics are needed") };
    let measured = format!("{n:.0} changes of etcd's leader in {ago:.0?}");
    // Looks may be farther apart.
    let most = ELECTIONS_MAX * (ago.as_secs_f64() / ELECTIONS_WINDOW.as_secs_f64()).floor().max(1.0);
    Outcome::new(above(n, most, f64::INFINITY), measured, format!("{most} in that time"))
        .fix("metad doctor --only ETCD_005,ETCD_007: a slow disk or network between etcd's members")
        .reading(n, "", most)
        .made()
}

/// What etcd itself counts as too slow.
pub fn overload(facts: &Facts) -> Judgement {
    let etcd = etcd(facts)?;
    if etcd.answering().any(|(_, s)| s.leader == 0) {
        return skip("without a leader every proposal fails");
    }
    let kinds = [
        (SLOW_APPLIES, "slow applies"),
        (FAILED_HEARTBEATS, "late heartbeats"),
        (FAILED_PROPOSALS, "failed proposals"),
    ];
    let counted: Vec<(f64, &EndpointFacts, &str)> =
        kinds.iter().filter_map(|(name, what)| grown(etcd, name).map(|(n, e, _)| (n, e, *what))).collect();
    if counted.is_empty() {
        return skip("two readings of /metrics are needed");
    }
    let bad = counted.iter().filter(|(n, ..)| *n > 0.0);
    let bad: Vec<String> = bad.map(|(n, e, what)| format!("{} had {n:.0} {what}", etcd.name_of(e))).collect();
    if bad.is_empty() {
        return Outcome::new(Status::Pass, "nothing late, slow or failed since the last reading", "none")
            .made();
    }
    Outcome::new(Status::Warn, list(&bad), "none")
        .fix("give etcd a faster disk and more CPU, or take load away from it")
        .made()
}

/// Requests and writes in a second.
pub fn load(facts: &Facts) -> Judgement {
    let etcd = etcd(facts)?;
    let Some((bytes, busiest, ago)) = grown(etcd, RECEIVED_BYTES) else {
        return skip("two readings of /metrics are needed");
    };
    let secs = ago.as_secs_f64().max(0.001);
    let bytes = bytes / secs;
    let writes = etcd.writes_per_sec.unwrap_or(0.0);
    let measured = format!(
        "{} takes {:.1} KiB of requests per second; etcd makes {writes:.0} writes",
        etcd.name_of(busiest),
        bytes / 1024.0
    );
    let status =
        Status::worst([above(bytes, LOAD_BYTES, f64::INFINITY), above(writes, LOAD_WRITES, f64::INFINITY)]);
    Outcome::new(status, measured, format!("10 MiB and {LOAD_WRITES} writes in a second"))
        .fix("find out who writes: etcdctl watch --prefix \"\"; give metad an etcd of its own")
        .reading(writes, "", LOAD_WRITES)
        .made()
}
