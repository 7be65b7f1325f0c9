//! The lock on a data dir: proof that no other process of this node is alive, nor what it left behind.
//!
//! It is a `flock`, which goes with the open file and not with the process: the guardian inherits that file and
//! closes it only when nothing of a dead node's program is left. So whoever gets the lock may start a main loop on
//! the dead one's record. A start that finds a dead holder waits for that; one that finds a living holder is
//! refused at once.
//!
//! What is locked is the folder itself: a file in it could be removed, and the next one of that name locked as well.
//! The file `lock` only says who has it.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use crate::files;

/// Says who has the lock.
const NOTE: &str = "lock";
/// How long a start waits for what a dead process has left behind.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a child of ours may take from its fork to its exec.
const OWN_CHILD_TIMEOUT: Duration = Duration::from_millis(500);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Why the lock was not taken.
#[derive(Debug)]
pub(super) enum LockError {
    /// Somebody has it; the text says who.
    Held(String),
    /// The file cannot be used.
    Io(&'static str, io::Error),
}

/// Who has the lock, as it says itself.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Holder {
    text: String,
    pid: Option<u32>,
    /// In which its process id has a meaning; `None`: in ours, as far as we know.
    pid_namespace: Option<u64>,
}

/// Takes the lock and notes who has it. Blocks while a dead holder's guardian is at work.
///
/// # Errors
/// Somebody else has it.
pub(super) fn take(dir: &Path, node: &str) -> Result<File, LockError> {
    let folder = File::open(dir).map_err(|e| LockError::Io("open the data dir", e))?;
    let mut looks = 0;
    loop {
        match folder.try_lock() {
            Ok(()) => break,
            Err(TryLockError::Error(e)) => return Err(LockError::Io("lock the data dir", e)),
            Err(TryLockError::WouldBlock) => {}
        }
        let holder = Holder::read(dir);
        let timeout = holder.timeout();
        if LOOK_EVERY * looks >= timeout {
            return Err(LockError::Held(holder.describe(timeout == TIMEOUT)));
        }
        looks += 1;
        std::thread::sleep(LOOK_EVERY);
    }
    if !is_still_there(&folder, dir) {
        return Err(LockError::Io(
            "lock the data dir",
            io::Error::other("it was replaced by another folder meanwhile"),
        ));
    }
    let namespace = pid_namespace().map_or_else(String::new, |inode| format!(" of PID namespace {inode}"));
    let note = format!("node {node}, process {}{namespace}\n", std::process::id());
    files::write(&dir.join(NOTE), note.as_bytes())
        .map_err(|e| LockError::Io("note the lock holder in the data dir", e))?;
    Ok(folder)
}

/// Is the folder that `held` has locked the one that others find at `dir`?
pub fn is_still_there(held: &File, dir: &Path) -> bool {
    let identity = |m: std::fs::Metadata| (m.dev(), m.ino());
    let (held, there) = (held.metadata().map(identity), std::fs::metadata(dir).map(identity));
    held.is_ok_and(|held| there.is_ok_and(|there| held == there))
}

/// Process ids mean something within it only.
fn pid_namespace() -> Option<u64> {
    std::fs::metadata("/proc/self/ns/pid").ok().map(|m| m.ino())
}

// === impl Holder ===

impl Holder {
    fn read(dir: &Path) -> Self {
        let note = std::fs::read_to_string(dir.join(NOTE)).unwrap_or_default(); // unreadable: nobody in particular
        Self::parse(note.trim())
    }

    fn parse(note: &str) -> Self {
        let (text, namespace) = note.split_once(" of PID namespace ").unwrap_or((note, ""));
        let pid = text.rsplit_once("process ").and_then(|(_, pid)| pid.parse().ok());
        Self { text: text.to_owned(), pid, pid_namespace: namespace.parse().ok() }
    }

