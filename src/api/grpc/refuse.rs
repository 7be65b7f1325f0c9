//! Refusals as gRPC statuses: what only the leader can do is refused with the way to the leader.
//!
//! People read the message. Programs read the reason in the details, a `google.rpc.ErrorInfo`; `src/docs/cluster.md`
//! lists them all.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use tonic::metadata::MetadataValue;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::RpcParts;
use crate::api::view::member::FreezeView;
use crate::clock::Instant;
use crate::driver::{Busy, FreezeError, PriorityError};
use crate::election::record::{Revision, Token};
use crate::election::status::{self, Role};
use crate::meta::request_queue::{QueueError, Refused};
use crate::meta::workers::{RegisterError, UnknownWorker};
use crate::protocol::writes::WriteError;

/// The domain of all reasons.
const DOMAIN: &str = "metad.v1";

/// A refusal that a program can tell from others by its reason, and what belongs to it.
pub(super) fn because<const N: usize>(
    code: Code,
    reason: &str,
    message: impl Into<String>,
    about: [(&str, String); N],
) -> Status {
    let about: HashMap<_, _> = about.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Status::with_error_details(code, message, ErrorDetails::with_error_info(reason, DOMAIN, about))
}

/// This member does not lead; the metadata `metad-leader` and `metad-token` name who does.
pub(super) fn not_the_leader(status: &status::Status, now: Instant) -> Status {
    let code = Code::FailedPrecondition;
    if status.is_outdated(now) {
        let message = format!(
            "nobody knows who leads: the store has confirmed nothing to {} within the lease",
            status.me.node
        );
        return because(code, "LEADER_UNKNOWN", message, []);
    }
    let Some(tenure) = status.leader() else {
        return because(code, "NO_LEADER", "there is no leader at the moment", []);
    };
    let (holder, address) = (&tenure.record.holder.node, &tenure.record.address);
    let message = format!("{} does not lead; {holder} at {address} does", status.me.node);
    let token = tenure.token;
    let about = [("leader", holder.clone()), ("address", address.clone()), ("token", token.to_string())];
    let mut refusal = because(code, "NOT_LEADER", message, about);
    if let Ok(address) = address.parse() {
        refusal.metadata_mut().insert("metad-leader", address);
    }
    refusal.metadata_mut().insert("metad-token", token.get().into());
    refusal
}

/// The tenure that was to end is over; this member leads under another token.
pub(super) fn another_token(token: Token, expected: u64) -> Status {
    let message = format!("the leader's token is {token}, not {expected}; nothing was changed");
    let about = [("token", token.to_string()), ("expected_token", expected.to_string())];
    because(Code::FailedPrecondition, "ANOTHER_TOKEN", message, about)
}

/// The election is frozen, and that is in the way.
pub(super) fn frozen(freeze: &FreezeView, fix: &str) -> Status {
    let (FreezeView { reason, by, .. }, until) = (freeze, freeze.until_words());
    let message = format!("the election is frozen {until}, by {by}: {reason}{fix}");
    because(Code::FailedPrecondition, "FROZEN", message, [])
}

/// Freezing or unfreezing was not done, as far as is known.
pub(super) fn not_done(error: FreezeError) -> Status {
    match error {
        FreezeError::Frozen(freeze) => {
            frozen(&freeze.into(), "; metad unfreeze ends it, --force replaces it")
        }
        FreezeError::NotWritten(_) => {
            because(Code::FailedPrecondition, "STORE_REFUSED", error.to_string(), [])
        }
        FreezeError::Unknown(_) => because(Code::Unavailable, "STORE_UNAVAILABLE", error.to_string(), []),
    }
}

/// Another member was meant.
pub(super) fn another_member(me: &str, wanted: &str) -> Status {
    let message = format!("this is {me}, not {}; nothing was changed", super::requests::quoted(wanted));
    because(Code::FailedPrecondition, "ANOTHER_MEMBER", message, [("node", me.to_owned())])
}

