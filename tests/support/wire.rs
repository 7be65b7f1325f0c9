//! Connections by hand, in plain text or inside TLS, for those who keep to no rule.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use metad::tls::files::PemFiles;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use tempfile::TempDir;

use super::node::NodeBuilder;
use super::papers::Papers;

const TIMEOUT: Duration = Duration::from_secs(5);

/// What nodes speak.
pub enum Net {
    Plain,
    Tls { papers: Papers, _dir: TempDir },
}

/// What a connection speaks, and who is at this end of it.
#[derive(Clone, Copy)]
pub enum Speaks {
    Http1,
    Http2,
    /// HTTP/1.1 by one who may read.
    ReaderOfHttp1,
}

/// A connection; with TLS its handshake is over.
pub enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

// === impl Net ===

impl Net {
    /// Of an authority of its own.
    pub fn tls() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        Self::Tls { papers: Papers::create(&dir.path().join("papers"), &["unused"]), _dir: dir }
    }

    /// This node speaks it.
    pub fn of(&self, builder: NodeBuilder) -> NodeBuilder {
        match self {
            Net::Plain => builder,
            Net::Tls { papers, .. } => papers.of(builder),
        }
    }

    /// What a command of one with this certificate shows.
    pub fn shown(&self, name: &str) -> Vec<String> {
        match self {
            Net::Plain => Vec::new(),
            Net::Tls { papers, .. } => papers.certificate(name),
        }
    }

    /// For many connections.
    pub fn dialer(&self, speaks: Speaks) -> Dialer {
        let Net::Tls { papers, .. } = self else { return Dialer(None) };
        let file = |kind: &str| {
            matches!(speaks, Speaks::ReaderOfHttp1).then(|| papers.path(&format!("reader.{kind}")))
        };
        let files = PemFiles { ca: Some(papers.path("ca.pem")), cert: file("pem"), key: file("key") };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(files.roots().expect("an authority"));
        let mut config = match files.identity().expect("a certificate") {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).expect("a certificate"),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = match speaks {
            Speaks::Http2 => vec![b"h2".to_vec()],
            Speaks::Http1 | Speaks::ReaderOfHttp1 => vec![b"http/1.1".to_vec()],
        };
        Dialer(Some(Arc::new(config)))
    }

    /// Status code and body of a reader's `GET path`.
    pub fn get(&self, at: SocketAddr, path: &str) -> io::Result<(u16, String)> {
        let mut wire = self.dialer(Speaks::ReaderOfHttp1).dial(at)?;
        write!(wire, "GET {path} HTTP/1.0\r\nHost: {at}\r\n\r\n")?;
        let answer = wire.read_all()?;
        super::http::parse(&String::from_utf8_lossy(&answer))
            .ok_or_else(|| io::Error::other("not an HTTP answer"))
    }
}

/// Makes connections of one kind.
#[derive(Clone)]
pub struct Dialer(Option<Arc<ClientConfig>>);

// === impl Dialer ===

impl Dialer {
    /// Each read and write of it is bounded in time.
    pub fn dial(&self, at: SocketAddr) -> io::Result<Wire> {
        let mut stream = TcpStream::connect_timeout(&at, TIMEOUT)?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let Some(config) = &self.0 else { return Ok(Wire::Plain(stream)) };
        let name = ServerName::IpAddress(at.ip().into());
        let mut tls = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut stream)?;
        }
        Ok(Wire::Tls(Box::new(StreamOwned::new(tls, stream))))
    }
}

// === impl Wire ===

impl Wire {
    /// The connection below TLS.
    pub fn tcp(&mut self) -> &mut TcpStream {
        match self {
            Wire::Plain(stream) => stream,
            Wire::Tls(stream) => &mut stream.sock,
        }
    }

    /// What comes until the other side closes it, whether it says so in TLS's way or not.
    pub fn read_all(&mut self) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        match self.read_to_end(&mut all) {
            Err(e) if e.kind() != io::ErrorKind::UnexpectedEof => Err(e),
            _ => Ok(all),
        }
    }

    /// Has the other side closed or reset it? What it has said before is lost.
    pub fn is_closed(&mut self) -> bool {
        let is_late = |e: &io::Error| matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
        !self.read_all().is_err_and(|e| is_late(&e))
    }

    /// The frames of HTTP/2 that come until one is of these kinds, or nothing comes any more: kind and content.
    pub fn read_frames(&mut self, last: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut frames = Vec::new();
        while let Ok((kind, content)) = self.read_frame() {
            frames.push((kind, content));
            if last.contains(&kind) {
                break;
            }
        }
        frames
    }

    fn read_frame(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut head = [0; 9];
        self.read_exact(&mut head)?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut content = vec![0; length];
        self.read_exact(&mut content)?;
        Ok((head[3], content))
    }
}

impl Read for Wire {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        match self {
            Wire::Plain(stream) => stream.read(to),
            Wire::Tls(stream) => stream.read(to),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        match self {
            Wire::Plain(stream) => stream.write(from),
            Wire::Tls(stream) => stream.write(from),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Wire::Plain(stream) => stream.flush(),
            Wire::Tls(stream) => stream.flush(),
        }
    }
}
