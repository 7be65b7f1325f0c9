//! A line of a trace: the elector's inputs as JSON, both ways, and its outputs as text.
//!
//! The election itself knows no serde, so its values are mirrored here; the compiler sees to it that none is forgotten.

mod health;
mod view;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Instant;
use crate::election::elector::{Elector, ElectorSettings};
use crate::election::event::{
    ClaimAnswer, Event, HandOverAnswer, Joined, ReadAnswer, ReadId, Ready, RenewAnswer,
};
use crate::election::history::{Ending, Reason};
use crate::election::lease::LeaseId;
use crate::election::readiness::Unready;
use crate::election::record::{Nonce, Revision, Token};
use health::TracedHealth;
use view::{TracedView, Who};

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// A process begins.
    Began(Began),
    /// The driver woke: the elector heard these, and then looked at the clock.
    Woke {
        /// When.
        at: At,
        /// In this order.
        heard: Vec<Heard>,
    },
    /// The elector asked for this.
    Asked {
        /// When it was about to be carried out.
        at: At,
        /// The action's debug text.
        action: String,
    },
    /// Lines are missing from here on: the disk was too slow.
    CutOff,
}

/// What the elector was made with, and by whom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Began {
    /// The process.
    pub pid: u32,
    me: Who,
    stop_timeout: Duration,
    start_timeout: Duration,
    failback_delay: Option<Duration>,
}

/// A moment, on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct At {
    /// `CLOCK_BOOTTIME`, in nanoseconds.
    pub boot_ns: u64,
    /// `CLOCK_MONOTONIC_RAW`, in nanoseconds.
    pub raw_ns: u64,
}

/// Mirrors [`Event`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Heard {
    /// See [`Event::Joined`].
    Joined(Box<TracedJoin>),
    /// See [`Event::JoinFailed`].
    JoinFailed(Option<TracedEnding>),
    /// See [`Event::Seen`].
    Seen(TracedView),
    /// See [`Event::Renewed`]; no time to live: not found.
    Renewed {
        /// The lease.
        lease: i64,
        /// Before the request left.
        stamp: At,
        /// Granted, and the raft term.
        alive: Option<(Duration, u64)>,
    },
    /// See [`Event::Read`].
    Read {
        /// Which.
        id: u64,
        /// The view and the raft term.
        answer: Option<(TracedView, u64)>,
    },
    /// See [`Event::Claimed`].
    Claimed {
        /// Which.
        nonce: u64,
        /// How it ended.
        answer: Claim,
        /// What was seen.
        seen: Option<TracedView>,
    },
    /// See [`Event::Registered`].
    Registered(Option<u64>),
    /// See [`Event::Released`].
    Released(bool),
    /// See [`Event::MainLoopEnded`].
    MainLoopEnded(Option<i32>),
    /// See [`Event::MainLoopHung`].
    MainLoopHung,
    /// See [`Event::Fenced`].
    Fenced(u64),
    /// See [`Event::StoreChanged`].
    StoreChanged(String),
    /// See [`Event::Shutdown`].
    Shutdown(String),
    /// See [`Event::StepDown`].
    StepDown(Option<String>),
    /// See [`Event::SetPriority`].
    SetPriority(u16),
    /// See [`Event::Readiness`]; why not, and whether it claims last.
    Readiness(Option<(String, bool)>),
    /// See [`Event::Prepare`].
    Prepare(u64),
    /// See [`Event::Prepared`].
    Prepared(Vec<TracedReady>),
    /// See [`Event::HandedOver`].
    HandedOver(HandOver),
    /// See [`Event::Probed`].
    Probed(TracedHealth),
}

/// Mirrors [`Ready`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TracedReady {
    member: Who,
    healthy_for: Duration,
}

/// Mirrors [`Joined`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TracedJoin {
    lease: i64,
    stamp: At,
    ttl: Duration,
    generation: u64,
    view: TracedView,
    raft_term: u64,
}

