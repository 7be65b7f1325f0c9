//! What the driver does, without tasks: events into the elector, actions into requests.
//!
//! The pure functions are the driver's own (`protocol/transactions.rs`); only the waiting is simulated.

use metad::clock::Instant;
use metad::election::elector::{Elector, ElectorSettings, State};
use metad::election::event::{Action, ClaimAnswer, Event as Heard, HandOverAnswer, Ready};
use metad::election::history::{Ending, Reason, Transition};
use metad::election::lease::LeaseId;
use metad::election::record::{LeaderRecord, MemberId, Nonce, Registration, Revision, Token};
use metad::protocol::transactions::{self, Answer};
use metad::store::{Request, Response, StoreError};

use crate::simulation::clock::{MS, SEC};
use crate::simulation::host::{Process, Purpose};
use crate::simulation::invariants::Happened;
use crate::simulation::network::{believed, renew_answer};
use crate::simulation::world::{Event, Input, World};

/// How late a timer or a thread may wake up.
const WAKE_LAG_MAX: u64 = 5 * MS;

// === impl World: a process's life ===

impl World {
    /// The supervisor starts a process on this data dir.
    pub fn start(&mut self, h: usize) {
        if self.hosts[h].process.is_some() {
            return;
        }
        self.hosts[h].disk.incarnation.0 += 1;
        let me = self.me(h);
        let (stop_timeout, start_timeout) = (self.plan.stop_timeout, self.plan.start_timeout);
        let failback_delay = self.plan.failback_delay;
        let elector = Elector::new(ElectorSettings { me, stop_timeout, start_timeout, failback_delay });
        let pid = u32::try_from(self.name()).unwrap_or(u32::MAX);
        self.hosts[h].process = Some(Process::new(pid, self.now, elector));
        self.trace(|| format!("n{h}#{pid} starts"));
        self.act(h);
        self.open_watch(h);
    }

    /// A process is gone, and its main loop with it. A supervisor starts another one.
    pub fn end(&mut self, h: usize, why: &str) {
        let Some(p) = self.hosts[h].process.take() else { return };
        self.trace(|| format!("n{h}#{} is gone: {why}", p.pid));
        if self.hosts[h].second {
            return;
        }
        let after = if self.calm { 100 * MS } else { 100 * MS + self.dice.below(8 * SEC) };
        self.push(after, Event::Start(h));
    }

    /// Who the process on this data dir is.
    pub fn me(&self, h: usize) -> MemberId {
        let host = &self.hosts[h];
        MemberId { node: host.node.clone(), uuid: host.disk.uuid, incarnation: host.disk.incarnation }
    }

    /// What it registers.
    pub fn registration(&self, h: usize, lease: LeaseId) -> Registration {
        Registration {
            member: self.me(h),
            rpc_address: format!("host{h}:1"),
            http_address: format!("host{h}:2"),
            priority: self.hosts[h].priority,
            version: "1".into(),
            ttl: self.plan.ttl,
            lease,
        }
    }

    /// A stopped process goes on: everything that waited happens at once. Whether its fuse or its driver gets
    /// the processor first is anybody's guess; the main loop looks at the clock before it does anything.
    pub fn resume(&mut self, h: usize, pid: u32) {
        let (now, fuse_first) = (self.clock(h), self.dice.percent(50));
        let Some(p) = self.process(h, pid) else { return };
        p.paused = false;
        let backlog = std::mem::take(&mut p.backlog);
        let burnt = p.is_burnt(now);
        self.trace(|| format!("n{h}#{pid} goes on"));
        if burnt && fuse_first {
            return self.burn(h);
        }
        for input in backlog {
            if self.process(h, pid).is_some() {
                self.take(h, input);
            }
        }
        if self.process(h, pid).is_some() {
            self.wake(h);
        }
    }

    fn burn(&mut self, h: usize) {
        self.tally.count("the fuse fired");
        self.end(h, "the fuse fired");
    }

