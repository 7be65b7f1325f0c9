//! The meta nodes.

use std::collections::{BTreeMap, BTreeSet};

use super::super::facts::{Facts, MetaFacts, Registered, Seen};
use super::super::{Judgement, Outcome, Skip, Status};
use super::{count, list, meta, millis, ms, past, silence, skip};

/// A node that started so often within the window starts in a loop.
const STARTS_MAX: usize = 3;

fn registered(facts: &Facts) -> Result<(&MetaFacts, &[Registered]), Skip> {
    let meta = meta(facts)?;
    match &meta.registered {
        None => Err(Skip::new("neither the store nor a meta node reported the registered members")),
        Some(all) if all.is_empty() => Err(Skip::new("no meta node is registered")),
        Some(all) => Ok((meta, all)),
    }
}

fn seen(meta: &MetaFacts) -> impl Iterator<Item = &Seen> {
    meta.answers.iter().filter_map(|a| a.seen.as_ref().ok())
}

/// All that should be there are, and answer.
pub fn online(facts: &Facts) -> Judgement {
    let expected = facts.config.checks.expected_members as usize;
    let (meta, all) = match registered(facts) {
        Ok(found) => found,
        Err(_) if expected > 0 && facts.meta.is_some() => {
            let measured = format!("no member is registered, {expected} expected");
            let fix = "start them: systemctl start metad";
            return Outcome::new(Status::Fail, measured, format!("{expected} members")).fix(fix).made();
        }
        Err(skip) => return Err(skip),
    };
    let silent = |m: &&Registered| !seen(meta).any(|s| s.node == m.node);
    let offline: Vec<String> =
        all.iter().filter(silent).map(|m| format!("{} ({})", m.node, m.address)).collect();
    let is_gone = |node: &&String| !all.iter().any(|m| m.node == **node);
    let gone: BTreeSet<&String> = seen(meta).flat_map(|s| &s.gone).filter(is_gone).collect();
    let wanted = expected.max(all.len() + gone.len());
    let up = all.len() - offline.len();
    let status = match up {
        up if up == wanted => Status::Pass,
        0 => Status::Fail,
        _ => Status::Warn,
    };
    let mut measured = format!("{up} of {} answer", count(wanted, "member"));
    if !offline.is_empty() {
        measured.push_str(&format!("; not answering: {}", list(&offline)));
    }
    if !gone.is_empty() {
        let gone: Vec<String> = gone.into_iter().cloned().collect();
        measured.push_str(&format!("; gone within the last hour: {}", list(&gone)));
    }
    if all.len() < expected {
        measured.push_str(&format!("; registered: {}", all.len()));
    }
    let fix = "start the members that are down (systemctl start metad there), or find out why they are \
               unreachable: metad leader --meta ADDRESS";
    Outcome::new(status, measured, format!("{wanted} of {wanted}")).fix(fix).made()
}

/// The same lease everywhere.
pub fn settings(facts: &Facts) -> Judgement {
    differ(facts, "meta.meta_leader_lease_secs", "the same on all members", |m| {
        format!("{} s", m.ttl.as_secs())
    })
}

/// The same version everywhere.
pub fn versions(facts: &Facts) -> Judgement {
    differ(facts, "version", "one version, except during an upgrade", |m| m.version.clone())
}

fn differ(facts: &Facts, what: &str, limit: &str, of: impl Fn(&Registered) -> String) -> Judgement {
    let (_, all) = registered(facts)?;
    let mut by_value: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for m in all {
        by_value.entry(of(m)).or_default().push(m.node.clone());
    }
    let groups: Vec<String> = by_value.iter().map(|(v, nodes)| format!("{v} on {}", list(nodes))).collect();
    let status = if groups.len() > 1 { Status::Warn } else { Status::Pass };
    let fix = match what {
        "version" => "finish the upgrade, followers first: systemctl restart metad".to_owned(),
        key => format!("{key} = the same in the configuration of each member, then restart it"),
    };
    Outcome::new(status, format!("{what}: {}", list(&groups)), limit).fix(fix).made()
}

/// No two share a data dir or an address.
pub fn duplicates(facts: &Facts) -> Judgement {
    let (_, all) = registered(facts)?;
    let mut twice = Vec::new();
    for (i, m) in all.iter().enumerate() {
        for other in &all[..i] {
            if m.uuid == other.uuid {
                twice.push(format!(
                    "{} and {} have the same data dir identity {}",
                    other.node, m.node, m.uuid
                ));
            } else if m.address == other.address {
                twice.push(format!("{} and {} both advertise {}", other.node, m.node, m.address));
            }
        }
    }
    let limit = "each has its own";
    if twice.is_empty() {
        return Outcome::new(Status::Pass, format!("{}, all different", count(all.len(), "member")), limit)
            .made();
    }
    let fix = "stop one of each pair; give it an empty data dir (--data-dir) and an address of its own \
               (--advertise-addr)";
    Outcome::new(Status::Fail, list(&twice), limit).fix(fix).made()
}

