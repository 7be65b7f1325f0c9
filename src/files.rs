//! The files that a node keeps for itself: nobody else reads them, and none is written through a link.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

const PRIVATE_DIR: u32 = 0o700;
const PRIVATE_FILE: u32 = 0o600;
/// Every data dir has it, so one that holds it is ours.
const OURS: &str = "identity";

/// Makes the folder, if it is not there, so that only this user may enter it. One that is there must not be another
/// user's to change: whoever can replace the files of a node can take its place.
///
/// # Errors
/// It cannot be made, or it or what it holds belongs to somebody else, or everybody may write to it.
pub fn make_private_dir(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(PRIVATE_DIR).create(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        made => return made,
    }
    let (found, us) = (std::fs::metadata(path)?, rustix::process::geteuid().as_raw());
    if found.uid() != us && found.uid() != 0 {
        let owner = found.uid();
        return Err(io::Error::other(format!(
            "it belongs to user {owner}, who could impersonate this node; metad runs as user {us}; chown it to {us}"
        )));
    }
    // A folder that holds other things as well keeps its mode: it may be one that others need.
    let others_write = found.mode() & 0o022 != 0;
    if found.uid() == us && found.mode() & 0o077 != 0 && is_ours_alone(path) {
        std::fs::set_permissions(path, Permissions::from_mode(PRIVATE_DIR))?;
        // What others could put there until now is not to be believed.
        return if others_write { only_ours(path, us) } else { Ok(()) };
    }
    if is_open_to_all(found.mode()) {
        let folder = path.join("metad");
        return Err(io::Error::other(format!(
            "it is world-writable; choose a folder of its own, such as {}, or chmod it to 700",
            folder.display()
        )));
    }
    Ok(())
}

/// May everybody change what is in a folder of this mode?
pub fn is_open_to_all(mode: u32) -> bool {
    mode & 0o002 != 0
}

fn only_ours(path: &Path, us: u32) -> io::Result<()> {
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let owner = entry.metadata()?.uid();
        if owner != us && owner != 0 {
            return Err(io::Error::other(format!(
                "others could write to it, and {} in it belongs to user {owner}, who could impersonate this node; delete that, \
                 or choose another folder",
                entry.file_name().display()
            )));
        }
    }
    tracing::warn!("others could write to {}; now only this user may (mode 700)", path.display());
    Ok(())
}

fn is_ours_alone(path: &Path) -> bool {
    path.join(OURS).exists() || std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

/// An empty file that only this user may read. A link in its place is refused.
///
/// # Errors
/// It cannot be made.
pub fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(PRIVATE_FILE).custom_flags(libc::O_NOFOLLOW);
    let file = options.open(path)?;
    if file.metadata()?.mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(PRIVATE_FILE))?; // it was there before
    }
    Ok(file)
}

/// An empty file that only this user may read, unless there is one already.
///
/// # Errors
/// It cannot be made.
pub fn make(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(PRIVATE_FILE);
    options.open(path).map(drop)
}

/// Replaces the file's content.
///
/// # Errors
/// It cannot be written.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    create(path)?.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn what_a_node_writes_is_its_own() {
        let tmp = tempfile::tempdir().unwrap();
        let (dir, file) = (tmp.path().join("a/b"), tmp.path().join("a/b/f"));
        make_private_dir(&dir).unwrap();
        write(&file, b"1").unwrap();
        assert_eq!((mode(&dir), mode(&file)), (0o700, 0o600));
        for (path, loose) in [(&dir, 0o755), (&file, 0o644)] {
            std::fs::set_permissions(path, Permissions::from_mode(loose)).unwrap();
        }
        write(&file, b"2").unwrap();
        assert_eq!(mode(&file), 0o600, "one of an older version, too");
        make_private_dir(&dir).unwrap();
        assert_eq!(mode(&dir), 0o755, "it holds other things");
        std::fs::rename(&file, dir.join(OURS)).unwrap();
        make_private_dir(&dir).unwrap();
        assert_eq!(mode(&dir), 0o700);
    }

    #[test]
    fn a_folder_that_others_could_write_to_becomes_private_if_nothing_in_it_is_theirs() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("d");
        let open_to_all = || std::fs::set_permissions(&dir, Permissions::from_mode(0o777)).unwrap();
        make_private_dir(&dir).unwrap();
        open_to_all();
        make_private_dir(&dir).unwrap();
        write(&dir.join(OURS), b"1").unwrap();
        open_to_all();
        make_private_dir(&dir).unwrap();
        assert_eq!(mode(&dir), 0o700);
        if std::os::unix::fs::chown(dir.join(OURS), Some(65_534), None).is_err() {
            return; // only root may; `tests/real/data_dir.rs` is
        }
        make_private_dir(&dir).unwrap(); // nobody else could put it there
        open_to_all();
        let why = make_private_dir(&dir).unwrap_err().to_string();
        assert!(why.contains("identity in it belongs to user 65534"), "{why}");
    }

    #[test]
    fn a_link_and_a_folder_of_everybody_are_refused() {
        let tmp = tempfile::tempdir().unwrap();
        let (secret, link) = (tmp.path().join("secret"), tmp.path().join("link"));
        std::fs::write(&secret, "kept").unwrap();
        std::os::unix::fs::symlink(&secret, &link).unwrap();
        write(&link, b"lost").unwrap_err();
        assert_eq!(std::fs::read(&secret).unwrap(), b"kept");
        std::fs::set_permissions(tmp.path(), Permissions::from_mode(0o777)).unwrap();
        assert!(make_private_dir(tmp.path()).unwrap_err().to_string().contains("world-writable"));
    }
}
