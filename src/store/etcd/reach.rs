//! Why an endpoint does not answer as etcd should: one look at the bare connection, for the error message.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::limits::descriptors::is_exhausted;
use crate::store::probe::Reach;

/// How much of an answer is looked at.
const ANSWER_BYTES_MAX: usize = 1024;

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

/// What becomes of a new connection to `url`.
pub(super) async fn reach(url: &str, timeout: Duration) -> Reach {
    match tokio::time::timeout(timeout, TcpStream::connect(address_of(url))).await {
        Ok(Ok(_)) => Reach::Open,
        Ok(Err(e)) if e.kind() == std::io::ErrorKind::ConnectionRefused => Reach::Refused,
        Ok(Err(e)) if is_exhausted(&e) => Reach::NotTried,
        Ok(Err(_)) | Err(_) => Reach::Nothing,
    }
}

fn address_of(url: &str) -> &str {
    url.split("://").last().unwrap_or(url).trim_end_matches('/')
}

/// Says in one sentence what is found at `url`, and what to do about it.
pub(super) async fn explain(url: &str, timeout: Duration) -> String {
    let address = address_of(url);
    let question = format!("GET /version HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    match ask(address, question.as_bytes(), timeout).await {
        Ok(answer) if !answer.is_empty() => judge(url, &answer),
        Ok(_) => judge(url, &ask(address, &CLIENT_HELLO, timeout).await.unwrap_or_default()),
        Err(e) if e.kind() == std::io::ErrorKind::TimedOut => {
            format!("{url}: no connection within {timeout:?}; check that the host is up and reachable")
        }
        Err(e) => format!("{url}: {e}; check that etcd runs there and that this is its client port"),
    }
}

/// What is answered to these bytes; nothing, if nothing is answered in time.
async fn ask(address: &str, question: &[u8], timeout: Duration) -> std::io::Result<Vec<u8>> {
    let mut stream = tokio::time::timeout(timeout, TcpStream::connect(address)).await??;
    let mut answer = vec![0; ANSWER_BYTES_MAX];
    let exchange = async {
        stream.write_all(question).await?;
        stream.read(&mut answer).await
    };
    let n = tokio::time::timeout(timeout, exchange).await.ok().and_then(Result::ok).unwrap_or(0);
    answer.truncate(n);
    Ok(answer)
}

fn judge(url: &str, answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    let is_tls = matches!(answer.first(), Some(0x15 | 0x16)) || text.contains("HTTPS server");
    let wants_tls = url.starts_with("https://");
    if is_tls && !wants_tls {
        return format!(
            "{url}: speaks TLS, but the endpoint is plain HTTP; write https:// and set store.etcd.ca_file"
        );
    }
    if is_tls {
        return format!(
            "{url}: speaks TLS, but the handshake fails; check store.etcd.ca_file, cert_file and key_file \
             (an etcd that requires a client certificate may just close the connection: broken pipe)"
        );
    }
    if text.contains("etcdserver") && wants_tls {
        return format!("{url}: is an etcd without TLS; write http://");
    }
    if text.contains("etcdserver") {
        return format!("{url}: etcd runs there; if it refuses requests, check its quorum");
    }
    if answer.is_empty() {
        return format!("{url}: accepts connections but sends no answer; it is hung, or not etcd");
    }
    let first: String =
        text.lines().next().unwrap_or_default().chars().filter(|c| !c.is_control()).take(60).collect();
    format!("{url}: is not etcd (it answers {first:?}); check the host and port")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_answer_has_its_own_advice() {
        let etcd = b"HTTP/1.1 200 OK\r\n\r\n{\"etcdserver\":\"3.4.23\"}";
        for (url, answer, says) in [
            ("http://h:1", &b"\x15\x03\x01"[..], "write https://"),
            (
                "http://h:1",
                &b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server."[..],
                "write https://",
            ),
            ("https://h:1", &b"\x15\x03\x01"[..], "ca_file, cert_file"),
            ("https://h:1", &etcd[..], "write http://"),
            ("http://h:1", &etcd[..], "quorum"),
            ("http://h:1", &b""[..], "sends no answer"),
            ("http://h:1", &b"HTTP/1.1 404 Not Found\r\nServer: nginx"[..], "is not etcd"),
        ] {
            let said = judge(url, answer);
            assert!(said.contains(says) && said.contains(url), "{said}");
        }
    }
}
