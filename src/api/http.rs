//! The HTTP listener: probes, metrics, version, and the page. Nothing can be changed here.
//!
//! `/livez` never asks the store: an outage of etcd must not restart the fleet. Readiness is never leadership:
//! followers would never be ready, and a rolling update would hang. Handlers read the snapshot only.

mod authorize;
mod checks;
pub mod events;
mod headroom;
mod history;
pub mod hosts;
mod page;
mod state;

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::api::auth::{self, Gate, Security};
use crate::api::explain;
use crate::api::view::LeaderDocument;
use crate::clock::{Clock, parse_duration};
use crate::config::StoreKind;
use crate::diagnosis::checks::background::Latest;
use crate::driver::DriverHandle;
use crate::election::status::{Role, Status};
use crate::journal::Past;
use crate::limits::{self, Bounds, Guard, Kinds};
use crate::telemetry::Telemetry;
use events::Readers;
use hosts::Hosts;

/// A driver that has not moved for so long hangs.
const DRIVER_SILENCE_MAX: Duration = Duration::from_secs(5);

/// What the handlers need.
#[derive(Clone)]
pub struct HttpParts {
    /// The driver's snapshot.
    pub driver: DriverHandle,
    /// The history.
    pub past: watch::Receiver<Arc<Past>>,
    /// The command that looks at the keys of the election.
    pub look_command: Arc<str>,
    /// The clock, for ages.
    pub clock: Arc<dyn Clock>,
    /// The metrics.
    pub telemetry: Telemetry,
    /// Where the leader record lives.
    pub store: StoreKind,
    /// What the background checks found last.
    pub checks: watch::Receiver<Arc<Latest>>,
    /// The readers of the events.
    pub readers: Arc<Readers>,
    /// The names that may be asked for.
    pub hosts: Arc<Hosts>,
}

/// One thing that a probe looks at.
struct Check {
    name: &'static str,
    fault: Option<String>,
}

/// Serves until `stop` resolves.
pub async fn serve(
    listener: TcpListener,
    parts: HttpParts,
    bounds: Bounds,
    security: Security,
    stop: impl Future<Output = ()> + Send + 'static,
) {
    let kinds = Kinds { is_probe, is_metered: |_| true, is_costly };
    let guard = Guard::new(bounds, parts.clock.clone(), parts.telemetry.clone(), kinds);
    let gate = Gate::new(auth::of_path, security.access, guard.clone(), parts.clock.clone());
    let router = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/healthz", get(livez))
        .route("/leader", get(leader))
        .route("/metrics", get(metrics))
        .route("/version", get(version))
        .route("/api/v1/history", get(history::history))
        .route("/api/v1/events", get(events::events))
        .route("/api/v1/headroom", get(headroom::headroom))
        .route("/api/v1/state", get(state::state))
        .route("/explain", get(async || explain::list()))
        .route("/explain/{code}", get(explained))
        .merge(page::routes())
        .route("/api/v1/checks", get(checks::checks))
        .layer(from_fn_with_state(gate, authorize::check))
        .layer(from_fn_with_state(parts.clone(), hosts::check))
        .layer(map_response(harden))
        .with_state(parts);
    limits::serve(listener, router, guard, security.tls, stop).await;
}

/// What tells nothing but whether this node is well, and is asked for by machines.
fn is_probe(path: &str) -> bool {
    matches!(path, "/livez" | "/readyz" | "/healthz")
}

/// What is made anew for each request.
fn is_costly(path: &str) -> bool {
    path == "/metrics" || path.starts_with("/api/")
}

