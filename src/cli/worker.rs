//! `metad worker`: a small worker, for trying things out and as an example of the client. It collects every barrier at
//! once and prints what is committed.

use std::time::Duration;

use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::args::{OutputFormat, WorkerArgs};
use super::query::CANNOT_ASK;
use super::target::{self, Addressees};
use super::{Failure, output};
use crate::client::{BarrierEvent, ClientError, MetaClient, RegisteredWorker, WorkerSpec};
use crate::election::exit::Exit;
use crate::proto::metad::Committed;

/// The pause before a stream is opened again that has just ended.
const OPEN_PAUSE: Duration = Duration::from_millis(100);
/// How long leaving may take; a registration that is left behind expires.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the worker stands.
struct WorkerSession {
    client: MetaClient,
    spec: WorkerSpec,
    format: OutputFormat,
    /// How many epochs are still to be printed, if there is an end to it.
    left: Option<u64>,
    /// The newest epoch that was printed: a new stream begins with what is known already.
    newest: u64,
}

/// Why a stream is not read any more.
enum StreamEnd {
    /// All epochs are printed.
    Enough,
    /// The worker has to register again.
    Unregistered,
    /// Another leader, or none.
    Broken(ClientError),
    /// stdout does not take any more.
    CannotPrint(Failure),
}

/// Works until interrupted, or until so many epochs are committed. Fails if nobody registers it at the beginning.
pub(super) async fn worker(args: WorkerArgs) -> Result<i32, Failure> {
    let Addressees { addresses, credentials, .. } = target::target(&args.meta)?;
    tokio::spawn(credentials.clone().follow_changes(output::say));
    let client = MetaClient::new(addresses).map_err(|e| failure(&e))?.credentials(credentials);
    let spec = WorkerSpec { host: args.host, port: args.port, kind: args.kind, labels: [].into() };
    let mut worker = WorkerSession { client, spec, format: args.output, left: args.epochs, newest: 0 };
    let caught = |e| Failure::new(Exit::Internal.code(), format!("cannot catch signals: {e}"));
    let mut term = signal(SignalKind::terminate()).map_err(caught)?;
    let mut int = signal(SignalKind::interrupt()).map_err(caught)?;
    let mut registered = tokio::select! {
        registered = worker.register() => registered.map_err(|e| failure(&e))?,
        () = either(&mut term, &mut int) => return Ok(0),
    };
    let worked = tokio::select! {
        worked = worker.work(&mut registered) => worked,
        () = either(&mut term, &mut int) => Ok(()),
        () = output::reader_gone() => Ok(()),
    };
    let leaving = worker.client.clone().deadline(LEAVE_TIMEOUT);
    tokio::select! {
        left = leaving.deregister(registered.worker_id) => worked.and(left.map(|()| 0).map_err(|e| failure(&e))),
        () = either(&mut term, &mut int) => Err(Failure::new(CANNOT_ASK, "second signal: not deregistered")),
    }
}

// === impl WorkerSession ===

impl WorkerSession {
    async fn register(&self) -> Result<RegisteredWorker, ClientError> {
        let registered = self.client.register_worker(self.spec.clone()).await?;
        output::say(&format!("registered as worker {}", registered.worker_id));
        Ok(registered)
    }

    /// Whatever happens to the leader, this goes on.
    async fn work(&mut self, registered: &mut RegisteredWorker) -> Result<(), Failure> {
        loop {
            let now = *registered;
            let client = self.client.clone();
            let ended = tokio::select! {
                ended = self.collect(now.worker_id) => ended,
                () = give_signs(&client, now) => StreamEnd::Unregistered,
            };
            match ended {
                StreamEnd::Enough => return Ok(()),
                StreamEnd::CannotPrint(failure) => return Err(failure),
                StreamEnd::Unregistered => match self.register().await {
                    Ok(again) => *registered = again,
                    Err(e) => output::say(&e.to_string()),
                },
                StreamEnd::Broken(e) => output::say(&e.to_string()),
            }
            tokio::time::sleep(OPEN_PAUSE).await;
        }
    }

    /// Collects barriers from one leader.
    async fn collect(&mut self, worker_id: u64) -> StreamEnd {
        let mut barriers = match self.client.barriers(worker_id).await {
            Ok(barriers) => barriers,
            Err(ClientError::NotFound { .. }) => return StreamEnd::Unregistered,
            Err(e) => return StreamEnd::Broken(e),
        };
        loop {
            let done = match barriers.next().await {
                Ok(BarrierEvent::Barrier(barrier)) => barriers.collected(barrier.epoch).await,
                Ok(BarrierEvent::Committed(committed)) => {
                    if let Err(failure) = self.show(committed, barriers.leader_token()) {
                        return StreamEnd::CannotPrint(failure);
                    }
                    if self.left == Some(0) {
                        return StreamEnd::Enough;
                    }
                    Ok(())
                }
                Ok(BarrierEvent::Dropped(dropped)) => {
                    output::say(&format!("epoch {} was dropped", dropped.epoch));
                    Ok(())
                }
                Ok(BarrierEvent::SetAside(aside)) => {
                    output::say(&format!(
                        "set aside: {} barriers in a row failed because of this worker",
                        aside.failures
                    ));
                    Ok(())
                }
                Err(e) => Err(e),
            };
            match done {
                Ok(()) => {}
                Err(ClientError::NotFound { .. }) => return StreamEnd::Unregistered,
                Err(e) => return StreamEnd::Broken(e),
            }
        }
    }

    fn show(&mut self, Committed { epoch, checkpoint }: Committed, leader_token: u64) -> Result<(), Failure> {
        if epoch <= self.newest {
            return Ok(());
        }
        self.newest = epoch;
        let text = match self.format {
            OutputFormat::Json => {
                json!({"epoch": epoch, "checkpoint": checkpoint, "leader_token": leader_token}).to_string()
            }
            OutputFormat::Table => {
                let kind = if checkpoint { "checkpoint" } else { "barrier" };
                format!("epoch {epoch}  {kind}  leader token {leader_token}")
            }
        };
        self.left = self.left.map(|left| left.saturating_sub(1));
        output::print(&format!("{text}\n"))
    }
}

/// Signs of life at a third of the interval, until there is no registration any more.
async fn give_signs(client: &MetaClient, registered: RegisteredWorker) {
    let every = (registered.max_heartbeat_interval / 3).max(OPEN_PAUSE);
    loop {
        tokio::time::sleep(every).await;
        match client.heartbeat(registered.worker_id).await {
            Ok(()) => {}
            Err(ClientError::NotFound { .. }) => return,
            Err(e) => output::say(&e.to_string()),
        }
    }
}

async fn either(term: &mut Signal, int: &mut Signal) {
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

fn failure(e: &ClientError) -> Failure {
    Failure::new(CANNOT_ASK, e.to_string())
}
