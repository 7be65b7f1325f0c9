//! Who is connected: how many in all and of one address, who is idle, and who makes way for whom.
//!
//! Where there is no room for a new connection, the one that has been idle for the longest makes way for it; one with a
//! request under way never does. So whoever asks is served, however many only sit there. When none is idle, a few more
//! are let in for probes alone.
//!
//! A *stranger* is a connection on which nobody has been let in yet: a silent one, one in its handshake, one that asks for
//! what it may not have. Of these there may be fewer, since each costs memory and anybody can make one; they make way for
//! each other, whatever they do.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Bounds;
use crate::clock::{Clock, Instant};
use crate::telemetry::metrics::limits::Limit;

/// How many connections that were told to make way may still be there.
const LEAVING_MAX: usize = 16;

/// All connections of one listener.
pub(super) struct Connections {
    bounds: Bounds,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    open: HashMap<u64, OpenConnection>,
    /// The idle ones, in the order in which they became so. One that was told to make way is not among them.
    idle: BTreeMap<u64, u64>,
    of_address: HashMap<IpAddr, usize>,
    /// Those within the limit that were not told to make way, by their numbers, and where they come from.
    strangers: BTreeMap<u64, IpAddr>,
    numbers: u64,
    leaving: usize,
    /// How many are there beyond the limit, and were not told to make way.
    beyond: usize,
}

struct OpenConnection {
    from: IpAddr,
    requests: usize,
    has_asked: bool,
    idle_since: Instant,
    /// Its key among the idle.
    idle_number: Option<u64>,
    is_leaving: bool,
    /// It was let in beyond the limit, for probes.
    is_beyond: bool,
    close: CancellationToken,
}

/// A connection's place; free again when this is dropped.
pub(super) struct ConnectionPlace {
    connections: Arc<Connections>,
    number: u64,
    /// Cancelled when it has to make way.
    pub(super) close: CancellationToken,
    /// It was let in beyond the limit, and may ask for probes only.
    pub(super) is_beyond: bool,
}

/// A connection that may be a stranger's: among the extensions of each request.
#[derive(Clone)]
pub struct Newcomer {
    connections: Arc<Connections>,
    number: u64,
}

/// A request under way on a connection; over when this is dropped.
pub(super) struct Turn {
    place: Arc<ConnectionPlace>,
    clock: Arc<dyn Clock>,
}

/// How a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IdleCheck {
    /// A request is under way, or there is time left: look again after so long.
    Fine(Duration),
    /// It has been idle for too long.
    Overdue(Limit),
}

// === impl Connections ===

impl Connections {
    pub(super) fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self { bounds, table: Mutex::default() })
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.table().open.len()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets a new connection in, if there is room or if another makes way.
///
/// # Errors
/// The limit that keeps it out.
pub(super) fn admit(
    to: &Arc<Connections>,
    from: IpAddr,
    now: Instant,
) -> Result<Arc<ConnectionPlace>, Limit> {
    let bounds = to.bounds;
    let mut table = to.table();
    let of_address = table.of_address.get(&from).copied().unwrap_or(0);
    let reached = if of_address >= bounds.per_address && !table.make_way(|open| open.from == from) {
        Some(Limit::ConnectionsPerAddress)
    } else if table.open.len() - table.leaving - table.beyond >= bounds.connections
        && !table.make_way(|open| !open.is_beyond)
    {
        Some(Limit::Connections)
    } else {
        (!table.has_room_for_stranger(from, bounds)).then_some(Limit::Strangers)
    };
    if let Some(limit) = reached
        && table.beyond >= bounds.probes
        && !table.make_way(|open| open.is_beyond)
    {
        return Err(limit);
    }
    let (close, is_beyond) = (CancellationToken::new(), reached.is_some());
    let number = table.enter(from, now, close.clone(), is_beyond);
    drop(table);
    Ok(Arc::new(ConnectionPlace { connections: to.clone(), number, close, is_beyond }))
}

// === impl Table ===

impl Table {
    fn enter(&mut self, from: IpAddr, now: Instant, close: CancellationToken, is_beyond: bool) -> u64 {
        self.numbers += 1;
        let number = self.numbers;
        self.idle.insert(number, number);
        *self.of_address.entry(from).or_default() += 1;
        self.beyond += usize::from(is_beyond);
        if !is_beyond {
            self.strangers.insert(number, from);
        }
        let (requests, has_asked, is_leaving) = (0, false, false);
        let idle_number = Some(number);
        let idle_since = now;
        let open = OpenConnection {
            from,
            requests,
            has_asked,
            idle_since,
            idle_number,
            is_leaving,
            is_beyond,
            close,
        };
        self.open.insert(number, open);
        number
    }

    /// Tells the one that has been idle for the longest, among those that fit, to make way. False: there is none, or
    /// too many have been told and are not gone yet.
    fn make_way(&mut self, fits: impl Fn(&OpenConnection) -> bool) -> bool {
        let is_it = |number: &u64| self.open.get(number).is_some_and(&fits);
        let longest = self.idle.values().copied().find(is_it);
        longest.is_some_and(|number| self.dismiss(number))
    }