/// Mirrors [`Ending`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TracedEnding {
    reason: String,
    main_loop_code: Option<i32>,
    detail: String,
}

/// Mirrors [`ClaimAnswer`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the mirrored type says what each is")]
pub enum Claim {
    Won(u64),
    Lost,
    Refused,
    Unknown,
}

/// Mirrors [`HandOverAnswer`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the mirrored type says what each is")]
pub enum HandOver {
    Done,
    Refused,
    Unknown,
}

/// What a line says that no elector can have heard.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?} does not exist")]
pub struct UnreadableTrace {
    what: &'static str,
    value: String,
}

// === impl Began ===

impl Began {
    /// Of this elector.
    pub fn of(elector: &Elector, pid: u32) -> Self {
        let ElectorSettings { me, stop_timeout, start_timeout, failback_delay } = elector.settings().clone();
        Self { pid, me: (&me).into(), stop_timeout, start_timeout, failback_delay }
    }

    /// An elector like the one that was traced.
    ///
    /// # Errors
    /// See [`UnreadableTrace`].
    pub fn elector(&self) -> Result<Elector, UnreadableTrace> {
        let Self { me, stop_timeout, start_timeout, failback_delay, .. } = self.clone();
        Ok(Elector::new(ElectorSettings { me: me.read()?, stop_timeout, start_timeout, failback_delay }))
    }
}

// === impl At ===

impl From<Instant> for At {
    fn from(at: Instant) -> Self {
        Self { boot_ns: at.boot_ns(), raw_ns: at.raw_ns() }
    }
}

impl From<At> for Instant {
    fn from(at: At) -> Self {
        Instant::from_nanos(at.boot_ns, at.raw_ns)
    }
}

// === impl Heard ===

impl From<&Event> for Heard {
    fn from(event: &Event) -> Self {
        match event {
            Event::Joined(joined) => Heard::Joined(Box::new(joined.into())),
            Event::JoinFailed(ending) => Heard::JoinFailed(ending.as_ref().map(Into::into)),
            Event::Seen(view) => Heard::Seen(view.into()),
            Event::Renewed { lease, stamp, answer } => Heard::Renewed {
                lease: lease.0,
                stamp: (*stamp).into(),
                alive: match answer {
                    RenewAnswer::Alive { ttl, raft_term } => Some((*ttl, *raft_term)),
                    RenewAnswer::NotFound => None,
                },
            },
            Event::Read { id, answer } => Heard::Read {
                id: id.0,
                answer: answer.as_ref().map(|ReadAnswer { view, raft_term }| (view.into(), *raft_term)),
            },
            Event::Claimed { nonce, answer, seen } => Heard::Claimed {
                nonce: nonce.0,
                answer: (*answer).into(),
                seen: seen.as_deref().map(Into::into),
            },
            Event::Registered(generation) => Heard::Registered(generation.map(|g| g.0)),
            Event::Released(gone) => Heard::Released(*gone),
            Event::MainLoopEnded(code) => Heard::MainLoopEnded(*code),
            Event::MainLoopHung => Heard::MainLoopHung,
            Event::Fenced(token) => Heard::Fenced(token.get()),
            Event::StoreChanged(how) => Heard::StoreChanged(how.clone()),
            Event::Shutdown(reason) => Heard::Shutdown(reason.as_str().into()),
            Event::StepDown(wanted) => Heard::StepDown(wanted.clone()),
            Event::SetPriority(priority) => Heard::SetPriority(*priority),
            Event::Readiness(unready) => {
                Heard::Readiness(unready.as_ref().map(|u| (u.why.clone(), u.claims_last)))
            }
            Event::Prepare(token) => Heard::Prepare(token.get()),
            Event::Prepared(ready) => Heard::Prepared(ready.iter().map(Into::into).collect()),
            Event::HandedOver(answer) => Heard::HandedOver((*answer).into()),
            Event::Probed(health) => Heard::Probed(health.into()),
        }
    }
}

