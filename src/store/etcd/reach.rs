//! Why an endpoint does not answer as etcd should: one look at the bare connection.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tonic::transport::Uri;

use crate::limits::descriptors::is_exhausted;
use crate::store::probe::Finding;

/// How much of an answer is looked at.
const ANSWER_BYTES_MAX: usize = 1024;

/// Where a member listens if its URL names no port.
const CLIENT_PORT: u16 = 2379;

/// A TLS client's first message, as short as it can be. Whoever speaks TLS answers it with a record, be it an alert.
const CLIENT_HELLO: [u8; 52] = {
    let mut hello = [0; 52];
    // record: handshake, TLS 1.0, 47 bytes; handshake: client hello, 43 bytes, TLS 1.2, 32 bytes of randomness
    // (zeros do), no session; one cipher suite, one compression method.
    let head = [0x16, 3, 1, 0, 47, 1, 0, 0, 43, 3, 3];
    let tail = [0, 0, 2, 0xc0, 0x2f, 1, 0, 0, 0];
    let mut i = 0;
    while i < head.len() {
        hello[i] = head[i];
        i += 1;
    }
    let mut i = 0;
    while i < tail.len() {
        hello[43 + i] = tail[i];
        i += 1;
    }
    hello
};

/// What is found at `url`, where nothing takes longer than `timeout`.
pub(super) async fn look(url: &str, timeout: Duration) -> Finding {
    let question = format!("GET /version HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", address_of(url));
    let addresses = match tokio::time::timeout(timeout, resolve(url)).await {
        Ok(Ok(addresses)) => addresses,
        Ok(Err(finding)) => return finding,
        Err(_) => return Finding::Unresolvable(format!("no name server answers within {timeout:?}")),
    };
    let stream = match connect(&addresses, timeout).await {
        Ok(stream) => stream,
        Err(finding) => return finding,
    };
    let seen = async {
        match ask(stream, question.as_bytes()).await {
            answer if !answer.is_empty() => judge(url, &answer),
            // Some servers that speak TLS close on what is none.
            _ => match connect(&addresses, timeout).await {
                Ok(stream) => match ask(stream, &CLIENT_HELLO).await {
                    answer if !answer.is_empty() => judge(url, &answer),
                    _ => Finding::NotEtcd("it closes connections without an answer".to_owned()),
                },
                Err(finding) => finding,
            },
        }
    };
    tokio::time::timeout(timeout, seen).await.unwrap_or(Finding::Hangs)
}

fn address_of(url: &str) -> &str {
    url.split("://").last().unwrap_or(url).trim_end_matches('/')
}

async fn resolve(url: &str) -> Result<Vec<SocketAddr>, Finding> {
    let uri: Uri = url
        .parse()
        .map_err(|e: tonic::codegen::http::uri::InvalidUri| Finding::Unresolvable(e.to_string()))?;
    let found = lookup_host(host_and_port(&uri)).await;
    Ok(found.map_err(|e| Finding::Unresolvable(e.to_string()))?.collect())
}

/// What a name server is asked for, and the port there.
pub(super) fn host_and_port(uri: &Uri) -> (&str, u16) {
    (uri.host().unwrap_or_default().trim_matches(['[', ']']), uri.port_u16().unwrap_or(CLIENT_PORT))
}

/// To the first of these addresses that accepts, each for its part of the time. What a host says itself counts more than
/// that another one could not be reached.
async fn connect(addresses: &[SocketAddr], timeout: Duration) -> Result<TcpStream, Finding> {
    let each = timeout / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    let mut why = None;
    for address in addresses {
        let finding = match tokio::time::timeout(each, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(e)) if e.kind() == std::io::ErrorKind::ConnectionRefused => Finding::NothingListens,
            Ok(Err(e)) if is_exhausted(&e) => Finding::OwnLimits,
            Ok(Err(e)) => Finding::Unreachable(e.to_string()),
            Err(_) => Finding::Unreachable(format!("no connection within {each:?}")),
        };
        if !matches!(
            (&why, &finding),
            (Some(Finding::NothingListens | Finding::OwnLimits), Finding::Unreachable(_))
        ) {
            why = Some(finding);
        }
    }
    Err(why.unwrap_or_else(|| Finding::Unresolvable("it has no address".to_owned())))
}

/// What is answered to these bytes; nothing, if the connection is closed.
async fn ask(mut stream: TcpStream, question: &[u8]) -> Vec<u8> {
    let mut answer = vec![0; ANSWER_BYTES_MAX];
    let exchange = async {
        stream.write_all(question).await?;
        stream.read(&mut answer).await
    };
    let n = exchange.await.unwrap_or(0); // a reset is a close
    answer.truncate(n);
    answer
}

fn judge(url: &str, answer: &[u8]) -> Finding {
    let text = String::from_utf8_lossy(answer);
    let is_tls = matches!(answer.first(), Some(0x15 | 0x16)) || text.contains("HTTPS server");
    let wants_tls = url.starts_with("https://");
    if is_tls {
        return if wants_tls {
            Finding::TlsFails("it is not said why".to_owned())
        } else {
            Finding::SpeaksTls
        };
    }
    // An etcd whose pages are elsewhere (--listen-client-http-urls) speaks HTTP/2 only: its first frame is SETTINGS.
    if answer.get(3) == Some(&4) && answer.first() == Some(&0) {
        return Finding::IsLate;
    }
    if text.contains("etcdserver") {
        return if wants_tls { Finding::NoTls } else { Finding::IsLate };
    }
    if text.contains(r#""name":"metad""#) {
        return Finding::NotEtcd("it is metad's own HTTP port".to_owned());
    }
    let first: String =
        text.lines().next().unwrap_or_default().chars().filter(|c| !c.is_control()).take(60).collect();
    Finding::NotEtcd(format!("it answers {first:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_answer_is_told_from_the_others() {
        let etcd = b"HTTP/1.1 200 OK\r\n\r\n{\"etcdserver\":\"3.4.23\"}";
        let not_etcd = |what: &str| Finding::NotEtcd(what.to_owned());
        for (url, answer, found) in [
            ("http://h:1", &b"\x15\x03\x01"[..], Finding::SpeaksTls),
            (
                "http://h:1",
                &b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server."[..],
                Finding::SpeaksTls,
            ),
            ("https://h:1", &b"\x15\x03\x01"[..], Finding::TlsFails("it is not said why".to_owned())),
            ("https://h:1", &etcd[..], Finding::NoTls),
            ("http://h:1", &etcd[..], Finding::IsLate),
            (
                "http://h:1",
                &b"HTTP/1.1 404 Not Found\r\nServer: nginx"[..],
                not_etcd("it answers \"HTTP/1.1 404 Not Found\""),
            ),
            (
                "http://h:1",
                &b"HTTP/1.1 200 OK\r\n\r\n{\"name\":\"metad\",\"version\":\"0.1.0\"}"[..],
                not_etcd("it is metad's own HTTP port"),
            ),
        ] {
            assert_eq!(judge(url, answer), found, "{url} {}", String::from_utf8_lossy(answer));
        }
    }
}
