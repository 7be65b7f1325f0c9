//! etcd's versions, and what is known to be wrong with them.

use std::collections::BTreeSet;

use super::super::facts::Facts;
use super::super::{Judgement, Outcome, Status};
use super::{etcd, list, skip};

/// A version as numbers.
type Version = (u32, u32, u32);

/// What is wrong with a version: how bad, and what it is.
fn fault(v: Version) -> Option<(Status, &'static str)> {
    let before = |fixed: &[Version]| fixed.iter().any(|f| (v.0, v.1) == (f.0, f.1) && v < *f);
    match v {
        (0..=2, ..) | (3, 0..=3, _) => Some((Status::Fail, "is too old: metad needs 3.4 or newer")),
        (3, 5, 0..=2) => Some((Status::Fail, "may corrupt its data (fixed in 3.5.3)")),
        _ if before(&[(3, 4, 31), (3, 5, 13)]) => Some((
            Status::Warn,
            "may revoke live leases when its leader was cut off (fixed in 3.4.31 and 3.5.13), and renews revoked \
             leases (fixed in 3.4.38 and 3.5.23)",
        )),
        _ if before(&[(3, 4, 38), (3, 5, 23), (3, 6, 5)]) => Some((
            Status::Warn,
            "answers the renewal of a revoked lease with success (fixed in 3.4.38, 3.5.23 and 3.6.5)",
        )),
        (3, 4, _) => Some((Status::Warn, "is a release that gets no more fixes")),
        _ => None,
    }
}

fn parse(text: &str) -> Option<Version> {
    let core = text.split(['-', '+']).next()?;
    let mut numbers = core.split('.').map(|n| n.parse().ok());
    Some((numbers.next()??, numbers.next()??, numbers.next()??))
}

/// Every member's version.
pub fn judge(facts: &Facts) -> Judgement {
    let etcd = etcd(facts)?;
    let versions: BTreeSet<&str> = etcd.answering().map(|(_, s)| s.version.as_str()).collect();
    if versions.is_empty() {
        return skip("no endpoint answers");
    }
    let mut status = Status::Pass;
    let mut said = Vec::new();
    for version in &versions {
        let (bad, what) = match parse(version) {
            None => (Status::Unknown, "is not a known version"),
            Some(v) => fault(v).unwrap_or((Status::Pass, "has no known fault")),
        };
        status = Status::worst([status, bad]);
        said.push(format!("{version} {what}"));
    }
    if versions.len() > 1 && status == Status::Pass {
        status = Status::Warn;
        said.push("an upgrade has stopped halfway".to_owned());
    }
    Outcome::new(status, list(&said), "3.5.23, 3.6.5 or newer, the same everywhere")
        .fix("upgrade etcd, one member after the other, to the newest release of its series, then to the next series")
        .made()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_faults_begin_and_end_where_the_changelogs_say() {
        for (version, status) in [
            ("3.3.27", Some(Status::Fail)),
            ("3.4.23", Some(Status::Warn)),
            ("3.4.38", Some(Status::Warn)), // no more fixes
            ("3.5.2", Some(Status::Fail)),
            ("3.5.12", Some(Status::Warn)),
            ("3.5.22", Some(Status::Warn)),
            ("3.5.23", None),
            ("3.6.4", Some(Status::Warn)),
            ("3.6.5", None),
            ("3.7.0-rc.1", None),
        ] {
            assert_eq!(fault(parse(version).unwrap()).map(|f| f.0), status, "{version}");
        }
        assert_eq!(parse("v3.6"), None);
    }
}
