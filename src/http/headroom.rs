//! `GET /api/v1/headroom?since=1h`: how much of the lease was left at each renewal, for the page.

use std::collections::HashMap;
use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::HttpParts;
use crate::telemetry::headroom::Series;

/// What is shown unless something else is asked for.
const SINCE: Duration = Duration::from_secs(3600);

/// Points of `[unix seconds, minimum, median]`, oldest first; steps without a renewal are missing.
pub(super) async fn headroom(
    State(parts): State<HttpParts>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    match query.get("since").map_or(Ok(SINCE), |since| duration(since)) {
        Ok(since) => Json(document(&parts.telemetry.headroom(since))).into_response(),
        Err(why) => (StatusCode::BAD_REQUEST, format!("{why}\n")).into_response(),
    }
}

/// A span of time as people write it; a day has 24 hours.
fn duration(text: &str) -> Result<Duration, String> {
    let span = text.parse::<jiff::Span>().ok();
    let signed = span.and_then(|s| s.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok());
    let read = signed.and_then(|d| Duration::try_from(d).ok());
    read.filter(|d| !d.is_zero())
        .ok_or_else(|| format!("since={text:?} is no span of time\nfix: write one such as 30m, 1h or 24h"))
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
    fn spans_are_read_as_people_write_them() {
        for (text, secs) in [("1h", 3600), ("90s", 90), ("24h", 86_400), ("1h 30m", 5400), ("30d", 2_592_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_secs(secs)), "{text}");
        }
        for text in ["", "1", "an hour", "-1h", "0s", "1h;", "99999999999999999999h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_point_is_three_numbers() {
        let points = vec![Point { at_secs: 1_700_000_000, min: 0.1, median: 0.9333 }];
        let shown = document(&Series { step_secs: 10, points }).to_string();
        assert_eq!(shown, r#"{"points":[[1700000000,0.1,0.933]],"step_secs":10}"#);
    }
}
