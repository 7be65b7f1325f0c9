//! The files of a data dir, and the folder that holds them.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::DataDirError;
use super::lock::{self, LockError};
use super::place::Place;
use crate::files;
use crate::store::network_fs;

/// Keeps a few small files by their names. Dropped or killed between two calls, it has done each of them whole or not at
/// all.
pub trait Disk: Send + 'static {
    /// The content of a file; `None`: there is none.
    ///
    /// # Errors
    /// It cannot be read.
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>>;

    /// Gives a file this content, so that it outlives a crash of the machine.
    ///
    /// # Errors
    /// It cannot be written; it has its old content or the new one.
    fn replace(&mut self, name: &str, content: &[u8]) -> io::Result<()>;

    /// Where it is, for messages.
    fn location(&self) -> &Path;
}

/// A locked folder of this machine. Clones share the lock, which is held until the last of them is gone, also those in
/// child processes.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
    lock: Arc<File>,
    /// How often a file was replaced: each time, the disk has confirmed it.
    syncs: Arc<AtomicU64>,
}

impl Folder {
    /// Makes the folder, if it is not there, and takes its lock. Waits a while for what a dead process has left behind.
    ///
    /// # Errors
    /// See [`DataDirError`].
    pub fn take(path: &Path, node: &str) -> Result<Self, DataDirError> {
        let io = |what| move |source| DataDirError::Io { path: path.to_owned(), what, source };
        files::make_private_dir(path).map_err(io("create or use the data dir"))?;
        if let Some(kind) = network_fs::of(path).map_err(io("stat the data dir"))? {
            return Err(DataDirError::Network { path: path.to_owned(), kind });
        }
        let lock = lock::take(path, node).map_err(|e| match e {
            LockError::Held(holder) => DataDirError::InUse { path: path.to_owned(), holder },
            LockError::Io(what, source) => io(what)(source),
        })?;
        Ok(Self { path: path.to_owned(), lock: Arc::new(lock), syncs: Arc::default() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The lock, for who must keep it a little longer than we live.
    pub fn lock(&self) -> Arc<File> {
        self.lock.clone()
    }

    /// How often the disk has confirmed a write so far.
    pub fn syncs(&self) -> Arc<AtomicU64> {
        self.syncs.clone()
    }

    pub(super) fn place(&self) -> Result<Place, DataDirError> {
        let failed = |source| DataDirError::Io { path: self.path.clone(), what: "stat the data dir", source };
        Place::of(&self.path).map_err(failed)
    }
}

impl Disk for Folder {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match std::fs::read(self.path.join(name)) {
            Ok(content) => Ok(Some(content)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Temporary file, fsync, rename, fsync of the folder.
    fn replace(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let temporary = self.path.join(format!("{name}.new"));
        let mut file = files::create(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&temporary, self.path.join(name))?;
        File::open(&self.path)?.sync_all()?;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn location(&self) -> &Path {
        &self.path
    }
}
