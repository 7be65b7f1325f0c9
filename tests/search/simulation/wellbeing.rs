//! What members say of themselves: what their probes have found, and whether they are warm; and operators who give them other
//! priorities. None of it may cost safety; and once everybody is well someone leads.

use futures_util::FutureExt;
use metad::election::elector::{Elector, State, Succession};
use metad::election::history::Reason;
use metad::election::probe::{APART, Failing, MemberHealth};
use metad::election::record::{Member, Token};

use crate::simulation::clock::MS;
use crate::simulation::host::Host;
use crate::simulation::invariants::Happened;
use crate::simulation::machine::nanos;
use crate::simulation::world::{Event, World};

/// How long the first run of a probe takes at most.
const FIRST_PROBE_MAX: u64 = 200 * MS;

// === impl World: health ===

impl World {
    /// What is known of this host's probes before they have run.
    pub fn health_at_start(&self, h: usize) -> MemberHealth {
        if self.hosts[h].is_probed { MemberHealth::Untried } else { MemberHealth::Unprobed }
    }

    /// A process has started: its probes run for the first time, and it warms up.
    pub fn begin_to_be_well(&mut self, h: usize, pid: u32) {
        if self.hosts[h].is_probed {
            let takes = if self.calm { MS } else { self.dice.below(FIRST_PROBE_MAX) };
            self.push(takes, Event::Probed(h, pid));
        }
        if !self.calm && self.plan.warm_up > 0 {
            self.say_unready(h, true);
            let takes = self.dice.below(self.plan.warm_up);
            self.push(takes, Event::Warm(h, pid));
        }
    }

    /// A host's probe begins to fail, or succeeds again; that of a leader goes on to fail.
    pub fn change_health(&mut self, h: usize) {
        if self.hosts[h].is_probed {
            let leads = self.hosts[h].process.as_ref().is_some_and(|p| p.leads().is_some());
            self.hosts[h].is_ill = leads || !self.hosts[h].is_ill;
            self.tell_health(h);
        }
    }

    /// The process hears what its probes have found.
    pub fn tell_health(&mut self, h: usize) {
        let (since, has_failed) = (self.clock(h), self.dice.percent(80));
        let health = match self.hosts[h].is_ill {
            true => MemberHealth::Failing(Failing { since, measured: "it is ill".into(), has_failed }),
            false => MemberHealth::Healthy { since },
        };
        let Some(p) = &mut self.hosts[h].process else { return };
        p.was_probed = true;
        let _ = p.handle.probed(health); // it is ending, or so busy that it has worse problems
        self.tally.count(if self.hosts[h].is_ill { "probes failed" } else { "probes succeeded" });
    }
}

// === impl World: readiness ===

impl World {
    /// A process is warm.
    pub fn say_ready(&mut self, h: usize) {
        if let Some(p) = &self.hosts[h].process {
            p.readiness.ready();
        }
    }

    /// It is not, or not any more.
    pub fn say_unready(&mut self, h: usize, claims_last: bool) {
        if let Some(p) = &self.hosts[h].process {
            p.readiness.unready("it is cold", claims_last);
        }
    }

    /// A process becomes unable to lead for a while.
    pub fn cool_down(&mut self, h: usize) {
        let Some(pid) = self.hosts[h].process.as_ref().map(|p| p.pid) else { return };
        let claims_last = self.dice.percent(50);
        self.say_unready(h, claims_last);
        let lasts = self.dice.below(2 * self.plan.ttl_ns());
        self.push(lasts, Event::Warm(h, pid));
    }
}

// === impl World: priorities ===

impl World {
    /// An operator gives a member another priority, and does not wait.
    pub fn change_priority(&mut self, h: usize) {
        let priority = [0, 50, 100, 200][self.dice.below(4) as usize];
        self.give_priority(h, priority);
    }

    fn give_priority(&mut self, h: usize, priority: u16) {
        if let Some(p) = &self.hosts[h].process {
            let told = p.handle.set_priority(priority).now_or_never();
            let is_refused = matches!(told, Some(Err(_)));
            self.tally.count(if is_refused { "priorities refused" } else { "priorities changed" });
        }
    }

    /// Everybody is well from now on, and as important as at the start.
    pub fn all_are_well(&mut self) {
        for h in 0..self.hosts.len() {
            if std::mem::take(&mut self.hosts[h].is_ill) {
                self.tell_health(h);
            }
            self.say_ready(h);
            if !self.hosts[h].second && self.plan.changes_priorities() {
                self.give_priority(h, self.hosts[h].priority);
            }
        }
    }
}

// === impl World: leaders that make way ===

impl World {
    /// A leader's main loop is told to stop; perhaps to make way for another member.
    pub fn leader_stops(&mut self, h: usize, token: Token, reason: Reason, elector: &Elector) {
        let State::Stopping { succession: Succession::Successor { successor, .. }, .. } = elector.state()
        else {
            return;
        };
        match reason {
            Reason::StartTimeout => self.tally.count("cold leaders that make way"),
            Reason::ProbeFailed => {
                let was_handed = elector.view().leader.tenure().is_some_and(|t| t.record.probe_handed_ms > 0);
                self.makes_way(h, token, successor, was_handed);
            }
            _ => {}
        }
    }

    fn makes_way(&mut self, h: usize, token: Token, successor: &Member, was_handed: bool) {
        let of = |host: &&Host| host.process.as_ref().is_some_and(|p| p.me == successor.registration.member);
        let process = self.hosts.iter().find(of).and_then(|host| host.process.as_ref());
        let Some(healthy_for) = process.and_then(|p| p.said_healthy_for) else { return };
        let main_loop = self.hosts[h].process.as_ref().and_then(|p| p.main_loop.as_ref());
        let led_for = nanos(self.now - main_loop.map_or(self.now, |l| l.ordered_at));
        // Clocks run at slightly different rates.
        let is_too_soon = was_handed && led_for < APART * 99 / 100 && healthy_for < APART * 99 / 100;
        if was_handed && !is_too_soon {
            self.tally.count("handed on to one that was healthy for longer");
        }
        self.moment.push(Happened::MadeWay { h, token, is_too_soon });
    }
}
