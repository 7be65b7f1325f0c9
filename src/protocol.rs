//! The election in terms of store transactions: each action of the elector, the join, a freeze, and the one fenced write.
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
