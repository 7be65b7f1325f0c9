//! A priority that is changed while the member runs, and a registration that is not as it should be.
//!
//! The registration is rewritten only under the generation that the newest view shows, and only where nothing of ours rests on
//! it: as a follower, whose next claim demands the new generation, and as a leader, whose claim is over.

use super::{Elector, State};
use crate::election::event::Action;
use crate::election::record::Revision;

/// What somebody has asked for since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct AskedPriority {
    /// What we register with.
    pub(super) now: u16,
    /// What we go back to if we turn out to have got the record when we became an observer.
    otherwise: u16,
}

// === impl Elector: the registration ===

impl Elector {
    /// From now on we register with this priority. One that leads, or may have won already, must not become an observer: it would
    /// be a leader that nobody counts among those who may lead.
    pub(super) fn on_set_priority(&mut self, priority: u16) {
        let mine = self.view.member(&self.settings.me.node).map(|m| m.registration.priority);
        let otherwise = match (mine, &self.state) {
            _ if priority > 0 => priority,
            (Some(registered), State::Follower { .. }) => registered,
            _ => return,
        };
        self.priority = Some(AskedPriority { now: priority, otherwise });
        self.repair_registration();
    }

    /// Has it become an observer, as far as it knows itself? The store may not know it yet.
    pub(super) fn observes(&self) -> bool {
        self.priority.is_some_and(|asked| asked.now == 0)
    }

    /// The record is ours: another member handed it over, while we became an observer. It was there first.
    pub(super) fn observes_no_longer(&mut self) {
        if let Some(asked) = self.priority.as_mut().filter(|asked| asked.now == 0) {
            asked.now = asked.otherwise;
        }
    }

    /// Somebody has deleted a leader's registration by hand, without which the other members cannot see us; or it has another
    /// priority than we should have. Asked for after each read, so a lost answer is made good by the next one.
    pub(super) fn repair_registration(&mut self) {
        let Some(lease) = self.lease.map(|l| l.id()) else { return };
        let is_leading = matches!(self.state, State::Leading { .. });
        if !is_leading && !matches!(self.state, State::Follower { .. }) {
            return;
        }
        let expected = match self.view.member(&self.settings.me.node) {
            None if is_leading => Revision(0),
            // A view from before our registration says nothing about it.
            Some(m) if m.registration.member == self.settings.me && m.registration.lease == lease => {
                match self.priority {
                    Some(asked) if asked.now != m.registration.priority => m.generation,
                    _ => return,
                }
            }
            _ => return,
        };
        self.actions.push_back(Action::Register { lease, expected });
    }
}
