//! `metad.v1.StateService`: the user's own metadata, under `state/user/`. Every write is fenced.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Request, Response, Status};

use super::{RpcParts, refuse, slow};
use crate::driver::reads::{Changes, Entry};
use crate::election::record::Revision;
use crate::limits::Hold;
use crate::meta::request_queue::QueueError;
use crate::meta::store::{MetaStore, PAGE_MAX, is_forgotten};
use crate::proto::metad::state_service_server::StateService;
use crate::proto::metad::{
    self as proto, DeleteRequest, DeleteResponse, GetRequest, GetResponse, KeyValue, PutRequest, PutResponse,
    RangeRequest, RangeResponse, StateChange, StateWatchRequest, StateWatchResponse, TxnRequest, TxnResponse,
    change, state_change,
};
use crate::protocol::writes::{self, NAME_BYTES_MAX, Write, WriteError, check_name};

/// How many bytes of entries go into one answer: most clients read no message above 4 MiB.
const PAGE_BYTES_MAX: usize = 3 * 1024 * 1024;
const MIB: usize = 1024 * 1024;
/// What an entry costs beside its key and its value, at most.
const ENTRY_BYTES: usize = 32;

/// How many mebibytes of what was read may wait to be sent.
const READ_MIB_MAX: usize = 64;
/// How many of them a range may take while it is read, and a single key.
const RANGE_MIB: u32 = 16;
const KEY_MIB: u32 = 1;

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

/// What a watch of the state asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchFrom {
    /// What the keys begin with.
    pub prefix: String,
    /// Only changes after this revision; `None`: from now on.
    pub after: Option<Revision>,
}

pub(super) struct State {
    parts: RpcParts,
    reads: Arc<Semaphore>,
}

impl State {
    pub(super) fn new(parts: RpcParts) -> Self {
        Self { parts, reads: Arc::new(Semaphore::new(READ_MIB_MAX)) }
    }

    /// Waits for room for what is about to be read; at most as long as a call may take.
    async fn room(&self, mib: u32) -> Result<OwnedSemaphorePermit, Status> {
        let room = self.reads.clone().acquire_many_owned(mib).await;
        room.map_err(|_| Status::unavailable("this node no longer serves reads"))
    }

    fn store(&self) -> Result<MetaStore, Status> {
        self.parts.requests.store().ok_or_else(|| refuse::queue(&self.parts, QueueError::Closed))
    }

    async fn write(&self, write: Write) -> Result<Revision, Status> {
        self.store()?.txn(write).await.map_err(|e| self.refuse(&e))
    }

    fn refuse(&self, error: &WriteError) -> Status {
        refuse::write(&self.parts, error)
    }
}