impl Heard {
    /// What the store held, and at which revision, if this shows it.
    pub fn shown(&self) -> Option<(u64, &TracedView)> {
        let view = match self {
            Heard::Joined(joined) => &joined.view,
            Heard::Seen(view) | Heard::Read { answer: Some((view, _)), .. } => view,
            Heard::Claimed { seen, .. } => seen.as_ref()?,
            _ => return None,
        };
        Some((view.revision, view))
    }
}

impl TryFrom<Heard> for Event {
    type Error = UnreadableTrace;

    fn try_from(heard: Heard) -> Result<Self, UnreadableTrace> {
        Ok(match heard {
            Heard::Joined(joined) => Event::Joined(joined.read()?),
            Heard::JoinFailed(ending) => Event::JoinFailed(ending.map(TracedEnding::read).transpose()?),
            Heard::Seen(view) => Event::Seen(view.read()?),
            Heard::Renewed { lease, stamp, alive } => Event::Renewed {
                lease: LeaseId(lease),
                stamp: stamp.into(),
                answer: alive
                    .map_or(RenewAnswer::NotFound, |(ttl, raft_term)| RenewAnswer::Alive { ttl, raft_term }),
            },
            Heard::Read { id, answer } => {
                let read =
                    |(view, raft_term): (TracedView, u64)| Ok(ReadAnswer { view: view.read()?, raft_term });
                Event::Read { id: ReadId(id), answer: answer.map(read).transpose()? }
            }
            Heard::Claimed { nonce, answer, seen } => Event::Claimed {
                nonce: Nonce(nonce),
                answer: answer.read()?,
                seen: seen.map(|view| view.read().map(Box::new)).transpose()?,
            },
            Heard::Registered(generation) => Event::Registered(generation.map(Revision)),
            Heard::Released(gone) => Event::Released(gone),
            Heard::MainLoopEnded(code) => Event::MainLoopEnded(code),
            Heard::MainLoopHung => Event::MainLoopHung,
            Heard::Fenced(token) => Event::Fenced(read_token(token)?),
            Heard::StoreChanged(how) => Event::StoreChanged(how),
            Heard::Shutdown(reason) => Event::Shutdown(read_reason(&reason)?),
            Heard::StepDown(wanted) => Event::StepDown(wanted),
            Heard::SetPriority(priority) => Event::SetPriority(priority),
            Heard::Readiness(unready) => {
                Event::Readiness(unready.map(|(why, claims_last)| Unready { why, claims_last }))
            }
            Heard::Prepare(token) => Event::Prepare(read_token(token)?),
            Heard::Prepared(ready) => {
                Event::Prepared(ready.into_iter().map(TracedReady::read).collect::<Result<_, _>>()?)
            }
            Heard::HandedOver(answer) => Event::HandedOver(answer.into()),
            Heard::Probed(health) => Event::Probed(health.into()),
        })
    }
}

fn read_token(token: u64) -> Result<Token, UnreadableTrace> {
    let none = || UnreadableTrace { what: "the token", value: token.to_string() };
    Token::new(Revision(token)).ok_or_else(none)
}

fn read_reason(name: &str) -> Result<Reason, UnreadableTrace> {
    Reason::parse(name).ok_or_else(|| UnreadableTrace { what: "the reason", value: name.into() })
}

// === impl of the smaller ones ===

impl From<&Ready> for TracedReady {
    fn from(Ready { member, healthy_for }: &Ready) -> Self {
        Self { member: member.into(), healthy_for: *healthy_for }
    }
}

impl TracedReady {
    fn read(self) -> Result<Ready, UnreadableTrace> {
        Ok(Ready { member: self.member.read()?, healthy_for: self.healthy_for })
    }
}

