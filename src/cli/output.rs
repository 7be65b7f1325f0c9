//! Tables and JSON, and the one place that writes to stdout and stderr.
//!
//! A reader that has gone away (`metad members | head`) is no error: nothing more is printed, the exit code stays, and
//! what would never end does. Any other failure to print is exit code 74.

use std::io::{ErrorKind, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Value, json};

use super::Failure;
use crate::election::exit::Exit;
use crate::proto::metad::{Answerer, ForeignCandidate, LeaderInfo, MemberInfo};
use crate::telemetry::terminal::{plain, plain_lines};

/// Writes to stdout, as it is: what comes from outside is in JSON, or made [`plain`].
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    done(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// What became of writing to stdout.
pub(super) fn done(written: std::io::Result<()>) -> Result<(), Failure> {
    match written {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Io.code(), format!("cannot write the output: {e}")))
        }
        _ => Ok(()),
    }
}

/// Says something to people, on stderr. If that takes nothing, there is nobody left to tell.
pub(super) fn say(text: &str) {
    let _ = std::io::stderr().write_all(format!("metad: {}\n", plain_lines(text)).as_bytes());
}

/// Asks a person something, on stderr.
pub(super) fn ask(question: &str) {
    let mut err = std::io::stderr();
    let _ = err.write_all(plain(question).as_bytes()).and_then(|()| err.flush());
}

/// Waits until nobody can read our stdout any more. A file never comes to that.
pub(super) async fn reader_gone() {
    let (tell, told) = tokio::sync::oneshot::channel();
    // Asks for no event at all: the end of the other side is told nevertheless. The thread ends with the process.
    let watch = move || {
        let stdout = std::io::stdout();
        let mut fds = [rustix::event::PollFd::new(&stdout, rustix::event::PollFlags::empty())];
        while let Err(rustix::io::Errno::INTR) = rustix::event::poll(&mut fds, None) {}
        let _ = tell.send(fds[0].revents());
    };
    let watched = std::thread::Builder::new().name("stdout".into()).spawn(watch).is_ok();
    let gone = rustix::event::PollFlags::ERR | rustix::event::PollFlags::HUP;
    match told.await {
        Ok(events) if watched && events.intersects(gone) => {}
        _ => std::future::pending().await, // then a write has to find out
    }
}

/// A table of members; the leader is marked.
pub(super) fn members_table(members: &[MemberInfo]) -> String {
    let mut t = table(&["NODE", "ROLE", "ADDRESS", "HTTP", "PRIORITY", "LEASE", "START", "VERSION"]);
    for m in members {
        t.add_row([
            plain(&m.node),
            if m.is_leader { "leader".into() } else { "follower".into() },
            plain(&m.rpc_address),
            plain(&m.http_address),
            m.priority.to_string().into(),
            format!("{} s", m.lease_ttl_secs).into(),
            m.incarnation.to_string().into(),
            plain(&m.version),
        ]);
    }
    format!("{t}\n")
}

/// The leader's line, or that there is none.
pub(super) fn leader_table(leader: Option<&LeaderInfo>) -> String {
    let Some(l) = leader else { return "no leader\n".to_owned() };
    let mut t = table(&["LEADER", "ADDRESS", "TOKEN", "SINCE", "LEASE", "LEASE ID", "CHANGES"]);
    t.add_row([
        plain(&l.node),
        plain(&l.address),
        l.token.to_string().into(),
        crate::store::codec::rfc3339(l.acquired_ms).into(),
        format!("{} s", l.lease_ttl_secs).into(),
        plain(&l.lease),
        l.transitions.to_string().into(),
    ]);
    format!("{t}\n")
}

/// Why nobody can be elected, or could be after this leader; nothing where nobody else queues.
pub(super) fn foreign_line(foreign: Option<&ForeignCandidate>) -> String {
    foreign.map_or_else(String::new, |f| {
        format!(
            "foreign candidate: the key {:?} with the value {:?} is where only the leader record belongs; no \
             leader can be elected until it is deleted\ninspect it: {}\n",
            f.key,
            f.value,
            plain(&f.look)
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
            format!(", lease left {} ms", a.lease_remaining_ms)
        } else {
            String::new()
        };
        let (node, role, cluster) = (plain(&a.node), plain(&a.role), plain(&a.cluster));
        format!("source {node} ({role}{lease}), age {} ms, cluster {cluster}\n", a.age_ms)
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
