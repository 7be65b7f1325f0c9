//! `GET /api/v1/events`: every event of this node as it happens, as server-sent events.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;

use super::HttpParts;

/// How many readers there may be at once. Each may fall behind as far as the stream of events reaches; then it is
/// told how many it has missed.
const READERS_MAX: usize = 64;
/// How often a quiet stream shows that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

static READERS: AtomicUsize = AtomicUsize::new(0);

/// One of the readers; its place is free again when this is dropped.
struct Place;

// === impl Place ===

impl Place {
    fn take() -> Option<Self> {
        let taken = READERS.fetch_add(1, Ordering::Relaxed);
        let place = Place; // from here on it is given back
        (taken < READERS_MAX).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        READERS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One message for each event, as `--events` prints it; an event `missed` says how many were lost.
pub(super) async fn events(State(parts): State<HttpParts>) -> Response {
    let Some(place) = Place::take() else {
        let why = format!("{READERS_MAX} readers follow the events of this node already; close one\n");
        return (StatusCode::SERVICE_UNAVAILABLE, why).into_response();
    };
    let messages = parts.telemetry.events().map(move |event| {
        let _taken = &place;
        let message = match event {
            Ok(stamped) => Event::default().data(stamped.to_json().to_string()),
            Err(missed) => Event::default().event("missed").data(format!("{{\"missed\":{missed}}}")),
        };
        Ok::<_, Infallible>(message)
    });
    let stream = Sse::new(messages).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    ([(header::CACHE_CONTROL, "no-store")], stream).into_response()
}
