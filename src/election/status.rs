//! The snapshot that everybody else reads: derived from the elector in one place.

use std::time::Duration;

use crate::clock::Instant;
use crate::election::elector::{Elector, State};
use crate::election::lease::LeaseTiming;
use crate::election::probe::MemberHealth;
use crate::election::readiness::Unready;
use crate::election::record::{Freeze, LeaderRecord, MemberId, Revision, Tenure, Token, View};

/// How old a view may be where no lease says so: there is no leader in it, and we have no lease either.
const AGE_MAX: Duration = Duration::from_secs(5);

/// What a member is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Not registered (yet, or any more).
    Joining,
    /// Registered, not leading.
    Follower,
    /// Asking for the vacancy.
    Claiming,
    /// Elected; the main loop does not run yet.
    Starting,
    /// The main loop runs.
    Leader,
    /// The main loop is ending, or the record is being given up.
    Stopping,
    /// Done.
    Stopped,
}

/// A node as it sees itself and its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Who we are.
    pub me: MemberId,
    /// The cluster's name.
    pub cluster: String,
    /// What we are.
    pub role: Role,
    /// Our token, while our main loop runs.
    pub token: Option<Token>,
    /// H of our lease.
    pub holds_until: Option<Instant>,
    /// The granted time to live.
    pub ttl: Option<Duration>,
    /// The election as we see it.
    pub view: View,
    /// Why this member is not ready to lead, as it was told; `None`: it is, as far as that goes.
    pub unready: Option<Unready>,
    /// What our own probes have come to.
    pub health: MemberHealth,
    /// When the store last confirmed this view.
    pub confirmed_at: Instant,
}

// === impl Role ===

impl Role {
    /// The role that a state of the elector means.
    pub fn of(state: &State) -> Self {
        match state {
            State::Joining { .. } => Role::Joining,
            State::Follower { .. } => Role::Follower,
            State::Claiming { .. } => Role::Claiming,
            State::Starting { .. } => Role::Starting,
            State::Leading { .. } => Role::Leader,
            State::Stopping { .. }
            | State::Choosing { .. }
            | State::HandingOver { .. }
            | State::Resigning { .. } => Role::Stopping,
            State::Stopped(_) => Role::Stopped,
        }
    }

    /// Its name in JSON and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Joining => "joining",
            Role::Follower => "follower",
            Role::Claiming => "claiming",
            Role::Starting => "starting",
            Role::Leader => "leader",
            Role::Stopping => "stopping",
            Role::Stopped => "stopped",
        }
    }

    /// Is it part of the election, as a follower at least?
    pub fn is_ready(self) -> bool {
        matches!(self, Role::Follower | Role::Claiming | Role::Starting | Role::Leader)
    }
}

// === impl Status ===

impl Status {
    /// The snapshot of an elector.
    pub fn of(elector: &Elector, me: MemberId, cluster: &str, confirmed_at: Instant) -> Self {
        Self {
            me,
            cluster: cluster.to_owned(),
            role: Role::of(elector.state()),
            token: elector.main_loop_token(),
            holds_until: elector.lease().map(|l| l.holds_until()),
            ttl: elector.lease().map(|l| l.timing().ttl()),
            view: elector.view().clone(),
            unready: elector.unready().cloned(),
            health: elector.health().clone(),
            confirmed_at,
        }
    }

    /// Is the later one the same view, of a lease that was renewed or a store that has confirmed it?
    pub fn is_renewed_by(&self, later: &Self) -> bool {
        let Self { me, cluster, role, token, holds_until, ttl, view, unready, health, confirmed_at: _ } =
            self;
        let unchanged = (me, cluster, role, token, ttl, view, unready, health);
        let has_lease = holds_until.is_some() == later.holds_until.is_some();
        let Self { me, cluster, role, token, holds_until: _, ttl, view, unready, health, confirmed_at: _ } =
            later;
        has_lease && unchanged == (me, cluster, role, token, ttl, view, unready, health)
    }

    /// Is enough of our lease left to start a main loop now?
    pub fn allows_start(&self, now: Instant) -> bool {
        let margin = self.ttl.map(|ttl| LeaseTiming::new(ttl).start_margin());
        self.holds_until.zip(margin).is_some_and(|(h, margin)| now.until(h) >= margin)
    }

    /// Our own priority, as the store shows it; `None`: we are not registered.
    pub fn priority(&self) -> Option<u16> {
        let mine = self.view.member(&self.me.node).map(|m| &m.registration);
        mine.filter(|r| r.member == self.me).map(|r| r.priority)
    }

    /// May it get priority 0? One that leads, or may have won, may not.
    pub fn may_become_observer(&self) -> bool {
        self.role == Role::Follower
    }

    /// The tenure that this member is asked to stand ready for. It must be the one that it sees: nobody else's leader can
    /// hand over to it.
    ///
    /// # Errors
    /// It sees another one, or none.
    pub fn tenure_to_prepare(&self, token: u64) -> Result<Token, String> {
        match self.leader() {
            Some(tenure) if tenure.token.get() == token => Ok(tenure.token),
            Some(tenure) => Err(format!("it sees a leader with the token {}, not {token}", tenure.token)),
            None => Err(format!("it sees no leader, and none with the token {token}")),
        }
    }

    /// Why this member could not take over now; `None`: it could.
    pub fn unready(&self, now: Instant) -> Option<String> {
        if self.role != Role::Follower {
            return Some(format!("it is {}", self.role.as_str()));
        }
        if let Some(unready) = &self.unready {
            return Some(unready.why.clone());
        }
        let too_little = "too little of its lease is left, as of its last renewal";
        self.health.unready().or_else(|| (!self.allows_start(now)).then(|| too_little.to_owned()))
    }

    /// Is our view older than the lease that it is about, or has the store never confirmed one? Then nothing is known any
    /// more: whoever led may have ended.
    pub fn is_outdated(&self, now: Instant) -> bool {
        let lease = self.leader_record().map(|r| r.ttl).or(self.ttl).unwrap_or(AGE_MAX);
        self.revision() == Revision(0) || now.since(self.confirmed_at) > lease
    }

    /// The leader, if it may still lead for all that we know.
    pub fn known_leader(&self, now: Instant) -> Option<&Tenure> {
        self.leader().filter(|_| !self.is_outdated(now))
    }

    /// The leader as our view shows it, however old that is. What is told to others says [`Self::known_leader`].
    pub fn leader(&self) -> Option<&Tenure> {
        self.view.leader.tenure()
    }

    /// The freeze that holds, as our view shows it.
    pub fn freeze(&self) -> Option<&Freeze> {
        self.view.freeze.as_ref().map(|(freeze, _)| freeze)
    }

    /// The leader's record as we see it.
    pub fn leader_record(&self) -> Option<&LeaderRecord> {
        self.leader().map(|t| &t.record)
    }

    /// The revision that this is the view of.
    pub fn revision(&self) -> Revision {
        self.view.revision
    }
}
