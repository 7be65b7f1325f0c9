//! What the driver does, without tasks: events into the real elector, its actions into real requests.
//!
//! A step of the model is a [`Run`]: it changes a copy of the world, and notes what happened on the way.

use std::sync::Arc;
use std::time::Duration;

use metad::election::elector::{Elector, ElectorSettings, State};
use metad::election::event::{Action, Event as Heard};
use metad::election::history::{Ending, Reason, Transition};
use metad::election::lease::LeaseId;
use metad::election::record::{Revision, Token};
use metad::protocol::effects::{Effect, Here, Purpose as AskedFor, Question, effect};
use metad::protocol::transactions;
use metad::store::{Op, Request};

use crate::model::facts::{Fact, Facts};
use crate::model::scenario::{Mutant, Scenario};
use crate::model::world::{
    Call, Freed, Guardian, JoinStep, MainLoop, Node, Process, Purpose, Stage, TTL, World, keys,
};

/// One step being taken.
pub struct Run<'a> {
    pub world: World,
    pub plan: &'a Scenario,
    pub facts: Facts,
}

// === impl Run: a process ===

impl Run<'_> {
    pub fn node(&mut self, n: usize) -> &mut Node {
        Arc::make_mut(&mut self.world.nodes[n])
    }

    pub fn process(&mut self, n: usize) -> Option<&mut Process> {
        self.node(n).process.as_mut()
    }

    /// A supervisor starts a process on this data dir.
    pub fn start(&mut self, n: usize) {
        let guardian = self.plan.guardian.then(Guardian::default);
        let node = self.node(n);
        node.disk.incarnation.0 += 1;
        let (stop_timeout, start_timeout) = (Duration::from_secs(10), Duration::from_secs(10));
        let elector = Elector::new(ElectorSettings {
            me: node.me(),
            stop_timeout,
            start_timeout,
            failback_delay: None,
        });
        node.process = Some(Process {
            elector,
            join: None,
            calls: Vec::new(),
            main_loop: None,
            guardian,
            reclaimed: false,
            unsure: None,
        });
        self.act(n);
    }

    /// Gives the elector an event, as `Driver::apply` does, and does what it asks for.
    pub fn feed(&mut self, n: usize, event: Option<Heard>) {
        let now = self.world.now();
        let Some(p) = self.process(n) else { return };
        let before = p.claiming().filter(|nonce| p.unsure == Some(*nonce));
        if let Some(event) = event {
            p.elector.handle_event(now, event);
        }
        p.elector.handle_timeout(now);
        let follows = matches!(p.elector.state(), State::Follower { .. } | State::Claiming { .. });
        if before.is_some() && follows && p.claiming() != before {
            self.facts.add(Fact::ClaimCancelled);
        }
        self.act(n);
    }

    fn act(&mut self, n: usize) {
        while let Some(action) = self.process(n).and_then(|p| p.elector.poll_action()) {
            self.perform(n, action);
        }
        if let Some(i) = self.atomic_call(n) {
            self.exchange(n, i);
            self.act(n);
        }
    }

    /// SIGTERM.
    pub fn ask_to_stop(&mut self, n: usize) {
        self.node(n).asked_to_stop = true;
        self.feed(n, Some(Heard::Shutdown(Reason::ResignedSignal)));
    }

    /// The process is gone; its guardian, if it lives, has yet to notice.
    pub fn end_process(&mut self, n: usize) {
        let program = self.plan.program;
        let Some(p) = self.node(n).process.take() else { return };
        let running = p.running().map(|l| l.token).filter(|_| program);
        if let Some(guardian) = p.guardian {
            self.node(n).left.push(Guardian { program: running, ..guardian });
        }
        for call in p.calls {
            self.stray(n, call);
        }
    }
}

// === impl Run: actions ===

