//! The log: text on a terminal, JSON otherwise, on stderr, never in anybody's way.

use std::io::IsTerminal;

use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// Keeps the writing thread alive; dropping it writes what is left.
#[must_use = "dropping the guard ends the log"]
pub struct LogGuard(#[allow(dead_code)] WorkerGuard);

/// A filter that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "log.filter = {filter:?} is no log filter: {why}\nfix: write a level such as \"info\", or \"info,metad::store=debug\""
)]
pub struct FilterError {
    filter: String,
    why: String,
}

/// Starts the log of this process. `None`: text on a terminal, else JSON.
///
/// # Errors
/// The filter cannot be read.
pub fn start(filter: &str, format: Option<Format>) -> Result<LogGuard, FilterError> {
    let parsed = EnvFilter::try_new(filter)
        .map_err(|e| FilterError { filter: filter.to_owned(), why: e.to_string() })?;
    let terminal = std::io::stderr().is_terminal();
    let format = format.unwrap_or(if terminal { Format::Text } else { Format::Json });
    let (writer, guard) = tracing_appender::non_blocking(std::io::stderr());
    let builder =
        tracing_subscriber::fmt().with_env_filter(parsed).with_writer(writer).with_span_events(FmtSpan::NONE);
    // A second start in one process (a library's user with a log of its own) keeps the first.
    let _ = match format {
        Format::Text => {
            let colours = terminal && std::env::var_os("NO_COLOR").is_none();
            builder.with_ansi(colours).with_target(false).try_init()
        }
        Format::Json => builder.json().flatten_event(true).with_target(false).try_init(),
    };
    Ok(LogGuard(guard))
}
