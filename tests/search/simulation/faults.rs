//! What goes wrong, and what operators do; and the moment when all of it stops.

use metad::election::history::Reason;
use metad::election::record::{Revision, Token};
use metad::store::{Op, Request, Txn};

use crate::simulation::clock::MS;
use crate::simulation::network::{From, What};
use crate::simulation::plan::Fault;
use crate::simulation::world::{Event, World};

/// Whoever does something by hand is nobody's guardian.
pub const OPERATOR: From = From::Guardian(u64::MAX);

impl World {
    /// One fault, and the next one a while later.
    pub fn fault(&mut self) {
        let kinds = &self.plan.faults;
        let kind = kinds[self.dice.below(kinds.len() as u64) as usize];
        let h = self.victim();
        self.trace(|| format!("fault: {kind:?}, perhaps of n{h}"));
        match kind {
            Fault::Pause => self.pause(h),
            Fault::Cut => self.hosts[h].cut_until = self.until(),
            Fault::Outage => self.store.out_until = self.until(),
            Fault::RaftChange => self.change_raft_leader(),
            Fault::StaleAcks => self.stale_acks(h),
            Fault::Crash => self.end(h, None, "crash"),
            Fault::Shutdown => self.ask_to_stop(h),
            Fault::SilentWatch => self.hosts[h].silent_until = self.until(),
            Fault::DeleteRecord => self.delete_record(),
            Fault::RevokeLease => self.revoke_a_lease(),
            Fault::DeleteRegistration => self.delete_registration(h),
            Fault::SecondDir => self.start_second_dir(),
            Fault::StopGuardian => self.stop_guardian(h),
            Fault::StopBoth => {
                self.pause(h);
                self.stop_guardian(h);
            }
            Fault::KillGuardian => {
                if let Some(id) = self.guardians.iter().find(|g| g.h == h).map(|g| g.id) {
                    self.kill_guardian(id, "guardians killed");
                }
            }
            Fault::Compact => self.store.state.compact(),
            Fault::StalePrepare => self.prepare_out_of_turn(),
            Fault::Freeze => self.freeze_or_unfreeze(),
            Fault::Probe => self.change_health(h),
            Fault::Readiness => self.cool_down(h),
            Fault::Priority => self.change_priority(h),
        }
        let next = self.plan.fault_every / 8 + self.dice.below(self.plan.fault_every);
        self.push(next, Event::Fault);
    }

    /// A host; more often the one that leads, because that is where it hurts.
    fn victim(&self) -> usize {
        let leader =
            self.hosts.iter().position(|h| h.process.as_ref().is_some_and(|p| p.running().is_some()));
        match leader {
            Some(h) if self.dice.percent(60) => h,
            _ => self.dice.below(self.hosts.len() as u64) as usize,
        }
    }

    /// The end of something that lasts 0.1 to 1.5 times the time to live.
    fn until(&self) -> u64 {
        self.now + self.plan.ttl_ns() / 10 + self.dice.below(self.plan.ttl_ns() * 14 / 10)
    }

    fn pause(&mut self, h: usize) {
        let until = self.until() + self.dice.below(2) * self.plan.ttl_ns();
        let Some(p) = self.hosts[h].process.as_mut().filter(|p| !p.paused) else { return };
        (p.paused, p.was_paused) = (true, true);
        let (pid, leads) = (p.pid, p.running().is_some());
        if leads {
            self.tally.count("leaders paused");
        }
        self.push(until - self.now, Event::Resume(h, pid));
    }

    fn stale_acks(&mut self, h: usize) {
        let (until, term) = (self.until() + self.plan.ttl_ns(), self.store.raft_term);
        (self.hosts[h].stale_until, self.hosts[h].stale_term) = (until, term);
        self.change_raft_leader();
    }

    fn ask_to_stop(&mut self, h: usize) {
        if let Some(p) = self.hosts[h].process.as_ref().filter(|p| !p.paused) {
            p.handle.shutdown(Reason::ResignedSignal);
        }
    }

    /// A second data dir under the first one's node id; or the first one's own, attached to another machine.
    fn start_second_dir(&mut self) {
        let second = self.hosts.len() - 1;
        if self.plan.reattached && self.hosts[second].process.is_none() {
            self.hosts[second].files = self.hosts[0].files.clone();
            self.tally.count("data dirs attached elsewhere");
        }
        self.push(0, Event::Start(second));
    }

