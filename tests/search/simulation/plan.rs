//! What one seed plays: how many members, which lease, which faults, how often.
//!
//! Every seed switches on some kinds of fault only: a seed with all of them hides what a seed with one shows.

use std::time::Duration;

use metad::store::unreliable::Dice;

use crate::simulation::clock::{MS, SEC};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A process is stopped for a while, as by SIGSTOP.
    Pause,
    /// A member cannot reach the store.
    Cut,
    /// The store answers nobody.
    Outage,
    /// etcd elects a leader: a new term, and every lease begins anew.
    RaftChange,
    /// A deposed etcd leader goes on to acknowledge a member's renewals.
    StaleAcks,
    /// A process is gone, its main loop with it.
    Crash,
    /// Somebody asks a member to stop.
    Shutdown,
    /// A watch shows nothing for a while.
    SilentWatch,
    /// The operator deletes the leader record.
    DeleteRecord,
    /// The operator revokes a lease.
    RevokeLease,
    /// The operator deletes a registration.
    DeleteRegistration,
    /// Somebody starts a second data dir under the same node id.
    SecondDir,
    /// A guardian is stopped for a while.
    StopGuardian,
    /// A process and its guardian are stopped for a while.
    StopBoth,
    /// A guardian is killed.
    KillGuardian,
    /// The store forgets how it got where it is.
    Compact,
    /// Somebody asks all members to stand ready for a tenure that is long over.
    StalePrepare,
    /// The operator freezes the election, or unfreezes it.
    Freeze,
    /// A member's probe begins to fail, or succeeds again.
    Probe,
    /// A member becomes unable to lead for a while.
    Readiness,
    /// The operator gives a member another priority.
    Priority,
}

const FAULTS: [Fault; 21] = [
    Fault::Pause,
    Fault::Cut,
    Fault::Outage,
    Fault::RaftChange,
    Fault::StaleAcks,
    Fault::Crash,
    Fault::Shutdown,
    Fault::SilentWatch,
    Fault::DeleteRecord,
    Fault::RevokeLease,
    Fault::DeleteRegistration,
    Fault::SecondDir,
    Fault::StopGuardian,
    Fault::StopBoth,
    Fault::KillGuardian,
    Fault::Compact,
    Fault::StalePrepare,
    Fault::Freeze,
    Fault::Probe,
    Fault::Readiness,
    Fault::Priority,
];

/// One seed's world.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The time to live of every lease.
    pub ttl: Duration,
    /// The members' priorities; at least one is not 0.
    pub priorities: Vec<u16>,
    /// How long faults go on, in real nanoseconds.
    pub safety: u64,
    /// Requests and answers that are lost, each, in per cent.
    pub lost: u64,
    /// Messages that take long, in per cent.
    pub slow: u64,
    /// Requests that arrive a second time, in per cent.
    pub doubled: u64,
    /// Writes of the disk that fail, in per cent.
    pub disk_errors: u64,
    /// Writes of the disk that the process does not survive, in per cent.
    pub disk_crashes: u64,
    /// Do processes have guardians?
    pub guardians: bool,
    /// Is the main loop a program of the guardian's?
    pub programs: bool,
    /// Is the second data dir the first one, attached to another machine while the first may still use it?
    pub reattached: bool,
    /// Is the store once restored from a backup?
    pub restored: bool,
    /// How far apart faults are at most.
    pub fault_every: u64,
    /// The kinds that are on.
    pub faults: Vec<Fault>,
    /// Does the store sometimes acknowledge renewals of a lease whose revoke is under way?
    pub doom: bool,
    /// As in the configuration.
    pub start_timeout: Duration,
    /// As in the configuration.
    pub stop_timeout: Duration,
    /// As in the configuration.
    pub failback_delay: Option<Duration>,
    /// Members that are probed, in per cent.
    pub probed: u64,
    /// How long a new process may take to be warm, in nanoseconds; 0: it is at once.
    pub warm_up: u64,
    /// Are messages in flight lost when the faults stop? (Then the bound of the liveness phase is tight.)
    pub drop_in_flight: bool,
}

impl Plan {
    /// The plan of a seed.
    pub fn draw(dice: &Dice) -> Self {
        let failback = dice.percent(4);
        let ttl = if failback { 30 } else { [3, 5, 10, 30][dice.below(4) as usize] };
        let members = 2 + dice.below(3) as usize;
        let mut priorities: Vec<u16> =
            (0..members).map(|_| [100, 100, 100, 200, 0][dice.below(5) as usize]).collect();
        priorities[dice.below(members as u64) as usize] = 100;
        if failback {
            (priorities[0], priorities[1]) = (100, 200);
        }
        let guardians = dice.percent(75);
        let density = [0, 35, 70][dice.below(3) as usize];
        let mut faults: Vec<Fault> = FAULTS.into_iter().filter(|_| dice.percent(density)).collect();
        if faults.is_empty() {
            faults.push(FAULTS[dice.below(FAULTS.len() as u64) as usize]);
        }
        // What a change because of a probe leads to is seen only where little else changes the leader.
        let ailing = !failback && dice.percent(5);
        if ailing {
            faults = vec![Fault::Probe];
        }
        // Long enough for a leader to make way, and calm enough for it to get there.
        let (safety, calmer) = if failback { (450 * SEC, 20) } else { ((12 * ttl).clamp(30, 90) * SEC, 1) };
        Self {
            ttl: Duration::from_secs(ttl),
            priorities,
            safety,
            lost: [0, 1, 5, 20][dice.below(4) as usize],
            slow: [0, 2, 10, 30][dice.below(4) as usize],
            doubled: [0, 5, 20][dice.below(3) as usize],
            disk_errors: [0, 0, 0, 3][dice.below(4) as usize],
            disk_crashes: [0, 0, 4][dice.below(3) as usize],
            guardians,
            programs: guardians && dice.percent(60),
            reattached: dice.percent(50),
            restored: !failback && dice.percent(6),
            fault_every: [2, 4, 8][dice.below(3) as usize] * ttl * SEC / 4 * calmer,
            faults,
            doom: dice.percent(50),
            start_timeout: Duration::from_millis([200, 1_000, 10_000][dice.below(3) as usize]),
            stop_timeout: Duration::from_millis(500 + dice.below(4_000)),
            failback_delay: failback.then(|| Duration::from_secs(5)),
            probed: if ailing { 60 } else { [0, 50, 100][dice.below(3) as usize] },
            warm_up: [0, 0, ttl * SEC][dice.below(3) as usize],
            drop_in_flight: dice.percent(50),
        }
    }

    /// Nothing goes wrong.
    pub fn quiet(dice: &Dice, members: usize) -> Self {
        Self {
            priorities: vec![100; members],
            lost: 0,
            slow: 0,
            doubled: 0,
            disk_errors: 0,
            disk_crashes: 0,
            restored: false,
            fault_every: u64::MAX / 4,
            faults: vec![],
            doom: false,
            start_timeout: Duration::from_secs(10),
            stop_timeout: Duration::from_secs(10),
            failback_delay: None,
            probed: 0,
            warm_up: 0,
            ..Self::draw(dice)
        }
    }

    /// Does an operator change priorities?
    pub fn changes_priorities(&self) -> bool {
        self.faults.contains(&Fault::Priority)
    }

    /// The time to live in nanoseconds.
    pub fn ttl_ns(&self) -> u64 {
        self.ttl.as_millis() as u64 * MS
    }
}
