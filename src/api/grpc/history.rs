//! The history and the events, for those who ask over gRPC.

use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use tonic::Status;

use super::{RpcParts, requests};
use crate::api::view::tenure::{HistoryDocument, Selection};
use crate::proto::metad::{EventsResponse, HistoryRequest, HistoryResponse};
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

/// The tenures that are asked for.
///
/// # Errors
/// INVALID_ARGUMENT.
pub fn checked_history(request: &HistoryRequest) -> Result<Selection, Status> {
    let HistoryRequest { since_ms, limit, page_token } = request;
    Ok(Selection {
        since_ms: if *since_ms == 0 { u64::MAX } else { *since_ms },
        before: requests::page(page_token)?.unwrap_or(u64::MAX),
        limit: usize::try_from(*limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX),
    })
}
