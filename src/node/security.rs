//! The files that say who we are and who may do what: read at the start, and again when they change.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::StartError;
use crate::api::auth::{Access, Security};
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
    /// What the files were like before they were read.
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
        let named = files.paths().chain(&shown.token).chain(access_file).cloned();
        let seen = Fingerprint::of(&sorted(named));
        let tls =
            files.cert.is_some().then(|| ServerTls::open(files.clone())).transpose().map_err(refused)?;
        let access = Access::from_files(tls.is_some(), access_file.clone()).map_err(refused)?;
        let credentials = Credentials::open(shown).map_err(refused)?;
        check_open_listeners(config)?;
        let shows_token = config.auth.token_file.is_some();
        if let Some(tls) = tls.as_ref().filter(|tls| !shows_token && !tls.is_member(&config.node.id)) {
            let (cert, id) = (tls.certificate_path().display(), &config.node.id);
            tracing::warn!(
                "{cert} does not have the URI metad:member:{id}: without auth.token_file other members refuse to prepare a \
                 hand-over to them when this node leads"
            );
        }
        Ok(Self { security: Security { tls, access }, credentials, seen })
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
        Ok(!self.paths().is_empty())
    }

    /// Reads them again whenever one has changed.
    pub(super) async fn follow_changes(self) {
        let (paths, seen) = (self.paths(), self.seen.clone());
        let say = |outcome: Result<(), &str>| match outcome {
            Ok(()) => tracing::info!("certificates and tokens have changed; they apply from now on"),
            Err(why) => tracing::error!(
                "a certificate or token file has changed and cannot be used: {why}; its previous content stays in force"
            ),
        };
        follow_changes(paths, seen, move || self.reload().map(|_| ()), say).await;
    }

    fn paths(&self) -> Vec<PathBuf> {
        let Security { tls, access } = &self.security;
        let of_server = tls.iter().flat_map(ServerTls::paths).map(PathBuf::as_path);
        let of_client = self.credentials.paths().map(PathBuf::as_path);
        sorted(of_server.chain(of_client).chain(access.path().map(PathBuf::as_path)).map(Path::to_path_buf))
    }
}

/// Each once, in one order: their fingerprints are compared.
fn sorted(paths: impl Iterator<Item = PathBuf>) -> Vec<PathBuf> {
    paths.collect::<BTreeSet<_>>().into_iter().collect()
}

/// A configuration that was changed in memory has not been asked yet. What is open is said in any case.
fn check_open_listeners(config: &Config) -> Result<(), StartError> {
    let open = config.plain_listeners();
    if open.is_empty() {
        return Ok(());
    }
    let open = open.join(" and ");
    if !config.auth.insecure {
        let message = format!(
            "{open} can be reached from other machines, and without TLS any of them can make the leader step down\nfix: set \
             tls.ca_file, tls.cert_file and tls.key_file, or auth.insecure = true"
        );
        return Err(StartError { exit: Exit::Config, message });
    }
    match &config.auth.access_file {
        Some(_) => tracing::warn!("auth.insecure: tokens travel unencrypted to {open}"),
        None => {
            tracing::warn!("auth.insecure: whoever reaches {open} may do anything, including a step-down")
        }
    }
    Ok(())
}
