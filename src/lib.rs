//! metad
#![deny(missing_docs)]
pub mod clock;
pub mod config;
pub mod election;
pub mod proto;
pub mod store;
