//! metad
#![deny(missing_docs)]
pub mod client;
pub mod clock;
pub mod config;
pub mod driver;
pub mod election;
pub mod proto;
pub mod store;
pub mod telemetry;