/// The priority was not changed, as far as is known.
pub(super) fn priority(error: PriorityError) -> Status {
    let message = error.to_string();
    match error {
        PriorityError::Busy(error) => busy(error),
        PriorityError::NoFollower(_) => because(Code::FailedPrecondition, "NO_FOLLOWER", message, []),
        PriorityError::Unconfirmed => because(Code::Unavailable, "STORE_UNAVAILABLE", message, []),
    }
}

/// It is not part of the election (yet, or any more).
pub(super) fn not_joined() -> Status {
    let message = "this member has not joined the election, or is ending; ask another one".to_owned();
    because(Code::Unavailable, "NOT_JOINED", message, [])
}

/// The driver has no room for another command.
pub(super) fn busy(error: Busy) -> Status {
    because(Code::ResourceExhausted, "OVERLOADED", error.to_string(), [])
}

/// There were too many of these.
pub(super) fn too_often(what: &str, every: Duration) -> Status {
    let message = format!("{what} is accepted once in {every:?}; nothing was changed, try again");
    because(Code::ResourceExhausted, "TOO_OFTEN", message, [])
}

/// Nobody took the request.
pub(super) fn queue(parts: &RpcParts, error: QueueError) -> Status {
    let status = parts.driver.status();
    match error {
        QueueError::Full => because(Code::ResourceExhausted, "OVERLOADED", error.to_string(), []),
        QueueError::Closed if !matches!(status.role, Role::Leader | Role::Starting) => {
            not_the_leader(&status, parts.clock.now())
        }
        QueueError::Closed if parts.serves_cluster => {
            let message = "this member leads, but its main loop is just starting; try again";
            let mut status = because(Code::Unavailable, "MAIN_LOOP_STARTING", message, []);
            status.metadata_mut().insert("metad-done", MetadataValue::from_static("no"));
            status
        }
        QueueError::Closed => because(
            Code::Unimplemented,
            "ANOTHER_MAIN_LOOP",
            "this member's main loop is not the built-in one: it keeps no workers and sends no barriers",
            [],
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
    because(Code::NotFound, "UNKNOWN_WORKER", error.to_string(), [])
}

/// Nothing can be told of what has not happened: this revision is not of this store, or it has gone back in time.
pub(super) fn future(after: Revision, now: Revision) -> Status {
    let start = after.0.saturating_add(1);
    let message = format!("revision {start} lies in the future: the store is at {now}; read again");
    because(Code::OutOfRange, "FUTURE_REVISION", message, [("revision", now.to_string())])
}

/// A watch of the state has ended, perhaps because the store has forgotten what it would have to tell.
pub(super) fn broken_watch(error: impl fmt::Display, is_forgotten: bool) -> Status {
    let message = format!("the watch has broken ({error}); read and watch again");
    if is_forgotten {
        return because(Code::OutOfRange, "FORGOTTEN_REVISION", message, []);
    }
    because(Code::Aborted, "BROKEN_WATCH", message, [])
}

/// The store did not do it. FAILED_PRECONDITION: because of leadership. ABORTED: because of another condition.
/// UNKNOWN: leadership ended while it was under way, so it may have been done.
pub(super) fn write(parts: &RpcParts, error: &WriteError) -> Status {
    let message = error.to_string();
    match error {
        WriteError::Lost(_) | WriteError::Fenced(_) => {
            let status = parts.driver.status();
            match status.role {
                Role::Leader => because(Code::FailedPrecondition, "FENCED", message, []),
                _ => not_the_leader(&status, parts.clock.now()),
            }
        }
        WriteError::Unknown(_) => because(Code::Unknown, "OUTCOME_UNKNOWN", message, []),
        WriteError::Conflict { key, expected, found } => {
            let (expected, found) = (expected.to_string(), found.to_string());
            let about = [("key", key.clone()), ("expected_revision", expected), ("revision", found)];
            because(Code::Aborted, "CONFLICT", message, about)
        }
        WriteError::Busy(_) => because(Code::ResourceExhausted, "OVERLOADED", message, []),
        WriteError::TooLarge(_) | WriteError::BadName(_) | WriteError::Twice(_) => {
            Status::invalid_argument(message)
        }
        WriteError::Store(_) if error.may_pass() => Status::unavailable(message),
        WriteError::Store(_) => Status::internal(message),
    }
}
