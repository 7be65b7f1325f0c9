//! Refusals as gRPC statuses: what only the leader can do is refused with the way to the leader.

use std::fmt;
use std::time::Duration;

use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use super::RpcParts;
use crate::driver::Busy;
use crate::driver::leadership::WriteError;
use crate::driver::status::{self, Role};
use crate::election::record::{Revision, Token};
use crate::meta::request_queue::{QueueError, Refused};
use crate::meta::workers::{RegisterError, UnknownWorker};

/// This member does not lead; the metadata `metad-leader` and `metad-token` name who does.
pub(super) fn not_the_leader(status: &status::Status) -> Status {
    let Some(tenure) = status.leader() else {
        return Status::failed_precondition("there is no leader at the moment");
    };
    let mut metadata = MetadataMap::new();
    if let Ok(address) = tenure.record.address.parse() {
        metadata.insert("metad-leader", address);
    }
    metadata.insert("metad-token", tenure.token.get().into());
    let (holder, address) = (&tenure.record.holder.node, &tenure.record.address);
    let message = format!("{} does not lead; {holder} at {address} does", status.me.node);
    Status::with_metadata(Code::FailedPrecondition, message, metadata)
}

/// The tenure that was to end is over; this member leads under another token.
pub(super) fn another_token(token: Token, expected: u64) -> Status {
    Status::failed_precondition(format!("the leader's token is {token}, not {expected}; nothing was changed"))
}

/// The driver has no room for another command.
pub(super) fn busy(error: Busy) -> Status {
    Status::resource_exhausted(error.to_string())
}

/// There were too many of these.
pub(super) fn too_often(what: &str, every: Duration) -> Status {
    Status::resource_exhausted(format!(
        "{what} is accepted once in {every:?}; nothing was changed, try again"
    ))
}

/// Nobody took the request.
pub(super) fn queue(parts: &RpcParts, error: QueueError) -> Status {
    let status = parts.driver.status();
    match error {
        QueueError::Full => Status::resource_exhausted(error.to_string()),
        QueueError::Closed if !matches!(status.role, Role::Leader | Role::Starting) => {
            not_the_leader(&status)
        }
        QueueError::Closed if parts.serves_cluster => {
            let mut status =
                Status::unavailable("this member leads, but its main loop is just starting; try again");
            status.metadata_mut().insert("metad-done", MetadataValue::from_static("no"));
            status
        }
        QueueError::Closed => Status::unimplemented(
            "this member's main loop is not the built-in one: it keeps no workers and sends no barriers",
        ),
    }
}

/// The main loop did not do it.
pub(super) fn refused(parts: &RpcParts, error: &Refused) -> Status {
    match error {
        Refused::Register(e @ RegisterError::Spec(_)) => Status::invalid_argument(e.to_string()),
        Refused::Register(e) => Status::resource_exhausted(e.to_string()),
        Refused::Unknown(e) => unknown(e),
        Refused::Write(e) => write(parts, e),
    }
}

/// No such worker.
pub(super) fn unknown(error: &UnknownWorker) -> Status {
    Status::not_found(error.to_string())
}

/// Nothing can be told of what has not happened: this revision is not of this store, or it has gone back in time.
pub(super) fn future(after: Revision, now: Revision) -> Status {
    let start = after.0.saturating_add(1);
    Status::out_of_range(format!("revision {start} lies in the future: the store is at {now}; read again"))
}

/// A watch of the state has ended, perhaps because the store has forgotten what it would have to tell.
pub(super) fn broken_watch(error: impl fmt::Display, is_forgotten: bool) -> Status {
    let code = if is_forgotten { Code::OutOfRange } else { Code::Aborted };
    Status::new(code, format!("the watch has broken ({error}); read and watch again"))
}

/// The store did not do it. FAILED_PRECONDITION: because of leadership. ABORTED: because of another condition.
/// UNKNOWN: leadership ended while it was under way, so it may have been done.
pub(super) fn write(parts: &RpcParts, error: &WriteError) -> Status {
    let message = error.to_string();
    match error {
        WriteError::Lost(_) | WriteError::Fenced(_) => {
            let status = parts.driver.status();
            match status.role {
                Role::Leader => Status::failed_precondition(message),
                _ => not_the_leader(&status),
            }
        }
        WriteError::Unknown(_) => Status::unknown(message),
        WriteError::Conflict { .. } => Status::aborted(message),
        WriteError::Busy(_) => Status::resource_exhausted(message),
        WriteError::TooLarge(_) | WriteError::BadName(_) | WriteError::Twice(_) => {
            Status::invalid_argument(message)
        }
        WriteError::Store(_) if error.may_pass() => Status::unavailable(message),
        WriteError::Store(_) => Status::internal(message),
    }
}
