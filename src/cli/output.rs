//! Tables and JSON, and the one place that writes to stdout and stderr.
//!
//! A reader that has gone away (`metad members | head`) is no error: nothing more is printed, the exit code stays, and
//! what would never end does. Any other failure to print is exit code 74.

use std::io::{ErrorKind, IsTerminal, Write};
use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::Failure;
use crate::api::view::Time;
use crate::api::view::member::{Answerer, Foreign, FreezeView, Gone, Leader, Member};
use crate::clock::millis;
use crate::election::exit::Exit;
use crate::telemetry::terminal::{plain, plain_lines};

/// Writes to stdout, as it is: what comes from outside is in JSON, or made [`plain`].
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    done(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// Writes a document to stdout, so that people can read it too.
pub(super) fn print_json(document: &impl Serialize) -> Result<(), Failure> {
    print(&(serde_json::to_string_pretty(document).map_err(no_json)? + "\n"))
}

/// Writes a document to stdout, in one line.
pub(super) fn print_json_line(document: &impl Serialize) -> Result<(), Failure> {
    print(&(serde_json::to_string(document).map_err(no_json)? + "\n"))
}

fn no_json(e: serde_json::Error) -> Failure {
    Failure::new(Exit::Internal.code(), format!("cannot write the answer as JSON: {e}"))
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

/// A table of members, and of those that have gone.
pub(super) fn members_table(members: &[Member], gone: &[Gone]) -> String {
    let mut t = table(&["NODE", "ROLE", "ADDRESS", "HTTP", "PRIORITY", "LEASE", "START", "VERSION"]);
    for m in members {
        t.add_row([
            plain(&m.node),
            plain(&m.role),
            plain(&m.rpc_address),
            plain(&m.http_address),
            m.priority.to_string().into(),
            format!("{} s", m.lease_ttl_secs).into(),
            m.incarnation.to_string().into(),
            plain(&m.version),
        ]);
    }
    let gone = gone.iter().map(|g| format!("gone {}, last seen {}\n", plain(&g.node), g.since));
    format!("{t}\n{}", gone.collect::<String>())
}

/// The leader's line, or that there is none, or that nobody knows.
pub(super) fn leader_table(leader: Option<&Leader>, last: Option<&Leader>, answerer: &Answerer) -> String {
    let Some(l) = leader else { return no_leader(last, answerer) };
    let mut t = table(&["LEADER", "ADDRESS", "TOKEN", "SINCE", "LEASE", "LEASE ID", "CHANGES"]);
    t.add_row([
        plain(&l.node),
        plain(&l.address),
        l.token.to_string().into(),
        l.acquired.to_string().into(),
        format!("{} s", l.lease_ttl_secs).into(),
        plain(&l.lease),
        l.transitions.to_string().into(),
    ]);
    format!("{t}\n")
}

fn no_leader(last: Option<&Leader>, answerer: &Answerer) -> String {
    if !answerer.is_outdated {
        return "no leader\n".to_owned();
    }
    let (node, age) = (plain(&answerer.node), span(answerer.age_ms));
    match last {
        None => format!("leader unknown: the store has confirmed nothing to {node} yet\n"),
        Some(last) => format!(
            "leader unknown: the store has confirmed nothing to {node} for {age}; {} led then, token {}\n",
            plain(&last.node),
            last.token
        ),
    }
}

/// As short as it can be read.
pub(super) fn span(ms: u64) -> String {
    let secs = ms / 1000;
    match secs {
        0 => format!("{ms} ms"),
        1..60 => format!("{:.1} s", ms as f64 / 1000.0),
        60..3_600 => format!("{} min {} s", secs / 60, secs % 60),
        3_600..86_400 => format!("{} h {} min", secs / 3_600, secs % 3_600 / 60),
        _ => format!("{} d {} h", secs / 86_400, secs % 86_400 / 3_600),
    }
}

/// Why nobody can be elected, or could be after this leader; nothing where nobody else queues.
pub(super) fn foreign_line(foreign: Option<&Foreign>) -> String {
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

/// That the probe of the node that answers fails, or that its standby is not warm; nothing where all is well.
pub(super) fn readiness_lines(answerer: &Answerer) -> String {
    let Answerer { node, probe, unready, .. } = answerer;
    let probe = probe.as_ref().map(|measured| format!("the probe of {node} fails: {measured}"));
    let unready = unready.as_ref().map(|why| format!("{node} is not ready to lead: {why}"));
    probe.into_iter().chain(unready).map(|line| format!("{}\n", plain(&line))).collect()
}

/// That nobody takes over, and until when; nothing where the election is not frozen.
pub(super) fn freeze_line(
    freeze: Option<&FreezeView>,
    leader: Option<&Leader>,
    answerer: &Answerer,
) -> String {
    let is_vacant = leader.is_none() && !answerer.is_outdated;
    freeze.map_or_else(String::new, |freeze| {
        let vacancy = if is_vacant { "; nobody claims the vacancy meanwhile" } else { "" };
        format!("{}{vacancy}\n", frozen(freeze))
    })
}

/// The freeze in one sentence.
pub(super) fn frozen(freeze: &FreezeView) -> String {
    let (FreezeView { reason, by, since, .. }, until) = (freeze, freeze.until_words());
    plain(&format!("frozen {until}, since {since}, by {by}: {reason}")).into_owned()
}

/// Who said so, and how fresh that is.
pub(super) fn answerer_line(a: &Answerer) -> String {
    let left = format!(", lease left {}", span(a.lease_remaining_ms));
    let lease = if a.role == "leader" { left.as_str() } else { "" };
    let (node, role, cluster) = (plain(&a.node), plain(&a.role), plain(&a.cluster));
    let outdated =
        if a.is_outdated { ", outdated: the store has confirmed nothing within the lease" } else { "" };
    format!("source {node} ({role}{lease}), age {}{outdated}, cluster {cluster}\n", span(a.age_ms))
}

/// A table as wide as the terminal at most; what is read by a program is never wrapped.
pub(super) fn table(header: &[&str]) -> Table {
    let mut t = Table::new();
    t.load_style(presets::NOTHING).set_header(header.to_vec());
    match width() {
        Some(width) => t.set_content_arrangement(ContentArrangement::Dynamic).set_width(width),
        None => t.set_content_arrangement(ContentArrangement::Disabled),
    };
    t
}

/// The columns of the terminal, if stdout is one.
fn width() -> Option<u16> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some(size.ws_col).filter(|columns| *columns > 0)
}

/// What comes before each of many looks: the time, on a terminal on a cleared screen.
pub(super) fn new_look(every: Duration) -> String {
    let head = format!("every {}, {}\n\n", span(millis(every)), Time::now());
    if std::io::stdout().is_terminal() { format!("\x1b[H\x1b[2J{head}") } else { head }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short() {
        let shown = [0, 999, 1_500, 61_000, 3_660_000, 90_000_000].map(span);
        assert_eq!(shown, ["0 ms", "999 ms", "1.5 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"]);
    }
}
