//! The composition root: a configuration in, a running member out, and in the end the reason why it stopped.
//!
//! The order of a start is boring and fails early: bind the ports, take the data dir, open the store, start the
//! driver, serve. Nothing outside the data dir (and the store) is written.

pub mod exit_timer;
mod guardians;
mod leader_hook;
mod listeners;
mod main_loops;
mod open;
mod peers;
mod probing;
mod reloader;
pub mod security;
mod signals;
mod watched;
mod watching;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api::grpc::{self, RpcParts};
use crate::api::http::events::Readers;
use crate::api::http::hosts::Hosts;
use crate::api::http::{self, HttpParts};
use crate::clock::{Clock, OsClock, wall_clock_ms};
use crate::config::Config;
use crate::diagnosis::checks::background::{self, BackgroundParts, Latest};
use crate::driver::fuse::{DeadMansSwitch, Fuse};
use crate::driver::leadership::Leadership;
use crate::driver::main_loop::{MainLoop, MainLoopEnd};
use crate::driver::{self, DriverHandle, DriverParts, Timeouts};
use crate::election::exit::Exit;
use crate::election::history::{Ending, Reason};
use crate::election::status::Status;
use crate::guardian::keeper::Keeper;
use crate::journal::Past;
use crate::journal::trace::Trace;
use crate::limits::{Bounds, descriptors};
use crate::meta::FnLoop;
use crate::meta::request_queue::RequestQueue;
use crate::meta::standby::StandbyNode;
use crate::store;
use crate::store::codec::Keys;
use crate::telemetry::printer::Printer;
use crate::telemetry::{Event, Telemetry};
use guardians::{guardianship, keeper};
use leader_hook::LeaderHook;
use listeners::{Listeners, bind, registration};
use main_loops::Wanted;
use peers::ConnectedPeers;
pub use reloader::{ReloadError, Reloader};
use security::SecurityFiles;
use watched::{Observers, Tools, Watched};

/// How long the servers get to finish what they are doing when the node stops.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(500);
/// How long the end waits for a reader of the events.
const FLUSH_LIMIT: Duration = Duration::from_millis(500);

/// Why a node could not be started: what happened, to which value, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StartError {
    /// The exit that it leads to.
    pub exit: Exit,
    /// For a person.
    pub message: String,
}

/// Makes a [`Node`].
pub struct NodeBuilder {
    config: Config,
    wanted: Wanted,
    guardian_program: Option<PathBuf>,
    events: Option<Printer>,
    trace: Option<Trace>,
    accept_new_store: bool,
    on_end: fn(&Ending),
}

/// Makes a [`Node`] whose main loop is given what was made on every candidate; see [`NodeBuilder::standby`].
pub struct StandbyBuilder<F> {
    node: NodeBuilder,
    warm_up: F,
}

/// A running member of the cluster.
pub struct Node {
    driver: DriverHandle,
    /// Who looks after the program, if the main loop is one.
    program: Option<Keeper>,
    ending: tokio::sync::oneshot::Receiver<Ending>,
    servers: tokio::task::JoinSet<()>,
    stop_servers: CancellationToken,
    telemetry: Telemetry,
    reloader: Reloader,
    /// Runs its command for as long as the node runs.
    leader_hook: Option<LeaderHook>,
    rpc_address: String,
    http_address: String,
}

// === impl NodeBuilder ===

