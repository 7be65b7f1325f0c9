//! The client: finds the leader of a cluster, follows it through fail-over, and asks it.
//!
//! [`MetaClient`] knows the whole cluster by the addresses of some of its members; [`MemberClient`] asks one member.
//! Every call has a deadline, and every error says what happened, at which address, and what to do. This module
//! must not know the store.

mod attempts;
mod barriers;
mod checks;
mod error;
mod leader;
pub(crate) mod member;
mod state;
mod verdict;
mod watching;
mod workers;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use barriers::{BarrierEvent, Barriers};
pub use checks::{CheckClient, ClockOffset};
pub use error::{ClientError, Said};
pub use member::{CallError, MemberClient};
pub use state::{Change, Page, Write};
pub use workers::{RegisteredWorker, WorkerSpec};

use crate::proto::metad::{LeaderInfo, MemberInfo};
use crate::tls::client::Authorized;
pub use crate::tls::client::{CredentialFiles, Credentials};

/// How long a call tries, unless told otherwise.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// How many members are remembered, besides the addresses given.
const MEMBERS_MAX: usize = 64;
/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// An open connection that is silent for so long is asked for a sign of life, and gets as long again to give it.
const KEEP_ALIVE: Duration = Duration::from_secs(4);

/// A client of the whole cluster. Clones share what they know and their connections, which live on the tokio runtime
/// that they were made on: use a client on one runtime.
///
/// Calls that may be repeated without harm (reads, heartbeats, registering and deregistering) are repeated until the
/// deadline. Writes of state are repeated only when it is certain that they were not done; otherwise the error is
/// [`ClientError::Unknown`], and the caller has to look. A refusal on the merits is never repeated.
#[derive(Clone, Debug)]
pub struct MetaClient {
    shared: Arc<ClientShared>,
    deadline: Duration,
}

#[derive(Debug)]
struct ClientShared {
    given: Vec<String>,
    credentials: Credentials,
    known: Mutex<KnownMembers>,
}

/// What was learned from the members.
#[derive(Debug, Default)]
struct KnownMembers {
    members: Vec<String>,
    leader: Option<Target>,
    channels: BTreeMap<String, Authorized>,
}

/// Whom to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    address: String,
    token: u64,
}

// === impl MetaClient ===

impl MetaClient {
    /// A client that knows these members, `host:port`; any of them will do, others are learned. Nothing is asked yet.
    ///
    /// # Errors
    /// [`ClientError::BadAddress`]: there is no address, or a malformed one.
    pub fn new<A: Into<String>>(addresses: impl IntoIterator<Item = A>) -> Result<Self, ClientError> {
        let mut given: Vec<String> = addresses.into_iter().map(|a| a.into().trim().to_owned()).collect();
        given.dedup();
        if given.is_empty() {
            let why = "write at least one member's host:port".to_owned();
            return Err(ClientError::BadAddress { address: "(none)".to_owned(), why });
        }
        for address in &given {
            // With a CA or without, credentials will tell.
            let address = address.strip_prefix("https://").unwrap_or(address);
            member::endpoint(address, &Credentials::default(), CONNECT_TIMEOUT)
                .map_err(|e| ClientError::BadAddress { address: e.address, why: e.why })?;
        }
        let shared = ClientShared { given, credentials: Credentials::default(), known: Mutex::default() };
        Ok(Self { shared: Arc::new(shared), deadline: DEADLINE })
    }

    /// Shows these credentials to every member, on connections that are encrypted if they say so. Without them a client
    /// shows none, on plain connections.
    #[must_use]
    pub fn credentials(self, credentials: Credentials) -> Self {
        let given = self.shared.given.clone();
        let shared = ClientShared { given, credentials, known: Mutex::default() };
        Self { shared: Arc::new(shared), ..self }
    }

    /// Gives up a call after so long instead of after [`DEADLINE`]. Clones keep their own.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Who leads: the newest leader that any member names. It may have lost that by the time of the answer.
    ///
    /// # Errors
    /// [`ClientError::GaveUp`]: nobody named one before the deadline.
    pub async fn leader(&self) -> Result<LeaderInfo, ClientError> {
        let mut attempts = self.attempts("cannot find the leader");
        loop {
            if let Some(leader) = self.look(&mut attempts).await.leader {
                return Ok(leader);
            }
            attempts.pause().await?;
        }
    }

    /// Who is registered, by the newest view that any member has.
    ///
    /// # Errors
    /// [`ClientError::GaveUp`]: no member answered before the deadline.
    pub async fn members(&self) -> Result<Vec<MemberInfo>, ClientError> {
        let mut attempts = self.attempts("cannot list the members");
        loop {
            if let Some(members) = self.look(&mut attempts).await.members {
                return Ok(members);
            }
            attempts.pause().await?;
        }
    }

    /// All addresses there are: those given, and those learned.
    fn addresses(&self) -> Vec<String> {
        let mut all = self.shared.given.clone();
        let learned = self.known().members.clone();
        all.extend(learned.into_iter().filter(|a| !self.shared.given.contains(a)));
        all
    }

    /// The connection to a member, made when it is used, and again when it has broken.
    fn channel(&self, address: &str) -> Result<Authorized, CallError> {
        let mut known = self.known();
        if let Some(channel) = known.channels.get(address) {
            return Ok(channel.clone());
        }
        let endpoint = member::endpoint(address, &self.shared.credentials, CONNECT_TIMEOUT)?
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE);
        let channel = self.shared.credentials.connect_lazily(&endpoint);
        if known.channels.len() > MEMBERS_MAX {
            known.channels.clear(); // whoever uses one holds it
        }
        known.channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }

    /// Never trust this connection again.
    fn disconnect(&self, address: &str) {
        self.known().channels.remove(address);
    }

    fn known(&self) -> MutexGuard<'_, KnownMembers> {
        self.shared.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_needed_and_must_be_one() {
        let bad =
            |addresses: &[&str]| MetaClient::new(addresses.to_vec()).map(|_| ()).unwrap_err().to_string();
        assert!(bad(&[]).contains("at least one"));
        assert!(bad(&["m1:5690", "m2 5690"]).contains("m2 5690"));
        assert!(MetaClient::new(["m1:5690", "[::1]:5690"]).is_ok(), "twin: proper ones are taken");
    }
}
