//! What must hold after every event, each by its name.
//!
//! An invariant looks at the world and at what this one event made happen ([`Happened`]); it changes nothing.
//! What an operator did by hand taints the tenure it hit: a main loop whose record or lease was deleted under
//! its feet may overlap with its successor until it hears of it, and only the fence protects what is stored.

use std::collections::{BTreeMap, BTreeSet};

use metad::election::lease::LeaseId;
use metad::election::record::{Nonce, Revision, Token};

use crate::simulation::clock::MS;
use crate::simulation::network::Shown;
use crate::simulation::world::{Violation, World};

/// What an event made happen.
#[derive(Clone, Debug)]
pub enum Happened {
    WriteLanded {
        token: Token,
        record: Option<Revision>,
        name: String,
        at: Revision,
    },
    /// A main loop was told that its write has happened.
    ToldWritten {
        name: String,
        at: Revision,
    },
    /// A main loop was told that its write has not happened, and never will.
    ToldRefused {
        name: String,
    },
    ClaimLanded {
        h: usize,
        pid: u32,
        nonce: Nonce,
        was_frozen: bool,
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
    Released {
        h: usize,
        token: Token,
    },
    Goodbye {
        h: usize,
    },
    GuardianRevokes {
        id: u64,
    },
    ExitHung {
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
        pid: u32,
        token: Token,
    },
    /// An elector was shown a view.
    Shown {
        h: usize,
        at: Revision,
        shows: Shown,
    },
    /// A leader whose probe has failed makes way. Too soon: the last change for such a reason is less than 5 minutes ago, and
    /// the next leader has not been healthy for longer.
    MadeWay {
        h: usize,
        token: Token,
        is_too_soon: bool,
    },
    /// A candidate said that it is ready to take this tenure over, while it sees that one.
    SaidReady {
        h: usize,
        token: Token,
        sees: Option<Token>,
        is_untried: bool,
    },
}

/// What the invariants remember.
#[derive(Debug, Default)]
pub struct Oracle {
    /// Tenures that an operator ended by hand.
    pub tainted: BTreeSet<Token>,
    /// Leases that an operator revoked.
    pub tainted_leases: BTreeSet<LeaseId>,
    /// The store went back in time: what was promised in its future is void, but nobody may go on as if nothing was.
    pub went_back: bool,
    begun: Option<Token>,
    released: BTreeSet<Token>,
    cancelled: BTreeSet<(u32, Nonce)>,
    orphans: Vec<(usize, u32, Nonce)>,
    joined: Vec<(usize, u32)>,
    landed: BTreeMap<String, Revision>,
    refused: BTreeSet<String>,
}

type Check = Result<(), String>;

type Invariant = (&'static str, fn(&World) -> Check);

const INVARIANTS: [Invariant; 24] = [
    ("at_most_one_main_loop", at_most_one_main_loop),
    ("tokens_strictly_grow", tokens_strictly_grow),
    ("no_write_lands_with_a_stale_token", no_write_lands_with_a_stale_token),
    ("a_write_happens_once_and_is_told_truly", a_write_happens_once_and_is_told_truly),
    ("belief_ends_before_the_store_expires_the_lease", belief_ends_before_the_store_expires_the_lease),
    ("release_only_after_main_loop_stopped", release_only_after_main_loop_stopped),
    ("a_guardian_revokes_only_after_the_program_is_dead", a_guardian_revokes_only_after_the_program_is_dead),
    ("no_main_loop_after_release", no_main_loop_after_release),
    ("no_main_loop_starts_against_the_news", no_main_loop_starts_against_the_news),
    ("no_main_loop_starts_below_what_was_seen", no_main_loop_starts_below_what_was_seen),
    ("a_process_leads_at_most_once", a_process_leads_at_most_once),
    ("no_cancelled_claim_lands", no_cancelled_claim_lands),
    ("no_claim_of_a_dead_incarnation_lands", no_claim_of_a_dead_incarnation_lands),
    ("no_honest_data_dir_is_called_stale", no_honest_data_dir_is_called_stale),
    ("no_honest_store_is_called_changed", no_honest_store_is_called_changed),
    ("no_view_is_wrong", no_view_is_wrong),
    ("nobody_is_ready_for_another_tenure", nobody_is_ready_for_another_tenure),
    ("no_claim_lands_in_a_freeze", no_claim_lands_in_a_freeze),
    ("only_an_operator_freezes", only_an_operator_freezes),
    ("nobody_is_ready_before_its_first_probe", nobody_is_ready_before_its_first_probe),
    ("no_probe_plays_ping_pong", no_probe_plays_ping_pong),
    ("a_main_loop_has_a_fuse", a_main_loop_has_a_fuse),
    ("no_exit_hangs", no_exit_hangs),
    ("no_unbounded_queue", no_unbounded_queue),
];

/// Checks them all, and takes in what has happened.
pub fn check(world: &mut World) -> Result<(), Violation> {
    for (invariant, holds) in INVARIANTS {
        holds(world).map_err(|what| Violation { invariant, what })?;
    }
    for host in &mut world.hosts {
        if let Some(p) = &mut host.process {
            p.checked = p.seen.as_ref().and_then(|s| s.lease).map(|l| l.1);
        }
    }
    let moment = std::mem::take(&mut world.moment);
    world.oracle.take_in(moment);
    Ok(())
}

impl Oracle {
    fn take_in(&mut self, moment: Vec<Happened>) {
        for happened in moment {
            match happened {
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
                Happened::WriteLanded { name, at, .. } => _ = self.landed.insert(name, at),
                Happened::ToldRefused { name } => _ = self.refused.insert(name),
                _ => {}
            }
        }
    }

    /// What is known of a store that has lost its newest past is worth nothing any more.
    pub fn forget(&mut self) {
        let Self { tainted_leases, .. } = std::mem::take(self);
        *self = Self { tainted_leases, went_back: true, ..Self::default() };
    }
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(what()) }
}

/// At any real instant at most one main loop could act: begun, not ended, its process (or its program) alive. Whoever is
/// stopped counts: it may go on.
fn at_most_one_main_loop(w: &World) -> Check {
    let inside = w.hosts.iter().enumerate().filter_map(|(h, host)| {
        let p = host.process.as_ref()?;
        Some((h, p.pid, p.running().filter(|l| !l.is_program)?.token))
    });
    let programs = w.guardians.iter().filter_map(|g| Some((g.h, g.pid, g.program?.0)));
    let counts = |x: &(usize, u32, Token)| !w.oracle.tainted.contains(&x.2);
    let mut able = inside.chain(programs).filter(counts);
    let (first, second) = (able.next(), able.next());
    ensure(second.is_none() || w.oracle.went_back, || {
        format!("host, process, token: {first:?} and {second:?}")
    })
}

/// Each main loop begins under a greater token than all before.
fn tokens_strictly_grow(w: &World) -> Check {
    w.moment.iter().try_for_each(|m| match m {
        Happened::LoopBegan { h, token, .. } => {
            let grows =
                w.oracle.begun < Some(*token) || w.oracle.tainted.contains(token) || w.oracle.went_back;
            ensure(grows, || format!("n{h} begins under {token} after {:?}", w.oracle.begun))
        }
        _ => Ok(()),
    })
}

/// A write that happens carries the record's token of that moment, and no newer main loop has begun.
fn no_write_lands_with_a_stale_token(w: &World) -> Check {
    w.moment.iter().try_for_each(|m| match m {
        Happened::WriteLanded { token, record, .. } => {
            let newest = w.oracle.begun.is_none_or(|t| t <= *token);
            let fresh = *record == Some(token.revision()) && (newest || w.oracle.went_back);
            ensure(fresh, || format!("token {token}, record {record:?}, newest {:?}", w.oracle.begun))
        }
        _ => Ok(()),
    })
}

/// Whoever is told that a write has happened, or never will, is told the truth; and no write happens twice.
fn a_write_happens_once_and_is_told_truly(w: &World) -> Check {
    let landing = |name: &String| {
        w.moment.iter().find_map(|m| match m {
            Happened::WriteLanded { name: n, at, .. } if n == name => Some(*at),
            _ => None,
        })
    };
    w.moment.iter().try_for_each(|m| match m {
        Happened::WriteLanded { name, .. } => {
            ensure(!w.oracle.landed.contains_key(name), || format!("{name} happens again"))?;
            ensure(!w.oracle.refused.contains(name), || format!("{name} was called refused"))
        }
        Happened::ToldWritten { name, at } => {
            let truth = w.oracle.landed.get(name).copied().or_else(|| landing(name));
            ensure(truth == Some(*at) || w.oracle.went_back, || format!("{name}: told {at}, was {truth:?}"))
        }
        Happened::ToldRefused { name } => {
            let landed = w.oracle.landed.contains_key(name) || landing(name).is_some();
            ensure(!landed, || format!("{name} has happened"))
        }
        _ => Ok(()),
    })
}

/// H comes, in real time, before the store lets the lease end. Looked at when either has moved.
fn belief_ends_before_the_store_expires_the_lease(w: &World) -> Check {
    let ended = w.moment.iter().any(|m| matches!(m, Happened::LeaseEnded));
    for (h, host) in w.hosts.iter().enumerate() {
        let Some(p) = &host.process else { continue };
        let Some((lease, holds_until)) = p.seen.as_ref().and_then(|s| s.lease) else { continue };
        let moved = p.checked != Some(holds_until);
        // Whoever is leaving has given it back itself.
        if !(moved || ended) || w.oracle.tainted_leases.contains(&lease) || p.is_ending {
            continue;
        }
        let belief = host.clock.when(holds_until);
        let end = w.store.end_of(lease);
        ensure(end.is_some_and(|end| belief <= end) || w.oracle.went_back, || {
            let ms = |t: u64| t as f64 / MS as f64;
            format!("n{h} believes in {lease} until {} ms, it ends at {:?} ms", ms(belief), end.map(ms))
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
            let has_program = process.is_some_and(|p| w.has_program(*h, p.pid));
            ensure(main_loop.is_none_or(|l| l.ended || !l.begun) && !has_program, || {
                format!("n{h}: {main_loop:?}")
            })
        }
        _ => Ok(()),
    })
}

/// Kill first, revoke after, never the reverse.
fn a_guardian_revokes_only_after_the_program_is_dead(w: &World) -> Check {
    w.moment.iter().try_for_each(|m| match m {
        Happened::GuardianRevokes { id } => {
            let program = w.guardians.iter().find(|g| g.id == *id).and_then(|g| g.program);
            ensure(program.is_none(), || format!("guardian {id}: {program:?}"))
        }
        _ => Ok(()),
    })
}

/// Once a token's release was sent, no main loop runs under it, ever (`src/docs/protocol.md`, rule C1).
fn no_main_loop_after_release(w: &World) -> Check {
    w.moment.iter().try_for_each(|m| match m {
        Happened::LoopBegan { h, token, .. } => {
            ensure(!w.oracle.released.contains(token) || w.oracle.went_back, || {
                format!("n{h} begins under {token}")
            })
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

/// A token below what its process has already seen is one that was given out before, by a store that went back in time.
fn no_main_loop_starts_below_what_was_seen(w: &World) -> Check {
    w.moment.iter().try_for_each(|m| match m {
        Happened::LoopBegan { h, pid, token } => {
            let process = w.hosts[*h].process.as_ref().filter(|p| p.pid == *pid);
            let seen = process.and_then(|p| p.seen_token);
            ensure(seen <= Some(*token), || format!("n{h} begins under {token} after it has seen {seen:?}"))
        }
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

/// While the election is frozen nobody claims, however long ago the claim was sent.
fn no_claim_lands_in_a_freeze(w: &World) -> Check {
    let claimed = w.moment.iter().any(|m| matches!(m, Happened::ClaimLanded { was_frozen: true, .. }));
    ensure(!claimed, || format!("{:?}", w.moment))
}

/// A second copy of a freeze that was ended does not freeze again.
fn only_an_operator_freezes(w: &World) -> Check {
    ensure(w.operator_frozen || !w.is_frozen(), || "frozen after it was unfrozen".into())
}

/// Nobody here rolls a data dir back or copies it, so no join may say so (`src/docs/protocol.md`, rule C6).
fn no_honest_data_dir_is_called_stale(w: &World) -> Check {
    w.moment.iter().try_for_each(|m| match m {
        Happened::CalledStale { h } => ensure(w.oracle.went_back, || format!("n{h}")),
        _ => Ok(()),
    })
}

/// A store that did not go back in time is not called so, however late its answers are.
fn no_honest_store_is_called_changed(w: &World) -> Check {
    w.moment.iter().try_for_each(|m| match m {
        Happened::CalledChanged { h } => ensure(w.oracle.went_back, || format!("n{h}")),
        _ => Ok(()),
    })
}

/// Every view that an elector is shown is what the store held at that revision, however the watch got there.
fn no_view_is_wrong(w: &World) -> Check {
    w.moment.iter().try_for_each(|m| match m {
        Happened::Shown { h, at, shows } => {
            let truth = w.store.shown.range(..=*at).next_back().map(|(_, shown)| shown);
            ensure(truth == Some(shows) || w.oracle.went_back, || {
                format!("n{h} at {at}: {shows:?}, not {truth:?}")
            })
        }
        _ => Ok(()),
    })
}

/// A candidate stands ready only for the tenure that it sees.
fn nobody_is_ready_for_another_tenure(w: &World) -> Check {
    w.moment.iter().try_for_each(|m| match m {
        Happened::SaidReady { h, token, sees, .. } => {
            ensure(*sees == Some(*token), || format!("n{h} is ready for {token}, but sees {sees:?}"))
        }
        _ => Ok(()),
    })
}

/// A process that has a probe is not ready before that has run.
fn nobody_is_ready_before_its_first_probe(w: &World) -> Check {
    w.moment.iter().try_for_each(|m| match m {
        Happened::SaidReady { h, token, is_untried, .. } => {
            ensure(!is_untried, || format!("n{h} is ready for {token}"))
        }
        _ => Ok(()),
    })
}

/// Leadership does not go to and fro because of probes.
fn no_probe_plays_ping_pong(w: &World) -> Check {
    w.moment.iter().try_for_each(|m| match m {
        Happened::MadeWay { h, token, is_too_soon } => {
            ensure(!is_too_soon, || format!("n{h} makes way under {token}"))
        }
        _ => Ok(()),
    })
}

/// While a main loop runs, its process's switch is armed.
fn a_main_loop_has_a_fuse(w: &World) -> Check {
    let processes = w.hosts.iter().filter_map(|h| h.process.as_ref());
    let bare = processes.into_iter().find(|p| p.running().is_some() && p.horizon.fuse().is_none());
    ensure(bare.is_none(), || format!("#{:?}", bare.map(|p| p.pid)))
}

/// Whoever has decided to end is gone before the kernel has to see to it.
fn no_exit_hangs(w: &World) -> Check {
    w.moment.iter().try_for_each(|m| match m {
        Happened::ExitHung { h } => Err(format!("n{h}")),
        _ => Ok(()),
    })
}

/// Nothing piles up.
fn no_unbounded_queue(w: &World) -> Check {
    const MAX: usize = 1000;
    let tasks = w.hosts.iter().filter_map(|h| h.process.as_ref()).map(|p| p.tasks).max();
    ensure(tasks < Some(MAX) && w.watches.len() < MAX, || {
        format!("{tasks:?} tasks, {} watches", w.watches.len())
    })
}
