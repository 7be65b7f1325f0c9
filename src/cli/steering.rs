//! `metad step-down`: asks the leader to hand over, and says who leads then.

use std::io::{BufRead, IsTerminal};
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;

use super::args::StepDownArgs;
use super::asking::{self, Answer};
use super::query::{CANNOT_ASK, NO_LEADER, WAIT_PAUSE, cannot_ask};
use super::target::{self, Addressees};
use super::{Failure, output, priority};
use crate::client::{CallError, MemberClient};
use crate::proto::metad::LeaderInfo;
use crate::telemetry::terminal::plain;

/// How long the leader gets to find out whether the target can take over.
const CHECK_TIMEOUT: Duration = Duration::from_secs(6);
/// How long a hand-over is waited for: the main loop may take its time to end.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long one look at all members waits for those that hang.
const ROUND_TIMEOUT: Duration = Duration::from_secs(1);
/// Another member leads than the one that was wanted.
const ANOTHER_LEADS: i32 = 3;

/// Returns when somebody else leads. Exit 0: done as asked; 1: refused, declined, or nobody answers; 2: nobody leads; 3:
/// another leads than the one that was wanted.
pub(super) async fn step_down(args: StepDownArgs) -> Result<i32, Failure> {
    let target = target::target(&args.meta)?;
    let Answer { member: mut client, leader: found } = asking::first_of(&target).await?;
    let members = client.members().await.map_err(cannot_ask)?.members;
    let Some(leader) = found.leader else {
        let is_outdated = found.answerer.is_some_and(|a| a.is_outdated);
        let message = match (is_outdated, found.last_known) {
            (false, _) => "there is no leader that could step down".to_owned(),
            (true, None) => "nobody knows who leads: the store has confirmed nothing yet".to_owned(),
            (true, Some(last)) => {
                format!(
                    "nobody knows who leads; {} did when the store last answered. Ask it: --meta {}",
                    last.node, last.address
                )
            }
        };
        return Err(Failure::new(NO_LEADER, message));
    };
    if !args.force && !members.iter().any(|m| m.node != leader.node && m.priority > 0) {
        let message = format!(
            "no other member could lead after {}: nothing was changed\nfix: start one, or give one a priority above 0 \
             (metad members); --force ends its main loop all the same",
            leader.node
        );
        return Err(Failure::new(CANNOT_ASK, message));
    }
    if !args.yes && std::io::stdin().is_terminal() && !confirmed(&leader, args.to.as_deref()) {
        return Err(Failure::new(CANNOT_ASK, "nothing was changed"));
    }
    // The member that was asked first may be the one that is just ending.
    let address = priority::address_of(&target, &leader.uuid).await.unwrap_or_else(|| leader.address.clone());
    let addresses = [target.addresses, members.into_iter().map(|m| m.rpc_address).collect()].concat();
    let all = Addressees { addresses, ..target };
    let mut client =
        MemberClient::connect(&address, &all.credentials, CHECK_TIMEOUT).await.map_err(cannot_ask)?;
    client
        .step_down(args.to.as_deref(), Some(leader.token))
        .await
        .map_err(|e| not_done(&e, "it may still step down; see metad leader"))?;
    let next = tokio::time::timeout(HAND_OVER_TIMEOUT, next_leader(&all, &leader)).await.map_err(|_| {
        let message =
            format!("{} is stepping down, but there is no new leader yet; see metad status", leader.node);
        Failure::new(NO_LEADER, message)
    })?;
    let (after, before) = (plain(&next.node), plain(&leader.node));
    let restarted = format!("{before} ends with exit code 75, for its supervisor to restart it");
    output::print(&format!("{after} leads now, token {}\n{restarted}\n", next.token))?;
    match &args.to {
        Some(wanted) if *wanted != next.node => {
            let message = format!("{wanted} was requested, but did not take over; see metad history");
            Err(Failure::new(ANOTHER_LEADS, message))
        }
        _ => Ok(0),
    }
}

/// A member that does not answer may have heard us all the same: then `otherwise`.
pub(super) fn not_done(e: &CallError, otherwise: &str) -> Failure {
    let rest = if e.is_refusal { "nothing was changed" } else { otherwise };
    Failure::new(CANNOT_ASK, format!("{e}; {rest}"))
}

/// Whoever has asked may read on; only a clear yes counts.
fn confirmed(leader: &LeaderInfo, to: Option<&str>) -> bool {
    let successor = to.unwrap_or("any ready member");
    output::ask(&format!(
        "{} leads with token {}. End its main loop and hand over to {successor}? [y/N] ",
        leader.node, leader.token
    ));
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    read.is_ok() && ["y", "yes"].contains(&line.trim().to_lowercase().as_str())
}

async fn next_leader(target: &Addressees, last: &LeaderInfo) -> LeaderInfo {
    loop {
        let mut answers = pin!(asking::all(target).take_until(tokio::time::sleep(ROUND_TIMEOUT)));
        while let Some(answer) = answers.next().await {
            if let Ok(Answer { leader, .. }) = answer
                && let Some(next) = leader.leader.filter(|l| l.token > last.token)
            {
                return next;
            }
        }
        tokio::time::sleep(WAIT_PAUSE).await;
    }
}
