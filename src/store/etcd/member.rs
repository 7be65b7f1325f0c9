//! One etcd member: its connection, made anew when it stays silent.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use etcd_client::{Client, ConnectOptions, MaintenanceClient};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, lookup_host};
use tonic::codegen::http;
use tonic::metadata::MetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Uri};
use tower::ServiceExt;

use super::super::{Refusal, Request, Response, StoreError};
use super::error::{chain, error, wants_a_new_login};
use super::login::Session;
use super::probe::told;
use super::{EtcdOptions, TlsFiles, convert, reach};
use crate::clock::{Clock, Instant};
use crate::proto::etcd::lease_client::LeaseClient;
use crate::store::probe::MemberStatus;

/// A member that left a request unanswered for so long gets a new connection: after a partition heals, the old
/// one may wait as long again for its next retransmission, a new one goes through at once.
const SILENT_AFTER: Duration = Duration::from_secs(1);
/// HTTP/2 pings merely clean up; etcd answers more than one in 5 s with GOAWAY (`--grpc-keepalive-min-time`).
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a name server may take before the addresses it gave last are used again.
const RESOLVE_TIMEOUT: Duration = Duration::from_millis(500);
/// How long after the last renewal a member's latency means anything.
const LATENCY_LASTS: Duration = Duration::from_secs(60);
/// How many renewals may be under way at one member: an attempt every 50 ms, each open for 8 s. Fewer are not
/// enough: what reaches a healthy member while etcd's leader hangs is stuck for 7 s, and a handful of such
/// attempts would keep out the one that the next leader, 1.4 s later, answers at once.
pub(super) const OPEN_RENEWALS_MAX: usize = 160;

/// An endpoint or a certificate that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the etcd endpoint {endpoint:?}: {why}")]
pub struct ConnectError {
    endpoint: String,
    why: String,
}

/// One member.
pub(super) struct Member {
    name: String,
    /// How to connect; replaced when there are new certificates.
    endpoint: Mutex<Endpoint>,
    /// Our login here, which outlives connections.
    session: Option<Arc<Session>>,
    connect_timeout: Duration,
    /// Does it have to know a leader to be asked?
    requires_leader: bool,
    slot: Mutex<Slot>,
    resolved: Mutex<Vec<SocketAddr>>,
    connecting: tokio::sync::Mutex<()>,
    /// Renewals under way here; see [`OPEN_RENEWALS_MAX`].
    pub(super) open_renewals: std::sync::atomic::AtomicUsize,
    /// The cluster it belonged to when it answered last; 0: not known.
    pub(super) cluster: std::sync::atomic::AtomicU64,
}

#[derive(Default)]
struct Slot {
    connection: Option<Connection>,
    /// When the newest connection was begun, be it in use yet or not.
    begun: Option<Instant>,
    /// When the oldest request left that has had no answer since.
    silent_since: Option<Instant>,
    renewals: Renewals,
}

/// How this member answers renewals, which are never cancelled.
#[derive(Default)]
struct Renewals {
    asked_at: Instant,
    /// When the oldest one left that has had no answer since.
    waiting_since: Option<Instant>,
    /// How long the last answer took.
    took: Duration,
}

/// When a connection is opened.
enum When {
    /// With its first request.
    Asked,
    Now,
}

/// A connection; clones share it.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) client: Client,
    /// For what a member tells without a leader, too.
    pub(super) maintenance: MaintenanceClient,
    pub(super) channel: Channel,
    session: Option<Arc<Session>>,
}

// === impl Member ===

impl Member {
    pub(super) fn new(endpoint: &str, options: &EtcdOptions) -> Result<Self, ConnectError> {
        let has_scheme = endpoint.contains("://");
        let scheme = if options.tls.is_some() { "https" } else { "http" };
        let url = if has_scheme { endpoint.to_owned() } else { format!("{scheme}://{endpoint}") };
        let fail = |why: String| ConnectError { endpoint: endpoint.to_owned(), why };
        let e = endpoint_of(&url, options.tls.as_ref(), options.connect_timeout).map_err(fail)?;
        Ok(Self {
            name: url,
            endpoint: Mutex::new(e),
            session: options.login.clone().map(Session::new).map(Arc::new),
            requires_leader: true,
            slot: Mutex::default(),
            resolved: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
            connect_timeout: options.connect_timeout,
            open_renewals: std::sync::atomic::AtomicUsize::new(0),
            cluster: std::sync::atomic::AtomicU64::new(0),
        })
    }

    /// How to connect with these certificates.
    pub(super) fn endpoint_with(&self, tls: &TlsFiles) -> Result<Endpoint, ConnectError> {
        let fail = |why: String| ConnectError { endpoint: self.name.clone(), why };
        endpoint_of(&self.name, Some(tls), self.connect_timeout).map_err(fail)
    }

    /// Connects so from now on. What is open stays open.
    pub(super) fn set_endpoint(&self, endpoint: Endpoint) {
        *self.endpoint.lock().unwrap_or_else(|e| e.into_inner()) = endpoint;
    }

