//! The data dir: what one node must remember from start to start, and the proof that it is alone.
//!
//! The folder itself is locked with flock(2) for the life of the process: a dead process holds none, so getting it proves
//! that no earlier start on this data dir *and this machine* is alive. `lock` says who has it. `identity` is the uuid; it
//! is bound to the machine and the folder, so a copy is noticed, and so is a folder that was used elsewhere (`place`): both
//! get a uuid of their own. `state` is rewritten (temporary file, fsync, rename, fsync of the folder) *before* the store hears of a new
//! lease, so that a crash at any point leaves the name of every lease that was ever granted to us. It names only leases
//! whose holders are dead for certain: it is cleared *before* a new identity is written, and a cleared one names no boot,
//! so that a start after a crash between the two comes to the same conclusion. What the store keeps of it is a row, which
//! tells a data dir that was rolled back (`identities`).

mod disk;
pub(crate) mod identities;
mod lock;
mod place;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::election::lease::LeaseId;
use crate::election::record::{Incarnation, MemberUuid, Revision};
use crate::protocol::join::Pin;
use crate::store::codec::parse_lease;
pub use disk::{Disk, Folder};
pub use lock::is_still_there;
use place::Past;
pub use place::Place;

/// How many older leases are remembered. Those beyond it end by themselves.
const OLDER_LEASES_MAX: usize = 16;

/// Random numbers, for names that no other process has.
pub type Random = Box<dyn FnMut() -> u128 + Send>;

/// An open data dir.
pub struct DataDir {
    disk: Box<dyn Disk>,
    random: Random,
    uuid: MemberUuid,
    state: State,
    place: Place,
    /// Why it was given a new identity at this start, if it was.
    estranged: Option<&'static str>,
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
        "cannot {what} {path}: {source}; check that this user may write to the data dir, or choose another \
         with --data-dir"
    )]
    Io {
        /// The folder.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is on another machine.
    #[error(
        "the data dir {path} is on a network file system ({kind}), where a lock does not prove that no other process uses it; choose a local disk with --data-dir"
    )]
    Network {
        /// The folder.
        path: PathBuf,
        /// Which one.
        kind: &'static str,
    },
    /// A file in it is damaged.
    #[error(
        "{path} is damaged ({why}); if this node is certainly not running elsewhere, delete it: the node \
         then starts with a new identity"
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
    /// The boot in which all these leases were asked for, or since which their holders are dead.
    #[serde(default)]
    boot: String,
    /// The revision above which an accepted store has to be lifted before we may lead in it; 0: none.
    #[serde(default)]
    raise_to: u64,
}

// === impl DataDir ===

impl DataDir {
    /// Begins a new incarnation in a locked folder. `exclusive`: the platform gives the folder to one process at most,
    /// wherever it runs.
    ///
    /// # Errors
    /// See [`DataDirError`].
    pub fn open(folder: &Folder, exclusive: bool) -> Result<Self, DataDirError> {
        let place = folder.place()?;
        Self::open_at(Box::new(folder.clone()), place, exclusive, Box::new(random))
    }

    /// The same on any disk, at this place.
    ///
    /// # Errors
    /// See [`DataDirError`].
    pub fn open_at(
        disk: Box<dyn Disk>,
        place: Place,
        exclusive: bool,
        random: Random,
    ) -> Result<Self, DataDirError> {
        let known: Option<Identity> = read_json(disk.as_ref(), "identity")?;
        let state = read_json(disk.as_ref(), "state")?.unwrap_or_default();
        let mut dir = Self { disk, random, uuid: MemberUuid(0), state, place, estranged: None };
        let judge = |i: &Identity| dir.place.judge(&i.binding, &dir.state.boot, exclusive);
        let past = known.as_ref().map(judge);
        match (known.and_then(|i| i.uuid.parse().ok()), past) {
            (Some(uuid), Some(Past::Dead)) => dir.uuid = uuid,
            (_, past) => dir.begin_anew(past)?,
        }
        dir.state.boot.clone_from(&dir.place.boot);
        dir.state.incarnation += 1;
        dir.save()?;
        dir.bind()?;
        Ok(dir)
    }

