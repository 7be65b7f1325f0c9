//! metad
#![deny(missing_docs)]
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod driver;
pub mod election;
pub mod http;
pub mod meta;
pub mod node;
pub mod proto;
pub mod rpc;
pub mod store;
pub mod telemetry;
