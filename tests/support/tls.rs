//! A certificate authority for one test, made with the `openssl` command.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{install, spawn};

/// Extensions are written out here so that the system's openssl.cnf plays no part.
const OPENSSL_CNF: &str = "\
[req]
distinguished_name = name
[name]
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = CA:FALSE
subjectAltName = IP:127.0.0.1, DNS:localhost
extendedKeyUsage = serverAuth, clientAuth
[client]
basicConstraints = CA:FALSE
extendedKeyUsage = clientAuth
";

/// PEM files, in the directory they were made in.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The authority's certificate.
    pub ca: PathBuf,
    /// The server's certificate, valid for 127.0.0.1 and localhost.
    pub server_cert: PathBuf,
    /// The server's key (PKCS #8).
    pub server_key: PathBuf,
    /// A client's certificate, with the common name `metad`.
    pub cert: PathBuf,
    /// The client's key (PKCS #8).
    pub key: PathBuf,
}

impl TlsFiles {
    /// Makes the authority and both certificates; panics without openssl.
    pub fn create(dir: &Path) -> Self {
        let missing = "no openssl found: run `apt-get install openssl`";
        assert!(install::on_path("openssl").is_some(), "{missing}");
        fs::create_dir_all(dir).expect("a directory for the certificates");
        fs::write(dir.join("openssl.cnf"), OPENSSL_CNF).expect("openssl.cnf written");
        let request = "req -config openssl.cnf -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        let authority = "-x509 -extensions ca -days 30 -subj /CN=test-ca -keyout ca.key -out ca.pem";
        openssl(dir, &format!("{request} {authority}"), false);
        for (name, common_name, serial) in [("server", "etcd", 1), ("client", "metad", 2)] {
            let files = format!("-keyout {name}.key -out {name}.csr");
            openssl(dir, &format!("{request} -new -subj /CN={common_name} {files}"), false);
            let sign = "x509 -req -CA ca.pem -CAkey ca.key -days 30 -extfile openssl.cnf";
            let files = format!("-in {name}.csr -out {name}.pem");
            openssl(dir, &format!("{sign} -extensions {name} -set_serial {serial} {files}"), false);
        }
        Self {
            ca: dir.join("ca.pem"),
            server_cert: dir.join("server.pem"),
            server_key: dir.join("server.key"),
            cert: dir.join("client.pem"),
            key: dir.join("client.key"),
        }
    }
}

/// Runs it in this folder; `long_ago`: as if it were 2020.
pub(super) fn openssl(dir: &Path, args: &str, long_ago: bool) {
    let mut command = Command::new("openssl");
    command.current_dir(dir).args(args.split_whitespace());
    if long_ago {
        command.env("LD_PRELOAD", install::libfaketime()).env("FAKETIME", "2020-01-01 00:00:00");
    }
    let output = spawn::output(command, Duration::from_secs(60));
    assert!(output.status.success(), "openssl {args}: {}", String::from_utf8_lossy(&output.stderr));
}
