//! The way to one connection: a bounded queue, and nobody waits in it for ever.
//!
//! SQLite blocks, so each connection has a thread of its own. Behind a disk or a lock that stalls requests would pile up
//! there, and each would do its write long after anybody cared. What is late before it commits, be it for its turn, for
//! the lock of another process or for the disk, is not done at all, and is refused; only what is late while it commits
//! has an unknown outcome.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::{Refusal, StoreError};

/// How many requests may wait for one connection.
const WAITING_MAX: usize = 256;

const WANTED: u8 = 0;
const COMMITS: u8 = 1;
const GIVEN_UP: u8 = 2;

/// What a request and its connection's thread agree on: it commits, or it is given up, and never both.
#[derive(Clone, Default)]
pub(super) struct Fate(Arc<AtomicU8>);

/// One connection, and who waits for it. Clones share it.
#[derive(Clone)]
pub(super) struct Queue {
    connection: tokio_rusqlite::Connection,
    room: Arc<Semaphore>,
    /// How long a request may take, its wait included.
    timeout: Duration,
}

// === impl Queue ===

impl Queue {
    pub(super) fn new(connection: Connection, timeout: Duration) -> Self {
        Self { connection: connection.into(), room: Arc::new(Semaphore::new(WAITING_MAX)), timeout }
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(super) fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Does this on the connection's thread.
    ///
    /// # Errors
    /// Its own, or: too many wait, or it took too long.
    pub(super) async fn call<R, F>(&self, work: F) -> Result<R, StoreError>
    where
        R: Send + 'static,
        F: FnOnce(&mut Connection, &Fate) -> Result<R, StoreError> + Send + 'static,
    {
        let full = |_| {
            StoreError::Refused(Refusal::NotSent, format!("{WAITING_MAX} requests wait for the file already"))
        };
        let room = self.room.clone().try_acquire_owned().map_err(full)?;
        let fate = Fate::default();
        let shared = fate.clone();
        let job = self.connection.call_raw(move |connection| {
            let _room = room; // given back when it is done, not when nobody waits for it any more
            shared.still_wanted()?;
            work(connection, &shared)
        });
        match tokio::time::timeout(self.timeout, job).await {
            Ok(Ok(done)) => done,
            Ok(Err(e)) => Err(StoreError::Unknown(e.to_string())),
            Err(_) if fate.give_up() => Err(not_done(format!(
                "the file has not answered within {:?}, so this was not done",
                self.timeout
            ))),
            Err(_) => {
                Err(StoreError::Unknown(format!("the file has not confirmed this within {:?}", self.timeout)))
            }
        }
    }
}

// === impl Fate ===

impl Fate {
    /// From now on the outcome is that of the commit.
    ///
    /// # Errors
    /// Nobody waits for it any more: it must not happen.
    pub(super) fn commit(&self) -> Result<(), StoreError> {
        self.turn_to(COMMITS).then_some(()).ok_or_else(unwanted)
    }

    /// Was it early enough, so that it does not happen?
    fn give_up(&self) -> bool {
        self.turn_to(GIVEN_UP)
    }

    fn still_wanted(&self) -> Result<(), StoreError> {
        if self.0.load(Ordering::Acquire) == GIVEN_UP { Err(unwanted()) } else { Ok(()) }
    }

    /// Only the first one decides.
    fn turn_to(&self, fate: u8) -> bool {
        self.0.compare_exchange(WANTED, fate, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

fn unwanted() -> StoreError {
    not_done("its caller no longer waits for it".into())
}

fn not_done(why: String) -> StoreError {
    StoreError::Refused(Refusal::NotSent, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_commits_or_is_given_up_and_never_both() {
        let fate = Fate::default();
        assert!(fate.still_wanted().is_ok() && fate.commit().is_ok());
        assert!(!fate.give_up(), "it commits: whoever is late does not know how it ends");
        let fate = Fate::default();
        assert!(fate.give_up());
        assert!(fate.still_wanted().is_err() && fate.commit().is_err());
    }
}
