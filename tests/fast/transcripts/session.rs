//! One elector, driven by commands.
//!
//! | command | does |
//! | --- | --- |
//! | `start node=a [uuid= incarnation= start_timeout= stop_timeout= failback=]` | makes it (10 s each, no fail-back) |
//! | `at 1500`, `at boot:1500/raw:900` | sets the clock, and does nothing else |
//! | `timeout` | `handle_timeout`; all other commands are events |
//! | `joined lease=1 stamp=0 gen=5 VIEW [ttl= term=]` | registered under a new lease |
//! | `join-failed [reason]` | with a reason it is final |
//! | `seen VIEW` | the watch showed a view |
//! | `renewed stamp=500 [lease= ttl= term=]`, `renewed stamp=500 not-found` | a renewal was answered |
//! | `read id=3 [VIEW term=]`, `read id=3 failed` | a linearizable read was answered |
//! | `claimed nonce=1 won=7`, `claimed nonce=1 lost` (or `refused`, `unknown`) | a claim was |
//! | `registered 9`, `registered failed` | a registration was |
//! | `released yes`, `released no` | a release was |
//! | `unready last`, `unready never`, `ready` | it is not ready and claims last, or never; it is |
//! | `prepare 6` | the leader of this tenure asks whether we would take over |
//! | `prepared b c/20s` | these have said that they are ready, and for how long they have been healthy (for ever) |
//! | `probed failing`, `probed failed` (or `untried`, `healthy`) | our own probes have come to this |
//! | `store-changed` | the store went back in time, or is another one |
//! | `main-loop-ended [code]`, `main-loop-hung`, `fenced 7`, `shutdown signal`, `shutdown request` | as they say |
//!
//! [`super::view`] explains VIEW. Unless told, the ttl is 10 s and the raft term 1.

use std::time::Duration;

use metad::clock::Instant;
use metad::election::elector::{Elector, ElectorSettings};
use metad::election::event::{
    ClaimAnswer, Event, HandOverAnswer, Joined, ReadAnswer, ReadId, Ready, RenewAnswer,
};
use metad::election::history::{Ending, Reason};
use metad::election::lease::LeaseId;
use metad::election::probe::{Failing, MemberHealth};
use metad::election::readiness::Unready;
use metad::election::record::{Incarnation, MemberId, MemberUuid, Nonce, Revision};

use super::args::{Args, duration, instant, number};
use super::show::{self, Status};
use super::view::{Defaults, lease_id, token, uuid_of};

const TEN_SECONDS: Duration = Duration::from_secs(10);

/// An elector, the clock, and what was last said about it.
#[derive(Default)]
pub struct Session {
    now: Instant,
    elector: Option<Elector>,
    said: Status,
}

// === impl Session ===

impl Session {
    /// Runs one command; what comes back is what is new.
    pub fn run(&mut self, command: &str) -> Result<Vec<String>, String> {
        let mut args = Args::split(command, ' ')?;
        let now = self.now;
        match args.need_word("the command")? {
            "at" => {
                self.set_clock(&mut args)?;
                args.finish()?;
                return Ok(Vec::new());
            }
            "start" => self.elector = Some(start(&mut args)?),
            "timeout" => handle_timeout(self.elector()?, now)?,
            verb => {
                let elector = self.elector()?;
                let event = event(elector, verb, &mut args)?;
                elector.handle_event(now, event);
            }
        }
        args.finish()?;
        self.news()
    }

    /// The name of the elector's state.
    pub fn state_name(&self) -> String {
        self.elector.as_ref().map_or("none", |e| show::state_name(e.state())).into()
    }

    fn elector(&mut self) -> Result<&mut Elector, String> {
        self.elector.as_mut().ok_or_else(|| "no elector yet: begin with `> start`".into())
    }

    fn set_clock(&mut self, args: &mut Args) -> Result<(), String> {
        let now = instant(args.need_word("the time")?)?;
        if now.later(self.now) != now {
            return Err("a clock would go backwards".into());
        }
        self.now = now;
        Ok(())
    }

