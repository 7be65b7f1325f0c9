//! The state that is explored: the real elector, join machine and store, and what only the model has.
//!
//! Values and looks at them; what happens to them is in `time`, `network`, `driving` and `joining`. Processes and
//! store are shared between states until a step touches them. Two states are one when everything in them is,
//! except for the content of the watch's views, which follows from the store's own log.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use metad::clock::Instant;
use metad::election::elector::{Elector, State};
use metad::election::event::Ready;
use metad::election::lease::LeaseId;
use metad::election::record::{
    Incarnation, MemberId, MemberUuid, Nonce, Registration, Revision, Token, View,
};
use metad::protocol::effects::Purpose as AskedFor;
use metad::protocol::join::Join;
use metad::protocol::transactions::Answer;
use metad::store::Request;
use metad::store::codec::{Keys, WatchedKeys};
use metad::store::memory::MemoryState;

use crate::model::scenario::Kind;

/// Two ticks after a renewal has left, S has passed and H has not; after three, H has, and the lease may end.
pub const TICK: Duration = Duration::from_millis(1450);
/// The time to live of every lease.
pub const TTL: Duration = Duration::from_secs(3);

/// Everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub tick: u64,
    pub store: Arc<StoreSide>,
    pub nodes: [Arc<Node>; 2],
    /// Requests whose sender does not wait any more; they arrive late, or never.
    pub strays: Vec<Stray>,
    pub spent: Spent,
    /// The greatest token that a main loop was started on.
    pub begun: Option<Token>,
    pub broken: Broken,
}

/// How often something bounded has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Spent {
    pub losses: u8,
    pub crashes: u8,
    pub guardian_crashes: u8,
    pub writes: u8,
}

/// What a step did that no step may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Broken {
    pub stale_write: bool,
    pub token_again: bool,
    pub given_up_early: bool,
    pub honest_dir_refused: bool,
}

/// The store, and the views that a watch shows of it.
#[derive(Clone, Debug)]
pub struct StoreSide {
    pub state: MemoryState,
    pub freed: Option<Freed>,
    pub handed: Option<Token>,
    pub views: Vec<Arc<View>>,
    pub watched: WatchedKeys,
}

/// How the record became vacant the last time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Freed {
    Expiry,
    Guardian,
    Release,
}

/// A machine with a data dir.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    pub name: &'static str,
    pub disk: Disk,
    pub process: Option<Process>,
    /// Guardians whose process is dead.
    pub left: Vec<Guardian>,
    /// Where the last process crashed, if it was inside its join.
    pub scar: Option<JoinStep>,
    pub asked_to_stop: bool,
}

/// What survives a crash, with the rules of `src/data_dir.rs`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Disk {
    pub uuid: MemberUuid,
    pub incarnation: Incarnation,
    pub leases: Vec<LeaseId>,
    pub named: u8,
    pub seen: Option<Revision>,
}

/// A process of metad.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Process {
    pub elector: Elector,
    pub join: Option<Join>,
    pub calls: Vec<Call>,
    pub main_loop: Option<MainLoop>,
    pub guardian: Option<Guardian>,
    /// Did its first join take its record back?
    pub reclaimed: bool,
    /// The claim whose outcome was reported as unknown.
    pub unsure: Option<Nonce>,
}

/// A main loop, from the order to start it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MainLoop {
    pub token: Token,
    pub told: bool,
    pub ended: bool,
}

/// A guardian: the leases it was told of, and the program that it looks after once its process is dead.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Guardian {
    pub leases: Vec<LeaseId>,
    pub program: Option<Token>,
}

/// A request that left.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Call {
    pub purpose: Purpose,
    pub stamp: Instant,
    /// `None`: it goes to the other member, not to the store.
    pub request: Option<Request>,
    pub stage: Stage,
}

/// How far a request has got.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    Sent,
    Answered(Answer),
    Prepared(Vec<Ready>),
}

/// A request without a sender.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stray {
    pub node: usize,
    pub purpose: Purpose,
    pub request: Request,
}

/// What a request is for, and what its answer needs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// The elector has asked the store.
    Asked(AskedFor),
    Renew(LeaseId),
    Prepare(Token),
    Join(JoinStep),
    Write(Token),
    Goodbye,
}

/// A step of a join that asks the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JoinStep {
    Looking,
    Granting,
    Enrolling,
    Reclaiming,
    Revoking,
}

// === impl World ===

