//! The elector: one member's part in the election, as a state machine without input or output.
//!
//! Methods come in four families. *Inputs*: [`Elector::handle_event`], [`Elector::handle_timeout`]; both take
//! `now` and may be called at any time, a call without cause is no-op. *Outputs*: [`Elector::poll_action`],
//! until it returns `None`, then [`Elector::poll_timeout`]. *Getters* take `&self`. There are no others.
//!
//! The clock is looked at first in every input, so an event that arrives after a deadline finds the deadline
//! already honoured, whatever woke the driver.
//!
//! This file must not know stores, tasks, threads or logs. The table of transitions is in [`super`].

mod failback;
mod following;
mod leading;
mod priority;
mod probing;
mod store_changed;
mod warming;

use std::collections::VecDeque;
use std::time::Duration;

use super::event::{Action, Event, ReadAnswer, ReadId, RenewAnswer};
use super::history::{Ending, Reason, Transition};
use super::lease::{Lease, LeaseId, LeaseTiming};
use super::probe::MemberHealth;
use super::readiness::Unready;
use super::record::{Member, MemberId, Nonce, Revision, Token, View};
use super::renewal::Renewal;
use crate::clock::Instant;
use failback::Failback;
use priority::AskedPriority;
use probing::OwnHealth;
use warming::WarmingUp;

/// How soon a failed join, read-back or release is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(250);
/// How soon after a join another one may begin, lest each grants a lease that the next one throws away.
const JOIN_PAUSE: Duration = Duration::from_secs(1);

/// What one member's elector must know from the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ElectorSettings {
    /// Who we are.
    pub me: MemberId,
    /// How long the main loop gets to end when nobody is in a hurry.
    pub stop_timeout: Duration,
    /// How long a record that was won may stay without a main loop.
    pub start_timeout: Duration,
    /// How long a member of a higher priority must have been there before a leader makes way for it; `None`: it
    /// never does.
    pub failback_delay: Option<Duration>,
}

/// The state of a member. Everything else that is said about it is derived from this.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// We have no lease to rely on. `retry_at`: the last try failed; `None`: one is under way.
    Joining {
        /// When to try again.
        retry_at: Option<Instant>,
    },
    /// Registered. Somebody else leads, or nobody does and our rank's turn is at `claim_at`.
    Follower {
        /// When to claim the vacancy.
        claim_at: Option<Instant>,
    },
    /// A claim was sent and its outcome is not known.
    Claiming {
        /// Names the claim.
        nonce: Nonce,
        /// The generation that the claim demands.
        generation: Revision,
        /// `None`: its answer is awaited. `Some`: unknown; look (or look again) at this moment.
        look_at: Option<Instant>,
    },
    /// The record is ours; the lease must be long enough before a main loop starts.
    Starting {
        /// The tenure's token.
        token: Token,
        /// When to give the record up again.
        give_up_at: Instant,
    },
    /// The main loop runs.
    Leading {
        /// The tenure's token.
        token: Token,
    },
    /// The main loop was told to stop and has not ended yet.
    Stopping {
        /// The tenure's token.
        token: Token,
        /// Why, and what follows.
        ending: Ending,
        /// How hard it is pressed to end.
        pressure: Pressure,
        /// Who is to get the record.
        succession: Succession,
    },
    /// The main loop has ended; the candidates have not answered yet, or too long ago.
    Choosing {
        /// The tenure's token.
        token: Token,
        /// Why, and what follows.
        ending: Ending,
        /// The only candidate that is wanted.
        wanted: Option<String>,
        /// When to go on without an successor.
        until: Instant,
    },
    /// The record is being put into the successor's name, in one write.
    HandingOver {
        /// The tenure's token.
        token: Token,
        /// Why, and what follows.
        ending: Ending,
    },
    /// The main loop has ended; the record is being given up.
    Resigning {
        /// The tenure's token.
        token: Token,
        /// Why, and what follows.
        ending: Ending,
        /// When to try again.
        retry_at: Instant,
        /// When to leave it to the lease.
        give_up_at: Instant,
    },
    /// Done.
    Stopped(Ending),
}

/// How hard a main loop is pressed to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pressure {
    /// It was told to.
    Told {
        /// When to end it the hard way.
        abort_at: Instant,
    },
    /// It was ended the hard way.
    Aborted {
        /// When to end the process, if it is still there.
        exit_at: Instant,
    },
}

