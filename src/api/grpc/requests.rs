//! Requests as values: what a caller has sent, in our types, or what is wrong with it.
//!
//! Pure functions, so that each refusal says the same on every member, and so that the fuzz targets run what the
//! handlers run. A request that is refused here has touched nothing.

use std::time::Duration;

use tonic::Status;

use crate::api::view::tenure::Selection;
use crate::election::record::{PRIORITY_MAX, Revision};
use crate::meta::store::PAGE_MAX;
use crate::meta::workers::{WorkerId, WorkerSpec};
use crate::proto::metad::{
    self as proto, BarrierCollected, DeleteRequest, FreezeRequest, GetRequest, HistoryRequest, ListRequest,
    PutRequest, RangeRequest, RegisterRequest, SetPriorityRequest, StateWatchRequest, StepDownRequest,
    TxnRequest, change,
};
use crate::protocol::writes::{Change, NAME_BYTES_MAX, Write, WriteError, check_name};

/// How much of a caller's own text a refusal quotes: the answer's header is bounded.
const QUOTED_CHARS_MAX: usize = 80;

/// The longest reason of a freeze.
pub const REASON_CHARS_MAX: usize = 200;
/// The longest freeze that ends by itself.
pub const FREEZE_SECS_MAX: u64 = 30 * 86_400;

/// The most workers that one page may have.
pub const WORKERS_PAGE_MAX: usize = 1000;

/// What a range asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// What the keys begin with.
    pub prefix: String,
    /// Only keys after this one; "": from the first one on.
    pub after: String,
    /// At most so many; 1 to [`PAGE_MAX`].
    pub limit: usize,
}

/// What a request to step down asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepDown {
    /// Who is to lead next; `None`: anybody.
    pub to: Option<String>,
    /// The tenure that is to end; `None`: whichever it is.
    pub expected_token: Option<u64>,
}

/// What a request to freeze asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreezeFor {
    /// What for.
    pub reason: String,
    /// For how long; `None`: until somebody ends it.
    pub duration: Option<Duration>,
    /// Also in the place of a freeze that is there?
    pub replaces: bool,
}

/// What a watch of the state asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchFrom {
    /// What the keys begin with.
    pub prefix: String,
    /// Only changes after this revision; `None`: from now on.
    pub after: Option<Revision>,
}

/// Which workers a list asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Those after this one.
    pub after: WorkerId,
    /// At most so many; 1 to [`WORKERS_PAGE_MAX`].
    pub limit: usize,
}

type Result<T> = std::result::Result<T, Status>;

/// The key that is asked for.
///
/// # Errors
/// INVALID_ARGUMENT.
pub fn get(request: GetRequest) -> Result<String> {
    check_name(&request.key).map_err(|e| invalid(&e))?;
    Ok(request.key)
}

/// The page that is asked for.
///
/// # Errors
/// INVALID_ARGUMENT.
pub fn range(request: RangeRequest) -> Result<Page> {
    let RangeRequest { prefix, after, limit } = request;
    check_length("prefix", &prefix)?;
    check_length("after", &after)?;
    let limit = usize::try_from(limit).unwrap_or(PAGE_MAX).min(PAGE_MAX);
    Ok(Page { prefix, after, limit: if limit == 0 { PAGE_MAX } else { limit } })
}

/// What is watched.
///
/// # Errors
/// INVALID_ARGUMENT.
pub fn watch(request: StateWatchRequest) -> Result<WatchFrom> {
    let StateWatchRequest { prefix, start_revision } = request;
    check_length("prefix", &prefix)?;
    Ok(WatchFrom { prefix, after: start_revision.checked_sub(1).map(Revision) })
}

/// The write that is asked for.
///
/// # Errors
/// INVALID_ARGUMENT.
pub fn put(request: PutRequest) -> Result<Write> {
    let PutRequest { key, value, expected_revision } = request;
    let expected = expected_revision.map(|at| (key.clone(), Revision(at)));
    checked(Write { expected: expected.into_iter().collect(), changes: vec![Change::Put(key, value)] })
}

/// The write that is asked for.
///
/// # Errors
/// INVALID_ARGUMENT.
pub fn delete(request: DeleteRequest) -> Result<Write> {
    let DeleteRequest { key, expected_revision } = request;
    let expected = expected_revision.map(|at| (key.clone(), Revision(at)));
    checked(Write { expected: expected.into_iter().collect(), changes: vec![Change::Delete(key)] })
}

