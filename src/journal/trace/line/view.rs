//! Views in a trace: who is registered and who leads, as JSON.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{UnreadableTrace, read_token};
use crate::election::lease::LeaseId;
use crate::election::record::{
    Foreign, Freeze, Incarnation, Leader, LeaderRecord, Member, MemberId, MemberUuid, Nonce, Registration,
    Revision, Tenure, View,
};

/// Mirrors [`MemberId`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Who {
    node: String,
    uuid: String,
    incarnation: u64,
}

/// Mirrors [`View`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TracedView {
    pub(super) revision: u64,
    leader: Leads,
    members: Vec<Candidate>,
    foreign: Option<(String, String)>,
    #[serde(default)]
    freeze: Option<Frozen>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Leads {
    Vacant,
    Held(Box<Holds>),
    Foreign(String),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Holds {
    holder: Who,
    address: String,
    nonce: u64,
    ttl: Duration,
    acquired_ms: u64,
    transitions: u64,
    #[serde(default)]
    probe_handed_ms: u64,
    token: u64,
    lease: i64,
    rewritten: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Frozen {
    reason: String,
    by: String,
    since_ms: u64,
    until_ms: Option<u64>,
    written: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Candidate {
    member: Who,
    rpc_address: String,
    http_address: String,
    priority: u16,
    version: String,
    ttl: Duration,
    lease: i64,
    created: u64,
    generation: u64,
}

// === impl Who ===

impl From<&MemberId> for Who {
    fn from(member: &MemberId) -> Self {
        let MemberId { node, uuid, incarnation } = member;
        Self { node: node.clone(), uuid: uuid.to_string(), incarnation: incarnation.0 }
    }
}

impl Who {
    pub(super) fn read(self) -> Result<MemberId, UnreadableTrace> {
        let Self { node, uuid, incarnation } = self;
        let uuid: MemberUuid = uuid.parse().map_err(|_| UnreadableTrace { what: "the uuid", value: uuid })?;
        Ok(MemberId { node, uuid, incarnation: Incarnation(incarnation) })
    }
}

// === impl Frozen ===

impl Frozen {
    fn of(freeze: &Freeze, written: Revision) -> Self {
        let Freeze { reason, by, since_ms, until_ms } = freeze.clone();
        Self { reason, by, since_ms, until_ms, written: written.0 }
    }

    fn read(self) -> (Freeze, Revision) {
        let Self { reason, by, since_ms, until_ms, written } = self;
        (Freeze { reason, by, since_ms, until_ms }, Revision(written))
    }
}

// === impl TracedView ===

impl From<&View> for TracedView {
    fn from(view: &View) -> Self {
        let View { revision, leader, members, foreign, freeze } = view;
        Self {
            revision: revision.0,
            leader: match leader {
                Leader::Vacant => Leads::Vacant,
                Leader::Held(tenure) => Leads::Held(Box::new(tenure.as_ref().into())),
                Leader::Foreign(who) => Leads::Foreign(who.clone()),
            },
            members: members.iter().map(Into::into).collect(),
            foreign: foreign.as_ref().map(|Foreign { key, value }| (key.clone(), value.clone())),
            freeze: freeze.as_ref().map(|(freeze, written)| Frozen::of(freeze, *written)),
        }
    }
}

impl TracedView {
    pub(super) fn read(self) -> Result<View, UnreadableTrace> {
        let Self { revision, leader, members, foreign, freeze } = self;
        Ok(View {
            revision: Revision(revision),
            leader: match leader {
                Leads::Vacant => Leader::Vacant,
                Leads::Held(holds) => Leader::Held(Box::new(holds.read()?)),
                Leads::Foreign(who) => Leader::Foreign(who),
            },
            members: members.into_iter().map(Candidate::read).collect::<Result<_, _>>()?,
            foreign: foreign.map(|(key, value)| Foreign { key, value }),
            freeze: freeze.map(Frozen::read),
        })
    }
}

impl From<&Tenure> for Holds {
    fn from(tenure: &Tenure) -> Self {
        let Tenure { record, token, lease, rewritten } = tenure;
        let LeaderRecord { holder, address, nonce, ttl, acquired_ms, transitions, probe_handed_ms } = record;
        Self {
            holder: holder.into(),
            address: address.clone(),
            nonce: nonce.0,
            ttl: *ttl,
            acquired_ms: *acquired_ms,
            transitions: *transitions,
            probe_handed_ms: *probe_handed_ms,
            token: token.get(),
            lease: lease.0,
            rewritten: *rewritten,
        }
    }
}

impl Holds {
    pub(super) fn read(self) -> Result<Tenure, UnreadableTrace> {
        let Self {
            holder,
            address,
            nonce,
            ttl,
            acquired_ms,
            transitions,
            probe_handed_ms,
            token,
            lease,
            rewritten,
        } = self;
        let (holder, nonce) = (holder.read()?, Nonce(nonce));
        Ok(Tenure {
            record: LeaderRecord { holder, address, nonce, ttl, acquired_ms, transitions, probe_handed_ms },
            token: read_token(token)?,
            lease: LeaseId(lease),
            rewritten,
        })
    }
}

impl From<&Member> for Candidate {
    fn from(member: &Member) -> Self {
        let Member { registration, created, generation } = member;
        let Registration { member, rpc_address, http_address, priority, version, ttl, lease } = registration;
        Self {
            member: member.into(),
            rpc_address: rpc_address.clone(),
            http_address: http_address.clone(),
            priority: *priority,
            version: version.clone(),
            ttl: *ttl,
            lease: lease.0,
            created: created.0,
            generation: generation.0,
        }
    }
}

impl Candidate {
    pub(super) fn read(self) -> Result<Member, UnreadableTrace> {
        let Self { member, rpc_address, http_address, priority, version, ttl, lease, created, generation } =
            self;
        let (member, lease) = (member.read()?, LeaseId(lease));
        let registration = Registration { member, rpc_address, http_address, priority, version, ttl, lease };
        Ok(Member { registration, created: Revision(created), generation: Revision(generation) })
    }
}
