//! The events: a closed set, their log lines and their JSON.

use serde_json::{Map, Value, json};

use crate::clock::rfc3339;
use crate::election::exit::Exit;
use crate::election::history::Reason;
use crate::election::lease::LeaseId;
use crate::election::record::Token;

/// The target under which events are logged.
pub const TARGET: &str = module_path!();

/// Something that happened to this node, or that it saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The listeners are bound.
    Listening {
        /// The gRPC address.
        rpc: String,
        /// The HTTP address.
        http: String,
    },
    /// This node is registered and may lead.
    Joined {
        /// Its lease.
        lease: LeaseId,
        /// The granted time to live, in seconds.
        ttl_secs: u64,
        /// Its start number.
        incarnation: u64,
    },
    /// The candidate's lease was lost.
    Rejoining,
    /// The leader, as this node sees it, is another one now.
    LeaderChanged {
        /// Who leads.
        leader: Option<String>,
        /// Its token.
        token: Option<Token>,
        /// Who led before, as far as this node saw.
        previous: Option<String>,
        /// Why that one does not any more, as far as this node saw.
        reason: Option<Reason>,
        /// For how long nobody led, in milliseconds, if this node saw both.
        gap_ms: Option<u64>,
        /// May it have been longer? The one before left without a word.
        gap_at_least: bool,
    },
    /// The history says why a tenure has ended, or corrects what it said.
    TenureEnded(Box<Ended>),
    /// The data dir was deleted, or another folder is in its place.
    DataDirLost {
        /// The folder.
        path: String,
    },
    /// A member appeared.
    MemberJoined {
        /// Its node id.
        member: String,
        /// Where it answers gRPC.
        address: String,
    },
    /// The election is frozen, or for another reason or time than before.
    Frozen {
        /// What for.
        reason: String,
        /// Who said so.
        by: String,
        /// When it ends by itself, wall clock milliseconds since the Unix epoch; `None`: when somebody ends it.
        until_ms: Option<u64>,
    },
    /// The election is frozen no longer.
    Unfrozen,
    /// The time of the freeze was over, and this node has ended it.
    FreezeOver {
        /// What it was for.
        reason: String,
    },
    /// A member is gone.
    MemberLeft {
        /// Its node id.
        member: String,
    },
    /// The leader record is ours.
    LeadershipWon {
        /// The tenure's token.
        token: Token,
    },
    /// Somebody else was faster.
    ClaimLost,
    /// The store refuses the claim, whoever leads: it is full, or we have no permission.
    ClaimRefused {
        /// What it said.
        error: String,
    },
    /// The store refused a write of our main loop, because another member leads: the fence has held.
    WriteFenced {
        /// The token that it was under.
        token: Token,
    },
    /// The outcome of a write is unknown; it is being settled.
    OutcomeUnknown,
    /// Emitted before the main loop's first action.
    MainLoopStarted {
        /// The tenure's token.
        token: Token,
    },
    /// The probe of this node fails: it is not ready to lead, or soon makes way.
    ProbeFailing {
        /// What was measured.
        measured: String,
    },
    /// It has succeeded for a while.
    ProbeRecovered,
    /// The probe of this leader has failed, and it leads on all the same.
    LeadsOn {
        /// The tenure's token.
        token: Token,
        /// What was measured.
        measured: String,
        /// Why nobody takes over.
        why: &'static str,
    },
    /// The main loop was told to stop.
    MainLoopStopping {
        /// The tenure's token.
        token: Token,
        /// Why.
        reason: Reason,
    },
    /// Emitted after the main loop's last action.
    MainLoopStopped {
        /// The tenure's token.
        token: Token,
        /// Why.
        reason: Reason,
    },
    /// The leader record was given up.
    LeadershipResigned {
        /// The tenure's token.
        token: Token,
    },
    /// The store does not do what it is asked.
    StoreTrouble {
        /// What was asked.
        what: &'static str,
        /// What it said.
        error: String,
    },
    /// The store answers again.
    StoreRecovered {
        /// For how long it did not, in milliseconds.
        after_ms: u64,
    },
    /// Who is to blame, if something does not work, as far as this node can see.
    Verdict {
        /// The verdict, of a closed set.
        verdict: &'static str,
        /// It in words: what was seen, and what to do.
        text: String,
    },
    /// A check of this node and its surroundings has another result than the last time.
    CheckChanged {
        /// Its code.
        code: String,
        /// Its name.
        name: String,
        /// pass, warn, fail or unknown, as it was.
        from: &'static str,
        /// The same, as it is now.
        status: &'static str,
        /// What was measured.
        measured: String,
        /// What to do; empty when there is nothing.
        fix: String,
    },
    /// Somebody who may do so has asked for a change, and it was accepted.
    AdminAction {
        /// What was asked.
        action: &'static str,
        /// In whose favour.
        to: Option<String>,
        /// Who has asked, and from where.
        by: String,
    },
    /// The command of `meta.on_leader_change` was run.
    LeaderHookEnded(Box<HookEnded>),
    /// A caller may not do what it asks for.
    CallRefused {
        /// What it asked for.
        what: String,
        /// Why, and who it is as far as that is known.
        why: String,
        /// How many more were refused since the last such event.
        left_out: u64,
    },
    /// This node stops.
    Stopped {
        /// Why.
        reason: Reason,
        /// What a person should know besides.
        detail: String,
        /// The exit code.
        code: i32,
    },
}

