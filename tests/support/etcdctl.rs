//! The command line client of a cluster, with its endpoints, certificates and password filled in.

use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use super::etcd::EtcdCluster;
use super::spawn;

const TIMEOUT: Duration = Duration::from_secs(60);

impl EtcdCluster {
    /// Runs etcdctl against all members; panics when it takes longer than 20 s.
    #[track_caller]
    pub fn etcdctl(&self, args: &[&str]) -> Output {
        spawn::output(self.etcdctl_command(args), TIMEOUT)
    }

    /// Runs etcdctl and returns what it printed; panics unless it succeeds.
    #[track_caller]
    pub fn etcdctl_ok(&self, args: &[&str]) -> String {
        let output = self.etcdctl(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "etcdctl {args:?} failed: {stderr}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Starts an etcdctl that runs on (`watch`, `elect`, `lock`), its three streams piped.
    pub fn spawn_etcdctl(&self, args: &[&str]) -> Child {
        let mut command = self.etcdctl_command(args);
        command.stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        spawn::spawn(command).expect("etcdctl starts")
    }

    /// What an etcdctl that runs on has printed after this long; it is ended then.
    pub fn listen(&self, args: &[&str], for_so_long: Duration) -> String {
        let mut child = self.spawn_etcdctl(args);
        std::thread::sleep(for_so_long);
        let _ = child.kill();
        let output = child.wait_with_output().expect("an ended etcdctl");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Turns authentication on: `user` may read and write below `/metad/` and nothing else.
    ///
    /// etcdctl goes on as `root`, which gets the same password.
    #[track_caller]
    pub fn enable_auth(&self, user: &str, password: &str) {
        let commands = [
            format!("user add {user}:{password}"),
            "role add metad".to_owned(),
            "role grant-permission metad --prefix=true readwrite /metad/".to_owned(),
            format!("user grant-role {user} metad"),
        ];
        self.enable_auth_with(password, &commands);
    }

    /// The same with a user that these commands make.
    #[track_caller]
    pub fn enable_auth_with(&self, password: &str, commands: &[String]) {
        let root = format!("root:{password}");
        let make_root =
            [format!("user add {root}"), "role add root".into(), "user grant-role root root".into()];
        for command in make_root.iter().chain(commands).chain(&["auth enable".to_owned()]) {
            self.etcdctl_ok(&command.split(' ').collect::<Vec<_>>());
        }
        *self.root.lock().expect("not poisoned") = Some(root);
    }

    pub(super) fn etcdctl_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.install.etcdctl);
        spawn::remove_env(&mut command, "ETCDCTL_");
        command.env("ETCDCTL_API", "3");
        command.env("ETCDCTL_ENDPOINTS", self.urls().join(","));
        if let Some(tls) = &self.tls {
            command.env("ETCDCTL_CACERT", &tls.ca);
            command.env("ETCDCTL_CERT", &tls.cert);
            command.env("ETCDCTL_KEY", &tls.key);
        }
        if let Some(root) = self.root.lock().expect("not poisoned").as_ref() {
            command.env("ETCDCTL_USER", root);
        }
        command.args(args);
        command
    }
}
