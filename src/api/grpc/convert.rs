//! The snapshot in the types of the wire.

use crate::clock::{Instant, millis};
use crate::driver::status::{Role, Status};
use crate::election::history::row::{End, Row};
use crate::election::record::{Foreign, Member, Tenure};
use crate::proto::metad::{
    Answerer, ForeignCandidate, LeaderInfo, MemberInfo, TenureEnd, TenureInfo, TenureSeen,
};

/// Who answers, and how sure it is.
pub fn answerer(status: &Status, now: Instant) -> Answerer {
    let remaining = status.holds_until.filter(|_| status.role == Role::Leader).map(|h| now.until(h));
    Answerer {
        node: status.me.node.clone(),
        cluster: status.cluster.clone(),
        role: status.role.as_str().to_owned(),
        age_ms: millis(now.since(status.confirmed_at)),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uuid: status.me.uuid.to_string(),
        lease_remaining_ms: millis(remaining.unwrap_or_default()),
        revision: status.revision().0,
    }
}

/// The leader, as we see it.
pub fn leader(status: &Status) -> Option<LeaderInfo> {
    status.leader().map(leader_info)
}

/// Who queues where only the leader record belongs, and the command that looks at it.
pub fn foreign(status: &Status, look: &str) -> Option<ForeignCandidate> {
    let Foreign { key, value } = status.view.foreign.clone()?;
    Some(ForeignCandidate { key, value, look: look.to_owned() })
}

fn leader_info(tenure: &Tenure) -> LeaderInfo {
    let record = &tenure.record;
    LeaderInfo {
        node: record.holder.node.clone(),
        address: record.address.clone(),
        token: tenure.token.get(),
        lease: tenure.lease.to_string(),
        lease_ttl_secs: record.ttl.as_secs(),
        acquired_ms: record.acquired_ms,
        transitions: record.transitions,
        incarnation: record.holder.incarnation.0,
        uuid: record.holder.uuid.to_string(),
    }
}

/// All members, as we see them.
pub fn members(status: &Status) -> Vec<MemberInfo> {
    status.view.members.iter().map(|m| member_info(status, m)).collect()
}

fn member_info(status: &Status, member: &Member) -> MemberInfo {
    let r = &member.registration;
    MemberInfo {
        node: r.member.node.clone(),
        rpc_address: r.rpc_address.clone(),
        http_address: r.http_address.clone(),
        priority: u32::from(r.priority),
        version: r.version.clone(),
        incarnation: r.member.incarnation.0,
        uuid: r.member.uuid.to_string(),
        lease_ttl_secs: r.ttl.as_secs(),
        lease: r.lease.to_string(),
        is_leader: status.leader_record().is_some_and(|l| l.holder == r.member),
    }
}

/// A row of the history.
pub fn tenure(row: &Row) -> TenureInfo {
    TenureInfo {
        token: row.token.get(),
        node: row.holder.node.clone(),
        uuid: row.holder.uuid.to_string(),
        incarnation: row.holder.incarnation.0,
        address: row.address.clone(),
        from_ms: row.from_ms,
        end: row.end.as_ref().map(tenure_end),
        gap_ms: row.gap_ms,
        previous: row.previous.clone().unwrap_or_default(),
    }
}

fn tenure_end(end: &End) -> TenureEnd {
    let seen = end.seen.as_ref().map(|seen| TenureSeen {
        ack_age_ms: seen.ack_age_ms,
        slowest: seen.slowest.clone().unwrap_or_default(),
        slowest_ms: seen.slowest_ms.unwrap_or_default(),
        tick_delay_ms: seen.tick_delay_ms,
    });
    TenureEnd {
        at_ms: end.at_ms,
        reason: end.reason.as_str().to_owned(),
        planned: end.reason.is_planned(),
        detail: end.detail.clone(),
        seen,
        by_holder: end.by_holder,
    }
}
