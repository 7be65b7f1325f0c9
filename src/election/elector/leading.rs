//! The tenure: from the record that is ours to the record that is given up, or handed over.

use std::time::Duration;

use super::{Elector, Pressure, RETRY_PAUSE, State, Succession};
use crate::clock::Instant;
use crate::election::event::{Action, HandOverAnswer, Ready};
use crate::election::history::{Ending, Reason, Transition};
use crate::election::lease::Lease;
use crate::election::record::{Leader, Member, Token, View};

/// How long giving the record up may take before we leave it to its lease.
const RESIGN_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a main loop that was ended the hard way gets to be gone. Killing a tree of processes takes a while on
/// a starved machine; `H` ends it all in any case.
const ABORT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long their answers are waited for: a little longer than they get, because the driver tells them all at once.
const PREPARE_TIMEOUT: Duration = Duration::from_millis(150);
/// How old such an answer may be when the record is handed over.
const READY_LASTS: Duration = Duration::from_secs(1);

// === impl Elector: the main loop ===

impl Elector {
    pub(super) fn begin(&mut self, now: Instant, token: Token) {
        self.floor = Some(token);
        self.observes_no_longer();
        self.state = State::Starting { token, give_up_at: now + self.settings.start_timeout };
        self.actions.push_back(Action::Report(Transition::Won(token)));
        self.renewal.hurry(now);
        self.start_when_allowed(now);
    }

    /// A view that is newer than the token may already show that the record is gone again.
    pub(super) fn start_when_allowed(&mut self, now: Instant) {
        let State::Starting { token, .. } = self.state else { return };
        if let Some(reason) = self.record_lost(token) {
            self.stop(Ending::of(reason));
        } else if self.lease.is_some_and(|l| l.allows_start(now)) {
            self.state = State::Leading { token };
            self.failback.may_begin_after(now);
            self.probing.leads(now, self.view.leader.tenure().map(|t| &t.record));
            self.watch_warm_up(now, true);
            self.actions.push_back(Action::StartMainLoop(token));
            self.look_for_better(now);
        }
    }

    /// At `S`, whatever else is heard. What is left until `H` is for the main loop's end.
    pub(super) fn end_tenure_when_due(&mut self, now: Instant, lease: &Lease) {
        match &self.state {
            State::Starting { .. } if now.reached(lease.step_down_at()) => {
                self.stop(Ending::of(Reason::LeaseExpired));
            }
            State::Leading { token } if now.reached(lease.step_down_at()) => {
                let suspended = lease.was_suspended(now);
                let why = if suspended { Reason::ClockSuspended } else { Reason::RenewDeadline };
                self.stop_main_loop(*token, Ending::of(why), lease.holds_until());
                self.press_when_due(now);
            }
            State::Stopping { .. } => self.press_when_due(now),
            _ => {}
        }
    }

    /// A planned end: the main loop ends, and this one takes over. It has said, just now, that it is ready.
    pub(super) fn stop_for(
        &mut self,
        now: Instant,
        token: Token,
        ending: Ending,
        successor: Member,
        wanted: Option<String>,
    ) {
        self.stop_main_loop(token, ending, now + self.settings.stop_timeout);
        if let State::Stopping { succession, .. } = &mut self.state {
            *succession = Succession::Successor { successor: Box::new(successor), wanted, at: now };
        }
    }

    pub(super) fn stop_main_loop(&mut self, token: Token, ending: Ending, abort_at: Instant) {
        self.actions.push_back(Action::Report(Transition::Stopping(token, ending.reason)));
        self.actions.push_back(Action::StopMainLoop(token, ending.reason));
        let (pressure, succession) = (Pressure::Told { abort_at }, Succession::None);
        self.state = State::Stopping { token, ending, pressure, succession };
    }

