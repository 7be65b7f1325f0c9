//! What must hold in every state, each by its name.

use stateright::Property;

use metad::election::elector::State;
use metad::election::lease::LeaseId;

use crate::model::explore::Explored;
use crate::model::world::{Call, JoinStep, Node, Process, Purpose, World, keys};

pub const ONE_MAIN_LOOP: &str = "never two main loops at once";
pub const FRESH_WRITES: &str = "no write lands with a stale token";
pub const TOKENS_GROW: &str = "tokens strictly grow";
pub const GIVEN_UP_LAST: &str = "a record is given up only after its main loop has ended";
pub const REGISTRATIONS_STAY: &str = "no live registration is lost without cause";
pub const BELIEF_ENDS_FIRST: &str = "belief ends before the lease";
pub const HONEST_DIRS: &str = "no honest data dir is refused";

/// All of them.
pub fn properties() -> Vec<Property<Explored>> {
    vec![
        Property::always(ONE_MAIN_LOOP, |_, w| main_loops(w) <= 1),
        Property::always(FRESH_WRITES, |_, w: &World| !w.broken.stale_write),
        Property::always(TOKENS_GROW, |_, w: &World| !w.broken.token_again),
        Property::always(GIVEN_UP_LAST, |_, w: &World| !w.broken.given_up_early),
        Property::always(REGISTRATIONS_STAY, |_, w| registrations_stay(w)),
        Property::always(BELIEF_ENDS_FIRST, |_, w| belief_ends_first(w)),
        Property::always(HONEST_DIRS, |_, w: &World| !w.broken.honest_dir_refused),
    ]
}

/// A main loop runs until it has ended or its process is dead; as a program, until its guardian has killed it.
fn main_loops(w: &World) -> usize {
    let inside = w.nodes.iter().filter_map(|n| n.process.as_ref()).filter(|p| p.running().is_some());
    let left = w.nodes.iter().flat_map(|n| &n.left).filter(|g| g.program.is_some());
    inside.count() + left.count()
}

/// While a member's lease lives in the store, so does its registration under it, until it gives itself up.
fn registrations_stay(w: &World) -> bool {
    w.nodes.iter().all(|n| {
        let lease = n.process.as_ref().and_then(|p| registered(n, p));
        let Some(lease) = lease.filter(|l| w.store.end_of(*l).is_some()) else { return true };
        w.store.state.get(&keys().node(n.name)).is_some_and(|kv| kv.lease == Some(lease))
    })
}

/// The lease that a process has registered under, from the enrolment to the end of its tenure.
fn registered(node: &Node, p: &Process) -> Option<LeaseId> {
    let enrolled = |c: &Call| matches!(c.purpose, Purpose::Join(JoinStep::Reclaiming | JoinStep::Revoking));
    match p.elector.state() {
        State::Joining { .. } => node.disk.leases.last().copied().filter(|_| p.calls.iter().any(enrolled)),
        State::Follower { .. } | State::Claiming { .. } | State::Starting { .. } | State::Leading { .. } => {
            p.elector.lease().map(|l| l.id())
        }
        _ => None,
    }
}

/// What a process may rely on with its life, the store has not taken back, and will not take back before H.
fn belief_ends_first(w: &World) -> bool {
    w.nodes.iter().filter_map(|n| n.process.as_ref()).all(|p| {
        let Some(lease) = p.elector.fused_lease() else { return true };
        w.store.end_of(lease.id()).is_some_and(|end| end.reached(lease.holds_until()))
    })
}
