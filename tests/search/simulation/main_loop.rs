//! The main loop of a simulated process: it writes a counter behind the fence, and ends when told, or does not.
//!
//! Before everything it does it looks at the clock, as `Leadership::check` does.

use metad::election::event::Event as Heard;
use metad::election::history::Reason;
use metad::election::record::Token;
use metad::protocol::transactions;
use metad::store::{Op, Request};

use crate::simulation::clock::{MS, SEC};
use crate::simulation::host::{MainLoop, Purpose};
use crate::simulation::invariants::Happened;
use crate::simulation::world::{Input, World};

impl World {
    /// The order to start: the loop begins a little later, on threads of its own.
    pub fn order_main_loop(&mut self, h: usize, token: Token) {
        let stop_after = match self.dice.below(6) {
            0 => None,
            1 => Some(self.dice.below(3 * SEC)),
            _ => Some(self.dice.below(50 * MS)),
        };
        let cadence = self.plan.ttl_ns() / (4 + self.dice.below(20));
        let deaf = self.dice.percent(20);
        let fresh = MainLoop {
            token,
            begun: false,
            ended: false,
            told: false,
            stop_after,
            deaf,
            hung: false,
            cadence,
            writes: 0,
        };
        let Some(p) = self.hosts[h].process.as_mut() else { return };
        let (revision, record) = p.shown;
        if revision >= token.revision() && record != Some(token) {
            self.moment.push(Happened::StartedAgainstNews { h, token });
        }
        if p.main_loop.replace(fresh).is_some() {
            self.moment.push(Happened::SecondMainLoop { h });
        }
        let late = if self.calm { 5 } else { [5, 200, 2_000][self.dice.below(3) as usize] };
        let after = self.dice.below(late * MS);
        self.later(h, after, Input::LoopBegins);
    }

    /// `Leadership::check`.
    fn may_act(&self, h: usize) -> bool {
        let now = self.clock(h);
        let Some(p) = self.hosts[h].process.as_ref() else { return false };
        let told = p.main_loop.as_ref().is_none_or(|l| l.told || l.ended);
        !told && p.stop_at.is_some_and(|at| !now.reached(at))
    }

    /// It begins, unless leadership was lost before: then it never does.
    pub fn loop_begins(&mut self, h: usize) {
        let may = self.may_act(h);
        let Some(p) = self.hosts[h].process.as_mut() else { return };
        let Some(main_loop) = p.main_loop.as_mut() else { return };
        if !may {
            main_loop.ended = true;
            self.tally.count("main loops lost before they began");
            return self.feed(h, Some(Heard::MainLoopEnded(None)));
        }
        main_loop.begun = true;
        let token = main_loop.token;
        self.moment.push(Happened::LoopBegan { h, token });
        self.tally.count("main loops begun");
        self.trace(|| format!("n{h} main loop begins under {token}"));
        self.take(h, Input::LoopActs);
    }

    /// It writes, if it still may.
    pub fn loop_acts(&mut self, h: usize) {
        if !self.may_act(h) {
            return self.loop_notices(h);
        }
        let Some(main_loop) = self.hosts[h].process.as_mut().and_then(|p| p.main_loop.as_mut()) else {
            return;
        };
        main_loop.writes += 1;
        let (token, n, cadence) = (main_loop.token, main_loop.writes, main_loop.cadence);
        let put = Op::Put(self.keys.state("counter"), format!("{token}:{n}").into_bytes(), None);
        let txn = transactions::fenced(&self.keys, token, vec![], vec![put]);
        self.send(h, Purpose::Write(token), Request::Txn(txn));
        if !self.calm && self.dice.below(1000) == 0 {
            return self.loop_ends(h, Some(3));
        }
        if !self.calm && self.dice.below(1000) == 0 {
            return self.loop_hangs(h);
        }
        let next = cadence / 2 + self.dice.below(cadence);
        self.later(h, next, Input::LoopActs);
    }

    /// A check has failed: a loop that is good for anything now ends by itself.
    fn loop_notices(&mut self, h: usize) {
        let main_loop = self.hosts[h].process.as_ref().and_then(|p| p.main_loop.as_ref());
        if let Some(after) = main_loop.filter(|l| !l.ended).and_then(|l| l.stop_after) {
            self.later(h, after, Input::LoopEnds(None));
        }
    }

    /// The order to stop.
    pub fn stop_main_loop(&mut self, h: usize, reason: Reason) {
        self.tally.count(match reason {
            Reason::RenewDeadline | Reason::ClockSuspended => "stopped: renew_deadline",
            Reason::RecordDeleted => "stopped: record_deleted",
            Reason::Deposed => "stopped: deposed",
            Reason::Fenced => "stopped: fenced",
            _ => "stopped: as planned",
        });
        let Some(main_loop) = self.hosts[h].process.as_mut().and_then(|p| p.main_loop.as_mut()) else {
            return;
        };
        main_loop.told = true;
        if main_loop.begun {
            self.loop_notices(h);
        }
    }

    /// It does nothing any more, and the watchdog notices a while later.
    fn loop_hangs(&mut self, h: usize) {
        self.tally.count("main loops hung");
        if let Some(main_loop) = self.hosts[h].process.as_mut().and_then(|p| p.main_loop.as_mut()) {
            (main_loop.stop_after, main_loop.hung) = (None, true);
        }
        let after = self.dice.below(5 * SEC);
        self.later(h, after, Input::LoopHangs);
    }

    /// The order to end at once. A thread that never awaits does not hear it.
    pub fn abort_main_loop(&mut self, h: usize) {
        self.tally.count("main loops aborted");
        let main_loop = self.hosts[h].process.as_ref().and_then(|p| p.main_loop.as_ref());
        if main_loop.is_some_and(|l| l.deaf) {
            return self.tally.count("main loops deaf to an abort");
        }
        let after = self.dice.below(10 * MS);
        self.later(h, after, Input::LoopEnds(None));
    }

    /// It ends; the driver hears of it a little later.
    pub fn loop_ends(&mut self, h: usize, code: Option<i32>) {
        let Some(main_loop) = self.hosts[h].process.as_mut().and_then(|p| p.main_loop.as_mut()) else {
            return;
        };
        if !main_loop.begun || main_loop.ended {
            return;
        }
        main_loop.ended = true;
        let token = main_loop.token;
        self.trace(|| format!("n{h} main loop under {token} has ended"));
        let after = self.dice.below(5 * MS);
        self.later(h, after, Input::LoopEnded(code));
    }
}
