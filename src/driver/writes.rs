//! Writing under `state/`, of which [`crate::protocol::writes`] says what is sent and what an answer means.
//!
//! A caller that goes away while its write is under way has asked for something that may or may not happen,
//! but not later than the next write in its slot.

use std::time::Duration;

use super::leadership::Leadership;
use super::slots::SLOTS;
use crate::clock::Instant;
use crate::election::record::Revision;
use crate::protocol::writes::{PendingWrite, Tried, Write, WriteError};
use crate::store::Request;
use crate::telemetry::metrics::WriteResult;

/// How soon a write whose outcome is unknown is repeated.
const SETTLE_PAUSE: Duration = Duration::from_millis(100);

/// A write under way, for the metrics. One that is dropped before its end has an unknown outcome.
struct Counted<'a> {
    leadership: &'a Leadership,
    began: Instant,
    result: WriteResult,
}

// === impl Counted ===

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.leadership.metrics().write_ended(self.result, self.leadership.now().since(self.began));
    }
}

// === impl Leadership: writing ===

impl Leadership {
    /// Writes a key under `state/`, if we still lead and the key is still at `expected` (0: absent). Returns
    /// the key's new revision. The same as [`Leadership::write`] of one change.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn put(&self, name: &str, value: Vec<u8>, expected: Revision) -> Result<Revision, WriteError> {
        self.write(&Write::put(name, value, expected)).await
    }

    /// Does a [`Write`], if we still lead and every key is as expected. Returns the revision that all written
    /// keys have now.
    ///
    /// A try whose outcome is unknown is repeated until it is known, or until leadership is over: then the error is
    /// [`WriteError::Unknown`]. After every other error nothing has happened.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn write(&self, write: &Write) -> Result<Revision, WriteError> {
        write.check_in_area()?;
        self.check()?;
        self.check_headroom()?;
        let mut counted = self.count_write();
        let written = self.write_in_a_slot(write).await;
        counted.result = match &written {
            Ok(_) => WriteResult::Written,
            Err(WriteError::Unknown(_)) => WriteResult::Unknown,
            Err(_) => WriteResult::Refused,
        };
        written
    }

    async fn write_in_a_slot(&self, write: &Write) -> Result<Revision, WriteError> {
        let busy = || WriteError::Busy(format!("{SLOTS} writes are in flight"));
        let mut taken = self.slots().take().ok_or_else(busy)?;
        let nth = self.slots().next_write();
        let mut writing = PendingWrite::new(write, self.keys(), self.token(), &mut taken.slot, nth);
        loop {
            self.check().map_err(|lost| writing.over(lost.into()))?;
            let answer = self.store().call(Request::Txn(writing.txn())).await;
            match writing.answered(&answer) {
                Tried::Done(revision) => return Ok(revision),
                Tried::SlotMoved => {}
                Tried::Unanswered => tokio::time::sleep(SETTLE_PAUSE).await,
                Tried::Fenced => {
                    self.report_fenced();
                    return Err(writing.over(WriteError::Fenced(self.token())));
                }
                Tried::Failed(e) => return Err(e),
            }
        }
    }

    fn count_write(&self) -> Counted<'_> {
        self.metrics().write_began();
        Counted { leadership: self, began: self.now(), result: WriteResult::Unknown }
    }
}