impl NodeBuilder {
    /// Runs this while the node leads; without it the built-in loop runs. It should end when
    /// [`Leadership::lost`] answers; its own end gives leadership up and ends the node.
    pub fn main_loop<F, Fut>(self, main_loop: F) -> Self
    where
        F: FnOnce(Leadership) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.boxed_main_loop(Box::new(FnLoop(|leadership| async {
            main_loop(leadership).await;
            MainLoopEnd { code: Some(0) }
        })))
    }

    /// The same for an implementation of [`MainLoop`].
    pub fn boxed_main_loop(mut self, main_loop: Box<dyn MainLoop>) -> Self {
        self.wanted.own = Some(Box::new(|_, _, _| main_loop));
        self
    }

    /// Makes what the main loop needs on every candidate, as soon as it starts, so that a new leader works at once. Until it
    /// is made nobody hands over to this node, and it claims a vacancy after all others. It may do nothing that only a
    /// leader may do. It is called again, after a pause, if it panics.
    pub fn standby<F, Fut, W>(self, warm_up: F) -> StandbyBuilder<F>
    where
        F: Fn(StandbyNode) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = W> + Send + 'static,
        W: Send + 'static,
    {
        StandbyBuilder { node: self, warm_up }
    }

    /// Runs this program while the node leads. It needs a guardian.
    pub fn command(mut self, command: Vec<String>) -> Self {
        self.wanted.command = command;
        self
    }

    /// The program runs on every candidate and stands by; it leads when it is told so.
    pub fn stands_by(mut self, stands_by: bool) -> Self {
        self.wanted.stands_by = stands_by;
        self
    }

    /// Which program becomes this process's guardian, if the configuration wants one. It must call
    /// [`crate::guardian::run_if_asked`] before anything else; the program of this process may be it.
    pub fn guardian_program(mut self, program: PathBuf) -> Self {
        self.guardian_program = Some(program);
        self
    }

    /// Prints every event of this node as one JSON line.
    pub fn events(mut self, printer: Printer) -> Self {
        self.events = Some(printer);
        self
    }

    /// Writes down what the elector is told and asks for.
    pub fn trace(mut self, trace: Trace) -> Self {
        self.trace = Some(trace);
        self
    }

    /// Accepts, once, that the store is another one, or an older state of the one, that this data dir knows.
    pub fn accept_new_store(mut self, accept: bool) -> Self {
        self.accept_new_store = accept;
        self
    }

    /// This process is there for the node alone: once the node has decided to end, the process ends within
    /// [`exit_timer::EXIT_LIMIT`], with the node's exit code, whatever still hangs by then.
    pub fn ends_process(mut self) -> Self {
        self.on_end = |ending| exit_timer::arm(Exit::of(ending).code());
        self
    }

    /// Starts the node on the present runtime, where its main loop will run too.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(self) -> Result<Node, StartError> {
        let clock: Arc<dyn Clock> = Arc::new(OsClock);
        check_wall_clock()?;
        self.wanted.check(&self.config.meta.probe_command)?;
        let telemetry = Telemetry::new(&self.config.node.id, clock.clone(), self.events);
        let security_files = SecurityFiles::open(&self.config)?;
        let credentials = security_files.credentials.clone();
        let tools = Tools { clock: clock.clone(), telemetry: telemetry.clone(), credentials };
        let listeners = bind(&self.config).await?;
        let open::OpenDataDir { folder, data_dir, file, past } =
            open::data_dir(&self.config, self.accept_new_store).await?;
        let held = watching::look_at_data_dir(folder.path().into(), folder.lock(), telemetry.clone());
        let stores = open::stores(&self.config, clock.clone(), data_dir.pin()).await?;
        let fuse: Arc<dyn DeadMansSwitch> = Arc::new(Fuse::start().map_err(no_thread)?);
        let keeper = keeper(&self.config, self.guardian_program, fuse.horizon(), folder.lock()).await;
        let requests = RequestQueue::default();
        let (runs_program, serves_cluster) = (self.wanted.runs_program(), self.wanted.serves_cluster());
        let made = self.wanted.make(&keeper, &self.config, requests.clone(), &tools)?;
        let keeper = keeper.ok();
        let program = keeper.clone().filter(|_| runs_program);
        let keys = Keys::new(&self.config.node.cluster, &self.config.meta.group);
        let (limits, limited) = watch::channel(self.config.checks.clone());
        let registration = registration(&self.config, &listeners);
        let ([store, main_store], open_stores) = (stores.clone(), stores.clone());
        let watched = Watched { keys: keys.clone(), stores, tools: tools.clone() };
        let Observers { all, past, looks } =
            watched.observers(&registration, file, past, self.trace, made.observers);
        telemetry.emit(listeners.event()); // the first line of a life: before the guardians have anything to say
        let parts = DriverParts {
            places: store.clone(),
            store,
            main_store,
            clock: clock.clone(),
            keys,
            cluster: self.config.node.cluster.clone(),
            registration,
            timeouts: timeouts(&self.config),
            data_dir,
            fuse,
            guardian: guardianship(keeper, &self.config)?,
            readiness: made.readiness,
            health: probing::health_at_start(&self.config.meta),
            peers: Arc::new(ConnectedPeers::new(tools.credentials.clone())),
            telemetry: telemetry.clone(),
            main_loop: made.main_loop,
            main_tasks: Arc::new(tokio::runtime::Handle::current()),
            observers: all,
            on_end: Box::new(self.on_end),
        };
        let (driver, ending) = driver::start(parts).map_err(no_thread)?;
        let probing = probing::start(&driver, &tools, &folder, &self.config.meta)?;
        let reloader = Reloader::new(&self.config, &open_stores, security_files, limits, probing);
        let (checks, checking) = background::start(BackgroundParts {
            config: self.config,
            limits: limited,
            clock,
            telemetry,
            snapshots: driver.subscribe(),
            looks,
            history: past.clone(),
            credentials: tools.credentials.clone(),
        });
        let rpc_parts = rpc_parts(driver, past, requests, serves_cluster, checks, tools, &reloader.config);
        let mut node = Node { program, ..Node::serve(listeners, rpc_parts, ending, reloader) };
        node.serve_beside(held);
        node.serve_beside(checking);
        let security_files = node.reloader.security_files.clone();
        node.serve_beside(security_files.follow_changes());
        Ok(node)
    }
}

