//! Tables and JSON, and writing them to a stdout that may be closed.

use std::io::Write;

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Value, json};

use crate::proto::metad::{Answerer, ForeignCandidate, LeaderInfo, MemberInfo};

/// Writes to stdout; a reader that has gone away (`metad members | head`) is no error.
pub(super) fn print(text: &str) {
    let mut out = std::io::stdout();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// A table of members; the leader is marked.
pub(super) fn members_table(members: &[MemberInfo]) -> String {
    let mut t = table(&["NODE", "ROLE", "ADDRESS", "HTTP", "PRIORITY", "LEASE", "START", "VERSION"]);
    for m in members {
        t.add_row([
            m.node.clone(),
            if m.is_leader { "leader".to_owned() } else { "follower".to_owned() },
            m.rpc_address.clone(),
            m.http_address.clone(),
            m.priority.to_string(),
            format!("{} s", m.lease_ttl_secs),
            m.incarnation.to_string(),
            m.version.clone(),
        ]);
    }
    format!("{t}\n")
}

/// The leader's line, or that there is none.
pub(super) fn leader_table(leader: Option<&LeaderInfo>) -> String {
    let Some(l) = leader else { return "no leader\n".to_owned() };
    let mut t = table(&["LEADER", "ADDRESS", "TOKEN", "SINCE", "LEASE", "LEASE ID", "CHANGES"]);
    t.add_row([
        l.node.clone(),
        l.address.clone(),
        l.token.to_string(),
        crate::store::codec::rfc3339(l.acquired_ms),
        format!("{} s", l.lease_ttl_secs),
        l.lease.clone(),
        l.transitions.to_string(),
    ]);
    format!("{t}\n")
}

/// Why nobody can be elected, or could be after this leader; nothing where nobody else queues.
pub(super) fn foreign_line(foreign: Option<&ForeignCandidate>) -> String {
    foreign.map_or_else(String::new, |f| {
        format!(
            "foreign candidate: the key {:?}, which says {:?}, is where only the leader record belongs; nobody can be \
             elected before it is gone\nlook at it: {}\n",
            f.key, f.value, f.look
        )
    })
}

/// The same as JSON.
pub(super) fn foreign_json(foreign: Option<&ForeignCandidate>) -> Value {
    foreign.map_or(Value::Null, |f| json!({ "key": f.key, "value": f.value, "look": f.look }))
}

/// Who said so, and how fresh that is.
pub(super) fn answerer_line(a: Option<&Answerer>) -> String {
    a.map_or_else(String::new, |a| {
        let lease = if a.role == "leader" {
            format!(", lease holds {} ms more", a.lease_remaining_ms)
        } else {
            String::new()
        };
        format!("as seen by {} ({}{lease}) {} ms ago, cluster {}\n", a.node, a.role, a.age_ms, a.cluster)
    })
}

/// The leader as JSON.
pub(super) fn leader_json(leader: Option<&LeaderInfo>) -> Value {
    leader.map_or(Value::Null, |l| {
        json!({
            "node": l.node,
            "address": l.address,
            "token": l.token,
            "lease": l.lease,
            "lease_ttl_secs": l.lease_ttl_secs,
            "acquired": crate::store::codec::rfc3339(l.acquired_ms),
            "transitions": l.transitions,
            "incarnation": l.incarnation,
            "uuid": l.uuid,
        })
    })
}

/// The members as JSON.
pub(super) fn members_json(members: &[MemberInfo]) -> Value {
    let one = |m: &MemberInfo| {
        json!({
            "node": m.node,
            "leader": m.is_leader,
            "rpc_address": m.rpc_address,
            "http_address": m.http_address,
            "priority": m.priority,
            "version": m.version,
            "incarnation": m.incarnation,
            "uuid": m.uuid,
            "lease": m.lease,
            "lease_ttl_secs": m.lease_ttl_secs,
        })
    };
    members.iter().map(one).collect()
}

/// The answerer as JSON.
pub(super) fn answerer_json(a: Option<&Answerer>) -> Value {
    a.map_or(Value::Null, |a| {
        json!({
            "node": a.node,
            "cluster": a.cluster,
            "role": a.role,
            "age_ms": a.age_ms,
            "version": a.version,
            "lease_remaining_ms": a.lease_remaining_ms,
            "revision": a.revision,
        })
    })
}

pub(super) fn table(header: &[&str]) -> Table {
    let mut t = Table::new();
    t.load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header.to_vec());
    t
}
