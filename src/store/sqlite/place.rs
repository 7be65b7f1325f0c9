//! Where the store is: the files that SQLite keeps open, as they were when it opened them.
//!
//! Whoever deletes the file, moves it away or puts another in its place leaves us with one that nobody else will find:
//! the next process elects in a new one. So whatever is still read from the old one counts for nothing. The log and the
//! index beside it are watched as well: the locks lie on the index, so that two indexes are two elections.
//!
//! Only `stat` is used: a process that opens and closes such a file loses all of SQLite's locks on it.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify::{self, WatchFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

/// How often the files are looked at where inotify does not work.
const LOOK_WITHOUT_INOTIFY: Duration = Duration::from_millis(250);
/// What happens to a file that is deleted or moved, and to a folder that is moved.
const OF_FILE: WatchFlags = WatchFlags::ATTRIB.union(WatchFlags::MOVE_SELF).union(WatchFlags::DELETE_SELF);
const OF_FOLDER: WatchFlags = WatchFlags::MOVE_SELF.union(WatchFlags::DELETE_SELF);

/// Which file it is, wherever it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId {
    pub(super) device: u64,
    pub(super) inode: u64,
}

/// The files of one store.
#[derive(Debug)]
pub(super) struct Place {
    files: Vec<(PathBuf, FileId)>,
    /// How they were lost.
    lost: watch::Sender<Option<String>>,
}

// === impl FileId ===

impl FileId {
    /// # Errors
    /// There is none, or it cannot be looked at.
    pub(super) fn of(path: &Path) -> std::io::Result<Self> {
        let stat = std::fs::metadata(path)?;
        Ok(Self { device: stat.dev(), inode: stat.ino() })
    }
}

// === impl Place ===

impl Place {
    /// Of a database that is open, with its log and its index.
    ///
    /// # Errors
    /// One of them is not there.
    pub(super) fn of(database: &Path) -> std::io::Result<Self> {
        let database = std::path::absolute(database)?;
        let with = |suffix: &str| {
            let mut name = OsString::from(&database);
            name.push(suffix);
            let path = PathBuf::from(name);
            FileId::of(&path).map(|id| (path, id))
        };
        let files = ["", "-wal", "-shm"].into_iter().map(with).collect::<Result<_, _>>()?;
        Ok(Self { files, lost: watch::Sender::new(None) })
    }

    /// Are they still where they were?
    ///
    /// # Errors
    /// They are not: what happened, and what to do. Once lost is lost for good.
    pub(super) fn check(&self) -> Result<(), String> {
        if let Some(how) = self.lost.borrow().clone() {
            return Err(how);
        }
        let Some(how) = self.files.iter().find_map(|(path, id)| fault(path, *id)) else { return Ok(()) };
        self.lost.send_replace(Some(how.clone()));
        Err(how)
    }

    /// Resolves when they are lost, and says how. Sleeps until the kernel tells of a change.
    pub(super) async fn until_lost(&self) -> String {
        let mut lost = self.lost.subscribe();
        let notices = self.follow().ok();
        loop {
            if let Err(how) = self.check() {
                return how;
            }
            tokio::select! {
                _ = lost.changed() => {}
                () = noticed(notices.as_ref()) => {}
            }
        }
    }

    /// The index, on which the locks lie.
    pub(super) fn index(&self) -> Option<FileId> {
        self.files.last().map(|(_, id)| *id)
    }

    fn follow(&self) -> std::io::Result<AsyncFd<OwnedFd>> {
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        for (path, _) in &self.files {
            inotify::add_watch(&fd, path, OF_FILE)?;
        }
        let folders = self.files.first().into_iter().flat_map(|(path, _)| path.ancestors().skip(1));
        for folder in folders.filter(|folder| folder.parent().is_some()) {
            let _ = inotify::add_watch(&fd, folder, OF_FOLDER); // one that we may not read is not watched
        }
        // SAFETY: the descriptor is owned by the `AsyncFd`, which never gives it away.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
        fd.map_err(|e| std::io::Error::other(format!("{e:?}")))
    }
}

async fn noticed(notices: Option<&AsyncFd<OwnedFd>>) {
    let Some(notices) = notices else { return tokio::time::sleep(LOOK_WITHOUT_INOTIFY).await };
    let Ok(mut ready) = notices.readable().await else {
        return tokio::time::sleep(LOOK_WITHOUT_INOTIFY).await;
    };
    let mut events = [0; 4096];
    while rustix::io::read(notices.get_ref(), &mut events).is_ok_and(|n| n > 0) {}
    ready.clear_ready();
}

fn fault(path: &Path, id: FileId) -> Option<String> {
    let what = match FileId::of(path) {
        Ok(now) if now == id => return None,
        Ok(_) => "was replaced by another file",
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            "was deleted or moved away"
        }
        Err(_) => return None, // it is there, and nobody may look
    };
    Some(format!(
        "the store's file {} {what} while it was in use; restore it before you restart, or start a new store \
         with --accept-new-store",
        path.display()
    ))
}
