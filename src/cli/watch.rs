//! `metad watch`: every change, as it happens, through whatever member answers.

use std::time::Duration;

use super::args::{OutputFormat, WatchArgs};
use super::{Failure, asking, history, output};
use crate::api::view::ChangeDocument;
use crate::api::view::tenure::Tenure;
use crate::client::MemberClient;
use crate::proto::metad::ObserveResponse;
use crate::telemetry::terminal::plain;

/// The pause before another member is asked.
const PAUSE: Duration = Duration::from_millis(500);

/// Prints changes until interrupted, or until nobody reads them. Fails only if nobody answers at the beginning, or if it
/// cannot print.
pub(super) async fn watch(args: WatchArgs) -> Result<i32, Failure> {
    let client = asking::first(&args.meta).await?.member;
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
                show(change, &mut told, args.output)?;
            }
        }
        output::say(&format!("{} no longer answers; retrying", client.address()));
        client = loop {
            tokio::time::sleep(PAUSE).await;
            if let Ok(answer) = asking::first(&args.meta).await {
                break answer.member;
            }
        };
    }
}

fn show(change: ObserveResponse, told: &mut Option<Tenure>, format: OutputFormat) -> Result<(), Failure> {
    let change = ChangeDocument::from(change);
    match format {
        OutputFormat::Json => output::print_json_line(&change)?,
        OutputFormat::Table => output::print(&(line(&change, told.as_ref()) + "\n"))?,
    }
    *told = change.last_ended;
    Ok(())
}

/// A change for people; a tenure that they have been told of is not news.
fn line(change: &ChangeDocument, told: Option<&Tenure>) -> String {
    let leader = change.leader.as_ref();
    let nobody = || if change.answerer.is_outdated { "leader unknown" } else { "no leader" }.to_owned();
    let who = leader.map_or_else(nobody, |l| format!("leader {} token {}", l.node, l.token));
    let nodes: Vec<&str> = change.members.iter().map(|m| m.node.as_str()).collect();
    let news = change.last_ended.as_ref().filter(|t| told != Some(*t));
    let ended = news.map(|t| format!("  {}", history::sentence(t))).unwrap_or_default();
    let freeze = change.freeze.as_ref().map(|f| format!("  {}", output::frozen(f))).unwrap_or_default();
    plain(&format!("{}  {who}  members {}{freeze}{ended}", change.time, nodes.join(" "))).into_owned()
}
