//! Lines on their way to stderr: a bounded queue, and a thread that writes.
//!
//! Nobody waits for a slow reader, not even at the end: what does not fit is dropped and counted, and who flushes waits
//! for a bounded time.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

/// How many lines may wait for a slow reader.
const WAITING_MAX: usize = 8192;
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// The writing thread's end of the queue. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    queue: SyncSender<Vec<u8>>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    queued: AtomicU64,
    written: AtomicU64,
    dropped: AtomicU64,
}

// === impl Lines ===

impl Lines {
    /// Starts the thread that writes to `out`.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let (queue, lines) = sync_channel(WAITING_MAX);
        let counts = Arc::<Counts>::default();
        let counted = counts.clone();
        std::thread::Builder::new().name("log".into()).spawn(move || write_all(&lines, out, &counted))?;
        Ok(Self { queue, counts })
    }

    /// Waits until all lines are written that are there now, for so long at most.
    pub(super) fn flush(&self, limit: Duration) {
        let queued = self.counts.queued.load(Ordering::SeqCst);
        let mut looks = 0;
        while self.counts.written.load(Ordering::SeqCst) < queued && LOOK_EVERY * looks < limit {
            looks += 1;
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// Each call is one line.
impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // Counted first, lest somebody flushes in between and misses it.
        self.counts.queued.fetch_add(1, Ordering::SeqCst);
        if self.queue.try_send(line.to_vec()).is_err() {
            self.counts.queued.fetch_sub(1, Ordering::SeqCst);
            self.counts.dropped.fetch_add(1, Ordering::SeqCst);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_all(lines: &Receiver<Vec<u8>>, mut out: impl Write, counts: &Counts) {
    while let Ok(line) = lines.recv() {
        // A reader that has gone away, or a full disk, is no reason to stop.
        let written = out.write_all(&line).and_then(|()| out.flush());
        counts.written.fetch_add(1, Ordering::SeqCst);
        let dropped = written.map_or(0, |()| counts.dropped.swap(0, Ordering::SeqCst));
        if dropped > 0 {
            tracing::warn!(dropped, "log lines were dropped: stderr was not read fast enough");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Slow(Arc<Mutex<Vec<u8>>>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn whoever_flushes_waits_for_what_is_there_but_not_for_a_reader_that_hangs() {
        let out = Slow::default();
        let mut lines = Lines::start(out.clone()).unwrap();
        let hangs = out.0.lock().unwrap();
        lines.write_all(b"a\n").unwrap();
        lines.flush(Duration::from_millis(20)); // comes back
        for _ in 0..WAITING_MAX + 9 {
            lines.write_all(b"b\n").unwrap();
        }
        assert!(lines.counts.dropped.load(Ordering::SeqCst) >= 8, "and nobody who logs waits either");
        drop(hangs);
        lines.flush(Duration::from_secs(60));
        assert!(out.0.lock().unwrap().len() >= 2 * WAITING_MAX);
    }
}
