//! A worker that is known by its host, or by host and port, acts for itself alone.

use tonic::Status;

use super::{RpcParts, authorize, refuse};
use crate::api::auth::{AccessRole, Caller};
use crate::meta::request_queue::Request;
use crate::meta::workers::{UnknownWorker, WorkerId, WorkerSpec};

/// May this caller be this worker?
///
/// # Errors
/// PERMISSION_DENIED.
pub(super) fn check_spec(caller: &Caller, spec: &WorkerSpec) -> Result<(), Status> {
    let address = match spec.host.contains(':') {
        true => format!("[{}]:{}", spec.host, spec.port),
        false => format!("{}:{}", spec.host, spec.port),
    };
    let is_it = |name: &str| name == spec.host || name == address;
    let checked =
        caller.check_name(AccessRole::Worker, is_it, &format!("may not act for the worker at {address}"));
    checked.map_err(|denied| authorize::refusal(&denied))
}

/// May this caller act for the worker with this id? Costs a look at the registry only if the caller is bound to a name.
///
/// # Errors
/// PERMISSION_DENIED; NOT_FOUND: there is no such worker.
pub(super) async fn check_id(parts: &RpcParts, caller: &Caller, id: WorkerId) -> Result<(), Status> {
    if !caller.is_bound(AccessRole::Worker) {
        return Ok(());
    }
    let before = WorkerId(id.0.saturating_sub(1));
    let asked = parts.requests.ask(|reply| Request::List(before, 1, reply)).await;
    let listing = asked.map_err(|e| refuse::queue(parts, e))?;
    match listing.workers.first().filter(|worker| worker.id == id) {
        Some(worker) => check_spec(caller, &worker.spec),
        None => Err(refuse::unknown(&UnknownWorker(id))),
    }
}
