//! A rolling upgrade: one member after the other is asked to stop and comes back with a newer version, while nothing else
//! goes wrong.

use metad::election::history::Reason;
use metad::election::record::Token;

use crate::simulation::clock::{MS, SEC};
use crate::simulation::host::Process;
use crate::simulation::plan::Plan;
use crate::simulation::process::Player;
use crate::simulation::world::{Violation, World};

/// How long a member gets to be back, and a cluster to have a leader.
const SETTLED_WITHIN: u64 = 120 * SEC;
const STEP: u64 = 50 * MS;

/// How often the leader changed, and in which order the members were restarted.
pub struct Upgrade {
    pub changes: usize,
    pub order: Vec<usize>,
    /// What happened, for a person.
    pub trace: String,
}

/// Upgrades all members in a drawn order: any but the leader first, or, with `leader_first`, exactly that.
pub async fn upgrade(seed: u64, members: usize, leader_first: bool) -> Result<Upgrade, Violation> {
    let mut player = Player::with_plan(seed, |dice| Plan::quiet(dice, members));
    player.sim.lock().calm = true;
    settle(&mut player, members, "1").await?;
    let (order, mut tokens) = {
        let world = player.sim.lock();
        let leader = leader(&world).expect("it has settled");
        (order(&world, members, leader.0, leader_first), vec![leader.1])
    };
    for (done, h) in order.iter().enumerate() {
        {
            let mut world = player.sim.lock();
            world.hosts[*h].version = "2";
            let process = world.hosts[*h].process.as_ref().expect("it runs");
            process.handle.shutdown(Reason::ResignedSignal);
            world.trace(|| format!("n{h} is upgraded"));
        }
        wait(&mut player, |w| w.hosts[*h].process.as_ref().is_none_or(|p| p.is_ending)).await?;
        settle(&mut player, done + 1, "2").await?;
        let token = leader(&player.sim.lock()).expect("it has settled").1;
        if tokens.last() != Some(&token) {
            tokens.push(token);
        }
    }
    let trace = player.sim.lock().trace.all();
    Ok(Upgrade { changes: tokens.len() - 1, order, trace })
}

fn order(world: &World, members: usize, leader: usize, leader_first: bool) -> Vec<usize> {
    let mut rest: Vec<usize> = (0..members).collect();
    let mut order = Vec::new();
    while !rest.is_empty() {
        let i = world.dice.below(rest.len() as u64) as usize;
        order.push(rest.remove(i));
    }
    let at = order.iter().position(|h| *h == leader).expect("a member");
    if (at == 0) != leader_first {
        let other = if leader_first { 0 } else { 1 + world.dice.below(members as u64 - 1) as usize };
        order.swap(at, other);
    }
    order
}

fn leader(world: &World) -> Option<(usize, Token)> {
    let token = world.leader()?;
    let h = world.hosts.iter().position(|h| h.process.as_ref().is_some_and(|p| p.leads() == Some(token)))?;
    Some((h, token))
}

/// Until somebody leads, and every member takes part and sees all members, so many of them of this version. One that is
/// registered, but does not say so itself yet, is not ready for a hand-over: `metad upgrade-order --wait` waits for it.
async fn settle(player: &mut Player, upgraded: usize, version: &str) -> Result<(), Violation> {
    wait(player, |world| {
        let members = &world.hosts[..world.plan.priorities.len()];
        let sees_all = |process: &Process| {
            let status = process.handle.status();
            let seen = &status.view.members;
            let of_it = seen.iter().filter(|m| m.registration.version == version).count();
            status.role.is_ready() && seen.len() == members.len() && of_it == upgraded
        };
        leader(world).is_some() && members.iter().all(|h| h.process.as_ref().is_some_and(sees_all))
    })
    .await
}

async fn wait(player: &mut Player, until: impl Fn(&World) -> bool) -> Result<(), Violation> {
    let give_up_at = player.sim.lock().now + SETTLED_WITHIN;
    loop {
        let now = {
            let world = player.sim.lock();
            if until(&world) {
                return Ok(());
            }
            world.now
        };
        if now > give_up_at {
            let what = "the cluster does not settle".into();
            return Err(Violation { invariant: "an_upgrade_ends", what });
        }
        player.play(now + STEP).await?;
    }
}

fn run(seed: u64, members: usize, leader_first: bool) -> Upgrade {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let done = runtime.expect("a runtime").block_on(upgrade(seed, members, leader_first));
    done.unwrap_or_else(|v| panic!("seed {seed}, {members} members, {}: {}", v.invariant, v.what))
}

#[test]
fn a_rolling_upgrade_in_any_order_but_the_leader_first_changes_the_leader_once() {
    for seed in 0..100 {
        for members in [3, 5] {
            let Upgrade { changes, order, trace } = run(seed, members, false);
            assert_eq!(changes, 1, "seed {seed}, order {order:?}\n{trace}");
        }
    }
}

/// The twin: then there was nobody yet of the new version, and whoever takes over is restarted once more.
#[test]
fn an_upgrade_that_begins_with_the_leader_changes_it_twice() {
    for seed in 0..10 {
        let Upgrade { changes, order, trace } = run(seed, 3, true);
        assert_eq!(changes, 2, "seed {seed}, order {order:?}\n{trace}");
    }
}