/// The write that is asked for.
///
/// # Errors
/// INVALID_ARGUMENT.
pub fn txn(request: TxnRequest) -> Result<Write> {
    let TxnRequest { expectations, changes } = request;
    if changes.is_empty() {
        return Err(Status::invalid_argument("a transaction without changes does nothing"));
    }
    let expected = expectations.into_iter().map(|e| (e.key, Revision(e.mod_revision))).collect();
    let changes = changes.into_iter().enumerate().map(|(i, c)| change_of(i, c));
    checked(Write { expected, changes: changes.collect::<Result<_>>()? })
}

/// What the worker says about itself.
///
/// # Errors
/// INVALID_ARGUMENT.
pub fn register(request: RegisterRequest) -> Result<WorkerSpec> {
    let RegisterRequest { host, port, kind, labels } = request;
    let wrong = |_| Status::invalid_argument(format!("port {port} is not between 1 and 65535"));
    let port = u16::try_from(port).map_err(wrong)?;
    let spec = WorkerSpec { host, port, kind, labels: labels.into_iter().collect() };
    spec.check().map_err(|e| Status::invalid_argument(e.to_string()))?;
    Ok(spec)
}

/// The page of workers that is asked for.
///
/// # Errors
/// INVALID_ARGUMENT.
pub fn list(request: ListRequest) -> Result<Listed> {
    let ListRequest { page_size, page_token } = request;
    let after = WorkerId(page(&page_token)?.unwrap_or(0));
    let limit = usize::try_from(page_size).unwrap_or(WORKERS_PAGE_MAX).min(WORKERS_PAGE_MAX);
    Ok(Listed { after, limit: if limit == 0 { WORKERS_PAGE_MAX } else { limit } })
}

/// The tenures that are asked for.
///
/// # Errors
/// INVALID_ARGUMENT.
pub fn history(request: &HistoryRequest) -> Result<Selection> {
    let HistoryRequest { since_ms, limit, page_token } = request;
    Ok(Selection {
        since_ms: if *since_ms == 0 { u64::MAX } else { *since_ms },
        before: page(page_token)?.unwrap_or(u64::MAX),
        limit: usize::try_from(*limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX),
    })
}

/// The worker whose stream begins with this message.
///
/// # Errors
/// INVALID_ARGUMENT.
pub fn hello(first: BarrierCollected) -> Result<WorkerId> {
    let BarrierCollected { worker_id, epoch } = first;
    if epoch != 0 {
        let why = format!("the first message only names the worker: its epoch must be 0, not {epoch}");
        return Err(Status::invalid_argument(why));
    }
    Ok(WorkerId(worker_id))
}

/// The epoch that a later message of a worker's stream reports.
///
/// # Errors
/// What is wrong with it.
pub fn report(worker: WorkerId, report: BarrierCollected) -> std::result::Result<u64, String> {
    let BarrierCollected { worker_id, epoch } = report;
    if worker_id != worker.0 && worker_id != 0 {
        return Err(format!("worker {worker_id} is named on the stream of worker {worker}"));
    }
    Ok(epoch)
}

/// What is asked of a leader.
pub fn step_down(request: StepDownRequest) -> StepDown {
    let StepDownRequest { to, expected_token } = request;
    StepDown { to: Some(to).filter(|to| !to.is_empty()), expected_token }
}

/// The priority that is asked for, and of which member.
///
/// # Errors
/// INVALID_ARGUMENT.
pub fn set_priority(request: SetPriorityRequest) -> Result<(String, u16)> {
    let SetPriorityRequest { node, priority } = request;
    let valid = u16::try_from(priority).ok().filter(|priority| *priority <= PRIORITY_MAX);
    let refused = || {
        let message = format!("priority is {priority}: at most {PRIORITY_MAX}, or 0: it never leads");
        Status::invalid_argument(message)
    };
    Ok((node, valid.ok_or_else(refused)?))
}

