//! `GET /api/v1/events`: every event of this node as it happens, as server-sent events.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::header;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use serde::Deserialize;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::HttpParts;
use crate::telemetry::metrics::limits::{Limit, Listener};

/// How often a quiet stream shows that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// The readers, the one that has followed for the longest first. Each may fall behind as far as the stream of events
/// reaches; then it is told how many it has missed. One that does not read at all cannot be told from one that reads a
/// quiet stream, so the first makes way when there are too many: a browser comes back by itself.
pub struct Readers {
    max: usize,
    present: Mutex<VecDeque<CancellationToken>>,
}

// === impl Readers ===

impl Readers {
    /// Room for so many.
    pub fn new(max: usize) -> Self {
        Self { max: max.max(1), present: Mutex::default() }
    }

    /// A place for a new reader: it ends when the token is cancelled, and is free when the guard is dropped. True:
    /// another had to make way.
    fn enter(&self) -> (CancellationToken, DropGuard, bool) {
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        present.retain(|reader| !reader.is_cancelled());
        let first = (present.len() >= self.max).then(|| present.pop_front()).flatten();
        let made_way = first.inspect(CancellationToken::cancel).is_some();
        let reader = CancellationToken::new();
        present.push_back(reader.clone());
        (reader.clone(), reader.drop_guard(), made_way)
    }
}

/// What a reader asks for.
#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    /// The last events too.
    #[serde(default)]
    recent: bool,
}

/// One message for each event, as `--events` prints it; an event `missed` says how many were lost. With `?recent=true`
/// the last events of this node come first.
pub(super) async fn events(State(parts): State<HttpParts>, Query(asked): Query<Asked>) -> Response {
    let (place, guard, made_way) = parts.readers.enter();
    if made_way {
        parts.telemetry.metrics().limit_reached(Listener::Http, Limit::Readers);
    }
    let events = match asked.recent {
        true => parts.telemetry.events_with_recent().left_stream(),
        false => parts.telemetry.events().right_stream(),
    };
    let messages = events.map(move |event| {
        let _taken = &guard;
        let message = match event {
            Ok(stamped) => Event::default().data(stamped.to_json().to_string()),
            Err(missed) => Event::default().event("missed").data(format!("{{\"missed\":{missed}}}")),
        };
        Ok::<_, Infallible>(message)
    });
    let messages = messages.take_until(place.cancelled_owned());
    let stream = Sse::new(messages).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    ([(header::CACHE_CONTROL, "no-store")], stream).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reader_that_came_first_makes_way_for_the_next() {
        let readers = Readers::new(2);
        let (first, _first, _) = readers.enter();
        let (second, gone, _) = readers.enter();
        drop(gone);
        let (third, _third, made_way) = readers.enter();
        assert!(second.is_cancelled() && !made_way, "a place that is free needs nobody to make way");
        let (_, _fourth, made_way) = readers.enter();
        assert!(made_way && first.is_cancelled() && !third.is_cancelled());
    }
}
