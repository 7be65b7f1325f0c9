//! The history and the events, for those who ask over gRPC.

use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use tonic::Status;

use super::RpcParts;
use crate::api::view::tenure::HistoryDocument;
use crate::proto::metad::{EventsResponse, HistoryRequest, HistoryResponse};
use crate::telemetry::{Stamped, Telemetry};

/// The rows that are asked for.
pub(super) fn answer(parts: &RpcParts, request: &HistoryRequest) -> HistoryResponse {
    let (status, past, now) = (parts.driver.status(), parts.past.borrow().clone(), parts.clock.now());
    let since_ms = if request.since_ms == 0 { u64::MAX } else { request.since_ms };
    let limit = if request.limit == 0 { usize::MAX } else { request.limit as usize };
    HistoryDocument::of(&status, &past, now, since_ms, limit).into()
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
