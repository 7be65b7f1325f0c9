//! The server's side: which certificate it shows, and what a client's says.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::TlsAcceptor;
use webpki::EndEntityCert;

use super::files::{FileError, PemFiles};
use super::provider;

/// How many names of one certificate are looked at.
const NAMES_MAX: usize = 16;

/// What a connection speaks above TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// What both listeners show, as the files had it last. Clones share it.
#[derive(Clone, Debug)]
pub struct ServerTls {
    files: PemFiles,
    present: Arc<Mutex<ServerSide>>,
}

/// What one reading of the files has given.
#[derive(Clone, Debug)]
struct ServerSide {
    http1: Arc<ServerConfig>,
    http2: Arc<ServerConfig>,
    /// The URIs in the certificate.
    uris: Vec<String>,
}

// === impl ServerTls ===

impl ServerTls {
    /// Reads the files: a certificate, its key, and the authorities of the clients. A client without a certificate is let
    /// in, as nobody; one whose certificate is not good is not.
    ///
    /// # Errors
    /// A file cannot be read or used.
    pub fn open(files: PemFiles) -> Result<Self, FileError> {
        let present = Arc::new(Mutex::new(ServerSide::read(&files)?));
        Ok(Self { files, present })
    }

    /// Reads the files again; connections from now on are made with what they hold.
    ///
    /// # Errors
    /// A file cannot be read or used; what was in force stays.
    pub fn reload(&self) -> Result<(), FileError> {
        let fresh = ServerSide::read(&self.files)?;
        *self.present() = fresh;
        Ok(())
    }

    /// The URIs in the certificate that is shown.
    pub fn uris(&self) -> Vec<String> {
        self.present().uris.clone()
    }

    /// For the next connection, which speaks this protocol.
    pub fn acceptor(&self, protocol: Protocol) -> TlsAcceptor {
        let present = self.present();
        TlsAcceptor::from(match protocol {
            Protocol::Http1 => present.http1.clone(),
            Protocol::Http2 => present.http2.clone(),
        })
    }

    fn present(&self) -> MutexGuard<'_, ServerSide> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl ServerSide ===

impl ServerSide {
    fn read(files: &PemFiles) -> Result<Self, FileError> {
        let Some((chain, key)) = files.identity()? else {
            return Err(FileError::new(Path::new("(none)"), "no certificate is named"));
        };
        let uris = chain.first().map(uris).unwrap_or_default();
        let mut http1 = config(files, chain, key)?;
        let mut http2 = http1.clone();
        http1.alpn_protocols = vec![b"http/1.1".to_vec()];
        http2.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { http1: Arc::new(http1), http2: Arc::new(http2), uris })
    }
}

fn config(
    files: &PemFiles,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, FileError> {
    let refused = |path: &Option<PathBuf>, what: String| {
        FileError::new(path.as_deref().unwrap_or(Path::new("(none)")), what)
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
    Ok(config)
}

/// The URIs among the names of a certificate that was verified.
pub fn uris(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(parsed) = EndEntityCert::try_from(certificate) else { return Vec::new() };
    parsed.valid_uri_names().take(NAMES_MAX).map(str::to_owned).collect()
}