// === impl StandbyBuilder ===

impl<F> StandbyBuilder<F> {
    /// Runs this while the node leads, with what was made. Otherwise as [`NodeBuilder::main_loop`].
    pub fn main_loop<Fut, W, M, Main>(self, main_loop: M) -> NodeBuilder
    where
        F: Fn(StandbyNode) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = W> + Send + 'static,
        W: Send + 'static,
        M: FnOnce(Leadership, W) -> Main + Send + 'static,
        Main: Future<Output = ()> + Send + 'static,
    {
        let mut node = self.node;
        node.wanted.own = Some(main_loops::warm(self.warm_up, main_loop));
        node
    }
}

fn no_thread(e: std::io::Error) -> StartError {
    StartError { exit: Exit::Internal, message: format!("cannot start a thread: {e}") }
}

/// No answer over HTTP can be dated before the epoch.
fn check_wall_clock() -> Result<(), StartError> {
    if wall_clock_ms() > 0 {
        return Ok(());
    }
    let message = "this machine's clock is set before 1970\nfix: set it (date -s, or NTP), then start again";
    Err(StartError { exit: Exit::Internal, message: message.into() })
}

fn rpc_parts(
    driver: DriverHandle,
    past: watch::Receiver<Arc<Past>>,
    requests: RequestQueue,
    serves_cluster: bool,
    checks: watch::Receiver<Arc<Latest>>,
    tools: Tools,
    config: &Config,
) -> RpcParts {
    let Tools { clock, telemetry, credentials } = tools;
    let look_command = store::open::look_command(config).into();
    RpcParts { driver, past, look_command, clock, requests, serves_cluster, telemetry, credentials, checks }
}

fn timeouts(config: &Config) -> Timeouts {
    Timeouts {
        stop: Duration::from_secs(config.meta.stop_timeout_secs),
        start: Duration::from_secs(config.meta.start_timeout_secs),
        warm_up: Duration::from_secs(config.meta.warm_up_timeout_secs),
        main_loop: timeout(config.meta.main_loop_timeout_secs),
        failback_delay: timeout(config.node.failback_delay_secs),
        store: Duration::from_secs(config.store.etcd.start_timeout_secs),
    }
}

/// A time that 0 switches off.
fn timeout(secs: u64) -> Option<Duration> {
    (secs > 0).then(|| Duration::from_secs(secs))
}

// === impl Node ===

impl Node {
    /// Begins to describe a node.
    pub fn builder(config: Config) -> NodeBuilder {
        NodeBuilder {
            config,
            wanted: Wanted::default(),
            guardian_program: None,
            events: None,
            trace: None,
            accept_new_store: false,
            on_end: |_| {},
        }
    }

    /// Runs this beside the servers, until they stop.
    fn serve_beside(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop_servers.clone();
        self.servers.spawn(async move { stop.run_until_cancelled(work).await.unwrap_or_default() });
    }

