//! How much of the lease was left at each renewal.

use serde::Serialize;

use super::SchemaVersion;
use crate::telemetry::headroom::Series;

/// The series, for charts: `/api/v1/headroom`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HeadroomDocument {
    /// The form of this document.
    pub schema_version: SchemaVersion,
    /// The length of a step.
    pub step_secs: u64,
    /// Oldest first: the step's beginning, the least and the median part of the lease that was left. A chart counts in
    /// numbers, so the beginning is one too: seconds since the Unix epoch. Steps without a renewal are missing.
    pub points: Vec<(u64, f64, f64)>,
}

// === impl HeadroomDocument ===

impl HeadroomDocument {
    /// The series that this node has recorded.
    pub fn of(series: &Series) -> Self {
        // Three digits are more than a chart shows.
        let short = |x: f32| (f64::from(x) * 1000.0).round() / 1000.0;
        let points = series.points.iter().map(|p| (p.at_secs, short(p.min), short(p.median)));
        Self { schema_version: SchemaVersion, step_secs: series.step_secs, points: points.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::headroom::Point;

    #[test]
    fn a_point_is_three_numbers() {
        let points = vec![Point { at_secs: 1_700_000_000, min: 0.1, median: 0.9333 }];
        let shown = serde_json::to_string(&HeadroomDocument::of(&Series { step_secs: 10, points })).unwrap();
        assert_eq!(shown, r#"{"schema_version":1,"step_secs":10,"points":[[1700000000,0.1,0.933]]}"#);
    }
}
