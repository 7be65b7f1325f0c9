//! What a snapshot becomes, and that nothing is lost on the way through gRPC.

use std::time::Duration;

use serde_json::{Value, json};

use super::member::{Foreign, Leader, Member};
use super::node::{FailoverBudget, Lease};
use super::tenure::{SaidBy, Tenure};
use super::*;
use crate::clock::Instant;
use crate::election::history::Reason;
use crate::election::history::row::{End, Row, Seen};
use crate::election::lease::LeaseId;
use crate::election::probe::MemberHealth;
use crate::election::record::{
    self, Incarnation, LeaderRecord, MemberId, MemberUuid, Nonce, Registration, Revision, Token, View,
};
use crate::election::status::Role;
use crate::proto::metad as proto;
use crate::telemetry::metrics::LastLook;

fn id(node: &str, incarnation: u64) -> MemberId {
    MemberId { node: node.into(), uuid: MemberUuid(7), incarnation: Incarnation(incarnation) }
}

fn registered(node: &str) -> record::Member {
    let registration = Registration {
        member: id(node, 1),
        rpc_address: format!("{node}:5690"),
        http_address: format!("{node}:5691"),
        priority: 100,
        version: "1.2.3".into(),
        ttl: Duration::from_secs(10),
        lease: LeaseId(0xab),
    };
    record::Member { registration, created: Revision(1), generation: Revision(1) }
}

fn tenure(holder: MemberId) -> record::Tenure {
    let record = LeaderRecord {
        holder,
        address: "a:5690".into(),
        nonce: Nonce(1),
        ttl: Duration::from_secs(10),
        acquired_ms: 1_700_000_000_000,
        transitions: 3,
        probe_handed_ms: 0,
    };
    let token = Token::new(Revision(42)).expect("not zero");
    record::Tenure { record, token, lease: LeaseId(0xcd), rewritten: false }
}

fn held_by(holder: MemberId) -> record::Leader {
    record::Leader::Held(Box::new(tenure(holder)))
}

fn status(leader: record::Leader) -> Status {
    let members = vec![registered("a"), registered("b")];
    Status {
        me: id("b", 1),
        cluster: "c".into(),
        role: Role::Claiming,
        token: None,
        holds_until: Some(Instant::from_millis(9_930)),
        ttl: Some(Duration::from_secs(10)),
        view: View { revision: Revision(50), leader, members, ..View::default() },
        unready: None,
        health: MemberHealth::default(),
        confirmed_at: Instant::default(),
    }
}

fn foreign(seen: &mut Status) {
    seen.view.foreign = Some(record::Foreign { key: "k".into(), value: "somebody".into() });
}

#[test]
fn a_time_is_rfc_3339_with_milliseconds() {
    let shown = |ms| serde_json::to_value(Time(ms)).expect("JSON");
    assert_eq!(shown(1_700_000_000_007), json!("2023-11-14T22:13:20.007Z"));
    assert_eq!(shown(0), json!("1970-01-01T00:00:00.000Z"));
    assert_eq!(shown(u64::MAX), json!("9999-12-30T22:00:00.999Z"), "the last one there is");
}

#[test]
fn the_leader_is_this_incarnation_and_no_other() {
    let roles = |leader: record::Leader| {
        let members = Member::all(&status(leader), Instant::default());
        members.into_iter().map(|m| (m.role, m.is_leader)).collect::<Vec<_>>()
    };
    let shown = |of_a: &str, is_leader| vec![(of_a.to_owned(), is_leader), ("claiming".to_owned(), false)];
    assert_eq!(roles(held_by(id("a", 1))), shown("leader", true));
    assert_eq!(roles(held_by(id("a", 9))), shown("follower", false));
    assert_eq!(roles(record::Leader::Vacant), shown("follower", false));
}

#[test]
fn of_a_view_that_is_older_than_the_lease_nothing_is_known() {
    let seen = status(held_by(id("a", 1)));
    let at = |ms| {
        let document = LeaderDocument::of(&seen, "look", Instant::from_millis(ms));
        let name = |leader: Option<Leader>| leader.map(|l| l.node);
        let roles = Member::all(&seen, Instant::from_millis(ms)).into_iter().map(|m| (m.role, m.is_leader));
        let roles: Vec<_> = roles.collect();
        (document.answerer.is_outdated, name(document.leader), name(document.last_known_leader), roles)
    };
    let roles = |of_a: &str, leads| vec![(of_a.to_owned(), leads), ("claiming".to_owned(), false)];
    assert_eq!(at(10_000), (false, Some("a".into()), None, roles("leader", true)));
    assert_eq!(at(10_001), (true, None, Some("a".into()), roles("unknown", false)));
    let never = Status { view: View::default(), ..seen.clone() };
    assert!(never.is_outdated(Instant::default()), "the store has confirmed nothing yet");
    let vacant = status(record::Leader::Vacant);
    assert!(!vacant.is_outdated(Instant::from_millis(10_000)), "nobody leads, and that is known");
}

#[test]
fn a_foreign_campaigner_is_named() {
    let mut seen = status(record::Leader::Foreign("somebody".into()));
    foreign(&mut seen);
    let shown = Foreign { key: "k".into(), value: "somebody".into(), look: "a command".into() };
    assert_eq!(Foreign::of(&seen, "a command"), Some(shown));
    assert_eq!(Foreign::of(&status(record::Leader::Vacant), "a command"), None);
}

