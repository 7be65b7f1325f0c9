//! The things of the simulated world: machines, data dirs, processes, main loops.
//!
//! Values only; what happens to them is in `world`, `process` and `main_loop`.

use std::collections::BTreeMap;

use metad::clock::Instant;
use metad::election::elector::{Elector, State};
use metad::election::event::{ReadId, Ready};
use metad::election::lease::LeaseId;
use metad::election::record::{Incarnation, LeaderRecord, MemberUuid, Nonce, Revision, Token};
use metad::protocol::join::{Join, Pin};

use crate::simulation::clock::Drift;
use crate::simulation::world::Input;

/// As in the data dir: older leases beyond this many end by themselves.
const OLDER_LEASES_MAX: usize = 16;

/// A machine with a data dir.
#[derive(Debug)]
pub struct Host {
    /// The configured name; a second data dir shares it.
    pub node: String,
    /// Is it the second data dir under its name?
    pub second: bool,
    /// For vacancies.
    pub priority: u16,
    /// Its clocks.
    pub clock: Drift,
    /// What survives a crash.
    pub disk: Disk,
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

/// A data dir, with the rules of `driver/data_dir.rs`.
#[derive(Clone, Debug)]
pub struct Disk {
    /// Who.
    pub uuid: MemberUuid,
    /// Which start.
    pub incarnation: Incarnation,
    lease: Option<LeaseId>,
    older: Vec<LeaseId>,
    /// The store it belongs to.
    pub pin: Option<Pin>,
}

/// A process of metad.
#[derive(Debug)]
pub struct Process {
    /// Names it.
    pub pid: u32,
    /// When it started.
    pub started: u64,
    /// The real elector.
    pub elector: Elector,
    /// The real join machine, while a join is under way.
    pub join: Option<Join>,
    /// When this join began: a silent holder of our node id is waited for so long.
    pub join_began: u64,
    /// Has a join ever worked?
    pub has_joined: bool,
    /// The fuse's own copy of H.
    pub fuse: Option<Instant>,
    /// What the main loop's checks see of S.
    pub stop_at: Option<Instant>,
    /// The main loop, from the order to start it.
    pub main_loop: Option<MainLoop>,
    /// Requests without an answer.
    pub calls: BTreeMap<u64, Call>,
    /// Renewals without an answer, and writes of the main loop: nobody waits for these.
    pub open: BTreeMap<u64, Call>,
    /// Candidates that said to be ready.
    pub ready: Vec<Ready>,
    /// Stopped as by SIGSTOP.
    pub paused: bool,
    /// What waits for the end of the pause.
    pub backlog: Vec<Input>,
    /// When the driver wakes up by itself.
    pub wake_at: u64,
    /// The newest picture that the watch has delivered: a watch never goes back.
    pub watched: Revision,
    /// The newest picture that was delivered, by watch or answer, and the record in it.
    pub shown: (Revision, Option<Token>),
    /// The claim whose outcome was reported as unknown.
    pub unsure: Option<Nonce>,
    /// H as the last check saw it.
    pub checked: Option<Instant>,
}

/// A request that left.
#[derive(Debug)]
pub struct Call {
    /// What for.
    pub purpose: Purpose,
    /// Taken before it left.
    pub stamp: Instant,
    /// The same in real time.
    pub sent: u64,
}

/// What a request is for, and what its answer needs.
#[derive(Clone, Debug)]
pub enum Purpose {
    /// Which read, and the newest revision seen when it began.
    Read(ReadId, Revision),
    Register,
    Claim(Box<LeaderRecord>, Nonce, Revision),
    Release,
    HandOver,
    Join,
    Renew(LeaseId),
    Write(Token),
    Goodbye,
}

/// A main loop.
#[derive(Debug)]
pub struct MainLoop {
    /// Its tenure.
    pub token: Token,
    /// Did it act, or may it have?
    pub begun: bool,
    /// Has it completely ended?
    pub ended: bool,
    /// Was it told to stop?
    pub told: bool,
    /// How long it takes to end when told; `None`: it hangs until it is aborted.
    pub stop_after: Option<u64>,
    /// Does it not even end when it is ended the hard way? Then only the end of the process ends it.
    pub deaf: bool,
    /// Does it do nothing any more?
    pub hung: bool,
    /// How far apart its writes are.
    pub cadence: u64,
    /// Numbers its writes.
    pub writes: u64,
}

// === impl Disk ===

impl Disk {
    /// A fresh data dir.
    pub fn new(uuid: u128) -> Self {
        let uuid = MemberUuid(uuid);
        Self { uuid, incarnation: Incarnation(0), lease: None, older: Vec::new(), pin: None }
    }

    /// All leases that were ever asked for and are not known to be gone.
    pub fn own_leases(&self) -> Vec<LeaseId> {
        self.older.iter().copied().chain(self.lease).collect()
    }

    /// Puts a new lease's name on disk.
    pub fn next_lease(&mut self, lease: LeaseId) {
        self.older.extend(self.lease.replace(lease));
        let excess = self.older.len().saturating_sub(OLDER_LEASES_MAX);
        self.older.drain(..excess);
    }

    /// After a join.
    pub fn settle(&mut self, pin: Pin) {
        self.older.clear();
        let revision = self.pin.map_or(pin.revision, |p| p.revision.max(pin.revision));
        self.pin = Some(Pin { cluster: pin.cluster, revision });
    }
}

// === impl Process ===

impl Process {
    /// A process that has just started.
    pub fn new(pid: u32, now: u64, elector: Elector) -> Self {
        Self {
            pid,
            started: now,
            elector,
            join: None,
            join_began: now,
            has_joined: false,
            fuse: None,
            stop_at: None,
            main_loop: None,
            calls: BTreeMap::new(),
            open: BTreeMap::new(),
            ready: Vec::new(),
            paused: false,
            backlog: Vec::new(),
            wake_at: u64::MAX,
            watched: Revision(0),
            shown: (Revision(0), None),
            unsure: None,
            checked: None,
        }
    }

    /// The claim whose outcome it waits for.
    pub fn claiming(&self) -> Option<Nonce> {
        match self.elector.state() {
            State::Claiming { nonce, .. } => Some(*nonce),
            _ => None,
        }
    }

    /// The main loop, if it has begun and not ended.
    pub fn running(&self) -> Option<&MainLoop> {
        self.main_loop.as_ref().filter(|l| l.begun && !l.ended)
    }

    /// Does it lead, with a main loop?
    pub fn leads(&self) -> Option<Token> {
        matches!(self.elector.state(), State::Leading { .. }).then(|| self.running().map(|l| l.token))?
    }

    /// Has H passed, as the fuse sees it?
    pub fn is_burnt(&self, now: Instant) -> bool {
        self.fuse.is_some_and(|at| now.reached(at))
    }
}
