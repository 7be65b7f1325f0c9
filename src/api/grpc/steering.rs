//! Whether a member can take over, found out before anybody steps down for it.

use std::time::Duration;

use tonic::{Code, Status};

use super::refuse::because;
use super::requests;
use crate::client::MemberClient;
use crate::election::record::{Registration, Token};
use crate::election::status;
use crate::tls::client::Credentials;

/// How long the target of a hand-over gets to answer.
const ASK_TIMEOUT: Duration = Duration::from_millis(500);
/// How often it is asked: the first question makes it renew its lease.
const ASKED_MAX: u32 = 3;
/// The pause between two questions.
const ASK_PAUSE: Duration = Duration::from_millis(200);

/// # Errors
/// There is no such member, it may not lead, or it could not take over now.
pub(super) async fn check_target(
    status: &status::Status,
    node: &str,
    token: Token,
    credentials: &Credentials,
) -> Result<(), Status> {
    if node == status.me.node {
        return Err(refused("TARGET_LEADS", node, format!("{node} leads already")));
    }
    let Some(member) = status.view.member(node) else {
        let known: Vec<_> = status.view.members.iter().map(|m| m.registration.member.node.as_str()).collect();
        let (node, known) = (requests::quoted(node), known.join(", "));
        let message = format!("no member {node} is registered; registered: {known}");
        return Err(because(Code::NotFound, "UNKNOWN_MEMBER", message, []));
    };
    if member.registration.priority == 0 {
        return Err(refused("TARGET_NEVER_LEADS", node, format!("{node} has priority 0 and never leads")));
    }
    let mut why = String::new();
    for asked in 0..ASKED_MAX {
        if asked > 0 {
            tokio::time::sleep(ASK_PAUSE).await;
        }
        match ask(&member.registration, token, credentials).await {
            Ok(()) => return Ok(()),
            Err(e) => why = e,
        }
    }
    let message = format!("{node} cannot take over now: {why}; nothing was changed");
    Err(refused("TARGET_NOT_READY", node, message))
}

fn refused(reason: &str, node: &str, message: String) -> Status {
    because(Code::FailedPrecondition, reason, message, [("node", node.to_owned())])
}

async fn ask(target: &Registration, token: Token, credentials: &Credentials) -> Result<(), String> {
    let address = &target.rpc_address;
    let mut client =
        MemberClient::connect(address, credentials, ASK_TIMEOUT).await.map_err(|e| e.to_string())?;
    let answer = client.prepare(token.get()).await.map_err(|e| e.to_string())?;
    let is_it =
        answer.uuid == target.member.uuid.to_string() && answer.incarnation == target.member.incarnation.0;
    match () {
        () if !is_it => Err(format!("another process answers at {address}")),
        () if answer.ready => Ok(()),
        () => Err(if answer.why.is_empty() { "it is not ready".to_owned() } else { answer.why }),
    }
}
