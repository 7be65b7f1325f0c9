//! What `metad tls init` and `metad token` make, and how nodes and commands show it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::node::NodeBuilder;
use super::{install, spawn};

const TIMEOUT: Duration = Duration::from_secs(60);

/// A folder of certificates and tokens.
#[derive(Clone, Debug)]
pub struct Papers {
    dir: PathBuf,
}

/// What a command shows: arguments.
pub type Shown = Vec<String>;

impl Papers {
    /// A new authority in this folder, with certificates for these members.
    pub fn create(dir: &Path, members: &[&str]) -> Self {
        let mut command = spawn::metad_command();
        command.args(["tls", "init"]).arg(dir).args(["--members", &members.join(",")]);
        command.args(["--hosts", "meta.example.com"]);
        run(command);
        Self { dir: dir.to_owned() }
    }

    /// A file of it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// The node shows its certificate, and goes by the access file if there is one.
    pub fn of(&self, builder: NodeBuilder) -> NodeBuilder {
        let id = builder.node_id();
        let builder = builder
            .env("METAD_TLS__CA_FILE", self.path("ca.pem"))
            .env("METAD_TLS__CERT_FILE", self.path(&format!("{id}.pem")))
            .env("METAD_TLS__KEY_FILE", self.path(&format!("{id}.key")));
        match self.path("access").exists() {
            true => builder.env("METAD_AUTH__ACCESS_FILE", self.path("access")),
            false => builder,
        }
    }

    /// A command trusts the authority, and shows nothing.
    pub fn nothing(&self) -> Shown {
        vec!["--tls-ca".into(), self.text("ca.pem")]
    }

    /// It shows this certificate.
    pub fn certificate(&self, name: &str) -> Shown {
        let mut shown = self.nothing();
        shown.extend(["--tls-cert".into(), self.text(&format!("{name}.pem"))]);
        shown.extend(["--tls-key".into(), self.text(&format!("{name}.key"))]);
        shown
    }

    /// It shows the token in this file.
    pub fn token(&self, file: &str) -> Shown {
        let mut shown = self.nothing();
        shown.extend(["--token-file".into(), self.text(file)]);
        shown
    }

    /// Makes a token with this role and writes it into `file`; returns the line of the access file.
    pub fn make_token(&self, role: &str, name: &str, file: &str) -> String {
        let mut command = spawn::metad_command();
        command.args(["token", "--role", role, "--name", name, "--token-file"]).arg(self.path(file));
        run(command)
    }

    /// Replaces the access file, in one step.
    pub fn write_access(&self, lines: &[&str]) {
        std::fs::write(self.path("access.new"), lines.concat()).expect("written");
        std::fs::rename(self.path("access.new"), self.path("access")).expect("in its place");
    }

    /// Signs a certificate with these URIs by this authority, as openssl does it; it has ended long ago if it `has_expired`.
    pub fn sign(&self, name: &str, uris: &[&str], has_expired: bool) {
        let names: Vec<String> = uris.iter().map(|uri| format!("URI:{uri}")).collect();
        let extensions = format!(
            "subjectAltName={},IP:127.0.0.1\nextendedKeyUsage=clientAuth,serverAuth\n",
            names.join(",")
        );
        std::fs::write(self.path("ext.cnf"), extensions).expect("written");
        let request = "req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=x";
        self.openssl(&format!("{request} -keyout {name}.key -out {name}.csr"), false);
        let sign = "x509 -req -CA ca.pem -CAkey ca.key -days 1 -extfile ext.cnf -set_serial 77";
        self.openssl(&format!("{sign} -in {name}.csr -out {name}.pem"), has_expired);
    }

    fn openssl(&self, args: &str, long_ago: bool) {
        let mut command = Command::new("openssl");
        command.current_dir(&self.dir).args(args.split_whitespace());
        if long_ago {
            command.env("LD_PRELOAD", install::libfaketime()).env("FAKETIME", "2020-01-01 00:00:00");
        }
        run(command);
    }
}

fn run(command: Command) -> String {
    let output = spawn::output(command, TIMEOUT);
    let (said, why) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{why}");
    said.into_owned()
}
