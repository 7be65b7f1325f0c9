//! The configuration: one TOML schema, four layers that are always merged, and an origin for every value.
//!
//! A value comes from the defaults, then the file, then the environment (`METAD_SECTION__KEY`), then the
//! flags; a later layer replaces single keys, never a whole layer. [`KEYS`] is the one list of keys: names of
//! variables, types, ranges, defaults, flags, suggestions, `config print` and `config/metad.toml` all come from it.
//!
//! [`load`] is the only way in. It reads one file (and the host name, when no node id is given) and nothing
//! else: it opens no store, binds no port and looks at no certificate, so `metad config check` is safe to run
//! beside a node at work. It never panics on what it reads; whatever is wrong is a [`ConfigError`] that names
//! the place, the value and the fix.
//!
//! This module must not know what the values are for beyond what makes them valid together.

mod address;
mod error;
mod file;
mod keys;
mod layers;
mod origin;
mod print;
mod store_kind;
mod suggest;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_errors;
mod validate;
mod value;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use error::ConfigError;
pub use keys::{Fallback, Flag, KEYS, Key, Kind};
pub use origin::{Origin, Origins, Spot};
pub use print::reference;
pub use store_kind::StoreKind;
pub use validate::check_name;

/// Everything that can be configured, with every default filled in. [`KEYS`] has the defaults and the ranges.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Who this process is and where it keeps its files.
    pub node: NodeConfig,
    /// The leadership and its main loop.
    pub meta: MetaConfig,
    /// Where the leadership record lives.
    pub store: StoreConfig,
    /// The gRPC listener.
    pub rpc: RpcConfig,
    /// The listener for probes, metrics and the page.
    pub http: HttpConfig,
    /// TLS.
    #[serde(default)]
    pub tls: TlsConfig,
    /// Who may do what.
    pub auth: AuthConfig,
    /// What is logged, and in which form.
    pub log: LogConfig,
    /// The limits of the checks.
    pub checks: ChecksConfig,
}

/// `[node]`: who this process is and where it keeps its files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// The name of this node, unique in the cluster.
    pub id: String,
    /// The name of the cluster; nodes of different clusters ignore each other.
    pub cluster: String,
    /// The directory that holds the node's identity.
    pub data_dir: PathBuf,
    /// Does the platform give the data dir to one process at most, wherever it runs?
    pub data_dir_exclusive: bool,
    /// Where the others reach us, `host:port`. `None` only while `listen_addr` has port 0; see
    /// [`NodeConfig::advertised`], which is the way to read this field.
    pub advertise_addr: Option<String>,
    /// Rank at a vacancy, higher first; 0 never leads.
    pub priority: u32,
    /// How long a member of a higher priority must be back before a leader makes way for it, in seconds; 0: never.
    pub failback_delay_secs: u64,
    /// A process that revokes the lease when this one dies.
    pub guardian: bool,
    /// The socket of a guardian beside this container.
    pub guardian_socket: Option<PathBuf>,
    /// So many file descriptors no client may use up.
    pub reserved_descriptors: u64,
}

