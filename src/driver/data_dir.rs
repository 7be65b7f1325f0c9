//! The data dir: what one node must remember from start to start, and the proof that it is alone.
//!
//! The folder itself is locked with flock(2) for the life of the process: a dead process holds none, so getting it
//! proves that no earlier start on this data dir is alive. `lock` says who has it. `identity` is the uuid; it is bound to the machine and the
//! folder, so a copy is noticed and gets a uuid of its own. `state` is rewritten (temporary file, fsync,
//! rename, fsync of the folder) *before* the store hears of a new lease, so that a crash at any point leaves
//! the name of every lease that was ever granted to us.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::dir_lock::{self, LockError};
use super::last_words::{self, LastWords};
use crate::election::history::row::Row;
use crate::election::lease::LeaseId;
use crate::election::record::{Incarnation, MemberUuid, Revision};
use crate::files;
use crate::store::codec::parse_lease;

/// How many older leases are remembered. Those beyond it end by themselves.
const OLDER_LEASES_MAX: usize = 16;

/// An open data dir. The lock is held until the process ends.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    uuid: MemberUuid,
    state: State,
    lock: Arc<File>,
    past: Option<Row>,
}

/// Which store this data dir belongs to, and how far it had got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pin {
    /// The store's own id.
    pub cluster: u64,
    /// The highest revision known: of the last join, or of the last tenure.
    pub revision: Revision,
}

/// Why a data dir cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process holds it.
    #[error(
        "the data dir {path} is in use by {holder}; stop that process, or give this node a data dir of its own with --data-dir"
    )]
    InUse {
        /// The folder.
        path: PathBuf,
        /// What the holder wrote about itself.
        holder: String,
    },
    /// It cannot be read or written.
    #[error(
        "cannot use the data dir {path}: {what}: {source}; check that this user may write there, or choose another with --data-dir"
    )]
    Io {
        /// The folder.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file in it is damaged.
    #[error(
        "{path} is damaged ({why}); if this node is certainly not running elsewhere, delete it: the node then starts as a new one"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How.
        why: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct Identity {
    uuid: String,
    /// Machine and inode of the folder: a copy has others.
    binding: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct State {
    incarnation: u64,
    lease: String,
    older_leases: Vec<String>,
    /// The lease of the last registration: what the store knows us by.
    #[serde(default)]
    enrolled: String,
    cluster: Option<u64>,
    revision: u64,
}

// === impl DataDir ===

impl DataDir {
    /// Opens the folder (creating it if needed), takes its lock, and begins a new incarnation.
    ///
    /// # Errors
    /// See [`DataDirError`].
    pub fn open(path: &Path, node: &str) -> Result<Self, DataDirError> {
        let io = |what| move |source| DataDirError::Io { path: path.to_owned(), what, source };
        files::make_private_dir(path).map_err(io("creating it"))?;
        let lock = dir_lock::take(path, node).map_err(|e| match e {
            LockError::Held(holder) => DataDirError::InUse { path: path.to_owned(), holder },
            LockError::Io(what, source) => io(what)(source),
        })?;
        let binding = binding(path).map_err(io("looking at it"))?;
        let known: Option<Identity> = read_json(&path.join("identity"))?;
        let copied = known.as_ref().is_some_and(|i| i.binding != binding);
        let uuid = known.filter(|i| i.binding == binding).and_then(|i| i.uuid.parse().ok());
        let mut dir = Self {
            path: path.to_owned(),
            uuid: MemberUuid(0),
            state: State::default(),
            lock: Arc::new(lock),
            past: None,
        };
        match uuid {
            Some(uuid) => {
                dir.uuid = uuid;
                dir.state = read_json(&path.join("state"))?.unwrap_or_default();
            }
            None => dir.become_stranger()?,
        }
        if copied {
            tracing::warn!(uuid = %dir.uuid, "this data dir is a copy; it starts as a new node and leaves the original's record alone");
        }
        dir.state.incarnation += 1;
        dir.save()?;
        dir.past = last_words::read(path, dir.uuid);
        Ok(dir)
    }

    /// Gives the data dir a new identity without a past: it was copied, rolled back or lost.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn become_stranger(&mut self) -> Result<(), DataDirError> {
        self.uuid = MemberUuid(uuid::Uuid::new_v4().as_u128());
        let pin = (self.state.cluster, self.state.revision);
        self.state = State { cluster: pin.0, revision: pin.1, ..State::default() };
        let binding = binding(&self.path).map_err(|e| self.io("looking at it", e))?;
        let identity = Identity { uuid: self.uuid.to_string(), binding };
        self.write("identity", &identity)?;
        self.save()
    }

    /// The lock, for who must keep it a little longer than we live.
    pub fn lock(&self) -> Arc<File> {
        self.lock.clone()
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The last tenure of an earlier start, if the history may not know yet how it ended.
    pub fn take_past(&mut self) -> Option<Row> {
        self.past.take()
    }

    /// Who we are.
    pub fn uuid(&self) -> MemberUuid {
        self.uuid
    }

    /// Which start this is.
    pub fn incarnation(&self) -> Incarnation {
        Incarnation(self.state.incarnation)
    }

    /// The leases that were ever asked for and are not known to be gone.
    pub fn own_leases(&self) -> Vec<LeaseId> {
        let all = self.state.older_leases.iter().chain([&self.state.lease, &self.state.enrolled]);
        all.filter_map(|hex| parse_lease(hex)).collect()
    }

    /// Chooses the name of a new lease and puts it on disk.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn next_lease(&mut self) -> Result<LeaseId, DataDirError> {
        let random = uuid::Uuid::new_v4().as_u64_pair().1 & 0x7fff_ffff_ffff_ffff;
        let lease = LeaseId(random.max(1).cast_signed());
        let last = std::mem::replace(&mut self.state.lease, lease.to_string());
        if !last.is_empty() {
            self.state.older_leases.push(last);
        }
        let excess = self.state.older_leases.len().saturating_sub(OLDER_LEASES_MAX);
        self.state.older_leases.drain(..excess);
        self.save()?;
        Ok(lease)
    }

    /// Notes that all leases but the present one are gone, and what the store looks like.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn settle(&mut self, pin: Pin) -> Result<(), DataDirError> {
        self.state.older_leases.clear();
        self.state.enrolled.clone_from(&self.state.lease);
        self.state.cluster = Some(pin.cluster);
        self.state.revision = self.state.revision.max(pin.revision.0);
        self.save()
    }

    /// Notes that the store had got as far as this.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn note_revision(&mut self, revision: Revision) -> Result<(), DataDirError> {
        self.state.revision = self.state.revision.max(revision.0);
        self.save()
    }

    /// The store that this data dir belongs to.
    pub fn pin(&self) -> Option<Pin> {
        let cluster = self.state.cluster?;
        Some(Pin { cluster, revision: Revision(self.state.revision) })
    }

    /// Forgets which store it belonged to: the operator says that the new one is right.
    pub fn forget_pin(&mut self) {
        self.state.cluster = None;
        self.state.revision = 0;
        // The last tenure was in the old store; the history of the new one is not told of it.
        self.past = None;
        LastWords::new(&self.path).forget_past();
    }

    fn save(&self) -> Result<(), DataDirError> {
        self.write("state", &self.state)
    }

    fn write(&self, name: &'static str, value: &impl Serialize) -> Result<(), DataDirError> {
        let replace = || -> std::io::Result<()> {
            let temporary = self.path.join(format!("{name}.new"));
            let mut file = files::create(&temporary)?;
            file.write_all(&serde_json::to_vec_pretty(value)?)?;
            file.sync_all()?;
            std::fs::rename(&temporary, self.path.join(name))?;
            File::open(&self.path)?.sync_all()
        };
        replace().map_err(|e| self.io("writing it", e))
    }

    fn io(&self, what: &'static str, source: std::io::Error) -> DataDirError {
        DataDirError::Io { path: self.path.clone(), what, source }
    }
}