    /// Something happens in the process of this host.
    pub fn take(&mut self, h: usize, input: Input) {
        match input {
            Input::Answer(call, answer) => self.answered(h, call, &answer),
            Input::Timeout(call) => self.timed_out(h, call),
            Input::Wake => self.wake(h),
            Input::Seen(view) => {
                let Some(p) = self.hosts[h].process.as_mut() else { return };
                if p.watched <= view.revision {
                    p.watched = view.revision;
                    self.feed(h, Some(Heard::Seen((*view).clone())));
                }
            }
            Input::Persisted => self.join_persisted(h),
            Input::Settled(joined, pin) => self.join_settled(h, *joined, pin),
            Input::JoinAgain => self.join(h),
            Input::LoopBegins => self.loop_begins(h),
            Input::LoopActs => self.loop_acts(h),
            Input::LoopEnds(code) => self.loop_ends(h, code),
            Input::LoopHangs => self.feed(h, Some(Heard::MainLoopHung)),
            Input::LoopEnded(code) => self.feed(h, Some(Heard::MainLoopEnded(code))),
            Input::AskedToPrepare(by, pid, token) => self.asked_to_prepare(h, by, pid, token),
            Input::CandidateReady(member) => {
                if let Some(p) = self.hosts[h].process.as_mut() {
                    p.ready.push(Ready { member });
                }
            }
            Input::Prepared => {
                let Some(p) = self.hosts[h].process.as_mut() else { return };
                let ready = std::mem::take(&mut p.ready);
                self.feed(h, Some(Heard::Prepared(ready)));
            }
        }
    }

    fn wake(&mut self, h: usize) {
        let now = self.clock(h);
        let Some(p) = self.hosts[h].process.as_mut() else { return };
        p.wake_at = u64::MAX;
        let (pid, burnt) = (p.pid, p.is_burnt(now));
        if !burnt || self.dice.percent(50) {
            self.feed(h, None);
        }
        if self.process(h, pid).is_some_and(|p| p.is_burnt(now)) {
            self.burn(h);
        }
    }

    /// Gives the elector an event, as `Driver::apply` does, and does what it asks for.
    pub fn feed(&mut self, h: usize, event: Option<Heard>) {
        let (now, mut unsure) = (self.clock(h), None);
        if let Some(Heard::Claimed { nonce, answer: ClaimAnswer::Unknown, .. }) = &event {
            unsure = Some(*nonce);
        }
        let settled = matches!(&event, Some(Heard::Claimed { answer: ClaimAnswer::Lost, .. }));
        let Some(p) = self.hosts[h].process.as_mut() else { return };
        p.unsure = unsure.or(p.unsure);
        let before = p.claiming();
        if let Some(event) = event {
            p.shown = p.shown.max(shown_by(&event));
            p.elector.handle_event(now, event);
        }
        p.elector.handle_timeout(now);
        let dropped = before.filter(|n| p.claiming() != Some(*n) && !settled);
        let pid = p.pid;
        match (dropped, p.elector.state()) {
            (Some(nonce), State::Follower { .. } | State::Claiming { .. }) => {
                self.tally.count("claims cancelled");
                self.moment.push(Happened::ClaimCancelled { pid, nonce });
            }
            (Some(nonce), State::Joining { .. }) => {
                self.moment.push(Happened::ClaimOrphaned { h, pid, nonce })
            }
            _ => {}
        }
        self.act(h);
    }

    /// Carries out what the elector asks for, as `Driver::act` does.
    pub fn act(&mut self, h: usize) {
        let mut actions = 0;
        while let Some(p) = self.hosts[h].process.as_mut() {
            p.fuse = p.elector.fused_lease().map(|l| l.holds_until());
            p.stop_at = p.elector.fused_lease().map(|l| l.step_down_at());
            let Some(action) = p.elector.poll_action() else { break };
            let pid = p.pid;
            actions += 1;
            self.trace(|| format!("n{h}#{pid} {action:?}"));
            self.perform(h, action);
        }
        self.moment.push(Happened::Acted { actions });
        self.wake_later(h);
    }

    fn wake_later(&mut self, h: usize) {
        let (now, lag) = (self.now, self.dice.below(WAKE_LAG_MAX));
        let Some(p) = self.hosts[h].process.as_ref() else { return };
        let next = [p.elector.poll_timeout(), p.fuse].into_iter().flatten();
        let Some(at) = next.map(|at| self.hosts[h].clock.when(at)).min() else { return };
        let at = at.max(now) + lag;
        if at < p.wake_at {
            if let Some(p) = self.hosts[h].process.as_mut() {
                p.wake_at = at;
            }
            self.later(h, at - now, Input::Wake);
        }
    }
}

// === impl World: actions ===

