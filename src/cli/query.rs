//! The commands that ask a running member.

use std::future::Future;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::args::{HealthArgs, HealthOf, MetaArgs, OutputFormat, ViewArgs, WaitArgs, WaitFor};
use super::asking::{self, TIMEOUT};
use super::target::{self, Addressees};
use super::{Failure, output};
use crate::api::view::member::{Answerer, Leader};
use crate::api::view::{LeaderDocument, MembersDocument, StatusDocument};
use crate::client::CallError;
use crate::client::member::{chain, endpoint, said_by};
use crate::election::exit::Exit;
use crate::proto::metad::LeaderResponse;
use crate::tls::client::Credentials;

/// How often a waiting command looks again.
pub(super) const WAIT_PAUSE: Duration = Duration::from_millis(100);
/// Nobody could be asked.
pub(super) const CANNOT_ASK: i32 = 1;
/// The cluster has no leader.
pub(super) const NO_LEADER: i32 = 2;
/// The answer is older than the lease: nobody knows.
pub(super) const UNKNOWN: i32 = 3;

/// Runs what waits for the network.
pub(super) fn on_runtime<T>(command: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Failure::new(Exit::Internal.code(), format!("cannot start: {e}")))?;
    let done = runtime.block_on(command);
    // A name that is being looked up for a member that nobody waits for any more must not keep us.
    runtime.shutdown_background();
    done
}

/// `metad status`.
pub(super) async fn status(args: ViewArgs) -> Result<i32, Failure> {
    repeat(args.watch, || async {
        let status = ask_both(&args.meta).await?;
        let StatusDocument { answerer, leader, last_known_leader, foreign, freeze, members, gone, .. } =
            &status;
        match args.output {
            OutputFormat::Json => output::print_json(&status)?,
            OutputFormat::Table => {
                let l = output::leader_table(leader.as_ref(), last_known_leader.as_ref(), answerer);
                let m = output::members_table(members, gone);
                let (foreign, who) =
                    (output::foreign_line(foreign.as_ref()), output::answerer_line(answerer));
                let freeze = output::freeze_line(freeze.as_ref(), leader.as_ref(), answerer);
                let ready = output::readiness_lines(answerer);
                output::print(&format!("{l}{foreign}{freeze}{ready}\n{m}\n{who}"))?;
            }
        }
        Ok(code_of(leader.as_ref(), answerer))
    })
    .await
}

/// `metad leader`.
pub(super) async fn leader(args: ViewArgs) -> Result<i32, Failure> {
    repeat(args.watch, || async {
        let document = LeaderDocument::from(asking::first(&args.meta).await?.leader);
        let LeaderDocument { answerer, leader, last_known_leader, foreign, freeze, .. } = &document;
        match args.output {
            OutputFormat::Json => output::print_json(&document)?,
            OutputFormat::Table => {
                let table = output::leader_table(leader.as_ref(), last_known_leader.as_ref(), answerer);
                let freeze = output::freeze_line(freeze.as_ref(), leader.as_ref(), answerer);
                output::print(&(table + &output::foreign_line(foreign.as_ref()) + &freeze))?
            }
        }
        Ok(code_of(leader.as_ref(), answerer))
    })
    .await
}

/// `metad members`.
pub(super) async fn members(args: ViewArgs) -> Result<i32, Failure> {
    repeat(args.watch, || async {
        let answer = asking::first(&args.meta).await?.member.members().await.map_err(cannot_ask)?;
        let document = MembersDocument::from(answer);
        match args.output {
            OutputFormat::Json => output::print_json(&document)?,
            OutputFormat::Table => {
                let who = output::answerer_line(&document.answerer);
                output::print(&format!(
                    "{}\n{who}",
                    output::members_table(&document.members, &document.gone)
                ))?
            }
        }
        Ok(if document.answerer.is_outdated { UNKNOWN } else { 0 })
    })
    .await
}

