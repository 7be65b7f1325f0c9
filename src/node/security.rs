//! The files that say who we are and who may do what: read at the start, and again when they change.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::StartError;
use crate::api::auth::{Access, Security};
use crate::config::Config;
use crate::election::exit::Exit;
use crate::tls::client::{CredentialFiles, Credentials};
use crate::tls::files::{FileError, Fingerprint, PemFiles};
use crate::tls::server::ServerTls;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// All that these files hold. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct SecurityFiles {
    pub(super) security: Security,
    /// What this node shows to others.
    pub(super) credentials: Credentials,
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
        let files = pem_files(config);
        let tls =
            files.cert.is_some().then(|| ServerTls::open(files.clone())).transpose().map_err(refused)?;
        let access = Access::open(tls.is_some(), config.auth.access_file.clone()).map_err(refused)?;
        let credentials = Credentials::open(credential_files(config)).map_err(refused)?;
        if config.auth.insecure && tls.is_none() {
            tracing::warn!(
                "auth.insecure: whoever reaches the listeners may do anything, make the leader step down too"
            );
        }
        Ok(Self { security: Security { tls, access }, credentials })
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

    /// Reads them again whenever one has changed. Whoever writes them may be in the middle of it: what cannot be used is
    /// looked at again with the next change.
    pub(super) async fn follow_changes(self) {
        let paths = self.paths();
        if paths.is_empty() {
            return std::future::pending().await;
        }
        let mut seen = look(paths.clone()).await;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = look(paths.clone()).await;
            if now == seen {
                continue;
            }
            seen = now;
            let security_files = self.clone();
            // On a thread of its own: the disk may hang, and then this waits.
            match tokio::task::spawn_blocking(move || security_files.reload()).await {
                Ok(Ok(_)) => tracing::info!("certificates and tokens have changed; they apply from now on"),
                Ok(Err(e)) => tracing::error!(
                    "certificates and tokens have changed and cannot be used: {e}; the old ones stay"
                ),
                Err(_) => {}
            }
        }
    }

    fn paths(&self) -> Vec<PathBuf> {
        let Security { tls, access } = &self.security;
        let of_server = tls.iter().flat_map(ServerTls::paths).map(PathBuf::as_path);
        let of_client = self.credentials.paths().map(PathBuf::as_path);
        let mut all: Vec<&Path> =
            of_server.chain(of_client).chain(access.path().map(PathBuf::as_path)).collect();
        all.sort_unstable();
        all.dedup();
        all.into_iter().map(Path::to_path_buf).collect()
    }
}

async fn look(paths: Vec<PathBuf>) -> Fingerprint {
    tokio::task::spawn_blocking(move || Fingerprint::of(&paths)).await.unwrap_or_default()
}
