//! Who takes every CPU runs alone: what a test says about an etcd or a network, it says of a machine that has time.

use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

static CPUS: RwLock<()> = RwLock::new(());

/// Held by a test that needs its share of them, for as long as it runs.
pub fn some() -> RwLockReadGuard<'static, ()> {
    CPUS.read().unwrap_or_else(|e| e.into_inner())
}

/// Held by a test that takes them.
pub fn all() -> RwLockWriteGuard<'static, ()> {
    CPUS.write().unwrap_or_else(|e| e.into_inner())
}