/// The end of a tenure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its token.
    pub token: Token,
    /// Who led.
    pub leader: String,
    /// Why it has ended.
    pub reason: Reason,
    /// What a person should know besides.
    pub detail: String,
    /// How long it lasted, in milliseconds.
    pub held_ms: u64,
    /// Who led next, if that is known.
    pub next: Option<String>,
    /// For how long nobody led before that, in milliseconds.
    pub gap_ms: Option<u64>,
    /// May it have been longer?
    pub gap_at_least: bool,
    /// It was said before, and otherwise.
    pub is_correction: bool,
}

/// The end of one run of `meta.on_leader_change`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookEnded {
    /// Who leads, as it was told; `None`: nobody.
    pub leader: Option<String>,
    /// The leader's token.
    pub token: Option<Token>,
    /// ok, failed, timeout or not_started.
    pub result: &'static str,
    /// Its exit code, if it ended by itself.
    pub code: Option<i32>,
    /// Why it was not started.
    pub error: Option<String>,
    /// How long it ran, in milliseconds.
    pub took_ms: u64,
    /// How many lines of its output are not in the log.
    pub lines_left_out: u64,
}

/// An event with its time and place.
#[derive(Clone, Debug)]
pub struct Stamped {
    /// The node that emitted it.
    pub node: String,
    /// When, on `CLOCK_BOOTTIME`, in nanoseconds: comparable between processes of one machine.
    pub boot_ns: u64,
    /// When, on the wall clock, in milliseconds since the Unix epoch.
    pub wall_ms: u64,
    /// What.
    pub event: Event,
}

// === impl Event ===