/// Who is to get the record when a main loop has ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Succession {
    /// Nobody in particular: the record is deleted, or left to its lease.
    None,
    /// The candidates were asked at this moment and have not answered.
    Asked {
        /// The only candidate that is wanted.
        wanted: Option<String>,
        /// When.
        at: Instant,
    },
    /// This one said that it is ready.
    Successor {
        /// Its registration, of the generation that it was ready with.
        successor: Box<Member>,
        /// The only candidate that was wanted.
        wanted: Option<String>,
        /// When it was asked.
        at: Instant,
    },
}

/// One member's part in the election. See the module's documentation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Elector {
    settings: ElectorSettings,
    state: State,
    lease: Option<Lease>,
    /// When the last join was answered.
    joined_at: Option<Instant>,
    generation: Revision,
    view: View,
    renewal: Renewal,
    /// No main loop starts on this token or an older one: each was started, or given up, by this process.
    floor: Option<Token>,
    /// Whom we, the leader, may make way for.
    failback: Failback,
    /// How often the candidates were asked without an answer yet.
    questions: u32,
    /// What somebody has asked for since the start.
    priority: Option<AskedPriority>,
    /// Why we are not ready to lead; `None`: we are.
    unready: Option<Unready>,
    /// What follows from that for a leader.
    warming: WarmingUp,
    /// Our own health, and what follows from it.
    probing: OwnHealth,
    nonce: Nonce,
    actions: VecDeque<Action>,
}

// === impl Elector: getters ===

impl Elector {
    /// A member that has just started. Its first action is [`Action::Join`].
    pub fn new(settings: ElectorSettings) -> Self {
        Self {
            settings,
            state: State::Joining { retry_at: None },
            lease: None,
            joined_at: None,
            generation: Revision(0),
            view: View::default(),
            renewal: Renewal::default(),
            floor: None,
            failback: Failback::default(),
            questions: 0,
            priority: None,
            unready: None,
            warming: WarmingUp::default(),
            probing: OwnHealth::default(),
            nonce: Nonce(0),
            actions: VecDeque::from([Action::Join]),
        }
    }

    /// What it was made with.
    pub fn settings(&self) -> &ElectorSettings {
        &self.settings
    }

    /// Who we are.
    pub fn me(&self) -> &MemberId {
        &self.settings.me
    }

    /// The state.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The newest view of the election.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The priority to register with, if somebody has asked for another one since the start.
    pub fn priority(&self) -> Option<u16> {
        self.priority.map(|asked| asked.now)
    }

    /// Why we are not ready to lead, as we were told; `None`: we are.
    pub fn unready(&self) -> Option<&Unready> {
        self.unready.as_ref()
    }

    /// What our own probes have come to.
    pub fn health(&self) -> &MemberHealth {
        self.probing.health()
    }

    /// The lease we rely on.
    pub fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    /// The token of the present tenure, from the start of its main loop to the end of it.
    pub fn main_loop_token(&self) -> Option<Token> {
        match self.state {
            State::Leading { token } | State::Stopping { token, .. } => Some(token),
            _ => None,
        }
    }

    /// The lease whose end ends us, from before a claim is sent until the main loop has ended.
    pub fn fused_lease(&self) -> Option<&Lease> {
        match self.state {
            State::Claiming { .. }
            | State::Starting { .. }
            | State::Leading { .. }
            | State::Stopping { .. } => self.lease.as_ref(),
            State::Joining { .. } | State::Follower { .. } | State::Stopped(_) => None,
            // The main loop has ended; nothing of ours can run under the token.
            State::Choosing { .. } | State::HandingOver { .. } | State::Resigning { .. } => None,
        }
    }
}

// === impl Elector: outputs ===