/// `[meta]`: the leadership and its main loop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetaConfig {
    /// The lease on leadership, in seconds.
    pub meta_leader_lease_secs: u64,
    /// The election to take part in; members of one group elect one leader.
    pub group: String,
    /// Time the main loop gets to end on a planned stop, in seconds.
    pub stop_timeout_secs: u64,
    /// Time a new leader gets to start its main loop, in seconds.
    pub start_timeout_secs: u64,
    /// Time a main loop that stands by gets to be warm once its node leads, in seconds.
    pub warm_up_timeout_secs: u64,
    /// How long a main loop that gives signs of life may be silent, in seconds; 0: for ever.
    pub main_loop_timeout_secs: u64,
    /// A program and its arguments, which tells whether this node could lead; empty: none.
    pub probe_command: Vec<String>,
    /// Is the disk of the data dir probed?
    pub probe_disk: bool,
    /// From the beginning of one probe to that of the next, in seconds.
    pub probe_interval_secs: u64,
    /// What a probe may take, in seconds.
    pub probe_timeout_secs: u64,
    /// How long a leader's probe fails before it hands over, in seconds.
    pub probe_failure_secs: u64,
    /// What becomes of leadership when the program of `metad run` fails.
    pub restart: Restart,
    /// The shell command that is run at each change of leader; `None`: none.
    pub on_leader_change: Option<String>,
    /// How long it may take, in seconds.
    pub on_leader_change_timeout_secs: u64,
    /// Time between two ticks of the built-in main loop, in milliseconds; 0: none.
    pub tick_interval_ms: u64,
    /// How long a worker may be silent before it expires, in seconds.
    pub max_heartbeat_interval_secs: u64,
    /// Time between two barriers, in milliseconds.
    pub barrier_interval_ms: u64,
    /// Every n-th barrier is a checkpoint.
    pub checkpoint_frequency: u64,
    /// How long the workers have to collect a barrier, in milliseconds.
    pub barrier_collect_timeout_ms: u64,
    /// After so many dropped barriers in a row a worker is no longer waited for.
    pub barrier_failures_max: u64,
    /// The most barriers under way.
    pub in_flight_barrier_nums: u64,
}

/// What follows when the program of `metad run` exits with another code than 0, or is ended by a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// Leadership is given up, and the node ends with the program's code.
    No,
    /// The node goes on leading and starts it again.
    OnFailure,
}

/// `[store]`: where the leadership record lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    /// Which store is used.
    pub kind: StoreKind,
    /// The etcd cluster; read only when `kind` is [`StoreKind::Etcd`].
    pub etcd: EtcdConfig,
    /// The SQLite file; read only when `kind` is [`StoreKind::Sqlite`].
    pub sqlite: SqliteConfig,
}

/// `[store.etcd]`: how to reach the etcd cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EtcdConfig {
    /// The etcd members as they were configured; [`EtcdConfig::urls`] gives them with a scheme.
    pub endpoints: Vec<String>,
    /// PEM file with the authority that signed etcd's certificates.
    pub ca_file: Option<PathBuf>,
    /// PEM file with our certificate.
    pub cert_file: Option<PathBuf>,
    /// PEM file with the key of `cert_file`.
    pub key_file: Option<PathBuf>,
    /// The etcd user.
    pub username: Option<String>,
    /// The file that holds the password of `username`. No key holds a password itself.
    pub password_file: Option<PathBuf>,
    /// Time a TCP connection may take, in milliseconds.
    pub connect_timeout_ms: u64,
    /// Time one request may take, in milliseconds; not the keep-alive, which has its own rules.
    pub request_timeout_ms: u64,
    /// How long to wait for etcd at start before giving up with exit code 69, in seconds.
    pub start_timeout_secs: u64,
}

/// `[store.sqlite]`: the file that elects among the processes of one machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqliteConfig {
    /// The database file. Nodes elect among themselves only when they are given the same file.
    pub path: PathBuf,
    /// How long to wait for another process that holds the file's lock, in milliseconds.
    pub busy_timeout_ms: u64,
}

/// `[rpc]`: the gRPC listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RpcConfig {
    /// Where to listen, `host:port`; port 0 lets the system choose.
    pub listen_addr: String,
    /// The most connections at once.
    pub max_connections: u64,
    /// The most connections of one address.
    pub max_connections_per_address: u64,
    /// The most connections on which nobody was let in yet.
    pub max_unauthenticated_connections: u64,
    /// The most calls and streams at once.
    pub max_requests: u64,
    /// The most calls and streams of one connection.
    pub max_requests_per_connection: u64,
    /// The most calls per second of those that show many things at once.
    pub max_costly_requests_per_sec: u64,
    /// The most mebibytes of requests that are being read.
    pub max_bytes_in_flight_mib: u64,
    /// Time from a connection to its first request, in seconds.
    pub first_request_timeout_secs: u64,
    /// How long a connection may be without a call, in seconds.
    pub idle_timeout_secs: u64,
    /// How long a client may take nothing of what is sent, in seconds.
    pub write_timeout_secs: u64,
}

