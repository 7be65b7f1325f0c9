//! The history and the events, for those who ask over gRPC.

use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use tonic::Status;

use super::RpcParts;
use crate::api::view::tenure::{HistoryDocument, Selection};
use crate::proto::metad::{EventsResponse, HistoryResponse};
use crate::telemetry::{Stamped, Telemetry};

/// The rows that are asked for.
pub(super) fn answer(parts: &RpcParts, asked: Selection) -> HistoryResponse {
    let (status, past, now) = (parts.driver.status(), parts.past.borrow().clone(), parts.clock.now());
    HistoryDocument::of(&status, &past, now, asked).into()
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
