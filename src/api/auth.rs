//! Who may do what, on both listeners.
//!
//! A caller is known by its certificate, whose names say `metad:ROLE` or `metad:ROLE:NAME` as a URI, or by a bearer token,
//! whose role and name are in the access file. Where neither TLS nor an access file is configured everybody may do
//! everything: then only this machine can connect, or `auth.insecure` was said in so many words.

pub mod access_file;
mod gate;
mod rules;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::Uri;

use crate::limits::{AT_LIMIT, Remote};
use crate::tls::files::FileError;
use crate::tls::server::ServerTls;
use access_file::AccessFile;

pub use gate::Gate;
pub use rules::of_path;

/// How URIs of ours begin.
const SCHEME: &str = "metad:";

/// What a caller may do. Whoever has one of them may read, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AccessRole {
    /// See what there is to be seen: views, history, events, metrics, the page.
    Reader,
    /// Register, send heartbeats, take part in barriers; under its own name, if it has one.
    Worker,
    /// Read and write the state of the cluster.
    Writer,
    /// Make the leader step down.
    Admin,
    /// Ask another member to stand ready.
    Member,
}

/// A role, and perhaps the name under which it is held: a worker's host or host:port, a member's node id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// What may be done.
    pub role: AccessRole,
    /// By whom.
    pub name: Option<String>,
}

/// Who calls: among the extensions of each request that was let in.
#[derive(Clone, Debug)]
pub struct Caller {
    address: IpAddr,
    may: Permission,
    /// Where a later refusal is told, and what was called.
    told: Option<(Arc<Gate>, Uri)>,
}

#[derive(Clone, Debug)]
enum Permission {
    /// Everything: this node asks nobody who is calling.
    Everything,
    Granted {
        by_certificate: Vec<Grant>,
        by_token: Option<Grant>,
    },
}

/// Why a call was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// Nobody knows who calls.
    Unauthenticated(String),
    /// It may not do that.
    PermissionDenied(String),
    /// It may, but too much of that is asked for.
    Overloaded,
}

/// What both listeners go by.
#[derive(Clone, Debug)]
pub struct Security {
    /// Are connections encrypted, and with which certificate?
    pub tls: Option<ServerTls>,
    /// Who may do what?
    pub access: Access,
}

/// Whom this node knows. Clones share it.
#[derive(Clone, Debug)]
pub struct Access {
    asks_who_is_calling: bool,
    file: Option<PathBuf>,
    known: Arc<Mutex<Arc<AccessFile>>>,
}

// === impl AccessRole ===

impl AccessRole {
    /// All of them.
    pub const ALL: [AccessRole; 5] =
        [AccessRole::Reader, AccessRole::Worker, AccessRole::Writer, AccessRole::Admin, AccessRole::Member];

    /// Its name in certificates and in the access file.
    pub fn as_str(self) -> &'static str {
        match self {
            AccessRole::Reader => "reader",
            AccessRole::Worker => "worker",
            AccessRole::Writer => "writer",
            AccessRole::Admin => "admin",
            AccessRole::Member => "member",
        }
    }

    /// The role with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == name)
    }
}

// === impl Grant ===

impl Grant {
    /// As a URI of a certificate says it: `metad:member:n1`.
    pub fn from_uri(uri: &str) -> Option<Self> {
        let text = uri.strip_prefix(SCHEME)?;
        let (role, name) = text.split_once(':').map_or((text, None), |(role, name)| (role, Some(name)));
        // A template whose variable was empty must not grant more than one that was not.
        if name.is_some_and(str::is_empty) {
            return None;
        }
        Some(Self { role: AccessRole::from_name(role)?, name: name.map(str::to_owned) })
    }

    /// The URI that says it.
    pub fn uri(&self) -> String {
        format!("{SCHEME}{self}")
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.role.as_str())?;
        self.name.iter().try_for_each(|name| write!(f, ":{name}"))
    }
}

// === impl Caller ===

impl Caller {
    /// Who it is, and from where, for the events.
    pub fn who(&self) -> String {
        let Permission::Granted { by_certificate, by_token } = &self.may else {
            return format!("unauthenticated caller at {}", self.address);
        };
        let names = by_certificate.iter().map(Grant::to_string);
        let token = by_token.iter().map(|grant| format!("{grant} (token)"));
        format!("{} at {}", names.chain(token).collect::<Vec<_>>().join(", "), self.address)
    }

    /// May it do what takes this role?
    ///
    /// # Errors
    /// It may not.
    pub fn check(&self, role: AccessRole) -> Result<(), Denied> {
        self.check_grants(
            role,
            |_| true,
            || format!("{} does not have the role {}", self.who(), role.as_str()),
        )
    }

    /// May it act under this name in this role? A grant without a name is for all of them. A refusal is told.
    ///
    /// # Errors
    /// It may not; `otherwise` says what.
    pub fn check_name(
        &self,
        role: AccessRole,
        fits: impl Fn(&str) -> bool,
        otherwise: &str,
    ) -> Result<(), Denied> {
        let fits = |grant: &Grant| grant.name.as_deref().is_none_or(&fits);
        let checked = self.check_grants(role, fits, || format!("{} {otherwise}", self.who()));
        checked.inspect_err(|denied| {
            if let Some((gate, path)) = &self.told {
                gate.tell(path.path(), denied);
            }
        })
    }

    /// Tells later refusals of this call at this gate.
    fn tells(mut self, gate: &Arc<Gate>, called: &Uri) -> Self {
        self.told = Some((gate.clone(), called.clone()));
        self
    }

    /// Is it bound to a name in this role?
    pub fn is_bound(&self, role: AccessRole) -> bool {
        !self.has(|grant| grant.role == role && grant.name.is_none())
    }

