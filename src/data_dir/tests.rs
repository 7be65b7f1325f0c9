//! The data dir's files, with crashes between them.

use std::path::Path;

use super::*;

/// A folder whose process "crashes" after so many writes.
struct Crashing {
    folder: Folder,
    writes_left: usize,
}

impl Disk for Crashing {
    fn read(&self, name: &str) -> std::io::Result<Option<Vec<u8>>> {
        self.folder.read(name)
    }

    fn replace(&mut self, name: &str, content: &[u8]) -> std::io::Result<()> {
        let left = self.writes_left.checked_sub(1);
        self.writes_left = left.ok_or_else(|| std::io::Error::other("the process is gone"))?;
        self.folder.replace(name, content)
    }

    fn location(&self) -> &Path {
        self.folder.location()
    }
}

fn open(path: &Path, node: &str, exclusive: bool) -> Result<DataDir, DataDirError> {
    DataDir::open(&Folder::take(path, node)?, exclusive)
}

#[test]
fn every_start_is_a_new_incarnation_of_one_identity() {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("d");
    let (uuid, lease) = {
        let mut dir = open(&path, "n", false).unwrap();
        assert_eq!(dir.incarnation(), Incarnation(1));
        (dir.uuid(), dir.next_lease().unwrap())
    };
    let dir = open(&path, "n", false).unwrap();
    assert_eq!((dir.uuid(), dir.incarnation()), (uuid, Incarnation(2)));
    assert!(dir.own_leases().contains(&lease), "a lease is on disk before anybody hears of it");
}

#[test]
fn a_second_process_is_refused_and_told_who_holds_it() {
    let tmp = tempfile::tempdir().unwrap();
    let _held = open(tmp.path(), "n1", false).unwrap();
    let e = open(tmp.path(), "n2", false).err().expect("it is held").to_string();
    assert!(e.contains("node n1") && e.contains(&std::process::id().to_string()), "{e}");
}

#[test]
fn a_copy_gets_an_identity_of_its_own() {
    let tmp = tempfile::tempdir().unwrap();
    let (a, b) = (tmp.path().join("a"), tmp.path().join("b"));
    let original = open(&a, "n", false).unwrap().uuid();
    std::fs::create_dir(&b).unwrap();
    for name in ["identity", "state"] {
        std::fs::copy(a.join(name), b.join(name)).unwrap();
    }
    let copy = open(&b, "n", false).unwrap();
    assert_ne!(copy.uuid(), original);
    assert!(copy.own_leases().is_empty());
    assert_eq!(open(&a, "n", false).unwrap().uuid(), original, "twin: the original keeps its own");
}

/// A place that is not this machine in this boot; the folder is the same.
fn elsewhere(path: &Path) -> Place {
    Place { machine: "another machine".into(), boot: "another boot".into(), ..Place::of(path).unwrap() }
}

fn open_elsewhere(path: &Path, exclusive: bool) -> DataDir {
    let folder = Folder::take(path, "n").unwrap();
    DataDir::open_at(Box::new(folder), elsewhere(path), exclusive, Box::new(random)).unwrap()
}

#[test]
fn a_data_dir_that_was_used_elsewhere_starts_as_a_stranger_unless_it_is_exclusive() {
    for exclusive in [false, true] {
        let tmp = tempfile::tempdir().unwrap();
        let (uuid, lease) = {
            let mut dir = open(tmp.path(), "n", exclusive).unwrap();
            (dir.uuid(), dir.next_lease().unwrap())
        };
        let dir = open_elsewhere(tmp.path(), exclusive);
        let knows_its_past = (dir.uuid() == uuid, dir.own_leases().contains(&lease));
        assert_eq!(knows_its_past, (exclusive, exclusive));
        let why = dir.estranged().unwrap_or_default();
        assert_eq!(why.contains("machine-id") && why.contains("data_dir_exclusive"), !exclusive, "{why}");
        drop(dir);
        assert_eq!(open_elsewhere(tmp.path(), false).incarnation(), Incarnation(2 + u64::from(exclusive)));
    }
}

/// The same files in a folder that passes for the original.
fn copy_of(before: &Path) -> tempfile::TempDir {
    let tmp = tempfile::tempdir().unwrap();
    for name in ["identity", "state"] {
        std::fs::copy(before.join(name), tmp.path().join(name)).unwrap();
    }
    let inode = Place::of(tmp.path()).unwrap().inode;
    let mut identity: Identity =
        read_json(&Folder::take(tmp.path(), "n").unwrap(), "identity").unwrap().unwrap();
    let machine = identity.binding.rsplit_once(':').unwrap().0.to_owned();
    identity.binding = format!("{machine}:{inode}");
    std::fs::write(tmp.path().join("identity"), serde_json::to_vec(&identity).unwrap()).unwrap();
    tmp
}

#[test]
fn a_crash_between_any_two_writes_of_a_stranger_never_leaves_it_the_leases_of_another() {
    let tmp = tempfile::tempdir().unwrap();
    let (uuid, lease) = {
        let mut dir = open(tmp.path(), "n", false).unwrap();
        (dir.uuid(), dir.next_lease().unwrap())
    };
    let mut ended = Vec::new();
    for n in 0..6 {
        let crashed = copy_of(tmp.path());
        let disk = Crashing { folder: Folder::take(crashed.path(), "n").unwrap(), writes_left: n };
        let place = elsewhere(crashed.path());
        ended.push(DataDir::open_at(Box::new(disk), place, false, Box::new(random)).is_ok());
        let next = open_elsewhere(crashed.path(), false);
        let leases = next.own_leases();
        assert!(next.uuid() != uuid, "{n}: it goes on under the other's name");
        assert!(!leases.contains(&lease), "{n}: it would end the other's lease: {leases:?}");
    }
    assert!(ended.contains(&false) && ended.contains(&true), "twin: the crashes happened: {ended:?}");
}

#[test]
fn an_accepted_store_is_remembered_to_be_lifted_until_it_is() {
    let tmp = tempfile::tempdir().unwrap();
    {
        let mut dir = open(tmp.path(), "n", false).unwrap();
        dir.settle(Pin { cluster: 1, revision: Revision(70) }).unwrap();
        dir.forget_pin();
        assert_eq!((dir.pin(), dir.floor()), (None, Revision(70)));
        dir.next_lease().unwrap();
    }
    let mut dir = open(tmp.path(), "n", false).unwrap();
    assert_eq!(dir.floor(), Revision(70), "a crash does not lose it");
    dir.settle(Pin { cluster: 2, revision: Revision(71) }).unwrap();
    assert_eq!(dir.floor(), Revision(0));
}
