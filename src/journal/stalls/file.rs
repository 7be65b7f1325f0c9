//! The file of the stalls in the data dir: JSON lines, appended, and written anew once an hour without what is too old.
//!
//! A kill at any moment leaves whole lines and at most one torn one, which the next start leaves out. A full disk, or one that
//! hangs, costs lines and nothing else: the queue is bounded, and nobody waits for the thread behind it.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use std::os::unix::fs::OpenOptionsExt;

use super::{RecordedStall, StallLine, StallRecord};
use crate::clock::wall_clock_ms;
use crate::files;

const FILE: &str = "stalls";
/// The form of the file. One with a higher number is not read.
pub(super) const VERSION: u32 = 1;
/// How many lines may wait for a slow disk; more are left out.
const WAITING_MAX: usize = 256;
/// How much is appended before the file is written anew.
const APPENDED_MAX: usize = 256 << 10;
/// A larger file is not one that was written here: 30 days of the worst hours come to 2 MB.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// Takes lines for the file; never blocks.
pub struct StallLog {
    queue: SyncSender<StallLine>,
}

/// The file, with what is in it.
struct LogFile {
    path: PathBuf,
    record: StallRecord,
    /// Open at its end; `None`: it has to be written anew.
    file: Option<File>,
    appended: usize,
    written_hour: u64,
    has_failed: bool,
}

/// Reads what a data dir has recorded; `None`: nothing yet.
///
/// # Errors
/// The file cannot be read, or it is not one of these.
pub fn read(dir: &Path) -> io::Result<Option<StallRecord>> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(dir.join(FILE));
    let file = match file {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::new(ErrorKind::InvalidData, "it is too large"));
    }
    let mut lines = bytes.split(|b| *b == b'\n').map(serde_json::from_slice::<StallLine>);
    match lines.next() {
        Some(Ok(StallLine::Stalls(VERSION))) => {}
        Some(Ok(StallLine::Stalls(other))) => {
            let why = format!("its form {other} is not the known one, {VERSION}");
            return Err(io::Error::new(ErrorKind::InvalidData, why));
        }
        _ => return Err(io::Error::new(ErrorKind::InvalidData, "it does not begin as one")),
    }
    let mut record = StallRecord::default();
    lines.flatten().for_each(|line| record.take(line)); // a torn line is left out
    Ok(Some(record))
}

// === impl StallLog ===

impl StallLog {
    /// Starts the thread that writes. `killed`: how the last process ended, if it could not say so itself.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start(dir: &Path, killed: Option<RecordedStall>) -> io::Result<Self> {
        let (queue, lines) = sync_channel(WAITING_MAX);
        let dir = dir.to_owned();
        let writes = move || LogFile::open(&dir, killed).write_all(&lines);
        std::thread::Builder::new().name("stalls".into()).spawn(writes)?;
        Ok(Self { queue })
    }

    /// Has a line written, unless too many wait already.
    pub fn write(&self, line: StallLine) {
        let _ = self.queue.try_send(line); // a disk that hangs must hold nobody up
    }
}

// === impl LogFile ===

impl LogFile {
    fn open(dir: &Path, killed: Option<RecordedStall>) -> Self {
        let path = dir.join(FILE);
        let record = read(dir).unwrap_or_else(|e| {
            let file = path.display();
            tracing::warn!(error = %e, "cannot read {file}; what metad advise lease knew is lost, and the file is begun anew");
            None
        });
        let mut record = record.unwrap_or_default();
        if let Some(killed) = killed {
            record.take_killed(killed);
        }
        Self { path, record, file: None, appended: 0, written_hour: 0, has_failed: false }
    }

    fn write_all(mut self, lines: &Receiver<StallLine>) {
        self.keep_up(None);
        while let Ok(line) = lines.recv() {
            self.record.take(line.clone());
            self.keep_up(Some(&line));
        }
    }

    /// Brings the file up to date, by one line or as a whole.
    fn keep_up(&mut self, line: Option<&StallLine>) {
        let hour = wall_clock_ms() / super::HOUR_MS;
        let is_whole = self.file.is_none() || hour != self.written_hour || self.appended > APPENDED_MAX;
        let written = match line {
            Some(line) if !is_whole => self.append(line),
            _ => self.write_anew(hour),
        };
        if let Err(e) = written {
            self.file = None; // the last line may be torn
            let file = self.path.display();
            if !std::mem::replace(&mut self.has_failed, true) {
                tracing::warn!(error = %e, "cannot write {file}; metad advise lease will not know of this time");
            }
        } else {
            self.has_failed = false;
        }
    }

    fn append(&mut self, line: &StallLine) -> io::Result<()> {
        let text = text_of(line)?;
        self.appended += text.len();
        self.file.as_mut().map_or(Ok(()), |file| file.write_all(text.as_bytes()))
    }

