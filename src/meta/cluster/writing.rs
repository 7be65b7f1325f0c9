//! The cluster loop's writes, as futures that say what they were for when they are done.
//!
//! One that ends because leadership is over never says so: the loop is about to be told, and nothing may be
//! concluded from a write whose outcome nobody knows.

use std::future::pending;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::Waiting;
use crate::meta::barrier::Epoch;
use crate::meta::store::MetaStore;
use crate::meta::workers::Edit;
use crate::protocol::writes::{Change, Write, WriteError};

/// How soon a write is tried again that there was no room for.
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// A write under way.
pub(super) type ClusterWrites = BoxFuture<'static, Written>;

/// What has become of a write.
pub(super) enum Written {
    Edit(Edit, Vec<Waiting>, Result<(), WriteError>),
    /// Is it written?
    Commit(Epoch, bool),
    /// Is it written?
    Ceiling(Epoch, bool),
}

pub(super) fn edit(
    store: MetaStore,
    edit: Edit,
    waiting: Vec<Waiting>,
    changes: Vec<Change>,
) -> ClusterWrites {
    Box::pin(async move {
        // Somebody waits for a registration and can try again; nobody does for an expiry.
        let patient = waiting.is_empty();
        let result = write(&store, changes, patient).await;
        Written::Edit(edit, waiting, result)
    })
}

pub(super) fn commit(store: MetaStore, epoch: Epoch, change: Change) -> ClusterWrites {
    Box::pin(async move { Written::Commit(epoch, is_written(&store, change, "commit an epoch").await) })
}

pub(super) fn ceiling(store: MetaStore, epoch: Epoch, change: Change) -> ClusterWrites {
    Box::pin(async move { Written::Ceiling(epoch, is_written(&store, change, "raise the ceiling").await) })
}

async fn is_written(store: &MetaStore, change: Change, what: &str) -> bool {
    let result = write(store, vec![change], true).await;
    result.inspect_err(|e| tracing::warn!(error = %e, "could not {what}")).is_ok()
}

async fn write(store: &MetaStore, changes: Vec<Change>, patient: bool) -> Result<(), WriteError> {
    let write = Write { expected: vec![], changes };
    loop {
        match store.txn(write.clone()).await {
            Ok(_) => return Ok(()),
            Err(WriteError::Lost(_) | WriteError::Fenced(_) | WriteError::Unknown(_)) => pending().await,
            Err(WriteError::Busy(_)) if patient => tokio::time::sleep(BUSY_PAUSE).await,
            Err(e) => return Err(e),
        }
    }
}
