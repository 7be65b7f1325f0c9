//! What a guardian does, and in which order: pure, so that a simulation can live by it.
//!
//! It kills first and revokes after, never the reverse: a lease that is given back while something of the program lives
//! would let the next program start beside it.

use std::time::Duration;

use super::horizon::Horizon;
use crate::clock::Instant;
use crate::election::lease::LeaseId;

/// How many leases are remembered: the present one, and those of joins that did not come to an end.
pub const LEASES_MAX: usize = 16;
/// How long after H the main process is killed, if neither its fuse nor its kernel timer has done it.
const KILL_AFTER_FUSE: Duration = Duration::from_millis(100);
/// What a guardian that is killing gets beyond its time, again and again for as long as it is awake: on a starved
/// machine a tree does not die in an instant, and who ends its guardian frees what is left of it.
pub const KILLING_MAY_TAKE: Duration = Duration::from_secs(1);

/// What a guardian was told, and what has become of the main process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuardianRules {
    leases: Vec<LeaseId>,
    pinned: Option<u64>,
    dismissed: bool,
    main_is_dead: bool,
}

/// What is left of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgramState {
    /// Nothing.
    None,
    /// It stands by, and does nothing before it is promoted.
    Waits,
    /// It runs.
    Runs,
    /// It is being killed.
    Dies,
}

/// What has to be done at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// Kill the program's tree.
    pub kill_program: bool,
    /// Kill the main process.
    pub kill_main: bool,
}

/// What becomes of the guardian's own kernel timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// There is nothing that it would have to end.
    Off,
    /// It ends the guardian then, and the program with it.
    At(Instant),
    /// It stays as it is: the main process is dead, or about to say that the program must end.
    AsItIs,
}

/// What is left to do once the main process is dead or has dismissed the guardian.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Last {
    /// Kill all that is left of the program, and look again.
    Kill,
    /// Give these leases back, in this cluster if it is known.
    Revoke(Vec<LeaseId>, Option<u64>),
    /// Nothing.
    Nothing,
}

/// Keeps the newest leases of a main process, and no more than it may have.
pub fn remember<L>(leases: &mut Vec<L>, lease: L) {
    if leases.len() == LEASES_MAX {
        leases.remove(0);
    }
    leases.push(lease);
}

impl GuardianRules {
    /// The main process names a lease, before the store hears of it.
    pub fn add_lease(&mut self, lease: LeaseId) {
        remember(&mut self.leases, lease);
    }

    /// Only the answers of this cluster count.
    pub fn pin(&mut self, cluster: u64) {
        self.pinned = Some(cluster);
    }

    /// Everything is given back.
    pub fn dismiss(&mut self) {
        self.dismissed = true;
    }

    /// Is there nothing left to look after?
    pub fn is_dismissed(&self) -> bool {
        self.dismissed
    }

    /// The main process is dead: nothing is started any more.
    pub fn main_died(&mut self) {
        self.main_is_dead = true;
    }

    /// Was it ever told of a lease?
    pub fn knows_a_lease(&self) -> bool {
        !self.leases.is_empty()
    }

