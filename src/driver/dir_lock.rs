//! The lock on a data dir: proof that no other process of this node is alive, nor what it left behind.
//!
//! It is a `flock`, which goes with the open file and not with the process: the guardian inherits that file and
//! closes it only when nothing of a dead node's program is left. So whoever gets the lock may start a main loop on
//! the dead one's record. A start that finds a dead holder waits for that; one that finds a living holder is
//! refused at once.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::time::Duration;

/// How long a start waits for what a dead process has left behind.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a child of ours may take from its fork to its exec.
const OWN_CHILD_PATIENCE: Duration = Duration::from_millis(500);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Why the lock was not taken.
#[derive(Debug)]
pub(super) enum LockError {
    /// Somebody has it; the text says who.
    Held(String),
    /// The file cannot be used.
    Io(&'static str, io::Error),
}

/// Takes the lock and notes who has it. Blocks while a dead holder's guardian is at work.
///
/// # Errors
/// Somebody else has it.
pub(super) fn take(dir: &Path, node: &str) -> Result<File, LockError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let mut file = options.open(dir.join("lock")).map_err(|e| LockError::Io("opening its lock", e))?;
    let mut looks = 0;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::Error(e)) => return Err(LockError::Io("locking it", e)),
            Err(TryLockError::WouldBlock) => {}
        }
        let holder = read_note(&mut file);
        let patience = patience_with(process_in(&holder));
        if LOOK_EVERY * looks >= patience {
            return Err(LockError::Held(describe(&holder, patience == PATIENCE)));
        }
        looks += 1;
        std::thread::sleep(LOOK_EVERY);
    }
    write_note(&mut file, node).map_err(|e| LockError::Io("writing its lock", e))?;
    Ok(file)
}

/// How long a holder may take to be gone.
fn patience_with(holder: Option<u32>) -> Duration {
    match holder {
        // A child that this process is just starting has our files until its exec: also the one we have closed.
        Some(pid) if pid == std::process::id() => OWN_CHILD_PATIENCE,
        Some(pid) if !is_alive(pid) => PATIENCE,
        Some(_) | None => Duration::ZERO,
    }
}

fn read_note(file: &mut File) -> String {
    let mut note = String::new();
    let _ = file.rewind().and_then(|()| file.read_to_string(&mut note)); // unreadable: nobody in particular
    note.trim().to_owned()
}

fn write_note(file: &mut File, node: &str) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "node {node}, process {}", std::process::id())
}

fn describe(holder: &str, waited: bool) -> String {
    match (holder, waited) {
        ("", _) => "another process".to_owned(),
        (holder, true) => {
            format!("{holder}, which is dead, but whose program its guardian has not ended yet")
        }
        (holder, false) => holder.to_owned(),
    }
}

fn process_in(note: &str) -> Option<u32> {
    note.rsplit_once("process ")?.1.parse().ok()
}

/// A process that has ended and that nobody has waited for yet is dead, too.
fn is_alive(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
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
}
