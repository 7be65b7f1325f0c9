//! The elector's outputs as text. These words are in every transcript: change one, and all are recorded anew.
//!
//! Instants are milliseconds; where the two clocks differ, both readings are shown.

use metad::clock::Instant;
use metad::election::elector::{Elector, Pressure, State, Succession};
use metad::election::event::Action;
use metad::election::history::{Ending, Transition};
use metad::election::lease::{Lease, LeaseId};

/// The names of all states.
pub const STATE_NAMES: [&str; 10] = [
    "joining",
    "follower",
    "claiming",
    "starting",
    "leading",
    "stopping",
    "resigning",
    "stopped",
    "choosing",
    "handingover",
];

/// What is shown of an elector when it changes.
pub struct Status {
    state: String,
    lease: String,
    fuse: String,
    timeout: String,
}

// === impl Status ===

impl Default for Status {
    fn default() -> Self {
        Self { state: String::new(), lease: "none".into(), fuse: "off".into(), timeout: "none".into() }
    }
}

impl Status {
    /// The present status of `elector`.
    pub fn of(elector: &Elector) -> Self {
        let lease = elector.lease();
        let fuse = elector.fused_lease().map(|l| l.holds_until()).map_or("off", |at| {
            assert_eq!(Some(at), lease.map(Lease::holds_until), "the fuse fires at H");
            "armed"
        });
        Self {
            state: state(elector.state()),
            lease: lease.map_or("none".into(), |l| {
                format!("H={} S={}", instant(l.holds_until()), instant(l.step_down_at()))
            }),
            fuse: fuse.into(),
            timeout: elector.poll_timeout().map_or("none".into(), instant),
        }
    }

    /// One line for each part that is not as it was.
    pub fn changes_since(&self, before: &Status) -> Vec<String> {
        [
            ("state", &self.state, &before.state),
            ("lease", &self.lease, &before.lease),
            ("fuse", &self.fuse, &before.fuse),
            ("next timeout", &self.timeout, &before.timeout),
        ]
        .into_iter()
        .filter(|(_, now, before)| now != before)
        .map(|(name, now, _)| format!("{name}: {now}"))
        .collect()
    }
}

/// The name of a state, as the table of transitions has it, in lower case.
pub fn state_name(state: &State) -> &'static str {
    STATE_NAMES[match state {
        State::Joining { .. } => 0,
        State::Follower { .. } => 1,
        State::Claiming { .. } => 2,
        State::Starting { .. } => 3,
        State::Leading { .. } => 4,
        State::Stopping { .. } => 5,
        State::Resigning { .. } => 6,
        State::Stopped(_) => 7,
        State::Choosing { .. } => 8,
        State::HandingOver { .. } => 9,
    }]
}

fn state(state: &State) -> String {
    let details = match state {
        State::Joining { retry_at } => when("retry_at", retry_at),
        State::Follower { claim_at } => when("claim_at", claim_at),
        State::Claiming { nonce, generation, look_at } => {
            format!(" nonce={} generation={generation}{}", nonce.0, when("look_at", look_at))
        }
        State::Starting { token, give_up_at } => {
            format!(" token={token} give_up_at={}", instant(*give_up_at))
        }
        State::Leading { token } => format!(" token={token}"),
        State::Choosing { token, ending: e, until, .. } => {
            format!(" token={token} {} until={}", ending(e), instant(*until))
        }
        State::HandingOver { token, ending: e } => format!(" token={token} {}", ending(e)),
        State::Stopping { token, ending: e, pressure, succession } => {
            let pressure = match pressure {
                Pressure::Told { abort_at } => format!("abort_at={}", instant(*abort_at)),
                Pressure::Aborted { exit_at } => format!("aborted exit_at={}", instant(*exit_at)),
            };
            format!(" token={token} {} {pressure}{}", ending(e), successor(succession))
        }
        State::Resigning { token, ending: e, retry_at, give_up_at } => {
            let (retry, give_up) = (instant(*retry_at), instant(*give_up_at));
            format!(" token={token} {} retry_at={retry} give_up_at={give_up}", ending(e))
        }
        State::Stopped(e) => format!(" {}", ending(e)),
    };
    format!("{}{details}", state_name(state))
}

/// An action in words.
pub fn action(action: &Action) -> String {
    match action {
        Action::Join => "join".into(),
        Action::Renew(id) => format!("renew lease={}", lease(*id)),
        Action::Read(id) => format!("read id={}", id.0),
        Action::Register { lease: id, expected } => {
            format!("register lease={} expected={expected}", lease(*id))
        }
        Action::Claim { nonce, lease: id, generation } => {
            format!("claim nonce={} lease={} generation={generation}", nonce.0, lease(*id))
        }
        Action::StartMainLoop(token) => format!("start main loop token={token}"),
        Action::StopMainLoop(token, reason) => format!("stop main loop token={token} reason={reason}"),
        Action::AbortMainLoop => "abort main loop".into(),
        Action::EndProcess(e) => format!("end process {}", ending(e)),
        Action::Prepare { token, wanted } => {
            format!("prepare token={token}{}", wanted.as_ref().map_or(String::new(), |w| format!(" to={w}")))
        }
        Action::HandOver { token, successor, .. } => {
            let r = &successor.registration;
            format!(
                "hand over token={token} to={} lease={} generation={}",
                r.member.node,
                lease(r.lease),
                successor.generation
            )
        }
        Action::Release(token) => format!("release token={token}"),
        Action::Report(t) => format!("report {}", transition(t)),
        Action::Stop(e) => format!("stop {}", ending(e)),
    }
}

fn successor(succession: &Succession) -> String {
    match succession {
        Succession::None => String::new(),
        Succession::Asked { .. } => " candidates asked".into(),
        Succession::Successor { successor, .. } => {
            format!(" successor={}", successor.registration.member.node)
        }
    }
}

fn transition(transition: &Transition) -> String {
    match transition {
        Transition::Joined => "joined".into(),
        Transition::Rejoining => "rejoining".into(),
        Transition::Won(token) => format!("won token={token}"),
        Transition::LeadsOn(token, why) => format!("leads on token={token}: {why}"),
        Transition::Stopping(token, reason) => format!("stopping token={token} reason={reason}"),
        Transition::Resigned(token) => format!("resigned token={token}"),
        Transition::ClaimLost => "claim lost".into(),
        Transition::OutcomeUnknown => "outcome unknown".into(),
    }
}

fn ending(ending: &Ending) -> String {
    let code = ending.main_loop_code.map(|c| format!(" code={c}"));
    let detail = Some(&ending.detail).filter(|d| !d.is_empty());
    let detail = detail.map(|d| format!(" detail={d:?}"));
    format!("reason={}{}{}", ending.reason, code.unwrap_or_default(), detail.unwrap_or_default())
}

fn when(name: &str, at: &Option<Instant>) -> String {
    at.map_or(String::new(), |at| format!(" {name}={}", instant(at)))
}

fn lease(id: LeaseId) -> i64 {
    id.0
}

fn instant(at: Instant) -> String {
    let (boot, raw) = (at.boot_ns(), at.raw_ns());
    if boot == raw {
        return millis(boot);
    }
    format!("boot:{}/raw:{}", millis(boot), millis(raw))
}

fn millis(ns: u64) -> String {
    let text = format!("{}.{:03}", ns / 1_000_000, ns / 1_000 % 1_000);
    text.trim_end_matches('0').trim_end_matches('.').into()
}