    fn news(&mut self) -> Result<Vec<String>, String> {
        let elector = self.elector()?;
        let mut news = Vec::new();
        while let Some(action) = elector.poll_action() {
            news.push(show::action(&action));
        }
        let status = Status::of(elector);
        news.extend(status.changes_since(&self.said));
        self.said = status;
        if news.is_empty() {
            news.push("nothing".into());
        }
        Ok(news)
    }
}

fn start(args: &mut Args) -> Result<Elector, String> {
    let node = args.need("node", |n| Ok(n.to_owned()))?;
    let uuid = args.get("uuid", number)?;
    let me = MemberId {
        uuid: uuid.map_or_else(|| uuid_of(&node), |n| MemberUuid(n.into())),
        incarnation: Incarnation(args.or("incarnation", number, 1)?),
        node,
    };
    Ok(Elector::new(ElectorSettings {
        me,
        stop_timeout: args.or("stop_timeout", duration, TEN_SECONDS)?,
        start_timeout: args.or("start_timeout", duration, TEN_SECONDS)?,
        failback_delay: args.get("failback", duration)?,
    }))
}

/// A deadline that `handle_timeout` leaves in the past would keep the driver's loop spinning.
fn handle_timeout(elector: &mut Elector, now: Instant) -> Result<(), String> {
    elector.handle_timeout(now);
    match elector.poll_timeout().is_some_and(|at| now.reached(at)) {
        true => Err("the next timeout has already passed".into()),
        false => Ok(()),
    }
}

fn event(elector: &Elector, verb: &str, args: &mut Args) -> Result<Event, String> {
    Ok(match verb {
        "joined" => Event::Joined(joined(elector, args)?),
        "join-failed" => Event::JoinFailed(args.word().map(reason).transpose()?.map(Ending::of)),
        "seen" => Event::Seen(defaults(elector, None).view(args)?),
        "renewed" => renewed(elector, args)?,
        "read" => read(elector, args)?,
        "claimed" => claimed(args)?,
        "registered" => Event::Registered(match args.need_word("the generation")? {
            "failed" => None,
            generation => Some(Revision(number(generation)?)),
        }),
        "released" => Event::Released(yes(args.need_word("yes or no")?)?),
        "main-loop-ended" => Event::MainLoopEnded(args.word().map(code).transpose()?),
        "ready" => Event::Readiness(None),
        "unready" => Event::Readiness(Some(Unready {
            why: "cold".into(),
            claims_last: match args.need_word("last or never")? {
                "last" => true,
                "never" => false,
                other => return Err(format!("`{other}` is neither last nor never")),
            },
        })),
        "prepare" => Event::Prepare(token(args.need_word("the token")?)?),
        "set-priority" => {
            Event::SetPriority(args.need_word("the priority")?.parse().map_err(|_| "no number")?)
        }
        "step-down" => Event::StepDown(args.word().map(str::to_owned)),
        "prepared" => Event::Prepared(ready(elector, args)?),
        "handed-over" => Event::HandedOver(match args.need_word("done, refused or unknown")? {
            "done" => HandOverAnswer::Done,
            "refused" => HandOverAnswer::Refused,
            "unknown" => HandOverAnswer::Unknown,
            other => return Err(format!("`{other}` is not an answer")),
        }),
        "probed" => Event::Probed(health(args)?),
        "store-changed" => Event::StoreChanged("it went back".into()),
        "main-loop-hung" => Event::MainLoopHung,
        "fenced" => Event::Fenced(token(args.need_word("the token")?)?),
        "shutdown" => Event::Shutdown(match args.need_word("signal or request")? {
            "signal" => Reason::ResignedSignal,
            "request" => Reason::ResignedRequest,
            other => return Err(format!("`{other}` is neither signal nor request")),
        }),
        _ => return Err("unknown command".into()),
    })
}

/// The members of the view that are named, as they are registered.
fn ready(elector: &Elector, args: &mut Args) -> Result<Vec<Ready>, String> {
    let mut ready = Vec::new();
    while let Some(text) = args.word() {
        ready.push(ready_one(elector, text)?);
    }
    Ok(ready)
}

