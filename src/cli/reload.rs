//! SIGHUP: reads the configuration again, takes over what can change while the node runs, and names what cannot.

use super::args::SettingArgs;
use super::serve::louder;
use super::settings;
use crate::config::Config;
use crate::driver::DriverHandle;
use crate::node::Reloader;
use crate::telemetry::log::LogFilter;

/// The keys that are taken over: these two, all of this section,
const FILTER: &str = "log.filter";
const PRIORITY: &str = "node.priority";
const LIMITS: &str = "checks.";
/// and those that begin so.
const PROBES: &str = "meta.probe_";

/// What a reload needs.
pub(super) struct Reload {
    /// Where the configuration comes from: the flags still win over the file.
    pub(super) args: SettingArgs,
    /// What is in force.
    pub(super) running: Config,
    /// The log's filter.
    pub(super) filter: LogFilter,
    /// How much more is logged than the filter says.
    pub(super) verbose: u8,
    /// The priority that is being put in force.
    pub(super) setting: Option<tokio::task::JoinHandle<()>>,
}

// === impl Reload ===

impl Reload {
    /// Reloads. Whatever is wrong with the new configuration, the node goes on with the old one.
    pub(super) fn run(&mut self, node: &Reloader, handle: &DriverHandle) {
        let certificates = node.reload_certificates();
        match &certificates {
            Ok(true) => tracing::info!(
                "SIGHUP: certificates and tokens reloaded; certificates apply to new connections, tokens to new calls"
            ),
            Ok(false) => {}
            Err(e) => tracing::error!("SIGHUP: a certificate or token file was not reloaded: {e}"),
        }
        let old_limits = self.running.checks.clone();
        match settings::load(&self.args) {
            Ok(loaded) => {
                self.take_over(&loaded.config, node);
                self.take_priority(loaded.config.node.priority, handle);
            }
            Err(e) => tracing::error!("SIGHUP: configuration not reloaded: {}", e.message),
        }
        if matches!(certificates, Ok(true)) || self.running.checks != old_limits {
            node.set_limits(&self.running.checks);
        }
    }

    fn take_over(&mut self, fresh: &Config, node: &Reloader) {
        let changed = self.running.differences(fresh);
        if changed.is_empty() {
            tracing::info!("SIGHUP: no setting changed");
        }
        let (limits, others): (Vec<_>, Vec<_>) = changed.into_iter().partition(|key| key.starts_with(LIMITS));
        if !limits.is_empty() {
            self.running.checks.clone_from(&fresh.checks);
            tracing::warn!("SIGHUP: reloaded {}", limits.join(", "));
        }
        let (filter, restart): (Vec<_>, Vec<_>) = others.into_iter().partition(|key| *key == FILTER);
        let restart: Vec<_> = restart.into_iter().filter(|key| *key != PRIORITY).collect();
        if !filter.is_empty() {
            self.take_filter(&fresh.log.filter);
        }
        let (probes, restart): (Vec<_>, Vec<_>) =
            restart.into_iter().partition(|key| key.starts_with(PROBES));
        if !probes.is_empty() {
            self.take_probes(fresh, node, &probes.join(", "));
        }
        if !restart.is_empty() {
            tracing::warn!("SIGHUP: restart the node to apply the new values of {}", restart.join(", "));
        }
    }

    /// The configuration's priority is the one that counts: it takes the place of what `metad priority` has set meanwhile, too.
    /// Beside this, because the store is asked.
    fn take_priority(&mut self, fresh: u32, handle: &DriverHandle) {
        self.running.node.priority = fresh;
        let priority = u16::try_from(fresh).unwrap_or(u16::MAX);
        let (handle, before) = (handle.clone(), self.setting.take());
        // Also where that is in force already: an earlier one may be under way. One after the other: the last one counts.
        self.setting = Some(tokio::spawn(async move {
            if let Some(before) = before {
                let _ = before.await; // it has said how it ended
            }
            if handle.status().priority() == Some(priority) {
                return;
            }
            match handle.set_priority(priority).await {
                Ok(_) => tracing::warn!(priority, "SIGHUP: node.priority reloaded"),
                Err(e) => tracing::error!(priority, "SIGHUP: node.priority not reloaded: {e}"),
            }
        }));
    }

    fn take_probes(&mut self, fresh: &Config, node: &Reloader, changed: &str) {
        match node.set_probes(&fresh.meta) {
            Err(e) => tracing::error!("SIGHUP: {changed} not reloaded: {e}"),
            Ok(()) => {
                self.running.meta.take_probes(&fresh.meta);
                tracing::warn!("SIGHUP: reloaded {changed}");
            }
        }
    }

    fn take_filter(&mut self, fresh: &str) {
        match self.filter.set(&louder(fresh, self.verbose)) {
            Err(e) => tracing::error!("SIGHUP: log.filter not reloaded: {e}"),
            Ok(()) => {
                fresh.clone_into(&mut self.running.log.filter);
                tracing::warn!(filter = fresh, "SIGHUP: log.filter reloaded");
            }
        }
    }
}