    fn endpoint(&self) -> Endpoint {
        self.endpoint.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// The same member, asked also while it has no leader.
    pub(super) fn also_without_leader(self) -> Self {
        Self { requires_leader: false, ..self }
    }

    /// Its URL, for messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Asks this member, for as long as the caller waits. What it refuses because of our token is asked once more
    /// under a new one: it has not happened.
    pub(super) async fn call(
        self: &Arc<Self>,
        clock: &dyn Clock,
        request: &Request,
    ) -> Result<Response, StoreError> {
        let mut is_repeated = false;
        loop {
            let stamp = clock.now();
            let mut connection = self.connection(stamp).await?;
            let answer = convert::call(&mut connection.client, request).await;
            self.heard(stamp, !matches!(answer, Err(StoreError::Refused(Refusal::NotSent, _))));
            let wants_login = self.note_login(stamp, answer.as_ref().err());
            if !(wants_login && matches!(answer, Err(StoreError::Refused(..)))) || is_repeated {
                return answer;
            }
            is_repeated = true;
        }
    }

    /// Notes what an answer to a request that left at `stamp` says of our login; `true`: a new one is needed.
    pub(super) fn note_login(&self, stamp: Instant, failure: Option<&StoreError>) -> bool {
        let Some(session) = &self.session else { return false };
        match failure {
            None => session.worked(stamp),
            Some(e) if wants_a_new_login(e) => {
                session.refused(stamp);
                return true;
            }
            Some(_) => {}
        }
        false
    }

    /// Have we a login, and does it take none?
    pub(super) fn takes_no_login(&self) -> bool {
        self.session.as_ref().is_some_and(|s| s.is_open())
    }

    /// A request that left at `stamp` was refused for want of a login, where no error says so.
    pub(super) fn needs_login(&self, stamp: Instant) {
        if let Some(session) = &self.session {
            session.refused(stamp);
        }
    }

    /// Has nothing been answered under our login for so long?
    pub(super) fn is_login_idle(&self, now: Instant, for_so_long: Duration) -> bool {
        self.session.as_ref().is_some_and(|s| s.is_idle(now, for_so_long))
    }

    /// What it says of itself, under our login if it wants one.
    pub(super) async fn standing(self: &Arc<Self>, clock: &dyn Clock) -> Option<MemberStatus> {
        let stamp = clock.now();
        let mut connection = self.connection(stamp).await.ok()?;
        let status = connection.client.status().await.ok()?;
        self.heard(stamp, true);
        status.header().is_some().then(|| told(&status))
    }

    /// The connection, or a new one if there is none. Where the member has been silent for too long, the next one is made
    /// meanwhile.
    pub(super) async fn connection(self: &Arc<Self>, now: Instant) -> Result<Connection, StoreError> {
        let connection = self.connected(now).await?;
        if let Some(session) = &self.session {
            session.ready(&connection.channel, now).await?;
        }
        Ok(connection)
    }

    /// The same, be we logged in or not.
    pub(super) async fn connected(self: &Arc<Self>, now: Instant) -> Result<Connection, StoreError> {
        {
            let mut slot = self.slot();
            let silent = slot.silent_since.is_some_and(|since| now.since(since) >= SILENT_AFTER);
            let young = slot.begun.is_some_and(|at| now.since(at) < SILENT_AFTER);
            if slot.connection.is_some() && silent && !young {
                slot.begun = Some(now);
                tokio::spawn(self.clone().replace());
            }
            slot.silent_since.get_or_insert(now);
            if let Some(connection) = &slot.connection {
                return Ok(connection.clone());
            }
        }
        // One at a time: while there is no connection, many requests may want one.
        let _connecting = self.connecting.lock().await;
        if let Some(connection) = &self.slot().connection {
            return Ok(connection.clone());
        }
        let connection = self.connect(When::Asked).await?;
        let mut slot = self.slot();
        (slot.connection, slot.begun) = (Some(connection.clone()), Some(now));
        Ok(connection)
    }

    /// Puts a new connection in the place of one that is silent, once it is open. Until then the old one is used: behind
    /// a network so slow that no handshake ends in time, its answers still come.
    async fn replace(self: Arc<Self>) {
        let Ok(_connecting) = self.connecting.try_lock() else { return };
        if let Ok(fresh) = self.connect(When::Now).await {
            let mut slot = self.slot();
            slot.connection = Some(fresh);
            slot.silent_since = None;
        }
    }

    /// Notes that a request that left at `stamp` was answered, if only by an error of the member itself.
    pub(super) fn heard(&self, stamp: Instant, by_member: bool) {
        let mut slot = self.slot();
        if by_member
            && slot.silent_since.is_some_and(|since| stamp.since(since) > Duration::ZERO || stamp == since)
        {
            slot.silent_since = None;
        }
    }

    /// Notes that a renewal leaves now.
    pub(super) fn asked(&self, now: Instant) {
        let renewals = &mut self.slot().renewals;
        renewals.asked_at = now;
        renewals.waiting_since.get_or_insert(now);
    }

    /// Notes that a renewal that left at `stamp` was answered now.
    pub(super) fn answered(&self, stamp: Instant, now: Instant) {
        let renewals = &mut self.slot().renewals;
        renewals.took = now.since(stamp);
        renewals.waiting_since = renewals.waiting_since.filter(|since| since.boot_ns() > stamp.boot_ns());
    }

    /// How long it took to answer the last renewal, or has been silent; zero if none was sent lately.
    pub(super) fn latency(&self, now: Instant) -> Duration {
        let renewals = &self.slot().renewals;
        if now.since(renewals.asked_at) > LATENCY_LASTS {
            return Duration::ZERO;
        }
        renewals.waiting_since.map_or(renewals.took, |since| renewals.took.max(now.since(since)))
    }

    /// A client for renewals, with the header that they must carry.
    pub(super) fn lease_client(&self, connection: &Connection) -> LeaseClient<Channel> {
        LeaseClient::new(connection.channel.clone())
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(|e| e.into_inner())
    }

    async fn connect(&self, when: When) -> Result<Connection, StoreError> {
        let addresses = self.resolve().await?;
        // An address that swallows everything must leave time for the others.
        let each = self.connect_timeout / u32::try_from(addresses.len()).unwrap_or(1).max(1);
        let session = self.session.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let addresses = addresses.clone();
            session.iter().for_each(|session| session.connecting());
            async move {
                let stream = connect_to_one(&addresses, each).await?;
                stream.set_nodelay(true)?;
                Ok::<_, std::io::Error>(TokioIo::new(stream))
            }
        });
        let channel = match when {
            When::Asked => self.endpoint().connect_with_connector_lazy(connector),
            When::Now => {
                let opened = self.endpoint().connect_with_connector(connector).await;
                opened.map_err(|e| StoreError::Refused(Refusal::NotSent, e.to_string()))?
            }
        };
        let options = ConnectOptions::new().with_require_leader(self.requires_leader);
        let shared = match &self.session {
            None => etcd_client::Channel::Tonic(channel.clone()),
            Some(session) => under_token(channel.clone(), session.clone()),
        };
        let client = Client::from_channel(shared.clone(), Some(options)).await.map_err(|e| error(&e))?;
        let maintenance =
            Client::from_channel(shared, None).await.map_err(|e| error(&e))?.maintenance_client();
        Ok(Connection { client, maintenance, channel, session: self.session.clone() })
    }

    /// The member's addresses. A name server that does not answer must not keep us from reconnecting to a member
    /// whose addresses we know.
    async fn resolve(&self) -> Result<Vec<SocketAddr>, StoreError> {
        let endpoint = self.endpoint();
        let uri = endpoint.uri();
        let (host, port) = reach::host_and_port(uri);
        let fresh = tokio::time::timeout(RESOLVE_TIMEOUT, lookup_host((host, port))).await;
        let mut cached = self.resolved.lock().unwrap_or_else(|e| e.into_inner());
        match fresh {
            Ok(Ok(found)) => *cached = found.collect(),
            Ok(Err(e)) if cached.is_empty() => {
                return Err(StoreError::Refused(Refusal::NotSent, format!("cannot resolve {host:?}: {e}")));
            }
            _ => {}
        }
        if cached.is_empty() {
            return Err(StoreError::Refused(Refusal::NotSent, format!("{host:?} has no address")));
        }
        Ok(cached.clone())
    }
}