/// `c` or `c/20s`.
fn ready_one(elector: &Elector, text: &str) -> Result<Ready, String> {
    let mut args = Args::split(text, '/')?;
    let node = args.need_word("the member")?;
    let healthy_for = args.word().map_or(Ok(Duration::MAX), duration)?;
    args.finish()?;
    let member = elector.view().member(node).ok_or_else(|| format!("no member {node}"))?;
    Ok(Ready { member: member.registration.member.clone(), healthy_for })
}

/// Since the beginning of time.
fn health(args: &mut Args) -> Result<MemberHealth, String> {
    let since = Instant::default();
    let failing = |has_failed| {
        let measured = "the probe command ended with exit code 1".to_owned();
        MemberHealth::Failing(Failing { since, measured, has_failed })
    };
    Ok(match args.need_word("untried, healthy, failing or failed")? {
        "untried" => MemberHealth::Untried,
        "healthy" => MemberHealth::Healthy { since },
        "failing" => failing(false),
        "failed" => failing(true),
        other => return Err(format!("`{other}` is not a health")),
    })
}

/// `joining`: the lease that is about to become ours.
fn defaults(elector: &Elector, joining: Option<LeaseId>) -> Defaults<'_> {
    let held = elector.lease().map(|l| l.id());
    Defaults { me: elector.me(), lease: joining.or(held).unwrap_or(LeaseId(0)), old: elector.view() }
}

fn joined(elector: &Elector, args: &mut Args) -> Result<Joined, String> {
    let lease = args.need("lease", lease_id)?;
    Ok(Joined {
        lease,
        stamp: args.need("stamp", instant)?,
        ttl: args.or("ttl", duration, TEN_SECONDS)?,
        generation: Revision(args.need("gen", number)?),
        view: defaults(elector, Some(lease)).view(args)?,
        raft_term: args.or("term", number, 1)?,
    })
}

fn renewed(elector: &Elector, args: &mut Args) -> Result<Event, String> {
    let held = elector.lease().map_or(LeaseId(0), |l| l.id());
    let answer = match args.word() {
        Some("not-found") => RenewAnswer::NotFound,
        Some(other) => return Err(format!("`{other}` is not an answer")),
        None => RenewAnswer::Alive {
            ttl: args.or("ttl", duration, TEN_SECONDS)?,
            raft_term: args.or("term", number, 1)?,
        },
    };
    let lease = args.or("lease", lease_id, held)?;
    Ok(Event::Renewed { lease, stamp: args.need("stamp", instant)?, answer })
}

fn read(elector: &Elector, args: &mut Args) -> Result<Event, String> {
    let id = ReadId(args.need("id", number)?);
    let answer = match args.word() {
        Some("failed") => None,
        Some(other) => return Err(format!("`{other}` is not an answer")),
        None => Some(ReadAnswer {
            view: defaults(elector, None).view(args)?,
            raft_term: args.or("term", number, 1)?,
        }),
    };
    Ok(Event::Read { id, answer })
}

fn claimed(args: &mut Args) -> Result<Event, String> {
    let nonce = Nonce(args.need("nonce", number)?);
    let answer = match (args.get("won", token)?, args.word()) {
        (Some(token), None) => ClaimAnswer::Won(token),
        (None, Some("lost")) => ClaimAnswer::Lost,
        (None, Some("refused")) => ClaimAnswer::Refused,
        (None, Some("unknown")) => ClaimAnswer::Unknown,
        _ => return Err("say won=<token>, lost, refused or unknown".into()),
    };
    Ok(Event::Claimed { nonce, answer, seen: None })
}

/// The reasons for which the driver stops trying to join.
const FINAL: [Reason; 6] = [
    Reason::NodeIdInUse,
    Reason::StoreUnavailable,
    Reason::StoreDenied,
    Reason::StoreChanged,
    Reason::DataDirStale,
    Reason::DiskFailed,
];

fn reason(text: &str) -> Result<Reason, String> {
    let reason = FINAL.into_iter().find(|r| r.as_str() == text);
    reason.ok_or_else(|| format!("`{text}` is not a reason to stop joining"))
}

fn yes(text: &str) -> Result<bool, String> {
    match text {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(format!("`{text}` is neither yes nor no")),
    }
}

fn code(text: &str) -> Result<i32, String> {
    text.parse().map_err(|_| format!("`{text}` is not an exit code"))
}
