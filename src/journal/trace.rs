//! The trace of a process: what its elector was told and what it asked for, with both clocks, as JSON lines in a file.
//!
//! The elector is a function of what it is told, so a trace can be played again: the same inputs must give the same
//! outputs. That makes it the best appendix of a bug report (`metad serve --trace-file FILE`), and the tests on real
//! processes check every one of theirs. It holds names, addresses, revisions and clocks; no keys of the state, no secrets.
//!
//! It observes and never holds the driver up: a thread of its own writes. Not guaranteed: the last lines of a process
//! that is killed; such a trace is shorter. Where lines had to be left out it ends, with a line that says so if there is
//! room for it.

pub mod line;

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::driver::observer::{Moment, Observer};
use crate::election::event::{Action, Event};
use crate::election::lease::Lease;
use line::{Began, Heard, Line};

/// How large the file gets at most: hours of an election among three nodes.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// How many lines may wait for a slow disk.
const WAITING_MAX: usize = 4096;

/// Writes the trace of one driver.
pub struct Trace {
    /// `None` once lines had to be left out.
    queue: Option<SyncSender<Line>>,
    is_cut_off: Arc<AtomicBool>,
    has_begun: bool,
    /// What the elector heard since it last looked at the clock.
    heard: Vec<Heard>,
}

// === impl Trace ===

impl Trace {
    /// Opens the file, behind the traces that are there from earlier processes, and starts the thread that writes.
    ///
    /// # Errors
    /// The file cannot be opened, or the system has no thread to give.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
        let length = file.metadata()?.len();
        let left = FILE_BYTES_MAX.saturating_sub(length);
        if left == 0 {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it has its largest size; move it away"));
        }
        end_last_line(&mut file, length)?;
        let (queue, lines) = sync_channel(WAITING_MAX);
        let is_cut_off = Arc::new(AtomicBool::new(false));
        let seen = is_cut_off.clone();
        let writes = move || write_all(&lines, file, left, &seen);
        std::thread::Builder::new().name("trace".into()).spawn(writes)?;
        Ok(Self { queue: Some(queue), is_cut_off, has_begun: false, heard: Vec::new() })
    }

    fn write(&mut self, line: Line) {
        let Some(queue) = &self.queue else { return };
        if queue.try_send(line).is_err() {
            self.is_cut_off.store(true, Ordering::Relaxed);
            self.queue = None; // the thread writes what waits, and that this is not all
        }
    }
}

impl Observer for Trace {
    fn hears(&mut self, _moment: Moment<'_>, event: &Event) {
        self.heard.push(event.into());
    }

    fn handled(&mut self, moment: Moment<'_>, _lease_before: Option<&Lease>) {
        let heard = std::mem::take(&mut self.heard);
        self.write(Line::Woke { at: moment.now.into(), heard });
    }

    fn asks(&mut self, moment: Moment<'_>, action: &Action) {
        if !std::mem::replace(&mut self.has_begun, true) {
            self.write(Line::Began(Began::of(moment.elector, std::process::id())));
        }
        self.write(Line::Asked { at: moment.now.into(), action: format!("{action:?}") });
    }
}

/// A process that was killed may have left a line without its end.
fn end_last_line(file: &mut File, length: u64) -> io::Result<()> {
    let mut last = [b'\n'];
    if length > 0 {
        file.seek(SeekFrom::Start(length - 1))?;
        file.read_exact(&mut last)?;
    }
    if last != [b'\n'] { file.write_all(b"\n") } else { Ok(()) }
}

fn write_all(lines: &Receiver<Line>, mut file: File, mut left: u64, is_cut_off: &AtomicBool) {
    let mut write = |line: &Line| {
        let Ok(mut text) = serde_json::to_string(line) else { return false };
        text.push('\n');
        let fits = left >= text.len() as u64;
        left = left.saturating_sub(text.len() as u64);
        fits && file.write_all(text.as_bytes()).is_ok()
    };
    while let Ok(line) = lines.recv() {
        if !write(&line) {
            return tracing::warn!("the trace is full, or cannot be written; it ends here");
        }
    }
    if is_cut_off.load(Ordering::Relaxed) {
        write(&Line::CutOff);
    }
}
