//! The checks: pure functions from facts to a judgement, one file for each kind.

pub(super) mod cluster;
pub(super) mod etcd;
pub(super) mod host;
pub(super) mod leader;
pub(super) mod lease;
pub(super) mod room;
pub(super) mod setup;
pub(super) mod speed;
pub(super) mod versions;

#[cfg(test)]
mod tests;

use std::time::Duration;

use super::facts::{EtcdFacts, Facts, HostFacts, MetaFacts, PastFacts};
use super::{Judgement, Skip, Status};

/// How many members that did not answer are named with their reasons.
const SILENT_MAX: usize = 3;

/// etcd's facts, or why there are none.
fn etcd(facts: &Facts) -> Result<&EtcdFacts, Skip> {
    match &facts.etcd {
        Some(etcd) => Ok(etcd),
        None if facts.is_etcd() => Err(Skip::new("etcd was not queried")),
        None => Err(Skip::new("the store is not etcd")),
    }
}

fn meta(facts: &Facts) -> Result<&MetaFacts, Skip> {
    facts.meta.as_ref().ok_or_else(|| Skip::new("the meta nodes were not queried"))
}

fn host(facts: &Facts) -> Result<&HostFacts, Skip> {
    facts.host.as_ref().ok_or_else(|| Skip::new("this machine was not examined"))
}

fn past(facts: &Facts) -> Result<&PastFacts, Skip> {
    facts
        .past
        .as_ref()
        .ok_or_else(|| Skip::new("only a running node knows; none has answered, or none has checked yet"))
}

/// That no meta node answers, and why not, of the first few that were asked.
fn silence(meta: &MetaFacts) -> String {
    let failed =
        meta.answers.iter().filter_map(|a| Some(format!("{}: {}", a.address, a.seen.as_ref().err()?)));
    let why: Vec<String> = failed.take(SILENT_MAX).collect();
    let colon = if why.is_empty() { "" } else { ": " };
    format!("no meta node answers{colon}{}", why.join("; "))
}

fn skip(why: impl Into<String>) -> Judgement {
    Err(Skip::new(why))
}

/// The status of a value that has two limits.
fn above(value: f64, warn: f64, fail: f64) -> Status {
    match value {
        v if v > fail => Status::Fail,
        v if v > warn => Status::Warn,
        _ => Status::Pass,
    }
}

/// Milliseconds, with as many digits as one reads.
fn ms(value: f64) -> String {
    if value < 10.0 { format!("{value:.1} ms") } else { format!("{value:.0} ms") }
}

pub(super) fn millis(d: Duration) -> f64 {
    d.as_secs_f64() * 1000.0
}

/// The 99th percentile of some measurements, in milliseconds.
fn p99_ms(all: &[Duration]) -> Option<f64> {
    let mut sorted = all.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * 99).div_ceil(100).saturating_sub(1);
    sorted.get(rank).map(|d| millis(*d))
}

fn mib(bytes: u64) -> String {
    if bytes < 1 << 20 {
        format!("{} KiB", bytes >> 10)
    } else if bytes < 10 << 20 {
        format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
    } else {
        format!("{} MiB", bytes >> 20)
    }
}

/// "a, b and c".
fn list(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

/// "1 member", "2 members".
fn count(n: usize, of: &str) -> String {
    format!("{n} {of}{}", if n == 1 { "" } else { "s" })
}
