//! `metad tls init` and `metad token`: what it takes to keep strangers out.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use ring::rand::{SecureRandom, SystemRandom};

use super::args::{TlsArgs, TlsCommand, TokenArgs};
use super::{Failure, output};
use crate::api::auth::{AccessRole, Grant, access_file};
use crate::clock::wall_clock_ms;
use crate::config::check_name;
use crate::election::exit::Exit;

/// A token's random bytes.
const TOKEN_BYTES: usize = 32;
/// A certificate is valid from so long ago on: clocks differ.
const BACKDATED_SECS: i64 = 3600;
const DAY_SECS: i64 = 86_400;
/// What a client of each role is called, in its certificate and its file.
const CLIENTS: [AccessRole; 4] =
    [AccessRole::Reader, AccessRole::Worker, AccessRole::Writer, AccessRole::Admin];
const PUBLIC: u32 = 0o644;
const PRIVATE: u32 = 0o600;

type Made<T> = Result<T, rcgen::Error>;

/// A private authority, as long as it signs.
struct Authority<'d> {
    dir: &'d Path,
    days: u32,
    issuer: Issuer<'static, KeyPair>,
}

/// `metad tls init`.
pub(super) fn tls(args: &TlsArgs) -> Result<i32, Failure> {
    let TlsCommand::Init { dir, members, hosts, days } = &args.command;
    for member in members {
        check_name(member).map_err(|why| usage(format!("--members {member:?}: the name {why}")))?;
        if member == "ca" || AccessRole::from_name(member).is_some() {
            return Err(usage(format!(
                "--members {member}: another file is called so; give the node another id"
            )));
        }
    }
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| cannot_write(dir, &e))?;
    let authority = Authority::create(dir, *days)?;
    for member in members {
        let mut names =
            vec![member.clone(), "localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
        names.extend(hosts.iter().cloned());
        let grant = Grant { role: AccessRole::Member, name: Some(member.clone()) };
        authority.sign(member, &grant, &names)?;
    }
    for role in CLIENTS {
        authority.sign(role.as_str(), &Grant { role, name: None }, &[])?;
    }
    let shown = dir.display();
    let first = &members[0];
    output::print(&format!(
        "wrote ca.pem, and NAME.pem with NAME.key for {} and {} into {shown}; ca.key signs further ones: keep it elsewhere\n\
         a member: METAD_TLS__CA_FILE={shown}/ca.pem METAD_TLS__CERT_FILE={shown}/{first}.pem \
         METAD_TLS__KEY_FILE={shown}/{first}.key\n\
         a command: --tls-ca {shown}/ca.pem --tls-cert {shown}/admin.pem --tls-key {shown}/admin.key\n",
        members.join(", "),
        CLIENTS.map(AccessRole::as_str).join(", "),
    ))?;
    Ok(0)
}

/// `metad token`.
pub(super) fn token(args: &TokenArgs) -> Result<i32, Failure> {
    if args.name.is_empty() || args.name.contains(char::is_whitespace) {
        return Err(usage(format!("--name {:?}: a name is one word", args.name)));
    }
    let mut bytes = [0; TOKEN_BYTES];
    let no_random =
        |_| Failure::new(Exit::Internal.code(), "cannot read random bytes from the operating system");
    SystemRandom::new().fill(&mut bytes).map_err(no_random)?;
    let token = access_file::hex(&bytes);
    let role =
        AccessRole::from_name(&args.role).ok_or_else(|| usage(format!("--role {}: unknown", args.role)))?;
    let line = access_file::line(role, &args.name, &token);
    match &args.token_file {
        Some(file) => {
            write(file, &format!("{token}\n"), PRIVATE)?;
            output::print(&format!("{line}\n"))?;
        }
        None => output::print(&format!("# the token, shown only now: {token}\n{line}\n"))?,
    }
    Ok(0)
}

// === impl Authority ===

impl<'d> Authority<'d> {
    fn create(dir: &'d Path, days: u32) -> Result<Self, Failure> {
        let made = || -> Made<_> {
            let key = KeyPair::generate()?;
            let mut params = params("metad CA", &[], days)?;
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            let certificate = params.self_signed(&key)?;
            Ok((certificate.pem(), key.serialize_pem(), Issuer::new(params, key)))
        };
        let (certificate, key, issuer) = made().map_err(|e| not_made(&e))?;
        write(&dir.join("ca.pem"), &certificate, PUBLIC)?;
        write(&dir.join("ca.key"), &key, PRIVATE)?;
        Ok(Self { dir, days, issuer })
    }

    /// Writes a certificate that says what its bearer may do, and its key.
    fn sign(&self, file: &str, grant: &Grant, names: &[String]) -> Result<(), Failure> {
        let made = || -> Made<_> {
            let key = KeyPair::generate()?;
            let mut params = params(file, names, self.days)?;
            params.subject_alt_names.push(SanType::URI(grant.uri().try_into()?));
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            if grant.role == AccessRole::Member {
                params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
            }
            let certificate = params.signed_by(&key, &self.issuer)?;
            Ok((certificate.pem(), key.serialize_pem()))
        };
        let (certificate, key) = made().map_err(|e| not_made(&e))?;
        write(&self.dir.join(format!("{file}.pem")), &certificate, PUBLIC)?;
        write(&self.dir.join(format!("{file}.key")), &key, PRIVATE)
    }
}

fn params(common_name: &str, names: &[String], days: u32) -> Made<CertificateParams> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, common_name);
    let now_secs = i64::try_from(wall_clock_ms() / 1000).unwrap_or(i64::MAX);
    let at = |secs: i64| {
        rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(secs.max(0).unsigned_abs())
    };
    params.not_before = at(now_secs - BACKDATED_SECS);
    params.not_after = at(now_secs + DAY_SECS * i64::from(days));
    Ok(params)
}

/// A new file: what is there may be somebody's only key.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), Failure> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|e| cannot_write(path, &e))
}

fn cannot_write(path: &Path, e: &std::io::Error) -> Failure {
    let fix = match e.kind() {
        std::io::ErrorKind::AlreadyExists => "name another one: what is there may be somebody's only key",
        _ => "check the path, its permissions and the room on the disk",
    };
    Failure::new(Exit::Io.code(), format!("cannot write {}: {e}\nfix: {fix}", path.display()))
}

fn not_made(e: &rcgen::Error) -> Failure {
    Failure::new(
        Exit::Usage.code(),
        format!("cannot make a certificate: {e}\nfix: check --members and --hosts"),
    )
}

fn usage(message: String) -> Failure {
    Failure::new(Exit::Usage.code(), message)
}
