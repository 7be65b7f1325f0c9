//! Whom a command asks, and what it shows them: flags, else the environment, else the profile, else the defaults.
//!
//! The profile is a file of one's own, so that nobody has to type the same four flags for each command.

use std::env;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Failure;
use super::args::{CredentialArgs, MetaArgs, with_port};
use super::settings::file_or_env;
use crate::election::exit::Exit;
use crate::tls::client::{CredentialFiles, Credentials};
use crate::tls::files::{FileError, PemFiles};

/// Where the profile is, below the folder of a user's configuration.
const PROFILE: &str = "metad/client.toml";

/// Whom a command asks, and how.
pub(super) struct Addressees {
    /// `host:port` each.
    pub(super) addresses: Vec<String>,
    /// What they are shown.
    pub(super) credentials: Credentials,
    /// Why they are shown nothing, although something was named.
    pub(super) unusable: Option<String>,
}

/// The profile of a user. Every key may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Profile {
    meta: Vec<String>,
    tls_ca: Option<PathBuf>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    token_file: Option<PathBuf>,
}

/// Whom these arguments name.
///
/// # Errors
/// The profile, or a file that is named, cannot be read or used.
pub(super) fn target(args: &MetaArgs) -> Result<Addressees, Failure> {
    let profile = profile()?;
    let credentials = opened(&args.credentials, &profile, CredentialFiles::default())?;
    Ok(Addressees { addresses: addresses(args, &profile), credentials, unusable: None })
}

/// The same for a command that says what is wrong; what was not given is as a node with these files has it. Where a file
/// cannot be used nothing is shown, and `unusable` says why.
pub(super) fn target_or_nothing(args: &MetaArgs, node: CredentialFiles) -> Result<Addressees, Failure> {
    let profile = profile()?;
    let (credentials, unusable) = match opened(&args.credentials, &profile, node) {
        Ok(credentials) => (credentials, None),
        Err(failure) => (Credentials::default(), Some(failure.message)),
    };
    Ok(Addressees { addresses: addresses(args, &profile), credentials, unusable })
}

/// What is shown by a command that finds its nodes in the store.
pub(super) fn credentials_or(args: &CredentialArgs, node: CredentialFiles) -> Result<Credentials, Failure> {
    opened(args, &profile()?, node)
}

/// A certificate and its key belong together.
fn merged(given: CredentialFiles, node: CredentialFiles) -> CredentialFiles {
    let CredentialFiles { pem, token } = given;
    let (cert, key) = match (pem.cert, pem.key) {
        (None, None) => (node.pem.cert, node.pem.key),
        given => given,
    };
    CredentialFiles { pem: PemFiles { ca: pem.ca.or(node.pem.ca), cert, key }, token: token.or(node.token) }
}

fn opened(args: &CredentialArgs, profile: &Profile, node: CredentialFiles) -> Result<Credentials, Failure> {
    let unusable = |e: FileError| {
        Failure::new(Exit::Config.code(), format!("{e}\nfix: correct the file, or name another one"))
    };
    Credentials::open(merged(files(args, profile), node)).map_err(unusable)
}

fn addresses(args: &MetaArgs, profile: &Profile) -> Vec<String> {
    let listed = |text: &str| -> Vec<String> {
        text.split(',').map(str::trim).filter(|a| !a.is_empty()).map(str::to_owned).collect()
    };
    let from_env = listed(&env::var("METAD_META").unwrap_or_default());
    let given = [&args.meta, &from_env, &profile.meta].into_iter().find(|given| !given.is_empty());
    given.map_or_else(|| vec![with_port("127.0.0.1")], |all| all.iter().map(|a| with_port(a)).collect())
}

fn files(args: &CredentialArgs, profile: &Profile) -> CredentialFiles {
    let one = |flag: &Option<PathBuf>, name: &str, profile: &Option<PathBuf>| {
        file_or_env(flag.as_ref(), name).or_else(|| profile.clone())
    };
    let pem = PemFiles {
        ca: one(&args.tls_ca, "METAD_TLS__CA_FILE", &profile.tls_ca),
        cert: one(&args.tls_cert, "METAD_TLS__CERT_FILE", &profile.tls_cert),
        key: one(&args.tls_key, "METAD_TLS__KEY_FILE", &profile.tls_key),
    };
    CredentialFiles { pem, token: one(&args.token_file, "METAD_AUTH__TOKEN_FILE", &profile.token_file) }
}

/// Paths in it are relative to where it is.
fn profile() -> Result<Profile, Failure> {
    let Some(path) = profile_path() else { return Ok(Profile::default()) };
    let refused = |why: String| {
        let message = format!(
            "{}: {why}\nfix: its keys are meta = [\"host:5690\"], tls_ca, tls_cert, tls_key and token_file",
            path.display()
        );
        Failure::new(Exit::Config.code(), message)
    };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Profile::default()),
        Err(e) => return Err(refused(format!("cannot read the profile: {e}"))),
    };
    let mut profile: Profile = toml::from_str(&text).map_err(|e| refused(e.message().to_owned()))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let files = [&mut profile.tls_ca, &mut profile.tls_cert, &mut profile.tls_key, &mut profile.token_file];
    for file in files.into_iter().flatten() {
        *file = folder.join(&*file);
    }
    Ok(profile)
}

fn profile_path() -> Option<PathBuf> {
    let folder =
        file_or_env(None, "XDG_CONFIG_HOME").or_else(|| Some(file_or_env(None, "HOME")?.join(".config")))?;
    Some(folder.join(PROFILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_goes_before_what_a_node_has_and_a_pair_stays_together() {
        let file = |name: &str| Some(PathBuf::from(name));
        let node = || CredentialFiles {
            pem: PemFiles { ca: file("node-ca"), cert: file("node-cert"), key: file("node-key") },
            token: file("node-token"),
        };
        assert_eq!(merged(CredentialFiles::default(), node()), node());
        let token = CredentialFiles { token: file("mine"), ..CredentialFiles::default() };
        assert_eq!(merged(token, node()), CredentialFiles { token: file("mine"), ..node() }, "the CA stays");
        let pem = PemFiles { cert: file("my-cert"), ..PemFiles::default() };
        let with = merged(CredentialFiles { pem, token: None }, node());
        assert_eq!((with.pem.cert, with.pem.key, with.pem.ca), (file("my-cert"), None, file("node-ca")));
    }

    #[test]
    fn a_profile_may_leave_everything_out_and_has_no_other_keys() {
        let read = |text: &str| toml::from_str::<Profile>(text).map_err(|e| e.message().to_owned());
        assert!(read("").is_ok_and(|p| p.meta.is_empty()));
        assert!(read("meta = [\"a\"]\ntls_ca = \"ca.pem\"").is_ok_and(|p| p.meta == ["a"]));
        assert!(
            read("token = \"secret\"").is_err_and(|e| e.contains("unknown field") && !e.contains("secret"))
        );
    }
}
