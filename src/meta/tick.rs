//! The tick: one fenced key, written again and again, where `meta.tick_interval_ms` asks for it.

use std::time::Duration;

use crate::driver::leadership::Leadership;
use crate::driver::main_loop::MainLoopEnd;
use crate::election::record::Revision;
use crate::protocol::writes::WriteError;

/// The key under `state/`.
const TICK_KEY: &str = "tick";

/// Writes the tick.
#[derive(Clone, Copy, Debug)]
pub struct TickLoop {
    /// How often.
    pub interval: Duration,
}

// === impl TickLoop ===

impl TickLoop {
    /// Never ends: once leadership is over it waits to be dropped.
    pub(super) async fn tick_until_fenced(self, leadership: &Leadership) -> MainLoopEnd {
        let mut tick: u64 = 0;
        let mut at: Option<Revision> = None;
        let mut timer = tokio::time::interval(self.interval);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            timer.tick().await;
            tick += 1;
            match write_tick(leadership, tick, at).await {
                Ok(revision) => at = Some(revision),
                // Somebody else wrote our key (by hand): look again at the next tick.
                Err(WriteError::Conflict { .. }) => at = None,
                // Over: wait to be told, so that there is one way to end.
                Err(WriteError::Lost(_) | WriteError::Fenced(_)) => std::future::pending().await,
                // The next one is soon.
                Err(WriteError::Busy(why)) => tracing::debug!(why, "the tick was not written"),
                Err(e) => tracing::warn!(error = %e, "the tick was not written"),
            }
        }
    }
}

async fn write_tick(
    leadership: &Leadership,
    tick: u64,
    at: Option<Revision>,
) -> Result<Revision, WriteError> {
    let expected = match at {
        Some(revision) => revision,
        None => leadership.get(TICK_KEY).await?.map_or(Revision(0), |(_, revision)| revision),
    };
    let value =
        serde_json::json!({ "token": leadership.token().get(), "node": leadership.node(), "tick": tick });
    leadership.put(TICK_KEY, value.to_string().into_bytes(), expected).await
}
