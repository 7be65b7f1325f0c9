//! One look at an etcd member: can its host be reached, what does it say of itself, can it decide? And the one diagnosis
//! of an endpoint, which a start that fails, the verdict, the checks and the page share.

use std::fmt;
use std::time::Duration;

use super::codec::Keys;
use super::{Op, Refusal, Request, StoreError, Txn};
use crate::clock::Instant;

/// One member, as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Its URL, as it was configured.
    pub place: String,
    /// When it was asked.
    pub at: Instant,
    /// What a bare connection has shown, if the member did not answer at once.
    pub found: Option<Finding>,
    /// What it says of itself, and how long that took; or why it says nothing.
    pub status: Result<(MemberStatus, Duration), String>,
    /// How long it took to answer a question that needs a quorum; or why it did not.
    pub decided: Result<Duration, StoreError>,
    /// A login is configured, and its authentication is not enabled.
    pub takes_no_login: bool,
}

/// What is wrong with an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The name does not resolve: why.
    Unresolvable(String),
    /// The connection is refused: the host is up, and nothing listens there.
    NothingListens,
    /// Nothing came back: the host, or the way to it, is down.
    Unreachable(String),
    /// This process may open no more files.
    OwnLimits,
    /// A connection is accepted, and nothing is answered.
    Hangs,
    /// An etcd answers a page, but not what it was asked, in time.
    IsLate,
    /// It speaks TLS, and the endpoint says `http://`.
    SpeaksTls,
    /// It speaks TLS, and the handshake fails: why.
    TlsFails(String),
    /// An etcd without TLS, and the endpoint says `https://`.
    NoTls,
    /// Something else listens there.
    NotEtcd(String),
    /// It belongs to another cluster.
    Stray {
        /// Its cluster's id.
        cluster: u64,
        /// The id of the cluster that this node has joined.
        pinned: u64,
    },
    /// It answers, and refuses the login or the token: why.
    Refuses(String),
    /// It answers, and knows no leader.
    HasNoLeader,
    /// It answers, and a question that needs a quorum got none: why.
    DecidesNothing(String),
}

/// What a member says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberStatus {
    /// Its id.
    pub member: u64,
    /// Its cluster's id.
    pub cluster: u64,
    /// The leader's id as it sees it; 0: none.
    pub leader: u64,
    /// The raft term.
    pub raft_term: u64,
    /// Its revision.
    pub revision: u64,
    /// Its version.
    pub version: String,
    /// The size of its database file.
    pub db_size: u64,
    /// How much of it is in use.
    pub db_in_use: u64,
    /// Its quota, where it tells (from 3.6 on).
    pub quota: Option<u64>,
    /// Does it only listen?
    pub is_learner: bool,
    /// The alarms that stand in its cluster. Its status tells them for nothing; a request for the alarms goes through
    /// raft, and every member syncs its log for it.
    pub alarms: Vec<Alarm>,
}

/// An alarm that stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alarm {
    /// Who raised it.
    pub member: u64,
    /// `NOSPACE`, `CORRUPT`, or a number.
    pub kind: String,
}

/// What each member is asked: something that only a quorum can answer, as everything that the election asks.
pub fn question(keys: &Keys) -> Request {
    Request::Txn(Txn::read(vec![Op::Get(keys.leader())]))
}

// === impl MemberStatus ===

impl MemberStatus {
    /// Is it etcd's leader, as far as it knows?
    pub fn leads(&self) -> bool {
        self.leader == self.member && self.member != 0
    }
}

// === impl Probe ===

impl Probe {
    /// Does it lead etcd, and decide?
    pub fn leads(&self) -> bool {
        self.says().is_some_and(MemberStatus::leads) && self.decided.is_ok()
    }

    /// What it says of itself, if anything.
    pub fn says(&self) -> Option<&MemberStatus> {
        self.status.as_ref().ok().map(|(status, _)| status)
    }

    /// Does it answer anything that counts?
    pub fn answers(&self) -> bool {
        let is_stray = matches!(self.found, Some(Finding::Stray { .. }));
        !is_stray && (self.status.is_ok() || self.decided.is_ok() || self.refusal().is_some())
    }

    /// Why it refuses our login or our token, if it does.
    pub fn refusal(&self) -> Option<&str> {
        match &self.decided {
            Err(StoreError::Refused(Refusal::Denied, why)) => Some(why),
            _ => None,
        }
    }

    /// What is wrong with it, as far as can be seen; `None`: it knows a leader of its cluster, and lets us in.
    pub fn finding(&self) -> Option<Finding> {
        if let Some(why) = self.refusal() {
            return Some(Finding::Refuses(why.to_owned()));
        }
        if self.answers() {
            return self.says().is_some_and(|status| status.leader == 0).then_some(Finding::HasNoLeader);
        }
        Some(match (&self.found, &self.decided) {
            (
                Some(Finding::NotEtcd(_) | Finding::IsLate),
                Err(StoreError::Refused(Refusal::NotAStore, _)),
            ) => Finding::NotEtcd(
                "it is a gRPC server without etcd's services, as metad's own port is".to_owned(),
            ),
            // A bare connection cannot tell a handshake that fails from an answer that is late: the real one can.
            (Some(Finding::TlsFails(_)), _) => {
                match self.status.as_ref().err().filter(|why| is_of_tls(why)) {
                    Some(why) => Finding::TlsFails(why.clone()),
                    None => Finding::IsLate,
                }
            }
            (Some(found), _) => found.clone(),
            (None, _) => Finding::Hangs,
        })
    }