impl Event {
    /// Its name in JSON: a noun and what happened to it.
    pub fn kind(&self) -> &'static str {
        match self {
            Event::Listening { .. } => "listening",
            Event::Joined { .. } => "joined",
            Event::Rejoining => "rejoining",
            Event::LeaderChanged { .. } => "leader_changed",
            Event::TenureEnded(_) => "tenure_ended",
            Event::DataDirLost { .. } => "data_dir_lost",
            Event::Frozen { .. } => "frozen",
            Event::Unfrozen => "unfrozen",
            Event::FreezeOver { .. } => "freeze_over",
            Event::MemberJoined { .. } => "member_joined",
            Event::MemberLeft { .. } => "member_left",
            Event::LeadershipWon { .. } => "leadership_won",
            Event::ClaimLost => "claim_lost",
            Event::ClaimRefused { .. } => "claim_refused",
            Event::WriteFenced { .. } => "write_fenced",
            Event::OutcomeUnknown => "outcome_unknown",
            Event::MainLoopStarted { .. } => "main_loop_started",
            Event::ProbeFailing { .. } => "probe_failing",
            Event::ProbeRecovered => "probe_recovered",
            Event::LeadsOn { .. } => "leads_on",
            Event::MainLoopStopping { .. } => "main_loop_stopping",
            Event::MainLoopStopped { .. } => "main_loop_stopped",
            Event::LeadershipResigned { .. } => "leadership_resigned",
            Event::StoreTrouble { .. } => "store_trouble",
            Event::StoreRecovered { .. } => "store_recovered",
            Event::Verdict { .. } => "verdict",
            Event::CheckChanged { .. } => "check_changed",
            Event::AdminAction { .. } => "admin_action",
            Event::LeaderHookEnded(_) => "leader_hook_ended",
            Event::CallRefused { .. } => "call_refused",
            Event::Stopped { .. } => "stopped",
        }
    }

    fn fields(&self) -> Value {
        match self {
            Event::Listening { rpc, http } => json!({ "rpc": rpc, "http": http }),
            Event::Joined { lease, ttl_secs, incarnation } => {
                json!({ "lease": lease.to_string(), "ttl_secs": ttl_secs, "incarnation": incarnation })
            }
            Event::LeaderChanged { leader, token, previous, reason, gap_ms, gap_at_least } => json!({
                "leader": leader,
                "token": token.map(Token::get),
                "previous": previous,
                "reason": reason.map(Reason::as_str),
                "planned": reason.map(Reason::is_planned),
                "gap_ms": gap_ms,
                "gap_at_least": gap_at_least,
            }),
            Event::TenureEnded(ended) => ended.fields(),
            Event::DataDirLost { path } => json!({ "path": path }),
            Event::Frozen { reason, by, until_ms } => {
                json!({ "reason": reason, "by": by, "until": until_ms.map(rfc3339) })
            }
            Event::FreezeOver { reason } => json!({ "reason": reason }),
            Event::MemberJoined { member, address } => json!({ "member": member, "address": address }),
            Event::MemberLeft { member } => json!({ "member": member }),
            Event::LeadershipWon { token }
            | Event::MainLoopStarted { token }
            | Event::WriteFenced { token }
            | Event::LeadershipResigned { token } => json!({ "token": token.get() }),
            Event::MainLoopStopping { token, reason } | Event::MainLoopStopped { token, reason } => {
                json!({ "token": token.get(), "reason": reason.as_str() })
            }
            Event::ProbeFailing { measured } => json!({ "measured": measured }),
            Event::LeadsOn { token, measured, why } => {
                json!({ "token": token.get(), "measured": measured, "why": why })
            }
            Event::StoreTrouble { what, error } => json!({ "what": what, "error": error }),
            Event::ClaimRefused { error } => json!({ "error": error }),
            Event::StoreRecovered { after_ms } => json!({ "after_ms": after_ms }),
            Event::Verdict { verdict, text } => json!({ "verdict": verdict, "text": text }),
            Event::CheckChanged { code, name, from, status, measured, fix } => json!({
                "code": code, "name": name, "from": from, "status": status, "measured": measured, "fix": fix,
            }),
            Event::AdminAction { action, to, by } => json!({ "action": action, "to": to, "by": by }),
            Event::LeaderHookEnded(ended) => ended.fields(),
            Event::CallRefused { what, why, left_out } => {
                json!({ "what": what, "why": why, "left_out": left_out })
            }
            Event::Stopped { reason, detail, code } => {
                json!({ "reason": reason.as_str(), "detail": detail, "code": code })
            }
            Event::Rejoining
            | Event::ClaimLost
            | Event::OutcomeUnknown
            | Event::ProbeRecovered
            | Event::Unfrozen => json!({}),
        }
    }

    /// Writes its log line. The words are near those that people already grep for.
    pub(super) fn log(&self) {
        use tracing::{info, warn};
        let event = self.kind();
        match self {
            Event::Listening { rpc, http } => info!(event, %rpc, %http, "listening"),
            Event::Joined { lease, ttl_secs, incarnation } => {
                info!(event, %lease, ttl_secs, incarnation, "registered; this node may lead");
            }
            Event::Rejoining => warn!(event, "lease lost as a candidate; registering again with a new lease"),
            Event::LeaderChanged { leader: Some(leader), token, gap_ms, .. } => {
                info!(event, %leader, token = token.map(Token::get), gap_ms, "leader has been changed to {leader}");
            }
            Event::LeaderChanged { leader: None, previous, reason, .. } => {
                let reason = reason.map(Reason::as_str);
                info!(event, previous = previous.as_deref(), reason, "no leader");
            }
            Event::TenureEnded(ended) => ended.log(event),
            Event::DataDirLost { path } => tracing::error!(
                event,
                path,
                "the data dir was deleted, or replaced by another folder: this node keeps running as long as \
                 it writes nothing there, but its next start will be a new node, which waits until this \
                 one's lease has ended; restore the folder, or restart this node with step-down at a \
                 convenient time"
            ),
            Event::Frozen { .. } | Event::Unfrozen | Event::FreezeOver { .. } => log_freeze(event, self),
            Event::MemberJoined { member, address } => info!(event, %member, %address, "member joined"),
            Event::MemberLeft { member } => info!(event, %member, "member left"),
            Event::LeadershipWon { token } => info!(event, token = token.get(), "leadership won"),
            Event::WriteFenced { token } => {
                warn!(event, token = token.get(), "a write was refused, and not made: another member leads")
            }
            Event::ClaimLost => info!(event, "claim lost: another member was faster"),
            Event::ClaimRefused { error } => {
                warn!(event, %error, "the store refuses this node's claim; it cannot lead until that is fixed");
            }
            Event::OutcomeUnknown => warn!(event, "the outcome of a write is unknown; reading back"),
            Event::MainLoopStarted { token } => {
                info!(event, token = token.get(), "became leader, main loop started")
            }
            Event::ProbeFailing { .. } | Event::ProbeRecovered | Event::LeadsOn { .. } => {
                self.log_probe(event)
            }
            Event::MainLoopStopping { token, reason } => log_stopping(*token, *reason),
            Event::MainLoopStopped { token, reason } => {
                info!(event, token = token.get(), %reason, "main loop stopped")
            }
            Event::LeadershipResigned { token } => info!(event, token = token.get(), "leadership given up"),
            Event::StoreTrouble { what, error } => {
                warn!(event, what, %error, "requests to the store fail")
            }
            Event::StoreRecovered { after_ms } => info!(event, after_ms, "the store answers again"),
            Event::Verdict { verdict, text } => warn!(event, verdict, "verdict: {text}"),
            Event::CheckChanged { code, name, from, status: "pass", measured, .. } => {
                info!(event, code, name, from, measured, "check passes again");
            }
            Event::CheckChanged { code, name, status, measured, fix, .. } => {
                warn!(event, code, name, status, measured, fix, "check does not pass");
            }
            Event::AdminAction { action, to, by } => {
                info!(event, action, to = to.as_deref(), %by, "{by} requested a {action}");
            }
            Event::LeaderHookEnded(ended) => ended.log(event),
            Event::CallRefused { what, why, left_out } => {
                warn!(event, what, why, left_out, "refused: {what}: {why}")
            }
            Event::Stopped { reason, detail, code } => log_stopped(event, *reason, detail, *code),
        }
    }
}

