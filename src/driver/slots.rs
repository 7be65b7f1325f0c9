//! Where the writes of one tenure take their turns. The slots bound how many are under way.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::election::record::Revision;
use crate::protocol::writes::WriteSlot;

/// How many writes may be under way at once.
pub(super) const SLOTS: usize = 64;

/// The slots of one tenure.
#[derive(Debug)]
pub(super) struct Slots {
    free: Mutex<Vec<WriteSlot>>,
    writes: AtomicU64,
}

/// A slot in use; it goes back when this is dropped.
pub(super) struct Taken<'a> {
    slots: &'a Slots,
    pub(super) slot: WriteSlot,
}

// === impl Slots ===

impl Slots {
    pub(super) fn new() -> Self {
        // The last one is taken first, so that a quiet main loop keeps to one slot.
        let free = (0..SLOTS).rev().map(|index| WriteSlot { index, revision: Revision(0) }).collect();
        Self { free: Mutex::new(free), writes: AtomicU64::new(0) }
    }

    /// `None`: all are in use.
    pub(super) fn take(&self) -> Option<Taken<'_>> {
        self.free.lock().unwrap_or_else(|e| e.into_inner()).pop().map(|slot| Taken { slots: self, slot })
    }

    /// The number of one write, unlike any other's in this tenure.
    pub(super) fn next_write(&self) -> u64 {
        self.writes.fetch_add(1, Ordering::Relaxed)
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.slots.free.lock().unwrap_or_else(|e| e.into_inner()).push(self.slot);
    }
}