impl World {
    fn perform(&mut self, h: usize, action: Action) {
        match action {
            Action::Join => {
                if let Some(p) = self.hosts[h].process.as_mut() {
                    p.join_began = self.now;
                }
                self.join(h);
            }
            Action::Renew(lease) => self.send(h, Purpose::Renew(lease), Request::Renew(lease)),
            Action::Read(id) => {
                let read = Request::Txn(transactions::read(&self.keys));
                let newest = self.newest(h);
                self.send(h, Purpose::Read(id, newest), read);
            }
            Action::Register { lease, expected } => {
                let txn = transactions::register(&self.keys, &self.registration(h, lease), expected);
                self.send(h, Purpose::Register, Request::Txn(txn));
            }
            Action::Claim { nonce, lease, generation } => self.claim(h, nonce, lease, generation),
            Action::Prepare { token, wanted } => self.prepare(h, token, wanted),
            Action::HandOver { token, successor } => {
                self.moment.push(Happened::Released { h, token });
                let record = LeaderRecord {
                    holder: successor.registration.member.clone(),
                    address: successor.registration.rpc_address.clone(),
                    nonce: Nonce(0),
                    ttl: successor.registration.ttl,
                    acquired_ms: self.now / MS,
                    transitions: 0,
                };
                let txn = transactions::hand_over(&self.keys, &record, &successor, token);
                self.send(h, Purpose::HandOver, Request::Txn(txn));
            }
            Action::Release(token) => {
                self.moment.push(Happened::Released { h, token });
                let txn = transactions::release(&self.keys, token);
                self.send(h, Purpose::Release, Request::Txn(txn));
            }
            Action::StartMainLoop(token) => self.order_main_loop(h, token),
            Action::StopMainLoop(_, reason) => self.stop_main_loop(h, reason),
            Action::AbortMainLoop => self.abort_main_loop(h),
            Action::EndProcess(ending) => {
                self.tally.count("main loops ended with their process");
                self.tally.count(ending.reason.as_str());
                self.end(h, "its main loop does not end");
            }
            Action::Report(transition) => self.report(h, transition),
            Action::Stop(ending) => self.leave(h, &ending),
        }
    }

    /// Asks all candidates; the answers that come before the time is over count.
    fn prepare(&mut self, h: usize, token: Token, wanted: Option<String>) {
        let Some(pid) = self.hosts[h].process.as_ref().map(|p| p.pid) else { return };
        for c in (0..self.hosts.len()).filter(|c| *c != h) {
            if wanted.as_ref().is_none_or(|w| *w == self.hosts[c].node) && !self.dice.percent(20) {
                let delay = self.dice.below(60 * MS);
                self.later(c, delay, Input::AskedToPrepare(h, pid, token));
            }
        }
        self.later(h, 100 * MS, Input::Prepared);
    }

    fn asked_to_prepare(&mut self, h: usize, by: usize, pid: u32, token: Token) {
        let now = self.clock(h);
        let Some(p) = self.hosts[h].process.as_ref() else { return };
        let is_seen = p.elector.view().leader.tenure().is_some_and(|t| t.token == token);
        let follows = is_seen && matches!(p.elector.state(), State::Follower { .. });
        if !follows || !p.elector.lease().is_some_and(|l| l.allows_start(now)) {
            return;
        }
        let member = self.me(h);
        self.feed(h, Some(Heard::Prepare(token)));
        let delay = self.dice.below(60 * MS);
        if self.process(by, pid).is_some() {
            self.later(by, delay, Input::CandidateReady(member));
        }
    }

    fn handed_over(&mut self, answer: &Answer) -> Heard {
        let event = transactions::hand_over_event(answer);
        match &event {
            Heard::HandedOver(HandOverAnswer::Done) => self.tally.count("handed over"),
            Heard::HandedOver(HandOverAnswer::Unknown) => self.tally.count("handed over, outcome unknown"),
            _ => {}
        }
        event
    }

    fn claim(&mut self, h: usize, nonce: Nonce, lease: LeaseId, generation: Revision) {
        let record = LeaderRecord {
            holder: self.me(h),
            address: format!("host{h}:1"),
            nonce,
            ttl: self.plan.ttl,
            acquired_ms: self.now / MS,
            transitions: 0,
        };
        let txn = transactions::claim(&self.keys, &record, lease, generation);
        let newest = self.newest(h);
        self.send(h, Purpose::Claim(Box::new(record), nonce, newest), Request::Txn(txn));
    }

