//! The diagnosis: how each etcd member fares, whether this process stood still, and who was at fault when a tenure ends.
//!
//! [`monitor::Monitor`] observes the driver, [`prober`] looks at the members, [`verdict`] is a pure function of what both
//! have seen. Nothing is decided by it. [`checks`] are those of `metad doctor`, and [`advice`] says which lease would have held.

pub mod advice;
pub mod checks;
pub mod monitor;
pub mod prober;
pub mod stall;
mod timings;
pub mod verdict;
