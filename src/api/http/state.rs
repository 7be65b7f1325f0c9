//! `GET /api/v1/state`: everything that this node knows at the moment, in one document, for the page and for scripts.
//! `src/docs/http.md` explains each field.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, header};

use super::HttpParts;
use crate::api::view::node::{Endpoint, FailoverBudget, Lease, Process, StateDocument, StoreView};
use crate::api::view::{StatusDocument, Time};
use crate::telemetry::metrics::Usage;

/// The document.
pub(super) async fn state(
    State(parts): State<HttpParts>,
) -> ([(HeaderName, &'static str); 1], Json<StateDocument>) {
    ([(header::CACHE_CONTROL, "no-store")], Json(document(&parts)))
}

fn document(parts: &HttpParts) -> StateDocument {
    let (status, now) = (parts.driver.status(), parts.clock.now());
    let metrics = parts.telemetry.metrics();
    let endpoints = metrics.endpoints();
    StateDocument {
        status: StatusDocument::of(&status, &parts.look_command, metrics.members_gone(), now),
        time: Time::now(),
        lease: Lease::of(&status, now),
        failover_budget: status
            .known_leader(now)
            .filter(|_| status.freeze().is_none()) // then nobody would
            .map(|tenure| FailoverBudget::of(tenure, endpoints.values())),
        store: StoreView {
            kind: parts.store.as_str(),
            endpoints: endpoints.iter().map(|(url, look)| Endpoint::of(url, look)).collect(),
        },
        process: Process::from(Usage::now()),
    }
}
