//! `metad config`, and reading the configuration for the commands that need it.

use std::path::PathBuf;

use super::Failure;
use super::args::{ConfigArgs, ConfigCommand, SettingArgs};
use crate::config::{self, Loaded};
use crate::election::exit::Exit;

/// The merged configuration.
pub(super) fn load(args: &SettingArgs) -> Result<Loaded, Failure> {
    let from_env = || std::env::var_os("METAD_CONFIG").filter(|f| !f.is_empty()).map(PathBuf::from);
    let file = args.config.clone().or_else(from_env);
    config::load(file.as_deref(), config::process_env(), args.keys.given())
        .map_err(|e| Failure::new(Exit::Config.code(), e.to_string()))
}

/// `metad config check|print`.
pub(super) fn config(args: &ConfigArgs) -> Result<i32, Failure> {
    let (settings, print) = match &args.command {
        ConfigCommand::Check { settings } => (settings, None),
        ConfigCommand::Print { settings, origins } => (settings, Some(*origins)),
    };
    let loaded = load(settings)?;
    for warning in &loaded.warnings {
        super::output::say(&format!("warning: {warning}"));
    }
    match print {
        Some(origins) => super::output::print(&loaded.render(origins)),
        None => super::output::print("the configuration is valid\n"),
    }?;
    Ok(0)
}
