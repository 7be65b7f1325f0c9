//! Who is at the other end of a connection, and the handshake that shows it.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use crate::telemetry::metrics::limits::Listener;
use crate::tls::server::{Protocol, ServerTls, uris};

/// How long one that speaks no TLS may take to read why.
const DRAIN_MAX: Duration = Duration::from_secs(1);
/// How a TLS handshake begins.
const HANDSHAKE_RECORD: u8 = 0x16;
/// To HTTP/2 in plain text: empty settings (9 bytes), then a GOAWAY of 0x40 bytes: stream 0, error 12 (INADEQUATE_SECURITY), and
/// words that clients show.
const PLAIN_HTTP2: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\0\x40\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0c\
    this port speaks TLS: connect with TLS (metad: --tls-ca)";
const _: () = assert!(PLAIN_HTTP2.len() == 9 + 9 + 0x40);
const PLAIN_HTTP1: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n\
    this port speaks TLS: use https://\n";

/// A connection, encrypted or not.
pub(super) type Transport = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// Who is at the other end: among the extensions of each request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Its address.
    pub address: IpAddr,
    /// The URIs in its certificate, which was verified; none without one.
    pub uris: Vec<String>,
}

/// Finds out who is there. Whoever does not speak TLS is told so, in words that its client shows.
pub(super) async fn shake_hands(
    stream: TcpStream,
    address: IpAddr,
    tls: Option<&ServerTls>,
    listener: Listener,
) -> io::Result<(Transport, Remote)> {
    let Some(tls) = tls else {
        return Ok((Either::Left(stream), Remote { address, uris: Vec::new() }));
    };
    let mut first = [0];
    if stream.peek(&mut first).await? == 1 && first[0] != HANDSHAKE_RECORD {
        let _ = tokio::time::timeout(DRAIN_MAX, refuse_plain(stream, listener)).await;
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it speaks no TLS"));
    }
    let protocol = match listener {
        Listener::Grpc => Protocol::Http2,
        Listener::Http => Protocol::Http1,
    };
    let stream = tls.acceptor(protocol).accept(stream).await?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let uris = certificate.map(uris).unwrap_or_default();
    Ok((Either::Right(Box::new(stream)), Remote { address, uris }))
}

async fn refuse_plain(mut stream: TcpStream, listener: Listener) -> io::Result<()> {
    stream
        .write_all(match listener {
            Listener::Grpc => PLAIN_HTTP2,
            Listener::Http => PLAIN_HTTP1,
        })
        .await?;
    stream.shutdown().await?;
    // Closed with unread bytes, the connection would be reset, and the words lost.
    let mut rest = [0; 1024];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}