impl World {
    /// Both machines, before anything was started.
    pub fn new() -> Self {
        let node = |name, uuid| Arc::new(Node::new(name, uuid));
        Self {
            tick: 0,
            store: Arc::new(StoreSide::new()),
            nodes: [node("n0", 0xd0), node("n1", 0xd1)],
            strays: Vec::new(),
            spent: Spent::default(),
            begun: None,
            broken: Broken::default(),
        }
    }

    /// The one clock of the model.
    pub fn now(&self) -> Instant {
        Instant::from_millis(100_000) + TICK * u32::try_from(self.tick).unwrap_or(0)
    }

    pub fn process(&self, n: usize) -> Option<&Process> {
        self.nodes[n].process.as_ref()
    }
}

/// Where the keys are.
pub fn keys() -> Keys {
    Keys::new("m", "g")
}

// === impl StoreSide ===

impl StoreSide {
    fn new() -> Self {
        let (state, watched) = (MemoryState::default(), WatchedKeys::default());
        Self { state, freed: None, handed: None, views: Vec::new(), watched }
    }

    /// The record's token.
    pub fn token(&self) -> Option<Token> {
        self.state.get(&keys().leader()).and_then(|kv| Token::new(kv.modified))
    }

    /// When a lease ends; `None`: there is no such lease.
    pub fn end_of(&self, lease: LeaseId) -> Option<Instant> {
        self.state.leases().find(|(id, _)| *id == lease).map(|(_, at)| at)
    }

    /// Remembers what a watch would show now, and why the record is vacant.
    pub fn note(&mut self, held: bool, cause: Option<Freed>) {
        let keys = keys();
        if held && self.token().is_none() {
            self.freed = cause;
        }
        let Ok(batch) = self.state.changes(&keys.watched(), self.watched.revision()) else { return };
        if !batch.changes.is_empty() {
            self.watched.fold(batch);
            self.views.push(Arc::new(self.watched.view(&keys)));
        }
    }
}

impl StoreSide {
    /// What tells two stores apart. A view follows from the log and its revision.
    fn essence(&self) -> impl PartialEq + Hash + '_ {
        let shown: Vec<Revision> = self.views.iter().map(|view| view.revision).collect();
        (&self.state, self.freed, self.handed, shown)
    }
}

impl PartialEq for StoreSide {
    fn eq(&self, other: &Self) -> bool {
        self.essence() == other.essence()
    }
}

impl Eq for StoreSide {}

impl Hash for StoreSide {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.essence().hash(hasher);
    }
}

// === impl Node ===

impl Node {
    fn new(name: &'static str, uuid: u128) -> Self {
        let (uuid, incarnation) = (MemberUuid(uuid), Incarnation(0));
        let disk = Disk { uuid, incarnation, leases: Vec::new(), named: 0, seen: None };
        Self { name, disk, process: None, left: Vec::new(), scar: None, asked_to_stop: false }
    }

    /// Who the process on this data dir is.
    pub fn me(&self) -> MemberId {
        MemberId { node: self.name.into(), uuid: self.disk.uuid, incarnation: self.disk.incarnation }
    }

    /// What it registers.
    pub fn registration(&self, lease: LeaseId) -> Registration {
        Registration {
            member: self.me(),
            rpc_address: "a:1".into(),
            http_address: "a:2".into(),
            priority: 100,
            version: "1".into(),
            ttl: TTL,
            lease,
        }
    }
}

// === impl Process ===

impl Process {
    /// The main loop, if it runs.
    pub fn running(&self) -> Option<&MainLoop> {
        self.main_loop.as_ref().filter(|l| !l.ended)
    }

    /// The claim whose outcome it waits for.
    pub fn claiming(&self) -> Option<Nonce> {
        match self.elector.state() {
            State::Claiming { nonce, .. } => Some(*nonce),
            _ => None,
        }
    }
}

// === impl Purpose ===

impl Purpose {
    pub fn kind(&self) -> Kind {
        match self {
            Purpose::Asked(AskedFor::Read(..)) => Kind::Read,
            Purpose::Asked(AskedFor::Register) => Kind::Register,
            Purpose::Asked(AskedFor::Claim(..)) => Kind::Claim,
            Purpose::Asked(AskedFor::Release(_)) | Purpose::Goodbye => Kind::Release,
            Purpose::Asked(AskedFor::HandOver(_)) => Kind::HandOver,
            Purpose::Renew(_) => Kind::Renew,
            Purpose::Prepare(_) => Kind::Prepare,
            Purpose::Join(_) => Kind::Join,
            Purpose::Write(_) => Kind::Write,
        }
    }
}