/// The freeze that is asked for.
///
/// # Errors
/// INVALID_ARGUMENT.
pub fn freeze(request: FreezeRequest) -> Result<FreezeFor> {
    let FreezeRequest { reason, for_secs, replace: replaces } = request;
    let (reason, chars) = (reason.trim().to_owned(), reason.chars().count());
    if reason.is_empty() {
        return Err(Status::invalid_argument("reason is empty: say what the election is frozen for"));
    }
    if chars > REASON_CHARS_MAX || reason.chars().any(char::is_control) {
        return Err(Status::invalid_argument(format!(
            "reason must be one line of at most {REASON_CHARS_MAX} characters"
        )));
    }
    if for_secs > FREEZE_SECS_MAX {
        return Err(Status::invalid_argument(format!(
            "for_secs is {for_secs}: at most {FREEZE_SECS_MAX} (30 days), or 0: until unfreeze"
        )));
    }
    Ok(FreezeFor { reason, duration: (for_secs > 0).then(|| Duration::from_secs(for_secs)), replaces })
}

/// The beginning of a caller's text, for a message.
pub fn quoted(text: &str) -> String {
    let end = text.char_indices().nth(QUOTED_CHARS_MAX);
    end.map_or_else(|| format!("{text:?}"), |(end, _)| format!("{:?}… ({} bytes)", &text[..end], text.len()))
}

/// Where a page begins; `None`: at the beginning.
fn page(token: &str) -> Result<Option<u64>> {
    let unknown = |_| {
        let token = quoted(token);
        Status::invalid_argument(format!("page_token {token} is unknown; start without one"))
    };
    (!token.is_empty()).then(|| token.parse().map_err(unknown)).transpose()
}

fn change_of(i: usize, change: proto::Change) -> Result<Change> {
    match change.change {
        Some(change::Change::Put(put)) => Ok(Change::Put(put.key, put.value)),
        Some(change::Change::Delete(key)) => Ok(Change::Delete(key)),
        None => Err(Status::invalid_argument(format!("change {i} is neither a put nor a delete"))),
    }
}

fn checked(write: Write) -> Result<Write> {
    write.check().map_err(|e| invalid(&e))?;
    Ok(write)
}

/// Unlike a name, a bound of a range may be empty.
fn check_length(what: &str, bound: &str) -> Result<()> {
    match bound.len() {
        0..=NAME_BYTES_MAX => Ok(()),
        n => Err(Status::invalid_argument(format!(
            "{what} has {n} bytes; no key has more than {NAME_BYTES_MAX}"
        ))),
    }
}

fn invalid(error: &WriteError) -> Status {
    Status::invalid_argument(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_a_limit_whatever_is_asked_for() {
        let asked = |limit| RangeRequest { prefix: "p".into(), after: String::new(), limit };
        for (limit, got) in [(0, PAGE_MAX), (1, 1), (1000, 1000), (1001, 1000), (u32::MAX, 1000)] {
            assert_eq!(range(asked(limit)).unwrap().limit, got, "{limit}");
        }
    }

    #[test]
    fn bounds_of_a_range_are_as_long_as_keys_at_most() {
        let asked = |n: usize| RangeRequest { prefix: "p".repeat(n), after: "a".repeat(n), limit: 0 };
        assert!(range(asked(NAME_BYTES_MAX)).is_ok());
        let status = range(asked(NAME_BYTES_MAX + 1)).unwrap_err();
        assert_eq!(status.message(), "prefix has 1025 bytes; no key has more than 1024");
    }

    #[test]
    fn a_report_belongs_to_the_worker_of_its_stream() {
        let of = |worker_id, epoch| BarrierCollected { worker_id, epoch };
        assert_eq!(hello(of(7, 0)).unwrap(), WorkerId(7));
        assert!(hello(of(7, 1)).unwrap_err().message().contains("must be 0, not 1"));
        assert_eq!(report(WorkerId(7), of(7, 9)), Ok(9));
        assert_eq!(report(WorkerId(7), of(0, 9)), Ok(9), "it need not be named again");
        assert!(report(WorkerId(7), of(8, 9)).unwrap_err().contains("worker 8"));
    }

    #[test]
    fn long_texts_are_not_quoted_in_full() {
        assert_eq!(quoted("a\nb"), "\"a\\nb\"");
        let long = quoted(&"é".repeat(10_000));
        assert!(long.len() < 250 && long.ends_with("(20000 bytes)"), "{long}");
    }
}
