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

/// What says where a node keeps what it has.
const PLACES: [&str; 4] = ["store.kind", "store.etcd.endpoints", "store.sqlite.path", "node.data_dir"];

/// What a command that looks at a cluster knows of its settings.
pub(super) struct ClusterSettings {
    pub(super) loaded: Loaded,
    /// Where they come from, for people.
    pub(super) whose: String,
    pub(super) target: Addressees,
}

/// A node, and the settings that it tells.
struct TellingNode {
    id: String,
    address: String,
    told: Vec<(&'static str, String)>,
}

// === impl TellingNode ===

impl TellingNode {
    /// Is it the node that these settings are of, as far as they say? Whoever gives a store means one node of it.
    fn fits(&self, loaded: &Loaded) -> bool {
        let is_given = |path: &str| *loaded.origins.get(path) != Origin::Default;
        let ours = loaded.config.told();
        let same = |path: &str| value(&ours, path) == value(&self.told, path);
        let given: Vec<&str> = PLACES.into_iter().filter(|path| is_given(path)).collect();
        given.is_empty() || (same("node.id") && given.into_iter().all(same))
    }

    /// These settings, and the node's where nobody gave any. `None`: they do not go together here.
    fn fill_in(&self, args: &SettingArgs, loaded: &Loaded) -> Option<Loaded> {
        let is_given = |path: &str| *loaded.origins.get(path) != Origin::Default;
        let theirs = self.told.iter().filter(|(path, _)| !is_given(path)).cloned();
        let given: Vec<_> = args.keys.given().iter().cloned().chain(theirs).collect();
        config::load(file(args).as_deref(), config::process_env(), &given).ok()
    }
}

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

/// The same for a command that looks at a cluster: what nobody gave here is as the first of these nodes has it. A node of
/// another store, or another one than the configuration that is given here names, has nothing that fits.
pub(super) async fn load_as_a_node_has(
    args: &SettingArgs,
    meta: &MetaArgs,
) -> Result<ClusterSettings, Failure> {
    let loaded = load(args)?;
    let target = target::target_or_nothing(meta, security::credential_files(&loaded.config))?;
    let mut whose = match file(args) {
        Some(file) => file.display().to_string(),
        None => "this command".to_owned(),
    };
    let Some(node) = told_by(&target).await else {
        if file(args).is_none() {
            let asked = target.addresses.join(", ");
            whose += &format!(
                ": no configuration file is named (--config), and no node answers at {asked} (--meta)"
            );
        }
        return Ok(ClusterSettings { loaded, whose, target });
    };
    let fresh = node.fits(&loaded).then(|| node.fill_in(args, &loaded)).flatten();
    // What cannot be used here, such as a file of another machine, leaves us with what we have.
    let Some(fresh) = fresh else { return Ok(ClusterSettings { loaded, whose, target }) };
    let node = format!("{} at {}", node.id, node.address);
    whose = if file(args).is_some() { format!("{whose}; what it leaves open, of {node}") } else { node };
    Ok(ClusterSettings { loaded: fresh, whose, target })
}

/// The first of these nodes that answers and tells its settings.
async fn told_by(target: &Addressees) -> Option<TellingNode> {
    let answer = asking::first_of(target).await.ok()?;
    let address = answer.member.address().to_owned();
    let told = async { CheckClient::lazy(&address, &target.credentials, TIMEOUT)?.checks().await }.await;
    let settings = told.ok()?.settings; // an older node tells nothing
    let known = |key: &str| KEYS.iter().find(|known| known.path == key).map(|known| known.path);
    let told: Vec<_> =
        settings.into_iter().filter_map(|Setting { key, value }| Some((known(&key)?, value))).collect();
    let id = answer.leader.answerer.map(|a| a.node).unwrap_or_default();
    (!told.is_empty()).then_some(TellingNode { id, address, told })
}

fn value<'t>(told: &'t [(&'static str, String)], path: &str) -> Option<&'t str> {
    told.iter().find(|(key, _)| *key == path).map(|(_, value)| value.as_str())
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
