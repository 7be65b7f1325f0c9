//! What must hold after every event, each by its name.
//!
//! An invariant looks at the world and at what this one event made happen ([`Happened`]); it changes nothing.
//! What an operator did by hand taints the tenure it hit: a main loop whose record or lease was deleted under
//! its feet may overlap with its successor until it hears of it, and only the fence protects what is stored.

use std::collections::BTreeSet;

use metad::election::lease::LeaseId;
use metad::election::record::{Nonce, Revision, Token};

use crate::simulation::clock::MS;
use crate::simulation::network::REQUEST_TIMEOUT;
use crate::simulation::world::{Violation, World};

/// What an event made happen.
#[derive(Clone, Copy, Debug)]
pub enum Happened {
    WriteLanded {
        token: Token,
        record: Option<Revision>,
    },
    ClaimLanded {
        h: usize,
        pid: u32,
        nonce: Nonce,
    },
    /// The elector has gone on although this claim's outcome was unknown: it has taken it for cancelled.
    ClaimCancelled {
        pid: u32,
        nonce: Nonce,
    },
    /// The elector has given up the lease that this claim hangs on.
    ClaimOrphaned {
        h: usize,
        pid: u32,
        nonce: Nonce,
    },
    Joined {
        h: usize,
        pid: u32,
    },
    LeaseEnded,
    Acted {
        actions: usize,
    },
    Released {
        h: usize,
        token: Token,
    },
    Goodbye {
        h: usize,
    },
    CalledStale {
        h: usize,
    },
    CalledChanged {
        h: usize,
    },
    SecondMainLoop {
        h: usize,
    },
    StartedAgainstNews {
        h: usize,
        token: Token,
    },
    LoopBegan {
        h: usize,
        token: Token,
    },
}

/// What the invariants remember.
#[derive(Debug, Default)]
pub struct Oracle {
    /// Tenures that an operator ended by hand.
    pub tainted: BTreeSet<Token>,
    /// Leases that an operator revoked.
    pub tainted_leases: BTreeSet<LeaseId>,
    begun: Option<Token>,
    released: BTreeSet<Token>,
    cancelled: BTreeSet<(u32, Nonce)>,
    orphans: Vec<(usize, u32, Nonce)>,
    joined: Vec<(usize, u32)>,
}

type Check = Result<(), String>;

type Invariant = (&'static str, fn(&World) -> Check);

const INVARIANTS: [Invariant; 15] = [
    ("at_most_one_main_loop", at_most_one_main_loop),
    ("tokens_strictly_grow", tokens_strictly_grow),
    ("no_write_lands_with_a_stale_token", no_write_lands_with_a_stale_token),
    ("belief_ends_before_the_store_expires_the_lease", belief_ends_before_the_store_expires_the_lease),
    ("release_only_after_main_loop_stopped", release_only_after_main_loop_stopped),
    ("no_main_loop_after_release", no_main_loop_after_release),
    ("no_main_loop_starts_against_the_news", no_main_loop_starts_against_the_news),
    ("a_process_leads_at_most_once", a_process_leads_at_most_once),
    ("no_cancelled_claim_lands", no_cancelled_claim_lands),
    ("no_claim_of_a_dead_incarnation_lands", no_claim_of_a_dead_incarnation_lands),
    ("no_honest_data_dir_is_called_stale", no_honest_data_dir_is_called_stale),
    ("no_honest_store_is_called_changed", no_honest_store_is_called_changed),
    ("a_main_loop_has_a_fuse", a_main_loop_has_a_fuse),
    ("every_request_is_answered_once", every_request_is_answered_once),
    ("no_unbounded_queue", no_unbounded_queue),
];

/// Checks them all.
pub fn check(world: &mut World) -> Result<(), Violation> {
    for (invariant, holds) in INVARIANTS {
        holds(world).map_err(|what| Violation { invariant, what })?;
    }
    for host in &mut world.hosts {
        if let Some(p) = &mut host.process {
            p.checked = p.elector.lease().map(|l| l.holds_until());
        }
    }
    Ok(())
}

impl Oracle {
    /// Remembers what happened, once it was checked.
    pub fn take_in(&mut self, moment: &[Happened]) {
        for happened in moment {
            match *happened {
                Happened::LoopBegan { token, .. } => self.begun = self.begun.max(Some(token)),
                Happened::Released { token, .. } => _ = self.released.insert(token),
                Happened::ClaimCancelled { pid, nonce } => _ = self.cancelled.insert((pid, nonce)),
                Happened::ClaimOrphaned { h, pid, nonce } => self.orphans.push((h, pid, nonce)),
                Happened::Joined { h, pid } => {
                    let gone = self.orphans.iter().filter(|o| o.0 == h).map(|o| (o.1, o.2));
                    self.cancelled.extend(gone);
                    self.joined.retain(|j| j.0 != h);
                    self.joined.push((h, pid));
                }
                _ => {}
            }
        }
    }
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(what()) }
}

