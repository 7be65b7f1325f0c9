//! `GET /api/v1/history?since=24h`: who led when, and why each tenure ended.

use std::collections::HashMap;
use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};

use super::{HttpParts, since};
use crate::api::view::tenure::{HistoryDocument, Selection};
use crate::clock::millis;

/// Oldest first. Without `since`: all that is kept.
pub(super) async fn history(
    State(parts): State<HttpParts>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let since = match since(&query) {
        Ok(since) => since.unwrap_or(Duration::MAX),
        Err(refusal) => return refusal.into_response(),
    };
    let (status, past, now) = (parts.driver.status(), parts.past.borrow().clone(), parts.clock.now());
    Json(HistoryDocument::of(&status, &past, now, Selection::since(millis(since)))).into_response()
}