    /// First the hard way, then the process itself: a thread that never awaits can be ended by nothing else, and
    /// to wait for the end of a lease of a day would be a hang.
    pub(super) fn press_when_due(&mut self, now: Instant) {
        let Some(hard_limit) = self.hard_limit() else { return };
        let State::Stopping { pressure, ending, .. } = &mut self.state else { return };
        match *pressure {
            Pressure::Told { abort_at } if now.reached(abort_at.earlier(hard_limit)) => {
                *pressure = Pressure::Aborted { exit_at: now + ABORT_TIMEOUT };
                self.actions.push_back(Action::AbortMainLoop);
            }
            Pressure::Aborted { exit_at } if now.reached(exit_at) => {
                // The state stays: as long as the main loop is there, the fuse must be armed.
                *pressure = Pressure::Aborted { exit_at: now + ABORT_TIMEOUT };
                let ending = ending.clone();
                self.actions.push_back(Action::EndProcess(ending));
            }
            _ => {}
        }
    }

    pub(super) fn on_fenced(&mut self, now: Instant, fenced: Token) {
        if self.main_loop_token() == Some(fenced) {
            self.stop_now(now, fenced, Reason::Fenced);
        }
    }

    /// Does the view show that the record of this tenure is gone, or somebody else's? An older view than
    /// the token says nothing about it.
    fn record_lost(&self, token: Token) -> Option<Reason> {
        if self.view.revision < token.revision() {
            return None;
        }
        match &self.view.leader {
            Leader::Held(t) if t.token == token => None,
            Leader::Held(_) => Some(Reason::Deposed),
            Leader::Vacant | Leader::Foreign(_) => Some(Reason::RecordDeleted),
        }
    }

    pub(super) fn check_record(&mut self, now: Instant, token: Token) {
        if let Some(reason) = self.record_lost(token) {
            self.stop_now(now, token, reason);
        }
    }

    /// Nothing protects us any more: the main loop ends at once, also one that was promised more time.
    fn stop_now(&mut self, now: Instant, token: Token, reason: Reason) {
        match &mut self.state {
            State::Leading { .. } => self.stop_main_loop(token, Ending::of(reason), now),
            State::Stopping { pressure: Pressure::Told { abort_at }, .. } => *abort_at = now,
            _ => {}
        }
        self.press_when_due(now);
    }

    pub(super) fn on_main_loop_ended(&mut self, now: Instant, code: Option<i32>) {
        match &self.state {
            State::Leading { token } => {
                let ending = Ending { main_loop_code: code, ..Ending::of(Reason::MainLoopEnded) };
                let token = *token;
                self.actions.push_back(Action::Report(Transition::Stopping(token, ending.reason)));
                match self.may_have_successor(ending.reason) {
                    true => self.choose(now, token, ending, None),
                    false => self.resign(now, token, ending),
                }
            }
            State::Stopping { token, ending, succession, .. } if ending.reason.gives_record_up() => {
                let (token, ending) = (*token, ending.clone());
                match succession.clone() {
                    Succession::Successor { successor, at, .. } if now.since(at) < READY_LASTS => {
                        self.hand_over(token, ending, *successor);
                    }
                    Succession::Successor { wanted, .. } => self.choose(now, token, ending, wanted),
                    Succession::Asked { wanted, at } => {
                        self.state = State::Choosing { token, ending, wanted, until: at + PREPARE_TIMEOUT };
                    }
                    Succession::None => self.resign(now, token, ending),
                }
            }
            State::Stopping { ending, .. } => {
                let ending = ending.clone();
                self.stop(ending);
            }
            _ => {}
        }
    }

    /// It keeps its record no longer, but what it has begun may still be ended gently.
    pub(super) fn on_main_loop_hung(&mut self, now: Instant) {
        if matches!(self.state, State::Leading { .. }) {
            self.on_shutdown(now, Reason::MainLoopHung, None);
        }
    }