/// `[http]`: the listener for probes, metrics and the page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpConfig {
    /// Where to listen, `host:port`; port 0 lets the system choose.
    pub listen_addr: String,
    /// Where browsers reach the page, `host:port`; see [`Config::page_address`], which is the way to read this field.
    pub advertise_addr: Option<String>,
    /// The most connections at once.
    pub max_connections: u64,
    /// The most connections of one address.
    pub max_connections_per_address: u64,
    /// The most connections on which nobody was let in yet.
    pub max_unauthenticated_connections: u64,
    /// The most requests per second for what is made anew for each.
    pub max_costly_requests_per_sec: u64,
    /// How long a connection may be without a request, in seconds.
    pub idle_timeout_secs: u64,
    /// The most readers of the events at once.
    pub max_event_readers: u64,
    /// Host names, separated by commas, under which the page may be asked for, besides those that no other site
    /// can have.
    pub allowed_hosts: Option<String>,
}

/// `[tls]`: TLS on both listeners and between members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// PEM file with the authority of members and clients.
    pub ca_file: Option<PathBuf>,
    /// PEM file with this node's certificate.
    pub cert_file: Option<PathBuf>,
    /// PEM file with its key.
    pub key_file: Option<PathBuf>,
}

/// `[auth]`: who may do what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthConfig {
    /// The file with the roles of tokens.
    pub access_file: Option<PathBuf>,
    /// The file with the token that this node shows to others.
    pub token_file: Option<PathBuf>,
    /// May whoever reaches the listeners do anything?
    pub insecure: bool,
}

/// `[log]`: what is logged on stderr, and in which form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// Levels and modules, in the syntax of `RUST_LOG`, which is checked where it is used.
    pub filter: String,
    /// The form of a line.
    pub format: LogFormat,
}

/// `[checks]`: the limits that the checks hold against the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChecksConfig {
    /// How often a running node makes the cheap checks, in seconds; 0: never.
    pub interval_secs: u64,
    /// How many meta nodes there should be; 0: as many as are registered.
    pub expected_members: u64,
    /// So many unplanned changes of the leader within the window are no flapping yet.
    pub max_leader_changes: u64,
    /// The window in which changes of the leader are counted, in seconds.
    pub leader_change_window_secs: u64,
    /// The slowest percent of syncs to disk may take so long, in milliseconds.
    pub fsync_p99_ms: u64,
    /// The slowest percent of etcd's commits may take so long, in milliseconds.
    pub commit_p99_ms: u64,
    /// The slowest percent of round trips may take so long, in milliseconds.
    pub rtt_p99_ms: u64,
    /// The clocks of two members may differ by so much, in milliseconds.
    pub clock_skew_ms: u64,
    /// etcd's database may take so much of its quota, in percent.
    pub db_size_percent: u64,
}

/// The forms of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text when stderr is a terminal, JSON otherwise.
    Auto,
    /// One line of text per event.
    Text,
    /// One JSON object per event.
    Json,
}

/// A configuration with the story of its values.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The merged and valid configuration.
    pub config: Config,
    /// Where each value comes from.
    pub origins: Origins,
    /// What is allowed but probably not meant: one sentence each, for the log.
    pub warnings: Vec<String>,
    /// The merged layers that `config` was made from.
    table: toml::Table,
}