    /// In another container, perhaps; whether its process lives cannot be seen from here.
    fn is_elsewhere(&self) -> bool {
        self.pid_namespace.is_some() && self.pid_namespace != pid_namespace()
    }

    /// How long it may take to be gone.
    fn timeout(&self) -> Duration {
        match self.pid {
            _ if self.is_elsewhere() => Duration::ZERO,
            // A child that this process is just starting has our files until its exec: also the one we have closed.
            Some(pid) if pid == std::process::id() => OWN_CHILD_TIMEOUT,
            Some(pid) if !is_alive(pid) => TIMEOUT,
            Some(_) => Duration::ZERO,
            // Its note is gone: it may be the guardian of a process that has just died.
            None => TIMEOUT,
        }
    }

    fn describe(&self, waited: bool) -> String {
        let text = &self.text;
        match (text.as_str(), waited) {
            ("", _) => "another process".to_owned(),
            (_, true) => format!("{text}, which is dead, but whose guardian has not yet ended its program"),
            _ if self.is_elsewhere() => format!("{text} of another PID namespace, such as another container"),
            (_, false) => text.clone(),
        }
    }
}

/// A process that has ended and that nobody has waited for yet is dead, too. One of another user may be hidden from us
/// (`ProtectProc=invisible`), and is told by the refusal of a signal.
fn is_alive(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
        let tried = pid.map(rustix::process::test_kill_process);
        return tried == Some(Err(rustix::io::Errno::PERM));
    };
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    !matches!(state, Some('Z' | 'X'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dead_process_left_behind_is_waited_for() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut child = std::process::Command::new("true").spawn().expect("a process");
        let dead = child.id();
        child.wait().expect("it ends");
        let held = take(dir.path(), "n").expect("free");
        std::fs::write(dir.path().join("lock"), format!("node n, process {dead}\n")).expect("a note");
        let guardian = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            drop(held);
        });
        take(dir.path(), "n").expect("free once the guardian is done");
        guardian.join().expect("it ends");
    }

    #[test]
    fn a_living_holder_is_named() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let _held = take(dir.path(), "n1").expect("free");
        let us = std::process::id();
        assert!(
            matches!(take(dir.path(), "n2"), Err(LockError::Held(who)) if who == format!("node n1, process {us}"))
        );
    }

    #[test]
    fn a_zombie_is_dead() {
        let mut child = std::process::Command::new("true").spawn().expect("a process");
        while is_alive(child.id()) {
            std::thread::sleep(Duration::from_millis(1));
        }
        child.wait().expect("it was a zombie");
        assert!(is_alive(std::process::id()));
    }

    #[test]
    fn who_lives_in_another_container_is_not_taken_for_dead() {
        let (ours, other) = (pid_namespace().expect("/proc is mounted"), 7);
        let note = |namespace| format!("node n1, process 4000000 of PID namespace {namespace}");
        let (dead, unknown) = (Holder::parse(&note(ours)), Holder::parse(&note(other)));
        assert_eq!((dead.timeout(), unknown.timeout()), (TIMEOUT, Duration::ZERO));
        assert_eq!(
            unknown.describe(false),
            "node n1, process 4000000 of another PID namespace, such as another container"
        );
    }

    #[test]
    fn nothing_that_is_removed_lets_a_second_process_in() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let held = take(dir.path(), "n1").expect("free");
        std::fs::remove_file(dir.path().join(NOTE)).expect("it was there");
        assert!(matches!(take(dir.path(), "n1"), Err(LockError::Held(who)) if who == "another process"));
        assert!(is_still_there(&held, dir.path()));
        std::fs::rename(dir.path(), dir.path().with_extension("moved")).expect("it moves");
        assert!(!is_still_there(&held, dir.path()), "gone");
        std::fs::create_dir(dir.path()).expect("a new one");
        assert!(!is_still_there(&held, dir.path()), "another one");
        std::fs::remove_dir_all(dir.path().with_extension("moved")).expect("it goes");
    }
}
