//! `metad step-down`: asks the leader to hand over, and says who leads then.

use std::io::{BufRead, IsTerminal};
use std::time::Duration;

use super::args::StepDownArgs;
use super::query::{CANNOT_ASK, NO_LEADER, TIMEOUT, WAIT_PAUSE, cannot_ask, connect};
use super::{Failure, output};
use crate::client::{CallError, MemberClient};
use crate::proto::metad::LeaderInfo;
use crate::telemetry::terminal::plain;

/// How long the leader gets to find out whether the target can take over.
const CHECK_TIMEOUT: Duration = Duration::from_secs(6);
/// How long a hand-over is waited for: the main loop may take its time to end.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(30);
/// Another member leads than the one that was wanted.
const ANOTHER_LEADS: i32 = 3;

/// Returns when somebody else leads. Exit 0: done as asked; 1: refused, declined, or nobody answers; 2: nobody leads; 3:
/// another leads than the one that was wanted.
pub(super) async fn step_down(args: StepDownArgs) -> Result<i32, Failure> {
    let mut client = connect(&args.meta).await?;
    let found = client.leader().await.map_err(cannot_ask)?;
    let members = client.members().await.map_err(cannot_ask)?.members;
    let Some(leader) = found.leader else {
        return Err(Failure::new(NO_LEADER, "there is no leader that could step down"));
    };
    if !args.yes && std::io::stdin().is_terminal() && !confirmed(&leader, args.to.as_deref()) {
        return Err(Failure::new(CANNOT_ASK, "nothing was changed"));
    }
    // The member that was asked first may be the one that is just ending.
    let addresses = [args.meta.addresses(), members.into_iter().map(|m| m.rpc_address).collect()].concat();
    let address = leader_address(&args, &leader).await;
    let mut client = MemberClient::connect(&address, CHECK_TIMEOUT).await.map_err(cannot_ask)?;
    client.step_down(args.to.as_deref(), Some(leader.token)).await.map_err(not_done)?;
    let next =
        tokio::time::timeout(HAND_OVER_TIMEOUT, next_leader(&addresses, &leader)).await.map_err(|_| {
            let message =
                format!("{} is stepping down, but there is no new leader yet; see metad status", leader.node);
            Failure::new(NO_LEADER, message)
        })?;
    output::print(&format!("{} leads now, token {}\n", plain(&next.node), next.token))?;
    match &args.to {
        Some(wanted) if *wanted != next.node => {
            let message = format!("{wanted} was requested, but did not take over; see metad history");
            Err(Failure::new(ANOTHER_LEADS, message))
        }
        _ => Ok(0),
    }
}

/// Where the leader is to be asked: at the address that we were given, if that is one of its own; the one that it
/// advertises may mean nothing where we are.
async fn leader_address(args: &StepDownArgs, leader: &LeaderInfo) -> String {
    for address in args.meta.addresses() {
        if let Ok(mut client) = MemberClient::connect(&address, TIMEOUT).await
            && let Ok(answer) = client.leader().await
            && answer.answerer.is_some_and(|a| a.uuid == leader.uuid)
        {
            return address;
        }
    }
    leader.address.clone()
}

/// A leader that does not answer may have heard us all the same.
fn not_done(e: CallError) -> Failure {
    let rest = if e.is_refusal { "nothing was changed" } else { "it may still step down; see metad leader" };
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

async fn next_leader(addresses: &[String], last: &LeaderInfo) -> LeaderInfo {
    loop {
        for address in addresses {
            if let Ok(mut client) = MemberClient::connect(address, TIMEOUT).await
                && let Ok(answer) = client.leader().await
                && let Some(next) = answer.leader.filter(|l| l.token > last.token)
            {
                return next;
            }
        }
        tokio::time::sleep(WAIT_PAUSE).await;
    }
}
