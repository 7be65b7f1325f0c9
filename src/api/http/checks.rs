//! `GET /api/v1/checks`: what this node found when it last checked itself and its surroundings.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::{HttpParts, tenths};
use crate::diagnosis::checks::measured::{EndpointNumbers, Measured, MemberNumbers};
use crate::diagnosis::checks::render;

/// The findings; none, and `at_ms` 0, before the first look.
pub(super) async fn checks(State(parts): State<HttpParts>) -> Json<Value> {
    let latest = parts.checks.borrow().clone();
    let findings: Vec<Value> = latest.findings.iter().map(render::finding_json).collect();
    let Measured { members, etcd } = &latest.measured;
    Json(json!({
        "at_ms": latest.at_ms,
        "findings": findings,
        "members": members.iter().map(member).collect::<Value>(),
        "etcd": etcd.iter().map(endpoint).collect::<Value>(),
    }))
}

fn member(m: &MemberNumbers) -> Value {
    json!({
        "node": m.node,
        "rtt_ms": tenths(m.rtt_ms),
        "skew_ms": tenths(m.skew_ms),
        "cpu_percent": m.burden.map(|b| tenths(b.cpu_percent)),
        "rss_bytes": m.burden.map(|b| b.rss_bytes),
        "headroom": m.burden.and_then(|b| b.headroom),
    })
}

fn endpoint(e: &EndpointNumbers) -> Value {
    json!({
        "endpoint": e.endpoint,
        "name": e.name,
        "is_leader": e.is_leader,
        "version": e.version,
        "fsync_p99_ms": e.fsync_p99_ms.map(tenths),
        "commit_p99_ms": e.commit_p99_ms.map(tenths),
        "db_bytes": e.db_bytes,
        "quota_bytes": e.quota_bytes,
    })
}
