//! What the store holds about an election, as values: who a member is, who leads, and the token that fences.
//!
//! An address is not an identity, and neither is a configured name: two processes can share both. A member is
//! known by its node id (configured), its uuid (of the data dir) and its incarnation (one start of it).
//!
//! This module holds values only; their JSON is `store/codec.rs`'s business.

use std::fmt;
use std::time::Duration;

use super::lease::LeaseId;

/// The highest priority.
pub const PRIORITY_MAX: u16 = 1000;

/// A revision of the store: grows with every write, never repeats. 0 means "no such key".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Revision(pub u64);

/// The fencing token of a tenure: the leader record's `mod_revision`. Grows from tenure to tenure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(Revision);

/// The identity of a data dir.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MemberUuid(pub u128);

/// One start of a process on its data dir: 1, 2, 3, …
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Incarnation(pub u64);

/// Tells one claim of an incarnation from the next, so that a lost answer is recognised as one's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Nonce(pub u64);

/// Who a member is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MemberId {
    /// The configured name.
    pub node: String,
    /// The data dir's identity.
    pub uuid: MemberUuid,
    /// The start of it.
    pub incarnation: Incarnation,
}

/// The leader record, as its holder wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LeaderRecord {
    /// Who leads.
    pub holder: MemberId,
    /// Where the holder answers gRPC, `host:port`.
    pub address: String,
    /// The claim that wrote it.
    pub nonce: Nonce,
    /// The time to live of the holder's lease.
    pub ttl: Duration,
    /// When the tenure began, wall clock milliseconds since the Unix epoch. For display only.
    pub acquired_ms: u64,
    /// How many tenures there were before.
    pub transitions: u64,
    /// When a leader last handed over because its probe had failed, as `acquired_ms`; 0: not that anybody knows.
    pub probe_handed_ms: u64,
}

/// The leader record together with what the store says about it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tenure {
    /// What the holder wrote.
    pub record: LeaderRecord,
    /// The record's `mod_revision`.
    pub token: Token,
    /// The lease it hangs on.
    pub lease: LeaseId,
    /// Was an older record written over, by a hand-over or a reclaim? A claim makes a new one.
    pub rewritten: bool,
}

/// Who leads, as the store says.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub enum Leader {
    /// Nobody, and nobody else's campaigner queues there.
    #[default]
    Vacant,
    /// One of us.
    Held(Box<Tenure>),
    /// A campaigner that is not metad (`etcdctl elect`); the text names it. We queue behind it.
    Foreign(String),
}

/// A member's registration: it may lead, and here is how to reach it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Registration {
    /// Who registered.
    pub member: MemberId,
    /// Where it answers gRPC, `host:port`.
    pub rpc_address: String,
    /// Where it answers HTTP, `host:port`.
    pub http_address: String,
    /// Higher leads first; 0 never leads.
    pub priority: u16,
    /// The software's version.
    pub version: String,
    /// The time to live of its lease.
    pub ttl: Duration,
    /// The lease it hangs on, as the member itself says.
    pub lease: LeaseId,
}

/// A registration together with what the store says about it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// What the member wrote.
    pub registration: Registration,
    /// The revision of its first write: the place in the queue.
    pub created: Revision,
    /// The claim generation: `mod_revision` of its last write.
    pub generation: Revision,
}

/// A key where only the leader record belongs: a campaigner that is not metad, or a mistake. Nobody can claim a vacancy
/// before it is gone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Foreign {
    /// The key.
    pub key: String,
    /// The beginning of what it says.
    pub value: String,
}

/// A freeze: while it is there, no leader hands over, and no member claims a vacancy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Freeze {
    /// What for, as somebody said.
    pub reason: String,
    /// Who said so.
    pub by: String,
    /// Since when, wall clock milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// When it ends by itself, wall clock milliseconds since the Unix epoch; `None`: when somebody ends it.
    pub until_ms: Option<u64>,
}

/// Everything the store says about one election at one revision.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct View {
    /// The revision that it was read at.
    pub revision: Revision,
    /// Who leads.
    pub leader: Leader,
    /// Who is registered, in the order of their keys.
    pub members: Vec<Member>,
    /// The oldest foreign candidate, whoever leads.
    pub foreign: Option<Foreign>,
    /// The freeze that holds, if one does, and the revision that it was written at.
    pub freeze: Option<(Freeze, Revision)>,
}

// === impl Token ===

impl Token {
    /// A token from a record's `mod_revision`. Zero is refused: it means "absent", and a compare with it would
    /// hold exactly when the record is gone, which turns the fence inside out.
    pub fn new(mod_revision: Revision) -> Option<Token> {
        (mod_revision.0 > 0).then_some(Token(mod_revision))
    }

