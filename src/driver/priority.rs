//! Changing the priority of a member that runs. Its registration is rewritten under its guard, like any other time: what is
//! under way on the old one (a claim, a hand-over to it) is refused by the store.

use std::time::Duration;

use super::DriverHandle;
use crate::election::event::Event;
use crate::election::status::Role;

/// How long the store gets to show the new priority.
const SHOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// The priority was not changed, as far as is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PriorityError {
    /// One that leads, or may have won, cannot become an observer.
    #[error("it is {}: only a follower can get priority 0; nothing was changed\nfix: metad step-down first", .0.as_str())]
    NoFollower(Role),
    /// The driver is behind.
    #[error(transparent)]
    Busy(#[from] super::Busy),
    /// The store has not shown it (yet).
    #[error(
        "the store has not shown the new priority within {SHOWN_TIMEOUT:?}; it is written as soon as the store takes it\n\
         fix: look at metad members"
    )]
    Unconfirmed,
}

impl DriverHandle {
    /// Gives this member another priority, until it ends or is told otherwise, and waits until the store shows it. Returns the
    /// one that it had.
    ///
    /// # Errors
    /// See [`PriorityError`].
    pub async fn set_priority(&self, priority: u16) -> Result<Option<u16>, PriorityError> {
        let status = self.status();
        if priority == 0 && !status.may_become_observer() {
            return Err(PriorityError::NoFollower(status.role));
        }
        let before = status.priority();
        self.command(Event::SetPriority(priority))?;
        let mut snapshots = self.subscribe();
        let shown = snapshots.wait_for(|s| s.priority() == Some(priority));
        match tokio::time::timeout(SHOWN_TIMEOUT, shown).await {
            Ok(Ok(_)) => Ok(before),
            // It has begun to lead meanwhile, and then it keeps its priority.
            _ if priority == 0 && !self.status().may_become_observer() => {
                Err(PriorityError::NoFollower(self.status().role))
            }
            _ => Err(PriorityError::Unconfirmed),
        }
    }
}
