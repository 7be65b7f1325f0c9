//! What a leader leaves in its data dir about its own tenure, so that its next start can tell the history why it ended.
//!
//! The file holds the tenure's row: open while it leads, closed when it ends. It is written without waiting for the
//! disk: it has to survive the process, not the machine, and must not hold up the end of either. The time of its last
//! change is the last sign of life, for a machine that dies with all who could say more.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use crate::clock::{unix_ms, wall_clock_ms};
use crate::election::history::Reason;
use crate::election::history::row::{End, Row};
use crate::election::record::MemberUuid;
use crate::files;
use crate::guardian::exit_report::ExitReport;
use crate::store::codec::history::{decode_row, encode_row};

/// The file's name in the data dir.
const FILE: &str = "tenure";

/// The tenure file, as this process writes it. Clones share it.
#[derive(Clone, Debug)]
pub struct TenureFile {
    dir: PathBuf,
    /// What is written later must not be undone by an earlier write that a slow disk, or a slow store, has held up.
    said: Arc<Mutex<Noted>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
enum Noted {
    #[default]
    Nothing,
    Begun,
    Ended,
}

// === impl TenureFile ===

impl TenureFile {
    /// The one of a process on this data dir.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), said: Arc::default() }
    }

    /// The data dir.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The tenure begins.
    pub fn begin(&self, row: &Row) {
        let mut said = self.said();
        if *said == Noted::Nothing {
            *said = Noted::Begun;
            ExitReport::remove(&self.dir);
            self.write(row);
        }
    }

    /// The tenure goes on. False: no more of that.
    pub fn still_here(&self) -> bool {
        let said = self.said();
        if *said == Noted::Begun {
            let file = std::fs::File::options().append(true).open(self.dir.join(FILE));
            let now = UNIX_EPOCH + Duration::from_millis(wall_clock_ms());
            let _ = file.and_then(|f| f.set_modified(now)); // else the end is told less exactly
        }
        *said == Noted::Begun
    }

    /// The tenure has ended.
    pub fn end(&self, row: &Row) {
        *self.said() = Noted::Ended;
        self.write(row);
    }

    /// The history knows the tenure of an earlier start.
    pub fn forget_past(&self) {
        if *self.said() == Noted::Nothing {
            let _ = std::fs::remove_file(self.dir.join(FILE)); // else it is told twice, which does no harm
            ExitReport::remove(&self.dir);
        }
    }

    /// The last tenure of the data dir with this identity, and how it ended as far as can be known now. What cannot be
    /// read is left out.
    pub fn read(&self, uuid: MemberUuid) -> Option<Row> {
        let dir = &self.dir;
        let row = decode_row(&std::fs::read(dir.join(FILE)).ok()?);
        let mut row = row.filter(|r| r.holder.uuid == uuid)?;
        let exit_report = ExitReport::read(dir).filter(|o| o.at_ms >= row.from_ms);
        row.close(End {
            // A clock that was set back must not end a tenure before it began.
            at_ms: exit_report.map_or_else(|| last_seen_ms(dir), |o| o.at_ms).max(row.from_ms),
            reason: exit_report.map_or(Reason::Vanished, |o| o.reason),
            detail: String::new(),
            seen: None,
            by_holder: true,
        });
        Some(row)
    }

    fn said(&self) -> MutexGuard<'_, Noted> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, row: &Row) {
        let temporary = self.dir.join(format!("{FILE}.new"));
        let written = files::write(&temporary, &encode_row(row))
            .and_then(|()| std::fs::rename(&temporary, self.dir.join(FILE)));
        if let Err(e) = written {
            tracing::warn!(
                error = %e,
                "cannot record this tenure in the data dir; the next start cannot tell why it ended"
            );
        }
    }
}

fn last_seen_ms(dir: &Path) -> u64 {
    let changed = std::fs::metadata(dir.join(FILE)).and_then(|m| m.modified()).ok();
    changed.map_or_else(wall_clock_ms, unix_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::election::record::{Incarnation, MemberId, Revision, Token};

    fn read(dir: &Path, uuid: MemberUuid) -> Option<Row> {
        TenureFile::new(dir).read(uuid)
    }

    fn row() -> Row {
        Row {
            token: Token::new(Revision(7)).unwrap(),
            holder: MemberId { node: "n".into(), uuid: MemberUuid(1), incarnation: Incarnation(2) },
            address: "h:1".into(),
            from_ms: 5,
            gap_ms: None,
            previous: None,
            end: None,
        }
    }

    fn closed(reason: Reason) -> Row {
        let mut row = row();
        row.close(End { at_ms: 9, reason, detail: "why".into(), seen: None, by_holder: true });
        row
    }

    #[test]
    fn the_last_word_counts_and_only_its_own_data_dir_reads_it() {
        let tmp = tempfile::tempdir().unwrap();
        let file = TenureFile::new(tmp.path());
        assert_eq!(read(tmp.path(), MemberUuid(1)), None);
        file.begin(&row());
        assert_eq!(read(tmp.path(), MemberUuid(1)).unwrap().end.unwrap().reason, Reason::Vanished);
        file.end(&closed(Reason::Fenced));
        file.begin(&row()); // held up by the disk
        assert_eq!(read(tmp.path(), MemberUuid(1)), Some(closed(Reason::Fenced)));
        assert_eq!(read(tmp.path(), MemberUuid(2)), None, "a copy's is not its own");
        assert!(!file.still_here(), "no more");
        file.forget_past();
        assert!(read(tmp.path(), MemberUuid(1)).is_some(), "that is not the past");
        TenureFile::new(tmp.path()).forget_past();
        assert_eq!(read(tmp.path(), MemberUuid(1)), None);
    }

    #[test]
    fn a_machine_that_dies_leaves_its_last_sign_of_life() {
        let tmp = tempfile::tempdir().unwrap();
        let file = TenureFile::new(tmp.path());
        assert!(!file.still_here(), "nothing has begun");
        file.begin(&row());
        let on_disk = std::fs::File::options().append(true).open(tmp.path().join(FILE)).unwrap();
        on_disk.set_modified(UNIX_EPOCH + Duration::from_millis(1_234)).unwrap();
        let ended_ms = || read(tmp.path(), MemberUuid(1)).unwrap().end.unwrap().at_ms;
        assert_eq!(ended_ms(), 1_234);
        on_disk.set_modified(UNIX_EPOCH + Duration::from_millis(1)).unwrap();
        assert_eq!(ended_ms(), row().from_ms, "not before it began");
        assert!(file.still_here() && ended_ms() > 1_000_000);
    }

    #[test]
    fn who_died_without_a_word_is_told_by_its_guardian() {
        let tmp = tempfile::tempdir().unwrap();
        TenureFile::new(tmp.path()).begin(&row());
        std::fs::write(tmp.path().join("exit-report"), r#"{"reason":"fuse","at_ms":8}"#).unwrap();
        let end = read(tmp.path(), MemberUuid(1)).unwrap().end.unwrap();
        assert_eq!((end.reason, end.at_ms), (Reason::Fuse, 8));
        std::fs::write(tmp.path().join("exit-report"), r#"{"reason":"fuse","at_ms":4}"#).unwrap();
        let end = read(tmp.path(), MemberUuid(1)).unwrap().end.unwrap();
        assert_eq!(end.reason, Reason::Vanished, "an older tenure's");
    }
}
