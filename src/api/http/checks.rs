//! `GET /api/v1/checks`: what this node found when it last checked itself and its surroundings.

use axum::Json;
use axum::extract::State;

use super::HttpParts;
use crate::api::view::checks::ChecksDocument;

/// The findings; none, and no time, before the first look.
pub(super) async fn checks(State(parts): State<HttpParts>) -> Json<ChecksDocument> {
    Json(ChecksDocument::of(&parts.checks.borrow()))
}