impl Event {
    fn log_probe(&self, event: &str) {
        match self {
            Event::ProbeFailing { measured } => {
                tracing::warn!(event, measured, "this node fails its probe: {measured}");
            }
            Event::LeadsOn { token, measured, why } => {
                tracing::warn!(
                    event,
                    token = token.get(),
                    measured,
                    why,
                    "this node fails its probe, and leads on: {why}"
                );
            }
            _ => tracing::info!(event, "this node passes its probe again"),
        }
    }
}

/// Does it end before a main loop has started?
fn never_led(reason: Reason) -> bool {
    matches!(reason, Reason::LeaseExpired | Reason::DataDirStale)
}

fn log_stopped(event: &str, reason: Reason, detail: &str, code: i32) {
    if code == 0 || reason.is_planned() {
        tracing::info!(event, %reason, detail, code, "stopped");
    } else if code == Exit::LeadershipLost.code() && !never_led(reason) {
        tracing::warn!(event, %reason, detail, code, "stopped"); // the loss was the error
    } else {
        tracing::error!(event, %reason, detail, code, "stopped");
    }
}

/// The words that operators of such systems know, where they apply.
fn log_stopping(token: Token, reason: Reason) {
    let (event, token) = ("main_loop_stopping", token.get());
    match reason {
        Reason::RenewDeadline | Reason::ClockSuspended => {
            tracing::error!(event, token, %reason, "lease timeout: keep alive failed, stopping main loop");
        }
        Reason::MainLoopEnded => {
            tracing::info!(event, token, %reason, "the main loop ended on its own")
        }
        Reason::ProbeFailed => {
            tracing::error!(event, token, %reason, "the probe has failed, handing over")
        }
        Reason::MainLoopHung => {
            tracing::error!(event, token, %reason, "the main loop hangs, stopping it")
        }
        _ if reason.is_planned() => tracing::info!(event, token, %reason, "stopping main loop"),
        _ => tracing::error!(event, token, %reason, "keep alive failed, stopping main loop"),
    }
}

