//! Why a join did not work, and what a person reads of it where the node ends for that.

use std::time::Duration;

use crate::election::history::{Ending, Reason};
use crate::election::record::Registration;
use crate::protocol::transactions;
use crate::store::codec::Keys;
use crate::store::{Refusal, StoreError};

/// What etcd says itself when it refuses, and what to do about it; then nothing has to be guessed.
const KNOWN_REFUSALS: [(&str, &str); 3] = [
    (
        "database space exceeded",
        "etcd is full (alarm NOSPACE); compact it, defragment each member, then: etcdctl alarm disarm",
    ),
    (
        "corrupt",
        "etcd has found corrupt data on a member (alarm CORRUPT); see etcdctl alarm list, replace that \
         member, then: etcdctl alarm disarm",
    ),
    (
        "learner",
        "this member is a learner, which answers no requests yet; name the voting members, or: etcdctl member promote",
    ),
];

/// Why a join did not work.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum JoinFailure {
    /// Worth another try.
    Retry(String),
    /// The store knows a later start of this data dir: it was rolled back, or copied.
    RolledBack,
    /// Another data dir is registered under our node id.
    Taken(Box<Registration>),
    /// Credentials or permissions.
    Denied(String),
    /// The data dir cannot be written.
    Disk(String),
    /// Another store than the one this data dir belongs to, or an older state of it.
    StoreChanged(String),
}

/// What is said of a store that is another one.
pub(in crate::protocol) fn another_store(pinned: u64, answers: u64) -> String {
    let accept = transactions::ACCEPT;
    format!(
        "this data dir belongs to the store {pinned:016x}, but the configured store is {answers:016x}{accept}"
    )
}

// === impl JoinFailure ===

impl From<StoreError> for JoinFailure {
    fn from(e: StoreError) -> Self {
        match e {
            StoreError::Refused(Refusal::Denied, why) => Self::Denied(why),
            e => Self::Retry(e.to_string()),
        }
    }
}

impl JoinFailure {
    /// How the node ends that takes it as final; `None`: it is not, or depends on more than this.
    pub fn ending(self, keys: &Keys) -> Option<Ending> {
        match self {
            Self::Denied(why) => {
                let detail = format!(
                    "{why}; check store.etcd.username and password_file, and that the user may read and write {}*: metad \
                     doctor --role prints etcd's commands",
                    keys.prefix()
                );
                Some(Ending::with_detail(Reason::StoreDenied, detail))
            }
            Self::StoreChanged(why) => Some(Ending::with_detail(Reason::StoreChanged, why)),
            Self::Disk(why) => Some(Ending::with_detail(Reason::DiskFailed, why)),
            Self::Retry(_) | Self::RolledBack | Self::Taken(_) => None,
        }
    }
}

/// What to do about a refusal that etcd explains itself.
pub fn advice(why: &str) -> Option<&'static str> {
    KNOWN_REFUSALS.iter().find(|(said, _)| why.contains(said)).map(|(_, advice)| *advice)
}

/// The end of a node whose id is in use by another data dir's, which lives.
pub fn in_use(holder: &Registration) -> Ending {
    let (node, place) = (&holder.member.node, place(holder));
    let detail = format!(
        "node id {node:?} is in use by metad at {place}; stop it, or give this one another --node-id"
    );
    Ending::with_detail(Reason::NodeIdInUse, detail)
}

/// The end of a node whose id another data dir's is registered under, which has not answered for so long. `estranged`: why
/// our own data dir does not know its past.
pub fn held(holder: &Registration, waited: Duration, estranged: Option<&str>) -> Ending {
    let (node, place) = (&holder.member.node, place(holder));
    let estranged = estranged.map_or(String::new(), |why| format!("; {why}"));
    let detail = format!(
        "node id {node:?} is registered by {place}, which does not answer, and whose lease has not ended for \
         {waited:?}; if it is certainly dead: metad release --node {node} --it-is-dead, with the settings of \
         this node (or etcdctl lease revoke {}){estranged}",
        holder.lease
    );
    Ending::with_detail(Reason::NodeIdInUse, detail)
}

fn place(holder: &Registration) -> String {
    format!("{} (data dir {}, lease {})", holder.rpc_address, holder.member.uuid, holder.lease)
}
