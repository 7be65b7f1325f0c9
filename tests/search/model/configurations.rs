//! The configurations: each switches on as much as can still be explored to the end.

use crate::model::facts::Fact;
use crate::model::scenario::{CALM, Kind, Scenario, Start};

/// Renewals and their answers are late or lost; the leader stalls, and somebody else leads.
pub const RENEWALS: Scenario = Scenario {
    name: "renewals",
    ticks: 5,
    atomic: &[Kind::Read],
    split: &[Kind::Renew],
    split_nodes: [true, false],
    losses: 1,
    writes: 1,
    twins: &[
        Fact::LedAfterExpiry,
        Fact::LateAckCounted,
        Fact::StoppedAtDeadline,
        Fact::FuseFired,
        Fact::WriteLanded,
        Fact::WriteFenced,
    ],
    ..CALM
};

/// Claims of unknown outcome, and the registrations that cancel them, which are lost in their turn.
pub const CLAIMS: Scenario = Scenario {
    name: "claims",
    start: Start::Claiming,
    ticks: 2,
    split: &[Kind::Claim, Kind::Register],
    split_nodes: [true, false],
    losses: 2,
    twins: &[Fact::ClaimUnknownThenWon, Fact::ClaimCancelled, Fact::ClaimLost, Fact::Rejoined],
    ..CALM
};

/// The same for longer than a lease, and a second lease for the first member.
pub const LATE_CLAIMS: Scenario = Scenario {
    name: "late claims",
    ticks: 3,
    split: &[Kind::Claim],
    losses: 1,
    leases: [2, 1],
    twins: &[Fact::LedAfterExpiry, Fact::ClaimUnknownThenWon, Fact::ClaimCancelled, Fact::Rejoined],
    ..CLAIMS
};

/// A leader crashes, and its successors on the same data dir crash inside their joins.
pub const RECLAIM: Scenario = Scenario {
    name: "reclaim",
    ticks: 2,
    crashes: 2,
    starts: [3, 1],
    leases: [3, 1],
    twins: &[
        Fact::Reclaimed,
        Fact::CrashLookingThenLed,
        Fact::CrashGrantingThenLed,
        Fact::CrashEnrollingThenLed,
        Fact::CrashReclaimingThenLed,
        Fact::CrashRevokingThenLed,
    ],
    ..CALM
};

/// One crash, but time for the lease to end, and writes of the dead under way.
pub const RECLAIM_OR_EXPIRY: Scenario = Scenario {
    name: "reclaim or expiry",
    ticks: 3,
    crashes: 1,
    starts: [2, 1],
    leases: [2, 1],
    writes: 1,
    twins: &[Fact::Reclaimed, Fact::LedAfterExpiry, Fact::WriteLanded, Fact::WriteFenced],
    ..CALM
};

/// A candidate crashes while its claim, or the registration that cancels it, is under way.
pub const REGISTRATION: Scenario = Scenario {
    name: "registration",
    start: Start::Claiming,
    ticks: 2,
    split: &[Kind::Claim, Kind::Register],
    split_nodes: [true, false],
    losses: 1,
    crashes: 1,
    starts: [2, 1],
    leases: [2, 1],
    twins: &[Fact::Reclaimed, Fact::LateRequestOfDeadRefused, Fact::ClaimCancelled],
    ..CALM
};

/// A guardian that takes its time: the next process on the data dir may be at work before it revokes.
pub const LATE_GUARDIAN: Scenario = Scenario {
    name: "late guardian",
    start: Start::Claiming,
    ticks: 2,
    guardian: true,
    crashes: 1,
    starts: [2, 1],
    leases: [2, 1],
    twins: &[Fact::LedAfterGuardian, Fact::Reclaimed, Fact::LateRequestOfDeadRefused],
    ..CALM
};

/// The main loop is a program: it outlives its process until the guardian has killed it.
pub const PROGRAM: Scenario = Scenario {
    name: "program",
    ticks: 3,
    guardian: true,
    program: true,
    crashes: 1,
    starts: [2, 1],
    leases: [2, 1],
    twins: &[Fact::LedAfterGuardian, Fact::LedAfterExpiry, Fact::GuardianKilledProgram, Fact::Reclaimed],
    ..CALM
};

/// The guardian itself dies, alone or together with its process.
pub const NO_GUARDIAN_LEFT: Scenario = Scenario {
    name: "no guardian left",
    ticks: 2,
    guardian_crashes: 1,
    twins: &[Fact::GuardianDiedProgramEnded, Fact::SuccessorStarted, Fact::LedAfterRelease, Fact::Reclaimed],
    ..PROGRAM
};

/// A leader is asked to stop; every message of the hand-over is late or lost.
pub const HAND_OVER: Scenario = Scenario {
    name: "hand-over",
    ticks: 3,
    split: &[Kind::Prepare, Kind::HandOver, Kind::Release],
    losses: 2,
    shutdowns: [true, false],
    twins: &[
        Fact::HandedOver,
        Fact::SuccessorStarted,
        Fact::HandOverUnknown,
        Fact::HandOverLandedUnheard,
        Fact::LedAfterRelease,
        Fact::ReleaseUnknown,
    ],
    ..CALM
};

/// The successor crashes meanwhile, and comes back.
pub const SUCCESSOR_CRASHES: Scenario = Scenario {
    name: "successor crashes",
    ticks: 2,
    split: &[Kind::Prepare, Kind::HandOver],
    losses: 1,
    crash_nodes: [false, true],
    crashes: 1,
    starts: [1, 2],
    leases: [1, 2],
    twins: &[Fact::SuccessorStarted, Fact::Reclaimed, Fact::HandOverUnknown, Fact::LateRequestOfDeadRefused],
    ..HAND_OVER
};

/// The leader crashes or stops while its record is being handed over or given up, and comes back.
pub const LEADER_COMES_BACK: Scenario = Scenario {
    name: "leader comes back",
    ticks: 1,
    losses: 1,
    crashes: 1,
    starts: [2, 1],
    leases: [2, 1],
    twins: &[Fact::SuccessorStarted, Fact::Reclaimed, Fact::LedAfterRelease, Fact::LateRequestOfDeadRefused],
    ..HAND_OVER
};
