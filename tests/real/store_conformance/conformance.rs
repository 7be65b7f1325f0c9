//! The one suite that every store passes: what `src/store.rs` promises, as small named cases.
//!
//! - [`suite`] is what the cases are written in, and the runner;
//! - [`revisions`], and one case of [`watches`], need the store to themselves and run first, one by one;
//! - [`transactions`], [`leases`], [`watches`], [`claims`] and [`tenures`] share the store and run at the same time;
//! - [`faults`] holds `Unreliable` to its own promises;
//! - [`outages`] holds what only one kind of store can be brought to: old history forgotten, answers lost.

pub mod claims;
pub mod faults;
pub mod leases;
pub mod outages;
pub mod revisions;
pub mod suite;
pub mod tenures;
pub mod transactions;
pub mod watches;

use std::sync::Arc;

use metad::store::Store;

/// Holds a store to the contract. `here` and `there` are two clients of it.
pub async fn conformance(backend: &'static str, here: Arc<dyn Store>, there: Arc<dyn Store>) {
    crate::support::witness::start();
    let alone = [revisions::CASES, watches::ALONE];
    let shared = [transactions::CASES, leases::CASES, watches::CASES, claims::CASES, tenures::CASES];
    let mut failures = suite::run_one_by_one(backend, &alone.concat(), &here, &there).await;
    failures.extend(suite::run_together(backend, &shared.concat(), &here, &there).await);
    suite::report(backend, &failures);
}
