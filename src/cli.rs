//! The command line: parse, dispatch, and one place that prints errors.
//!
//! Data goes to stdout, words to stderr. Wrong usage exits 64; `status` and its kin exit 0 (fine), 1 (cannot
//! ask), 2 (no leader) or 3 (unknown); the daemon's codes are [`crate::election::exit::Exit`]'s. Nothing here writes to stdout or stderr
//! but `output`.

mod advise;
mod args;
mod asking;
mod completions;
mod doctor;
mod explain;
mod freezing;
mod history;
mod key_flags;
mod notify;
mod output;
mod panics;
mod priority;
mod query;
mod release;
mod reload;
mod role;
mod secrets;
mod serve;
mod settings;
mod sidecar;
mod steering;
mod target;
mod upgrade;
mod watch;
mod worker;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::election::exit::Exit;
use crate::node::exit_timer;
use crate::telemetry::log;
use args::{Cli, Command};
use serve::Runs;

/// Something that went wrong: for a person, and as a code.
struct Failure {
    code: i32,
    message: String,
}

/// The commands and their flags, for what is written from them: `examples/man.rs`.
#[doc(hidden)]
pub fn definition() -> clap::Command {
    Cli::command()
}

/// Runs the program.
pub fn main() -> ExitCode {
    panics::end_the_process();
    crate::guardian::run_if_asked();
    completions::answer_if_asked();
    let done = match Cli::try_parse() {
        Ok(cli) => command(cli.command),
        Err(e) if e.use_stderr() => {
            exit_timer::arm(Exit::Usage.code()); // nobody may read it
            let _ = e.print();
            Ok(Exit::Usage.code())
        }
        Err(help) => output::done(help.print()).map(|()| 0),
    };
    exit_timer::arm(done.as_ref().map_or_else(|failure| failure.code, |code| *code));
    match done {
        Ok(code) => exit_code(code),
        Err(failure) => {
            // Whoever reads a log as JSON gets nothing else; but a filter must not hide why nothing runs.
            if log::is_started() && tracing::enabled!(tracing::Level::ERROR) {
                tracing::error!(code = failure.code, "{}", failure.message);
                log::flush();
            } else {
                output::say(&failure.message);
            }
            exit_code(failure.code)
        }
    }
}

fn command(command: Command) -> Result<i32, Failure> {
    match command {
        Command::Serve(args) => serve::serve(args, Runs::default()),
        Command::Run(args) => {
            serve::serve(args.serve, Runs { command: args.command, stands_by: args.standby })
        }
        Command::Guardian(args) => sidecar::guardian(&args),
        Command::Config(args) => settings::config(&args),
        Command::Completions { shell } => completions::print(shell),
        Command::Status(args) => query::on_runtime(query::status(args)),
        Command::Leader(args) => query::on_runtime(query::leader(args)),
        Command::Members(args) => query::on_runtime(query::members(args)),
        Command::Watch(args) => query::on_runtime(watch::watch(args)),
        Command::History(args) => query::on_runtime(history::history(args)),
        Command::Freeze(args) => query::on_runtime(freezing::freeze(args)),
        Command::Unfreeze { meta } => query::on_runtime(freezing::unfreeze(meta)),
        Command::Priority(args) => query::on_runtime(priority::priority(args)),
        Command::StepDown(args) => query::on_runtime(steering::step_down(args)),
        Command::Release(args) => query::on_runtime(release::release(args)),
        Command::UpgradeOrder(args) => query::on_runtime(upgrade::upgrade_order(args)),
        Command::Wait(args) => query::on_runtime(query::wait(args)),
        Command::Worker(args) => query::on_runtime(worker::worker(args)),
        Command::Doctor(args) => query::on_runtime(doctor::doctor(args)),
        Command::Check(args) => query::on_runtime(doctor::check(args)),
        Command::Advise(args) => advise::advise(&args),
        Command::Explain { code } => explain::explain(code.as_deref()),
        Command::Tls(args) => secrets::tls(&args),
        Command::Token(args) => secrets::token(&args),
        Command::Version => output::print(&format!("metad {}\n", env!("CARGO_PKG_VERSION"))).map(|()| 0),
        Command::Health(args) => query::on_runtime(query::health(args)),
    }
}

fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code.clamp(0, 255)).unwrap_or(u8::MAX))
}

impl Failure {
    fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}
