//! SIGHUP: reads the configuration again, takes over what can change while the node runs, and names what cannot.

use super::args::SettingArgs;
use super::settings;
use crate::config::Config;
use crate::node::Certificates;
use crate::telemetry::log::LogFilter;

/// The keys that are taken over.
const RELOADED: [&str; 1] = ["log.filter"];

/// What a reload needs.
pub(super) struct Reload {
    /// Where the configuration comes from: the flags still win over the file.
    pub(super) args: SettingArgs,
    /// What is in force.
    pub(super) running: Config,
    /// The log's filter.
    pub(super) filter: LogFilter,
}

// === impl Reload ===

impl Reload {
    /// Reloads. Whatever is wrong with the new configuration, the node goes on with the old one.
    pub(super) fn run(&mut self, certificates: &Certificates) {
        match certificates.reload() {
            Ok(true) => tracing::info!("SIGHUP: certificates are reloaded, for new connections"),
            Ok(false) => {}
            Err(e) => tracing::error!("SIGHUP: the old certificates stay: {e}"),
        }
        match settings::load(&self.args) {
            Ok(loaded) => self.take_over(&loaded.config),
            Err(e) => tracing::error!("SIGHUP: the configuration is not reloaded: {}", e.message),
        }
    }

    fn take_over(&mut self, fresh: &Config) {
        let changed = self.running.differences(fresh);
        let (reloaded, restart): (Vec<_>, Vec<_>) =
            changed.into_iter().partition(|key| RELOADED.contains(key));
        if reloaded.is_empty() {
            tracing::info!("SIGHUP: {} has not changed", RELOADED.join(", "));
        } else if let Err(e) = self.filter.set(&fresh.log.filter) {
            tracing::error!("SIGHUP: the old filter stays: {e}");
        } else {
            self.running.log.filter.clone_from(&fresh.log.filter);
            tracing::warn!(filter = fresh.log.filter, "SIGHUP: log.filter is reloaded");
        }
        if !restart.is_empty() {
            tracing::warn!("SIGHUP: restart the node for the new values of {}", restart.join(", "));
        }
    }
}