    pub(super) fn on_shutdown(&mut self, now: Instant, reason: Reason, wanted: Option<String>) {
        match &self.state {
            State::Joining { .. } | State::Follower { .. } | State::Claiming { .. } => {
                self.stop(Ending::of(reason));
            }
            State::Starting { token, .. } => self.resign(now, *token, Ending::of(reason)),
            State::Leading { token } => {
                let token = *token;
                let abort_at = now + self.settings.stop_timeout;
                if !self.may_have_successor(reason) {
                    return self.stop_main_loop(token, Ending::of(reason), abort_at);
                }
                // The candidates are asked while the main loop ends.
                self.ask(token, wanted.clone());
                self.stop_main_loop(token, Ending::of(reason), abort_at);
                if let State::Stopping { succession, .. } = &mut self.state {
                    *succession = Succession::Asked { wanted, at: now };
                }
            }
            State::Stopping { .. }
            | State::Choosing { .. }
            | State::HandingOver { .. }
            | State::Resigning { .. }
            | State::Stopped(_) => {}
        }
    }

    /// Asked once, when a stop begins: a freeze that comes later does not leave a stop without the successor that it has
    /// begun to look for. Nor does it a step-down, which was refused before if the freeze was known then.
    fn may_have_successor(&self, reason: Reason) -> bool {
        self.view.freeze.is_none() || reason == Reason::ResignedRequest
    }
}

// === impl Elector: the hand-over ===

impl Elector {
    /// The leader of this tenure asks whether we would take over. We answer by the snapshot; here the lease is
    /// renewed at once, so that there is enough of it when the record comes. Whoever asks binds us to nothing: while
    /// that record is there nobody can claim, and once it is gone we may.
    pub(super) fn on_prepare(&mut self, now: Instant, token: Token) {
        let is_seen = self.view.leader.tenure().is_some_and(|t| t.token == token);
        if is_seen && matches!(self.state, State::Follower { .. }) {
            self.renewal.hurry(now);
        }
    }

    /// Each question is answered once.
    pub(super) fn ask(&mut self, token: Token, wanted: Option<String>) {
        self.questions += 1;
        self.actions.push_back(Action::Prepare { token, wanted });
    }

    /// The candidates have answered, or had their time. Whoever is ready is ready for every question about this tenure; that
    /// nobody is may be the answer to an earlier one, which asked less.
    pub(super) fn on_prepared(&mut self, now: Instant, ready: &[Ready]) {
        self.questions = self.questions.saturating_sub(1);
        let is_last = self.questions == 0;
        match &self.state {
            State::Leading { token } => {
                let token = *token;
                if !self.hand_over_to_healthy(now, token, ready)
                    && !self.hand_over_to_ready(now, token, ready)
                {
                    self.make_way(now, token, ready);
                }
            }
            State::Stopping { ending, succession: Succession::Asked { wanted, at }, .. } => {
                let (wanted, at) = (wanted.clone(), *at);
                let next = match self.successor(now, ending.reason, wanted.as_deref(), ready) {
                    Some(successor) => Succession::Successor { successor: Box::new(successor), wanted, at },
                    None if is_last => Succession::None,
                    None => return,
                };
                if let State::Stopping { succession, .. } = &mut self.state {
                    *succession = next;
                }
            }
            State::Choosing { token, ending, wanted, .. } => {
                let (token, ending) = (*token, ending.clone());
                match self.successor(now, ending.reason, wanted.as_deref(), ready) {
                    Some(successor) => self.hand_over(token, ending, successor),
                    None if is_last => self.resign(now, token, ending),
                    None => {}
                }
            }
            _ => {}
        }
    }

    /// Who takes over, after such an end: where a probe has failed rather one that is better than we are.
    fn successor(
        &self,
        now: Instant,
        reason: Reason,
        wanted: Option<&str>,
        ready: &[Ready],
    ) -> Option<Member> {
        let us = &self.settings.me.node;
        let better = (reason == Reason::ProbeFailed)
            .then(|| successor_of(&self.view, us, wanted, &self.probing.better(now, ready)));
        better.flatten().or_else(|| successor_of(&self.view, us, wanted, ready))
    }

