//! How much of the lease was left at each renewal, as a series for the page: minimum and median of every ten
//! seconds, for a day, in memory.
//!
//! Pure: the time is an argument, in seconds since the Unix epoch, because it is for display only.

use std::collections::VecDeque;

/// The length of one step.
pub const STEP_SECS: u64 = 10;
/// How many steps are kept: a day.
const STEPS_MAX: usize = 8640;
/// How many values of one step count for its median: a leader renews at most ten times a second, and hedges.
const VALUES_MAX: usize = 512;
/// How many points are shown at most; beyond it, steps are put together.
pub const POINTS_MAX: usize = 1500;

/// The series.
#[derive(Debug, Default)]
pub struct Headroom {
    steps: VecDeque<Point>,
    /// The step that has not ended yet, and its values.
    open: u64,
    values: Vec<f32>,
    lowest: f32,
}

/// One step, or several put together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// When it began, in seconds since the Unix epoch.
    pub at_secs: u64,
    /// The least that was left, as a part of the lease.
    pub min: f32,
    /// The median.
    pub median: f32,
}

/// What is shown.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// The length of a step.
    pub step_secs: u64,
    /// In the order of time; steps without a renewal are missing.
    pub points: Vec<Point>,
}

// === impl Headroom ===

impl Headroom {
    /// A renewal was confirmed when so much of the lease was left. A clock that steps back changes no step that has
    /// ended.
    pub fn record(&mut self, now_secs: u64, ratio: f64) {
        let step = now_secs / STEP_SECS * STEP_SECS;
        if step > self.open {
            self.close();
            self.open = step;
        }
        let ratio = ratio as f32;
        self.lowest = if self.values.is_empty() { ratio } else { self.lowest.min(ratio) };
        if self.values.len() < VALUES_MAX {
            self.values.push(ratio);
        }
    }

    fn close(&mut self) {
        if let Some(point) = self.open_point() {
            if self.steps.len() == STEPS_MAX {
                self.steps.pop_front();
            }
            self.steps.push_back(point);
        }
        self.values.clear();
    }

    fn open_point(&self) -> Option<Point> {
        let median = median(&self.values)?;
        Some(Point { at_secs: self.open, min: self.lowest, median })
    }

    /// The steps of the last `since_secs`, the present one included, put together so that there are at most
    /// [`POINTS_MAX`].
    pub fn series(&self, now_secs: u64, since_secs: u64) -> Series {
        let since_secs = since_secs.clamp(STEP_SECS, STEPS_MAX as u64 * STEP_SECS);
        let from = now_secs.saturating_sub(since_secs);
        let all = self.steps.iter().copied().chain(self.open_point());
        let wanted: Vec<Point> = all.filter(|p| p.at_secs > from && p.at_secs <= now_secs).collect();
        // One point more than fits, because a span need not begin with a step.
        let together = (since_secs / STEP_SECS + 1).div_ceil(POINTS_MAX as u64).max(1);
        let step_secs = STEP_SECS * together;
        let same = |a: &Point, b: &Point| a.at_secs / step_secs == b.at_secs / step_secs;
        let points = wanted.chunk_by(same).map(|group| joined(group, step_secs)).collect();
        Series { step_secs, points }
    }
}

fn joined(group: &[Point], step_secs: u64) -> Point {
    let medians: Vec<f32> = group.iter().map(|p| p.median).collect();
    Point {
        at_secs: group[0].at_secs / step_secs * step_secs,
        min: group.iter().map(|p| p.min).fold(f32::INFINITY, f32::min),
        median: median(&medians).unwrap_or_default(),
    }
}

fn median(values: &[f32]) -> Option<f32> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f32::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_has_its_minimum_and_its_median() {
        let mut h = Headroom::default();
        for (at, ratio) in [(1_000, 0.9), (1_003, 0.2), (1_009, 0.8), (1_010, 0.7)] {
            h.record(at, ratio);
        }
        let expected = vec![
            Point { at_secs: 1_000, min: 0.2, median: 0.8 },
            Point { at_secs: 1_010, min: 0.7, median: 0.7 },
        ];
        assert_eq!(h.series(1_011, 60), Series { step_secs: 10, points: expected });
        assert_eq!(h.series(1_050, 45).points.len(), 1, "what is older is not asked for");
    }

    #[test]
    fn a_day_fits_and_no_more() {
        let mut h = Headroom::default();
        for at in (0..2 * 86_400).step_by(5) {
            h.record(at, 0.9);
        }
        assert_eq!(h.steps.len(), STEPS_MAX);
        let now = 2 * 86_400 - 1;
        let day = h.series(now, 86_400);
        assert!(day.points.len() <= POINTS_MAX && day.points.len() > POINTS_MAX / 2, "{}", day.points.len());
        assert_eq!(day.step_secs, 60);
        assert_eq!(h.series(now, u64::MAX), day, "no more than a day can be asked for");
        let hour = h.series(now, 3_600);
        assert_eq!((hour.step_secs, hour.points.len()), (10, 360));
    }

    #[test]
    fn the_least_of_all_survives_being_put_together() {
        let mut h = Headroom::default();
        for at in 0..86_400 {
            h.record(at, if at == 43_210 { 0.1 } else { 0.9 });
        }
        let lowest = h.series(86_400, 86_400).points.iter().map(|p| p.min).fold(1.0, f32::min);
        assert_eq!(lowest, 0.1);
    }

    #[test]
    fn a_clock_that_steps_back_changes_nothing_that_has_ended() {
        let mut h = Headroom::default();
        for (at, ratio) in [(1_000, 0.9), (1_010, 0.8), (900, 0.1), (1_020, 0.7)] {
            h.record(at, ratio);
        }
        let mins: Vec<f32> = h.series(1_025, 600).points.iter().map(|p| p.min).collect();
        assert_eq!(mins, [0.9, 0.1, 0.7]);
    }

    #[test]
    fn more_values_than_are_kept_still_count_for_the_minimum() {
        let mut h = Headroom::default();
        for _ in 0..2 * VALUES_MAX {
            h.record(100, 0.9);
        }
        h.record(101, 0.3);
        assert_eq!(h.values.len(), VALUES_MAX);
        assert_eq!(h.series(105, 60).points, [Point { at_secs: 100, min: 0.3, median: 0.9 }]);
    }
}