    /// The revision of the newest view that the process of this host has.
    pub fn newest(&self, h: usize) -> Revision {
        self.hosts[h].process.as_ref().map_or(Revision(0), |p| p.elector.view().revision)
    }

    fn report(&mut self, h: usize, transition: Transition) {
        let unsure = self.hosts[h].process.as_ref().and_then(|p| p.unsure);
        match transition {
            Transition::Joined => {
                if let Some(p) = self.hosts[h].process.as_mut() {
                    p.has_joined = true;
                }
            }
            Transition::Rejoining => self.tally.count("rejoins"),
            Transition::Won(_) if unsure.is_some() => self.tally.count("claims unknown, then won"),
            Transition::ClaimLost => self.tally.count("claims lost"),
            Transition::Resigned(_) => self.tally.count("records given up"),
            _ => {}
        }
    }

    fn leave(&mut self, h: usize, ending: &Ending) {
        self.tally.count(ending.reason.as_str());
        let lease = self.hosts[h].process.as_ref().and_then(|p| p.elector.lease()).map(|l| l.id());
        if let Some(lease) = lease.filter(|_| ending.reason.gives_record_up()) {
            self.moment.push(Happened::Goodbye { h });
            self.send(h, Purpose::Goodbye, Request::Revoke(lease));
        }
        if ending.reason == Reason::DataDirStale {
            self.moment.push(Happened::CalledStale { h });
        }
        if ending.reason == Reason::StoreChanged {
            self.moment.push(Happened::CalledChanged { h });
        }
        self.end(h, ending.reason.as_str());
    }
}

// === impl World: answers ===

impl World {
    fn answered(&mut self, h: usize, call: u64, answer: &Answer) {
        let Some(p) = self.hosts[h].process.as_mut() else { return };
        // Not there any more: its time was over, and it was answered with "unknown".
        if let Some(call) = p.calls.remove(&call).or_else(|| p.open.remove(&call)) {
            self.answer(h, call.purpose, call.stamp, answer);
        }
    }

    fn timed_out(&mut self, h: usize, call: u64) {
        let Some(p) = self.hosts[h].process.as_mut() else { return };
        if let Some(call) = p.calls.remove(&call) {
            self.answer(h, call.purpose, call.stamp, &Err(StoreError::Unknown("no answer".into())));
        }
    }

    fn answer(&mut self, h: usize, purpose: Purpose, stamp: Instant, answer: &Answer) {
        let event = match purpose {
            Purpose::Read(id, newest) => transactions::read_event(&self.keys, id, newest, answer),
            Purpose::Register => transactions::register_event(answer),
            Purpose::Claim(record, nonce, newest) => {
                transactions::claim_event(&self.keys, &record, nonce, newest, answer)
            }
            Purpose::Release => transactions::release_event(answer),
            Purpose::HandOver => self.handed_over(answer),
            Purpose::Join => return self.join_answered(h, stamp, answer),
            Purpose::Renew(lease) => {
                let Some(answer) = renew_answer(answer) else { return };
                self.count_late_ack(h, lease, stamp);
                Heard::Renewed { lease, stamp, answer }
            }
            Purpose::Write(token) => match answer {
                Ok(Response::Txn(reply)) if transactions::refused_by_fence(reply, token) => {
                    self.tally.count("writes refused by the fence");
                    Heard::Fenced(token)
                }
                _ => return,
            },
            Purpose::Goodbye => return,
        };
        self.feed(h, Some(event));
    }

    fn count_late_ack(&mut self, h: usize, lease: LeaseId, stamp: Instant) {
        let held = self.hosts[h].process.as_ref().and_then(|p| p.elector.lease().copied());
        let moves = |h: Instant| h.later(believed(stamp, self.plan.ttl)) != h;
        let late = held.is_none_or(|l| l.id() != lease || !moves(l.holds_until()));
        if late {
            self.tally.count("late acks ignored");
        }
    }
}

/// The picture in an event: its revision, and the record's token.
fn shown_by(event: &Heard) -> (Revision, Option<Token>) {
    let view = match event {
        Heard::Seen(view) => view,
        Heard::Read { answer: Some(answer), .. } => &answer.view,
        Heard::Claimed { seen: Some(view), .. } => view,
        _ => return (Revision(0), None),
    };
    (view.revision, view.leader.tenure().map(|t| t.token))
}