/// No node starts again and again.
pub fn restarts(facts: &Facts) -> Judgement {
    let past = past(facts)?;
    let window = facts.config.checks.leader_change_window_secs;
    let limit = format!("{STARTS_MAX} starts in {window} s");
    let from = past.now_ms.saturating_sub(window * 1000);
    let mut starts: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, node) in past.starts.iter().filter(|(at_ms, _)| *at_ms > from) {
        *starts.entry(node).or_default() += 1;
    }
    let most = starts.values().copied().max().unwrap_or(0);
    let often: Vec<String> = starts
        .iter()
        .filter(|(_, n)| **n > STARTS_MAX)
        .map(|(node, n)| format!("{node} started {n} times"))
        .collect();
    if often.is_empty() {
        let measured = format!("at most {} per node in {window} s", count(most, "start"));
        return Outcome::new(Status::Pass, measured, limit)
            .reading(most as f64, "", STARTS_MAX as f64)
            .made();
    }
    Outcome::new(Status::Warn, list(&often), limit)
        .fix("find out there why it ends: journalctl -u metad, the line with \"stopped\"")
        .reading(most as f64, "", STARTS_MAX as f64)
        .made()
}

/// Wall clocks, compared over four timestamps each.
pub fn skew(facts: &Facts) -> Judgement {
    let meta = meta(facts)?;
    let mut clocks: Vec<&Seen> = seen(meta).collect();
    clocks.sort_by(|a, b| a.ahead_ms.total_cmp(&b.ahead_ms));
    let (Some(first), Some(last)) = (clocks.first(), clocks.last()) else {
        return skip(silence(meta));
    };
    if clocks.len() < 2 {
        return skip("one meta node alone cannot disagree");
    }
    // What the network may have added on its way is not held against the clocks.
    let error = (millis(first.rtt) + millis(last.rtt)) / 2.0;
    let skew = last.ahead_ms - first.ahead_ms;
    let warn = facts.config.checks.clock_skew_ms as f64;
    let status = super::above(skew - error, warn, 1000.0);
    let measured = if status == Status::Pass {
        format!("{} differ by {} at most", count(clocks.len(), "clock"), ms(skew))
    } else {
        format!("the clock of {} is {} ahead of that of {}", last.node, ms(skew), first.node)
    };
    Outcome::new(status, measured, ms(warn))
        .fix("chronyc tracking on both, and fix their time synchronisation (systemctl enable --now chrony)")
        .reading(skew, "ms", warn)
        .made()
}

/// Addresses that lead somewhere from elsewhere.
pub fn addresses(facts: &Facts) -> Judgement {
    let (_, all) = registered(facts)?;
    let is_local = |m: &&Registered| m.address.starts_with("127.") || m.address.starts_with("localhost:");
    let is_nowhere = |m: &&Registered| m.address.starts_with("0.0.0.0:") || m.address.starts_with("[::]:");
    let local = all.iter().filter(is_local).count();
    let mut wrong: Vec<&Registered> = all.iter().filter(is_nowhere).collect();
    if local < all.len() {
        // All of them on loopback is one machine; some of them cannot be reached from the others.
        wrong.extend(all.iter().filter(is_local));
    }
    let limit = "an address that other members can reach";
    if wrong.is_empty() {
        let measured = format!("{}, each with such an address", count(all.len(), "member"));
        return Outcome::new(Status::Pass, measured, limit).made();
    }
    let named: Vec<String> = wrong.iter().map(|m| format!("{} advertises {}", m.node, m.address)).collect();
    Outcome::new(Status::Fail, list(&named), limit)
        .fix("node.advertise_addr = \"HOST:PORT\" of that machine (--advertise-addr)")
        .made()
}

/// Round trips to the members.
pub fn rtt(facts: &Facts) -> Judgement {
    let meta = meta(facts)?;
    let Some(slowest) = seen(meta).max_by_key(|s| s.rtt) else {
        return skip(silence(meta));
    };
    let (rtt, warn) = (millis(slowest.rtt), facts.config.checks.rtt_p99_ms as f64);
    let status = super::above(rtt, warn, f64::INFINITY);
    Outcome::new(status, format!("{} answers in {}", slowest.node, ms(rtt)), ms(warn))
        .fix(format!("ping the host of {}; place the members closer together", slowest.node))
        .reading(rtt, "ms", warn)
        .made()
}
