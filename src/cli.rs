//! The command line: parse, dispatch, and one place that prints errors.
//!
//! Data goes to stdout, words to stderr. Wrong usage exits 64; `status` and its kin exit 0 (fine), 1 (cannot
//! ask) or 2 (no leader); the daemon's codes are [`crate::node::exit::Exit`]'s.

mod args;
mod doctor;
mod history;
mod output;
mod query;
mod release;
mod reload;
mod serve;
mod settings;
mod steering;
mod watch;
mod worker;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use args::{Cli, Command};

/// Something that went wrong: for a person, and as a code.
struct Failure {
    code: i32,
    message: String,
}

/// Runs the program.
pub fn main() -> ExitCode {
    crate::guardian::run_if_asked();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let _ = e.print();
            return exit_code(if e.use_stderr() { 64 } else { 0 });
        }
    };
    let done = match cli.command {
        Command::Serve(args) => serve::serve(args, vec![]),
        Command::Run(args) => serve::serve(args.serve, args.command),
        Command::Config(args) => settings::config(&args),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "metad", &mut std::io::stdout());
            Ok(0)
        }
        Command::Status(args) => query::run(query::status(args)),
        Command::Leader(args) => query::run(query::leader(args)),
        Command::Members(args) => query::run(query::members(args)),
        Command::Watch(args) => query::run(watch::watch(args)),
        Command::History(args) => query::run(history::history(args)),
        Command::StepDown(args) => query::run(steering::step_down(args)),
        Command::Release(args) => query::run(release::release(args)),
        Command::Wait(args) => query::run(query::wait(args)),
        Command::Worker(args) => query::run(worker::worker(args)),
        Command::Doctor(args) => query::run(doctor::doctor(args)),
        Command::Check(args) => query::run(doctor::check(args)),
        Command::Health(args) => query::run(query::health(args)),
    };
    match done {
        Ok(code) => exit_code(code),
        Err(failure) => {
            eprintln!("metad: {}", failure.message);
            exit_code(failure.code)
        }
    }
}

fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code.clamp(0, 255)).unwrap_or(70))
}

impl Failure {
    fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}
