//! The log: text on a terminal, JSON otherwise, on stderr, never in anybody's way.

use std::io::IsTerminal;

use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

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
pub struct LogGuard {
    _writer: WorkerGuard,
    filter: LogFilter,
}

/// What is logged; can be changed while the process runs. Clones change the same log.
#[derive(Clone, Debug)]
pub struct LogFilter {
    handle: reload::Handle<EnvFilter, Registry>,
}

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
    let parsed = parse(filter)?;
    let terminal = std::io::stderr().is_terminal();
    let format = format.unwrap_or(if terminal { Format::Text } else { Format::Json });
    let (writer, guard) = tracing_appender::non_blocking(std::io::stderr());
    let (filter, handle) = reload::Layer::new(parsed);
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_target(false);
    let lines = match format {
        Format::Text => lines.with_ansi(terminal && std::env::var_os("NO_COLOR").is_none()).boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    // A second start in one process (a library's user with a log of its own) keeps the first.
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
    let filter = LogFilter { handle };
    Ok(LogGuard { _writer: guard, filter })
}

fn parse(filter: &str) -> Result<EnvFilter, FilterError> {
    EnvFilter::try_new(filter).map_err(|e| FilterError { filter: filter.to_owned(), why: e.to_string() })
}

// === impl LogGuard ===

impl LogGuard {
    /// The way to change what is logged.
    pub fn filter(&self) -> LogFilter {
        self.filter.clone()
    }
}

// === impl LogFilter ===

impl LogFilter {
    /// Logs what this filter lets through, from now on.
    ///
    /// # Errors
    /// The filter cannot be read; the old one stays.
    pub fn set(&self, filter: &str) -> Result<(), FilterError> {
        let parsed = parse(filter)?;
        // Only fails when the log is another one's: nothing to change then.
        self.handle.reload(parsed).map_err(|e| FilterError { filter: filter.to_owned(), why: e.to_string() })
    }
}
