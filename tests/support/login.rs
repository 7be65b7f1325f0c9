//! A login at etcd: its only user but root, and the file with the password.

use std::path::PathBuf;

use tempfile::TempDir;

use super::etcd::EtcdCluster;
use super::node::NodeBuilder;

pub const USER: &str = "metad";

/// What a node needs to log in.
#[derive(Debug)]
pub struct Login {
    pub file: PathBuf,
    _dir: TempDir,
}

impl Login {
    /// Turns authentication on, with this password.
    #[track_caller]
    pub fn enable(etcd: &EtcdCluster, password: &str) -> Self {
        etcd.enable_auth(USER, password);
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("password");
        std::fs::write(&file, format!("{password}\n")).expect("a file");
        Self { file, _dir: dir }
    }

    /// Has the node log in.
    pub fn of(&self, node: NodeBuilder) -> NodeBuilder {
        node.env("METAD_STORE__ETCD__USERNAME", USER).env("METAD_STORE__ETCD__PASSWORD_FILE", &self.file)
    }
}
