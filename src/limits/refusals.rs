//! Who was refused, told as events. A stranger that is refused a thousand times a second must not fill the log.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::rate::Rate;
use crate::clock::Instant;
use crate::telemetry::{Event, Telemetry};

/// How often a refusal is told.
const EVERY: Duration = Duration::from_secs(1);
/// How many are told in a row after a while without.
const BURST: u32 = 10;
/// How much of a stranger's own words is told.
const CHARS_MAX: usize = 200;

/// Tells of refusals.
pub struct Refusals {
    telemetry: Telemetry,
    rate: Rate,
    left_out: AtomicU64,
}

// === impl Refusals ===

impl Refusals {
    pub(super) fn new(telemetry: Telemetry) -> Self {
        Self { telemetry, rate: Rate::new(EVERY, BURST), left_out: AtomicU64::new(0) }
    }

    /// This was refused, and why; both name who asked. The next event says how many were left out before it.
    pub fn tell(&self, now: Instant, what: &str, why: &str) {
        if !self.rate.allows(now) {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let left_out = self.left_out.swap(0, Ordering::Relaxed);
        self.telemetry.emit(Event::CallRefused { what: clipped(what), why: clipped(why), left_out });
    }
}

fn clipped(text: &str) -> String {
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_counted_and_what_is_told_is_short() {
        let telemetry = Telemetry::new("n", std::sync::Arc::new(crate::clock::OsClock), None);
        let refusals = Refusals::new(telemetry);
        let at = |secs: u64| Instant::from_millis(1_000_000 + secs * 1000);
        for _ in 0..BURST + 7 {
            refusals.tell(at(0), "x", "y");
        }
        assert_eq!(refusals.left_out.load(Ordering::Relaxed), 7);
        refusals.tell(at(60), "x", "y");
        assert_eq!(refusals.left_out.load(Ordering::Relaxed), 0, "told with the next");
        assert_eq!(clipped(&"é".repeat(300)).chars().count(), CHARS_MAX + 1);
        assert_eq!(clipped("short"), "short");
    }
}