    /// A reader, and a process that is killed meanwhile, find the old file or the new one.
    fn write_anew(&mut self, hour: u64) -> io::Result<()> {
        self.record.forget_old(wall_clock_ms());
        let text = self.record.lines().map(|line| text_of(&line)).collect::<io::Result<String>>()?;
        let temporary = self.path.with_extension("new");
        let mut file = files::create(&temporary)?;
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_data());
        if let Err(e) = written.and_then(|()| std::fs::rename(&temporary, &self.path)) {
            let _ = std::fs::remove_file(&temporary); // it would only take room
            return Err(e);
        }
        (self.file, self.appended, self.written_hour) = (Some(file), 0, hour);
        Ok(())
    }
}

fn text_of(line: &StallLine) -> io::Result<String> {
    Ok(serde_json::to_string(line)? + "\n")
}

#[cfg(test)]
mod tests {
    use super::super::{HOUR_MS, RecordedHour, STALLS_PER_HOUR, StallOf};
    use super::*;

    fn stall(least_ms: u64) -> StallLine {
        let (ended_ms, most_ms) = (wall_clock_ms(), Some(least_ms + 1));
        StallLine::Stall(RecordedStall {
            of: StallOf::Process,
            ended_ms,
            least_ms,
            most_ms,
            ttl_ms: 5_000,
            lost: false,
        })
    }

    /// Writes these lines as a process would, and ends.
    fn write(dir: &Path, lines: &[StallLine]) {
        let (queue, received) = sync_channel(lines.len().max(1));
        lines.iter().for_each(|line| queue.send(line.clone()).unwrap());
        drop(queue);
        LogFile::open(dir, None).write_all(&received);
    }

    fn lengths(dir: &Path) -> Vec<u64> {
        read(dir).unwrap().unwrap().stalls().iter().map(|s| s.least_ms).collect()
    }

    #[test]
    fn what_was_written_is_read_whatever_a_kill_has_left_of_the_last_line() {
        let tmp = tempfile::tempdir().unwrap();
        assert_eq!(read(tmp.path()).unwrap(), None);
        write(tmp.path(), &[stall(700), stall(800)]);
        let path = tmp.path().join(FILE);
        let whole = std::fs::read(&path).unwrap();
        let header = whole.iter().position(|b| *b == b'\n').unwrap();
        for cut in header + 1..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert!([700, 800].starts_with(&lengths(tmp.path())), "cut at {cut}");
            let left = lengths(tmp.path()).len();
            write(tmp.path(), &[stall(900)]);
            assert_eq!(lengths(tmp.path()).len(), left + 1, "cut at {cut}: the next start goes on");
        }
    }

    #[test]
    fn what_is_no_such_file_is_begun_anew() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join(FILE);
        let secret = tmp.path().join("secret");
        let large = vec![b'x'; FILE_BYTES_MAX as usize + 1];
        for bad in [&b""[..], b"\xff\x00", b"{\"stalls\":2}\n", b"[]\n", &large] {
            std::fs::write(&path, bad).unwrap();
            read(tmp.path()).unwrap_err();
            write(tmp.path(), &[stall(700)]);
            assert_eq!(lengths(tmp.path()), [700]);
        }
        std::fs::write(&secret, "kept").unwrap();
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&secret, &path).unwrap();
        write(tmp.path(), &[stall(800)]);
        assert_eq!((lengths(tmp.path()), std::fs::read(&secret).unwrap()), (vec![800], b"kept".to_vec()));
    }

    #[test]
    fn a_disk_that_takes_nothing_costs_the_lines_and_no_more() {
        let tmp = tempfile::tempdir().unwrap();
        let mut log = LogFile::open(tmp.path(), None);
        log.keep_up(None);
        log.file = Some(OpenOptions::new().write(true).open("/dev/full").unwrap());
        log.record.take(stall(700));
        log.keep_up(Some(&stall(700)));
        assert!(log.has_failed && log.file.is_none());
        log.record.take(stall(800));
        log.keep_up(Some(&stall(800)));
        assert_eq!(lengths(tmp.path()), [700, 800], "when it does again, all is there");
        let gone = LogFile::open(&tmp.path().join("none"), None);
        let (queue, received) = sync_channel(1);
        queue.send(stall(1_000)).unwrap();
        drop(queue);
        gone.write_all(&received);
    }

    #[test]
    fn the_worst_month_stays_below_two_megabytes() {
        let (mut record, now) = (StallRecord::default(), wall_clock_ms());
        for hour in 0..800 {
            let at_ms = now - hour * HOUR_MS;
            record.take(StallLine::Hour(RecordedHour { led_ms: HOUR_MS, ..RecordedHour::at(at_ms) }));
            for i in 0..STALLS_PER_HOUR as u64 + 5 {
                let StallLine::Stall(stall) = stall(100_000 + i) else { unreachable!() };
                record.take(StallLine::Stall(RecordedStall { ended_ms: at_ms, ..stall }));
            }
        }
        record.forget_old(now);
        let bytes: usize = record.lines().map(|line| text_of(&line).unwrap().len()).sum();
        assert!(bytes < 2 << 20 && bytes > 1 << 20, "{bytes}");
    }

    #[test]
    fn a_thread_that_hangs_holds_nobody_up() {
        let (queue, _kept) = sync_channel(WAITING_MAX);
        let log = StallLog { queue };
        (0..10 * WAITING_MAX).for_each(|_| log.write(stall(700)));
    }
}
