//! One member, called over gRPC: every call has a deadline, and every error names the address.
//!
//! It neither looks for the leader nor tries again; [`super::MetaClient`] does.

use std::time::Duration;

use tonic::Code;
use tonic::transport::Endpoint;

use crate::clock::millis;
use crate::proto::metad::election_service_client::ElectionServiceClient;
use crate::proto::metad::{
    FreezeRequest, FreezeResponse, HistoryRequest, HistoryResponse, LeaderRequest, LeaderResponse,
    MembersRequest, MembersResponse, ObserveRequest, ObserveResponse, PrepareRequest, PrepareResponse,
    SetPriorityRequest, StepDownRequest, StepDownResponse, UnfreezeRequest, UnfreezeResponse,
};
use crate::tls::client::{Authorized, Credentials, NoConnection};

/// Why a member could not be asked.
#[derive(Clone, Debug, thiserror::Error)]
#[error("metad at {address}: {why}")]
pub struct CallError {
    /// Whom.
    pub address: String,
    /// What went wrong.
    pub why: String,
    /// It has answered that it will not. Otherwise nobody knows whether it does what was asked.
    pub is_refusal: bool,
    /// Nobody was reached: no connection, or no answer in time.
    pub is_unreached: bool,
}

/// A connection to one member.
#[derive(Clone, Debug)]
pub struct MemberClient {
    address: String,
    service: ElectionServiceClient<Authorized>,
    timeout: Duration,
}

impl CallError {
    /// There was no answer.
    pub fn silence(address: &str, why: String) -> Self {
        Self { address: address.to_owned(), why, is_refusal: false, is_unreached: true }
    }
}

impl MemberClient {
    /// Connects to a member at `host:port` with these credentials; this and every later call may take `timeout`.
    ///
    /// # Errors
    /// The address is malformed, or nobody answers there.
    pub async fn connect(address: &str, with: &Credentials, timeout: Duration) -> Result<Self, CallError> {
        let fail = |why: String| CallError::silence(address, why);
        let endpoint = endpoint(address, with, timeout)?;
        let channel = match tokio::time::timeout(timeout, with.connect(&endpoint)).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(e)) if answers(&e) => {
                // Nothing was asked.
                let (address, why) = (address.to_owned(), chain(&e));
                return Err(CallError { address, why, is_refusal: true, is_unreached: false });
            }
            Ok(Err(e)) => {
                return Err(fail(format!("{}; is it running, and is this its gRPC port?", chain(&e))));
            }
            Err(_) => return Err(fail(format!("no answer within {timeout:?}"))),
        };
        Ok(Self { address: address.to_owned(), service: ElectionServiceClient::new(channel), timeout })
    }

    /// Connects when it is used, and again when the connection has broken; every call may take `timeout`. Needs a
    /// runtime.
    ///
    /// # Errors
    /// The address is malformed.
    pub fn lazy(address: &str, with: &Credentials, timeout: Duration) -> Result<Self, CallError> {
        let service = ElectionServiceClient::new(with.connect_lazily(&endpoint(address, with, timeout)?));
        Ok(Self { address: address.to_owned(), service, timeout })
    }

    /// Whom this asks.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Who leads, as that member sees it.
    ///
    /// # Errors
    /// It does not answer in time, or with an error.
    pub async fn leader(&mut self) -> Result<LeaderResponse, CallError> {
        let call = self.service.leader(LeaderRequest {});
        bounded(&self.address, self.timeout, call).await
    }

    /// Who is registered, as that member sees it.
    ///
    /// # Errors
    /// It does not answer in time, or with an error.
    pub async fn members(&mut self) -> Result<MembersResponse, CallError> {
        let call = self.service.members(MembersRequest {});
        bounded(&self.address, self.timeout, call).await
    }

    /// The tenures that had not ended so long ago, `None`: all that are kept; at most `limit` of them, the newest.
    ///
    /// # Errors
    /// It does not answer in time, or with an error.
    pub async fn history(
        &mut self,
        since: Option<Duration>,
        limit: Option<u32>,
    ) -> Result<HistoryResponse, CallError> {
        let since_ms = since.map_or(0, millis);
        let request = HistoryRequest { since_ms, limit: limit.unwrap_or(0), page_token: String::new() };
        bounded(&self.address, self.timeout, self.service.history(request)).await
    }

    /// Asks the leader to hand over, to this member or to any. With `expected_token`, only if that is its token.
    ///
    /// # Errors
    /// It does not answer in time, does not lead (under that token), or does not know that member.
    pub async fn step_down(
        &mut self,
        to: Option<&str>,
        expected_token: Option<u64>,
    ) -> Result<StepDownResponse, CallError> {
        let request = StepDownRequest { to: to.unwrap_or_default().to_owned(), expected_token };
        bounded(&self.address, self.timeout, self.service.step_down(request)).await
    }

    /// Freezes the election, for so long or until somebody ends it; in the place of another freeze only with `replace`.
    ///
    /// # Errors
    /// It does not answer in time, or with an error.
    pub async fn freeze(
        &mut self,
        reason: &str,
        duration: Option<Duration>,
        replace: bool,
    ) -> Result<FreezeResponse, CallError> {
        let for_secs = duration.map_or(0, |duration| duration.as_secs().max(1));
        let request = FreezeRequest { reason: reason.to_owned(), for_secs, replace };
        bounded(&self.address, self.timeout, self.service.freeze(request)).await
    }

    /// Ends the freeze, if there is one.
    ///
    /// # Errors
    /// It does not answer in time, or with an error.
    pub async fn unfreeze(&mut self) -> Result<UnfreezeResponse, CallError> {
        bounded(&self.address, self.timeout, self.service.unfreeze(UnfreezeRequest {})).await
    }

    /// Gives this member, which must be the one of that name, another priority. Returns the one that it had.
    ///
    /// # Errors
    /// It does not answer in time, or refuses.
    pub async fn set_priority(&mut self, node: &str, priority: u16) -> Result<Option<u32>, CallError> {
        let request = SetPriorityRequest { node: node.to_owned(), priority: priority.into() };
        let answer = bounded(&self.address, self.timeout, self.service.set_priority(request)).await?;
        Ok(answer.before)
    }

    /// Asks a candidate whether it would take over the tenure with this token.
    ///
    /// # Errors
    /// It does not answer in time, or with an error.
    pub async fn prepare(&mut self, token: u64) -> Result<PrepareResponse, CallError> {
        bounded(&self.address, self.timeout, self.service.prepare(PrepareRequest { token })).await
    }

    /// The present state, then every change.
    ///
    /// # Errors
    /// It does not answer in time, or with an error.
    pub async fn observe(&mut self) -> Result<tonic::Streaming<ObserveResponse>, CallError> {
        let call = self.service.observe(ObserveRequest {});
        bounded(&self.address, self.timeout, call).await
    }
}