    /// May a program be started now, and when does the kernel timer end it? Its time may be over already: the order may be
    /// older than a pause of the machine.
    ///
    /// # Errors
    /// Why not.
    pub fn may_start(
        &self,
        now: Instant,
        horizon: &Horizon,
        program: ProgramState,
    ) -> Result<Instant, &'static str> {
        self.may_stand_by(program)?;
        Self::time_to_lead(now, horizon)
    }

    /// May a program be started now that does nothing before it is promoted?
    ///
    /// # Errors
    /// Why not.
    pub fn may_stand_by(&self, program: ProgramState) -> Result<(), &'static str> {
        match program {
            _ if self.main_is_dead => Err("the main process is dead"),
            ProgramState::None => Ok(()),
            _ => Err("processes of the last run are still alive"),
        }
    }

    /// May the program that stands by be promoted now, and when does the kernel timer end it?
    ///
    /// # Errors
    /// Why not.
    pub fn may_promote(
        &self,
        now: Instant,
        horizon: &Horizon,
        program: ProgramState,
    ) -> Result<Instant, &'static str> {
        match program {
            _ if self.main_is_dead => Err("the main process is dead"),
            ProgramState::Waits => Self::time_to_lead(now, horizon),
            _ => Err("no program stands by"),
        }
    }

    fn time_to_lead(now: Instant, horizon: &Horizon) -> Result<Instant, &'static str> {
        match horizon.guardian_until().zip(horizon.kill_at()) {
            Some((until, kill_at)) if !now.reached(kill_at) => Ok(until),
            _ => Err("leadership had ended before it was started"),
        }
    }

    /// What has to be done now.
    pub fn due(&self, now: Instant, horizon: &Horizon) -> Due {
        Due {
            kill_program: horizon.kill_at().is_some_and(|at| now.reached(at)),
            kill_main: horizon.fuse().is_some_and(|h| now.reached(h + KILL_AFTER_FUSE)),
        }
    }

    /// When to look again, if nothing is heard before.
    pub fn next_due(&self, horizon: &Horizon, program: ProgramState) -> Option<Instant> {
        let kill = horizon.kill_at().filter(|_| program == ProgramState::Runs);
        let fuse = horizon.fuse().map(|h| h + KILL_AFTER_FUSE);
        [kill, fuse].into_iter().flatten().reduce(Instant::earlier)
    }

    /// Who stands still must not outlive its time with a program: that is what the kernel timer is for.
    pub fn timer(&self, now: Instant, horizon: &Horizon, program: ProgramState) -> Timer {
        match (program, horizon.guardian_until()) {
            (ProgramState::None | ProgramState::Waits, _) => Timer::Off,
            (ProgramState::Dies, at) => {
                let more = now + KILLING_MAY_TAKE;
                Timer::At(at.map_or(more, |at| at.later(more)))
            }
            (ProgramState::Runs, Some(at)) => Timer::At(at),
            (ProgramState::Runs, None) => Timer::AsItIs,
        }
    }

    /// What comes next, once the main process is dead or has dismissed us.
    pub fn last(&self, program: ProgramState) -> Last {
        match program {
            ProgramState::Waits | ProgramState::Runs | ProgramState::Dies => Last::Kill,
            ProgramState::None if self.dismissed || self.leases.is_empty() => Last::Nothing,
            ProgramState::None => Last::Revoke(self.leases.clone(), self.pinned),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guardian::horizon::End;

    fn horizon() -> Horizon {
        let horizon = Horizon::create().unwrap();
        let at = Instant::from_millis;
        horizon.set(Some(End { stop: at(100), kill: at(200), guardian: at(300), fuse: at(400) }));
        horizon
    }

    #[test]
    fn nothing_is_given_back_while_something_lives() {
        let mut rules = GuardianRules::default();
        rules.add_lease(LeaseId(7));
        rules.pin(3);
        rules.main_died();
        assert_eq!(rules.last(ProgramState::Runs), Last::Kill);
        assert_eq!(rules.last(ProgramState::Dies), Last::Kill);
        assert_eq!(rules.last(ProgramState::Waits), Last::Kill);
        assert_eq!(rules.last(ProgramState::None), Last::Revoke(vec![LeaseId(7)], Some(3)));
        rules.dismiss();
        assert_eq!(
            (rules.last(ProgramState::Runs), rules.last(ProgramState::None)),
            (Last::Kill, Last::Nothing)
        );
    }

    #[test]
    fn a_program_starts_only_in_its_time_and_alone() {
        let (mut rules, horizon, at) = (GuardianRules::default(), horizon(), Instant::from_millis);
        assert_eq!(rules.may_start(at(199), &horizon, ProgramState::None), Ok(at(300)));
        assert!(rules.may_start(at(200), &horizon, ProgramState::None).is_err(), "its time is over");
        assert!(rules.may_start(at(0), &horizon, ProgramState::Dies).is_err(), "the last one still lives");
        rules.main_died();
        assert!(rules.may_start(at(0), &horizon, ProgramState::None).is_err(), "nobody would end it");
    }

    #[test]
    fn a_program_that_stands_by_is_promoted_only_in_a_tenure() {
        let (mut rules, horizon, at) = (GuardianRules::default(), horizon(), Instant::from_millis);
        assert_eq!(rules.may_promote(at(199), &horizon, ProgramState::Waits), Ok(at(300)));
        assert_eq!(rules.timer(at(0), &horizon, ProgramState::Waits), Timer::Off, "it does nothing yet");
        assert!(rules.may_promote(at(200), &horizon, ProgramState::Waits).is_err(), "the time is over");
        for other in [ProgramState::None, ProgramState::Runs, ProgramState::Dies] {
            assert!(rules.may_promote(at(0), &horizon, other).is_err(), "{other:?}");
        }
        horizon.set(None);
        assert!(rules.may_promote(at(0), &horizon, ProgramState::Waits).is_err(), "nobody leads");
        assert_eq!(rules.may_stand_by(ProgramState::None), Ok(()));
        assert!(rules.may_stand_by(ProgramState::Waits).is_err(), "one at a time");
        rules.main_died();
        assert!(rules.may_stand_by(ProgramState::None).is_err(), "nobody would end it");
    }

    #[test]
    fn each_is_killed_in_its_turn_and_a_guardian_that_kills_gets_more_time() {
        let (rules, horizon, at) = (GuardianRules::default(), horizon(), Instant::from_millis);
        assert_eq!(rules.due(at(199), &horizon), Due::default());
        assert_eq!(rules.due(at(200), &horizon), Due { kill_program: true, kill_main: false });
        assert_eq!(rules.due(at(500), &horizon), Due { kill_program: true, kill_main: true });
        assert_eq!(rules.next_due(&horizon, ProgramState::Runs), Some(at(200)));
        assert_eq!(rules.next_due(&horizon, ProgramState::Dies), Some(at(500)));
        assert_eq!(rules.timer(at(0), &horizon, ProgramState::None), Timer::Off);
        assert_eq!(rules.timer(at(0), &horizon, ProgramState::Runs), Timer::At(at(300)));
        assert_eq!(rules.timer(at(290), &horizon, ProgramState::Dies), Timer::At(at(1290)));
        horizon.set(None);
        assert_eq!(rules.timer(at(0), &horizon, ProgramState::Runs), Timer::AsItIs);
    }
}