/// Reads, merges and validates: defaults, then `file`, then `env`, then `flags`.
///
/// `env` is usually [`process_env`]; names that do not begin with `METAD_`, or have no double underscore
/// (`METAD_CONFIG`, and what Kubernetes sets for a service called metad), belong to others. One that nobody reads is warned of.
/// `flags` are pairs of a key's path (`meta.meta_leader_lease_secs`) and its value as it was typed.
pub fn load(
    file: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
    flags: &[(&str, String)],
) -> Result<Loaded, ConfigError> {
    let mut layers = layers::Layers::defaults();
    let mut faults = Vec::new();
    if let Some(path) = file {
        for assignment in file::read(path)? {
            match assignment {
                Ok((key, value, origin)) => layers.set(key, value, origin),
                Err(fault) => faults.push(fault),
            }
        }
    }
    let unread = layers.add_env(env, &mut faults);
    layers.add_flags(flags, &mut faults);
    layers.compute_defaults();
    let (table, origins) = layers.finish();

    faults.extend(validate::values(&table, &origins));
    ConfigError::of(faults)?;
    let config: Config = table.clone().try_into().map_err(|error| ConfigError::schema(&error))?;
    ConfigError::of(validate::rules(&config, &origins))?;
    let mut warnings = validate::warnings(&config, &origins);
    warnings.extend(unread.iter().map(|name| suggest::for_unread(name)));
    Ok(Loaded { config, origins, warnings, table })
}

/// The variables of this process, for [`load`].
///
/// Unlike `std::env::vars` it does not panic on bytes that are not UTF-8: such names cannot be ours, and such
/// values are passed on with replacement characters.
pub fn process_env() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
}

/// Whose values a node tells: what the checks look at.
const TOLD: [&str; 12] = [
    "node.cluster",
    "node.advertise_addr",
    "node.data_dir",
    "node.id",
    "meta.",
    "store.",
    "checks.",
    "rpc.listen_addr",
    "http.listen_addr",
    "tls.",
    "auth.access_file",
    "auth.insecure",
];

/// A value as one would type it.
fn typed(key: &Key, value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(path) if matches!(key.kind, Kind::Path) => {
            let whole = std::path::absolute(path).ok()?;
            whole.to_str().map(str::to_owned)
        }
        toml::Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        toml::Value::Array(all) if all.is_empty() => None,
        toml::Value::Array(all) => Some(all.iter().filter_map(|v| v.as_str()).collect::<Vec<_>>().join(",")),
        other => Some(other.to_string()),
    }
}

// === impl Config ===