    fn begin_anew(&mut self, past: Option<Past>) -> Result<(), DataDirError> {
        self.become_stranger()?;
        self.estranged = match past {
            Some(Past::Copied) => Some("this data dir is a copy, which leaves the original's record alone"),
            Some(Past::Elsewhere) => Some(
                "this data dir was used on another machine, or this machine's /etc/machine-id has changed \
                 since its last boot, so that nothing proves that the process which used it is dead; if the \
                 platform attaches the data dir to at most one process, set node.data_dir_exclusive = true",
            ),
            Some(Past::Dead) | None => None,
        };
        if let Some(why) = self.estranged {
            tracing::warn!(uuid = %self.uuid, "this node starts with a new identity: {why}");
        }
        Ok(())
    }

    /// Gives the data dir a new identity without a past: it was copied, rolled back or lost. The state goes first: an old
    /// identity without leases can do no harm, a new one with the leases of another process could end them.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn become_stranger(&mut self) -> Result<(), DataDirError> {
        let State { cluster, revision, raise_to, .. } = self.state;
        self.state = State { cluster, revision, raise_to, ..State::default() };
        self.save()?;
        self.uuid = MemberUuid((self.random)());
        self.write_identity()
    }

    /// Notes where the folder is now, if that has changed.
    fn bind(&mut self) -> Result<(), DataDirError> {
        let known: Option<Identity> = read_json(self.disk.as_ref(), "identity")?;
        match known.is_some_and(|i| i.binding == self.place.binding()) {
            true => Ok(()),
            false => self.write_identity(),
        }
    }

    fn write_identity(&mut self) -> Result<(), DataDirError> {
        let identity = Identity { uuid: self.uuid.to_string(), binding: self.place.binding() };
        write(self.disk.as_mut(), "identity", &identity)
    }

    /// Why it was given a new identity at this start, if that was not its first.
    pub fn estranged(&self) -> Option<&'static str> {
        self.estranged
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
        let random = (self.random)() as u64 & 0x7fff_ffff_ffff_ffff;
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
        self.state.raise_to = 0; // who joins has lifted it
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

    /// The revision that an accepted store must have before this node may lead in it; 0: any.
    pub fn floor(&self) -> Revision {
        Revision(self.state.raise_to)
    }

    /// Forgets which store it belonged to: the operator says that the new one is right. What is remembered is how far the
    /// old one had got, because a token that it has given out must never be given out again.
    pub fn forget_pin(&mut self) {
        self.state.cluster = None;
        self.state.raise_to = self.state.raise_to.max(self.state.revision);
        self.state.revision = 0;
    }

    fn save(&mut self) -> Result<(), DataDirError> {
        write(self.disk.as_mut(), "state", &self.state)
    }
}

fn random() -> u128 {
    uuid::Uuid::new_v4().as_u128()
}

fn write(disk: &mut dyn Disk, name: &str, value: &impl Serialize) -> Result<(), DataDirError> {
    let replaced =
        serde_json::to_vec_pretty(value).map_err(Into::into).and_then(|json| disk.replace(name, &json));
    let path = || disk.location().to_owned();
    replaced.map_err(|source| DataDirError::Io { path: path(), what: "write the data dir", source })
}

fn read_json<T: for<'a> Deserialize<'a>>(disk: &dyn Disk, name: &str) -> Result<Option<T>, DataDirError> {
    let path = || disk.location().join(name);
    let content =
        disk.read(name).map_err(|source| DataDirError::Io { path: path(), what: "read", source })?;
    let damaged = |e: serde_json::Error| DataDirError::Damaged { path: path(), why: e.to_string() };
    content.map(|json| serde_json::from_slice(&json)).transpose().map_err(damaged)
}

#[cfg(test)]
#[path = "data_dir/tests.rs"]
mod tests;