impl Connection {
    /// Puts on a request what etcd-client puts on its own: refuse without a leader, and the token.
    pub(super) fn dress<T>(&self, request: &mut tonic::Request<T>) {
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        if let Some(token) = self.session.as_ref().and_then(|s| s.token()) {
            request.metadata_mut().insert("token", token);
        }
    }
}

/// A channel on which each request carries the token as it is then.
fn under_token(channel: Channel, session: Arc<Session>) -> etcd_client::Channel {
    let with_token = move |mut request: http::Request<tonic::body::Body>| {
        let token = session.token().and_then(|t| http::HeaderValue::from_bytes(t.as_bytes()).ok());
        if let Some(token) = token {
            request.headers_mut().insert("token", token);
        }
        request
    };
    let service = channel.map_request(with_token).map_err(tower::BoxError::from);
    etcd_client::Channel::Custom(tower::util::BoxCloneSyncService::new(service))
}

async fn connect_to_one(addresses: &[SocketAddr], each: Duration) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match tokio::time::timeout(each, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(e)) => last = e,
            Err(_) => last = std::io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

/// The error is for the one who named the endpoint.
fn endpoint_of(url: &str, tls: Option<&TlsFiles>, connect_timeout: Duration) -> Result<Endpoint, String> {
    let e = Endpoint::from_shared(url.to_owned())
        .map_err(|e| e.to_string())?
        .connect_timeout(connect_timeout)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .tcp_nodelay(true);
    if !url.starts_with("https://") {
        return Ok(e);
    }
    let files = tls.cloned().unwrap_or_default();
    let mut tls = ClientTlsConfig::new().timeout(connect_timeout);
    if let Some(ca) = files.ca {
        tls = tls.ca_certificate(Certificate::from_pem(ca));
    }
    if let Some((certificate, key)) = files.identity {
        tls = tls.identity(Identity::from_pem(certificate, key));
    }
    e.tls_config(tls).map_err(|e| chain(&e))
}
