//! The client's side: whom it trusts, which certificate it shows, and which token.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::AsyncBufReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::files::{FileError, Fingerprint, PemFiles, follow_changes, read};
use super::provider;

/// A connection to a member that shows the token with each call.
pub type Authorized = InterceptedService<Channel, Bearer>;

/// The files of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CredentialFiles {
    /// Without authorities the connection is not encrypted.
    pub pem: PemFiles,
    /// The token.
    pub token: Option<PathBuf>,
}

/// What a client shows, as its files had it last; by default nothing, on connections that are not encrypted. Clones share
/// it.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    files: Arc<CredentialFiles>,
    /// What the files were like before they were read first.
    seen: Arc<Fingerprint>,
    present: Arc<Mutex<Present>>,
}

#[derive(Clone, Default)]
struct Present {
    tls: Option<Arc<ClientConfig>>,
    bearer: Option<MetadataValue<Ascii>>,
}

/// Adds the present token to each call; in plain text only on this machine.
#[derive(Clone, Debug)]
pub struct Bearer {
    credentials: Credentials,
    is_here: bool,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct NoConnection {
    what: String,
    /// Nobody was reached. Otherwise somebody answers there, and it came to no agreement.
    pub is_unreached: bool,
}

/// Encrypted or not.
type ClientStream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// Connects, with TLS if there are authorities.
#[derive(Clone, Debug)]
struct Connector(Credentials);

// === impl CredentialFiles ===

impl CredentialFiles {
    /// All files that are named.
    pub fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.pem.paths().chain(&self.token)
    }
}

// === impl Credentials ===

impl Credentials {
    /// Reads the files.
    ///
    /// # Errors
    /// A file cannot be read or used.
    pub fn open(files: CredentialFiles) -> Result<Self, FileError> {
        let seen = Arc::new(Fingerprint::of(files.paths()));
        let present = Arc::new(Mutex::new(Present::read(&files)?));
        Ok(Self { files: Arc::new(files), seen, present })
    }

    /// Reads the files again: calls from now on show their token, and connections from now on their certificate.
    ///
    /// # Errors
    /// A file cannot be read or used; what was in force stays.
    pub fn reload(&self) -> Result<(), FileError> {
        let fresh = Present::read(&self.files)?;
        *self.present() = fresh;
        Ok(())
    }

    /// Are connections encrypted?
    pub fn is_encrypted(&self) -> bool {
        self.present().tls.is_some()
    }

    /// Reads the files again whenever one has changed since they were read first, for as long as this is polled. `say` is told
    /// what cannot be used.
    pub async fn follow_changes(self, say: impl Fn(&str)) {
        let paths: Vec<PathBuf> = self.files.paths().cloned().collect();
        let (seen, credentials) = (Fingerprint::clone(&self.seen), self.clone());
        let say = |outcome: Result<(), &str>| {
            if let Err(why) = outcome {
                say(why);
            }
        };
        follow_changes(paths, seen, move || credentials.reload(), say).await;
    }

    /// Connects when it is used, and again when the connection has broken.
    pub fn connect_lazily(&self, endpoint: &Endpoint) -> Authorized {
        self.authorize(endpoint, endpoint.connect_with_connector_lazy(Connector(self.clone())))
    }

    /// Connects.
    ///
    /// # Errors
    /// Nobody answers there, or not with the certificate that is expected.
    pub async fn connect(&self, endpoint: &Endpoint) -> Result<Authorized, tonic::transport::Error> {
        let channel = endpoint.connect_with_connector(Connector(self.clone())).await?;
        Ok(self.authorize(endpoint, channel))
    }

    fn authorize(&self, endpoint: &Endpoint, channel: Channel) -> Authorized {
        let host = host(endpoint.uri());
        let is_here = host.parse::<IpAddr>().map_or(host == "localhost", |ip| ip.is_loopback());
        InterceptedService::new(channel, Bearer { credentials: self.clone(), is_here })
    }

    fn present(&self) -> MutexGuard<'_, Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Present ===

impl Present {
    fn read(files: &CredentialFiles) -> Result<Self, FileError> {
        let PemFiles { ca, cert, key } = &files.pem;
        if let (None, Some(alone)) = (ca, cert.as_ref().or(key.as_ref())) {
            let what = "is shown over TLS only: name the CA of the members too (--tls-ca, tls.ca_file)";
            return Err(FileError::new(alone, what));
        }
        let tls = files.pem.ca.as_ref().map(|_| tls(&files.pem)).transpose()?;
        let bearer = files.token.as_deref().map(bearer).transpose()?;
        Ok(Self { tls, bearer })
    }
}

/// A token must not be seen in a debug output.
impl std::fmt::Debug for Present {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (has_tls, has_token) = (self.tls.is_some(), self.bearer.is_some());
        f.debug_struct("Present").field("tls", &has_tls).field("token", &has_token).finish()
    }
}