    fn stop_guardian(&mut self, h: usize) {
        let until = self.until();
        let Some(guardian) = self.guardians.iter_mut().find(|g| g.h == h) else { return };
        guardian.stopped_until = until;
        let id = guardian.id;
        self.tally.count("guardians stopped");
        self.push(until - self.now, Event::Look(id));
    }

    /// A late or a forged Prepare, for a tenure that is over, or for one that nobody has seen.
    fn prepare_out_of_turn(&mut self) {
        let revision = self.store.state.revision().0 + 3;
        let Some(token) = Token::new(Revision(1 + self.dice.below(revision))) else { return };
        for h in 0..self.hosts.len() {
            if self.hosts[h].process.as_ref().is_some_and(|p| !p.paused) {
                let _ = self.ask_to_prepare(h, token); // whatever it answers, nobody hears it
            }
        }
    }

    /// The store is made anew from its backup, under its old name.
    pub fn restore(&mut self) {
        let Some(backup) = self.store.backup.take() else {
            self.store.backup = Some(self.store.state.clone());
            let after = self.dice.below(4 * self.plan.ttl_ns());
            return self.push(after, Event::Restore);
        };
        self.tally.count("stores restored");
        self.trace(|| "the store is restored from a backup".into());
        let now = self.store.clock.now(self.now);
        self.store.state = backup;
        self.store.state.change_raft_leader(now); // every lease begins anew
        self.store.ended.clear();
        self.store.shown.clear();
        self.store.leases_changed();
        self.store.out_until = self.until();
        self.oracle.forget();
        self.drop_late_copies();
        self.operator_frozen = self.is_frozen();
        self.break_watches();
        self.tell_watches();
    }

    fn taint_record(&mut self) {
        let token = self.record().and_then(Token::new);
        self.oracle.tainted.extend(token);
    }

    fn delete(&mut self, key: String) {
        let txn = Txn { guards: vec![], then: vec![Op::Delete(key)], otherwise: vec![] };
        let _ = self.apply(&Request::Txn(txn), &What::Other, OPERATOR);
    }

    fn delete_record(&mut self) {
        self.taint_record();
        self.delete(self.keys.leader());
    }

    fn delete_registration(&mut self, h: usize) {
        self.delete(self.keys.node(&self.hosts[h].node));
    }

    fn revoke_a_lease(&mut self) {
        let leases: Vec<_> = self.store.state.leases().map(|(l, _)| l).collect();
        let Some(lease) = leases.get(self.dice.below(leases.len() as u64) as usize).copied() else { return };
        if self.store.state.get(&self.keys.leader()).is_some_and(|kv| kv.lease == Some(lease)) {
            self.taint_record();
        }
        self.oracle.tainted_leases.insert(lease);
        self.trace(|| format!("the operator revokes {lease}"));
        let _ = self.apply(&Request::Revoke(lease), &What::Other, OPERATOR);
    }

    /// All faults stop, and everybody is alive. Returns when the last leftover of the faults arrives.
    pub fn calm_down(&mut self) -> u64 {
        self.trace(|| "the faults stop".into());
        self.calm = true;
        self.drop_faults();
        self.unfreeze();
        self.all_are_well();
        self.store.out_until = 0;
        let last = self.hosts.len() - 1;
        self.end(last, None, "the second data dir goes away");
        for h in 0..self.hosts.len() {
            let host = &mut self.hosts[h];
            (host.cut_until, host.stale_until, host.silent_until) = (0, 0, 0);
            host.accepts_new_store = self.oracle.went_back;
            match host.process.as_ref().map(|p| (p.pid, p.paused)) {
                Some((pid, true)) => self.resume(h, pid),
                Some(_) => {}
                None if !host.second => self.push(100 * MS, Event::Start(h)),
                None => {}
            }
        }
        for i in 0..self.guardians.len() {
            self.guardians[i].stopped_until = 0;
            self.push(0, Event::Look(self.guardians[i].id));
        }
        if self.plan.drop_in_flight {
            self.drop_in_flight();
        }
        self.last_delivery()
    }

    /// Who leads, in the eyes of who could say so.
    pub fn leader(&self) -> Option<Token> {
        let alive = self.hosts.iter().filter_map(|h| h.process.as_ref());
        alive.filter_map(|p| p.leads()).find(|t| self.record() == Some(Revision(t.get())))
    }
}
