//! The files that say who we are and who may do what: read at the start, and again when they change.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::StartError;
use crate::api::auth::{Access, AccessRole, Grant, Security};
use crate::config::Config;
use crate::election::exit::Exit;
use crate::tls::client::{CredentialFiles, Credentials};
use crate::tls::files::{FileError, Fingerprint, PemFiles, follow_changes};
use crate::tls::server::ServerTls;

/// All that these files hold. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct SecurityFiles {
    pub(super) security: Security,
    /// What this node shows to others.
    pub(super) credentials: Credentials,
    /// All of them, each once.
    paths: Vec<PathBuf>,
    /// What they were like before they were read.
    seen: Fingerprint,
}

/// What a node with this configuration shows to others.
pub fn credential_files(config: &Config) -> CredentialFiles {
    CredentialFiles { pem: pem_files(config), token: config.auth.token_file.clone() }
}

fn pem_files(config: &Config) -> PemFiles {
    let tls = &config.tls;
    PemFiles { ca: tls.ca_file.clone(), cert: tls.cert_file.clone(), key: tls.key_file.clone() }
}

// === impl SecurityFiles ===

impl SecurityFiles {
    /// Reads the files that the configuration names.
    ///
    /// # Errors
    /// One cannot be read or used.
    pub(super) fn open(config: &Config) -> Result<Self, StartError> {
        let refused = |e: FileError| StartError {
            exit: Exit::Config,
            message: format!("{e}\nfix: correct the file, or name another one under [tls] or [auth]"),
        };
        let (files, shown, access_file) =
            (pem_files(config), credential_files(config), &config.auth.access_file);
        let named: BTreeSet<&PathBuf> = shown.paths().chain(access_file).collect();
        let paths: Vec<PathBuf> = named.into_iter().cloned().collect();
        let seen = Fingerprint::of(&paths);
        let tls = files.cert.is_some().then(|| ServerTls::open(files)).transpose().map_err(refused)?;
        let access = Access::from_files(tls.is_some(), access_file.clone()).map_err(refused)?;
        let credentials = Credentials::open(shown).map_err(refused)?;
        check_open_listeners(config)?;
        if let Some(tls) = &tls {
            warn_of_a_stranger(tls, config);
        }
        Ok(Self { security: Security { tls, access }, credentials, paths, seen })
    }

    /// Reads all of them again; each that can be used is in force from now on. `false`: there are none.
    ///
    /// # Errors
    /// The first that cannot be read or used.
    pub(super) fn reload(&self) -> Result<bool, FileError> {
        let Security { tls, access } = &self.security;
        let outcomes =
            [tls.as_ref().map_or(Ok(()), ServerTls::reload), access.reload(), self.credentials.reload()];
        outcomes.into_iter().collect::<Result<(), _>>()?;
        Ok(!self.paths.is_empty())
    }

    /// Reads them again whenever one has changed.
    pub(super) async fn follow_changes(self) {
        let (paths, seen) = (self.paths.clone(), self.seen.clone());
        let say = |outcome: Result<(), &str>| match outcome {
            Ok(()) => tracing::info!("certificates and tokens have changed; they apply from now on"),
            Err(why) => tracing::error!(
                "a certificate or token file has changed and cannot be used: {why}; its previous content stays in force"
            ),
        };
        follow_changes(paths, seen, move || self.reload().map(|_| ()), say).await;
    }
}

/// Other members must know this node as one of them.
fn warn_of_a_stranger(tls: &ServerTls, config: &Config) {
    let uris = tls.uris();
    let says_so = |grant: Grant| {
        grant.role == AccessRole::Member && grant.name.is_none_or(|name| name == config.node.id)
    };
    if config.auth.token_file.is_some() || uris.iter().filter_map(|uri| Grant::from_uri(uri)).any(says_so) {
        return;
    }
    let cert = config.tls.cert_file.as_deref().unwrap_or(Path::new("")).display();
    let id = &config.node.id;
    tracing::warn!(
        "{cert} does not have the URI metad:member:{id}: without auth.token_file other members refuse to prepare a \
         hand-over to them when this node leads"
    );
}

/// A configuration that was changed in memory has not been asked yet. What is open is said in any case.
fn check_open_listeners(config: &Config) -> Result<(), StartError> {
    let Some(exposure) = config.exposure() else { return Ok(()) };
    if !config.auth.insecure {
        let open = config.plain_listeners().join(" and ");
        let message = format!(
            "{open} can be reached from other machines, and without TLS any of them can make the leader step down\nfix: set \
             tls.ca_file, tls.cert_file and tls.key_file, or auth.insecure = true"
        );
        return Err(StartError { exit: Exit::Config, message });
    }
    tracing::warn!("{exposure}");
    Ok(())
}
