//! Leader, members, and who says so.

use serde::Serialize;

use crate::clock::{Instant, millis};
use crate::election::record;
use crate::election::status::{Role, Status};

use super::Time;

/// The role of a member of which nothing is known any more.
const UNKNOWN: &str = "unknown";

/// The node that answers, and how fresh its view is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answerer {
    /// Its node id.
    pub node: String,
    /// Its data dir's identity.
    pub uuid: String,
    /// The cluster's name.
    pub cluster: String,
    /// What it is: joining, follower, claiming, starting, leader, stopping or stopped.
    pub role: String,
    /// Its software.
    pub version: String,
    /// How long ago the store last confirmed its view.
    pub age_ms: u64,
    /// As leader: how long its lease certainly still holds; 0 otherwise.
    pub lease_remaining_ms: u64,
    /// The store's revision of its view.
    pub revision: u64,
    /// Is its view older than the lease, or was it never confirmed? Then nobody knows who leads, or who is a member.
    pub is_outdated: bool,
    /// What its own probe has measured, while that fails; `null`: it does not.
    pub probe: Option<String>,
    /// Why its main loop is not ready, while it stands by and is not warm; `null`: it is ready.
    pub unready: Option<String>,
}

/// The leader, by its record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Leader {
    /// Its node id.
    pub node: String,
    /// Its data dir's identity.
    pub uuid: String,
    /// The start of that data dir.
    pub incarnation: u64,
    /// Where it answers gRPC.
    pub address: String,
    /// Its tenure.
    pub token: u64,
    /// Its lease, as etcdctl writes it.
    pub lease: String,
    /// The lease's time to live.
    pub lease_ttl_secs: u64,
    /// Since when it leads, by its own wall clock.
    pub acquired: Time,
    /// How many tenures there were before.
    pub transitions: u64,
}

/// Who queues where only the leader record belongs: not metad, or a mistake. No member can claim a vacancy until the key
/// is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Foreign {
    /// The key.
    pub key: String,
    /// The beginning of its value.
    pub value: String,
    /// The command that shows it.
    pub look: String,
}

/// A freeze: while it is there, no leader hands over, and no member claims a vacancy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FreezeView {
    /// What for.
    pub reason: String,
    /// Who said so.
    pub by: String,
    /// Since when.
    pub since: Time,
    /// When it ends by itself; `null`: when somebody ends it.
    pub until: Option<Time>,
}

/// A registered member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Member {
    /// Its node id.
    pub node: String,
    /// Its data dir's identity.
    pub uuid: String,
    /// The start of that data dir.
    pub incarnation: u64,
    /// What it is; of another member than the answerer, leader or follower, or unknown where the view is outdated.
    pub role: String,
    /// Does the leader record name it?
    pub is_leader: bool,
    /// Where it answers gRPC.
    pub rpc_address: String,
    /// Where it answers HTTP.
    pub http_address: String,
    /// Its priority; 0: it never leads.
    pub priority: u16,
    /// Its software.
    pub version: String,
    /// Its lease, as etcdctl writes it.
    pub lease: String,
    /// The lease's time to live.
    pub lease_ttl_secs: u64,
}

/// A member that has left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gone {
    /// Its node id.
    pub node: String,
    /// Since when.
    pub since: Time,
}

// === impl Answerer ===

impl Answerer {
    /// This node.
    pub fn of(status: &Status, now: Instant) -> Self {
        let remaining = status.holds_until.filter(|_| status.role == Role::Leader).map(|h| now.until(h));
        Self {
            node: status.me.node.clone(),
            uuid: status.me.uuid.to_string(),
            cluster: status.cluster.clone(),
            role: status.role.as_str().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            age_ms: millis(now.since(status.confirmed_at)),
            lease_remaining_ms: millis(remaining.unwrap_or_default()),
            revision: status.revision().0,
            probe: status.health.failing().map(|failing| failing.told(now)),
            unready: status.unready.as_ref().map(|unready| unready.why.clone()),
            is_outdated: status.is_outdated(now),
        }
    }
}

// === impl Leader ===

impl Leader {
    /// The leader, as this node sees it; `None` where nobody leads, and where nobody knows.
    pub fn of(status: &Status, now: Instant) -> Option<Self> {
        status.known_leader(now).map(Self::by)
    }

    /// Who led when the store last answered, where that is all that is known.
    pub fn last_known(status: &Status, now: Instant) -> Option<Self> {
        status.leader().filter(|_| status.is_outdated(now)).map(Self::by)
    }

    fn by(tenure: &record::Tenure) -> Self {
        let record = &tenure.record;
        Self {
            node: record.holder.node.clone(),
            uuid: record.holder.uuid.to_string(),
            incarnation: record.holder.incarnation.0,
            address: record.address.clone(),
            token: tenure.token.get(),
            lease: tenure.lease.to_string(),
            lease_ttl_secs: record.ttl.as_secs(),
            acquired: Time(record.acquired_ms),
            transitions: record.transitions,
        }
    }
}

// === impl Foreign ===

impl Foreign {
    /// The foreign candidate that this node sees; `look` is the command that shows it.
    pub fn of(status: &Status, look: &str) -> Option<Self> {
        let record::Foreign { key, value } = status.view.foreign.clone()?;
        Some(Self { key, value, look: look.to_owned() })
    }
}

// === impl FreezeView ===

impl FreezeView {
    /// Until when it holds.
    pub fn until_words(&self) -> String {
        self.until.map_or_else(|| "until metad unfreeze".to_owned(), |at| format!("until {at}"))
    }
}

impl From<record::Freeze> for FreezeView {
    fn from(record::Freeze { reason, by, since_ms, until_ms }: record::Freeze) -> Self {
        Self { reason, by, since: Time(since_ms), until: until_ms.map(Time) }
    }
}

// === impl Member ===

impl Member {
    /// All members, as this node sees them.
    pub fn all(status: &Status, now: Instant) -> Vec<Self> {
        status.view.members.iter().map(|member| Self::of(status, member, now)).collect()
    }

    fn of(status: &Status, member: &record::Member, now: Instant) -> Self {
        let r = &member.registration;
        let is_leader = status.known_leader(now).is_some_and(|t| t.record.holder == r.member);
        let role = match status.me == r.member {
            true => status.role.as_str(),
            false if status.is_outdated(now) => UNKNOWN,
            false => role_of_another(is_leader),
        };
        Self {
            node: r.member.node.clone(),
            uuid: r.member.uuid.to_string(),
            incarnation: r.member.incarnation.0,
            role: role.to_owned(),
            is_leader,
            rpc_address: r.rpc_address.clone(),
            http_address: r.http_address.clone(),
            priority: r.priority,
            version: r.version.clone(),
            lease: r.lease.to_string(),
            lease_ttl_secs: r.ttl.as_secs(),
        }
    }
}

// === impl Gone ===

impl Gone {
    /// Those that this node has seen go: name, and when in milliseconds.
    pub fn all(seen: Vec<(String, u64)>) -> Vec<Self> {
        seen.into_iter().map(|(node, at_ms)| Self { node, since: Time(at_ms) }).collect()
    }
}

/// Of itself a node knows it exactly; of another it knows what the store says.
pub(super) fn role_of_another(is_leader: bool) -> &'static str {
    if is_leader { Role::Leader.as_str() } else { Role::Follower.as_str() }
}
