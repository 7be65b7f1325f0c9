//! Time that passes, and what ends with it: fuses, programs, leases. And the deaths that need no time.
//!
//! A process that is not scheduled while time passes is a process that stalls. Its fuse is a thread of its own and
//! the guardian is a process of its own: these act in the tick in which their deadlines fall, fuse before lease,
//! because H comes before the store may let the lease end.

use std::sync::Arc;

use metad::election::event::Event as Heard;
use metad::store::Request;

use crate::model::driving::Run;
use crate::model::facts::Fact;
use crate::model::scenario::Mutant;
use crate::model::world::{Freed, Guardian, Process, Purpose};

impl Run<'_> {
    /// A tick passes.
    pub fn tick(&mut self) {
        self.world.tick += 1;
        for n in 0..2 {
            if self.world.nodes[n].left.iter().any(|g| g.program.is_some()) {
                self.kill(n);
            }
            self.end_by_deadline(n);
        }
        let now = self.world.now();
        let store = Arc::make_mut(&mut self.world.store);
        let held = store.token().is_some();
        store.state.expire(now);
        store.note(held, Some(Freed::Expiry));
    }

    /// The guardian ends the program at H − B/4, the fuse the process at H.
    fn end_by_deadline(&mut self, n: usize) {
        let now = self.world.now();
        let Some(lease) = self.world.process(n).and_then(|p| p.elector.fused_lease().copied()) else {
            return;
        };
        let guarded = self.world.process(n).is_some_and(|p| p.guardian.is_some());
        if self.plan.program && guarded && now.reached(lease.kill_at()) {
            self.facts.add(Fact::GuardianKilledProgram);
            if let Some(l) = self.process(n).and_then(|p| p.main_loop.as_mut()) {
                l.ended = true;
            }
        }
        if now.reached(lease.holds_until()) {
            self.facts.add(Fact::FuseFired);
            self.end_process(n);
        }
    }

    /// The process crashes; inside its join, the place is remembered.
    pub fn crash(&mut self, n: usize) {
        self.world.spent.crashes += 1;
        let asks = |p: &Process| {
            p.calls.iter().find_map(|c| match c.purpose {
                Purpose::Join(step) => Some(step),
                _ => None,
            })
        };
        let scar = self.world.process(n).and_then(asks);
        let node = self.node(n);
        node.scar = scar.or(node.scar);
        self.end_process(n);
    }

    /// The guardian dies; its program has a parent-death signal.
    pub fn crash_guardian(&mut self, n: usize) {
        self.world.spent.guardian_crashes += 1;
        let program = self.plan.program;
        let Some(p) = self.process(n) else { return };
        p.guardian = None;
        if program && p.running().is_some() {
            self.facts.add(Fact::GuardianDiedProgramEnded);
            self.end_main_loop(n);
        }
    }

    /// Process and guardian die in one instant, and with the guardian the program.
    pub fn crash_both(&mut self, n: usize) {
        self.world.spent.guardian_crashes += 1;
        if let Some(p) = self.process(n) {
            p.guardian = None;
        }
        self.crash(n);
    }

    /// Guardians kill what their dead processes have left.
    pub fn kill(&mut self, n: usize) {
        for guardian in &mut self.node(n).left {
            guardian.program = None;
        }
        self.node(n).left.retain(|g| *g != Guardian::default());
        self.facts.add(Fact::GuardianKilledProgram);
    }

    /// The first guardian that may: it revokes the leases of its dead process.
    pub fn revoke(&mut self, n: usize) {
        let early = self.plan.mutant == Mutant::RevokeBeforeKill;
        let may = |g: &&mut Guardian| !g.leases.is_empty() && (early || g.program.is_none());
        let Some(guardian) = self.node(n).left.iter_mut().find(may) else { return };
        let (leases, running) = (std::mem::take(&mut guardian.leases), guardian.program.is_some());
        self.node(n).left.retain(|g| *g != Guardian::default());
        self.world.broken.given_up_early |= running;
        let now = self.world.now();
        let store = Arc::make_mut(&mut self.world.store);
        let held = store.token().is_some();
        for lease in leases {
            // A store in memory refuses no revoke.
            let _ = store.state.apply(now, &Request::Revoke(lease));
        }
        store.note(held, Some(Freed::Guardian));
    }

    /// The watch shows the next view.
    pub fn see(&mut self, n: usize) {
        let Some(p) = self.world.process(n) else { return };
        let seen = p.elector.view().revision;
        let Some(view) = self.world.store.views.iter().find(|v| v.revision > seen).cloned() else {
            return;
        };
        self.feed(n, Some(Heard::Seen((*view).clone())));
    }
}