    /// Is there room for one more stranger, or does another one make way? One address has half of it at most.
    fn has_room_for_stranger(&mut self, from: IpAddr, bounds: Bounds) -> bool {
        let of_address = self.strangers.values().filter(|other| **other == from).count();
        let who = match self.strangers.len() >= bounds.strangers {
            _ if of_address >= (bounds.strangers / 2).max(1) => Some(from),
            true => None,
            false => return true,
        };
        self.oldest_stranger(who).is_some_and(|number| self.dismiss(number))
    }

    /// An idle one if there is one: else strangers with endless requests, which take no role, would keep everybody out.
    fn oldest_stranger(&self, from: Option<IpAddr>) -> Option<u64> {
        let strangers = self.strangers.iter().filter(|(_, other)| from.is_none_or(|from| from == **other));
        let mut numbers = strangers.map(|(number, _)| *number);
        let oldest = numbers.clone().next();
        numbers.find(|number| self.open.get(number).is_some_and(|open| open.requests == 0)).or(oldest)
    }

    /// Tells it to make way, unless too many have been told and are not gone yet.
    fn dismiss(&mut self, number: u64) -> bool {
        let Some(open) = self.open.get_mut(&number).filter(|_| self.leaving < LEAVING_MAX) else {
            return false;
        };
        if let Some(idle) = open.idle_number.take() {
            self.idle.remove(&idle);
        }
        open.is_leaving = true;
        open.close.cancel();
        let (from, is_beyond) = (open.from, open.is_beyond);
        self.leaving += 1;
        self.left(number, from, is_beyond);
        true
    }

    fn left(&mut self, number: u64, from: IpAddr, is_beyond: bool) {
        self.strangers.remove(&number);
        self.beyond -= usize::from(is_beyond);
        if let Some(n) = self.of_address.get_mut(&from) {
            *n = n.saturating_sub(1);
            if *n == 0 {
                self.of_address.remove(&from);
            }
        }
    }

    fn leave(&mut self, number: u64) {
        let Some(open) = self.open.remove(&number) else { return };
        if let Some(idle) = open.idle_number {
            self.idle.remove(&idle);
        }
        if open.is_leaving {
            self.leaving = self.leaving.saturating_sub(1);
        } else {
            self.left(number, open.from, open.is_beyond);
        }
    }

    fn begin(&mut self, number: u64) {
        let Some(open) = self.open.get_mut(&number) else { return };
        open.requests += 1;
        open.has_asked = true;
        if let Some(idle) = open.idle_number.take() {
            self.idle.remove(&idle);
        }
    }

    fn end(&mut self, number: u64, now: Instant) {
        self.numbers += 1;
        let idle = self.numbers;
        let Some(open) = self.open.get_mut(&number) else { return };
        open.requests = open.requests.saturating_sub(1);
        if open.requests == 0 && !open.is_leaving {
            (open.idle_since, open.idle_number) = (now, Some(idle));
            self.idle.insert(idle, number);
        }
    }
}

// === impl ConnectionPlace ===

impl ConnectionPlace {
    /// What tells the limits that somebody on it is known.
    pub(super) fn newcomer(&self) -> Newcomer {
        Newcomer { connections: self.connections.clone(), number: self.number }
    }

    /// A request begins.
    pub(super) fn begin(self: &Arc<Self>, clock: Arc<dyn Clock>) -> Turn {
        self.connections.table().begin(self.number);
        Turn { place: self.clone(), clock }
    }

    /// Has it been idle for too long?
    pub(super) fn standing(&self, now: Instant) -> IdleCheck {
        let bounds = self.connections.bounds;
        let table = self.connections.table();
        let Some(open) = table.open.get(&self.number).filter(|open| open.requests == 0) else {
            return IdleCheck::Fine(bounds.idle);
        };
        let (allowed, limit) = match open.has_asked {
            true => (bounds.idle, Limit::Idle),
            false => (bounds.first_request, Limit::FirstRequest),
        };
        match allowed.checked_sub(now.since(open.idle_since)).filter(|left| !left.is_zero()) {
            Some(left) => IdleCheck::Fine(left),
            None => IdleCheck::Overdue(limit),
        }
    }
}

