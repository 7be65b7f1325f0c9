//! `metad config`, and reading the configuration for the commands that need it.

use std::path::PathBuf;

use super::Failure;
use super::args::{ConfigArgs, ConfigCommand, MetaArgs, SettingArgs};
use super::asking::{self, TIMEOUT};
use super::target::{self, Addressees};
use crate::client::CheckClient;
use crate::config::{self, KEYS, Loaded, Origin};
use crate::election::exit::Exit;
use crate::node::security;
use crate::proto::metad::Setting;
use crate::telemetry::log;

/// The file that a flag names, else a variable of the environment.
pub(super) fn file_or_env(flag: Option<&PathBuf>, variable: &str) -> Option<PathBuf> {
    let from_env = || std::env::var_os(variable).filter(|f| !f.is_empty()).map(PathBuf::from);
    flag.cloned().or_else(from_env)
}

fn file(args: &SettingArgs) -> Option<PathBuf> {
    file_or_env(args.config.as_ref(), "METAD_CONFIG")
}

/// The merged configuration.
pub(super) fn load(args: &SettingArgs) -> Result<Loaded, Failure> {
    config::load(file(args).as_deref(), config::process_env(), args.keys.given())
        .map_err(|e| Failure::new(Exit::Config.code(), e.to_string()))
}

/// The same for a command that looks at a cluster: what nobody gave here is as the first of these nodes has it. The second
/// value names that node.
///
/// A store that is given here is another one than the node's, perhaps, and then nothing of the node's fits.
pub(super) async fn load_as_a_node_has(
    args: &SettingArgs,
    meta: &MetaArgs,
) -> Result<(Loaded, Option<String>, Addressees), Failure> {
    let loaded = load(args)?;
    let target = target::target_or_nothing(meta, security::credential_files(&loaded.config))?;
    let is_given = |path: &str| *loaded.origins.get(path) != Origin::Default;
    if ["store.kind", "store.etcd.endpoints", "store.sqlite.path", "node.data_dir"].into_iter().any(is_given)
    {
        return Ok((loaded, None, target));
    }
    let Ok(answer) = asking::first_of(&target).await else { return Ok((loaded, None, target)) };
    let address = answer.member.address();
    let told = async { CheckClient::lazy(address, &target.credentials, TIMEOUT)?.checks().await }.await;
    let told = told.map(|checks| checks.settings).unwrap_or_default(); // an older node tells nothing
    let known = |key: &str| KEYS.iter().find(|known| known.path == key).map(|known| known.path);
    let theirs = told.into_iter().filter_map(|Setting { key, value }| Some((known(&key)?, value)));
    let mut given = args.keys.given().to_vec();
    given.extend(theirs.filter(|(path, _)| !is_given(path)));
    if given.len() == args.keys.given().len() {
        return Ok((loaded, None, target));
    }
    let node = answer.leader.answerer.map(|a| a.node).unwrap_or_default();
    // What cannot be used here, such as a file of another machine, leaves us with what we have.
    match config::load(file(args).as_deref(), config::process_env(), &given) {
        Ok(loaded) => {
            let told_by = format!("{node} at {address}");
            Ok((loaded, Some(told_by), target))
        }
        Err(_) => Ok((loaded, None, target)),
    }
}

/// `metad config check|print`.
pub(super) fn config(args: &ConfigArgs) -> Result<i32, Failure> {
    let (settings, print) = match &args.command {
        ConfigCommand::Check { settings } => (settings, None),
        ConfigCommand::Print { settings, origins } => (settings, Some(*origins)),
    };
    let loaded = load(settings)?;
    // The log's own parser decides; whatever a node would refuse to start with is refused here.
    log::check_filter(&loaded.config.log.filter)
        .map_err(|e| Failure::new(Exit::Config.code(), e.to_string()))?;
    for warning in &loaded.warnings {
        super::output::say(&format!("warning: {warning}"));
    }
    match print {
        Some(origins) => super::output::print(&loaded.render(origins)),
        None => super::output::print("the configuration is valid\n"),
    }?;
    Ok(0)
}
