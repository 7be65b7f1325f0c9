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
        Self::with_file(password)
    }

    /// The same with a user and a role made by these commands of etcdctl, in which no password is given.
    #[track_caller]
    pub fn enable_with(etcd: &EtcdCluster, password: &str, commands: &[String]) -> Self {
        let add = format!("user add {USER}");
        let named: Vec<String> =
            commands.iter().map(|c| if *c == add { format!("{c}:{password}") } else { c.clone() }).collect();
        etcd.enable_auth_with(password, &named);
        Self::with_file(password)
    }

    /// What nodes need later: etcd asks for no login yet.
    pub fn before_auth(password: &str) -> Self {
        Self::with_file(password)
    }

    fn with_file(password: &str) -> Self {
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
