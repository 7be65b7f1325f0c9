//! The configuration.

use super::super::facts::Facts;
use super::super::{Judgement, Outcome, Status};

/// What the configuration warns of itself.
pub fn config(facts: &Facts) -> Judgement {
    let limit = "no value without effect";
    if let Some(why) = &facts.unusable {
        let fix = "metad config print --origins shows the file; run the doctor as the user of the node";
        return Outcome::new(Status::Fail, why.clone(), limit).fix(fix).made();
    }
    match facts.warnings.as_slice() {
        [] => Outcome::new(Status::Pass, "every value is valid and used", limit).made(),
        warnings => {
            Outcome::new(Status::Warn, warnings.join("; "), limit).fix("metad config print --origins").made()
        }
    }
}

/// Who reaches the listeners, and may do what?
pub fn listeners(facts: &Facts) -> Judgement {
    let (limit, config) = ("TLS, or loopback", &facts.config);
    let Some(measured) = config.exposure() else {
        let how = match &config.tls.cert_file {
            Some(_) => "both listeners speak TLS and ask who is calling",
            None => "both listeners are on loopback",
        };
        return Outcome::new(Status::Pass, how, limit).made();
    };
    let fix = "set tls.ca_file, tls.cert_file and tls.key_file; metad tls init makes some for trying out";
    Outcome::new(Status::Warn, measured, limit).fix(fix).made()
}

/// What is not etcd is for the processes of one machine.
pub fn store_kind(facts: &Facts) -> Judgement {
    let (kind, expected) = (facts.config.store.kind, facts.config.checks.expected_members);
    let limit = "etcd for nodes on several machines";
    if facts.is_etcd() {
        return Outcome::new(Status::Pass, "the store is etcd", limit).made();
    }
    if expected <= 1 {
        return Outcome::new(Status::Pass, format!("the store is {kind}, on this machine"), limit).made();
    }
    let measured = format!("the store is {kind}, and checks.expected_members is {expected}");
    Outcome::new(Status::Warn, measured, limit).fix("store.etcd.endpoints = [\"host:2379\", …]").made()
}
