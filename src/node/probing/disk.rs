//! Writes a small file in the data dir, and has the disk confirm it.

use std::io::Write;
use std::path::Path;

use crate::clock::wall_clock_ms;
use crate::files;

/// Its name in the data dir.
const FILE: &str = "disk-probe";

/// Never returns on a disk that hangs.
pub(super) fn write_and_sync(dir: &Path) -> Result<(), String> {
    // Something new each time: what is there already need not be written.
    let written = files::create(&dir.join(FILE)).and_then(|mut file| {
        file.write_all(wall_clock_ms().to_string().as_bytes())?;
        file.sync_all()
    });
    written.map_err(|e| format!("fails: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_cannot_be_written_fails_by_name() {
        let tmp = tempfile::tempdir().unwrap();
        assert_eq!(write_and_sync(tmp.path()), Ok(()));
        let why = write_and_sync(&tmp.path().join("none")).expect_err("no folder");
        assert!(why.contains("No such file"), "{why}");
    }
}
