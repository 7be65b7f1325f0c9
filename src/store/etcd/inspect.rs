//! One etcd member, asked by itself, for diagnosis: what it says of itself, and how fast.
//!
//! Unlike the election, it also talks to a member that has no leader: that is what is to be found out. Every call
//! ends within a given time and every page within a given size, whoever answers.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{GetOptions, PutOptions};
use futures_util::TryFutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::body::Body;
use tonic::codegen::{Body as _, Service, http};

use super::convert::seconds;
use super::error::{chain, error, words};
use super::member::{Connection, Member};
use super::probe::{silence, within};
use super::{ConnectError, EtcdOptions};
use crate::clock::Clock;
use crate::election::lease::LeaseId;
use crate::election::record::Revision;
use crate::store::probe::{MemberStatus, Probe};
use crate::store::{Op, Refusal, Request, StoreError, Txn};

/// A login that nothing was answered under for so long may have ended.
const LOGIN_IDLE: Duration = Duration::from_secs(2);

/// A message that announces 2,139,062,143 bytes and sends none: whoever reads it names its own limit.
const ANNOUNCED: &str = "\0\u{7f}\u{7f}\u{7f}\u{7f}";
/// What etcd adds to `--max-request-bytes` for the limit of a message (`v3rpc/grpc.go`, `grpcOverheadBytes`).
const GRPC_OVERHEAD_BYTES: u64 = 512 * 1024;

/// The longest page that is read: etcd's metrics are a hundredth of it.
const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A member to be asked.
pub struct Inspector {
    member: Arc<Member>,
    clock: Arc<dyn Clock>,
    timeout: Duration,
}

/// A member as the cluster knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListedMember {
    /// Its id.
    pub id: u64,
    /// Its name; empty until it has started once.
    pub name: String,
    /// Where clients should reach it.
    pub client_urls: Vec<String>,
    /// Does it only listen?
    pub is_learner: bool,
}

// === impl Inspector ===

impl Inspector {
    /// A member at this endpoint. Each question may take `timeout`.
    ///
    /// # Errors
    /// The endpoint or a certificate cannot be used.
    pub fn new(
        endpoint: &str,
        options: &EtcdOptions,
        clock: Arc<dyn Clock>,
        timeout: Duration,
    ) -> Result<Self, ConnectError> {
        let member = Arc::new(Member::new(endpoint, options)?.also_without_leader());
        Ok(Self { member, clock, timeout })
    }

    /// Its URL.
    pub fn url(&self) -> &str {
        self.member.name()
    }

    /// Looks at it: one look takes `timeout` or a little longer.
    pub async fn probe(&self, question: &Request) -> Probe {
        self.member.probe(self.clock.as_ref(), question, self.timeout).await
    }

    /// What it says of itself.
    ///
    /// # Errors
    /// It does not answer in time, or not as an etcd.
    pub async fn status(&self) -> Result<MemberStatus, String> {
        let asked = within(self.timeout, self.member.status(self.clock.as_ref())).await;
        asked.map(|(status, _)| status).map_err(words)
    }

    /// Who belongs to the cluster.
    ///
    /// # Errors
    /// As [`Inspector::status`].
    pub async fn members(&self) -> Result<Vec<ListedMember>, String> {
        let mut connection = self.connection().await?;
        let listed = self.bounded(connection.client.member_list()).await.map_err(words)?;
        let one = |m: &etcd_client::Member| ListedMember {
            id: m.id(),
            name: m.name().to_owned(),
            client_urls: m.client_urls().to_vec(),
            is_learner: m.is_learner(),
        };
        Ok(listed.members().iter().map(one).collect())
    }

    /// A read that the member answers by itself: how long it took.
    ///
    /// # Errors
    /// As [`Inspector::status`].
    pub async fn read(&self, key: &str) -> Result<Duration, String> {
        let began = self.clock.now();
        let options = GetOptions::new().with_serializable().with_count_only();
        let mut connection = self.connection().await?;
        self.bounded(connection.client.get(key, Some(options))).await.map_err(words)?;
        Ok(self.clock.now().since(began))
    }