    /// The revision it stands for.
    pub fn revision(self) -> Revision {
        self.0
    }

    /// The bare number, for other systems that fence with it.
    pub fn get(self) -> u64 {
        self.0.0
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.0)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

// === impl MemberUuid ===

impl fmt::Display for MemberUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let h = format!("{:032x}", self.0);
        write!(f, "{}-{}-{}-{}-{}", &h[..8], &h[8..12], &h[12..16], &h[16..20], &h[20..])
    }
}

impl fmt::Debug for MemberUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl std::str::FromStr for MemberUuid {
    type Err = std::num::ParseIntError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        u128::from_str_radix(&s.replace('-', ""), 16).map(MemberUuid)
    }
}

// === impl Leader ===

impl Leader {
    /// The tenure of the one of us who leads.
    pub fn tenure(&self) -> Option<&Tenure> {
        match self {
            Leader::Held(t) => Some(t),
            Leader::Vacant | Leader::Foreign(_) => None,
        }
    }

    /// The tenure, if it is of this very incarnation and hangs on this very lease.
    pub fn tenure_of(&self, me: &MemberId, lease: LeaseId) -> Option<&Tenure> {
        self.tenure().filter(|t| t.record.holder == *me && t.lease == lease)
    }
}

// === impl Registration ===

impl Registration {
    /// Its version as numbers, to compare it with another one; what is no number counts as 0.
    pub fn version_order(&self) -> [u64; 3] {
        let release = self.version.split(['-', '+']).next().unwrap_or_default();
        let mut parts = release.split('.').map(|part| part.parse().unwrap_or(0));
        [(); 3].map(|()| parts.next().unwrap_or(0))
    }
}

// === impl View ===

impl View {
    /// The member registered under this node id.
    pub fn member(&self, node: &str) -> Option<&Member> {
        self.members.iter().find(|m| m.registration.member.node == node)
    }

    /// The place of `node` among those who may lead: by priority, then by order of registration.
    /// `None` if it is not registered or has priority 0.
    pub fn rank(&self, node: &str) -> Option<usize> {
        let key = |m: &Member| (std::cmp::Reverse(m.registration.priority), m.created);
        let mine = self.member(node).filter(|m| m.registration.priority > 0)?;
        let ahead = self.members.iter().filter(|m| m.registration.priority > 0 && key(m) < key(mine));
        Some(ahead.count())
    }

    /// The place of a member among those who may be handed the record, the best one lowest: one of the newest version
    /// first, so that a rolling upgrade changes the leader once; of these by rank. `None`: it never leads.
    pub fn precedence(&self, member: &Member) -> Option<impl Ord + Copy + use<>> {
        let r = &member.registration;
        Some((std::cmp::Reverse(r.version_order()), self.rank(&r.member.node)?))
    }
}

#[cfg(test)]
impl Registration {
    /// Of this member, for tests to which the rest does not matter.
    pub fn of(member: MemberId) -> Self {
        Self {
            member,
            rpc_address: String::new(),
            http_address: String::new(),
            priority: 1,
            version: String::new(),
            ttl: Duration::from_secs(5),
            lease: LeaseId(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(node: &str, priority: u16, created: u64) -> Member {
        let id = MemberId { node: node.into(), uuid: MemberUuid(1), incarnation: Incarnation(1) };
        let registration = Registration { priority, ..Registration::of(id) };
        Member { registration, created: Revision(created), generation: Revision(created) }
    }

    #[test]
    fn rank_is_by_priority_then_by_registration_and_zero_never_leads() {
        let members = vec![member("a", 100, 9), member("b", 100, 3), member("c", 0, 1), member("d", 200, 20)];
        let view = View { members, ..View::default() };
        assert_eq!(["a", "b", "c", "d", "x"].map(|n| view.rank(n)), [Some(2), Some(1), None, Some(0), None]);
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        let order = |version: &str| {
            let mut registration = member("a", 1, 1).registration;
            registration.version = version.into();
            registration.version_order()
        };
        assert!(order("0.10.0") > order("0.9.12") && order("1.0") > order("0.10.0") && order("") == [0; 3]);
        assert_eq!((order("1.2.3-rc.1"), order("1.2.3.4+x")), ([1, 2, 3], [1, 2, 3]));
    }

    #[test]
    fn a_token_of_zero_is_refused() {
        assert_eq!(Token::new(Revision(0)), None);
        assert_eq!(Token::new(Revision(7)).map(Token::get), Some(7));
    }

    #[test]
    fn uuids_round_trip_through_text() {
        let uuid = MemberUuid(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        assert_eq!(uuid.to_string(), "01234567-89ab-cdef-0123-456789abcdef");
        assert_eq!(uuid.to_string().parse(), Ok(uuid));
    }
}
