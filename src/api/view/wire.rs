//! The same as messages of gRPC, and back: a node fills them in, the command line reads them.
//!
//! A message that is absent reads as its default, and an empty text as unknown, as everywhere in protobuf.

use super::member::{Answerer, Foreign, FreezeView, Gone, Leader, Member, role_of_another};
use super::tenure::{HistoryDocument, SaidBy, Seen, Tenure};
use super::{ChangeDocument, LeaderDocument, MembersDocument, SchemaVersion, StatusDocument, Time};
use crate::diagnosis::checks::Finding;
use crate::proto::metad as proto;

// === documents ===

impl From<LeaderDocument> for proto::LeaderResponse {
    fn from(document: LeaderDocument) -> Self {
        Self {
            leader: document.leader.map(Into::into),
            answerer: Some(document.answerer.into()),
            foreign: document.foreign.map(Into::into),
            last_known: document.last_known_leader.map(Into::into),
            vacant_for_ms: None, // for members alone
            freeze: document.freeze.map(Into::into),
        }
    }
}

impl From<proto::LeaderResponse> for LeaderDocument {
    fn from(answer: proto::LeaderResponse) -> Self {
        Self {
            schema_version: SchemaVersion,
            answerer: answer.answerer.unwrap_or_default().into(),
            leader: answer.leader.map(Into::into),
            last_known_leader: answer.last_known.map(Into::into),
            foreign: answer.foreign.map(Into::into),
            freeze: answer.freeze.map(Into::into),
        }
    }
}

impl From<MembersDocument> for proto::MembersResponse {
    fn from(document: MembersDocument) -> Self {
        let members = document.members.into_iter().map(Into::into).collect();
        let gone = document.gone.into_iter().map(Into::into).collect();
        Self { members, answerer: Some(document.answerer.into()), gone }
    }
}

