//! Asking the candidates whether they are ready, and the record that the heir gets.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use crate::client::MemberClient;
use crate::clock::wall_clock_ms;
use crate::election::event::{Event, Ready};
use crate::election::record::{LeaderRecord, Member, MemberId, Nonce, Token, View};

/// How long all candidates together get.
const PATIENCE: Duration = Duration::from_millis(100);

/// Asks all candidates at once, and takes the answers that come in time.
pub(super) async fn ask_candidates(view: View, us: MemberId, token: Token, wanted: Option<String>) -> Event {
    let is_candidate = |m: &&Member| {
        let r = &m.registration;
        r.priority > 0 && r.member.node != us.node && wanted.as_ref().is_none_or(|w| *w == r.member.node)
    };
    let mut asked: FuturesUnordered<_> =
        view.members.iter().filter(is_candidate).map(|m| ask(m.clone(), token)).collect();
    let best =
        view.members.iter().filter(is_candidate).min_by_key(|m| view.rank(&m.registration.member.node));
    let best = best.map(|m| m.registration.member.clone());
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

async fn ask(candidate: Member, token: Token) -> Option<MemberId> {
    let r = candidate.registration;
    let mut client = MemberClient::connect(&r.rpc_address, PATIENCE).await.ok()?;
    let answer = client.prepare(token.get()).await.ok()?;
    // Behind a shared address may be somebody else, or a later start.
    let same = answer.uuid == r.member.uuid.to_string() && answer.incarnation == r.member.incarnation.0;
    (answer.ready && same).then_some(r.member)
}

/// The record as the heir would have written it.
pub(super) fn record_of(heir: &Member, transitions: u64) -> LeaderRecord {
    LeaderRecord {
        holder: heir.registration.member.clone(),
        address: heir.registration.rpc_address.clone(),
        nonce: Nonce(0),
        ttl: heir.registration.ttl,
        acquired_ms: wall_clock_ms(),
        transitions,
    }
}
