//! `GET /api/v1/state`: everything that this node knows at the moment, in one document, for the page and for scripts.
//! `src/docs/http.md` explains each field.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, header};
use serde_json::{Value, json};

use super::{HttpParts, tenths};
use crate::clock::{Instant, millis, wall_clock_ms};
use crate::config::StoreKind;
use crate::driver::status::{Role, Status};
use crate::election::lease::LeaseTiming;
use crate::election::record::{Member, Tenure};
use crate::telemetry::metrics::{LastLook, Usage};

/// What a dead machine costs beyond its lease: the watch, the claim, and the first fenced write.
const TAKE_OVER: Duration = Duration::from_millis(500);

/// The document.
pub(super) async fn state(State(parts): State<HttpParts>) -> ([(HeaderName, &'static str); 1], Json<Value>) {
    ([(header::CACHE_CONTROL, "no-store")], Json(document(&parts)))
}

fn document(parts: &HttpParts) -> Value {
    let (status, now) = (parts.driver.status(), parts.clock.now());
    let endpoints = parts.telemetry.metrics().endpoints();
    json!({
        "node": status.me.node,
        "cluster": status.cluster,
        "version": env!("CARGO_PKG_VERSION"),
        "role": status.role.as_str(),
        "now_ms": wall_clock_ms(),
        "age_ms": millis(now.since(status.confirmed_at)),
        "leader": status.leader().map(leader),
        "foreign": foreign(&status, &parts.look_command),
        "lease": lease(&status, now),
        "failover_budget": status.leader().map(|tenure| budget(tenure, endpoints.values())),
        "members": status.view.members.iter().map(|m| member(&status, m)).collect::<Value>(),
        "gone": parts.telemetry.metrics().members_gone().iter().map(gone).collect::<Value>(),
        "store": {
            "kind": match parts.store { StoreKind::Etcd => "etcd", StoreKind::Sqlite => "sqlite" },
            "endpoints": endpoints.iter().map(endpoint).collect::<Value>(),
        },
        "process": process(Usage::now()),
    })
}

fn leader(tenure: &Tenure) -> Value {
    let record = &tenure.record;
    json!({
        "node": record.holder.node,
        "uuid": record.holder.uuid.to_string(),
        "incarnation": record.holder.incarnation.0,
        "address": record.address,
        "token": tenure.token.get(),
        "lease": tenure.lease.to_string(),
        "ttl_secs": record.ttl.as_secs(),
        "acquired_ms": record.acquired_ms,
        "transitions": record.transitions,
    })
}

/// Who queues where only the leader record belongs, and the command that looks at it.
fn foreign(status: &Status, look: &str) -> Option<Value> {
    let foreign = status.view.foreign.as_ref()?;
    Some(json!({ "key": foreign.key, "value": foreign.value, "look": look }))
}

/// This node's own lease; the leader's, if it leads.
fn lease(status: &Status, now: Instant) -> Option<Value> {
    let (holds_until, ttl) = status.holds_until.zip(status.ttl)?;
    let stop_budget = LeaseTiming::new(ttl).stop_budget();
    let left = now.until(holds_until);
    Some(json!({
        "ttl_ms": millis(ttl),
        "remaining_ms": millis(left),
        "step_down_in_ms": millis(left.saturating_sub(stop_budget)),
        "stop_budget_ms": millis(stop_budget),
    }))
}

/// How long it would take until another leads: for a planned change, the round trip of one write; for a machine that
/// dies, at most the lease and what follows it. A process that dies is replaced as soon as its guardian sees it.
fn budget<'a>(tenure: &Tenure, endpoints: impl Iterator<Item = &'a LastLook>) -> Value {
    let fastest = endpoints.filter_map(|look| look.rtt).min();
    json!({
        "planned_ms": fastest.map(tenths_ms),
        "machine_ms": millis(tenure.record.ttl + TAKE_OVER),
    })
}

fn member(status: &Status, member: &Member) -> Value {
    let r = &member.registration;
    let is_leader = status.leader_record().is_some_and(|l| l.holder == r.member);
    let is_me = status.me == r.member;
    json!({
        "node": r.member.node,
        "uuid": r.member.uuid.to_string(),
        "incarnation": r.member.incarnation.0,
        "role": role(status.role, is_me, is_leader),
        "is_leader": is_leader,
        "rpc_address": r.rpc_address,
        "http_address": r.http_address,
        "priority": r.priority,
        "version": r.version,
        "ttl_secs": r.ttl.as_secs(),
        "lease": r.lease.to_string(),
    })
}

/// Of itself a node knows it exactly; of another it knows what the store says.
fn role(mine: Role, is_me: bool, is_leader: bool) -> &'static str {
    match (is_me, is_leader) {
        (true, _) => mine.as_str(),
        (false, true) => Role::Leader.as_str(),
        (false, false) => Role::Follower.as_str(),
    }
}

