//! The main loop: what a leader does while it leads.
//!
//! It exists only while a [`Leadership`] does, checks it before every effect, and writes only through it. This
//! module must not know how leadership is won.

pub mod barrier;
pub mod codec;
pub mod payload;
pub mod watchdog;
pub mod workers;

use std::time::Duration;

use crate::driver::leadership::{Leadership, WriteError};
use crate::driver::tenure::{BoxFuture, MainLoop, MainLoopEnd};
use crate::election::record::Revision;

/// The key that the built-in loop writes at each tick.
const TICK_KEY: &str = "tick";

/// How often the built-in loop says that it lives.
const SIGN_OF_LIFE_INTERVAL: Duration = Duration::from_secs(1);

/// The built-in main loop: at each tick it writes one fenced key, so that everybody can see who leads.
#[derive(Clone, Copy, Debug)]
pub struct TickLoop {
    /// How often.
    pub interval: Duration,
}

/// A caller's own asynchronous main loop.
pub struct FnLoop<F>(pub F);

// === impl TickLoop ===

impl TickLoop {
    async fn run(self, leadership: Leadership) -> MainLoopEnd {
        tokio::select! {
            biased;
            _ = leadership.lost() => MainLoopEnd::default(),
            end = self.tick_until_fenced(&leadership) => end,
            // Apart from the ticks: one that waits for a store that is away is no hang.
            end = give_signs_of_life(&leadership) => end,
        }
    }

    async fn tick_until_fenced(self, leadership: &Leadership) -> MainLoopEnd {
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
                Err(e) => tracing::warn!(error = %e, "the tick was not written"),
            }
        }
    }
}

async fn give_signs_of_life(leadership: &Leadership) -> MainLoopEnd {
    let mut timer = tokio::time::interval(SIGN_OF_LIFE_INTERVAL);
    loop {
        timer.tick().await;
        leadership.heartbeat();
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

impl MainLoop for TickLoop {
    fn run(self: Box<Self>, leadership: Leadership) -> BoxFuture<MainLoopEnd> {
        Box::pin((*self).run(leadership))
    }
}

// === impl FnLoop ===

impl<F, Fut> MainLoop for FnLoop<F>
where
    F: FnOnce(Leadership) -> Fut + Send + 'static,
    Fut: Future<Output = MainLoopEnd> + Send + 'static,
{
    fn run(self: Box<Self>, leadership: Leadership) -> BoxFuture<MainLoopEnd> {
        Box::pin((self.0)(leadership))
    }
}
