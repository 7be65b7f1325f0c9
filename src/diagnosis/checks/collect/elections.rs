//! etcd's own elections, as its members count them, over a while: they are too rare to be judged from one look to the
//! next.

use std::collections::VecDeque;
use std::time::Duration;

use super::super::facts::ELECTIONS_WINDOW;
use super::super::page::{Etcd, LEADER_CHANGES};
use crate::clock::Instant;

/// Looks that are closer together are not kept apart.
const STEP: Duration = Duration::from_secs(15);

/// What each endpoint had counted at the looks of the last [`ELECTIONS_WINDOW`]. As many as it has steps, and two.
#[derive(Debug, Default)]
pub(super) struct Elections {
    looks: VecDeque<(Instant, Vec<Option<f64>>)>,
}

// === impl Elections ===

impl Elections {
    /// The pages of all endpoints, in their order.
    pub(super) fn note(&mut self, now: Instant, pages: &[Result<Etcd, String>]) {
        let counted = pages.iter().map(|page| page.as_ref().ok()?.number(LEADER_CHANGES)).collect();
        self.add(now, counted);
    }

    fn add(&mut self, now: Instant, counted: Vec<Option<f64>>) {
        let len = self.looks.len();
        if len >= 2 && self.looks[len - 1].0.since(self.looks[len - 2].0) < STEP {
            self.looks.pop_back();
        }
        self.looks.push_back((now, counted));
        // The one before the window is where its growth begins.
        while self.looks.get(1).is_some_and(|(at, _)| now.since(*at) >= ELECTIONS_WINDOW) {
            self.looks.pop_front();
        }
    }

    /// How many elections the endpoint has seen that saw most of them, and in how long.
    pub(super) fn growth(&self) -> Option<(f64, Duration)> {
        let (first, last) = (self.looks.front()?, self.looks.back()?);
        let most = (0..last.1.len()).filter_map(|i| self.seen_by(i)).max_by(f64::total_cmp)?;
        Some((most, last.0.since(first.0)))
    }

    /// A member that has restarted begins at 0 again, and counts the leader that it finds.
    fn seen_by(&self, endpoint: usize) -> Option<f64> {
        let mut counted = self.looks.iter().filter_map(|(_, all)| *all.get(endpoint)?);
        let mut before = counted.next()?;
        let mut grown = None;
        for now in counted {
            let more = if now >= before { now - before } else { (now - 1.0).max(0.0) };
            grown = Some(grown.unwrap_or(0.0) + more);
            before = now;
        }
        grown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(looks: &[(u64, [Option<f64>; 2])]) -> Elections {
        let mut elections = Elections::default();
        for (secs, counted) in looks {
            elections.add(Instant::from_millis(secs * 1000), counted.to_vec());
        }
        elections
    }

    #[test]
    fn elections_are_added_up_over_a_quarter_of_an_hour() {
        let one = [Some(5.0), None];
        assert_eq!(after(&[(0, one)]).growth(), None, "one look shows no growth");
        let growth = |looks: &[_]| after(looks).growth().map(|(n, _)| n);
        assert_eq!(
            growth(&[(0, one), (60, [Some(6.0), Some(3.0)]), (120, [Some(7.0), Some(3.0)])]),
            Some(2.0)
        );
        assert_eq!(
            growth(&[(0, one), (60, [None, None]), (120, [Some(2.0), None])]),
            Some(1.0),
            "it restarted"
        );
        let minutes: Vec<_> = (0..60).map(|i| (i * 60, [Some(i as f64), None])).collect();
        assert_eq!(after(&minutes).growth(), Some((15.0, ELECTIONS_WINDOW)), "what is older does not count");
    }

    #[test]
    fn however_often_it_looks_it_keeps_a_bounded_number() {
        let looks: Vec<_> = (0..10_000).map(|i| (i, [Some(i as f64 / 100.0), None])).collect();
        let elections = after(&looks);
        assert!(elections.looks.len() <= 62, "{}", elections.looks.len());
        let (n, window) = elections.growth().unwrap();
        assert!((8.9..9.4).contains(&n) && window >= ELECTIONS_WINDOW, "{n} in {window:?}");
    }
}