#[tonic::async_trait]
impl StateService for State {
    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let key = checked_get(request.into_inner())?;
        let room = self.room(KEY_MIB).await?;
        let (revision, found) = self.store()?.look_up(&key).await.map_err(|e| self.refuse(&e))?;
        Ok(holding(GetResponse { entry: found.map(entry), revision: revision.0 }, room))
    }

    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        let Page { prefix, after, limit } = checked_range(request.into_inner())?;
        let mut room = self.room(RANGE_MIB).await?;
        let page = self.store()?.range(&prefix, &after, limit).await.map_err(|e| self.refuse(&e))?;
        let found = page.entries.len();
        let mut bytes = 0;
        let entries = page.entries.into_iter().map(entry).take_while(|kv| {
            let is_first = bytes == 0; // there is always one, or the caller could never come past it
            bytes += kv.key.len() + kv.value.len() + ENTRY_BYTES;
            is_first || bytes <= PAGE_BYTES_MAX
        });
        let entries: Vec<_> = entries.collect();
        let more = page.more || entries.len() < found;
        drop(room.split(RANGE_MIB as usize - bytes.div_ceil(MIB).clamp(1, RANGE_MIB as usize)));
        Ok(holding(RangeResponse { entries, more, revision: page.revision.0 }, room))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let revision = self.write(checked_put(request.into_inner())?).await?;
        Ok(Response::new(PutResponse { mod_revision: revision.0 }))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<DeleteResponse>, Status> {
        let revision = self.write(checked_delete(request.into_inner())?).await?;
        Ok(Response::new(DeleteResponse { revision: revision.0 }))
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let revision = self.write(checked_txn(request.into_inner())?).await?;
        Ok(Response::new(TxnResponse { revision: revision.0 }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<StateWatchResponse, Status>> + Send>>;

    /// The store's watch is read only as fast as this stream is, so a slow reader costs no memory here, and one that
    /// does not read at all loses its watch.
    async fn watch(
        &self,
        request: Request<StateWatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let WatchFrom { prefix, after } = checked_watch(request.into_inner())?;
        let store = self.store()?;
        let now = store.range(&prefix, "", 1).await.map_err(|e| self.refuse(&e))?.revision;
        let after = after.unwrap_or(now);
        if after > now {
            return Err(refuse::future(after, now));
        }
        let changes = store.watch(&prefix, after).await.map_err(|e| self.refuse(&e))?;
        let over = store.leadership().clone();
        let first = StateWatchResponse { revision: after.0, changes: vec![] };
        let changes = changes
            .map(|batch| batch.map(watch_response).map_err(|e| refuse::broken_watch(&e, is_forgotten(&e))));
        // A follower answers no questions about the state, and does not go on answering one either.
        let changes = changes.take_until(async move { over.lost().await });
        let end = stream::once(std::future::ready(Err(Status::unavailable(
            "this member no longer leads; find the leader and watch again",
        ))));
        let all = stream::once(std::future::ready(Ok(first))).chain(changes).chain(end);
        Ok(Response::new(Box::pin(slow::cut_off(all))))
    }
}

/// An answer that takes its room until it is sent.
fn holding<T>(answer: T, room: OwnedSemaphorePermit) -> Response<T> {
    let mut answer = Response::new(answer);
    answer.extensions_mut().insert(Hold::new(room));
    answer
}

fn entry(entry: Entry) -> KeyValue {
    KeyValue { key: entry.name, value: entry.value, mod_revision: entry.revision.0 }
}

fn watch_response(batch: Changes) -> StateWatchResponse {
    let changes = batch.changes.into_iter().map(|change| {
        let change = match change {
            Ok(put) => state_change::Change::Put(entry(put)),
            Err(name) => state_change::Change::Deleted(name),
        };
        StateChange { change: Some(change) }
    });
    StateWatchResponse { revision: batch.revision.0, changes: changes.collect() }
}

/// The key that is asked for.
///
/// # Errors
/// INVALID_ARGUMENT.
pub fn checked_get(request: GetRequest) -> Result<String, Status> {
    check_name(&request.key).map_err(|e| invalid(&e))?;
    Ok(request.key)
}

/// The page that is asked for.
///
/// # Errors
/// INVALID_ARGUMENT.
pub fn checked_range(request: RangeRequest) -> Result<Page, Status> {
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
pub fn checked_watch(request: StateWatchRequest) -> Result<WatchFrom, Status> {
    let StateWatchRequest { prefix, start_revision } = request;
    check_length("prefix", &prefix)?;
    Ok(WatchFrom { prefix, after: start_revision.checked_sub(1).map(Revision) })
}

/// The write that is asked for.
///
/// # Errors
/// INVALID_ARGUMENT.
pub fn checked_put(request: PutRequest) -> Result<Write, Status> {
    let PutRequest { key, value, expected_revision } = request;
    let expected = expected_revision.map(|at| (key.clone(), Revision(at)));
    within_bounds(Write {
        expected: expected.into_iter().collect(),
        changes: vec![writes::Change::Put(key, value)],
    })
}

/// The write that is asked for.
///
/// # Errors
/// INVALID_ARGUMENT.
pub fn checked_delete(request: DeleteRequest) -> Result<Write, Status> {
    let DeleteRequest { key, expected_revision } = request;
    let expected = expected_revision.map(|at| (key.clone(), Revision(at)));
    within_bounds(Write {
        expected: expected.into_iter().collect(),
        changes: vec![writes::Change::Delete(key)],
    })
}

/// The write that is asked for.
///
/// # Errors
/// INVALID_ARGUMENT.
pub fn checked_txn(request: TxnRequest) -> Result<Write, Status> {
    let TxnRequest { expectations, changes } = request;
    if changes.is_empty() {
        return Err(Status::invalid_argument("a transaction without changes does nothing"));
    }
    let expected = expectations.into_iter().map(|e| (e.key, Revision(e.mod_revision))).collect();
    let changes = changes.into_iter().enumerate().map(|(i, c)| change_of(i, c));
    within_bounds(Write { expected, changes: changes.collect::<Result<_, Status>>()? })
}

fn change_of(i: usize, change: proto::Change) -> Result<writes::Change, Status> {
    match change.change {
        Some(change::Change::Put(put)) => Ok(writes::Change::Put(put.key, put.value)),
        Some(change::Change::Delete(key)) => Ok(writes::Change::Delete(key)),
        None => Err(Status::invalid_argument(format!("change {i} is neither a put nor a delete"))),
    }
}

fn within_bounds(write: Write) -> Result<Write, Status> {
    write.check().map_err(|e| invalid(&e))?;
    Ok(write)
}

/// Unlike a name, a bound of a range may be empty.
fn check_length(what: &str, bound: &str) -> Result<(), Status> {
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
            assert_eq!(checked_range(asked(limit)).unwrap().limit, got, "{limit}");
        }
    }

    #[test]
    fn bounds_of_a_range_are_as_long_as_keys_at_most() {
        let asked = |n: usize| RangeRequest { prefix: "p".repeat(n), after: "a".repeat(n), limit: 0 };
        assert!(checked_range(asked(NAME_BYTES_MAX)).is_ok());
        let status = checked_range(asked(NAME_BYTES_MAX + 1)).unwrap_err();
        assert_eq!(status.message(), "prefix has 1025 bytes; no key has more than 1024");
    }
}