/// Scripts, styles, images and data from this node alone, nobody may frame it, and nothing is taken for what it does
/// not say that it is. In every answer, refusals included.
async fn harden(mut answer: Response) -> Response {
    const POLICY: &str = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let fixed = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in fixed {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

async fn explained(Path(code): Path<String>) -> (StatusCode, String) {
    match explain::of(&code) {
        Some(text) => (StatusCode::OK, text),
        None => {
            (StatusCode::NOT_FOUND, "no check, no reason and no exit code; /explain lists them\n".to_owned())
        }
    }
}

async fn livez(State(parts): State<HttpParts>, Query(query): Query<HashMap<String, String>>) -> Response {
    probe("livez", vec![driver_moves(&parts)], &query)
}

async fn readyz(State(parts): State<HttpParts>, Query(query): Query<HashMap<String, String>>) -> Response {
    let status = parts.driver.status();
    let checks = vec![driver_moves(&parts), takes_part(&status), store_answers(&parts, &status)];
    probe("readyz", checks, &query)
}

/// 200 on the leader, 503 elsewhere, with the same document; for load balancers (HEAD works too).
async fn leader(State(parts): State<HttpParts>) -> Response {
    let status = parts.driver.status();
    let leads =
        status.role == Role::Leader && status.holds_until.is_some_and(|h| !parts.clock.now().reached(h));
    let code = if leads { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(LeaderDocument::of(&status, &parts.look_command, parts.clock.now()))).into_response()
}

/// OpenMetrics for those who say that they know it, as Prometheus does.
async fn metrics(State(parts): State<HttpParts>, headers: HeaderMap) -> Response {
    let accepted = headers.get(header::ACCEPT).and_then(|a| a.to_str().ok()).unwrap_or_default();
    let (kind, page) = if accepted.contains("application/openmetrics-text") {
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        (kind, parts.telemetry.metrics().render())
    } else {
        ("text/plain; version=0.0.4; charset=utf-8", parts.telemetry.metrics().render_classic())
    };
    ([(header::CONTENT_TYPE, kind)], page).into_response()
}

/// How far back a request wants to see; `Err`: the answer to one that cannot be read.
fn since(query: &HashMap<String, String>) -> Result<Option<Duration>, (StatusCode, String)> {
    let refusal = |why: String| (StatusCode::BAD_REQUEST, format!("since: {why}\n"));
    query.get("since").map(|text| parse_duration(text)).transpose().map_err(refusal)
}

async fn version() -> Json<Value> {
    Json(json!({ "name": "metad", "version": env!("CARGO_PKG_VERSION") }))
}

// === checks ===

fn driver_moves(parts: &HttpParts) -> Check {
    let silent = parts.clock.now().since(parts.driver.ticked_at());
    let fault = (silent > DRIVER_SILENCE_MAX).then(|| format!("the driver made no progress for {silent:?}"));
    Check { name: "driver", fault }
}

fn takes_part(status: &Status) -> Check {
    let fault = (!status.role.is_ready()).then(|| format!("this node is {}", status.role.as_str()));
    Check { name: "election", fault }
}

fn store_answers(parts: &HttpParts, status: &Status) -> Check {
    let now = parts.clock.now();
    let age = now.since(status.confirmed_at);
    let fault = status.is_outdated(now).then(|| format!("the store has confirmed nothing for {age:?}"));
    Check { name: "store", fault }
}

/// The form that etcd's and Kubernetes' probes have.
fn probe(name: &str, checks: Vec<Check>, query: &HashMap<String, String>) -> Response {
    let excluded = query.get("exclude").map(String::as_str).unwrap_or_default();
    let checks: Vec<Check> = checks.into_iter().filter(|c| c.name != excluded).collect();
    let failed = checks.iter().any(|c| c.fault.is_some());
    let code = if failed { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    let mut text = String::new();
    for check in checks.iter().filter(|_| failed || query.contains_key("verbose")) {
        match &check.fault {
            None => text.push_str(&format!("[+]{} ok\n", check.name)),
            Some(fault) => text.push_str(&format!("[-]{} failed: {fault}\n", check.name)),
        }
    }
    text.push_str(&if failed { format!("{name} check failed\n") } else { "ok\n".to_owned() });
    (code, text).into_response()
}
