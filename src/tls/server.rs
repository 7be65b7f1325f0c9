//! The server's side: which certificate it shows, and what a client's says.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::TlsAcceptor;
use webpki::EndEntityCert;

use super::files::{FileError, PemFiles};
use super::provider;

/// How many names of one certificate are looked at.
const NAMES_MAX: usize = 16;

/// What both listeners show, as the files had it last. Clones share it.
#[derive(Clone, Debug)]
pub struct ServerTls {
    files: PemFiles,
    present: Arc<Mutex<Arc<ServerConfig>>>,
}

// === impl ServerTls ===

impl ServerTls {
    /// Reads the files: a certificate, its key, and the authorities of the clients. A client without a certificate is let
    /// in, as nobody; one whose certificate is not good is not.
    ///
    /// # Errors
    /// A file cannot be read or used.
    pub fn open(files: PemFiles) -> Result<Self, FileError> {
        let present = Arc::new(Mutex::new(config(&files)?));
        Ok(Self { files, present })
    }

    /// Reads the files again; connections from now on are made with what they hold.
    ///
    /// # Errors
    /// A file cannot be read or used; what was in force stays.
    pub fn reload(&self) -> Result<(), FileError> {
        let fresh = config(&self.files)?;
        *self.present.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// The file with the certificate.
    pub fn certificate_path(&self) -> &Path {
        self.files.cert.as_deref().unwrap_or(Path::new(""))
    }

    /// Does the certificate say that its bearer is this member, or any?
    pub fn is_member(&self, node: &str) -> bool {
        let Ok(Some((chain, _))) = self.files.identity() else { return false };
        let uris = chain.first().map(uris).unwrap_or_default();
        uris.iter().any(|uri| *uri == "metad:member" || *uri == format!("metad:member:{node}"))
    }

    /// The files.
    pub fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.files.paths()
    }

    /// For the next connection, which speaks this protocol.
    pub fn acceptor(&self, protocol: &'static [u8]) -> TlsAcceptor {
        let present = self.present.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut config = ServerConfig::clone(&present);
        config.alpn_protocols = vec![protocol.to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }
}

fn config(files: &PemFiles) -> Result<Arc<ServerConfig>, FileError> {
    let Some((chain, key)) = files.identity()? else {
        return Err(FileError::new(&PathBuf::from("(none)"), "no certificate is named"));
    };
    let refused = |path: &Option<PathBuf>, what: String| {
        FileError::new(path.as_deref().unwrap_or(&PathBuf::new()), what)
    };
    let clients = WebPkiClientVerifier::builder_with_provider(files.roots()?, provider())
        .allow_unauthenticated()
        .build()
        .map_err(|e| refused(&files.ca, format!("cannot verify clients: {e}")))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_client_cert_verifier(clients).with_single_cert(chain, key))
        .map_err(|e| refused(&files.cert, format!("cannot be used with its key: {e}")))?;
    // A session that is resumed is not verified again: its certificate may have expired meanwhile.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// The URIs among the names of a certificate that was verified.
pub fn uris(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(parsed) = EndEntityCert::try_from(certificate) else { return Vec::new() };
    parsed.valid_uri_names().take(NAMES_MAX).map(str::to_owned).collect()
}