    fn serve(
        listeners: Listeners,
        rpc_parts: RpcParts,
        ending: tokio::sync::oneshot::Receiver<Ending>,
        reloader: Reloader,
    ) -> Self {
        let telemetry = rpc_parts.telemetry.clone();
        let (driver, clock) = (rpc_parts.driver.clone(), rpc_parts.clock.clone());
        let (checks, look_command) = (rpc_parts.checks.clone(), rpc_parts.look_command.clone());
        let past = rpc_parts.past.clone();
        let stop_servers = CancellationToken::new();
        let mut servers = tokio::task::JoinSet::new();
        let stop = stop_servers.clone().cancelled_owned();
        let config = reloader.config.clone();
        descriptors::raise();
        let room = descriptors::room(config.node.reserved_descriptors);
        let (bounds, web) = (Bounds::rpc(&config.rpc, room), Bounds::http(&config.http, room));
        let security = reloader.security_files.security.clone();
        let for_http = security.clone();
        servers.spawn(async move {
            if let Err(e) = grpc::serve(listeners.rpc, rpc_parts, bounds, security, stop).await {
                tracing::error!(error = %e, "the gRPC listener failed");
            }
        });
        watching::register_computed(&telemetry, &driver, &clock);
        let leader_hook = LeaderHook::start(&reloader.config, driver.subscribe(), &clock, &telemetry);
        let store = reloader.config.store.kind;
        let http_parts = HttpParts {
            driver: driver.clone(),
            past,
            look_command,
            clock,
            telemetry: telemetry.clone(),
            store,
            checks,
            readers: Arc::new(Readers::new(web.readers(config.http.max_event_readers))),
            hosts: Arc::new(Hosts::new(
                config.http.allowed_hosts.as_deref(),
                config.http.advertise_addr.as_deref(),
            )),
        };
        let stop = stop_servers.clone().cancelled_owned();
        servers.spawn(http::serve(listeners.http, http_parts, web, for_http, stop));
        let (rpc_address, http_address) = (listeners.rpc_address, listeners.http_address);
        Self {
            driver,
            program: None,
            ending,
            servers,
            stop_servers,
            telemetry,
            reloader,
            leader_hook,
            rpc_address,
            http_address,
        }
    }

    /// The node as it sees itself and its cluster.
    pub fn status(&self) -> Arc<Status> {
        self.driver.status()
    }

    /// The snapshots as they come. What a renewal alone has changed (how long the lease holds, when the store confirmed
    /// the view) is in the latest one, but announced by none.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Status>> {
        self.driver.subscribe()
    }

    /// What can be asked of the running node.
    pub fn handle(&self) -> DriverHandle {
        self.driver.clone()
    }

    /// Where gRPC is served.
    pub fn rpc_address(&self) -> &str {
        &self.rpc_address
    }

    /// Where HTTP is served.
    pub fn http_address(&self) -> &str {
        &self.http_address
    }

    /// The way to change what can change while this node runs.
    pub fn reloader(&self) -> Reloader {
        self.reloader.clone()
    }

    /// Asks the node to end its main loop, to give leadership up, and to stop.
    pub fn shutdown(&self) {
        self.driver.shutdown(Reason::ResignedSignal);
    }

    /// Like [`Node::shutdown`], at the first SIGTERM or SIGINT; the second one ends the process at once. SIGHUP,
    /// SIGUSR1, SIGUSR2 and SIGWINCH are passed on to the program, if the main loop is one.
    ///
    /// # Errors
    /// The signals cannot be caught.
    pub fn stop_on_signals(&self) -> std::io::Result<()> {
        self.stop_on_signals_and_reload(|| {
            tracing::warn!("SIGHUP: nothing is reloaded; restart the node to change the configuration");
        })
    }

    /// The same; `reload` is called at every SIGHUP, which the program gets as well.
    ///
    /// # Errors
    /// The signals cannot be caught.
    pub fn stop_on_signals_and_reload(&self, reload: impl FnMut() + Send + 'static) -> std::io::Result<()> {
        signals::reload_on_hangup(reload)?;
        if let Some(keeper) = &self.program {
            signals::pass_on(keeper)?;
        }
        signals::stop_on_them(self.driver.clone())
    }

    /// Waits until the node is done, and says why.
    pub async fn wait(mut self) -> (Exit, Ending) {
        let lost_driver = || Ending::with_detail(Reason::RenewDeadline, "the driver thread has ended");
        let ending = (&mut self.ending).await.unwrap_or_else(|_| lost_driver());
        let exit = Exit::of(&ending);
        let (reason, detail, code) = (ending.reason, ending.detail.clone(), exit.code());
        self.telemetry.emit(Event::Stopped { reason, detail, code });
        let _ = tokio::time::timeout(FLUSH_LIMIT, self.telemetry.flushed()).await;
        drop(self.leader_hook.take());
        self.stop_servers.cancel();
        let drained = async { while self.servers.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, drained).await; // an open stream does not keep us
        (exit, ending)
    }
}
