//! Opens the store that a configuration names: endpoints, certificates, passwords, files.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::Store;
use super::codec::Keys;
use super::etcd::inspect::Inspector;
use super::etcd::{ConnectError, EtcdOptions, EtcdStore, Login, TlsFiles};
use super::places::{Health, Places};
use super::sqlite::{self, SqliteStore};
use crate::clock::Clock;
use crate::config::{Config, EtcdConfig, StoreKind};
use crate::election::exit::Exit;
use crate::election::lease::LeaseTiming;

/// Why a store cannot be opened: what happened, to which value, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The SQLite file.
    #[error(transparent)]
    Sqlite(#[from] sqlite::OpenError),
    /// An endpoint or a certificate.
    #[error(transparent)]
    Etcd(#[from] ConnectError),
    /// A file that a key names.
    #[error("cannot read {file} ({key}): {why}\nfix: check the path, its permissions and its content")]
    File {
        /// The file.
        file: String,
        /// The key.
        key: &'static str,
        /// What went wrong.
        why: String,
    },
}

/// A store that was opened: the contract, and all that it can tell besides.
pub trait OpenStore: Store + Places + Health {
    /// Uses these certificates for every connection from now on; what is open stays open.
    ///
    /// # Errors
    /// They cannot be used; the old ones stay.
    fn use_certificates(&self, files: &TlsFiles) -> Result<(), ConnectError> {
        let _ = files;
        Ok(())
    }
}

impl OpenError {
    /// With which code a node ends that cannot open its store.
    pub fn exit(&self) -> Exit {
        match self {
            OpenError::Sqlite(sqlite::OpenError::Io { .. }) => Exit::Io,
            OpenError::Sqlite(_) | OpenError::Etcd(_) | OpenError::File { .. } => Exit::Config,
        }
    }
}

impl OpenStore for SqliteStore {}

impl OpenStore for EtcdStore {
    fn use_certificates(&self, files: &TlsFiles) -> Result<(), ConnectError> {
        EtcdStore::use_certificates(self, files)
    }
}

/// Opens it. Nothing is asked of etcd yet.
///
/// # Errors
/// See [`OpenError`].
pub async fn open(config: &Config, clock: Arc<dyn Clock>) -> Result<Arc<dyn OpenStore>, OpenError> {
    Ok(match config.store.kind {
        StoreKind::Sqlite => Arc::new(open_sqlite(config, Duration::ZERO, clock).await?),
        StoreKind::Etcd => Arc::new(EtcdStore::new(etcd_options(config, Duration::ZERO)?, clock)?),
    })
}

/// Opens it twice, for a node: for the election, where an answer is waited for as long as it can be of use, however slow
/// the store is; and for the main loop, whose writes must not stand in the way of renewals. A pin holds for both.
///
/// # Errors
/// See [`OpenError`].
pub async fn open_twice(
    config: &Config,
    clock: Arc<dyn Clock>,
) -> Result<[Arc<dyn OpenStore>; 2], OpenError> {
    let ttl = Duration::from_secs(config.meta.meta_leader_lease_secs);
    let timeout = LeaseTiming::new(ttl).answer_timeout();
    Ok(match config.store.kind {
        StoreKind::Sqlite => [
            Arc::new(open_sqlite(config, timeout, clock.clone()).await?),
            Arc::new(open_sqlite(config, Duration::ZERO, clock).await?),
        ],
        StoreKind::Etcd => {
            let first = EtcdStore::new(etcd_options(config, timeout)?, clock)?;
            let second = first.again(etcd_options(config, Duration::ZERO)?)?;
            [Arc::new(first), Arc::new(second)]
        }
    })
}

/// Reads the certificates again and has the stores use them; `false`: the configuration names none.
///
/// # Errors
/// A file that cannot be read or used; the old certificates stay.
pub fn reload_certificates(config: &Config, stores: &[Arc<dyn OpenStore>]) -> Result<bool, OpenError> {
    let Some(files) = tls(&config.store.etcd)? else { return Ok(false) };
    for store in stores {
        store.use_certificates(&files)?;
    }
    Ok(true)
}

/// One inspector for each configured etcd member. Nothing is asked of them yet.
///
/// # Errors
/// See [`OpenError`].
pub fn inspectors(
    config: &Config,
    clock: &Arc<dyn Clock>,
    timeout: Duration,
) -> Result<Vec<Inspector>, OpenError> {
    let options = etcd_options(config, Duration::ZERO)?;
    let one = |url: &String| Ok(Inspector::new(url, &options, clock.clone(), timeout)?);
    config.store.etcd.urls().iter().map(one).collect()
}

/// An inspector for an etcd member at a URL that nobody configured, with the configured certificates. It does not log
/// in: whoever may change etcd's member list would be sent the password, and in clear text if the URL says so.
///
/// # Errors
/// See [`OpenError`].
pub fn inspector_of_stranger(
    config: &Config,
    url: &str,
    clock: &Arc<dyn Clock>,
    timeout: Duration,
) -> Result<Inspector, OpenError> {
    let options = EtcdOptions { login: None, ..etcd_options(config, Duration::ZERO)? };
    Ok(Inspector::new(url, &options, clock.clone(), timeout)?)
}

/// The command with which an operator looks at the keys of the election.
pub fn look_command(config: &Config) -> String {
    let prefix = Keys::new(&config.node.cluster, &config.meta.group).election();
    match config.store.kind {
        StoreKind::Etcd => format!("etcdctl get --prefix {prefix}"),
        StoreKind::Sqlite => {
            let file = config.store.sqlite.path.display();
            let query = format!("SELECT key, CAST(value AS TEXT) FROM kv WHERE key LIKE '{prefix}%'");
            format!("sqlite3 {file} \"{query}\"")
        }
    }
}

async fn open_sqlite(
    config: &Config,
    timeout: Duration,
    clock: Arc<dyn Clock>,
) -> Result<SqliteStore, OpenError> {
    let busy = Duration::from_millis(config.store.sqlite.busy_timeout_ms);
    Ok(SqliteStore::open(&config.store.sqlite.path, busy, clock).await?.answer_within(timeout))
}

fn etcd_options(config: &Config, timeout: Duration) -> Result<EtcdOptions, OpenError> {
    let etcd = &config.store.etcd;
    let ttl = Duration::from_secs(config.meta.meta_leader_lease_secs);
    Ok(EtcdOptions {
        endpoints: etcd.urls(),
        tls: tls(etcd)?,
        login: login(etcd)?,
        connect_timeout: Duration::from_millis(etcd.connect_timeout_ms),
        request_timeout: Duration::from_millis(etcd.request_timeout_ms).max(timeout),
        hedge_max: LeaseTiming::new(ttl).leader_cadence(),
    })
}

fn tls(etcd: &EtcdConfig) -> Result<Option<TlsFiles>, OpenError> {
    let ca = etcd.ca_file.as_deref().map(|f| read(f, "store.etcd.ca_file")).transpose()?;
    let identity = match (&etcd.cert_file, &etcd.key_file) {
        (Some(certificate), Some(key)) => {
            Some((read(certificate, "store.etcd.cert_file")?, read(key, "store.etcd.key_file")?))
        }
        _ => None,
    };
    let asked = ca.is_some() || identity.is_some();
    Ok(asked.then_some(TlsFiles { ca, identity }))
}

fn login(etcd: &EtcdConfig) -> Result<Option<Login>, OpenError> {
    let (Some(user), Some(file)) = (&etcd.username, &etcd.password_file) else { return Ok(None) };
    let key = "store.etcd.password_file";
    let login = Login::new(user.clone(), file.clone()).map_err(|e| {
        let is_binary = e.kind() == std::io::ErrorKind::InvalidData;
        let why = if is_binary { "it is not UTF-8 text".into() } else { e.to_string() };
        OpenError::File { file: file.display().to_string(), key, why }
    })?;
    Ok(Some(login))
}

fn read(file: &Path, key: &'static str) -> Result<Vec<u8>, OpenError> {
    let failed =
        |e: std::io::Error| OpenError::File { file: file.display().to_string(), key, why: e.to_string() };
    std::fs::read(file).map_err(failed)
}
