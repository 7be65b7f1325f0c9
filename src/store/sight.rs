//! A look at one place of a store, for the verdict: can its host be reached, and what does it say?

use std::time::Duration;

/// One place, as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    /// The place, as it was configured.
    pub place: String,
    /// What became of a new connection.
    pub reach: Reach,
    /// What was answered in time, if anything.
    pub answer: Option<Answer>,
    /// How long a question of the election's kind took; `None`: it had no good answer in time.
    pub rtt: Option<Duration>,
}

/// What became of a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It was accepted: the host is up, and something listens there.
    Open,
    /// It was refused: the host is up, and nothing listens there.
    Refused,
    /// Nothing came back: the host, or the way to it, is down.
    Nothing,
    /// It could not be tried: this process may open no more files.
    NotTried,
}

/// What a place says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Does it know a leader of its cluster?
    pub has_leader: bool,
    /// Is it full?
    pub is_full: bool,
    /// Why it refuses our login or our token, if it does.
    pub refused: Option<String>,
}

impl Sight {
    /// Does it work, as far as can be seen?
    pub fn is_well(&self) -> bool {
        self.answer.as_ref().is_some_and(|a| a.has_leader && a.refused.is_none())
    }
}
