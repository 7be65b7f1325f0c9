//! What can change while a node runs.

use std::sync::Arc;

use tokio::sync::watch;

use super::StartError;
use super::main_loops::check_command;
use super::probing::Probing;
use super::security::SecurityFiles;
use crate::config::{ChecksConfig, Config, MetaConfig};
use crate::store;
use crate::store::open::{OpenError, OpenStore};
use crate::tls::files::FileError;

/// Why files were not taken over; the old ones stay in force.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// One of those for etcd.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// One of our own.
    #[error(transparent)]
    File(#[from] FileError),
}

/// What can change while a node runs.
#[derive(Clone)]
pub struct Reloader {
    pub(super) config: Arc<Config>,
    stores: Arc<[Arc<dyn OpenStore>]>,
    pub(super) security_files: SecurityFiles,
    limits: watch::Sender<ChecksConfig>,
    probing: Probing,
}

// === impl Reloader ===

impl Reloader {
    pub(super) fn new(
        config: &Config,
        stores: &[Arc<dyn OpenStore>; 2],
        security_files: SecurityFiles,
        limits: watch::Sender<ChecksConfig>,
        probing: Probing,
    ) -> Self {
        let (config, stores) = (Arc::new(config.clone()), Arc::new(stores.clone()));
        Self { config, stores, security_files, limits, probing }
    }

    /// Probes as this configuration says, from now on.
    ///
    /// # Errors
    /// There is no such program, or no thread; the probes stay as they were.
    pub fn set_probes(&self, meta: &MetaConfig) -> Result<(), StartError> {
        check_command(&meta.probe_command)?;
        self.probing.set(meta)
    }

    /// Has the checks go by these limits from now on, and look anew at once, with the present certificates.
    pub fn set_limits(&self, limits: &ChecksConfig) {
        self.limits.send_replace(limits.clone());
    }

    /// Reads the files that the configuration names again; new connections use them. `false`: it names none. The
    /// guardian reads them when it needs them.
    ///
    /// # Errors
    /// A file that cannot be read or used; the old certificates stay.
    pub fn reload_certificates(&self) -> Result<bool, ReloadError> {
        // Both in any case: what is wrong with one must not keep the other from being read.
        let own = self.security_files.reload();
        let of_etcd = store::open::reload_certificates(&self.config, &self.stores)?;
        Ok(own? || of_etcd)
    }
}
