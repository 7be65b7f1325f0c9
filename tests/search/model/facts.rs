//! What happened somewhere in an exploration: the twins of the properties, one bit each.
//!
//! They belong to steps, not to states. As history in the state they would multiply the states, so the model
//! collects them beside it while it takes the steps.

/// Something that a step made happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fact {
    LedAfterExpiry,
    LedAfterGuardian,
    LedAfterRelease,
    ClaimUnknownThenWon,
    ClaimCancelled,
    ClaimLost,
    LateAckCounted,
    StoppedAtDeadline,
    FuseFired,
    Rejoined,
    Reclaimed,
    CrashLookingThenLed,
    CrashGrantingThenLed,
    CrashEnrollingThenLed,
    CrashReclaimingThenLed,
    CrashRevokingThenLed,
    LateRequestOfDeadRefused,
    GuardianKilledProgram,
    GuardianDiedProgramEnded,
    HandedOver,
    SuccessorStarted,
    HandOverUnknown,
    HandOverLandedUnheard,
    ReleaseUnknown,
    WriteLanded,
    WriteFenced,
}

/// All of them.
pub const FACTS: [Fact; 26] = [
    Fact::LedAfterExpiry,
    Fact::LedAfterGuardian,
    Fact::LedAfterRelease,
    Fact::ClaimUnknownThenWon,
    Fact::ClaimCancelled,
    Fact::ClaimLost,
    Fact::LateAckCounted,
    Fact::StoppedAtDeadline,
    Fact::FuseFired,
    Fact::Rejoined,
    Fact::Reclaimed,
    Fact::CrashLookingThenLed,
    Fact::CrashGrantingThenLed,
    Fact::CrashEnrollingThenLed,
    Fact::CrashReclaimingThenLed,
    Fact::CrashRevokingThenLed,
    Fact::LateRequestOfDeadRefused,
    Fact::GuardianKilledProgram,
    Fact::GuardianDiedProgramEnded,
    Fact::HandedOver,
    Fact::SuccessorStarted,
    Fact::HandOverUnknown,
    Fact::HandOverLandedUnheard,
    Fact::ReleaseUnknown,
    Fact::WriteLanded,
    Fact::WriteFenced,
];

/// Facts, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts(pub u64);

impl Facts {
    pub fn add(&mut self, fact: Fact) {
        self.0 |= 1 << fact as u64;
    }

    pub fn has(self, fact: Fact) -> bool {
        self.0 & (1 << fact as u64) != 0
    }

    pub fn all(self) -> Vec<Fact> {
        FACTS.into_iter().filter(|f| self.has(*f)).collect()
    }
}
