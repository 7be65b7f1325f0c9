//! Certificates and tokens as files: read when they are needed first, and again when they change.
//!
//! A connection that is open stays as it is; the next one is made with what the files hold then. What cannot be read or used
//! never replaces what could. This module must not know who may do what.

pub mod client;
pub mod files;
#[cfg(feature = "node")]
pub mod server;

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};

/// The one provider of cryptography in this program.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}