impl Elector {
    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call [`Elector::handle_timeout`] at the latest. An early call does no harm.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let own = match &self.state {
            State::Joining { retry_at } => [*retry_at, None],
            State::Follower { claim_at } => [*claim_at, None],
            State::Claiming { look_at, .. } => [*look_at, None],
            State::Starting { give_up_at, .. } => [Some(*give_up_at), self.step_down_at()],
            State::Leading { .. } => [self.step_down_at(), self.asks_at()],
            State::Choosing { until, .. } => [Some(*until), None],
            State::HandingOver { .. } => [None, None],
            State::Stopping { pressure: Pressure::Told { abort_at }, .. } => {
                [Some(*abort_at), self.hard_limit()]
            }
            State::Stopping { pressure: Pressure::Aborted { exit_at }, .. } => [Some(*exit_at), None],
            State::Resigning { retry_at, give_up_at, .. } => [Some(*retry_at), Some(*give_up_at)],
            State::Stopped(_) => return None,
        };
        let lease_over = self.lease.as_ref().and_then(|l| self.candidate_until(l));
        let renew = self.lease.filter(|_| self.renews()).map(|_| self.renewal.due_at());
        own.into_iter().chain([lease_over, renew]).flatten().reduce(Instant::earlier)
    }

    /// Until when a candidate relies on its lease. One with a claim under way has an armed fuse, and must have
    /// disarmed it before H: a claim whose outcome is unknown is no reason to die.
    fn candidate_until(&self, lease: &Lease) -> Option<Instant> {
        match self.state {
            State::Follower { .. } => Some(lease.holds_until()),
            State::Claiming { .. } => Some(lease.step_down_at()),
            _ => None,
        }
    }

    /// A main loop that does not end even when it is ended must not keep the record: its lease runs out.
    fn renews(&self) -> bool {
        !matches!(self.state, State::Stopped(_) | State::Stopping { pressure: Pressure::Aborted { .. }, .. })
    }

    /// When a leader asks whether somebody would take over from it.
    fn asks_at(&self) -> Option<Instant> {
        let due = [self.failback.due_at(), self.probing.due_at(), self.warming.due_at()];
        due.into_iter().flatten().reduce(Instant::earlier)
    }

    fn is_candidate(&self) -> bool {
        matches!(self.state, State::Follower { .. } | State::Claiming { .. })
    }

    fn step_down_at(&self) -> Option<Instant> {
        self.lease.map(|l| l.step_down_at())
    }

    /// When a main loop that was asked to stop is ended the hard way, however long it was promised.
    fn hard_limit(&self) -> Option<Instant> {
        self.lease.map(|l| l.kill_at())
    }
}

// === impl Elector: inputs ===

impl Elector {
    /// Does what the clock asks for.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.check_lease(now);
        match &self.state {
            State::Joining { retry_at: Some(at) } if now.reached(*at) => {
                self.state = State::Joining { retry_at: None };
                self.actions.push_back(Action::Join);
            }
            State::Follower { .. } => self.campaign(now),
            State::Claiming { look_at: Some(at), .. } if now.reached(*at) => self.look_again(now),
            State::Starting { token, give_up_at } if now.reached(*give_up_at) => {
                self.resign(now, *token, Ending::of(Reason::StartTimeout));
            }
            State::Leading { token } => self.ask_when_due(now, *token),
            State::Choosing { token, ending, until, .. } if now.reached(*until) => {
                self.resign(now, *token, ending.clone());
            }
            State::Resigning { retry_at, give_up_at, .. } => self.keep_resigning(now, *retry_at, *give_up_at),
            _ => {}
        }
        self.renew_when_due(now);
    }

    fn ask_when_due(&mut self, now: Instant, token: Token) {
        self.fail_back_when_due(now, token);
        self.ask_for_healthy_when_due(now, token);
        self.ask_for_ready_when_due(now, token);
    }

    /// Takes in one event.
    pub fn handle_event(&mut self, now: Instant, event: Event) {
        // Before the event: what arrives after a deadline must not be able to undo it.
        self.check_lease(now);
        if matches!(self.state, State::Stopped(_)) {
            return; // nothing follows a stop
        }
        match event {
            Event::Joined(joined) => self.on_joined(now, joined),
            Event::JoinFailed(ending) => self.on_join_failed(now, ending),
            Event::Seen(view) => self.observe(now, view),
            Event::Renewed { lease, stamp, answer } => self.on_renewed(now, lease, stamp, answer),
            Event::Read { id, answer } => self.on_read(now, id, answer),
            Event::Claimed { nonce, answer, seen } => self.on_claimed(now, nonce, answer, seen),
            Event::Registered(generation) => self.on_registered(generation),
            Event::Released(gone) => self.on_released(gone),
            Event::MainLoopEnded(code) => self.on_main_loop_ended(now, code),
            Event::MainLoopHung => self.on_main_loop_hung(now),
            Event::Fenced(token) => self.on_fenced(now, token),
            Event::StoreChanged(how) => self.on_store_changed(now, how),
            Event::Shutdown(reason) => self.on_shutdown(now, reason, None),
            Event::StepDown(wanted) => self.on_shutdown(now, Reason::ResignedRequest, wanted),
            Event::SetPriority(priority) => self.on_set_priority(priority),
            Event::Readiness(unready) => self.on_readiness(now, unready),
            Event::Prepare(token) => self.on_prepare(now, token),
            Event::Prepared(ready) => self.on_prepared(now, &ready),
            Event::HandedOver(answer) => self.on_handed_over(now, answer),
            Event::Probed(health) => self.on_probed(now, health),
        }
        self.renew_when_due(now);
    }
}

