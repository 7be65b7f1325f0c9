//! The election in terms of store transactions, and the join.
//!
//! Pure: what is asked of a store and what its answers mean, never when or by whom. The driver, the simulation and the
//! model checker share it.

pub mod effects;
#[cfg(feature = "driver")]
pub mod endpoints;
pub mod freeze;
pub mod join;
pub mod raise;
pub mod transactions;
pub mod writes;
