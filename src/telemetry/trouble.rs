//! The store's bad times, said once: a line when they begin, one when they end, one every ten seconds between.

use std::time::Duration;

use crate::clock::Instant;

/// How often a trouble that goes on is repeated.
const REPEAT: Duration = Duration::from_secs(10);

/// A bad time, if there is one.
#[derive(Debug, Default)]
pub(super) struct Trouble(Option<Since>);

#[derive(Debug)]
struct Since {
    began: Instant,
    said: Instant,
}

// === impl Trouble ===

impl Trouble {
    /// Something failed. Is it to be said?
    pub(super) fn is_to_be_said(&mut self, now: Instant) -> bool {
        match &mut self.0 {
            Some(since) if now.since(since.said) < REPEAT => false,
            Some(since) => {
                since.said = now;
                true
            }
            None => {
                self.0 = Some(Since { began: now, said: now });
                true
            }
        }
    }

    /// Something worked. How long the bad time has lasted, if it ends here.
    pub(super) fn over(&mut self, now: Instant) -> Option<Duration> {
        self.0.take().map(|since| now.since(since.began))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Instant {
        Instant::from_millis(secs * 1000)
    }

    #[test]
    fn a_bad_time_is_said_when_it_begins_and_every_ten_seconds() {
        let mut trouble = Trouble::default();
        assert_eq!(trouble.over(at(1)), None, "there was none");
        let said: Vec<u64> = (2..30).filter(|secs| trouble.is_to_be_said(at(*secs))).collect();
        assert_eq!(said, [2, 12, 22]);
        assert_eq!(trouble.over(at(30)), Some(Duration::from_secs(28)));
        assert_eq!(trouble.over(at(31)), None, "said once");
        assert!(trouble.is_to_be_said(at(32)), "another one");
    }
}
