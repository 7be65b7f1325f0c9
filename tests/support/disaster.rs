//! What operators do to an etcd after a disaster: an older state put back, or a new cluster in the place of the old.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::etcd::EtcdCluster;
use super::spawn;

/// The data of all members at one moment.
#[derive(Debug)]
pub struct Backup(PathBuf);

impl EtcdCluster {
    /// Copies the data of all members while they are stopped, for which they are killed and started again.
    #[track_caller]
    pub fn back_up(&self) -> Backup {
        let backup = Backup(self.dir.path().join("backup"));
        self.while_stopped(|| copy_dir(&self.data_dir(), &backup.0));
        backup
    }

    /// Puts a backup in the place of the present data: the same cluster, at an older revision.
    #[track_caller]
    pub fn restore(&self, backup: &Backup) {
        self.while_stopped(|| {
            fs::remove_dir_all(self.data_dir()).expect("removed");
            copy_dir(&backup.0, &self.data_dir());
        });
    }

    /// Deletes all data and starts a new cluster, with another id, at the same addresses.
    #[track_caller]
    pub fn bootstrap_again(&self) {
        self.while_stopped(|| {
            fs::remove_dir_all(self.data_dir()).expect("removed");
            *self.token.lock().expect("not poisoned") = "second".into();
        });
    }

    fn while_stopped(&self, act: impl FnOnce()) {
        (0..self.size()).for_each(|i| self.kill(i));
        act();
        (0..self.size()).for_each(|i| self.restart(i));
        self.wait_healthy();
    }
}

/// Copies a folder with all that is in it. One that is in use is copied again if a file was renamed meanwhile.
#[track_caller]
pub fn copy_dir(from: &Path, to: &Path) {
    for tries_left in (0..5).rev() {
        let mut command = Command::new("cp");
        command.arg("-a").arg(from).arg(to);
        let output = spawn::output(command, Duration::from_secs(60));
        if output.status.success() {
            return;
        }
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(tries_left > 0 && said.contains("No such file"), "{said}");
        std::fs::remove_dir_all(to).expect("what was copied so far");
    }
}
