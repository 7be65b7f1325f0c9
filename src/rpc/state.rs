//! `metad.v1.StateService`: the user's own metadata, under `state/user/`. Every write is fenced.

use std::pin::Pin;

use futures_util::{Stream, StreamExt, stream};
use tonic::{Request, Response, Status};

use super::{RpcParts, refuse};
use crate::driver::leadership::WriteError;
use crate::driver::reads::{Changes, Entry};
use crate::driver::writes::{Change, Write};
use crate::election::record::Revision;
use crate::meta::desk::DeskError;
use crate::meta::store::{MetaStore, PAGE_MAX};
use crate::proto::metad::state_service_server::StateService;
use crate::proto::metad::{
    self as proto, DeleteRequest, DeleteResponse, GetRequest, GetResponse, KeyValue, PutRequest, PutResponse,
    RangeRequest, RangeResponse, StateChange, StateWatchRequest, StateWatchResponse, TxnRequest, TxnResponse,
    change, state_change,
};

pub(super) struct State {
    parts: RpcParts,
}

impl State {
    pub(super) fn new(parts: RpcParts) -> Self {
        Self { parts }
    }

    fn store(&self) -> Result<MetaStore, Status> {
        self.parts.desk.store().ok_or_else(|| refuse::desk(&self.parts, DeskError::Closed))
    }

    async fn write(
        &self,
        expected: Vec<(String, Revision)>,
        changes: Vec<Change>,
    ) -> Result<Revision, Status> {
        let written = self.store()?.txn(Write { expected, changes }).await;
        written.map_err(|e| self.refuse(&e))
    }

    fn refuse(&self, error: &WriteError) -> Status {
        refuse::write(&self.parts, error)
    }
}

#[tonic::async_trait]
impl StateService for State {
    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let found = self.store()?.get(&request.into_inner().key).await.map_err(|e| self.refuse(&e))?;
        Ok(Response::new(GetResponse { entry: found.map(entry) }))
    }

    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        let RangeRequest { prefix, after, limit } = request.into_inner();
        let limit = if limit == 0 { PAGE_MAX } else { (limit as usize).min(PAGE_MAX) };
        let page = self.store()?.range(&prefix, &after, limit).await.map_err(|e| self.refuse(&e))?;
        let more = page.entries.len() == limit;
        Ok(Response::new(RangeResponse { entries: page.entries.into_iter().map(entry).collect(), more }))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let PutRequest { key, value, expected_revision } = request.into_inner();
        let expected = expected_revision.map(|at| (key.clone(), Revision(at)));
        let revision = self.write(expected.into_iter().collect(), vec![Change::Put(key, value)]).await?;
        Ok(Response::new(PutResponse { mod_revision: revision.0 }))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<DeleteResponse>, Status> {
        let DeleteRequest { key, expected_revision } = request.into_inner();
        let expected = expected_revision.map(|at| (key.clone(), Revision(at)));
        let revision = self.write(expected.into_iter().collect(), vec![Change::Delete(key)]).await?;
        Ok(Response::new(DeleteResponse { revision: revision.0 }))
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let TxnRequest { expectations, changes } = request.into_inner();
        let expected = expectations.into_iter().map(|e| (e.key, Revision(e.mod_revision))).collect();
        let changes = changes.into_iter().enumerate().map(|(i, c)| change_of(i, c));
        let changes = changes.collect::<Result<Vec<_>, _>>()?;
        if changes.is_empty() {
            return Err(Status::invalid_argument("a transaction without changes does nothing"));
        }
        let revision = self.write(expected, changes).await?;
        Ok(Response::new(TxnResponse { revision: revision.0 }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<StateWatchResponse, Status>> + Send>>;

    /// The store's watch is read only as fast as this stream is, so a slow reader costs no memory here; etcd cuts
    /// it off when it falls behind by too much.
    async fn watch(
        &self,
        request: Request<StateWatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let prefix = request.into_inner().prefix;
        let store = self.store()?;
        let now = store.range(&prefix, "", 1).await.map_err(|e| self.refuse(&e))?.revision;
        let changes = store.watch(&prefix, now).await.map_err(|e| self.refuse(&e))?;
        let over = store.leadership().clone();
        let first = StateWatchResponse { revision: now.0, changes: vec![] };
        let changes = changes.map(|batch| match batch {
            Ok(batch) => Ok(watch_response(batch)),
            Err(e) => Err(Status::aborted(format!("the watch has broken ({e}); read and watch again"))),
        });
        // A follower answers no questions about the state, and does not go on answering one either.
        let changes = changes.take_until(async move { over.lost().await });
        let end = stream::once(std::future::ready(Err(Status::unavailable(
            "this member no longer leads; find the leader and watch again",
        ))));
        let all = stream::once(std::future::ready(Ok(first))).chain(changes).chain(end);
        Ok(Response::new(Box::pin(all)))
    }
}

fn entry(entry: Entry) -> KeyValue {
    KeyValue { key: entry.name, value: entry.value, mod_revision: entry.revision.0 }
}

fn change_of(i: usize, change: proto::Change) -> Result<Change, Status> {
    match change.change {
        Some(change::Change::Put(put)) => Ok(Change::Put(put.key, put.value)),
        Some(change::Change::Delete(key)) => Ok(Change::Delete(key)),
        None => Err(Status::invalid_argument(format!("change {i} is neither a put nor a delete"))),
    }
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
