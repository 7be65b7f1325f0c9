//! A leader whose main loop is not warm yet makes way for a member that is ready.
//!
//! It came to lead because nobody was ready then. While it warms up it asks the others; one that says twice in a row that
//! it is ready takes over. Twice, because members that were started together are warm at nearly the same time. A leader
//! that has been ready once never makes way like this, whatever its main loop does later; and whoever takes over was ready,
//! so members that are cold hand nothing to each other.

use std::time::Duration;

use super::Elector;
use super::leading::successor_of;
use crate::clock::Instant;
use crate::election::event::Ready;
use crate::election::history::{Ending, Reason};
use crate::election::record::Token;

/// How often the others are asked.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// A main loop that is not warm.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub(super) struct WarmingUp {
    /// When the others are asked next; `None`: our main loop is or was ready, or we do not lead.
    ask_at: Option<Instant>,
    is_asked: bool,
    /// Somebody was ready when we last asked.
    was_somebody_ready: bool,
}

// === impl WarmingUp ===

impl WarmingUp {
    /// When the others are to be asked.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.ask_at
    }
}

// === impl Elector: a cold leader ===

impl Elector {
    /// Our main loop begins now, or has something to say about how warm it is.
    pub(super) fn watch_warm_up(&mut self, now: Instant, begins: bool) {
        if self.unready.is_none() {
            self.warming = WarmingUp::default();
        } else if begins {
            self.warming.ask_at = Some(now + ASK_EVERY);
        }
    }

    pub(super) fn ask_for_ready_when_due(&mut self, now: Instant, token: Token) {
        if !self.warming.ask_at.is_some_and(|at| now.reached(at)) {
            return;
        }
        let ask_at = Some(now + ASK_EVERY);
        if self.view.freeze.is_some() {
            self.warming = WarmingUp { ask_at, ..WarmingUp::default() };
        } else {
            self.warming = WarmingUp { ask_at, is_asked: true, ..self.warming };
            self.ask(token, None);
        }
    }

    /// The others have answered. Does somebody take over?
    pub(super) fn hand_over_to_ready(&mut self, now: Instant, token: Token, ready: &[Ready]) -> bool {
        if !self.warming.is_asked || self.view.freeze.is_some() {
            return false;
        }
        self.warming.is_asked = false;
        let successor = successor_of(&self.view, &self.settings.me.node, None, ready);
        let was_ready = std::mem::replace(&mut self.warming.was_somebody_ready, successor.is_some());
        let (Some(successor), Some(unready)) = (successor.filter(|_| was_ready), &self.unready) else {
            return false;
        };
        let detail = format!("{}, and {} is ready", unready.why, successor.registration.member.node);
        self.stop_for(now, token, Ending::with_detail(Reason::StartTimeout, detail), successor, None);
        true
    }
}