impl From<&Joined> for TracedJoin {
    fn from(joined: &Joined) -> Self {
        let Joined { lease, stamp, ttl, generation, view, raft_term } = joined;
        Self {
            lease: lease.0,
            stamp: (*stamp).into(),
            ttl: *ttl,
            generation: generation.0,
            view: view.into(),
            raft_term: *raft_term,
        }
    }
}

impl TracedJoin {
    fn read(self) -> Result<Joined, UnreadableTrace> {
        let Self { lease, stamp, ttl, generation, view, raft_term } = self;
        Ok(Joined {
            lease: LeaseId(lease),
            stamp: stamp.into(),
            ttl,
            generation: Revision(generation),
            view: view.read()?,
            raft_term,
        })
    }
}

impl From<&Ending> for TracedEnding {
    fn from(ending: &Ending) -> Self {
        let Ending { reason, main_loop_code, detail } = ending;
        Self { reason: reason.as_str().into(), main_loop_code: *main_loop_code, detail: detail.clone() }
    }
}

impl TracedEnding {
    fn read(self) -> Result<Ending, UnreadableTrace> {
        let Self { reason, main_loop_code, detail } = self;
        Ok(Ending { reason: read_reason(&reason)?, main_loop_code, detail })
    }
}

impl From<ClaimAnswer> for Claim {
    fn from(answer: ClaimAnswer) -> Self {
        match answer {
            ClaimAnswer::Won(token) => Claim::Won(token.get()),
            ClaimAnswer::Lost => Claim::Lost,
            ClaimAnswer::Refused => Claim::Refused,
            ClaimAnswer::Unknown => Claim::Unknown,
        }
    }
}

impl Claim {
    fn read(self) -> Result<ClaimAnswer, UnreadableTrace> {
        Ok(match self {
            Claim::Won(token) => ClaimAnswer::Won(read_token(token)?),
            Claim::Lost => ClaimAnswer::Lost,
            Claim::Refused => ClaimAnswer::Refused,
            Claim::Unknown => ClaimAnswer::Unknown,
        })
    }
}

impl From<HandOverAnswer> for HandOver {
    fn from(answer: HandOverAnswer) -> Self {
        match answer {
            HandOverAnswer::Done => HandOver::Done,
            HandOverAnswer::Refused => HandOver::Refused,
            HandOverAnswer::Unknown => HandOver::Unknown,
        }
    }
}