    /// The same, and whether it decides anything: its status comes from memory, however its disk hangs. One question that was
    /// not answered in time proves nothing, so the verdict does not ask this.
    pub fn fault(&self) -> Option<Finding> {
        let decides_nothing = || match &self.decided {
            Err(StoreError::Unknown(why)) => Some(Finding::DecidesNothing(why.clone())),
            _ => None,
        };
        self.finding().or_else(decides_nothing)
    }

    /// Is its cluster full?
    pub fn is_full(&self) -> bool {
        self.says().is_some_and(|status| status.alarms.iter().any(|a| a.kind == "NOSPACE"))
    }
}

// === impl Finding ===

impl Finding {
    /// What to do about it.
    pub fn fix(&self) -> &'static str {
        match self {
            Finding::Unresolvable(_) => "correct the name in store.etcd.endpoints, or make it resolve here",
            Finding::NothingListens => "start etcd there, or correct the port: etcd's client port is 2379",
            Finding::Unreachable(_) => {
                "check that the host is up, and the network and firewalls on the way to it"
            }
            Finding::OwnLimits => "raise the limit of open files (LimitNOFILE= in the unit, ulimit -n)",
            Finding::Hangs => "look at that process: it is stopped or hung, or waits for its disk",
            Finding::IsLate => "check that member's CPU and disk, and the network to it",
            Finding::SpeaksTls => "write https:// in store.etcd.endpoints, and set store.etcd.ca_file",
            Finding::TlsFails(why) => tls_fix(why),
            Finding::NoTls => "write http:// in store.etcd.endpoints, or give that etcd a certificate",
            Finding::NotEtcd(_) => {
                "correct host and port in store.etcd.endpoints: etcd's client port is 2379"
            }
            Finding::Stray { .. } => "remove it from store.etcd.endpoints",
            Finding::Refuses(_) => {
                "check store.etcd.username and the password in store.etcd.password_file; metad doctor --role prints \
                 the commands for a user of etcd"
            }
            Finding::DecidesNothing(_) => "check the disks of etcd's members and the network between them",
            Finding::HasNoLeader => {
                "start the members that are down; if all run, check their disks and the network between them"
            }
        }
    }
}

/// Do these words of an error tell of a handshake? They are those of rustls, hyper and the system.
fn is_of_tls(why: &str) -> bool {
    ["certificate", "alert", "handshake", "broken pipe", "connection closed", "canceled"]
        .iter()
        .any(|word| why.contains(word))
}

/// A certificate is refused for one of few reasons. The words are those of rustls and of its alerts.
fn tls_fix(why: &str) -> &'static str {
    let has = |words: &[&str]| words.iter().any(|word| why.contains(word));
    if has(&["received fatal alert", "broken pipe", "connection closed"]) {
        "it refuses our certificate, or wants one that its own CA has signed: set, renew or correct store.etcd.cert_file \
         and key_file"
    } else if has(&["UnknownIssuer", "BadSignature", "CaUsedAsEndEntity"]) {
        "set store.etcd.ca_file to the CA that signed its certificate"
    } else if has(&["NotValidForName", "not valid for name"]) {
        "use a name or address in store.etcd.endpoints that its certificate is made out to"
    } else if has(&["Expired", "expired", "NotValidYet", "not valid yet"]) {
        "renew its certificate, and check the clocks of both hosts"
    } else {
        "check store.etcd.ca_file, cert_file and key_file"
    }
}

/// As it follows the endpoint: "http://b:2379 refuses connections".
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Unresolvable(why) => write!(f, "has a name that does not resolve ({why})"),
            Finding::NothingListens => f.write_str("refuses connections: nothing listens there"),
            Finding::Unreachable(why) => write!(f, "cannot be reached ({why})"),
            Finding::OwnLimits => f.write_str("was not asked: this process may open no more files"),
            Finding::Hangs => f.write_str("accepts connections but does not answer"),
            Finding::IsLate => f.write_str("is an etcd, but did not answer in time"),
            Finding::SpeaksTls => f.write_str("speaks TLS, but the endpoint is plain HTTP"),
            Finding::TlsFails(why) => write!(f, "speaks TLS, but the handshake fails ({why})"),
            Finding::NoTls => f.write_str("is an etcd without TLS, but the endpoint is https://"),
            Finding::NotEtcd(what) => write!(f, "is not etcd ({what})"),
            Finding::Stray { cluster, pinned } => {
                write!(f, "belongs to the etcd cluster {cluster:016x}, not to {pinned:016x}")
            }
            Finding::Refuses(why) => write!(f, "refuses this node's login ({why})"),
            Finding::HasNoLeader => f.write_str("answers but knows no leader"),
            Finding::DecidesNothing(why) => write!(f, "answers but decides nothing ({why})"),
        }
    }
}
