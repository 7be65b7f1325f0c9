//! `meta.on_leader_change`: a command that is run at each change of leader that this node sees.
//!
//! On a thread of its own, which nobody waits for: the election does not notice how long it takes, or that it hangs. What
//! waits for its turn is the newest snapshot and nothing else, so a change that is over before its turn comes is never told.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::{Clock, millis};
use crate::config::Config;
use crate::election::record::{Revision, Token};
use crate::election::status::Status;
use crate::guardian::dependent::{Dependent, DependentEnd};
use crate::telemetry::event::HookEnded;
use crate::telemetry::{Event, Telemetry};

/// How many lines of its output one run may log.
const LINES_MAX: u64 = 100;

/// Ends the command that runs when it is dropped.
pub(super) struct LeaderHook(Arc<Dependent>);

struct HookThread {
    command: String,
    timeout: Duration,
    group: String,
    dependent: Arc<Dependent>,
    status: watch::Receiver<Arc<Status>>,
    clock: Arc<dyn Clock>,
    telemetry: Telemetry,
}

/// Who leads, as far as the command is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ToldLeader {
    leader: String,
    address: String,
    token: Option<Token>,
}

// === impl LeaderHook ===

impl LeaderHook {
    /// Starts the thread, if a command is configured. Without a thread the node runs all the same, and says so.
    pub(super) fn start(
        config: &Config,
        status: watch::Receiver<Arc<Status>>,
        clock: &Arc<dyn Clock>,
        telemetry: &Telemetry,
    ) -> Option<Self> {
        let dependent = Arc::new(Dependent::default());
        let thread = HookThread {
            command: config.meta.on_leader_change.clone()?,
            timeout: Duration::from_secs(config.meta.on_leader_change_timeout_secs),
            group: config.meta.group.clone(),
            dependent: dependent.clone(),
            status,
            clock: clock.clone(),
            telemetry: telemetry.clone(),
        };
        let started = thread.start().inspect_err(|e| {
            tracing::error!(error = %e, "cannot start the thread of meta.on_leader_change: it is never run");
        });
        started.is_ok().then_some(Self(dependent))
    }
}

impl Drop for LeaderHook {
    fn drop(&mut self) {
        self.0.end();
    }
}

// === impl HookThread ===

impl HookThread {
    fn start(self) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let run = move || runtime.block_on(self.run());
        std::thread::Builder::new().name("leader-hook".into()).spawn(run).map(drop)
    }

    /// Until the driver is gone.
    async fn run(mut self) {
        let mut told: Option<ToldLeader> = None;
        loop {
            let status = self.status.borrow_and_update().clone();
            let known = ToldLeader::of(&status).filter(|known| told.as_ref() != Some(known));
            if let Some(known) = known {
                self.tell(&status, &known, told.as_ref());
                told = Some(known);
            } else if self.status.changed().await.is_err() {
                return;
            }
        }
    }

    /// Runs the command, and waits for it: this thread has nothing else to do.
    fn tell(&self, status: &Status, known: &ToldLeader, before: Option<&ToldLeader>) {
        let began = self.clock.now();
        let limits = (self.clock.as_ref(), self.timeout);
        let mut lines: u64 = 0;
        let say = |line: &str| {
            lines += 1;
            if lines <= LINES_MAX {
                tracing::info!(line, "on_leader_change says");
            }
        };
        let shell = ["/bin/sh".to_owned(), "-c".to_owned(), self.command.clone()];
        let end = self.dependent.run(&shell, self.env(status, known, before), limits, say);
        let (result, code, error) = match end {
            DependentEnd::Exited(0) => ("ok", Some(0), None),
            DependentEnd::Exited(code) => ("failed", Some(code), None),
            DependentEnd::TimedOut => ("timeout", None, None),
            DependentEnd::NotStarted(e) => ("not_started", None, Some(e.to_string())),
            DependentEnd::Cut => return, // with its node
        };
        self.telemetry.emit(Event::LeaderHookEnded(Box::new(HookEnded {
            leader: Some(known.leader.clone()).filter(|leader| !leader.is_empty()),
            token: known.token,
            result,
            code,
            error,
            took_ms: millis(self.clock.now().since(began)),
            lines_left_out: lines.saturating_sub(LINES_MAX),
        })));
    }

    fn env(
        &self,
        status: &Status,
        known: &ToldLeader,
        before: Option<&ToldLeader>,
    ) -> Vec<(&'static str, String)> {
        let is_me = known.leader == status.me.node;
        vec![
            ("METAD_LEADER", known.leader.clone()),
            ("METAD_LEADER_ADDRESS", known.address.clone()),
            ("METAD_PREVIOUS_LEADER", before.map(|b| b.leader.clone()).unwrap_or_default()),
            ("METAD_TOKEN", known.token.map(|t| t.to_string()).unwrap_or_default()),
            ("METAD_ROLE", if is_me { "leader" } else { "follower" }.to_owned()),
            ("METAD_NODE_ID", status.me.node.clone()),
            ("METAD_CLUSTER", status.cluster.clone()),
            ("METAD_GROUP", self.group.clone()),
        ]
    }
}

// === impl ToldLeader ===

impl ToldLeader {
    /// `None`: this node has not read the election yet.
    fn of(status: &Status) -> Option<Self> {
        let record = status.leader().map(|tenure| (&tenure.record, tenure.token));
        let (leader, address, token) = match record {
            Some((r, token)) => (r.holder.node.clone(), r.address.clone(), Some(token)),
            None => (String::new(), String::new(), None),
        };
        (status.revision() > Revision(0)).then_some(Self { leader, address, token })
    }
}