/// At any real instant at most one member has a main loop that could act: begun, not ended, its process alive,
/// and not (stopped with H passed), for then the clock is the first thing it will see.
fn at_most_one_main_loop(w: &World) -> Check {
    let running = |h: usize| w.hosts[h].process.as_ref().and_then(|p| p.running().map(|l| (h, p, l.token)));
    let mut able = (0..w.hosts.len())
        .filter_map(running)
        .filter(|(h, p, token)| !(w.oracle.tainted.contains(token) || p.paused && p.is_burnt(w.clock(*h))));
    let (first, second) = (able.next(), able.next());
    ensure(second.is_none(), || {
        let who = |x: Option<(usize, &crate::simulation::host::Process, Token)>| {
            x.map(|(h, p, t)| (h, p.pid, t.get()))
        };
        format!("host, process, token: {:?} and {:?}", who(first), who(second))
    })
}

/// Each main loop begins under a greater token than all before.
fn tokens_strictly_grow(w: &World) -> Check {
    w.moment.iter().try_for_each(|m| match m {
        Happened::LoopBegan { h, token } => {
            let grows = w.oracle.begun < Some(*token) || w.oracle.tainted.contains(token);
            ensure(grows, || format!("n{h} begins under {token} after {:?}", w.oracle.begun))
        }
        _ => Ok(()),
    })
}

/// A write that happens carries the record's token of that moment, and no newer main loop has begun.
fn no_write_lands_with_a_stale_token(w: &World) -> Check {
    w.moment.iter().try_for_each(|m| match m {
        Happened::WriteLanded { token, record } => {
            let newest = w.oracle.begun.is_none_or(|t| t <= *token);
            let fresh = *record == Some(token.revision()) && newest;
            ensure(fresh, || format!("token {token}, record {record:?}, newest {:?}", w.oracle.begun))
        }
        _ => Ok(()),
    })
}

/// H comes, in real time, before the store lets the lease end. Looked at when either has moved.
fn belief_ends_before_the_store_expires_the_lease(w: &World) -> Check {
    let ended = w.moment.iter().any(|m| matches!(m, Happened::LeaseEnded));
    for (h, host) in w.hosts.iter().enumerate() {
        let Some(p) = &host.process else { continue };
        let Some(lease) = p.elector.lease() else { continue };
        let moved = p.checked != Some(lease.holds_until());
        if !(moved || ended) || w.oracle.tainted_leases.contains(&lease.id()) {
            continue;
        }
        let belief = host.clock.when(lease.holds_until());
        let end = w.store.end_of(lease.id());
        ensure(end.is_some_and(|end| belief <= end), || {
            let ms = |t: u64| t as f64 / MS as f64;
            format!(
                "n{h} believes in {} until {} ms, it ends at {:?} ms",
                lease.id(),
                ms(belief),
                end.map(ms)
            )
        })?;
    }
    Ok(())
}

/// Nothing is given up while the main loop has not completely ended.
fn release_only_after_main_loop_stopped(w: &World) -> Check {
    w.moment.iter().try_for_each(|m| match m {
        Happened::Released { h, .. } | Happened::Goodbye { h } => {
            let process = w.hosts[*h].process.as_ref();
            let main_loop = process.and_then(|p| p.main_loop.as_ref());
            ensure(main_loop.is_none_or(|l| l.ended), || format!("n{h}: {main_loop:?}"))
        }
        _ => Ok(()),
    })
}

