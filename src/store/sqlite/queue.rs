//! The way to one connection: a bounded queue, and nobody waits in it for ever.
//!
//! SQLite blocks, so each connection has a thread of its own. Behind a disk or a lock that stalls requests would pile up
//! there, and each would do its write long after anybody cared. What is late while it still waits is not done at all,
//! and is refused; what is late while it is being done has an unknown outcome.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::{Refusal, StoreError};

/// How many requests may wait for one connection.
const WAITING_MAX: usize = 256;

const WAITS: u8 = 0;
const BEGUN: u8 = 1;
const GIVEN_UP: u8 = 2;

/// One connection, and who waits for it. Clones share it.
#[derive(Clone)]
pub(super) struct Queue {
    connection: tokio_rusqlite::Connection,
    room: Arc<Semaphore>,
    /// How long a request may take, its wait included.
    patience: Duration,
}

// === impl Queue ===

impl Queue {
    pub(super) fn new(connection: Connection, patience: Duration) -> Self {
        Self { connection: connection.into(), room: Arc::new(Semaphore::new(WAITING_MAX)), patience }
    }

    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    pub(super) fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Does this on the connection's thread.
    ///
    /// # Errors
    /// Its own, or: too many wait, or it took too long.
    pub(super) async fn call<R, F>(&self, work: F) -> Result<R, StoreError>
    where
        R: Send + 'static,
        F: FnOnce(&mut Connection) -> Result<R, StoreError> + Send + 'static,
    {
        let full = |_| {
            StoreError::Refused(Refusal::NotSent, format!("{WAITING_MAX} requests wait for the file already"))
        };
        let room = self.room.clone().try_acquire_owned().map_err(full)?;
        let turn = Arc::new(AtomicU8::new(WAITS));
        let taken = turn.clone();
        let job = self.connection.call_raw(move |connection| {
            let _room = room; // given back when it is done, not when nobody waits for it any more
            let is_wanted = taken.compare_exchange(WAITS, BEGUN, Ordering::AcqRel, Ordering::Acquire).is_ok();
            is_wanted.then(|| work(connection))
        });
        match tokio::time::timeout(self.patience, job).await {
            Ok(Ok(Some(done))) => done,
            Ok(Ok(None)) => Err(self.late(Refusal::NotSent)),
            Ok(Err(e)) => Err(StoreError::Unknown(e.to_string())),
            Err(_) if turn.compare_exchange(WAITS, GIVEN_UP, Ordering::AcqRel, Ordering::Acquire).is_ok() => {
                Err(self.late(Refusal::NotSent))
            }
            Err(_) => {
                Err(StoreError::Unknown(format!("the file has not answered within {:?}", self.patience)))
            }
        }
    }

    fn late(&self, refusal: Refusal) -> StoreError {
        StoreError::Refused(refusal, format!("its turn did not come within {:?}", self.patience))
    }
}