// === impl Ended ===

impl Ended {
    fn fields(&self) -> Value {
        json!({
            "token": self.token.get(),
            "leader": self.leader,
            "reason": self.reason.as_str(),
            "planned": self.reason.is_planned(),
            "detail": self.detail,
            "held_ms": self.held_ms,
            "next": self.next,
            "gap_ms": self.gap_ms,
            "gap_at_least": self.gap_at_least,
            "correction": self.is_correction,
        })
    }

    fn log(&self, event: &str) {
        let Self { leader, reason, detail, held_ms, .. } = self;
        let token = self.token.get();
        if reason.is_planned() {
            tracing::info!(event, token, %leader, %reason, held_ms, "leadership of {leader} ended");
        } else {
            tracing::warn!(event, token, %leader, %reason, detail, held_ms, "leadership of {leader} ended unplanned");
        }
    }
}

// === impl HookEnded ===

impl HookEnded {
    fn fields(&self) -> Value {
        json!({
            "leader": self.leader,
            "token": self.token.map(Token::get),
            "result": self.result,
            "code": self.code,
            "error": self.error,
            "took_ms": self.took_ms,
            "lines_left_out": self.lines_left_out,
        })
    }

    fn log(&self, event: &str) {
        let Self { result, code, took_ms, lines_left_out, .. } = self;
        let leader = self.leader.as_deref();
        match (*result, &self.error) {
            ("ok", _) => tracing::info!(event, leader, took_ms, lines_left_out, "on_leader_change ended"),
            ("timeout", _) => tracing::warn!(
                event,
                leader,
                took_ms,
                lines_left_out,
                "on_leader_change was killed: it took longer than meta.on_leader_change_timeout_secs"
            ),
            (_, Some(error)) => {
                tracing::warn!(event, leader, %error, "on_leader_change was not started: {error}")
            }
            _ => tracing::warn!(event, leader, code, took_ms, lines_left_out, "on_leader_change failed"),
        }
    }
}

// === impl Stamped ===

impl Stamped {
    /// One JSON object: `type`, `node`, `time`, `boot_ns`, and the event's own fields.
    pub fn to_json(&self) -> Value {
        let mut all = Map::new();
        all.insert("type".into(), self.event.kind().into());
        all.insert("node".into(), self.node.as_str().into());
        if let Value::Object(fields) = self.event.fields() {
            all.extend(fields);
        }
        let ms = i64::try_from(self.wall_ms).unwrap_or(i64::MAX);
        let time =
            jiff::Timestamp::from_millisecond(ms).map_or_else(|_| String::new(), |t| format!("{t:.3}"));
        all.insert("time".into(), time.into());
        all.insert("boot_ns".into(), self.boot_ns.into());
        Value::Object(all)
    }
}

/// A freeze that somebody forgets leaves a cluster without a fail-over, so it is a warning.
fn log_freeze(kind: &str, event: &Event) {
    use tracing::{info, warn};
    match event {
        Event::Frozen { reason, by, until_ms } => {
            let until = until_ms.map_or_else(|| "metad unfreeze".to_owned(), rfc3339);
            let message = "the election is frozen: no hand-over, no claim of a vacancy";
            warn!(target: TARGET, event = kind, %reason, %by, %until, "{message}");
        }
        Event::FreezeOver { reason } => {
            info!(target: TARGET, event = kind, %reason, "the time of the freeze is over: this node ends it");
        }
        _ => info!(target: TARGET, event = kind, "the election is not frozen any more"),
    }
}

#[cfg(all(test, feature = "node"))]
mod tests;