impl Config {
    /// The listeners that other machines can reach, and that speak no TLS.
    pub fn plain_listeners(&self) -> Vec<&'static str> {
        if self.tls.cert_file.is_some() {
            return Vec::new();
        }
        let all = [("rpc.listen_addr", &self.rpc.listen_addr), ("http.listen_addr", &self.http.listen_addr)];
        let open = all.into_iter().filter(|(_, address)| !address::is_loopback(address));
        open.map(|(path, _)| path).collect()
    }

    /// What those listeners let strangers do, in words; `None`: there are none.
    pub fn exposure(&self) -> Option<String> {
        let plain = self.plain_listeners().join(" and ");
        match &self.auth.access_file {
            _ if plain.is_empty() => None,
            Some(_) => Some(format!("auth.insecure: tokens travel unencrypted to {plain}")),
            None => Some(format!("auth.insecure: whoever reaches {plain} may do anything")),
        }
    }

    /// Is this configuration one that a node can run on? [`load`] has asked already; this is for a
    /// configuration that was changed in memory, and its errors know no line.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let table = toml::Table::try_from(self).map_err(|error| ConfigError::schema(&error))?;
        let origins = Origins::default();
        ConfigError::of(validate::values(&table, &origins))?;
        ConfigError::of(validate::rules(self, &origins))
    }

    /// What another process needs to know to look at this node as it looks at itself: keys, and values as one would type
    /// them. Paths are whole; a secret is a file, whose path is told.
    pub fn told(&self) -> Vec<(&'static str, String)> {
        let table = toml::Table::try_from(self).unwrap_or_default(); // plain values: this does not fail
        let is_used = |key: &Key| key.path != "store.sqlite.path" || self.store.file().is_some();
        let is_told = |key: &&Key| is_used(key) && TOLD.iter().any(|section| key.path.starts_with(section));
        let told = |key: &Key| Some((key.path, typed(key, layers::lookup(&table, key.path)?)?));
        KEYS.iter().filter(is_told).filter_map(told).collect()
    }

    /// The keys whose values differ, in the order of [`KEYS`].
    pub fn differences(&self, other: &Config) -> Vec<&'static str> {
        // A configuration is a table of plain values, so this does not fail.
        let table = |config: &Config| toml::Table::try_from(config).unwrap_or_default();
        let (mine, others) = (table(self), table(other));
        let differs = |path: &&str| layers::lookup(&mine, path) != layers::lookup(&others, path);
        KEYS.iter().map(|key| key.path).filter(differs).collect()
    }

    /// Where browsers reach the page, once its listener is bound to `bound`: the configured address; or `bound` itself,
    /// at the host where gRPC is advertised if it listens on all addresses.
    pub fn page_address(&self, bound: SocketAddr) -> String {
        let host = self.node.advertise_addr.as_deref().and_then(|address| address.rsplit_once(':'));
        match (&self.http.advertise_addr, host) {
            (Some(configured), _) => with_port_of(configured, bound),
            (None, Some((host, _))) if bound.ip().is_unspecified() => format!("{host}:{}", bound.port()),
            _ => bound.to_string(),
        }
    }
}

// === impl MetaConfig ===

impl MetaConfig {
    /// Takes over what `fresh` says of probes.
    pub fn take_probes(&mut self, fresh: &Self) {
        self.probe_command.clone_from(&fresh.probe_command);
        self.probe_disk = fresh.probe_disk;
        self.probe_interval_secs = fresh.probe_interval_secs;
        self.probe_timeout_secs = fresh.probe_timeout_secs;
        self.probe_failure_secs = fresh.probe_failure_secs;
    }
}

// === impl NodeConfig ===

impl NodeConfig {
    /// Where the others reach us, once the gRPC listener is bound to `bound`: the configured address, with a
    /// port of 0 replaced by the bound one; without a configured address, `bound` itself.
    pub fn advertised(&self, bound: SocketAddr) -> String {
        self.advertise_addr.as_deref().map_or_else(|| bound.to_string(), |at| with_port_of(at, bound))
    }
}

/// A configured address, with a port of 0 replaced by the bound one.
fn with_port_of(configured: &str, bound: SocketAddr) -> String {
    match configured.strip_suffix(":0") {
        Some(host) => format!("{host}:{}", bound.port()),
        None => configured.to_owned(),
    }
}

// === impl EtcdConfig ===

impl EtcdConfig {
    /// The endpoints as URLs. A bare `host:port` becomes `https://` when a CA or a certificate is configured,
    /// as etcdctl does it, and `http://` otherwise.
    pub fn urls(&self) -> Vec<String> {
        let scheme = if self.ca_file.is_some() || self.cert_file.is_some() { "https" } else { "http" };
        let with_scheme = |endpoint: &String| {
            let endpoint = endpoint.strip_suffix('/').unwrap_or(endpoint);
            if endpoint.contains("://") { endpoint.to_owned() } else { format!("{scheme}://{endpoint}") }
        };
        self.endpoints.iter().map(with_scheme).collect()
    }
}

// === impl Loaded ===

impl Loaded {
    /// What was loaded, as TOML that loads back to the same configuration; with `origins`, each line ends in a
    /// comment that says where its value comes from. Nothing has to be masked: no key holds a secret, the
    /// password of etcd is only named by its file.
    pub fn render(&self, origins: bool) -> String {
        print::render(&self.table, origins.then_some(&self.origins))
    }
}