    fn choose(&mut self, now: Instant, token: Token, ending: Ending, wanted: Option<String>) {
        self.ask(token, wanted.clone());
        self.state = State::Choosing { token, ending, wanted, until: now + PREPARE_TIMEOUT };
    }

    /// One write puts the successor's name, lease and a nonce into the record. It is sent only after the main loop has
    /// ended, and whatever becomes of it, no main loop runs under this token again
    /// (`src/docs/protocol.md`, rule C1).
    fn hand_over(&mut self, token: Token, ending: Ending, successor: Member) {
        let reason = ending.reason;
        self.state = State::HandingOver { token, ending };
        self.actions.push_back(Action::HandOver { token, successor: Box::new(successor), reason });
    }

    pub(super) fn on_handed_over(&mut self, now: Instant, answer: HandOverAnswer) {
        let State::HandingOver { token, ending } = &self.state else { return };
        let (token, ending) = (*token, ending.clone());
        match answer {
            HandOverAnswer::Done => {
                self.actions.push_back(Action::Report(Transition::Resigned(token)));
                self.stop(ending);
            }
            // Refused, or nobody knows: deleting the record under our token is right in both cases. If the successor
            // has it, our token is no longer on it.
            HandOverAnswer::Refused | HandOverAnswer::Unknown => self.resign(now, token, ending),
        }
    }

    /// The main loop has ended (or never began): nothing runs under the token any more, and nothing ever will,
    /// because `floor` holds it. Only now may the record go.
    pub(super) fn resign(&mut self, now: Instant, token: Token, ending: Ending) {
        let give_up_at = now + RESIGN_TIMEOUT;
        let give_up_at = self.lease.map_or(give_up_at, |l| give_up_at.earlier(l.holds_until()));
        self.state = State::Resigning { token, ending, retry_at: now + RETRY_PAUSE, give_up_at };
        self.actions.push_back(Action::Release(token));
    }

    pub(super) fn keep_resigning(&mut self, now: Instant, retry_at: Instant, give_up_at: Instant) {
        let State::Resigning { token, ending, retry_at: next, .. } = &mut self.state else {
            return;
        };
        if now.reached(give_up_at) {
            let ending = ending.clone();
            self.stop(ending);
        } else if now.reached(retry_at) {
            *next = now + RETRY_PAUSE;
            let token = *token;
            self.actions.push_back(Action::Release(token));
        }
    }

    pub(super) fn on_released(&mut self, gone: bool) {
        if let State::Resigning { token, ending, .. } = &self.state {
            if gone {
                let (token, ending) = (*token, ending.clone());
                self.actions.push_back(Action::Report(Transition::Resigned(token)));
                self.stop(ending);
            } else {
                self.actions.push_back(Action::Report(Transition::OutcomeUnknown));
            }
        }
    }

    pub(super) fn stop(&mut self, ending: Ending) {
        self.state = State::Stopped(ending.clone());
        self.actions.push_back(Action::Stop(ending));
    }
}

/// The best of the candidates that are ready, and of the very incarnation that answered.
pub(super) fn successor_of(view: &View, us: &str, wanted: Option<&str>, ready: &[Ready]) -> Option<Member> {
    let is_ready = |m: &&Member| ready.iter().any(|r| r.member == m.registration.member);
    let is_wanted = |m: &&Member| wanted.is_none_or(|w| w == m.registration.member.node);
    let others = view.members.iter().filter(|m| m.registration.member.node != us);
    let candidates = others.filter(is_ready).filter(is_wanted);
    let ranked = candidates.filter_map(|m| Some((view.precedence(m)?, m)));
    ranked.min_by_key(|(place, _)| *place).map(|(_, m)| m.clone())
}
