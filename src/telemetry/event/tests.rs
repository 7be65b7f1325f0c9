//! Each event, as its log line has it and as its JSON has it.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::*;
use crate::election::record::Revision;

/// Collects what is logged.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn text() -> String {
    "x".to_owned()
}

fn ended(reason: Reason, token: Token) -> Event {
    Event::TenureEnded(Box::new(Ended {
        token,
        leader: text(),
        reason,
        detail: text(),
        held_ms: 1,
        next: Some(text()),
        gap_ms: Some(1),
        gap_at_least: false,
        is_correction: false,
    }))
}

fn hook(result: &'static str, error: Option<String>, token: Token) -> Event {
    let code = Some(1);
    let (leader, token) = (Some(text()), Some(token));
    let ended = HookEnded { leader, token, result, code, error, took_ms: 1, lines_left_out: 1 };
    Event::LeaderHookEnded(Box::new(ended))
}

/// At least one of each kind, and of each line that a kind has.
fn all() -> Vec<Event> {
    let token = Token::new(Revision(7)).unwrap();
    let changed = |leader| Event::LeaderChanged {
        leader,
        token: Some(token),
        previous: Some(text()),
        reason: Some(Reason::Vanished),
        gap_ms: Some(1),
        gap_at_least: true,
    };
    let check = |status| Event::CheckChanged {
        code: text(),
        name: text(),
        from: "warn",
        status,
        measured: text(),
        fix: text(),
    };
    let stopped = |reason, code| Event::Stopped { reason, detail: text(), code };
    let mut all = vec![
        Event::Listening { rpc: text(), http: text() },
        Event::Joined { lease: LeaseId(1), ttl_secs: 1, incarnation: 1 },
        Event::Rejoining,
        changed(Some(text())),
        changed(None),
        ended(Reason::Vanished, token),
        ended(Reason::ResignedSignal, token),
        Event::DataDirLost { path: text() },
        Event::MemberJoined { member: text(), address: text() },
        Event::Frozen { reason: text(), by: text(), until_ms: Some(1) },
        Event::Unfrozen,
        Event::FreezeOver { reason: text() },
        Event::MemberLeft { member: text() },
        Event::LeadershipWon { token },
        Event::ClaimLost,
        Event::ClaimRefused { error: text() },
        Event::WriteFenced { token },
        Event::OutcomeUnknown,
        Event::MainLoopStarted { token },
        Event::ProbeFailing { measured: text() },
        Event::ProbeRecovered,
        Event::LeadsOn { token, measured: text(), why: "x" },
        Event::LeadershipResigned { token },
        Event::StoreTrouble { what: "x", error: text() },
        Event::StoreRecovered { after_ms: 1 },
        Event::Verdict { verdict: "x", text: text() },
        check("pass"),
        check("fail"),
        Event::AdminAction { action: "x", to: Some(text()), by: text() },
        hook("ok", None, token),
        hook("timeout", None, token),
        hook("failed", None, token),
        hook("not_started", Some(text()), token),
        Event::CallRefused { what: text(), why: text(), left_out: 1 },
        stopped(Reason::ResignedSignal, 0),
        stopped(Reason::RenewDeadline, Exit::LeadershipLost.code()),
        stopped(Reason::DiskFailed, Exit::Io.code()),
    ];
    for reason in Reason::ALL {
        all.push(Event::MainLoopStopping { token, reason });
        all.push(Event::MainLoopStopped { token, reason });
    }
    all
}

/// A new kind does not compile until it has a number here; then it is missed in [`all`].
fn number(event: &Event) -> usize {
    match event {
        Event::Listening { .. } => 0,
        Event::Joined { .. } => 1,
        Event::Rejoining => 2,
        Event::LeaderChanged { .. } => 3,
        Event::TenureEnded(_) => 4,
        Event::DataDirLost { .. } => 5,
        Event::MemberJoined { .. } => 6,
        Event::Frozen { .. } => 7,
        Event::Unfrozen => 8,
        Event::FreezeOver { .. } => 9,
        Event::MemberLeft { .. } => 10,
        Event::LeadershipWon { .. } => 11,
        Event::ClaimLost => 12,
        Event::ClaimRefused { .. } => 13,
        Event::WriteFenced { .. } => 14,
        Event::OutcomeUnknown => 15,
        Event::MainLoopStarted { .. } => 16,
        Event::ProbeFailing { .. } => 17,
        Event::ProbeRecovered => 18,
        Event::LeadsOn { .. } => 19,
        Event::MainLoopStopping { .. } => 20,
        Event::MainLoopStopped { .. } => 21,
        Event::LeadershipResigned { .. } => 22,
        Event::StoreTrouble { .. } => 23,
        Event::StoreRecovered { .. } => 24,
        Event::Verdict { .. } => 25,
        Event::CheckChanged { .. } => 26,
        Event::AdminAction { .. } => 27,
        Event::LeaderHookEnded(_) => 28,
        Event::CallRefused { .. } => 29,
        Event::Stopped { .. } => 30,
    }
}

const KINDS: usize = 31;

fn logged(event: &Event) -> Value {
    let lines = Captured::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().json().flatten_event(true).with_writer(move || writer.clone());
    tracing::subscriber::with_default(subscriber.finish(), || event.log());
    let bytes = lines.0.lock().unwrap().clone();
    serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&bytes)))
}

#[test]
fn what_the_log_says_is_of_the_type_that_the_events_json_has() {
    let seen: BTreeSet<usize> = all().iter().map(number).collect();
    assert_eq!(seen, (0..KINDS).collect(), "each kind is tried");
    for event in all() {
        let stamped = Stamped { node: text(), boot_ns: 1, wall_ms: 1, event };
        let (line, json) = (logged(&stamped.event), stamped.to_json());
        assert_eq!(line["event"], json["type"], "{line}");
        for (name, logged) in line.as_object().unwrap() {
            let Some(told) = json.get(name).filter(|told| !told.is_null()) else { continue };
            let kind = |value: &Value| std::mem::discriminant(value);
            assert_eq!(kind(logged), kind(told), "{name}: {line} against {json}");
        }
        if let Some(token) = line.get("token") {
            assert_eq!((token, &json["token"]), (&Value::from(7), &Value::from(7)), "{line}");
        }
    }
}
