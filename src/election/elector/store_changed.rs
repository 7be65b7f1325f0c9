//! A store that is not the one it was: it went back in time, or another cluster answers in its place.
//!
//! What it says about leases and records is about another past than ours. So nothing that it says counts any more,
//! nothing is written to it, and the main loop ends at once: the next leader may already be elected in there.

use super::{Elector, Pressure, State, Succession};
use crate::clock::Instant;
use crate::election::history::{Ending, Reason};

impl Elector {
    pub(super) fn on_store_changed(&mut self, now: Instant, how: String) {
        let ending = Ending::with_detail(Reason::StoreChanged, how);
        match &mut self.state {
            State::Leading { token } => {
                let token = *token;
                self.stop_main_loop(token, ending, now);
                self.press_when_due(now);
            }
            State::Stopping { ending: planned, pressure, succession, .. } => {
                // The record is not ours to give away any more.
                (*planned, *succession) = (ending, Succession::None);
                if let Pressure::Told { abort_at } = pressure {
                    *abort_at = now;
                }
                self.press_when_due(now);
            }
            State::Joining { .. }
            | State::Follower { .. }
            | State::Claiming { .. }
            | State::Starting { .. }
            | State::Choosing { .. }
            | State::HandingOver { .. }
            | State::Resigning { .. } => self.stop(ending),
            State::Stopped(_) => {}
        }
    }
}