pub(crate) fn endpoint(address: &str, with: &Credentials, timeout: Duration) -> Result<Endpoint, CallError> {
    let rest = address.strip_prefix("https://");
    if rest.is_some() && !with.is_encrypted() {
        let why = "https:// needs the CA of its certificate: tls.ca_file (--tls-ca)".to_owned();
        return Err(CallError::silence(address, why));
    }
    let rest = rest.unwrap_or(address);
    let url = if rest.contains("://") { rest.to_owned() } else { format!("http://{rest}") };
    let endpoint = Endpoint::from_shared(url)
        .map_err(|e| CallError::silence(address, format!("{e}; write host:port")))?;
    Ok(endpoint.connect_timeout(timeout).tcp_nodelay(true))
}

pub(super) async fn bounded<T>(
    address: &str,
    timeout: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, CallError> {
    let fail = |why: String, is_refusal| {
        let address = address.to_owned();
        CallError { address, why, is_refusal, is_unreached: false }
    };
    match tokio::time::timeout(timeout, call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => {
            let is_refusal = !matches!(
                status.code(),
                Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown | Code::Internal
            );
            Err(fail(said_by(&status), is_refusal))
        }
        Err(_) => Err(CallError::silence(address, format!("no answer within {timeout:?}"))),
    }
}

/// What an answer that is an error says. A server that does not speak gRPC has no status for it, or breaks off.
pub(crate) fn said_by(status: &tonic::Status) -> String {
    let message = status.message();
    if message.contains("grpc-status header missing") || message == "transport error" {
        return format!(
            "no gRPC server answers there ({}): it has just ended, or this is not its gRPC port, which is 5690 by default; \
             5691 is HTTP",
            chain(status)
        );
    }
    // What a port that speaks TLS answers to whoever does not.
    if status.code() == Code::PermissionDenied && message.contains("h2 protocol error") {
        return "TLS is spoken there: set tls.ca_file (--tls-ca) to the CA of its certificate".to_owned();
    }
    if message.contains("h2 protocol error") {
        return "no gRPC server answers there: it has just ended, or this is not its gRPC port, which is 5690 by default; 5691 is \
                HTTP"
            .to_owned();
    }
    // As gRPC servers in Go say it; one of ours that is older has no words for it.
    if status.code() == Code::Unimplemented && message.contains("unknown service") {
        return "another gRPC server answers there, as etcd does at its client port; metad's own gRPC port is 5690 by default"
            .to_owned();
    }
    match status.code() {
        Code::Unauthenticated => {
            format!("{message}; show who you are: --tls-cert with --tls-key, or --token-file, over TLS")
        }
        Code::PermissionDenied => message.to_owned(),
        // It has read the request, and says no in its own words.
        Code::FailedPrecondition | Code::InvalidArgument | Code::ResourceExhausted | Code::NotFound => {
            message.to_owned()
        }
        code => format!("{code:?}: {message}"),
    }
}

/// Is somebody there, with whom there is no agreement?
fn answers(error: &tonic::transport::Error) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(e) = cause {
        if let Some(none) = e.downcast_ref::<NoConnection>() {
            return !none.is_unreached;
        }
        cause = e.source();
    }
    false
}

/// The innermost cause says what happened.
pub(crate) fn chain(e: &dyn std::error::Error) -> String {
    let mut last = e;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
