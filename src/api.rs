//! What others see of a node, and ask of it. It reads snapshots and sends commands; it never touches the store.

pub mod auth;
pub mod explain;
pub mod grpc;
pub mod http;
pub mod view;