    /// A write that a majority has to agree to, under a lease: how long it took.
    ///
    /// # Errors
    /// As [`Inspector::status`].
    pub async fn write(&self, key: &str, value: &str, lease: LeaseId) -> Result<Duration, String> {
        let began = self.clock.now();
        let options = PutOptions::new().with_lease(lease.0);
        let mut connection = self.connection().await?;
        self.bounded(connection.client.put(key, value, Some(options))).await.map_err(words)?;
        Ok(self.clock.now().since(began))
    }

    /// Asks for a lease: its id, and what was granted.
    ///
    /// # Errors
    /// As [`Inspector::status`].
    pub async fn grant(&self, ttl: Duration) -> Result<(LeaseId, Duration), String> {
        let secs = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        let mut connection = self.connection().await?;
        let granted = self.bounded(connection.client.lease_grant(secs, None)).await.map_err(words)?;
        Ok((LeaseId(granted.id()), seconds(granted.ttl())))
    }

    /// Ends a lease, with all that hangs on it.
    ///
    /// # Errors
    /// As [`Inspector::status`].
    pub async fn revoke(&self, lease: LeaseId) -> Result<(), String> {
        let mut connection = self.connection().await?;
        self.bounded(connection.client.lease_revoke(lease.0)).await.map(drop).map_err(words)
    }

    /// Is this revision still readable, or was it compacted away?
    ///
    /// # Errors
    /// As [`Inspector::status`].
    pub async fn is_readable_at(&self, key: &str, at: Revision) -> Result<bool, String> {
        let options = GetOptions::new().with_serializable().with_count_only();
        let options = options.with_revision(i64::try_from(at.0).unwrap_or(i64::MAX));
        let mut connection = self.connection().await?;
        match self.bounded(connection.client.get(key, Some(options))).await {
            Ok(_) => Ok(true),
            Err(StoreError::Refused(Refusal::Compacted, _)) => Ok(false),
            Err(e) => Err(words(e)),
        }
    }

    /// `--max-request-bytes`, found out without sending any.
    ///
    /// # Errors
    /// As [`Inspector::status`], or it does not name its limit.
    pub async fn request_bytes_max(&self) -> Result<u64, String> {
        let exchange = async {
            let mut connection = self.connection().await?;
            let request = http::Request::post("/etcdserverpb.KV/Range")
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(Body::new(ANNOUNCED.to_owned()))
                .map_err(|e| e.to_string())?;
            let (head, body) = send(&mut connection, request).await?.into_parts();
            let trailers = read(body, "the answer", PAGE_BYTES_MAX).await?.1;
            let said = head.headers.get("grpc-message").or(trailers.get("grpc-message"));
            let text = said.and_then(|s| s.to_str().map(str::to_owned).ok()).unwrap_or_default();
            limit_in(&text).ok_or_else(|| format!("no limit found in {text:?}"))
        };
        let limit = tokio::time::timeout(self.timeout, exchange).await.map_err(|_| self.silence())??;
        Ok(limit.saturating_sub(GRPC_OVERHEAD_BYTES))
    }

    /// A page that the member serves on its client port, such as `/metrics`.
    ///
    /// # Errors
    /// It does not answer in time, with an error, or with more than 4 MiB.
    pub async fn page(&self, path: &str) -> Result<Vec<u8>, String> {
        let url = self.url().to_owned();
        let fetched = tokio::time::timeout(self.timeout, async {
            match url.strip_prefix("http://") {
                // Without TLS only HTTP/1 is served beside gRPC.
                Some(address) => plain_page(address, path, PAGE_BYTES_MAX).await,
                None => self.encrypted_page(path).await,
            }
        });
        fetched.await.unwrap_or_else(|_| Err(self.silence()))
    }

    async fn encrypted_page(&self, path: &str) -> Result<Vec<u8>, String> {
        let mut connection = self.connection().await?;
        let request = http::Request::get(path).body(Body::empty()).map_err(|e| e.to_string())?;
        let (head, body) = send(&mut connection, request).await?.into_parts();
        if head.status != http::StatusCode::OK {
            return Err(format!("{path} answers {}", head.status));
        }
        Ok(read(body, path, PAGE_BYTES_MAX).await?.0)
    }

