//! What is wrong with the file, in words for an operator: who holds its lock, and what the disk said.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::StoreError;
use super::place::FileId;

/// Where the lock of SQLite's writers lies in the index (`WAL_WRITE_LOCK`).
const WRITE_LOCK_BYTE: u64 = 120;
/// How much of a process's name is shown.
const NAME_CHARS_MAX: usize = 32;

/// The last failure of the file, until it works again.
#[derive(Debug, Default)]
pub(super) struct Complaint(Mutex<Option<String>>);

// === impl Complaint ===

impl Complaint {
    /// A write was answered. Its own refusals say nothing about the file.
    pub(super) fn note<T>(&self, path: &Path, index: Option<FileId>, answer: &Result<T, StoreError>) {
        let why = match answer {
            Ok(_) => None,
            Err(e) if is_of_the_file(e) => Some(words(path, index, e)),
            Err(_) => return,
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// What is wrong; nothing if the last write was done.
    pub(super) fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn is_of_the_file(e: &StoreError) -> bool {
    use super::Refusal::{NoSpace, NotAStore, NotSent};
    matches!(e, StoreError::Unknown(_) | StoreError::Refused(NoSpace | NotAStore | NotSent, _))
}

fn words(path: &Path, index: Option<FileId>, e: &StoreError) -> String {
    let (StoreError::Refused(_, why) | StoreError::Unknown(why)) = e;
    let held = index.and_then(holder).map_or_else(String::new, |holder| format!("; {}", said_of(holder)));
    format!("the store's file {}: {why}{held}", path.display())
}

/// The process that holds the writers' lock, as the kernel lists it; nobody if it cannot be seen from here.
fn holder(index: FileId) -> Option<u32> {
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| holder_in(line, index))
}

/// "1: POSIX  ADVISORY  WRITE 123 08:01:4567 120 120"
fn holder_in(line: &str, index: FileId) -> Option<u32> {
    let mut words = line.split_whitespace().skip_while(|w| *w != "WRITE").skip(1);
    let (pid, file) = (words.next()?, words.next()?);
    let (from, to) = (words.next()?.parse::<u64>().ok()?, words.next()?);
    let to = to.parse().unwrap_or(u64::MAX); // "EOF"
    // The device as the kernel shows it may be another one than stat's (btrfs, overlays); the inode is enough.
    let inode = file.rsplit(':').next()?.parse::<u64>().ok()?;
    let is_it = inode == index.inode && (from..=to).contains(&WRITE_LOCK_BYTE);
    pid.parse().ok().filter(|_| is_it && line.contains("POSIX"))
}

fn said_of(pid: u32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let name: String = name.trim().chars().filter(|c| !c.is_control()).take(NAME_CHARS_MAX).collect();
    let states = states(pid);
    if states.contains(['T', 't']) {
        return format!(
            "process {pid} ({name}) holds its lock and is stopped: resume it (kill -CONT {pid}) or end it \
             (kill -KILL {pid})"
        );
    }
    let waits = if states.contains('D') { " and waits for the disk" } else { "" };
    format!("process {pid} ({name}) holds its lock{waits}; if it does not release it: kill -KILL {pid}")
}

/// What the threads of a process do, a letter each; any of them may be the one that holds the lock.
fn states(pid: u32) -> String {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let state = |thread: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).ok()?;
        stat.rsplit(')').next()?.trim().chars().next()
    };
    threads.filter_map(state).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_is_found_by_the_index_and_the_byte_of_the_lock() {
        let index = FileId { device: 1, inode: 4567 };
        let of = |line: &str| holder_in(line, index);
        assert_eq!(of("1: POSIX  ADVISORY  WRITE 123 08:01:4567 120 120"), Some(123));
        assert_eq!(of("9: POSIX  ADVISORY  WRITE 7 00:2a:4567 0 EOF"), Some(7));
        for other in [
            "1: POSIX  ADVISORY  READ 123 08:01:4567 120 120",
            "1: POSIX  ADVISORY  WRITE 123 08:01:4568 120 120",
            "1: POSIX  ADVISORY  WRITE 123 08:01:4567 124 124",
            "1: FLOCK  ADVISORY  WRITE 123 08:01:4567 0 EOF",
            "",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
