//! What goes wrong, and what operators do; and the moment when all of it stops.

use metad::election::event::Event as Heard;
use metad::election::history::Reason;
use metad::election::record::{Revision, Token};
use metad::store::{Op, Request, Txn};

use crate::simulation::clock::MS;
use crate::simulation::network::What;
use crate::simulation::plan::Fault;
use crate::simulation::world::{Event, World};

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
            Fault::Crash => self.end(h, "crash"),
            Fault::Shutdown => self.ask_to_stop(h),
            Fault::SilentWatch => self.hosts[h].silent_until = self.until(),
            Fault::DeleteRecord => self.delete_record(),
            Fault::RevokeLease => self.revoke_a_lease(),
            Fault::DeleteRegistration => self.delete_registration(h),
            Fault::SecondDir => self.push(0, Event::Start(self.hosts.len() - 1)),
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
        p.paused = true;
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
        if self.hosts[h].process.as_ref().is_some_and(|p| !p.paused) {
            self.feed(h, Some(Heard::Shutdown(Reason::ResignedSignal)));
        }
    }

    fn taint_record(&mut self) {
        let token = self.record().and_then(Token::new);
        self.oracle.tainted.extend(token);
    }

    fn delete(&mut self, key: String) {
        let txn = Txn { guards: vec![], then: vec![Op::Delete(key)], otherwise: vec![] };
        let _ = self.apply(&Request::Txn(txn), What::Other, (0, 0));
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
        let _ = self.apply(&Request::Revoke(lease), What::Other, (0, 0));
    }

    /// All faults stop, and everybody is alive. Returns when the last leftover of the faults arrives.
    pub fn calm_down(&mut self) -> u64 {
        self.trace(|| "the faults stop".into());
        self.calm = true;
        self.drop_faults();
        self.store.out_until = 0;
        let last = self.hosts.len() - 1;
        self.end(last, "the second data dir goes away");
        self.end_hung_processes();
        for h in 0..self.hosts.len() {
            let host = &mut self.hosts[h];
            (host.cut_until, host.stale_until, host.silent_until) = (0, 0, 0);
            match host.process.as_ref().map(|p| (p.pid, p.paused)) {
                Some((pid, true)) => self.resume(h, pid),
                Some(_) => {}
                None if !host.second => self.push(100 * MS, Event::Start(h)),
                None => {}
            }
            self.open_watch(h);
        }
        if self.plan.drop_in_flight {
            self.drop_in_flight();
        }
        self.last_delivery()
    }

    /// A main loop that hangs is a fault as well.
    fn end_hung_processes(&mut self) {
        for h in 0..self.hosts.len() {
            let main_loop = self.hosts[h].process.as_ref().and_then(|p| p.main_loop.as_ref());
            if main_loop.is_some_and(|l| l.hung || (l.told && l.deaf && !l.ended)) {
                self.end(h, "its operator ends a process that hangs");
            }
        }
    }

    /// Who leads, in the eyes of who could say so.
    pub fn leader(&self) -> Option<Token> {
        let alive = self.hosts.iter().filter_map(|h| h.process.as_ref());
        alive.filter_map(|p| p.leads()).find(|t| self.record() == Some(Revision(t.get())))
    }
}
