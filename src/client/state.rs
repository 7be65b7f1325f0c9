//! The user's metadata under `state/user/`: reads, and fenced writes.
//!
//! Keys are 1 to 1024 bytes, values at most 512 KiB, a write at most 1 MiB and 100 changes; the leader refuses more.

use super::MetaClient;
use super::attempts::Repeat;
use super::error::ClientError;
use crate::proto::metad::state_service_client::StateServiceClient;
use crate::proto::metad::{
    self as proto, DeleteRequest, Expectation, GetRequest, KeyValue, PutRequest, RangeRequest, TxnRequest,
    change,
};
use crate::tls::client::Authorized;

/// The largest answer that is read. A page of larger values needs a smaller limit.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A part of the keys that begin with a prefix, in their order.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The keys with their values.
    pub entries: Vec<KeyValue>,
    /// There may be more: ask again for those after the last one.
    pub more: bool,
}

/// Several changes at once: all of them, if every key is as expected, or none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Write {
    /// The `mod_revision` that each of these keys must have; 0: it must be absent.
    pub expected: Vec<(String, u64)>,
    /// What to do; no key twice.
    pub changes: Vec<Change>,
}

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Write it.
    Put(String, Vec<u8>),
    /// Delete it; no error if it is absent.
    Delete(String),
}

// === impl MetaClient: state ===

impl MetaClient {
    /// Reads a key, `None` if there is none. Never older than what any write before the call has left.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get(&self, key: &str) -> Result<Option<KeyValue>, ClientError> {
        let request = GetRequest { key: key.to_owned() };
        let call = |channel| {
            let request = request.clone();
            async move { service(channel).get(request).await }
        };
        Ok(self.ask("cannot get", Repeat::Harmless, call).await?.entry)
    }

    /// Reads at most `limit` keys that begin with `prefix` and come after `after` ("": from the first one on), all at
    /// one revision. A page has at most 64 keys, whatever the limit (0: no other one); [`Page::more`] says whether to ask
    /// again. Two pages may be of two revisions.
    ///
    /// # Errors
    /// See [`ClientError`]; `OutOfRange`: the page has more than 64 MiB, ask for fewer keys.
    pub async fn range(&self, prefix: &str, after: &str, limit: u32) -> Result<Page, ClientError> {
        let request = RangeRequest { prefix: prefix.to_owned(), after: after.to_owned(), limit };
        let call = |channel| {
            let request = request.clone();
            async move { service(channel).range(request).await }
        };
        let answer = self.ask("cannot read a range", Repeat::Harmless, call).await?;
        Ok(Page { entries: answer.entries, more: answer.more })
    }

    /// Writes a key, whatever it holds. Returns its new `mod_revision`.
    ///
    /// # Errors
    /// See [`ClientError`]; after [`ClientError::Unknown`] it may be written, and is so at most once.
    pub async fn put(&self, key: &str, value: impl Into<Vec<u8>>) -> Result<u64, ClientError> {
        self.put_if("cannot put", key, value.into(), None).await
    }

    /// Writes a key if its `mod_revision` is `expected` (0: it is absent). Returns its new one.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::Conflict`]: it is at another revision.
    pub async fn compare_and_set(
        &self,
        key: &str,
        expected: u64,
        value: impl Into<Vec<u8>>,
    ) -> Result<u64, ClientError> {
        self.put_if("cannot compare and set", key, value.into(), Some(expected)).await
    }

    /// Deletes a key; with `expected`, only if its `mod_revision` is that. Returns the revision of the deletion.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete(&self, key: &str, expected: Option<u64>) -> Result<u64, ClientError> {
        let request = DeleteRequest { key: key.to_owned(), expected_revision: expected };
        let call = |channel| {
            let request = request.clone();
            async move { service(channel).delete(request).await }
        };
        Ok(self.ask("cannot delete", Repeat::IfNotDone, call).await?.revision)
    }

    /// Does all of a [`Write`], or nothing. Returns the revision that all written keys have now.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn txn(&self, write: Write) -> Result<u64, ClientError> {
        let expectations = write.expected.into_iter().map(|(key, at)| Expectation { key, mod_revision: at });
        let changes = write.changes.into_iter().map(|change| proto::Change {
            change: Some(match change {
                Change::Put(key, value) => change::Change::Put(proto::Put { key, value }),
                Change::Delete(key) => change::Change::Delete(key),
            }),
        });
        let request = TxnRequest { expectations: expectations.collect(), changes: changes.collect() };
        let call = |channel| {
            let request = request.clone();
            async move { service(channel).txn(request).await }
        };
        Ok(self.ask("cannot do the transaction", Repeat::IfNotDone, call).await?.revision)
    }

    async fn put_if(
        &self,
        what: &'static str,
        key: &str,
        value: Vec<u8>,
        expected_revision: Option<u64>,
    ) -> Result<u64, ClientError> {
        let request = PutRequest { key: key.to_owned(), value, expected_revision };
        let call = |channel| {
            let request = request.clone();
            async move { service(channel).put(request).await }
        };
        Ok(self.ask(what, Repeat::IfNotDone, call).await?.mod_revision)
    }
}

fn service(channel: Authorized) -> StateServiceClient<Authorized> {
    StateServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}
