//! What a configuration of the model switches on, and which rule it breaks. Values only.

use crate::model::facts::Fact;

/// How the record stands when the exploration begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Both are registered, and the claim of the first one has just left.
    Claiming,
    /// The first one leads, the second one follows.
    Led,
}

/// What a request is for, without its details.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Read,
    Renew,
    Register,
    Claim,
    Release,
    HandOver,
    Prepare,
    Join,
    Write,
}

/// One rule that is broken, always at the seam between the real parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    None,
    /// A renewal counts from the moment its answer arrives.
    DeadlineFromReceipt,
    /// A restarted process takes its old lease over.
    AdoptedLease,
    /// The guardian revokes before the program is dead.
    RevokeBeforeKill,
    /// A leader resumes its main loop after a hand-over of unknown outcome.
    ResumeAfterHandOver,
    /// A registration is written without its compare.
    UncomparedRegistration,
    /// The driver reports the main loop's end when it was only told to stop.
    GivenUpWhileRunning,
    /// A main loop is started again on the token of a record whose release has an unknown outcome.
    OldTokenAgain,
    /// The main loop's writes carry no fence.
    UnfencedWrite,
    /// The lock on the data dir goes with the process, while its program is still to be killed.
    LockGoesWithProcess,
}

/// One configuration: what may happen, and how often.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub name: &'static str,
    pub start: Start,
    /// How many ticks may pass.
    pub ticks: u64,
    /// Answered in the very step that asks, and never lost.
    pub atomic: &'static [Kind],
    /// Delivery and answer are steps of their own; either may come late or never. All others: one step, late.
    pub split: &'static [Kind],
    /// Whose requests may be split.
    pub split_nodes: [bool; 2],
    /// How many requests may be given up as "outcome unknown".
    pub losses: u8,
    /// Whose process may crash.
    pub crash_nodes: [bool; 2],
    /// How often one does.
    pub crashes: u8,
    /// How often a guardian may die, alone or together with its process.
    pub guardian_crashes: u8,
    /// How often a process may be started on one data dir, the first start included.
    pub starts: [u8; 2],
    /// How many leases one data dir may ask for.
    pub leases: [u8; 2],
    /// Is there a guardian?
    pub guardian: bool,
    /// Is the main loop a program, which outlives its process until the guardian kills it?
    pub program: bool,
    /// Who may be asked to stop.
    pub shutdowns: [bool; 2],
    /// How many writes the main loops may send.
    pub writes: u8,
    pub mutant: Mutant,
    /// What must have happened somewhere.
    pub twins: &'static [Fact],
}

/// Nothing goes wrong and nothing is late: the base of all configurations.
pub const CALM: Scenario = Scenario {
    name: "calm",
    start: Start::Led,
    ticks: 3,
    atomic: &[Kind::Read, Kind::Renew],
    split: &[],
    split_nodes: [true, true],
    losses: 0,
    crash_nodes: [true, false],
    crashes: 0,
    guardian_crashes: 0,
    starts: [1, 1],
    leases: [1, 1],
    guardian: false,
    program: false,
    shutdowns: [false, false],
    writes: 0,
    mutant: Mutant::None,
    twins: &[],
};
