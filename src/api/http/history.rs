//! `GET /api/v1/history?since=24h`: who led when, and why each tenure ended.

use std::collections::HashMap;
use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::{HttpParts, since};
use crate::clock::{millis, wall_clock_ms};
use crate::journal::row_json;

/// Oldest first. Without `since`: all that is kept.
pub(super) async fn history(
    State(parts): State<HttpParts>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let since = match since(&query) {
        Ok(since) => since.unwrap_or(Duration::MAX),
        Err(refusal) => return refusal.into_response(),
    };
    let (past, now) = (parts.past.borrow().clone(), parts.clock.now());
    let since_ms = millis(since);
    let tenures: Value = past.since(wall_clock_ms(), since_ms).map(|row| row_json(row)).collect();
    let age_ms = past.age(now).map(millis);
    Json(json!({ "tenures": tenures, "age_ms": age_ms })).into_response()
}