    fn check_grants(
        &self,
        role: AccessRole,
        fits: impl Fn(&Grant) -> bool,
        otherwise: impl Fn() -> String,
    ) -> Result<(), Denied> {
        match self.has(|grant| (grant.role == role || role == AccessRole::Reader) && fits(grant)) {
            true => Ok(()),
            false => Err(Denied::PermissionDenied(otherwise())),
        }
    }

    /// Does it have such a grant? Whoever may do everything has each.
    fn has(&self, fits: impl Fn(&Grant) -> bool) -> bool {
        match &self.may {
            Permission::Everything => true,
            Permission::Granted { by_certificate, by_token } => {
                by_certificate.iter().chain(by_token).any(fits)
            }
        }
    }
}

// === impl Denied ===

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Denied::Unauthenticated(why) | Denied::PermissionDenied(why) => f.write_str(why),
            Denied::Overloaded => f.write_str(AT_LIMIT),
        }
    }
}

// === impl Access ===

impl Access {
    /// `is_encrypted`: callers show certificates; `file`: callers show tokens.
    ///
    /// # Errors
    /// The file cannot be read, or a line of it.
    pub fn from_files(is_encrypted: bool, file: Option<PathBuf>) -> Result<Self, FileError> {
        let known = file.as_deref().map(AccessFile::read).transpose()?.unwrap_or_default();
        let asks_who_is_calling = is_encrypted || file.is_some();
        Ok(Self { asks_who_is_calling, file, known: Arc::new(Mutex::new(Arc::new(known))) })
    }

    /// Reads the access file again; the calls from now on go by it.
    ///
    /// # Errors
    /// It cannot be read, or a line of it; what was in force stays.
    pub fn reload(&self) -> Result<(), FileError> {
        if let Some(file) = &self.file {
            let fresh = AccessFile::read(file)?;
            *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
        }
        Ok(())
    }

    /// Who calls, by its certificate and the `authorization` of its request.
    ///
    /// # Errors
    /// Nobody knows.
    pub fn caller(&self, peer: &Remote, authorization: Option<&[u8]>) -> Result<Caller, Denied> {
        let address = peer.address;
        if !self.asks_who_is_calling {
            return Ok(Caller { address, may: Permission::Everything, told: None });
        }
        let by_certificate: Vec<Grant> = peer.uris.iter().filter_map(|uri| Grant::from_uri(uri)).collect();
        let unknown = || Denied::Unauthenticated(format!("the token that {address} shows is not known"));
        let by_token = authorization.map(|header| self.by_token(header).ok_or_else(unknown)).transpose()?;
        if by_certificate.is_empty() && by_token.is_none() {
            let missing = match peer.uris.as_slice() {
                [] => "shows neither a client certificate nor a token".to_owned(),
                uris => format!(
                    "shows a certificate without a role: none of its URIs ({}) is metad:ROLE",
                    uris.join(", ")
                ),
            };
            return Err(Denied::Unauthenticated(format!("{address} {missing}")));
        }
        Ok(Caller { address, may: Permission::Granted { by_certificate, by_token }, told: None })
    }

    fn by_token(&self, header: &[u8]) -> Option<Grant> {
        let (scheme, token) = header.split_at_checked(b"Bearer ".len())?;
        if !scheme.eq_ignore_ascii_case(b"Bearer ") {
            return None;
        }
        let hash = access_file::hash(token.trim_ascii());
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        known.find(&hash).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uris: &[&str]) -> Remote {
        Remote { address: [10, 0, 0, 9].into(), uris: uris.iter().map(|u| (*u).to_owned()).collect() }
    }

    fn closed() -> Access {
        Access::from_files(true, None).expect("no file to read")
    }

    #[test]
    fn a_certificate_says_what_its_bearer_may_do() {
        let caller = closed().caller(&peer(&["https://x", "metad:worker:h1:7"]), None).expect("known");
        assert_eq!(caller.check(AccessRole::Worker), Ok(()));
        assert_eq!(caller.check(AccessRole::Reader), Ok(()), "whoever has a role may read");
        for role in [AccessRole::Admin, AccessRole::Member, AccessRole::Writer] {
            assert!(caller.check(role).is_err(), "{role:?}");
        }
        let own = |host: &str| caller.check_name(AccessRole::Worker, |name| name == host, "may not");
        assert!(own("h1:7").is_ok() && own("h2:7").is_err());
        assert!(caller.is_bound(AccessRole::Worker));
    }

    #[test]
    fn who_shows_nothing_is_nobody() {
        let denied = |uris: &[&str], token: Option<&[u8]>| {
            closed().caller(&peer(uris), token).unwrap_err().to_string()
        };
        assert!(denied(&[], None).contains("neither a client certificate"));
        assert!(denied(&["spiffe://x"], None).contains("without a role"));
        for uri in ["metad:unknown", "metad:worker:", "metad:", "metad:Admin", "xmetad:admin"] {
            assert!(denied(&[uri], None).contains("without a role"), "{uri}");
        }
        assert!(denied(&[], Some(b"Bearer x")).contains("is not known"));
        assert!(
            denied(&["metad:admin"], Some(b"Bearer x")).contains("is not known"),
            "a wrong token is never overlooked"
        );
        assert!(denied(&[], Some(b"Basic eA==")).contains("is not known"));
    }

    #[test]
    fn an_open_node_lets_everybody_do_everything() {
        let caller = Access::from_files(false, None)
            .expect("no file to read")
            .caller(&peer(&[]), None)
            .expect("anybody");
        assert!(AccessRole::ALL.into_iter().all(|role| caller.check(role).is_ok()));
        assert!(!caller.is_bound(AccessRole::Worker));
    }
}
