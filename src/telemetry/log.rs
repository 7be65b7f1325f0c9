//! The log: text on a terminal, JSON otherwise, on stderr, never in anybody's way.

use std::io::IsTerminal;
use std::sync::OnceLock;
use std::time::Duration;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use super::lines::Lines;

/// How long the end of a process waits for the last lines.
const FLUSH_LIMIT: Duration = Duration::from_millis(500);

/// The log of this process.
static LINES: OnceLock<Lines> = OnceLock::new();

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// What is logged; can be changed while the process runs. Clones change the same log.
#[derive(Clone, Debug)]
pub struct LogFilter {
    handle: reload::Handle<EnvFilter, Registry>,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter cannot be read.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The system has no thread to give.
    #[error(
        "cannot start the log's thread: {0}\nfix: raise the limit of processes or of memory (ulimit -u, ulimit -v)"
    )]
    Thread(#[from] std::io::Error),
}

/// A filter that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "log.filter = {filter:?} is not a log filter: {why}\nfix: write a level such as \"info\", or \
     \"info,metad::store=debug\""
)]
pub struct FilterError {
    filter: String,
    why: String,
}

/// Starts the log of this process. `None`: text on a terminal, else JSON.
///
/// # Errors
/// See [`LogError`].
pub fn start(filter: &str, format: Option<Format>) -> Result<LogFilter, LogError> {
    let parsed = parse(filter)?;
    let terminal = std::io::stderr().is_terminal();
    let format = format.unwrap_or(if terminal { Format::Text } else { Format::Json });
    let writer = Lines::start(std::io::stderr())?;
    let _ = LINES.set(writer.clone());
    let (filter, handle) = reload::Layer::new(parsed);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(move || writer.clone())
        .with_target(format == Format::Json);
    let lines = match format {
        Format::Text => lines.with_ansi(terminal && std::env::var_os("NO_COLOR").is_none()).boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    // A second start in one process (a library's user with a log of its own) keeps the first.
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
    Ok(LogFilter { handle })
}

/// Does this process log? Then nothing else may be on its stderr.
pub fn is_started() -> bool {
    LINES.get().is_some()
}

/// Waits, for a bounded time, until the lines so far are written. `false`: this process has no log.
pub fn flush() -> bool {
    LINES.get().inspect(|lines| lines.flush(FLUSH_LIMIT)).is_some()
}

/// Can this filter be used?
///
/// # Errors
/// It cannot be read.
pub fn check_filter(filter: &str) -> Result<(), FilterError> {
    parse(filter).map(drop)
}

fn parse(filter: &str) -> Result<EnvFilter, FilterError> {
    EnvFilter::try_new(filter).map_err(|e| FilterError { filter: filter.to_owned(), why: e.to_string() })
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
