//! etcd's errors, put into our words: what was refused, and what may have happened.

use crate::store::{Refusal, StoreError};

/// An error of etcd-client in our words.
pub(super) fn error(e: &etcd_client::Error) -> StoreError {
    match e {
        etcd_client::Error::GRpcStatus(status) => status_error(status),
        other => StoreError::Unknown(other.to_string()),
    }
}

/// A gRPC status in our words. Only what certainly did not happen is a refusal. The texts are those of etcd's
/// api/v3rpc/rpctypes/error.go.
pub(super) fn status_error(status: &tonic::Status) -> StoreError {
    use tonic::Code;
    let message = status.message();
    let refusal = match status.code() {
        _ if is_connect_error(status) => Some(Refusal::NotSent),
        Code::NotFound if message.contains("lease not found") => Some(Refusal::LeaseNotFound),
        Code::FailedPrecondition if message.contains("lease already exists") => Some(Refusal::LeaseExists),
        Code::ResourceExhausted if message.contains("database space exceeded") => Some(Refusal::NoSpace),
        Code::ResourceExhausted if message.contains("larger than max") => Some(Refusal::TooLarge),
        Code::InvalidArgument if message.contains("too large") || message.contains("too many op") => {
            Some(Refusal::TooLarge)
        }
        Code::PermissionDenied | Code::Unauthenticated => Some(Refusal::Denied),
        Code::InvalidArgument if message.contains("user") || message.contains("password") => {
            Some(Refusal::Denied)
        }
        Code::InvalidArgument if message.contains("duplicate key") => Some(Refusal::Invalid),
        Code::OutOfRange if message.contains("compacted") => Some(Refusal::Compacted),
        Code::Unimplemented => Some(Refusal::NotAStore),
        _ => None,
    };
    let said = status_text(status);
    match refusal {
        Some(refusal) => StoreError::Refused(refusal, said),
        None => StoreError::Unknown(said),
    }
}

/// What the status says, and the deepest cause of it: those between are tonic's and hyper's own.
fn status_text(status: &tonic::Status) -> String {
    let mut deepest = None;
    let mut source = std::error::Error::source(status);
    while let Some(cause) = source {
        deepest = Some(cause.to_string());
        source = cause.source();
    }
    if status.code() == tonic::Code::Unimplemented && status.message().is_empty() {
        return "a gRPC server answers, which has none of etcd's services".to_owned();
    }
    match deepest {
        Some(cause) if !status.message().contains(&cause) => format!("{}: {cause}", status.message()),
        _ => status.message().to_owned(),
    }
}

fn is_connect_error(status: &tonic::Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(e) = source {
        if e.is::<tonic::ConnectError>() {
            return true;
        }
        source = e.source();
    }
    false
}

/// An error with its causes, each once.
pub(super) fn chain(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut source = e.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// Does the member not know our token (any more)? A lack of permission is no such thing. The texts are etcd's.
pub(super) fn wants_a_new_login(e: &StoreError) -> bool {
    let why = match e {
        // Users or roles were changed (etcd's ErrAuthOldRevision); the request itself may be repeated.
        StoreError::Unknown(why) => return why.contains("auth store is old"),
        StoreError::Refused(Refusal::Denied, why) => why,
        StoreError::Refused(..) => return false,
    };
    is_of_login(why)
}

/// Do these words, of an error or of a watch that was cancelled, say that there is no token, or an old one?
pub(super) fn is_of_login(why: &str) -> bool {
    why.contains("invalid auth token") || why.contains("user name is empty")
}

/// Is this the answer to a login at an etcd whose authentication is not enabled? The words are etcd's.
pub(super) fn takes_no_login(status: &tonic::Status) -> bool {
    status.code() == tonic::Code::FailedPrecondition
        && status.message().contains("authentication is not enabled")
}

/// What an error says, without whether it is a refusal.
pub(super) fn words(e: StoreError) -> String {
    match e {
        StoreError::Refused(_, why) | StoreError::Unknown(why) => why,
    }
}