fn tls(files: &PemFiles) -> Result<Arc<ClientConfig>, FileError> {
    let refused = |e| {
        FileError::new(
            files.cert.as_deref().unwrap_or("(none)".as_ref()),
            format!("cannot be used with its key: {e}"),
        )
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(refused)?
        .with_root_certificates(files.roots()?);
    let mut config = match files.identity()? {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(refused)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

fn bearer(path: &Path) -> Result<MetadataValue<Ascii>, FileError> {
    let bytes = read(path)?;
    let text = std::str::from_utf8(&bytes).unwrap_or_default().trim();
    let unusable = |_| FileError::new(path, "holds no token: it must be one line of printable ASCII");
    if text.is_empty() {
        return Err(FileError::new(path, "is empty; write the token into it"));
    }
    let mut value: MetadataValue<Ascii> = format!("Bearer {text}").parse().map_err(unusable)?;
    value.set_sensitive(true);
    Ok(value)
}

// === impl Bearer ===

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let present = self.credentials.present();
        if let Some(bearer) = present.bearer.clone().filter(|_| present.tls.is_some() || self.is_here) {
            request.metadata_mut().insert("authorization", bearer);
        }
        Ok(request)
    }
}

// === impl Connector ===

impl Service<Uri> for Connector {
    type Response = TokioIo<ClientStream>;
    type Error = NoConnection;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, NoConnection>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), NoConnection>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let tls = self.0.present().tls.clone();
        Box::pin(async move { connect(&uri, tls).await.map(TokioIo::new) })
    }
}

/// An IPv6 address without its brackets.
fn host(uri: &Uri) -> &str {
    uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
}

async fn connect(uri: &Uri, tls: Option<Arc<ClientConfig>>) -> Result<ClientStream, NoConnection> {
    let (host, port) = (host(uri), uri.port_u16().unwrap_or_default());
    let unreached = |e: io::Error| NoConnection { what: e.to_string(), is_unreached: true };
    let stream = TcpStream::connect((host, port)).await.map_err(unreached)?;
    stream.set_nodelay(true).map_err(unreached)?;
    let Some(config) = tls else { return Ok(Either::Left(stream)) };
    let failed = |what: String| NoConnection { what, is_unreached: false };
    let name = ServerName::try_from(host.to_owned())
        .map_err(|e| failed(format!("the TLS handshake failed: {e}")))?;
    let shows_certificate = config.client_auth_cert_resolver.has_certs();
    let shaken = TlsConnector::from(config).connect(name, stream).await;
    let mut stream = shaken.map_err(|e| failed(explained(&e)))?;
    if shows_certificate {
        // With TLS 1.3 this side is done before the other has looked at the certificate; a server of HTTP/2 speaks first,
        // once it has.
        stream.fill_buf().await.map_err(|e| failed(explained(&e)))?;
    }
    Ok(Either::Right(Box::new(stream)))
}

/// What went wrong with a handshake, and what to do.
fn explained(error: &io::Error) -> String {
    use rustls::{AlertDescription as Alert, CertificateError as Bad, Error, InvalidMessage};
    let Some(cause) = error.get_ref().and_then(|e| e.downcast_ref::<Error>()) else {
        return format!("the TLS handshake failed: {error}");
    };
    let fix = match cause {
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            return "no TLS is spoken there: leave tls.ca_file (--tls-ca) out, or set tls.cert_file on that member"
                .to_owned();
        }
        Error::InvalidCertificate(Bad::UnknownIssuer | Bad::BadSignature) => {
            "its certificate is not signed by the CA in tls.ca_file (--tls-ca)"
        }
        Error::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => {
            "its certificate has expired: renew it"
        }
        Error::InvalidCertificate(Bad::NotValidYet | Bad::NotValidYetContext { .. }) => {
            "its certificate is not valid yet: compare the clocks"
        }
        Error::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => {
            "its certificate is for another name: use a name or address that is in it"
        }
        Error::AlertReceived(
            Alert::UnknownCA | Alert::CertificateUnknown | Alert::BadCertificate | Alert::DecryptError,
        ) => "it does not accept the certificate of this client, tls.cert_file (--tls-cert)",
        Error::AlertReceived(Alert::CertificateExpired) => {
            "the certificate of this client, tls.cert_file (--tls-cert), has expired: renew it"
        }
        _ => return format!("the TLS handshake failed: {cause}"),
    };
    format!("the TLS handshake failed: {fix} ({cause})")
}