    /// A connection, made if there is none. Nothing is sent yet, but for what a login takes.
    async fn connection(&self) -> Result<Connection, String> {
        if self.member.is_login_idle(self.clock.now(), LOGIN_IDLE) {
            // The token may be none any more, or one be needed now: this question gets another one then. It reads a key, because
            // one that touches none is answered without a login.
            let question = Request::Txn(Txn::read(vec![Op::Get("/metad/".to_owned())]));
            let asked = self.member.call(self.clock.as_ref(), &question);
            let _ = tokio::time::timeout(self.timeout, asked).await; // whatever is wrong, the real question says it
        }
        let made = tokio::time::timeout(self.timeout, self.member.connection(self.clock.now())).await;
        made.map_err(|_| self.silence())?.map_err(words)
    }

    async fn bounded<T>(
        &self,
        call: impl Future<Output = Result<T, etcd_client::Error>>,
    ) -> Result<T, StoreError> {
        within(self.timeout, call.map_err(|e| error(&e))).await
    }

    fn silence(&self) -> String {
        silence(self.timeout)
    }
}

async fn send(
    connection: &mut Connection,
    request: http::Request<Body>,
) -> Result<http::Response<Body>, String> {
    let ready = std::future::poll_fn(|cx| connection.channel.poll_ready(cx)).await;
    ready.map_err(|e| chain(&e))?;
    connection.channel.call(request).await.map_err(|e| chain(&e))
}

/// The data and the trailers of a body that is not too long.
async fn read(mut body: Body, path: &str, bytes_max: usize) -> Result<(Vec<u8>, http::HeaderMap), String> {
    let (mut data, mut trailers) = (Vec::new(), http::HeaderMap::new());
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        match frame.map_err(|e| chain(&e))?.into_data() {
            Ok(more) => data.extend_from_slice(&more),
            Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
        }
        if data.len() > bytes_max {
            return Err(too_long(path, bytes_max));
        }
    }
    Ok((data, trailers))
}

/// The second number in "received message larger than max (2147483647 vs. 2097152)".
fn limit_in(message: &str) -> Option<u64> {
    let (_, after) = message.split_once("vs. ").or_else(|| message.split_once("vs.%20"))?;
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

fn too_long(path: &str, bytes_max: usize) -> String {
    format!("{path} is longer than {} MiB, more than any etcd sends", bytes_max >> 20)
}

/// HTTP/1.0: the answer ends where the connection does, and is never in chunks.
async fn plain_page(address: &str, path: &str, bytes_max: usize) -> Result<Vec<u8>, String> {
    let address = address.trim_end_matches('/');
    let fail = |e: std::io::Error| e.to_string();
    let mut stream = TcpStream::connect(address).await.map_err(fail)?;
    let question = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(question.as_bytes()).await.map_err(fail)?;
    let mut answer = Vec::new();
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX);
    (&mut stream).take(limit).read_to_end(&mut answer).await.map_err(fail)?;
    if answer.len() >= bytes_max {
        return Err(too_long(path, bytes_max));
    }
    let Some(end) = answer.windows(4).position(|w| w == b"\r\n\r\n") else {
        return Err(format!("the answer to {path} is not HTTP"));
    };
    let head = String::from_utf8_lossy(&answer[..end]);
    let code = head.split_whitespace().nth(1).unwrap_or_default().to_owned();
    if code != "200" {
        return Err(format!("{path} answers {code:?}"));
    }
    answer.drain(..end + 4);
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_read_from_what_grpc_says() {
        let said = "grpc: received message larger than max (2139062143 vs. 2097152)";
        assert_eq!(limit_in(said), Some(2_097_152));
        assert_eq!(limit_in(&said.replace(' ', "%20")), Some(2_097_152));
        assert_eq!(limit_in("unknown method"), None);
    }
}