impl Newcomer {
    /// Somebody on this connection was let in: from now on it is no stranger's.
    pub fn became_known(&self) {
        self.connections.table().strangers.remove(&self.number);
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        self.connections.table().leave(self.number);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let now = self.clock.now();
        self.place.connections.table().end(self.place.number, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::OsClock;
    use crate::telemetry::metrics::limits::Listener;

    const BOUNDS: Bounds = Bounds {
        listener: Listener::Http,
        connections: 3,
        per_address: 2,
        strangers: 100,
        probes: 1,
        requests: 10,
        requests_per_connection: 1,
        bytes: 1,
        first_request: Duration::from_secs(10),
        idle: Duration::from_secs(60),
        write: Duration::from_secs(30),
        costly_per_sec: 1,
    };

    fn at(secs: u64) -> Instant {
        Instant::from_millis(secs * 1000)
    }

    fn from(last: u8) -> IpAddr {
        IpAddr::from([127, 0, 0, last])
    }

    fn clock() -> Arc<dyn Clock> {
        Arc::new(OsClock)
    }

    #[test]
    fn the_one_that_has_been_idle_for_the_longest_makes_way() {
        let all = Connections::new(BOUNDS);
        let enter = |last| admit(&all, from(last), at(0)).unwrap();
        let (first, second, third) = (enter(1), enter(2), enter(3));
        drop(first.begin(clock())); // it is idle since now, so the second has been for longer
        let fourth = enter(4);
        let left = [&first, &second, &third, &fourth].map(|p| p.close.is_cancelled());
        assert_eq!(left, [false, true, false, false]);
        assert!(!fourth.is_beyond);
        drop(second);
        assert_eq!(all.count(), 3);
    }

    #[test]
    fn one_with_a_request_under_way_stays_and_only_probes_are_let_in_beyond() {
        let all = Connections::new(BOUNDS);
        let places = [1, 2, 3].map(|last| admit(&all, from(last), at(0)).unwrap());
        let turns = places.each_ref().map(|place| place.begin(clock()));
        let probe = admit(&all, from(4), at(0)).unwrap();
        assert!(probe.is_beyond && places.iter().all(|p| !p.close.is_cancelled()));
        let next = admit(&all, from(5), at(0)).unwrap();
        assert!(next.is_beyond && probe.close.is_cancelled(), "a silent probe makes way for the next");
        let asks = next.begin(clock());
        assert_eq!(admit(&all, from(6), at(0)).err(), Some(Limit::Connections));
        drop((turns, asks));
        assert!(!admit(&all, from(6), at(0)).unwrap().is_beyond);
    }

    #[test]
    fn an_address_takes_from_itself() {
        let all = Connections::new(BOUNDS);
        let other = admit(&all, from(1), at(0)).unwrap();
        let places = [2, 2].map(|last| admit(&all, from(last), at(0)).unwrap());
        let third = admit(&all, from(2), at(0)).unwrap();
        assert!(places[0].close.is_cancelled() && !other.close.is_cancelled() && !third.is_beyond);
    }

    #[test]
    fn strangers_make_way_for_each_other_and_never_one_that_is_known() {
        let all = Connections::new(Bounds { connections: 100, per_address: 100, strangers: 4, ..BOUNDS });
        let enter = |last| admit(&all, from(last), at(0)).unwrap();
        let known = [1, 1, 1, 1, 2, 2].map(|last| {
            let place = enter(last);
            place.newcomer().became_known();
            place
        });
        let strangers = [3, 3, 4].map(enter);
        assert_eq!(all.count(), 9, "whoever is known takes no stranger's place");
        let of_the_same_address = enter(3);
        let others = [4, 5].map(enter);
        let left = strangers.each_ref().map(|place| place.close.is_cancelled());
        assert_eq!(left, [true, true, false], "half for one address, then the oldest of all");
        let stay = known.iter().chain([&of_the_same_address]).chain(&others);
        assert!(stay.into_iter().all(|place| !place.close.is_cancelled()));
    }

    #[test]
    fn a_stranger_makes_way_even_with_a_request_under_way_but_an_idle_one_first() {
        let all = Connections::new(Bounds { strangers: 2, ..BOUNDS });
        let places = [1, 2].map(|last| admit(&all, from(last), at(0)).unwrap());
        let first = places[0].begin(clock());
        let third = admit(&all, from(3), at(0)).unwrap();
        assert_eq!(places.each_ref().map(|place| place.close.is_cancelled()), [false, true]);
        let turn = third.begin(clock());
        let fourth = admit(&all, from(4), at(0)).unwrap();
        assert!(places[0].close.is_cancelled() && !fourth.is_beyond);
        drop((first, turn, places));
        assert_eq!((all.count(), all.table().leaving), (2, 0));
    }

    #[test]
    fn a_connection_has_less_time_for_its_first_request_than_between_two() {
        let all = Connections::new(BOUNDS);
        let place = admit(&all, from(1), at(0)).unwrap();
        assert_eq!(place.standing(at(4)), IdleCheck::Fine(Duration::from_secs(6)));
        assert_eq!(place.standing(at(10)), IdleCheck::Overdue(Limit::FirstRequest));
        let turn = place.begin(clock());
        assert_eq!(place.standing(at(1000)), IdleCheck::Fine(BOUNDS.idle), "as long as it takes");
        drop(turn);
        let now = OsClock.now();
        assert!(matches!(place.standing(now), IdleCheck::Fine(_)));
        assert_eq!(place.standing(now + BOUNDS.idle * 2), IdleCheck::Overdue(Limit::Idle));
    }
}
