//! File systems that live on other machines: neither locks nor `fsync` can be trusted there.

use std::os::fd::AsFd;
use std::path::Path;

/// By the magic number that statfs(2) gives (`linux/magic.h`, and the file systems' own sources).
const NETWORK_FILE_SYSTEMS: [(u64, &str); 12] = [
    (0x6969, "NFS"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x517b, "SMB"),
    (0x0102_1997, "9P"),
    (0x00c3_6400, "Ceph"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "AFS"),
    (0x0bd0_0bd0, "Lustre"),
    (0x7461_636f, "OCFS2"),
    (0x0116_1970, "GFS2"),
    (0x7375_7245, "Coda"),
];
/// What FUSE file systems have in common; which one it is says the kernel's list of mounts.
const FUSE: u64 = 0x6573_5546;
/// FUSE file systems that stay on this machine.
const LOCAL_FUSE: [&str; 4] = ["fuse.fuse-overlayfs", "fuseblk", "fuse.lxcfs", "fuse.mergerfs"];

/// The name of the network file system that this folder is on, if it is on one.
///
/// # Errors
/// The folder cannot be opened.
pub fn of(folder: &Path) -> std::io::Result<Option<&'static str>> {
    let dir = std::fs::File::open(folder)?;
    let stat = rustix::fs::fstatfs(dir.as_fd())?;
    let magic = (stat.f_type as u64) & 0xffff_ffff;
    if magic == FUSE {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let folder = folder.canonicalize()?;
        return Ok((!is_local_fuse(&mounts, &folder)).then_some("FUSE"));
    }
    Ok(NETWORK_FILE_SYSTEMS.iter().find(|(m, _)| *m == magic).map(|(_, name)| *name))
}

/// The last mount of the longest mount point above the folder is the one that it is on.
fn is_local_fuse(mounts: &str, folder: &Path) -> bool {
    let mount = |line: &'_ str| {
        let (place, kind) = line.split_once(" - ")?;
        Some((place.split(' ').nth(4)?.to_owned(), kind.split(' ').next()?.to_owned()))
    };
    let above = mounts.lines().filter_map(mount).filter(|(point, _)| folder.starts_with(point));
    let kind = above.max_by_key(|(point, _)| point.len()).map(|(_, kind)| kind);
    kind.is_some_and(|kind| LOCAL_FUSE.contains(&kind.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_this_machine_is_on_no_network_file_system() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(of(dir.path()).unwrap(), None);
        assert!(of(&dir.path().join("not there")).is_err());
    }

    #[test]
    fn a_fuse_file_system_counts_as_a_network_unless_it_is_known_to_be_local() {
        let mounts = "1 0 8:1 / / rw - ext4 /dev/sda rw\n\
                      2 1 0:50 / /mnt/far rw shared:1 - fuse.sshfs host:/x rw\n\
                      3 1 0:51 / /mnt/near rw - fuse.fuse-overlayfs overlay rw\n";
        assert!(!is_local_fuse(mounts, Path::new("/mnt/far/data")));
        assert!(is_local_fuse(mounts, Path::new("/mnt/near/data")), "twin");
    }
}
