//! Asking the candidates whether they are ready.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::peers::Peers;
use crate::election::event::{Event, Ready};
use crate::election::probe::APART;
use crate::election::record::{Member, MemberId, Token, View};

/// How long all candidates together get.
pub const PREPARE_TIMEOUT: Duration = Duration::from_millis(100);
/// How many connections are kept. A larger group hands over to one that is asked afresh.
const WARM_MAX: usize = 16;

/// Keeps connections to the candidates of this view.
pub(super) fn keep_warm(peers: &dyn Peers, view: &View, us: &MemberId) {
    let others = view.members.iter().filter(|m| m.registration.member.node != us.node);
    let wanted = others.filter(|m| m.registration.priority > 0).take(WARM_MAX);
    peers.keep_warm(&wanted.map(|m| m.registration.rpc_address.as_str()).collect::<Vec<_>>());
}

/// Asks all candidates at once, and takes the answers that come in time.
pub(super) async fn ask(
    peers: Arc<dyn Peers>,
    view: View,
    us: MemberId,
    token: Token,
    wanted: Option<String>,
    probe_fails: bool,
) -> Event {
    let is_candidate = |m: &&Member| {
        let r = &m.registration;
        r.priority > 0 && r.member.node != us.node && wanted.as_ref().is_none_or(|w| *w == r.member.node)
    };
    let candidates = || view.members.iter().filter(is_candidate);
    let best = candidates().min_by_key(|m| view.precedence(m));
    let best = best.map(|m| m.registration.member.clone());
    let mut asked: FuturesUnordered<_> =
        candidates().map(|m| ask_one(peers.as_ref(), m.clone(), token)).collect();
    let mut ready = Vec::new();
    let collect = async {
        while let Some(answer) = asked.next().await {
            let Some(answer) = answer else { continue };
            // One that has not been healthy for long may not be good enough for a leader whose probe fails.
            let will_do = !probe_fails || answer.healthy_for >= APART;
            let is_best = best.as_ref() == Some(&answer.member) && will_do;
            ready.push(answer);
            if is_best {
                break; // nobody can answer better
            }
        }
    };
    let _ = tokio::time::timeout(PREPARE_TIMEOUT, collect).await;
    Event::Prepared(ready)
}

async fn ask_one(peers: &dyn Peers, candidate: Member, token: Token) -> Option<Ready> {
    let r = candidate.registration;
    let answer = peers.prepare(&r.rpc_address, token).await?;
    // Behind a shared address may be somebody else, or a later start.
    let same = answer.uuid == r.member.uuid && answer.incarnation == r.member.incarnation;
    (answer.is_ready && same).then_some(Ready { member: r.member, healthy_for: answer.healthy_for })
}
