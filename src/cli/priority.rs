//! `metad priority NODE N`.

use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;

use super::args::PriorityArgs;
use super::asking::{self, Answer};
use super::query::{CANNOT_ASK, cannot_ask};
use super::target::{self, Addressees};
use super::{Failure, output, steering};
use crate::client::MemberClient;
use crate::telemetry::terminal::plain;

/// How long the member gets, with the store's answer.
const TIMEOUT: Duration = Duration::from_secs(8);

/// Exit 0: the store shows it; 1: refused, or nobody answers.
pub(super) async fn priority(args: PriorityArgs) -> Result<i32, Failure> {
    let target = target::target(&args.meta)?;
    let members = asking::first_of(&target).await?.member.members().await.map_err(cannot_ask)?.members;
    let Some(member) = members.iter().find(|m| m.node == args.node) else {
        let message = format!(
            "no member {:?} is registered: nothing was changed\nfix: look at metad members",
            plain(&args.node)
        );
        return Err(Failure::new(CANNOT_ASK, message));
    };
    let address = address_of(&target, &member.uuid).await.unwrap_or_else(|| member.rpc_address.clone());
    let mut client =
        MemberClient::connect(&address, &target.credentials, TIMEOUT).await.map_err(cannot_ask)?;
    let asked = client.set_priority(&args.node, args.priority).await;
    let before = asked.map_err(|e| steering::not_done(&e, "look at metad members"))?;
    let (node, priority) = (plain(&args.node), args.priority);
    let before = before.map_or_else(String::new, |before| format!(" (before: {before})"));
    output::print(&format!(
        "{node} has priority {priority} now{before}\nuntil it ends, or reads its configuration again (SIGHUP); for good: \
         node.priority = {priority}\n"
    ))
    .map(|()| 0)
}

/// The address that we were given, if it is that member's: the one that it advertises may mean nothing where we are.
pub(super) async fn address_of(target: &Addressees, uuid: &str) -> Option<String> {
    let mut answers = pin!(asking::all(target));
    while let Some(answer) = answers.next().await {
        if let Ok(Answer { member, leader: answer }) = answer
            && answer.answerer.is_some_and(|a| a.uuid == uuid)
        {
            return Some(member.address().to_owned());
        }
    }
    None
}