#[test]
fn a_lease_drains_to_nothing_and_names_when_the_main_loop_would_be_told() {
    let status = status(record::Leader::Vacant);
    let at = |ms| Lease::of(&status, Instant::from_millis(ms)).expect("a lease");
    let expected = |remaining_ms, step_down_in_ms| Lease {
        ttl_ms: 10_000,
        remaining_ms,
        step_down_in_ms,
        stop_budget_ms: 250,
    };
    assert_eq!(at(2_930), expected(7_000, 6_750));
    assert_eq!(at(9_800), expected(130, 0));
    assert_eq!(at(20_000), expected(0, 0));
    assert_eq!(Lease::of(&Status { holds_until: None, ..status.clone() }, Instant::default()), None);
}

#[test]
fn the_budget_counts_the_fastest_endpoint_that_answers() {
    let look =
        |rtt: Option<u64>| LastLook { rtt: rtt.map(Duration::from_micros), seen_ms: None, fault: None };
    let looks = [look(None), look(Some(1_870)), look(Some(900_000))];
    let budget = |looks: &[LastLook]| FailoverBudget::of(&tenure(id("a", 1)), looks.iter());
    assert_eq!(budget(&looks), FailoverBudget { planned_ms: Some(1.9), machine_ms: 10_500 });
    assert_eq!(budget(&looks[..1]).planned_ms, None);
}

/// Through the bytes of a message, and back.
fn sent<V, M>(view: V) -> V
where
    V: From<M>,
    M: From<V> + prost::Message + Default,
{
    let message = M::from(view);
    M::decode(message.encode_to_vec().as_slice()).expect("it was encoded").into()
}

#[test]
fn nothing_is_lost_on_the_way_through_grpc() {
    let mut seen = status(held_by(id("a", 1)));
    foreign(&mut seen);
    let now = Instant::from_millis(5);
    let leader = LeaderDocument::of(&seen, "look", now);
    assert!(leader.leader.is_some() && leader.foreign.is_some());
    assert_eq!(sent::<_, proto::LeaderResponse>(leader.clone()), leader);
    let nobody = LeaderDocument::of(&status(record::Leader::Vacant), "look", now);
    assert_eq!(sent::<_, proto::LeaderResponse>(nobody.clone()), nobody);
    let gone = vec![("z".to_owned(), 7)];
    let members = MembersDocument::of(&seen, gone.clone(), now);
    assert_eq!(sent::<_, proto::MembersResponse>(members.clone()), members);
    assert_eq!(StatusDocument::from((leader, members)), StatusDocument::of(&seen, "look", gone, now));
}

#[test]
fn a_member_of_an_older_version_has_the_role_that_the_record_gives_it() {
    let role = |is_leader| Member::from(proto::MemberInfo { is_leader, ..Default::default() }).role;
    assert_eq!([role(true), role(false)], ["leader", "follower"]);
}

#[test]
fn a_tenure_is_the_same_before_and_after_grpc_whether_it_has_ended_or_not() {
    let known =
        Seen { ack_age_ms: Some(1), slowest: Some("http://b".into()), slowest_ms: Some(0), tick_delay_ms: 3 };
    let unknown = Seen::default();
    let end = |seen: Option<Seen>, detail: &str, by_holder| {
        let (reason, detail) = (Reason::RenewDeadline, detail.to_owned());
        Some(End { at_ms: 9, reason, detail, seen, by_holder })
    };
    let row = Row::of(&tenure(id("a", 1)).record, tenure(id("a", 1)).token);
    let whole =
        Row { gap_ms: Some(0), previous: Some("b".into()), end: end(Some(known), "why", true), ..row };
    let rows = [
        Row { end: end(Some(unknown), "", false), ..whole.clone() },
        Row { end: None, gap_ms: None, previous: None, ..whole.clone() },
        whole,
    ];
    let shown = rows.map(|row| Tenure::of(&row, None));
    for tenure in &shown {
        assert_eq!(sent::<_, proto::TenureInfo>(tenure.clone()), *tenure);
    }
    let [unknown, open, whole] = shown;
    assert_eq!((unknown.said_by, unknown.detail), (Some(SaidBy::Successor), None));
    assert_eq!((open.to, open.said_by, open.reason), (None, None, None));
    let whole = serde_json::to_value(whole).expect("JSON");
    let kept = (&whole["to"], &whole["said_by"], &whole["planned"], &whole["seen"]["slowest_ms"]);
    assert_eq!(kept, (&json!("1970-01-01T00:00:00.009Z"), &json!("holder"), &json!(false), &json!(0)));
}

#[test]
fn what_is_unknown_is_null_and_not_left_out() {
    let document = LeaderDocument::of(&status(record::Leader::Vacant), "look", Instant::default());
    let shown = serde_json::to_value(document).expect("JSON");
    assert_eq!((&shown["schema_version"], shown.get("leader")), (&json!(1), Some(&Value::Null)));
    assert_eq!(Leader::of(&status(record::Leader::Vacant), Instant::default()), None);
}