/// Is the folder that `held` has locked the one that others find at `path`?
pub fn is_still_there(held: &File, path: &Path) -> bool {
    dir_lock::is_still_there(held, path)
}

/// What a copy of the folder has not got: its machine and its inode.
fn binding(path: &Path) -> std::io::Result<String> {
    let machine = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let inode = std::fs::metadata(path)?.ino();
    Ok(format!("{}:{inode}", machine.trim()))
}

fn read_json<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<Option<T>, DataDirError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(DataDirError::Io { path: path.to_owned(), what: "reading it", source: e }),
    };
    let damaged = |e: serde_json::Error| DataDirError::Damaged { path: path.to_owned(), why: e.to_string() };
    serde_json::from_slice(&bytes).map(Some).map_err(damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_start_is_a_new_incarnation_of_one_identity() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("d");
        let (uuid, lease) = {
            let mut dir = DataDir::open(&path, "n").unwrap();
            assert_eq!(dir.incarnation(), Incarnation(1));
            (dir.uuid(), dir.next_lease().unwrap())
        };
        let dir = DataDir::open(&path, "n").unwrap();
        assert_eq!((dir.uuid(), dir.incarnation()), (uuid, Incarnation(2)));
        assert!(dir.own_leases().contains(&lease), "a lease is on disk before anybody hears of it");
    }

    #[test]
    fn a_second_process_is_refused_and_told_who_holds_it() {
        let tmp = tempfile::tempdir().unwrap();
        let _held = DataDir::open(tmp.path(), "n1").unwrap();
        let e = DataDir::open(tmp.path(), "n2").unwrap_err().to_string();
        assert!(e.contains("node n1") && e.contains(&std::process::id().to_string()), "{e}");
    }

    #[test]
    fn a_copy_gets_an_identity_of_its_own() {
        let tmp = tempfile::tempdir().unwrap();
        let (a, b) = (tmp.path().join("a"), tmp.path().join("b"));
        let original = DataDir::open(&a, "n").unwrap().uuid();
        std::fs::create_dir(&b).unwrap();
        for name in ["identity", "state"] {
            std::fs::copy(a.join(name), b.join(name)).unwrap();
        }
        let copy = DataDir::open(&b, "n").unwrap();
        assert_ne!(copy.uuid(), original);
        assert!(copy.own_leases().is_empty());
        assert_eq!(DataDir::open(&a, "n").unwrap().uuid(), original, "twin: the original keeps its own");
    }
}
