//! Collects what a process says and how it ends, and wakes those who wait for it.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::history::TimedEvent;
use super::poll::boot_ns;
use super::spawn;

const TAIL: usize = 40;
const STRAGGLERS_NS: u64 = 1_000_000_000;
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// The output of one process, growing.
#[derive(Debug)]
pub struct Output {
    said: Mutex<Said>,
    changed: Condvar,
}

/// What a process has said so far.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// The lines of stdout that are JSON objects with a `type`.
    pub events: Vec<TimedEvent>,
    /// The other lines of stdout.
    pub stdout: Vec<String>,
    /// The lines of stderr.
    pub stderr: Vec<String>,
    /// How it ended, if it has.
    pub exit: Option<Exit>,
    open_streams: u32,
}

/// The end of a process.
#[derive(Clone, Copy, Debug)]
pub struct Exit {
    /// The exit code, 128 + n for an end by signal n.
    pub code: i32,
    /// When its parent was told, on `CLOCK_BOOTTIME`.
    pub seen_ns: u64,
}

// === impl Output ===

impl Output {
    /// Follows a child whose stdout and stderr are piped, on threads that end with it.
    pub fn follow(mut child: Child) -> Arc<Self> {
        let said = Said { open_streams: 2, ..Said::default() };
        let output = Arc::new(Self { said: Mutex::new(said), changed: Condvar::new() });
        output.read(child.stdout.take().expect("piped"), Said::hear_stdout);
        output.read(child.stderr.take().expect("piped"), |said, line, _| said.stderr.push(line));
        output.reap(child);
        output
    }

    /// What was said up to now. Usable from `Drop` in a panicking test, hence indifferent to poison.
    pub fn now(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `look` finds something; `None` after `timeout`.
    pub fn wait<T>(&self, timeout: Duration, look: impl Fn(&Said) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + timeout;
        let mut said = self.now();
        loop {
            let found = look(&said);
            let left = deadline.saturating_duration_since(Instant::now());
            if found.is_some() || left.is_zero() {
                return found;
            }
            said = self
                .changed
                .wait_timeout(said, left.min(LOOK_INTERVAL))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn update(&self, change: impl FnOnce(&mut Said)) {
        change(&mut self.now());
        self.changed.notify_all();
    }

    fn read(self: &Arc<Self>, stream: impl Read + Send + 'static, hear: fn(&mut Said, String, u64)) {
        let output = self.clone();
        thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                let read_ns = boot_ns();
                output.update(|said| hear(said, String::from_utf8_lossy(&line).into_owned(), read_ns));
            }
            output.update(|said| said.open_streams -= 1);
        });
    }

    /// Waits for the process on a thread of its own, so that the stamp of its death is as early as can be.
    fn reap(self: &Arc<Self>, mut child: Child) {
        let output = self.clone();
        thread::spawn(move || {
            // A guardian hears of a death in the same moment, and must not be faster than the stamp.
            spawn::go_first();
            let status = child.wait().expect("a child can be waited for");
            let exit = Exit { code: exit_code(status), seen_ns: boot_ns() };
            output.update(|said| said.exit = Some(exit));
        });
    }
}

// === impl Said ===

impl Said {
    /// Has the process ended, and was everything read that it said? A stream that a descendant holds open is
    /// given up soon after the end.
    pub fn is_over(&self) -> bool {
        self.exit.is_some_and(|exit| self.open_streams == 0 || boot_ns() > exit.seen_ns + STRAGGLERS_NS)
    }

    /// The exit and the ends of both logs, for messages.
    pub fn report(&self) -> String {
        let exit = self.exit.map_or("running".to_owned(), |exit| format!("exit code {}", exit.code));
        let events: Vec<_> = self.events.iter().map(|event| event.json.to_string()).collect();
        format!("{exit}\n--- events\n{}\n--- stderr\n{}", tail(&events), tail(&self.stderr))
    }

    fn hear_stdout(&mut self, line: String, read_ns: u64) {
        match serde_json::from_str::<serde_json::Value>(&line) {
            Ok(json) if json["type"].is_string() => self.events.push(TimedEvent { json, read_ns }),
            _ => self.stdout.push(line),
        }
    }
}

fn exit_code(status: ExitStatus) -> i32 {
    status.code().or(status.signal().map(|signal| 128 + signal)).expect("an ended process has one of them")
}

fn tail(lines: &[String]) -> String {
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}
