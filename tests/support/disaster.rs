//! What operators do to an etcd after a disaster: an older state put back, or a new cluster in the place of the old.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;
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
        self.while_stopped(|| self.put_back(backup));
    }

    /// Deletes all data and starts a new cluster, with another id, at the same addresses.
    #[track_caller]
    pub fn bootstrap_again(&self) {
        self.was_restored.store(true, Ordering::Relaxed);
        self.while_stopped(|| {
            fs::remove_dir_all(self.data_dir()).expect("removed");
            *self.token.lock().expect("not poisoned") = "second".into();
        });
    }

    /// Saves a snapshot, as operators do; etcd runs on.
    #[track_caller]
    pub fn save_snapshot(&self) -> PathBuf {
        let file = self.dir.path().join("snapshot.db");
        let _ = fs::remove_file(&file);
        let mut command = self.etcdctl_command(&["snapshot", "save", &file.display().to_string()]);
        command.env("ETCDCTL_ENDPOINTS", &self.urls()[0]);
        let output = spawn::output(command, Duration::from_secs(20));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        file
    }

    /// Makes the data of all members anew from a snapshot, as `etcdctl snapshot restore` does: under the token that the
    /// cluster has, so that its id stays, or under a new one. The members must be stopped.
    #[track_caller]
    pub fn put_back_snapshot(&self, file: &Path, new_token: Option<&str>) {
        self.was_restored.store(true, Ordering::Relaxed);
        fs::remove_dir_all(self.data_dir()).expect("removed");
        if let Some(token) = new_token {
            *self.token.lock().expect("not poisoned") = token.into();
        }
        for i in 0..self.size() {
            let output = spawn::output(self.restore_command(i, file), Duration::from_secs(60));
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }

    /// Puts a backup in the place of the present data. The members must be stopped.
    #[track_caller]
    pub fn put_back(&self, backup: &Backup) {
        self.was_restored.store(true, Ordering::Relaxed);
        fs::remove_dir_all(self.data_dir()).expect("removed");
        copy_dir(&backup.0, &self.data_dir());
    }

    /// Deletes the data of member `i` and starts it as a cluster of its own, at the same addresses.
    #[track_caller]
    pub fn bootstrap_alone(&self, i: usize) {
        self.was_restored.store(true, Ordering::Relaxed);
        self.kill(i);
        fs::remove_dir_all(self.data_dir().join(self.member_name(i))).expect("removed");
        self.set_alone(i);
        self.restart(i);
        self.wait_healthy();
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
