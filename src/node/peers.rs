//! The other members over gRPC.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use crate::client::MemberClient;
use crate::driver::PREPARE_TIMEOUT;
use crate::driver::peers::{Peers, Prepared};
use crate::election::record::{Incarnation, MemberUuid, Token};
use crate::tls::client::Credentials;

/// How long a member gets to say who it is.
const PING_TIMEOUT: Duration = Duration::from_millis(500);

/// Connections to the candidates, for as long as we lead.
#[derive(Debug)]
pub(super) struct ConnectedPeers {
    credentials: Credentials,
    kept: Mutex<BTreeMap<String, MemberClient>>,
}

impl ConnectedPeers {
    /// To whom we show these credentials.
    pub(super) fn new(credentials: Credentials) -> Self {
        Self { credentials, kept: Mutex::default() }
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<String, MemberClient>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection that is kept, or a new one.
    async fn client(&self, address: &str) -> Option<MemberClient> {
        let kept = self.kept().get(address).cloned();
        match kept {
            Some(client) => Some(client),
            None => MemberClient::connect(address, &self.credentials, PREPARE_TIMEOUT).await.ok(),
        }
    }
}

#[async_trait]
impl Peers for ConnectedPeers {
    fn keep_warm(&self, addresses: &[&str]) {
        let mut kept = self.kept();
        kept.retain(|address, _| addresses.contains(&address.as_str()));
        for address in addresses {
            if let Entry::Vacant(place) = kept.entry((*address).to_owned())
                && let Ok(client) = MemberClient::lazy(address, &self.credentials, PREPARE_TIMEOUT)
            {
                tokio::spawn(warm_up(client.clone()));
                place.insert(client);
            }
        }
    }

    async fn prepare(&self, address: &str, token: Token) -> Option<Prepared> {
        let answer = self.client(address).await?.prepare(token.get()).await.ok()?;
        let (uuid, incarnation) = (answer.uuid.parse().ok()?, Incarnation(answer.incarnation));
        // A member of an older version has no probe, and does not say.
        let healthy_for = Duration::from_millis(answer.healthy_for_ms.unwrap_or_default());
        Some(Prepared { uuid, incarnation, is_ready: answer.ready, healthy_for })
    }

    async fn who_answers(&self, address: &str) -> Option<MemberUuid> {
        let mut client = MemberClient::connect(address, &self.credentials, PING_TIMEOUT).await.ok()?;
        client.leader().await.ok()?.answerer?.uuid.parse().ok()
    }
}

/// The first call makes the connection; what it answers does not matter.
async fn warm_up(mut client: MemberClient) {
    let _ = client.leader().await;
}
