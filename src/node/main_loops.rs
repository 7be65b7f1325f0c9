//! The main loop that is wanted: the built-in one, a caller's own, or a program.

use std::sync::Arc;
use std::time::Duration;

use super::StartError;
use super::watched::Tools;
use crate::clock::Clock;
use crate::config::Config;
use crate::driver::leadership::Leadership;
use crate::driver::main_loop::MainLoop;
use crate::driver::observer::Observer;
use crate::driver::readiness::Readiness;
use crate::election::exit::Exit;
use crate::guardian::keeper::Keeper;
use crate::guardian::{self, NoGuardian, Refused};
use crate::meta::barrier::BarrierSettings;
use crate::meta::cluster::ClusterLoop;
use crate::meta::deadline_page::DeadlinePage;
use crate::meta::payload::Payload;
use crate::meta::request_queue::{RequestQueue, Served};
use crate::meta::standby::{StandbyNode, WarmLoop};
use crate::meta::tick::TickLoop;
use crate::telemetry::Telemetry;

/// Makes a caller's own main loop, when the node starts.
pub(super) type MakeLoop = Box<dyn FnOnce(&Config, Readiness, Arc<dyn Clock>) -> Box<dyn MainLoop> + Send>;

/// What runs while the node leads.
#[derive(Default)]
pub(super) struct Wanted {
    pub(super) own: Option<MakeLoop>,
    pub(super) command: Vec<String>,
    pub(super) stands_by: bool,
}

/// What has become of it.
pub(super) struct MadeLoop {
    pub(super) main_loop: Box<dyn MainLoop>,
    /// Where it says that it is not warm.
    pub(super) readiness: Readiness,
    /// One ends what runs already, one moves its deadline.
    pub(super) observers: Vec<Box<dyn Observer>>,
}

// === impl Wanted ===

impl Wanted {
    pub(super) fn runs_program(&self) -> bool {
        !self.command.is_empty()
    }

    pub(super) fn serves_cluster(&self) -> bool {
        self.own.is_none() && !self.runs_program()
    }

    /// Could the program be started, if there is one, and this probe?
    pub(super) fn check(&self, probe: &[String]) -> Result<(), StartError> {
        check_command(&self.command)?;
        check_command(probe)
    }

    /// The main loop, with the request queue in front of it. To be called on its runtime.
    pub(super) fn make(
        self,
        keeper: &Result<Keeper, NoGuardian>,
        config: &Config,
        requests: RequestQueue,
        tools: &Tools,
    ) -> Result<MadeLoop, StartError> {
        let Tools { clock, telemetry, .. } = tools.clone();
        let (readiness, mut observers) = (Readiness::default(), Vec::<Box<dyn Observer>>::new());
        let main_loop: Box<dyn MainLoop> = match self.own {
            _ if !self.command.is_empty() => {
                let program = payload(self.command, keeper, config, clock)?;
                if self.stands_by {
                    let (program, end) = program.standing_by(readiness.clone(), config.node.priority > 0);
                    observers.push(Box::new(end));
                    Box::new(program)
                } else {
                    Box::new(program)
                }
            }
            Some(own) => own(config, readiness.clone(), clock),
            None => Box::new(cluster_loop(config, requests.clone(), clock, telemetry)),
        };
        observers.extend(main_loop.observer());
        Ok(MadeLoop { main_loop: Box::new(Served { main_loop, requests }), readiness, observers })
    }
}

/// A main loop that is given what was made for it before.
pub(super) fn warm<F, Fut, W, M, Main>(warm_up: F, main_loop: M) -> MakeLoop
where
    F: Fn(StandbyNode) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = W> + Send + 'static,
    W: Send + 'static,
    M: FnOnce(Leadership, W) -> Main + Send + 'static,
    Main: Future<Output = ()> + Send + 'static,
{
    Box::new(move |config, readiness, clock| {
        let candidate = StandbyNode { node: config.node.id.clone(), cluster: config.node.cluster.clone() };
        Box::new(WarmLoop::start(warm_up, main_loop, candidate, readiness, clock))
    })
}

/// Could the program be started, if there is one?
pub(super) fn check_command(command: &[String]) -> Result<(), StartError> {
    let Some(program) = command.first() else { return Ok(()) };
    guardian::look_for(program).map_err(cannot_run)?;
    let too_long = |message| StartError { exit: Exit::Usage, message };
    guardian::check_length(command).map_err(too_long)
}

fn payload(
    command: Vec<String>,
    keeper: &Result<Keeper, NoGuardian>,
    config: &Config,
    clock: Arc<dyn Clock>,
) -> Result<Payload, StartError> {
    let keeper = keeper.as_ref().map_err(|why| StartError {
        exit: Exit::Config,
        message: format!(
            "a program as the main loop needs the guardian: {why}\nfix: set node.guardian = true; in a container run \
             metad under an init (docker run --init); pidfd needs Linux 5.3, and a seccomp filter must allow it"
        ),
    })?;
    let subreaper = guardian::tree::become_subreaper();
    subreaper.map_err(|e| StartError {
        exit: Exit::Internal,
        message: format!("cannot become a subreaper: {e}"),
    })?;
    let deadline = DeadlinePage::create().map_err(|e| StartError {
        exit: Exit::Internal,
        message: format!("cannot make the page for METAD_DEADLINE_FD: {e}"),
    })?;
    Ok(Payload::new(command, keeper.clone(), config, clock, deadline))
}

fn cannot_run(refused: Refused) -> StartError {
    let exit = refused.code.map_or(Exit::Internal, Exit::MainLoop);
    StartError { exit, message: format!("{refused}\nfix: name an executable program, or give its full path") }
}

fn cluster_loop(
    config: &Config,
    requests: RequestQueue,
    clock: Arc<dyn Clock>,
    telemetry: Telemetry,
) -> ClusterLoop {
    let meta = &config.meta;
    ClusterLoop {
        barriers: BarrierSettings {
            interval: Duration::from_millis(meta.barrier_interval_ms),
            collect_timeout: Duration::from_millis(meta.barrier_collect_timeout_ms),
            checkpoint_frequency: meta.checkpoint_frequency,
            failures_max: u32::try_from(meta.barrier_failures_max).unwrap_or(u32::MAX),
            in_flight_max: usize::try_from(meta.in_flight_barrier_nums).unwrap_or(usize::MAX),
        },
        max_heartbeat_interval: Duration::from_secs(meta.max_heartbeat_interval_secs),
        start_timeout: Duration::from_secs(meta.start_timeout_secs),
        tick: (meta.tick_interval_ms > 0)
            .then(|| TickLoop { interval: Duration::from_millis(meta.tick_interval_ms) }),
        requests,
        clock,
        telemetry,
    }
}
