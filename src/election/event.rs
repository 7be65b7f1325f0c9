//! What goes into the elector and what comes out of it.
//!
//! Contract of the driver: every action that asks for something is answered by exactly one event, after a
//! bounded time, at the latest with "unknown". Answers may come in any order, late, or for a lease that is
//! no longer ours; the elector sorts that out.

use std::time::Duration;

use super::history::{Ending, Reason, Transition};
use super::lease::LeaseId;
use super::probe::MemberHealth;
use super::readiness::Unready;
use super::record::{Member, MemberId, Nonce, Revision, Token, View};
use crate::clock::Instant;

/// Tells one linearizable read from the next. A read numbered later began later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ReadId(pub u64);

/// An input of the elector.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// Answers [`Action::Join`].
    Joined(Joined),
    /// Answers [`Action::Join`]: it did not work. `Some` is final, `None` is worth another try.
    JoinFailed(Option<Ending>),
    /// The watch showed a new view.
    Seen(View),
    /// Answers an attempt of [`Action::Renew`]; `stamp` was taken before that attempt left.
    Renewed {
        /// The lease that was renewed.
        lease: LeaseId,
        /// Taken before the request left.
        stamp: Instant,
        /// What the store said.
        answer: RenewAnswer,
    },
    /// Answers [`Action::Read`]; `None` if the store did not answer.
    Read {
        /// Which read.
        id: ReadId,
        /// What it showed.
        answer: Option<ReadAnswer>,
    },
    /// Answers [`Action::Claim`].
    Claimed {
        /// Which claim.
        nonce: Nonce,
        /// How it ended.
        answer: ClaimAnswer,
        /// The view that the answer shows, if it shows one.
        seen: Option<Box<View>>,
    },
    /// Answers [`Action::Register`]: the new claim generation, or `None` if refused or unknown.
    Registered(Option<Revision>),
    /// Answers [`Action::Release`]: is the record known to be gone from our name? `false`: unknown.
    Released(bool),
    /// The main loop has completely ended, with its exit code if it has one.
    MainLoopEnded(Option<i32>),
    /// The main loop has given no sign of life for longer than it may.
    MainLoopHung,
    /// The store refused a write of the main loop because of our token.
    Fenced(Token),
    /// The store is not the one it was: it went back in time, or another cluster answers. The text says how that is
    /// known, and which command accepts it.
    StoreChanged(String),
    /// Somebody asked us to stop.
    Shutdown(Reason),
    /// An operator asked us to step down, in favour of this candidate or of any.
    StepDown(Option<String>),
    /// An operator asked for another priority, until the process ends.
    SetPriority(u16),
    /// This member is not ready to lead, for this reason; `None`: it is.
    Readiness(Option<Unready>),
    /// The leader of this tenure asks whether we would take over.
    Prepare(Token),
    /// Answers [`Action::Prepare`]: the candidates that are ready.
    Prepared(Vec<Ready>),
    /// Answers [`Action::HandOver`].
    HandedOver(HandOverAnswer),
    /// Our own probes have come to this.
    Probed(MemberHealth),
}

/// A registration that holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Joined {
    /// The new lease.
    pub lease: LeaseId,
    /// Taken before the grant was asked for.
    pub stamp: Instant,
    /// The granted time to live.
    pub ttl: Duration,
    /// The registration's `mod_revision`.
    pub generation: Revision,
    /// The view afterwards, a reclaimed record included.
    pub view: View,
    /// The raft term of the last answer; 0 where the store has none.
    pub raft_term: u64,
}

/// What the store said to a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RenewAnswer {
    /// It lives for `ttl` from now, says a member whose last applied raft term is `raft_term`.
    Alive {
        /// The granted time to live.
        ttl: Duration,
        /// The answering member's raft term.
        raft_term: u64,
    },
    /// There is no such lease, says one member. A suspicion, not a proof: it may be behind.
    NotFound,
}

/// What a linearizable read showed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReadAnswer {
    /// The view.
    pub view: View,
    /// The answering member's raft term.
    pub raft_term: u64,
}

/// How a claim ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClaimAnswer {
    /// The record is ours under this token.
    Won(Token),
    /// It certainly did not and will not happen: somebody else was faster.
    Lost,
    /// It certainly did not and will not happen: the store refuses it, whoever leads.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// A candidate's word that it would start at once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ready {
    /// Who, in which incarnation.
    pub member: MemberId,
    /// How long its probes have succeeded.
    pub healthy_for: Duration,
}

/// How a hand-over ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HandOverAnswer {
    /// The successor has the record.
    Done,
    /// It certainly did not and will not happen.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// An output of the elector.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Take a new lease, register under it, reclaim our own record, revoke our older leases.
    Join,
    /// Renew the lease.
    Renew(LeaseId),
    /// Read record and registrations, linearizably.
    Read(ReadId),
    /// Rewrite our registration under the lease, if its `mod_revision` is `expected` (0: absent). Kills our
    /// own claims in flight.
    Register {
        /// The lease it hangs on.
        lease: LeaseId,
        /// The last known `mod_revision`.
        expected: Revision,
    },
    /// Claim the record, if there is a vacancy and our registration is still of this generation.
    Claim {
        /// Names this claim.
        nonce: Nonce,
        /// The lease it hangs on.
        lease: LeaseId,
        /// Our registration's `mod_revision`.
        generation: Revision,
    },
    /// Start the main loop under this token.
    StartMainLoop(Token),
    /// Tell the main loop to stop.
    StopMainLoop(Token, Reason),
    /// The main loop had its time: end it now.
    AbortMainLoop,
    /// The main loop cannot be ended: only the end of the process ends it. Nothing may be given back before, so
    /// nothing is.
    EndProcess(Ending),
    /// Ask the candidates (or this one) whether they are ready, for a bounded time.
    Prepare {
        /// The tenure that is ending.
        token: Token,
        /// The only candidate that is wanted.
        wanted: Option<String>,
    },
    /// Put the successor into the record, if it still carries this token and the successor is still of this generation.
    HandOver {
        /// The tenure that has ended.
        token: Token,
        /// Who gets it.
        successor: Box<Member>,
        /// Why the tenure has ended.
        reason: Reason,
    },
    /// Delete the record, if it still carries this token.
    Release(Token),
    /// Tell whoever wants to know.
    Report(Transition),
    /// The process is done. The last action.
    Stop(Ending),
}
