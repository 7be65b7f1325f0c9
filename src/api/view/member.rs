//! Leader, members, and who says so.

use serde::Serialize;

use crate::clock::{Instant, millis};
use crate::driver::status::{Role, Status};
use crate::election::record;

use super::Time;

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

/// A registered member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Member {
    /// Its node id.
    pub node: String,
    /// Its data dir's identity.
    pub uuid: String,
    /// The start of that data dir.
    pub incarnation: u64,
    /// What it is; of another member than the answerer, leader or follower.
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
        }
    }
}

// === impl Leader ===

impl Leader {
    /// The leader, as this node sees it.
    pub fn of(status: &Status) -> Option<Self> {
        let tenure = status.leader()?;
        let record = &tenure.record;
        Some(Self {
            node: record.holder.node.clone(),
            uuid: record.holder.uuid.to_string(),
            incarnation: record.holder.incarnation.0,
            address: record.address.clone(),
            token: tenure.token.get(),
            lease: tenure.lease.to_string(),
            lease_ttl_secs: record.ttl.as_secs(),
            acquired: Time(record.acquired_ms),
            transitions: record.transitions,
        })
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

// === impl Member ===

impl Member {
    /// All members, as this node sees them.
    pub fn all(status: &Status) -> Vec<Self> {
        status.view.members.iter().map(|member| Self::of(status, member)).collect()
    }

    fn of(status: &Status, member: &record::Member) -> Self {
        let r = &member.registration;
        let is_leader = status.leader_record().is_some_and(|l| l.holder == r.member);
        let role = if status.me == r.member { status.role } else { role_of_another(is_leader) };
        Self {
            node: r.member.node.clone(),
            uuid: r.member.uuid.to_string(),
            incarnation: r.member.incarnation.0,
            role: role.as_str().to_owned(),
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

/// Of itself a node knows it exactly; of another it knows what the store says.
pub(super) fn role_of_another(is_leader: bool) -> Role {
    if is_leader { Role::Leader } else { Role::Follower }
}
