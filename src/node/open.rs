//! Opens what a node stands on: data dir, stores, certificates, passwords; each failure with its exit code.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::StartError;
use super::exit::Exit;
use crate::clock::Clock;
use crate::config::{Config, EtcdConfig, StoreKind};
use crate::driver::data_dir::{DataDir, DataDirError};
use crate::election::lease::LeaseTiming;
use crate::store::Store;
use crate::store::etcd::{EtcdOptions, EtcdStore, TlsFiles};
use crate::store::sqlite::{OpenError, SqliteStore};

type Stores = (Arc<dyn Store>, Arc<dyn Store>);

/// Takes the data dir.
pub(super) fn data_dir(config: &Config) -> Result<DataDir, StartError> {
    DataDir::open(&config.node.data_dir, &config.node.id).map_err(|e| {
        let exit = match &e {
            DataDirError::InUse { .. } => Exit::InUse,
            DataDirError::Io { .. } | DataDirError::Damaged { .. } => Exit::Io,
        };
        StartError { exit, message: e.to_string() }
    })
}

/// Opens the store twice: the main loop's writes must not stand in the way of renewals.
pub(super) async fn stores(config: &Config, clock: Arc<dyn Clock>) -> Result<Stores, StartError> {
    match config.store.kind {
        StoreKind::Sqlite => {
            let first = sqlite(config, clock.clone()).await?;
            Ok((first, sqlite(config, clock).await?))
        }
        StoreKind::Etcd => {
            let options = etcd_options(config)?;
            Ok((etcd(options.clone(), clock.clone())?, etcd(options, clock)?))
        }
    }
}

async fn sqlite(config: &Config, clock: Arc<dyn Clock>) -> Result<Arc<dyn Store>, StartError> {
    let busy = Duration::from_millis(config.store.sqlite.busy_timeout_ms);
    let opened = SqliteStore::open(&config.store.sqlite.path, busy, clock).await;
    opened.map(|s| Arc::new(s) as Arc<dyn Store>).map_err(|e| {
        let exit = if matches!(e, OpenError::Io { .. }) { Exit::Io } else { Exit::Config };
        StartError { exit, message: e.to_string() }
    })
}

fn etcd(options: EtcdOptions, clock: Arc<dyn Clock>) -> Result<Arc<dyn Store>, StartError> {
    let store = EtcdStore::new(options, clock);
    let store = store.map_err(|e| StartError { exit: Exit::Config, message: e.to_string() })?;
    Ok(Arc::new(store))
}

fn etcd_options(config: &Config) -> Result<EtcdOptions, StartError> {
    let etcd = &config.store.etcd;
    let ttl = Duration::from_secs(config.meta.meta_leader_lease_secs);
    Ok(EtcdOptions {
        endpoints: etcd.urls(),
        tls: tls(etcd)?,
        login: login(etcd)?,
        connect_timeout: Duration::from_millis(etcd.connect_timeout_ms),
        request_timeout: Duration::from_millis(etcd.request_timeout_ms),
        hedge_max: LeaseTiming::new(ttl).leader_cadence(),
    })
}

fn tls(etcd: &EtcdConfig) -> Result<Option<TlsFiles>, StartError> {
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

fn login(etcd: &EtcdConfig) -> Result<Option<(String, String)>, StartError> {
    let (Some(user), Some(file)) = (&etcd.username, &etcd.password_file) else { return Ok(None) };
    let password = String::from_utf8(read(file, "store.etcd.password_file")?).map_err(|_| StartError {
        exit: Exit::Config,
        message: format!(
            "store.etcd.password_file {} is not text\nfix: write the password as UTF-8",
            file.display()
        ),
    })?;
    // Editors and `echo` end a file with a line feed; a password does not.
    Ok(Some((user.clone(), password.trim_end_matches(['\r', '\n']).to_owned())))
}

fn read(file: &Path, key: &str) -> Result<Vec<u8>, StartError> {
    std::fs::read(file).map_err(|e| StartError {
        exit: Exit::Config,
        message: format!(
            "cannot read {} ({key}): {e}\nfix: check the path and its permissions",
            file.display()
        ),
    })
}
