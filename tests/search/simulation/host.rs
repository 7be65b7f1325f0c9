//! The things of the simulated world: machines, data dirs, processes.
//!
//! Values only; what happens to them is in `world`, `process`, `guardian` and `main_loop`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metad::clock::Instant;
use metad::data_dir::Place;
use metad::driver::DriverHandle;
use metad::driver::readiness::Readiness;
use metad::election::elector::Elector;
use metad::election::elector::State;
use metad::election::lease::LeaseId;
use metad::election::record::{MemberId, Nonce, Revision, Token};
use metad::guardian::horizon::Horizon;
use metad::guardian::rules::GuardianRules;

use crate::simulation::clock::Drift;

/// A machine with a data dir.
pub struct Host {
    /// The configured name; a second data dir shares it.
    pub node: String,
    /// Is it the second data dir under its name?
    pub second: bool,
    /// For vacancies.
    pub priority: u16,
    /// What is installed there.
    pub version: &'static str,
    /// Does it have a probe?
    pub is_probed: bool,
    /// Does that fail?
    pub is_ill: bool,
    /// Its clocks.
    pub clock: Drift,
    /// Where the data dir is.
    pub place: Place,
    /// The files of the data dir: they survive a crash.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Does the operator accept, at the next start, that the store is another one?
    pub accepts_new_store: bool,
    /// What runs.
    pub process: Option<Process>,
    /// Its requests do not arrive until then.
    pub cut_until: u64,
    /// A deposed etcd leader acknowledges its renewals until then, in this old term.
    pub stale_until: u64,
    /// The old term.
    pub stale_term: u64,
    /// Its watch shows nothing until then.
    pub silent_until: u64,
}

/// A process of metad, as its observer and its main loop have shown it.
pub struct Process {
    /// Names it.
    pub pid: u32,
    /// Who it is.
    pub me: MemberId,
    /// Its driver.
    pub handle: DriverHandle,
    /// Where it says whether it is warm.
    pub readiness: Readiness,
    /// Have its probes run?
    pub was_probed: bool,
    /// For how long it has been healthy, as it last said when it was ready.
    pub said_healthy_for: Option<Duration>,
    /// What it has told its guardians.
    pub told: Arc<Mutex<GuardianRules>>,
    /// The deadlines, which its switch and its guardian share.
    pub horizon: Arc<Horizon>,
    /// Stopped as by SIGSTOP.
    pub paused: bool,
    /// Was it ever?
    pub was_paused: bool,
    /// It has decided to end.
    pub is_ending: bool,
    /// Its elector's state and lease, as of its last event.
    pub seen: Option<Seen>,
    /// The main loop, from the order to start it.
    pub main_loop: Option<MainLoop>,
    /// The newest view that its elector was shown, and the record in it.
    pub shown: (Revision, Option<Token>),
    /// The greatest token that it was ever shown.
    pub seen_token: Option<Token>,
    /// How many tasks it has.
    pub tasks: usize,
    /// The claim whose outcome was reported as unknown.
    pub unsure: Option<Nonce>,
    /// The claim that its elector has just heard to be lost.
    pub lost_claim: Option<Nonce>,
    /// H as the last check saw it.
    pub checked: Option<Instant>,
}

/// What an observer keeps of an elector.
#[derive(Clone, Debug)]
pub struct Seen {
    pub claiming: Option<Nonce>,
    pub leading: Option<Token>,
    pub lease: Option<(LeaseId, Instant)>,
}

/// A main loop in its process, or the program that it stands for.
#[derive(Clone, Copy, Debug)]
pub struct MainLoop {
    /// Its tenure.
    pub token: Token,
    /// When it was ordered, in real time.
    pub ordered_at: u64,
    /// Did it act, or may it have?
    pub begun: bool,
    /// Has it completely ended?
    pub ended: bool,
    /// Is it a program of the guardian's, which may outlive its process?
    pub is_program: bool,
}

impl Seen {
    /// Looks at an elector.
    pub fn of(elector: &Elector) -> Self {
        let state = elector.state();
        Self {
            claiming: match state {
                State::Claiming { nonce, .. } => Some(*nonce),
                _ => None,
            },
            leading: match state {
                State::Leading { token } => Some(*token),
                _ => None,
            },
            lease: elector.lease().map(|l| (l.id(), l.holds_until())),
        }
    }
}

impl Process {
    /// The main loop, if it has begun and not ended.
    pub fn running(&self) -> Option<&MainLoop> {
        self.main_loop.as_ref().filter(|l| l.begun && !l.ended)
    }

    /// Does it lead, with a main loop?
    pub fn leads(&self) -> Option<Token> {
        self.seen.as_ref()?.leading.filter(|t| self.running().is_some_and(|l| l.token == *t))
    }
}