fn gone((node, at_ms): &(String, u64)) -> Value {
    json!({ "node": node, "since_ms": at_ms })
}

fn endpoint((url, look): (&String, &LastLook)) -> Value {
    json!({ "endpoint": url, "up": look.rtt.is_some(), "rtt_ms": look.rtt.map(tenths_ms), "seen_ms": look.seen_ms })
}

fn process(usage: Usage) -> Value {
    json!({ "cpu_secs": usage.cpu_secs, "rss_bytes": usage.rss_bytes })
}

fn tenths_ms(d: Duration) -> f64 {
    tenths(d.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::election::lease::LeaseId;
    use crate::election::record::{
        Foreign, Incarnation, Leader, LeaderRecord, MemberId, MemberUuid, Nonce, Registration, Revision,
        Token, View,
    };

    fn id(node: &str, incarnation: u64) -> MemberId {
        MemberId { node: node.into(), uuid: MemberUuid(7), incarnation: Incarnation(incarnation) }
    }

    fn registered(node: &str) -> Member {
        let registration = Registration {
            member: id(node, 1),
            rpc_address: format!("{node}:5690"),
            http_address: format!("{node}:5691"),
            priority: 100,
            version: "1.2.3".into(),
            ttl: Duration::from_secs(10),
            lease: LeaseId(0xab),
        };
        Member { registration, created: Revision(1), generation: Revision(1) }
    }

    fn tenure(holder: MemberId) -> Tenure {
        let record = LeaderRecord {
            holder,
            address: "a:5690".into(),
            nonce: Nonce(1),
            ttl: Duration::from_secs(10),
            acquired_ms: 1_700_000_000_000,
            transitions: 3,
        };
        Tenure {
            record,
            token: Token::new(Revision(42)).expect("not zero"),
            lease: LeaseId(0xcd),
            rewritten: false,
        }
    }

    fn status(leader: Leader) -> Status {
        let members = vec![registered("a"), registered("b")];
        Status {
            me: id("b", 1),
            cluster: "c".into(),
            role: Role::Claiming,
            token: None,
            holds_until: Some(Instant::from_millis(9_930)),
            ttl: Some(Duration::from_secs(10)),
            view: View { revision: Revision(50), leader, members, foreign: None },
            confirmed_at: Instant::default(),
        }
    }

    #[test]
    fn a_lease_drains_to_nothing_and_names_when_the_main_loop_would_be_told() {
        let status = status(Leader::Vacant);
        let at = |ms| lease(&status, Instant::from_millis(ms)).expect("a lease");
        let expected = |left: u64, down: u64| json!({ "ttl_ms": 10_000, "remaining_ms": left, "step_down_in_ms": down, "stop_budget_ms": 250 });
        assert_eq!(at(2_930), expected(7_000, 6_750));
        assert_eq!(at(9_800), expected(130, 0));
        assert_eq!(at(20_000), expected(0, 0));
        assert_eq!(lease(&Status { holds_until: None, ..status.clone() }, Instant::default()), None);
    }

    #[test]
    fn the_leader_is_this_incarnation_and_no_other() {
        let roles = |leader: Leader| {
            let status = status(leader);
            status.view.members.iter().map(|m| member(&status, m)["role"].clone()).collect::<Vec<_>>()
        };
        assert_eq!(roles(Leader::Held(Box::new(tenure(id("a", 1))))), ["leader", "claiming"]);
        assert_eq!(roles(Leader::Held(Box::new(tenure(id("a", 9))))), ["follower", "claiming"]);
        assert_eq!(roles(Leader::Vacant), ["follower", "claiming"]);
    }

    #[test]
    fn a_foreign_campaigner_is_named() {
        let mut seen = status(Leader::Foreign("somebody".into()));
        seen.view.foreign = Some(Foreign { key: "k".into(), value: "somebody".into() });
        let shown = json!({ "key": "k", "value": "somebody", "look": "a command" });
        assert_eq!(foreign(&seen, "a command"), Some(shown));
        assert_eq!(foreign(&status(Leader::Vacant), "a command"), None);
    }

    #[test]
    fn the_budget_counts_the_fastest_endpoint_that_answers() {
        let look = |rtt: Option<u64>| LastLook { rtt: rtt.map(Duration::from_micros), seen_ms: None };
        let looks = [look(None), look(Some(1_870)), look(Some(900_000))];
        let budget = |looks: &[LastLook]| budget(&tenure(id("a", 1)), looks.iter());
        assert_eq!(budget(&looks), json!({ "planned_ms": 1.9, "machine_ms": 10_500 }));
        assert_eq!(budget(&looks[..1])["planned_ms"], Value::Null);
    }
}
