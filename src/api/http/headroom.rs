//! `GET /api/v1/headroom?since=1h`: how much of the lease was left at each renewal, for the page.

use std::collections::HashMap;
use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::{HttpParts, since};
use crate::telemetry::headroom::Series;

/// What is shown unless something else is asked for.
const SINCE: Duration = Duration::from_secs(3600);

/// Points of `[unix seconds, minimum, median]`, oldest first; steps without a renewal are missing.
pub(super) async fn headroom(
    State(parts): State<HttpParts>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    match since(&query) {
        Ok(since) => Json(document(&parts.telemetry.headroom(since.unwrap_or(SINCE)))).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

fn document(series: &Series) -> Value {
    // Three digits are more than a chart shows.
    let short = |x: f32| (f64::from(x) * 1000.0).round() / 1000.0;
    let points = series.points.iter().map(|p| json!([p.at_secs, short(p.min), short(p.median)]));
    json!({ "step_secs": series.step_secs, "points": points.collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::headroom::Point;

    #[test]
    fn a_point_is_three_numbers() {
        let points = vec![Point { at_secs: 1_700_000_000, min: 0.1, median: 0.9333 }];
        let shown = document(&Series { step_secs: 10, points }).to_string();
        assert_eq!(shown, r#"{"points":[[1700000000,0.1,0.933]],"step_secs":10}"#);
    }
}