// === impl Elector: the lease ===

impl Elector {
    fn check_lease(&mut self, now: Instant) {
        let Some(lease) = self.lease else { return };
        if self.candidate_until(&lease).is_some_and(|at| now.reached(at)) {
            self.rejoin(now);
        } else {
            self.end_tenure_when_due(now, &lease);
        }
    }

    /// A candidate's lease is lost: nothing of ours can be running, so we may simply start over with a new one.
    fn rejoin(&mut self, now: Instant) {
        self.lease = None;
        self.actions.push_back(Action::Report(Transition::Rejoining));
        let due = self.joined_at.map(|at| at + JOIN_PAUSE).filter(|at| !now.reached(*at));
        self.state = State::Joining { retry_at: due };
        if due.is_none() {
            self.actions.push_back(Action::Join);
        }
    }

    fn renew_when_due(&mut self, now: Instant) {
        let Some(lease) = self.lease else { return };
        if self.renews() && now.reached(self.renewal.due_at()) {
            self.renewal.sent(now, lease.timing());
            self.actions.push_back(Action::Renew(lease.id()));
        }
    }

    fn cadence(&self, timing: LeaseTiming) -> Duration {
        if self.is_candidate() { timing.candidate_cadence() } else { timing.leader_cadence() }
    }

    fn on_renewed(&mut self, now: Instant, id: LeaseId, stamp: Instant, answer: RenewAnswer) {
        let Some(lease) = self.lease.filter(|l| l.id() == id) else {
            return;
        };
        self.renewal.answered(self.cadence(lease.timing()));
        match answer {
            RenewAnswer::Alive { ttl, raft_term } if ttl >= Duration::from_secs(1) => {
                if self.renewal.acked(stamp, ttl, raft_term) {
                    self.read_for_answer(now);
                }
            }
            // One member's word. The read decides whether it is true (a member that is behind may not know a
            // lease yet).
            RenewAnswer::Alive { .. } | RenewAnswer::NotFound => self.read_for_answer(now),
        }
    }

    fn read(&mut self) {
        let id = self.renewal.begin_read();
        self.actions.push_back(Action::Read(id));
    }

    fn read_for_answer(&mut self, now: Instant) {
        let Some(lease) = self.lease else { return };
        if let Some(id) = self.renewal.begin_read_for_answer(now, lease.timing().retry_cadence()) {
            self.actions.push_back(Action::Read(id));
        }
    }

    fn on_read(&mut self, now: Instant, id: ReadId, answer: Option<ReadAnswer>) {
        if self.renewal.read_ended(id) {
            self.read_for_answer(now);
        }
        let Some(ReadAnswer { view, raft_term }) = answer else {
            return;
        };
        let unchanged = self.is_unchanged_in(&view);
        self.observe(now, view);
        let acks = self.renewal.validated(id, raft_term);
        let Some(lease) = self.lease.as_mut().filter(|_| unchanged) else {
            return;
        };
        for ack in acks {
            lease.extend(now, ack.stamp, ack.ttl);
        }
        self.repair_registration();
        self.consider(now);
    }

    /// Does this view show our registration (and our record, if we have one) as we left it? Only then is it
    /// evidence that the lease lives.
    fn is_unchanged_in(&self, view: &View) -> bool {
        let Some(lease) = self.lease else { return false };
        match self.state {
            State::Starting { token, .. }
            | State::Leading { token }
            | State::Stopping { token, .. }
            | State::Choosing { token, .. }
            | State::HandingOver { token, .. }
            | State::Resigning { token, .. } => {
                view.leader.tenure_of(&self.settings.me, lease.id()).is_some_and(|t| t.token == token)
            }
            _ => view.member(&self.settings.me.node).is_some_and(|m| {
                m.registration.member == self.settings.me && m.registration.lease == lease.id()
            }),
        }
    }
}