/// `metad wait leader|ready`.
pub(super) async fn wait(args: WaitArgs) -> Result<i32, Failure> {
    let target = target::target(&args.meta)?;
    let addresses = target.addresses.join(", ");
    let mut last = String::from("no member has answered yet");
    let look = async {
        loop {
            match asking::first_of(&target).await {
                Ok(answer) if is_there(args.what, &answer.leader) => return,
                Ok(answer) => {
                    let LeaderResponse { answerer, freeze, .. } = answer.leader;
                    let freeze = freeze.map(|f| format!("; {}", output::frozen(&f.into())));
                    last = answerer.map_or_else(String::new, |a| format!("{} is {}", a.node, a.role));
                    last += &freeze.unwrap_or_default();
                }
                Err(e) => last = e.message,
            }
            tokio::time::sleep(WAIT_PAUSE).await;
        }
    };
    if tokio::time::timeout(args.timeout, look).await.is_ok() {
        return Ok(0);
    }
    let what = if args.what == WaitFor::Leader { "no leader" } else { "not ready" };
    Err(Failure::new(CANNOT_ASK, format!("{what} after {:?} at {addresses}: {last}", args.timeout)))
}

fn is_there(what: WaitFor, answer: &LeaderResponse) -> bool {
    match what {
        WaitFor::Leader => answer.leader.is_some(),
        WaitFor::Ready => asking::takes_part(answer),
    }
}

/// `metad health`: is one of these well?
pub(super) async fn health(args: HealthArgs) -> Result<i32, Failure> {
    let (what, service) = match args.what {
        HealthOf::Live => ("live", ""),
        HealthOf::Readiness => ("readiness", "readiness"),
        HealthOf::Leader => ("leader", "leader"),
    };
    let Addressees { addresses, credentials, .. } = target::target(&args.meta)?;
    let asked = addresses.iter().map(|address| serves(address, &credentials, service));
    let mut answers: FuturesUnordered<_> = asked.collect();
    let mut failures = Vec::new();
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(ServingStatus::Serving) => {
                output::print("healthy\n")?;
                return Ok(0);
            }
            Ok(other) => failures.push(format!("{} ({what})", other.as_str_name())),
            Err(why) => failures.push(why),
        }
    }
    Err(Failure::new(CANNOT_ASK, failures.join("\n       ")))
}

async fn serves(address: &str, with: &Credentials, service: &str) -> Result<ServingStatus, String> {
    let fail = |why: String| format!("{address}: {why}");
    let endpoint = endpoint(address, with, TIMEOUT).map_err(|e| e.to_string())?;
    let ask = async {
        let channel = with.connect(&endpoint).await.map_err(|e| fail(chain(&e)))?;
        let request = HealthCheckRequest { service: service.to_owned() };
        HealthClient::new(channel).check(request).await.map_err(|s| fail(said_by(&s)))
    };
    let late = |_| fail(format!("no answer within {TIMEOUT:?}"));
    let answer = tokio::time::timeout(TIMEOUT, ask).await.map_err(late)??.into_inner().status();
    Ok(answer)
}

// === asking ===

async fn ask_both(args: &MetaArgs) -> Result<StatusDocument, Failure> {
    let asking::Answer { mut member, leader } = asking::first(args).await?;
    let members = member.members().await.map_err(cannot_ask)?;
    Ok((leader.into(), members.into()).into())
}

pub(super) fn cannot_ask(e: CallError) -> Failure {
    Failure::new(CANNOT_ASK, e.to_string())
}

fn code_of(leader: Option<&Leader>, answerer: &Answerer) -> i32 {
    match leader {
        Some(_) => 0,
        None if answerer.is_outdated => UNKNOWN,
        None => NO_LEADER,
    }
}

/// Once, or again and again until interrupted, or until nobody reads it; then a failure to ask is shown and the next look
/// tries again.
async fn repeat<F, Fut>(every: Option<Duration>, look: F) -> Result<i32, Failure>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<i32, Failure>>,
{
    let Some(every) = every else { return look().await };
    let again = async {
        loop {
            output::print(&output::new_look(every))?;
            match look().await {
                Err(e) if e.code == Exit::Io.code() => return Err(e),
                Err(e) => output::say(&e.message),
                Ok(_) => {}
            }
            tokio::time::sleep(every).await;
        }
    };
    tokio::select! {
        failed = again => failed,
        () = output::reader_gone() => Ok(0),
    }
}