/// Once a token's release was sent, no main loop runs under it, ever (`src/docs/protocol.md`, rule C1).
fn no_main_loop_after_release(w: &World) -> Check {
    w.moment.iter().try_for_each(|m| match m {
        Happened::LoopBegan { h, token } => {
            ensure(!w.oracle.released.contains(token), || format!("n{h} begins under {token}"))
        }
        _ => Ok(()),
    })
}

/// No main loop is started on a record that the process was already shown to be gone.
fn no_main_loop_starts_against_the_news(w: &World) -> Check {
    w.moment.iter().try_for_each(|m| match m {
        Happened::StartedAgainstNews { h, token } => Err(format!("n{h} starts under {token}")),
        _ => Ok(()),
    })
}

/// A process leads at most once.
fn a_process_leads_at_most_once(w: &World) -> Check {
    w.moment.iter().try_for_each(|m| match m {
        Happened::SecondMainLoop { h } => Err(format!("n{h} starts a second main loop")),
        _ => Ok(()),
    })
}

/// A claim that its elector took for cancelled never happens.
fn no_cancelled_claim_lands(w: &World) -> Check {
    w.moment.iter().try_for_each(|m| match m {
        Happened::ClaimLanded { pid, nonce, .. } => {
            ensure(!w.oracle.cancelled.contains(&(*pid, *nonce)), || format!("#{pid} {nonce:?}"))
        }
        _ => Ok(()),
    })
}

/// Once a process has joined, no claim of an earlier process of its data dir happens.
fn no_claim_of_a_dead_incarnation_lands(w: &World) -> Check {
    w.moment.iter().try_for_each(|m| match m {
        Happened::ClaimLanded { h, pid, .. } => {
            let successor = w.oracle.joined.iter().find(|j| j.0 == *h && j.1 > *pid);
            ensure(successor.is_none(), || format!("#{pid} of n{h}, after {successor:?} has joined"))
        }
        _ => Ok(()),
    })
}

/// Nobody here rolls a data dir back or copies it, so no join may say so (`src/docs/protocol.md`, rule C6).
fn no_honest_data_dir_is_called_stale(w: &World) -> Check {
    w.moment.iter().try_for_each(|m| match m {
        Happened::CalledStale { h } => Err(format!("n{h}")),
        _ => Ok(()),
    })
}

/// The store never goes back in time here, however late its answers are, so nobody may say so.
fn no_honest_store_is_called_changed(w: &World) -> Check {
    w.moment.iter().try_for_each(|m| match m {
        Happened::CalledChanged { h } => Err(format!("n{h}")),
        _ => Ok(()),
    })
}

/// While a main loop runs, its process's fuse is armed.
fn a_main_loop_has_a_fuse(w: &World) -> Check {
    let bare =
        w.hosts.iter().filter_map(|h| h.process.as_ref()).find(|p| p.running().is_some() && p.fuse.is_none());
    ensure(bare.is_none(), || format!("#{:?}", bare.map(|p| p.pid)))
}

/// Whoever asks is answered, at the latest with "unknown", when the request's time is over.
fn every_request_is_answered_once(w: &World) -> Check {
    let oldest = |p: &crate::simulation::host::Process| p.calls.values().next().map_or(w.now, |c| c.sent);
    let late = w
        .hosts
        .iter()
        .filter_map(|h| h.process.as_ref().filter(|p| !p.paused))
        .find(|p| w.now > oldest(p) + REQUEST_TIMEOUT);
    ensure(late.is_none(), || format!("{:?}", late.map(|p| &p.calls)))
}

/// Nothing piles up.
fn no_unbounded_queue(w: &World) -> Check {
    const MAX: usize = 1000;
    let many = w.moment.iter().any(|m| matches!(m, Happened::Acted { actions } if *actions >= MAX));
    let open = w.hosts.iter().filter_map(|h| h.process.as_ref()).any(|p| p.calls.len() + p.open.len() >= MAX);
    ensure(!many && !open, || format!("actions: {many}, requests: {open}"))
}
