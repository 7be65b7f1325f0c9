//! The observer of a simulated driver: shows the world what its elector hears, asks for and believes.

use metad::driver::observer::{Moment, Observer};
use metad::election::elector::State;
use metad::election::event::{Action, ClaimAnswer, Event, HandOverAnswer};
use metad::election::history::{Reason, Transition};
use metad::election::lease::Lease;
use metad::election::record::{Revision, Token, View};

use crate::simulation::host::{MainLoop, Seen};
use crate::simulation::invariants::Happened;
use crate::simulation::machine::Machine;
use crate::simulation::network::Shown;

/// Watches one driver.
pub struct Watching(pub Machine);

impl Observer for Watching {
    fn hears(&mut self, moment: Moment<'_>, event: &Event) {
        let Machine { sim, h, pid, .. } = &self.0;
        let mut world = sim.lock();
        match event {
            Event::Joined(joined) => {
                world.moment.push(Happened::Joined { h: *h, pid: *pid });
                if joined.view.leader.tenure_of(moment.elector.me(), joined.lease).is_some() {
                    world.tally.count("records reclaimed");
                }
            }
            Event::HandedOver(HandOverAnswer::Done) => world.tally.count("handed over"),
            Event::HandedOver(HandOverAnswer::Unknown) => world.tally.count("handed over, outcome unknown"),
            Event::MainLoopHung => world.tally.count("hung main loops noticed"),
            _ => {}
        }
        if let Some(view) = shown_by(event) {
            let (at, shows) = (view.revision, Shown::of(view));
            world.moment.push(Happened::Shown { h: *h, at, shows });
        }
        let before = moment.elector.lease().copied();
        let moves = |l: &Lease, stamp| l.holds_until().later(stamp + l.timing().span()) != l.holds_until();
        if let Event::Renewed { lease, stamp, .. } = event
            && before.is_none_or(|l| l.id() != *lease || !moves(&l, *stamp))
        {
            world.tally.count("late acks ignored");
        }
        let Some(p) = world.process(*h, *pid) else { return };
        if let Some(view) = shown_by(event) {
            let token = view.leader.tenure().map(|t| t.token);
            p.shown = p.shown.max((view.revision, token));
            p.seen_token = p.seen_token.max(token);
        }
        match event {
            Event::Claimed { nonce, answer: ClaimAnswer::Unknown, .. } => p.unsure = Some(*nonce),
            Event::Claimed { nonce, answer: ClaimAnswer::Lost, .. } => p.lost_claim = Some(*nonce),
            _ => {}
        }
    }

    fn handled(&mut self, moment: Moment<'_>, _lease_before: Option<&Lease>) {
        let Machine { sim, h, pid, .. } = &self.0;
        let mut world = sim.lock();
        let Some(p) = world.process(*h, *pid) else { return };
        let seen = Seen::of(moment.elector);
        let (before, lost) = (p.seen.replace(seen.clone()).and_then(|s| s.claiming), p.lost_claim.take());
        let Some(nonce) = before.filter(|n| seen.claiming != Some(*n) && lost != Some(*n)) else { return };
        let (h, pid) = (*h, *pid);
        match moment.elector.state() {
            State::Follower { .. } | State::Claiming { .. } => {
                world.tally.count("claims cancelled");
                world.moment.push(Happened::ClaimCancelled { pid, nonce });
            }
            State::Joining { .. } => world.moment.push(Happened::ClaimOrphaned { h, pid, nonce }),
            _ => {}
        }
    }

    fn asks(&mut self, moment: Moment<'_>, action: &Action) {
        let Machine { sim, h, pid, .. } = &self.0;
        let (h, pid, mut world) = (*h, *pid, sim.lock());
        world.trace(|| format!("n{h}#{pid} {action:?}"));
        if let Action::StopMainLoop(token, reason) = action {
            world.leader_stops(h, *token, *reason, moment.elector);
        }
        let unsure = world.process(h, pid).and_then(|p| p.unsure).is_some();
        match action {
            Action::HandOver { token, .. } | Action::Release(token) => {
                world.moment.push(Happened::Released { h, token: *token });
            }
            Action::StartMainLoop(token) => world.order_main_loop(h, pid, *token),
            Action::StopMainLoop(_, reason) => world.tally.count(match reason {
                Reason::RenewDeadline | Reason::ClockSuspended => "stopped: renew_deadline",
                Reason::RecordDeleted => "stopped: record_deleted",
                Reason::Deposed => "stopped: deposed",
                Reason::Fenced => "stopped: fenced",
                Reason::StoreChanged => "stopped: store_changed",
                Reason::GuardianLost => "stopped: guardian_lost",
                Reason::ProbeFailed => "stopped: probe_failed",
                _ => "stopped: as planned",
            }),
            Action::AbortMainLoop => world.tally.count("main loops aborted"),
            Action::EndProcess(_) => world.tally.count("main loops ended with their process"),
            Action::Report(Transition::LeadsOn(_, why)) if why.contains("5 minutes") => {
                world.tally.count("leads on, so soon after another change");
            }
            Action::Report(Transition::LeadsOn(..)) => world.tally.count("leads on, nobody is better"),
            Action::Report(Transition::Rejoining) => world.tally.count("rejoins"),
            Action::Report(Transition::Won(_)) if unsure => world.tally.count("claims unknown, then won"),
            Action::Report(Transition::ClaimLost) => world.tally.count("claims lost"),
            Action::Report(Transition::Resigned(_)) => world.tally.count("records given up"),
            _ => {}
        }
    }
}

impl crate::simulation::world::World {
    /// The order to start a main loop.
    fn order_main_loop(&mut self, h: usize, pid: u32, token: Token) {
        let (is_program, ordered_at) = (self.plan.programs, self.now);
        let Some(p) = self.process(h, pid) else { return };
        let (revision, record) = p.shown;
        let fresh = MainLoop { token, ordered_at, begun: false, ended: false, is_program };
        let is_second = p.main_loop.replace(fresh).is_some();
        if revision >= token.revision() && record != Some(token) {
            self.moment.push(Happened::StartedAgainstNews { h, token });
        }
        if is_second {
            self.moment.push(Happened::SecondMainLoop { h });
        }
    }
}

/// The view in an event.
fn shown_by(event: &Event) -> Option<&View> {
    match event {
        Event::Seen(view) => Some(view),
        Event::Read { answer: Some(answer), .. } => Some(&answer.view),
        Event::Claimed { seen: Some(view), .. } => Some(view),
        Event::Joined(joined) => Some(&joined.view),
        _ => None,
    }
}

/// Nothing was shown yet.
pub const NOTHING: (Revision, Option<Token>) = (Revision(0), None);
