//! `GET /api/v1/checks`: what this node found when it last checked itself and its surroundings.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::HttpParts;
use crate::doctor::render;

/// The findings; none, and `at_ms` 0, before the first look.
pub(super) async fn checks(State(parts): State<HttpParts>) -> Json<Value> {
    let latest = parts.checks.borrow().clone();
    let findings: Vec<Value> = latest.findings.iter().map(render::finding_json).collect();
    Json(json!({ "at_ms": latest.at_ms, "findings": findings }))
}
