//! What the guardian knows about the death of a leader, left in the data dir for its next start: whoever dies at the
//! end of its lease, or is killed, cannot say so itself.
//!
//! A disk that hangs must not keep the record from being freed, so a thread of its own writes, and it is waited for only
//! as long as that costs nobody anything.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::horizon::KERNEL_TIMER_AFTER_FUSE;
use crate::clock::{Instant, millis};
use crate::election::history::Reason;
use crate::files;

/// The file's name in the data dir.
const FILE: &str = "exit-report";
/// How long the next start waits for it, if nobody can lead meanwhile anyway.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_millis(50);
/// How long the guardian itself waits for it at the end, when it has nothing else to do.
pub(super) const LAST_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a leader's process is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitReport {
    /// The fuse, the kernel timer, the guardian, or nobody knows.
    pub reason: Reason,
    /// When that was noticed, by the wall clock; the end of its lease, if that was earlier.
    pub at_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct ExitReportJson {
    reason: String,
    at_ms: u64,
}

/// One that is being written.
pub(super) struct Writing(Receiver<()>);

// === impl ExitReport ===

impl ExitReport {
    /// Of a process that has died, seen at this moment: by its fuse, if it left word of it, by us, by its kernel timer,
    /// if that was due, or in a way that nobody knows. `h`: the end of its lease. No main loop runs after it, however long it
    /// took a guardian that stood still itself to notice.
    pub(super) fn of(now: Instant, h: Instant, burnt: bool, killed: bool, now_ms: u64) -> Self {
        let reason = match () {
            () if burnt => Reason::Fuse,
            () if killed => Reason::GuardianKill,
            () if now.reached(h + KERNEL_TIMER_AFTER_FUSE) => Reason::KernelTimer,
            () => Reason::Vanished,
        };
        Self { reason, at_ms: now_ms.saturating_sub(millis(now.since(h))) }
    }

    /// Begins to write it into this data dir.
    pub(super) fn write(self, data_dir: PathBuf) -> Writing {
        let (done, wait) = channel();
        let write = move || {
            let json = ExitReportJson { reason: self.reason.as_str().to_owned(), at_ms: self.at_ms };
            let bytes = serde_json::to_vec(&json).unwrap_or_default();
            let _ = files::write(&data_dir.join(FILE), &bytes); // without it the next start knows less
            let _ = done.send(());
        };
        let _ = std::thread::Builder::new().name("exit-report".into()).spawn(write);
        Writing(wait)
    }

    /// The one that a guardian has left here; one that cannot be read is none.
    pub fn read(data_dir: &Path) -> Option<Self> {
        let json: ExitReportJson = serde_json::from_slice(&std::fs::read(data_dir.join(FILE)).ok()?).ok()?;
        Some(Self { reason: Reason::parse(&json.reason)?, at_ms: json.at_ms })
    }

    /// Deletes it.
    pub fn remove(data_dir: &Path) {
        let _ = std::fs::remove_file(data_dir.join(FILE)); // there may be none
    }
}

// === impl Writing ===

impl Writing {
    /// Waits until it is written, for so long at most.
    pub(super) fn wait(&self, timeout: Duration) {
        let _ = self.0.recv_timeout(timeout);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_of_death_is_told_by_who_has_killed_and_by_the_clock() {
        let at = Instant::from_millis;
        let reason = |now, burnt, killed| ExitReport::of(at(now), at(1_000), burnt, killed, 7).reason;
        assert_eq!(reason(1_019, false, false), Reason::Vanished);
        assert_eq!(reason(1_019, true, false), Reason::Fuse);
        assert_eq!(reason(1_020, false, false), Reason::KernelTimer);
        assert_eq!(reason(1_100, false, true), Reason::GuardianKill);
        assert_eq!(reason(1_100, true, true), Reason::Fuse, "it was just ending when we killed it");
    }

    #[test]
    fn nobody_led_beyond_the_end_of_its_lease() {
        let at = Instant::from_millis;
        let ended = |now| ExitReport::of(at(now), at(1_000), false, false, 50_000 + now).at_ms;
        assert_eq!(ended(900), 50_900, "when it died");
        assert_eq!(ended(1_020), 51_000);
        assert_eq!(ended(301_000), 51_000, "the guardian stood still as well");
    }

    #[test]
    fn what_one_process_writes_the_next_reads() {
        let tmp = tempfile::tempdir().unwrap();
        assert_eq!(ExitReport::read(tmp.path()), None);
        let exit_report = ExitReport { reason: Reason::Fuse, at_ms: 7 };
        exit_report.write(tmp.path().to_owned()).0.recv().unwrap();
        assert_eq!(ExitReport::read(tmp.path()), Some(exit_report));
        ExitReport::remove(tmp.path());
        assert_eq!(ExitReport::read(tmp.path()), None);
    }
}
