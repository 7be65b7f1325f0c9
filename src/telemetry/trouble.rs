//! The store's bad times, said once: a line when they begin, one when they end, one every ten seconds between.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Event, Telemetry};
use crate::clock::{Clock, Instant, millis};

/// How often a trouble that goes on is repeated.
const REPEAT: Duration = Duration::from_secs(10);

/// What is known of the store's health.
pub struct Trouble {
    telemetry: Telemetry,
    clock: Arc<dyn Clock>,
    since: Mutex<Option<Since>>,
}

struct Since {
    began: Instant,
    said: Instant,
}

impl Trouble {
    /// Nothing is wrong yet.
    pub fn new(telemetry: Telemetry, clock: Arc<dyn Clock>) -> Self {
        Self { telemetry, clock, since: Mutex::default() }
    }

    /// Something failed.
    pub fn report(&self, what: &'static str, error: &impl ToString) {
        let now = self.clock.now();
        let mut since = self.since.lock().unwrap_or_else(|e| e.into_inner());
        let known = since.get_or_insert(Since { began: now, said: Instant::default() });
        if known.said == Instant::default() || now.since(known.said) >= REPEAT {
            known.said = now;
            self.telemetry.emit(Event::StoreTrouble { what, error: error.to_string() });
        }
    }

    /// A renewal or a read was answered.
    pub fn over(&self) {
        let mut since = self.since.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(known) = since.take() {
            let after_ms = millis(self.clock.now().since(known.began));
            self.telemetry.emit(Event::StoreRecovered { after_ms });
        }
    }
}