impl From<proto::MembersResponse> for MembersDocument {
    fn from(answer: proto::MembersResponse) -> Self {
        Self {
            schema_version: SchemaVersion,
            answerer: answer.answerer.unwrap_or_default().into(),
            members: answer.members.into_iter().map(Into::into).collect(),
            gone: answer.gone.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<(LeaderDocument, MembersDocument)> for StatusDocument {
    fn from((leader, members): (LeaderDocument, MembersDocument)) -> Self {
        let LeaderDocument { schema_version, answerer, leader, last_known_leader, foreign, freeze } = leader;
        Self {
            schema_version,
            answerer,
            leader,
            last_known_leader,
            foreign,
            freeze,
            members: members.members,
            gone: members.gone,
        }
    }
}

impl From<proto::ObserveResponse> for ChangeDocument {
    fn from(change: proto::ObserveResponse) -> Self {
        Self {
            schema_version: SchemaVersion,
            time: Time::now(),
            answerer: change.answerer.unwrap_or_default().into(),
            leader: change.leader.map(Into::into),
            last_known_leader: change.last_known.map(Into::into),
            freeze: change.freeze.map(Into::into),
            members: change.members.into_iter().map(Into::into).collect(),
            last_ended: change.last_ended.map(Into::into),
        }
    }
}

impl From<HistoryDocument> for proto::HistoryResponse {
    fn from(document: HistoryDocument) -> Self {
        let oldest = document.tenures.first().filter(|_| document.has_older);
        Self {
            next_page_token: oldest.map(|tenure| tenure.token.to_string()).unwrap_or_default(),
            tenures: document.tenures.into_iter().map(Into::into).collect(),
            age_ms: document.age_ms,
            leader_token: document.leader_token,
            answerer: Some(document.answerer.into()),
        }
    }
}

impl From<proto::HistoryResponse> for HistoryDocument {
    fn from(answer: proto::HistoryResponse) -> Self {
        Self {
            schema_version: SchemaVersion,
            answerer: answer.answerer.unwrap_or_default().into(),
            age_ms: answer.age_ms,
            leader_token: answer.leader_token,
            has_older: !answer.next_page_token.is_empty(),
            tenures: answer.tenures.into_iter().map(Into::into).collect(),
        }
    }
}

// === their parts ===

impl From<Answerer> for proto::Answerer {
    fn from(a: Answerer) -> Self {
        let Answerer {
            node,
            uuid,
            cluster,
            role,
            version,
            age_ms,
            lease_remaining_ms,
            revision,
            is_outdated,
            probe,
            unready,
        } = a;
        let (probe, unready) = (probe.unwrap_or_default(), unready.unwrap_or_default());
        Self {
            node,
            cluster,
            role,
            age_ms,
            version,
            uuid,
            lease_remaining_ms,
            revision,
            is_outdated,
            probe,
            unready,
        }
    }
}

impl From<proto::Answerer> for Answerer {
    fn from(a: proto::Answerer) -> Self {
        let proto::Answerer {
            node,
            cluster,
            role,
            age_ms,
            version,
            uuid,
            lease_remaining_ms,
            revision,
            is_outdated,
            probe,
            unready,
        } = a;
        let (probe, unready) = (known(probe), known(unready));
        Self {
            node,
            uuid,
            cluster,
            role,
            version,
            age_ms,
            lease_remaining_ms,
            revision,
            is_outdated,
            probe,
            unready,
        }
    }
}

impl From<Leader> for proto::LeaderInfo {
    fn from(l: Leader) -> Self {
        Self {
            node: l.node,
            address: l.address,
            token: l.token,
            lease: l.lease,
            lease_ttl_secs: l.lease_ttl_secs,
            acquired_ms: l.acquired.0,
            transitions: l.transitions,
            incarnation: l.incarnation,
            uuid: l.uuid,
        }
    }
}

impl From<proto::LeaderInfo> for Leader {
    fn from(l: proto::LeaderInfo) -> Self {
        Self {
            node: l.node,
            uuid: l.uuid,
            incarnation: l.incarnation,
            address: l.address,
            token: l.token,
            lease: l.lease,
            lease_ttl_secs: l.lease_ttl_secs,
            acquired: Time(l.acquired_ms),
            transitions: l.transitions,
        }
    }
}

impl From<Foreign> for proto::ForeignCandidate {
    fn from(Foreign { key, value, look }: Foreign) -> Self {
        Self { key, value, look }
    }
}

impl From<FreezeView> for proto::FreezeInfo {
    fn from(FreezeView { reason, by, since, until }: FreezeView) -> Self {
        Self { reason, by, since_ms: since.0, until_ms: until.map(|at| at.0) }
    }
}

impl From<proto::FreezeInfo> for FreezeView {
    fn from(proto::FreezeInfo { reason, by, since_ms, until_ms }: proto::FreezeInfo) -> Self {
        Self { reason, by, since: Time(since_ms), until: until_ms.map(Time) }
    }
}

impl From<proto::ForeignCandidate> for Foreign {
    fn from(proto::ForeignCandidate { key, value, look }: proto::ForeignCandidate) -> Self {
        Self { key, value, look }
    }
}

impl From<Member> for proto::MemberInfo {
    fn from(m: Member) -> Self {
        Self {
            node: m.node,
            rpc_address: m.rpc_address,
            http_address: m.http_address,
            priority: u32::from(m.priority),
            version: m.version,
            incarnation: m.incarnation,
            uuid: m.uuid,
            lease_ttl_secs: m.lease_ttl_secs,
            lease: m.lease,
            is_leader: m.is_leader,
            role: m.role,
        }
    }
}

impl From<proto::MemberInfo> for Member {
    fn from(m: proto::MemberInfo) -> Self {
        // A member of an older version leaves it out.
        let role = if m.role.is_empty() { role_of_another(m.is_leader).to_owned() } else { m.role };
        Self {
            node: m.node,
            uuid: m.uuid,
            incarnation: m.incarnation,
            role,
            is_leader: m.is_leader,
            rpc_address: m.rpc_address,
            http_address: m.http_address,
            priority: u16::try_from(m.priority).unwrap_or(u16::MAX),
            version: m.version,
            lease: m.lease,
            lease_ttl_secs: m.lease_ttl_secs,
        }
    }
}

impl From<Gone> for proto::GoneMember {
    fn from(Gone { node, since }: Gone) -> Self {
        Self { node, since_ms: since.0 }
    }
}

impl From<proto::GoneMember> for Gone {
    fn from(proto::GoneMember { node, since_ms }: proto::GoneMember) -> Self {
        Self { node, since: Time(since_ms) }
    }
}

// === tenures ===

impl From<Tenure> for proto::TenureInfo {
    fn from(t: Tenure) -> Self {
        let end = t.to.map(|at| proto::TenureEnd {
            at_ms: at.0,
            reason: t.reason.unwrap_or_default(),
            planned: t.planned.unwrap_or_default(),
            detail: t.detail.unwrap_or_default(),
            seen: t.seen.map(Into::into),
            by_holder: t.said_by == Some(SaidBy::Holder),
        });
        Self {
            token: t.token,
            node: t.node,
            uuid: t.uuid,
            incarnation: t.incarnation,
            address: t.address,
            from_ms: t.from.0,
            end,
            gap_ms: t.gap_ms,
            gap_at_least: t.gap_at_least,
            previous: t.previous.unwrap_or_default(),
        }
    }
}

impl From<proto::TenureInfo> for Tenure {
    fn from(t: proto::TenureInfo) -> Self {
        let end = t.end.as_ref();
        Self {
            token: t.token,
            node: t.node,
            uuid: t.uuid,
            incarnation: t.incarnation,
            address: t.address,
            from: Time(t.from_ms),
            to: end.map(|e| Time(e.at_ms)),
            reason: end.map(|e| e.reason.clone()),
            planned: end.map(|e| e.planned),
            gap_ms: t.gap_ms,
            gap_at_least: t.gap_at_least,
            previous: known(t.previous),
            detail: end.and_then(|e| known(e.detail.clone())),
            seen: end.and_then(|e| e.seen.clone()).map(Into::into),
            said_by: end.map(|e| SaidBy::of(e.by_holder)),
        }
    }
}

impl From<Seen> for proto::TenureSeen {
    fn from(seen: Seen) -> Self {
        Self {
            ack_age_ms: seen.ack_age_ms,
            slowest: seen.slowest.unwrap_or_default(),
            slowest_ms: seen.slowest_ms.unwrap_or_default(),
            tick_delay_ms: seen.tick_delay_ms,
        }
    }
}

impl From<proto::TenureSeen> for Seen {
    fn from(seen: proto::TenureSeen) -> Self {
        let slowest = known(seen.slowest);
        let slowest_ms = slowest.as_ref().map(|_| seen.slowest_ms);
        Self { ack_age_ms: seen.ack_age_ms, slowest, slowest_ms, tick_delay_ms: seen.tick_delay_ms }
    }
}

fn known(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

// === findings ===

impl From<Finding> for proto::CheckFinding {
    fn from(f: Finding) -> Self {
        Self {
            code: f.code,
            name: f.name,
            title: f.title,
            status: f.status.as_str().to_owned(),
            measured: f.measured,
            limit: f.limit,
            why: f.why,
            fix: f.fix,
            doc: f.doc,
            reading: f.reading.map(|r| proto::CheckReading {
                value: r.value,
                unit: r.unit,
                warn: r.warn,
                lower_is_worse: r.lower_is_worse,
            }),
        }
    }
}
