//! What `metad tls init` and `metad token` make, and how nodes and commands show it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use metad::tls::client::{Authorized, CredentialFiles, Credentials};
use metad::tls::files::PemFiles;
use tempfile::TempDir;
use tonic::transport::Endpoint;

use super::node::NodeBuilder;
use super::tls::openssl;
use super::{http, spawn};

const TIMEOUT: Duration = Duration::from_secs(60);

/// A folder of certificates and tokens.
#[derive(Clone, Debug)]
pub struct Papers {
    dir: PathBuf,
}

/// What a command shows: arguments.
pub type Shown = Vec<String>;

/// Whether every node that says nothing else speaks TLS and asks who is calling: the same tests, on an open network.
pub fn all_nodes_are_secured() -> bool {
    std::env::var_os("METAD_TEST_TLS").is_some_and(|value| !value.is_empty())
}

/// The authority of this test process.
pub fn common() -> &'static Papers {
    static COMMON: OnceLock<(Papers, TempDir)> = OnceLock::new();
    let make = || {
        let dir = tempfile::Builder::new().prefix("metad-papers-").tempdir().expect("a directory");
        (Papers::create(&dir.path().join("papers"), &["unused"]), dir)
    };
    &COMMON.get_or_init(make).0
}

/// What a node of this process says to `GET path`, by whatever it speaks.
pub fn get(node: SocketAddr, path: &str, timeout: Duration) -> std::io::Result<(u16, String)> {
    if !all_nodes_are_secured() {
        return http::get(node, path, timeout);
    }
    common().get(node, path, timeout)
}

/// A connection to a node of this process, whatever it speaks, for one who may read and write the state.
pub fn channel(node: SocketAddr) -> Authorized {
    let credentials = match all_nodes_are_secured() {
        true => common().credentials(Some("writer"), None),
        false => Credentials::default(),
    };
    credentials.connect_lazily(&Endpoint::from_shared(format!("http://{node}")).expect("an address"))
}

impl Papers {
    /// A new authority in this folder, with certificates for these members.
    pub fn create(dir: &Path, members: &[&str]) -> Self {
        let mut command = spawn::metad_command();
        command.args(["tls", "init"]).arg(dir).args(["--members", &members.join(",")]);
        command.args(["--hosts", "meta.example.com"]);
        run(command);
        Self { dir: dir.to_owned() }
    }

    /// The certificate of this member, made when it is asked for first.
    fn make_member(&self, id: &str, ip: Ipv4Addr) {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _one = ONE_AT_A_TIME.lock().unwrap_or_else(|e| e.into_inner());
        if !self.path(&format!("{id}.pem")).exists() {
            self.sign_for(ip, id, &[&format!("metad:member:{id}")], false);
        }
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
        self.make_member(&id, builder.ip());
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

    /// The same for the library: this certificate, and the token in this file.
    pub fn credentials(&self, certificate: Option<&str>, token: Option<&str>) -> Credentials {
        let file = |kind: &str| certificate.map(|name| self.path(&format!("{name}.{kind}")));
        let pem = PemFiles { ca: Some(self.path("ca.pem")), cert: file("pem"), key: file("key") };
        Credentials::open(CredentialFiles { pem, token: token.map(|t| self.path(t)) }).expect("credentials")
    }

    /// What a node says to a reader's `GET path`.
    pub fn get(&self, node: SocketAddr, path: &str, timeout: Duration) -> std::io::Result<(u16, String)> {
        let mut curl = Command::new("curl");
        curl.args([
            "-s",
            "-w",
            "\n%{http_code}",
            "--max-time",
            &timeout.as_secs_f64().to_string(),
            "--cacert",
        ]);
        curl.arg(self.path("ca.pem")).arg("--cert").arg(self.path("reader.pem"));
        curl.arg("--key").arg(self.path("reader.key")).arg(format!("https://{node}{path}"));
        let said = spawn::output(curl, TIMEOUT);
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        let (body, code) = text.rsplit_once('\n').unwrap_or_default();
        match code.parse() {
            Ok(code) if said.status.success() => Ok((code, body.to_owned())),
            _ => Err(std::io::Error::other(format!("{:?}: {text}", said.status))),
        }
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

    /// Makes these tokens, by role, name and file, and an access file of all of them.
    pub fn make_tokens(&self, tokens: &[(&str, &str, &str)]) {
        let lines = tokens.iter().map(|(role, name, file)| self.make_token(role, name, file));
        self.write_access(&[&lines.collect::<String>()]);
    }

    /// Replaces the access file, in one step.
    pub fn write_access(&self, lines: &[&str]) {
        std::fs::write(self.path("access.new"), lines.concat()).expect("written");
        std::fs::rename(self.path("access.new"), self.path("access")).expect("in its place");
    }

    /// Signs a certificate with these URIs by this authority, as openssl does it; it has ended long ago if it `has_expired`.
    pub fn sign(&self, name: &str, uris: &[&str], has_expired: bool) {
        self.sign_for(Ipv4Addr::LOCALHOST, name, uris, has_expired);
    }

    fn sign_for(&self, ip: Ipv4Addr, name: &str, uris: &[&str], has_expired: bool) {
        let names: Vec<String> = uris.iter().map(|uri| format!("URI:{uri}")).collect();
        let extensions =
            format!("subjectAltName={},IP:{ip}\nextendedKeyUsage=clientAuth,serverAuth\n", names.join(","));
        std::fs::write(self.path("ext.cnf"), extensions).expect("written");
        let request = "req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=x";
        openssl(&self.dir, &format!("{request} -keyout {name}.key -out {name}.csr"), false);
        let sign = "x509 -req -CA ca.pem -CAkey ca.key -days 1 -extfile ext.cnf -set_serial 77";
        openssl(&self.dir, &format!("{sign} -in {name}.csr -out {name}.pem"), has_expired);
    }
}

fn run(command: Command) -> String {
    let output = spawn::output(command, TIMEOUT);
    let (said, why) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{why}");
    said.into_owned()
}
