//! `GET /api/v1/headroom?since=1h`: how much of the lease was left at each renewal, for the page.

use std::collections::HashMap;
use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};

use super::{HttpParts, since};
use crate::api::view::headroom::HeadroomDocument;

/// What is shown unless something else is asked for.
const SINCE: Duration = Duration::from_secs(3600);

/// The series.
pub(super) async fn headroom(
    State(parts): State<HttpParts>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let series = since(&query).map(|since| parts.telemetry.headroom(since.unwrap_or(SINCE)));
    series.map(|series| Json(HeadroomDocument::of(&series))).into_response()
}