impl From<HandOver> for HandOverAnswer {
    fn from(answer: HandOver) -> Self {
        match answer {
            HandOver::Done => HandOverAnswer::Done,
            HandOver::Refused => HandOverAnswer::Refused,
            HandOver::Unknown => HandOverAnswer::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::election::probe::{Failing, MemberHealth};
    use crate::election::record::{
        Foreign, Freeze, Incarnation, Leader, LeaderRecord, Member, MemberId, MemberUuid, Registration,
        Tenure, View,
    };

    fn view() -> View {
        let id = |n: u64| MemberId {
            node: format!("n{n}"),
            uuid: MemberUuid(n.into()),
            incarnation: Incarnation(n),
        };
        let ttl = Duration::from_millis(5001);
        let registration = |n: u64| Registration {
            member: id(n),
            rpc_address: format!("r{n}:1"),
            http_address: format!("h{n}:2"),
            priority: 7,
            version: "1.2".into(),
            ttl,
            lease: LeaseId(-5),
        };
        let member =
            |n: u64| Member { registration: registration(n), created: Revision(3), generation: Revision(4) };
        let record = LeaderRecord {
            holder: id(1),
            address: "r1:1".into(),
            nonce: Nonce(9),
            ttl,
            acquired_ms: 11,
            transitions: 12,
            probe_handed_ms: 13,
        };
        let token = Token::new(Revision(6)).expect("positive");
        let tenure = Tenure { record, token, lease: LeaseId(5), rewritten: true };
        View {
            revision: Revision(8),
            leader: Leader::Held(Box::new(tenure)),
            members: vec![member(1), member(2)],
            foreign: Some(Foreign { key: "k".into(), value: "v".into() }),
            freeze: Some((
                Freeze { reason: "r".into(), by: "b".into(), since_ms: 1, until_ms: Some(2) },
                Revision(8),
            )),
        }
    }

    fn every_event() -> Vec<Event> {
        let token = Token::new(Revision(6)).expect("positive");
        let stamp = Instant::from_nanos(1, 2);
        let ending =
            Ending { main_loop_code: Some(3), detail: "why".into(), ..Ending::of(Reason::NodeIdInUse) };
        let (lease, ttl, raft_term) = (LeaseId(i64::MAX), Duration::from_secs(5), u64::MAX);
        let claimed = |answer| Event::Claimed { nonce: Nonce(2), answer, seen: Some(Box::new(view())) };
        let foreign = View { leader: Leader::Foreign("f".into()), foreign: None, ..view() };
        let mut events = vec![
            Event::Joined(Joined { lease, stamp, ttl, generation: Revision(1), view: view(), raft_term }),
            Event::JoinFailed(Some(ending)),
            Event::JoinFailed(None),
            Event::Seen(view()),
            Event::Seen(foreign),
            Event::Seen(View::default()),
            Event::Renewed { lease, stamp, answer: RenewAnswer::Alive { ttl, raft_term } },
            Event::Renewed { lease, stamp, answer: RenewAnswer::NotFound },
            Event::Read { id: ReadId(4), answer: Some(ReadAnswer { view: view(), raft_term }) },
            Event::Read { id: ReadId(4), answer: None },
            Event::Registered(Some(Revision(5))),
            Event::Released(true),
            Event::MainLoopEnded(Some(-1)),
            Event::MainLoopHung,
            Event::Fenced(token),
            Event::StoreChanged("how".into()),
            Event::StepDown(Some("n2".into())),
            Event::SetPriority(7),
            Event::Readiness(Some(Unready { why: "cold".into(), claims_last: true })),
            Event::Readiness(None),
            Event::Prepare(token),
            Event::Prepared(vec![Ready {
                member: view().members[1].registration.member.clone(),
                healthy_for: Duration::from_secs(7),
            }]),
            Event::Probed(MemberHealth::Unprobed),
            Event::Probed(MemberHealth::Untried),
            Event::Probed(MemberHealth::Healthy { since: stamp }),
            Event::Probed(MemberHealth::Failing(Failing {
                since: stamp,
                measured: "why".into(),
                has_failed: true,
            })),
        ];
        events.extend(Reason::ALL.map(Event::Shutdown));
        let answers =
            [ClaimAnswer::Won(token), ClaimAnswer::Lost, ClaimAnswer::Refused, ClaimAnswer::Unknown];
        events.extend(answers.map(claimed));
        let answers = [HandOverAnswer::Done, HandOverAnswer::Refused, HandOverAnswer::Unknown];
        events.extend(answers.map(Event::HandedOver));
        events
    }

    #[test]
    fn every_event_is_read_as_it_was_written() {
        for event in every_event() {
            let text = serde_json::to_string(&Heard::from(&event)).expect("JSON");
            let heard: Heard = serde_json::from_str(&text).expect("a line");
            assert_eq!(Event::try_from(heard), Ok(event), "{text}");
        }
    }

    #[test]
    fn a_line_that_no_elector_can_have_heard_is_refused_by_name() {
        let refused = |heard: &str| {
            let heard: Heard = serde_json::from_str(heard).expect("a line");
            Event::try_from(heard).expect_err("refused").to_string()
        };
        assert_eq!(refused(r#"{"fenced":0}"#), r#"the token "0" does not exist"#);
        assert_eq!(refused(r#"{"shutdown":"tired"}"#), r#"the reason "tired" does not exist"#);
    }
}