impl Run<'_> {
    fn perform(&mut self, n: usize, action: Action) {
        let keys = keys();
        let registration = self.world.nodes[n].registration(LeaseId(0));
        let (newest, transitions, wall_ms) = (Revision(0), 0, 0);
        let here = Here {
            keys: &keys,
            registration: &registration,
            ttl: TTL,
            newest,
            transitions,
            probe_handed_ms: 0,
            wall_ms,
        };
        match effect(&here, action) {
            Effect::Join => self.join(n),
            Effect::Renew(lease) => self.send(n, Purpose::Renew(lease), Some(Request::Renew(lease))),
            Effect::Ask(question) => self.ask(n, question),
            Effect::Prepare { token, .. } => self.send(n, Purpose::Prepare(token), None),
            Effect::StartMainLoop(token) => self.start_main_loop(n, token),
            Effect::StopMainLoop(reason) => self.tell_main_loop(n, Some(reason)),
            Effect::AbortMainLoop => self.tell_main_loop(n, None),
            Effect::Report(Transition::Rejoining) => self.facts.add(Fact::Rejoined),
            Effect::Report(Transition::Won(_)) => self.note_won(n),
            Effect::Report(_) => {}
            Effect::EndProcess(_) => self.crash(n),
            Effect::Stop(ending) => self.leave(n, &ending),
        }
    }

    fn ask(&mut self, n: usize, question: Question) {
        let Question { mut txn, purpose } = question;
        match purpose {
            AskedFor::HandOver(_) | AskedFor::Release(_) => self.note_given_up(n),
            AskedFor::Register if self.plan.mutant == Mutant::UncomparedRegistration => txn.guards.clear(),
            AskedFor::Register | AskedFor::Read(..) | AskedFor::Claim(..) => {}
        }
        self.send(n, Purpose::Asked(purpose), Some(Request::Txn(txn)));
    }

    fn note_won(&mut self, n: usize) {
        let Some(p) = self.process(n) else { return };
        if p.unsure.take().is_some() {
            self.facts.add(Fact::ClaimUnknownThenWon);
        }
    }

    /// Nothing may be given up while the main loop has not completely ended.
    fn note_given_up(&mut self, n: usize) {
        let running = self.world.process(n).is_some_and(|p| p.running().is_some());
        self.world.broken.given_up_early |= running;
    }

    /// As `Driver::leave`, with the fuse disarmed. What the guardian does later and our own goodbye are one and
    /// the same request, so with a guardian there is no goodbye.
    fn leave(&mut self, n: usize, ending: &Ending) {
        self.note_given_up(n);
        let Some(p) = self.world.process(n) else { return };
        let goodbye = p.elector.lease().filter(|_| ending.reason.gives_record_up() && p.guardian.is_none());
        if let Some(lease) = goodbye.map(|l| l.id()) {
            let request = Some(Request::Revoke(lease));
            let stamp = self.world.now();
            self.stray(n, Call { purpose: Purpose::Goodbye, stamp, request, stage: Stage::Sent });
        }
        self.end_process(n);
    }
}

// === impl Run: the main loop ===

impl Run<'_> {
    fn start_main_loop(&mut self, n: usize, token: Token) {
        let Some(p) = self.process(n) else { return };
        if p.main_loop.is_none() {
            p.main_loop = Some(MainLoop { token, told: false, ended: false });
            self.note_begun(n, token);
        }
    }

    fn note_begun(&mut self, n: usize, token: Token) {
        self.world.broken.token_again |= self.world.begun >= Some(token);
        self.world.begun = self.world.begun.max(Some(token));
        let reclaimed = self.world.process(n).is_some_and(|p| p.reclaimed);
        if reclaimed {
            self.facts.add(Fact::Reclaimed);
        } else if self.world.store.handed == Some(token) {
            self.facts.add(Fact::SuccessorStarted);
        } else if let Some(freed) = self.world.store.freed {
            self.facts.add(match freed {
                Freed::Expiry => Fact::LedAfterExpiry,
                Freed::Guardian => Fact::LedAfterGuardian,
                Freed::Release => Fact::LedAfterRelease,
            });
        }
        for step in self.world.nodes.iter().filter_map(|n| n.scar) {
            self.facts.add(match step {
                JoinStep::Looking => Fact::CrashLookingThenLed,
                JoinStep::Granting => Fact::CrashGrantingThenLed,
                JoinStep::Enrolling => Fact::CrashEnrollingThenLed,
                JoinStep::Reclaiming => Fact::CrashReclaimingThenLed,
                JoinStep::Revoking => Fact::CrashRevokingThenLed,
            });
        }
    }

    /// It is told to stop; `None`: to end at once.
    fn tell_main_loop(&mut self, n: usize, reason: Option<Reason>) {
        if reason == Some(Reason::RenewDeadline) {
            self.facts.add(Fact::StoppedAtDeadline);
        }
        let Some(l) = self.process(n).and_then(|p| p.main_loop.as_mut()) else { return };
        l.told = true;
        if self.plan.mutant == Mutant::GivenUpWhileRunning {
            self.feed(n, Some(Heard::MainLoopEnded(None)));
        }
    }

    /// It has completely ended.
    pub fn end_main_loop(&mut self, n: usize) {
        let Some(l) = self.process(n).and_then(|p| p.main_loop.as_mut()) else { return };
        l.ended = true;
        self.feed(n, Some(Heard::MainLoopEnded(None)));
    }

    /// Only mutants do this: the main loop runs again under the token that it had.
    pub fn resume(&mut self, n: usize) {
        let Some(l) = self.process(n).and_then(|p| p.main_loop.as_mut()) else { return };
        (l.told, l.ended) = (false, false);
        let token = l.token;
        self.note_begun(n, token);
    }

    /// It writes.
    pub fn write(&mut self, n: usize) {
        let Some(l) = self.world.process(n).and_then(|p| p.running().copied()) else { return };
        self.world.spent.writes += 1;
        let put = Op::Put(keys().state("x"), vec![self.world.spent.writes], None);
        let mut txn = transactions::fenced(&keys(), l.token, vec![], vec![put]);
        if self.plan.mutant == Mutant::UnfencedWrite {
            txn.guards.clear();
        }
        self.send(n, Purpose::Write(l.token), Some(Request::Txn(txn)));
    }
}
