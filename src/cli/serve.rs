//! `metad serve` and `metad run`: from the configuration to the exit code.

use std::path::PathBuf;

use super::args::ServeArgs;
use super::reload::Reload;
use super::{Failure, notify, settings};
use crate::config::{Config, LogFormat};
use crate::election::exit::Exit;
use crate::election::history::Ending;
use crate::guardian::init;
use crate::journal::trace::Trace;
use crate::node::{Node, StartError, exit_timer};
use crate::telemetry::event;
use crate::telemetry::log::{self, Format, LogError, LogFilter};
use crate::telemetry::printer::Printer;

/// What runs as the main loop.
#[derive(Default)]
pub(super) struct Runs {
    /// The program and its arguments; empty: the built-in one.
    pub(super) command: Vec<String>,
    /// It stands by until this node leads.
    pub(super) stands_by: bool,
}

/// Runs a node until it is done.
pub(super) fn serve(args: ServeArgs, runs: Runs) -> Result<i32, Failure> {
    if init::is_asked(args.init) {
        return init::run()
            .map_err(|e| Failure::new(Exit::Internal.code(), format!("cannot be an init: {e}")));
    }
    if init::is_node() {
        let failed = |e| Failure::new(Exit::Internal.code(), format!("cannot be the node of an init: {e}"));
        init::begin_node().map_err(failed)?;
    }
    let loaded = settings::load(&args.settings)?;
    let config = loaded.config;
    let filter = start_log(&config, args.verbose)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let internal = |e: std::io::Error| Failure::new(Exit::Internal.code(), format!("cannot start: {e}"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(internal)?;
    let events = args.events.then(|| Printer::start(std::io::stdout())).transpose().map_err(internal)?;
    let trace = trace(args.trace_file)?;
    let reload =
        Reload { args: args.settings, running: config.clone(), filter, verbose: args.verbose, setting: None };
    let done = runtime.block_on(run(config, runs, (events, trace), args.accept_new_store, reload));
    exit_timer::arm(done.as_ref().map_or_else(|failure| failure.code, |code| *code));
    runtime.shutdown_background(); // a main loop that blocks a thread must not keep us
    log::flush();
    done
}

/// Starts the log as it is configured.
pub(super) fn start_log(config: &Config, verbose: u8) -> Result<LogFilter, Failure> {
    let format = match config.log.format {
        LogFormat::Auto => None,
        LogFormat::Text => Some(Format::Text),
        LogFormat::Json => Some(Format::Json),
    };
    log::start(&louder(&config.log.filter, verbose), format).map_err(no_log)
}

fn trace(file: Option<PathBuf>) -> Result<Option<Trace>, Failure> {
    let Some(file) = settings::file_or_env(file.as_ref(), "METAD_TRACE") else { return Ok(None) };
    let failed = |e| {
        let message = format!("cannot write the trace to {}: {e}", file.display());
        Failure::new(Exit::Io.code(), message)
    };
    Trace::open(&file).map(Some).map_err(failed)
}

/// The configured filter, and more of metad's own lines.
pub(super) fn louder(filter: &str, verbose: u8) -> String {
    match verbose {
        0 => filter.to_owned(),
        1 => format!("{filter},metad=debug"),
        _ => format!("{filter},metad=trace"),
    }
}

fn no_log(e: LogError) -> Failure {
    let exit = match e {
        LogError::Filter(_) => Exit::Config,
        LogError::Thread(_) => Exit::Internal,
    };
    Failure::new(exit.code(), e.to_string())
}

async fn run(
    config: Config,
    runs: Runs,
    (events, trace): (Option<Printer>, Option<Trace>),
    accept_new_store: bool,
    mut reload: Reload,
) -> Result<i32, Failure> {
    let mut builder = Node::builder(config).accept_new_store(accept_new_store).ends_process();
    if let Some(printer) = events {
        builder = builder.events(printer);
    }
    if let Some(trace) = trace {
        builder = builder.trace(trace);
    }
    // The kernel's own name for our program: right even after the file was replaced by an upgrade.
    builder =
        builder.command(runs.command).stands_by(runs.stands_by).guardian_program("/proc/self/exe".into());
    let refused = |e: StartError| Failure::new(e.exit.code(), e.message);
    let node = builder.start().await.map_err(refused)?;
    let (reloader, handle) = (node.reloader(), node.handle());
    let caught = node.stop_on_signals_and_reload(move || reload.run(&reloader, &handle));
    caught.map_err(|e| Failure::new(Exit::Internal.code(), format!("cannot catch signals: {e}")))?;
    // Only now: who is told may send a signal at once.
    notify::tell("READY=1");
    let (exit, ending) = node.wait().await;
    notify::tell("STOPPING=1");
    let is_fine = exit == Exit::Stopped || matches!(exit, Exit::MainLoop(_));
    // Why it has ended is an event, and so a line of the log, unless that is filtered.
    if is_fine || tracing::enabled!(target: event::TARGET, tracing::Level::WARN) {
        return Ok(exit.code());
    }
    let Ending { reason, detail, .. } = ending;
    let why = if detail.is_empty() { String::new() } else { format!(": {detail}") };
    Err(Failure::new(exit.code(), format!("stopped: {reason}{why}")))
}
