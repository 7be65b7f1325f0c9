//! What an answer that is an error means for a call: was it done, and is there somebody else to ask?

use tonic::{Code, ConnectError, Status};

use super::Target;
use super::member::chain;

/// What an error means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ErrorMeaning {
    /// It was not done, because that member does not lead; it may know who does.
    Elsewhere(Option<Target>),
    /// It was not done; the same member may do it a little later.
    Later,
    /// It was not done: nobody was reached.
    Unreached,
    /// It may have been done.
    Unclear,
    /// It was not done, and would not be.
    Refused,
}

/// Judges by what is certain: what nobody vouches for is [`ErrorMeaning::Unclear`].
pub(super) fn judge(status: &Status) -> ErrorMeaning {
    if never_sent(status) {
        return ErrorMeaning::Unreached;
    }
    // A status that the server has sent has no source; one that came of a broken connection has.
    if std::error::Error::source(status).is_some() {
        return ErrorMeaning::Unclear;
    }
    match status.code() {
        Code::FailedPrecondition => ErrorMeaning::Elsewhere(hint(status)),
        Code::ResourceExhausted => ErrorMeaning::Later,
        Code::Unavailable if status.metadata().get("metad-done").is_some_and(|v| v == "no") => {
            ErrorMeaning::Later
        }
        Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded | Code::Unknown => ErrorMeaning::Unclear,
        _ => ErrorMeaning::Refused,
    }
}

/// In a person's words.
pub(super) fn words(status: &Status) -> String {
    match std::error::Error::source(status) {
        Some(cause) => chain(cause),
        None => format!("{:?}: {}", status.code(), status.message()),
    }
}

/// The leader that a follower names.
fn hint(status: &Status) -> Option<Target> {
    let text = |key: &str| Some(status.metadata().get(key)?.to_str().ok()?.to_owned());
    Some(Target { address: text("metad-leader")?, token: text("metad-token")?.parse().ok()? })
}

/// There was no connection, so nothing was sent.
fn never_sent(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use tonic::metadata::MetadataMap;

    use super::*;

    fn with(code: Code, pairs: &[(&'static str, &str)]) -> Status {
        let mut metadata = MetadataMap::new();
        for (key, value) in pairs {
            metadata.insert(*key, value.parse().unwrap());
        }
        Status::with_metadata(code, "", metadata)
    }

    #[test]
    fn a_follower_names_the_leader() {
        let status = with(Code::FailedPrecondition, &[("metad-leader", "m2:5690"), ("metad-token", "17")]);
        let leader = Target { address: "m2:5690".to_owned(), token: 17 };
        assert_eq!(judge(&status), ErrorMeaning::Elsewhere(Some(leader)));
        let half = with(Code::FailedPrecondition, &[("metad-leader", "m2:5690"), ("metad-token", "x")]);
        assert_eq!(judge(&half), ErrorMeaning::Elsewhere(None));
    }

    #[test]
    fn unavailable_counts_as_not_done_only_if_it_says_so() {
        assert_eq!(judge(&with(Code::Unavailable, &[("metad-done", "no")])), ErrorMeaning::Later);
        assert_eq!(judge(&with(Code::Unavailable, &[])), ErrorMeaning::Unclear);
        assert_eq!(judge(&with(Code::Unknown, &[])), ErrorMeaning::Unclear);
        assert_eq!(judge(&with(Code::InvalidArgument, &[])), ErrorMeaning::Refused);
    }

    #[test]
    fn a_broken_connection_is_unclear_and_one_never_made_is_not() {
        let broken = Status::from_error(Box::new(std::io::Error::other("reset")));
        assert_eq!(judge(&broken), ErrorMeaning::Unclear);
        let refused = Status::from_error(Box::new(ConnectError(Box::new(std::io::Error::other("refused")))));
        assert_eq!(judge(&refused), ErrorMeaning::Unreached);
    }
}
