//! The history and the events, for those who ask over gRPC.

use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use tonic::Status;

use super::{RpcParts, convert};
use crate::clock::{millis, wall_clock_ms};
use crate::proto::metad::{EventsResponse, HistoryRequest, HistoryResponse};
use crate::telemetry::{Stamped, Telemetry};

/// The rows that are asked for.
pub(super) fn answer(parts: &RpcParts, request: &HistoryRequest) -> HistoryResponse {
    let (status, past, now) = (parts.driver.status(), parts.past.borrow().clone(), parts.clock.now());
    let since_ms = if request.since_ms == 0 { u64::MAX } else { request.since_ms };
    let limit = if request.limit == 0 { usize::MAX } else { request.limit as usize };
    let newest = past.since(wall_clock_ms(), since_ms).rev().take(limit);
    let mut tenures: Vec<_> = newest.map(|row| convert::tenure(row)).collect();
    tenures.reverse();
    let answerer = Some(convert::answerer(&status, now));
    HistoryResponse { tenures, age_ms: past.age(now).map(millis), answerer }
}

/// All events from now on.
pub(super) fn events(
    telemetry: &Telemetry,
) -> impl Stream<Item = Result<EventsResponse, Status>> + Send + use<> {
    telemetry.events().map(|event| Ok(message(event)))
}

fn message(event: Result<Arc<Stamped>, u64>) -> EventsResponse {
    match event {
        Ok(stamped) => EventsResponse {
            r#type: stamped.event.kind().to_owned(),
            json: stamped.to_json().to_string(),
            missed: 0,
        },
        Err(missed) => EventsResponse { missed, ..EventsResponse::default() },
    }
}
