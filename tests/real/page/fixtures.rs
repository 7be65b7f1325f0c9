//! Documents of a day with two fail-overs, for what a test cannot wait for: hours of history, and checks that fail.

use jiff::Timestamp;
use serde_json::{Value, json};

const HOUR: i64 = 3_600_000;

/// Path and document. The last tenure is the one that `state` shows.
pub fn documents(state: &Value) -> Vec<(&'static str, Value)> {
    let now = state["time"].as_str().and_then(|time| time.parse::<Timestamp>().ok()).expect("a time");
    let now = now.as_millisecond();
    vec![
        ("/api/v1/history", json!({ "age_ms": 200, "tenures": tenures(&state["leader"], now) })),
        ("/api/v1/headroom", headroom(now / 1000)),
        ("/api/v1/checks", json!({ "at": time(now - 20_000), "findings": findings() })),
        ("/api/v1/events", json!(events())),
    ]
}

/// The same state with twelve members, whose names are as long as they may be, and three that have gone.
pub fn crowd(state: &Value) -> Value {
    let mut crowd = state.clone();
    let name = |i: usize| format!("a-meta-node-of-the-production-cluster-in-frankfurt-rack-7-{i}");
    let of = |i: usize| {
        let mut member = state["members"][0].clone();
        (member["node"], member["is_leader"]) = (json!(name(i)), json!(i == 1));
        member["role"] = json!(if i == 1 { "leader" } else { "follower" });
        member
    };
    crowd["members"] = (1..=12).rev().map(of).collect();
    crowd["leader"]["node"] = json!(name(1));
    crowd["gone"] = (13..=15).map(|i| json!({ "node": name(i), "since": state["time"] })).collect();
    crowd
}

fn time(ms: i64) -> String {
    format!("{:.3}", Timestamp::from_millisecond(ms).expect("a time"))
}

fn tenures(leader: &Value, now: i64) -> Value {
    let at = |hours: f64| now - (hours * HOUR as f64) as i64;
    let row = |token: i64, node: &str, from: i64, to: Option<i64>| {
        json!({ "token": token, "node": node, "uuid": "u", "address": format!("{node}:5690"), "from": time(from),
                "to": to.map(time), "reason": null, "planned": null, "gap_ms": null, "previous": null, "detail": null,
                "seen": null })
    };
    let with = |mut row: Value, more: Value| {
        let more = more.as_object().expect("a map").clone();
        row.as_object_mut().expect("a map").extend(more);
        row
    };
    let seen =
        json!({ "ack_age_ms": 14_500, "slowest": "http://b:2379", "slowest_ms": 2_100, "tick_delay_ms": 3 });
    let node = leader["node"].as_str().expect("a name");
    let token = leader["token"].as_i64().expect("a number");
    json!([
        with(
            row(-4, "e0", at(22.0), Some(at(15.0))),
            json!({ "reason": "resigned_request", "planned": true })
        ),
        with(
            row(-3, "e1", at(15.0) + 3, Some(at(6.2))),
            json!({ "reason": "renew_deadline", "planned": false, "gap_ms": 3, "previous": "e0", "seen": seen,
                    "detail": "lost because etcd member b took 2.1 s" })
        ),
        with(
            row(-2, "e2", at(6.2) + 15_800, Some(at(3.5))),
            json!({ "reason": "resigned_signal", "planned": true, "gap_ms": 15_800, "previous": "e1" })
        ),
        with(
            row(-1, "e2", at(3.5) + 2, Some(at(1.0))),
            json!({ "reason": "vanished", "planned": false, "gap_ms": 2, "previous": "e2" })
        ),
        with(row(token, node, at(1.0) + 324_000, None), json!({ "gap_ms": 324_000, "previous": "e2" })),
    ])
}

/// An hour, with a hole, and a while below the line.
fn headroom(now_secs: i64) -> Value {
    let least = |i: i64| if (200..215).contains(&i) { 0.3 } else { 0.9 };
    let steps = (0..360).filter(|i| !(100..120).contains(i));
    let points: Vec<Value> = steps.map(|i| json!([now_secs - 3600 + i * 10, least(i), 0.95])).collect();
    json!({ "step_secs": 10, "points": points })
}

pub fn finding(code: &str, title: &str, status: &str, measured: &str, fix: &str) -> Value {
    json!({ "code": code, "name": code.to_lowercase(), "title": title, "status": status, "measured": measured,
            "limit": "10 ms", "why": "a slow disk makes etcd lose its leader", "fix": fix, "doc": "checks.md" })
}

/// One that could not be looked at, among others that are well.
pub fn findings_unknown() -> Value {
    json!([
        finding("ETCD_001", "every endpoint answers", "pass", "3 of 3", ""),
        finding("HOST_003", "the CPU is free", "unknown", "cannot be read", ""),
    ])
}

fn findings() -> Value {
    json!([
        finding("ETCD_001", "every endpoint answers", "pass", "3 of 3", ""),
        finding("ETCD_005", "etcd's disk is fast", "warn", "b: 16–32 ms", "meta_leader_lease_secs = 30"),
        finding("HOST_003", "the CPU is free", "unknown", "cannot be read", ""),
        finding("LEADER_003", "the leader does not flap", "fail", "3 in 10 min", "metad history --since 1h"),
    ])
}

/// A stream that ends after two events, and is not to be opened again for a while.
fn events() -> String {
    let event = |kind: &str, more: &str| {
        format!(
            "data: {{\"type\":\"{kind}\",\"node\":\"e0\",\"time\":\"2026-01-02T03:04:05.678Z\"{more}}}\n\n"
        )
    };
    let changed = event("leader_changed", ",\"leader\":\"e1\",\"token\":7,\"previous\":\"e0\"");
    format!("retry: 600000\n\n{changed}{}", event("store_recovered", ",\"after_ms\":2100"))
}
