//! `metad watch`: every change, as it happens, through whatever member answers.

use std::time::Duration;

use serde_json::json;

use super::args::{OutputFormat, WatchArgs};
use super::query::connect;
use super::{Failure, history, output};
use crate::client::MemberClient;
use crate::proto::metad::{ObserveResponse, TenureInfo};
use crate::telemetry::terminal::plain;

/// The pause before another member is asked.
const PAUSE: Duration = Duration::from_millis(500);

/// Prints changes until interrupted, or until nobody reads them. Fails only if nobody answers at the beginning, or if it
/// cannot print.
pub(super) async fn watch(args: WatchArgs) -> Result<i32, Failure> {
    let client = connect(&args.meta).await?;
    tokio::select! {
        failed = follow(client, &args) => failed,
        () = output::reader_gone() => Ok(0),
    }
}

async fn follow(mut client: MemberClient, args: &WatchArgs) -> Result<i32, Failure> {
    let mut told = None;
    loop {
        if let Ok(mut changes) = client.observe().await {
            while let Ok(Some(change)) = changes.message().await {
                show(&change, &mut told, args.output)?;
            }
        }
        output::say(&format!("{} no longer answers; retrying", client.address()));
        client = loop {
            tokio::time::sleep(PAUSE).await;
            if let Ok(client) = connect(&args.meta).await {
                break client;
            }
        };
    }
}

fn show(
    change: &ObserveResponse,
    told: &mut Option<TenureInfo>,
    format: OutputFormat,
) -> Result<(), Failure> {
    let now = crate::store::codec::rfc3339(crate::clock::wall_clock_ms());
    let leader = change.leader.as_ref();
    let text = match format {
        OutputFormat::Json => json!({
            "time": now,
            "leader": output::leader_json(leader),
            "members": output::members_json(&change.members),
            "last_ended": change.last_ended.as_ref().map(history::tenure_json),
            "answerer": output::answerer_json(change.answerer.as_ref()),
        })
        .to_string(),
        OutputFormat::Table => {
            let who =
                leader.map_or("no leader".to_owned(), |l| format!("leader {} token {}", l.node, l.token));
            let nodes: Vec<&str> = change.members.iter().map(|m| m.node.as_str()).collect();
            let news = change.last_ended.as_ref().filter(|t| told.as_ref() != Some(t));
            let ended = news.map(|t| format!("  {}", history::sentence(t))).unwrap_or_default();
            plain(&format!("{now}  {who}  members {}{ended}", nodes.join(" "))).into_owned()
        }
    };
    told.clone_from(&change.last_ended);
    output::print(&format!("{text}\n"))
}
