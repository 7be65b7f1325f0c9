//! A seeded wrapper that makes any store unreliable, in the four ways that matter.
//!
//! A request may be lost before it happened or *after* (the case people forget: it happened, and still the
//! caller is told that nobody knows), it may be slow, and a watch may go silent. The same seed gives the same
//! faults. For tests only; nothing in the daemon uses it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};

use super::{KeyRange, Renewal, Request, Response, Store, StoreError, WatchBatch};
use crate::election::lease::LeaseId;
use crate::election::record::Revision;

/// How often each fault happens, in per cent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// The request never arrives.
    pub lost_before: u64,
    /// It happens; the answer never arrives.
    pub lost_after: u64,
    /// It takes `slow_by` longer.
    pub slow: u64,
    /// By how much.
    pub slow_by: Duration,
    /// A watch shows nothing, for ever.
    pub silent_watch: u64,
}

/// A store with faults.
pub struct Unreliable<S> {
    inner: S,
    faults: Faults,
    dice: Dice,
}

/// A small deterministic generator (SplitMix64): its only job is to be the same for the same seed.
#[derive(Debug)]
pub struct Dice(AtomicU64);

// === impl Dice ===

impl Dice {
    /// A generator for this seed.
    pub fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// The next number.
    pub fn roll(&self) -> u64 {
        let mut z =
            self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n` (0 if `n` is 0).
    pub fn below(&self, n: u64) -> u64 {
        self.roll().checked_rem(n).unwrap_or(0)
    }

    /// True in so many cases of a hundred.
    pub fn percent(&self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

// === impl Unreliable ===

impl<S> Unreliable<S> {
    /// Makes `inner` unreliable.
    pub fn new(inner: S, faults: Faults, seed: u64) -> Self {
        Self { inner, faults, dice: Dice::new(seed) }
    }
}

#[async_trait]
impl<S: Store> Store for Unreliable<S> {
    async fn call(&self, request: Request) -> Result<Response, StoreError> {
        if self.dice.percent(self.faults.slow) {
            tokio::time::sleep(self.faults.slow_by).await;
        }
        if self.dice.percent(self.faults.lost_before) {
            return Err(StoreError::Unknown("request lost (injected)".into()));
        }
        let answer = self.inner.call(request).await;
        if self.dice.percent(self.faults.lost_after) {
            return Err(StoreError::Unknown("answer lost (injected)".into()));
        }
        answer
    }

    fn renew(&self, lease: LeaseId) -> BoxStream<'static, Result<Renewal, StoreError>> {
        let before = self.dice.percent(self.faults.lost_before);
        let after = self.dice.percent(self.faults.lost_after);
        if before {
            return stream::empty().boxed();
        }
        self.inner.renew(lease).filter(move |_| std::future::ready(!after)).boxed()
    }

    async fn watch(
        &self,
        range: KeyRange,
        after: Revision,
        alive_every: Duration,
    ) -> Result<BoxStream<'static, Result<WatchBatch, StoreError>>, StoreError> {
        if self.dice.percent(self.faults.silent_watch) {
            return Ok(stream::pending().boxed());
        }
        self.inner.watch(range, after, alive_every).await
    }

    fn location(&self) -> String {
        self.inner.location()
    }
}
