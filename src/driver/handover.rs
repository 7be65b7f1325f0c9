//! Asking the candidates whether they are ready, and the record that the successor gets.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use crate::client::MemberClient;
use crate::clock::wall_clock_ms;
use crate::election::event::{Event, Ready};
use crate::election::record::{LeaderRecord, Member, MemberId, Nonce, Token, View};

/// How long all candidates together get.
const PATIENCE: Duration = Duration::from_millis(100);
/// How many connections are kept. A larger group hands over to one that is asked afresh.
const WARM_MAX: usize = 16;

/// A leader's connections to the candidates, made while there is time: a hand-over must not wait for a handshake.
#[derive(Clone, Debug, Default)]
pub(super) struct Candidates {
    clients: Arc<Mutex<BTreeMap<String, MemberClient>>>,
}

// === impl Candidates ===

impl Candidates {
    /// Connects to the candidates of this picture, in the background, and forgets those that are gone.
    pub(super) fn keep_warm(&self, view: &View, us: &MemberId) {
        let others = view.members.iter().filter(|m| m.registration.member.node != us.node);
        let wanted: Vec<_> = others.filter(|m| m.registration.priority > 0).take(WARM_MAX).collect();
        let mut clients = self.lock();
        clients.retain(|address, _| wanted.iter().any(|m| m.registration.rpc_address == *address));
        for member in wanted {
            let address = &member.registration.rpc_address;
            if let Entry::Vacant(place) = clients.entry(address.clone())
                && let Ok(client) = MemberClient::lazy(address, PATIENCE)
            {
                tokio::spawn(warm_up(client.clone()));
                place.insert(client);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, MemberClient>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection that is kept, or a new one.
    async fn client(&self, address: &str) -> Option<MemberClient> {
        let kept = self.lock().get(address).cloned();
        match kept {
            Some(client) => Some(client),
            None => MemberClient::connect(address, PATIENCE).await.ok(),
        }
    }

    /// Asks all candidates at once, and takes the answers that come in time.
    pub(super) async fn ask(self, view: View, us: MemberId, token: Token, wanted: Option<String>) -> Event {
        let is_candidate = |m: &&Member| {
            let r = &m.registration;
            r.priority > 0 && r.member.node != us.node && wanted.as_ref().is_none_or(|w| *w == r.member.node)
        };
        let candidates = || view.members.iter().filter(is_candidate);
        let best = candidates().min_by_key(|m| view.rank(&m.registration.member.node));
        let best = best.map(|m| m.registration.member.clone());
        let mut asked: FuturesUnordered<_> = candidates().map(|m| self.ask_one(m.clone(), token)).collect();
        let mut ready = Vec::new();
        let collect = async {
            while let Some(answer) = asked.next().await {
                let Some(member) = answer else { continue };
                let is_best = best.as_ref() == Some(&member);
                ready.push(Ready { member });
                if is_best {
                    break; // nobody can answer better
                }
            }
        };
        let _ = tokio::time::timeout(PATIENCE, collect).await;
        Event::Prepared(ready)
    }

    async fn ask_one(&self, candidate: Member, token: Token) -> Option<MemberId> {
        let r = candidate.registration;
        let mut client = self.client(&r.rpc_address).await?;
        let answer = client.prepare(token.get()).await.ok()?;
        // Behind a shared address may be somebody else, or a later start.
        let same = answer.uuid == r.member.uuid.to_string() && answer.incarnation == r.member.incarnation.0;
        (answer.ready && same).then_some(r.member)
    }
}

/// The first call makes the connection; what it answers does not matter.
async fn warm_up(mut client: MemberClient) {
    let _ = client.leader().await;
}

/// The record as the successor would have written it.
pub(super) fn record_of(successor: &Member, transitions: u64) -> LeaderRecord {
    LeaderRecord {
        holder: successor.registration.member.clone(),
        address: successor.registration.rpc_address.clone(),
        nonce: Nonce(0),
        ttl: successor.registration.ttl,
        acquired_ms: wall_clock_ms(),
        transitions,
    }
}
