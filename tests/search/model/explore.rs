//! The model as the checker sees it: where it begins, which steps there are, what a step leads to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use stateright::{Checker, HasDiscoveries, Model, Property};

use crate::model::driving::Run;
use crate::model::facts::Facts;
use crate::model::properties;
use crate::model::scenario::{Kind, Mutant, Scenario, Start};
use crate::model::world::{Node, Process, Stage, World};

/// As many as the smallest machine we test on has cores.
const THREADS: usize = 2;

/// One thing that can happen. The first number is a node, the second one a request of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Tick,
    Wake(usize),
    See(usize),
    Deliver(usize, usize),
    Hear(usize, usize),
    Exchange(usize, usize),
    Lose(usize, usize),
    DeliverStray(usize),
    Crash(usize),
    CrashGuardian(usize),
    CrashBoth(usize),
    Kill(usize),
    Revoke(usize),
    Start(usize),
    AskToStop(usize),
    EndMainLoop(usize),
    Write(usize),
}

/// A scenario to be explored, and the facts that were seen on the way.
#[derive(Clone, Debug)]
pub struct Explored {
    pub plan: Scenario,
    facts: Arc<AtomicU64>,
}

/// What an exploration came to.
#[derive(Debug)]
pub struct Outcome {
    pub states: usize,
    pub depth: usize,
    pub facts: Facts,
    /// Violated properties, each with a way there.
    pub violated: Vec<(&'static str, Vec<Step>)>,
}

// === impl Explored ===

impl Explored {
    pub fn new(plan: Scenario) -> Self {
        Self { plan, facts: Arc::default() }
    }

    /// Explores everything that can be reached. There is no cap: it ends when there is no new state.
    pub fn explore(self) -> Outcome {
        let facts = self.facts.clone();
        outcome(&self.checker().threads(THREADS).spawn_dfs().join(), &facts)
    }

    /// Explores, states near the beginning first, until this property is violated.
    pub fn look_for(self, property: &'static str) -> Outcome {
        let (facts, found) = (self.facts.clone(), HasDiscoveries::AnyOf([property].into()));
        outcome(&self.checker().threads(THREADS).finish_when(found).spawn_bfs().join(), &facts)
    }

    fn step(&self, world: &World, step: Step) -> World {
        let mut run = Run { world: world.clone(), plan: &self.plan, facts: Facts::default() };
        run.take(step);
        self.facts.fetch_or(run.facts.0, Ordering::Relaxed);
        run.world
    }

    /// Lets a member's requests be answered until none of this sort is left.
    fn settle(&self, mut world: World, n: usize, which: impl Fn(Kind) -> bool) -> World {
        loop {
            let calls = world.process(n).map_or(&[][..], |p| &p.calls);
            let Some(i) = calls.iter().position(|c| which(c.purpose.kind())) else { return world };
            world = self.step(&world, Step::Exchange(n, i));
        }
    }
}

fn outcome(checker: &impl Checker<Explored>, facts: &AtomicU64) -> Outcome {
    let found = checker.discoveries();
    let mut violated: Vec<_> = found.into_iter().map(|(name, path)| (name, path.into_actions())).collect();
    violated.sort_by_key(|(name, _)| *name);
    Outcome {
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        facts: Facts(facts.load(Ordering::Relaxed)),
        violated,
    }
}

impl Model for Explored {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        let led = self.plan.start == Start::Led;
        let mut world = self.step(&World::new(), Step::Start(0));
        world = self.settle(world, 0, |kind| led || kind == Kind::Join);
        world = self.step(&world, Step::Start(1));
        world = self.settle(world, 1, |kind| kind == Kind::Join);
        while led && can_see(&world, 0) {
            world = self.step(&world, Step::See(0));
        }
        vec![world]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        if world.tick < self.plan.ticks {
            steps.push(Step::Tick);
        }
        let strays = 0..world.strays.len();
        steps.extend(strays.map(Step::DeliverStray));
        for n in 0..2 {
            match &world.nodes[n].process {
                Some(p) => {
                    self.process_steps(world, n, p, steps);
                    self.call_steps(world, n, p, steps);
                    self.death_steps(world, n, p, steps);
                }
                None => self.start_steps(&world.nodes[n], n, steps),
            }
            self.guardian_steps(&world.nodes[n], n, steps);
        }
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        Some(self.step(world, step))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::properties()
    }
}

// === impl Explored: which steps there are ===

impl Explored {
    fn process_steps(&self, world: &World, n: usize, p: &Process, steps: &mut Vec<Step>) {
        let now = world.now();
        if p.elector.poll_timeout().is_some_and(|at| now.reached(at)) {
            steps.push(Step::Wake(n));
        }
        if can_see(world, n) {
            steps.push(Step::See(n));
        }
        if self.plan.shutdowns[n] && !world.nodes[n].asked_to_stop {
            steps.push(Step::AskToStop(n));
        }
        let Some(l) = p.running() else { return };
        if l.told {
            steps.push(Step::EndMainLoop(n));
        }
        let in_time = p.elector.fused_lease().is_some_and(|lease| !now.reached(lease.step_down_at()));
        if !l.told && in_time && world.spent.writes < self.plan.writes {
            steps.push(Step::Write(n));
        }
    }

    fn call_steps(&self, world: &World, n: usize, p: &Process, steps: &mut Vec<Step>) {
        for (i, call) in p.calls.iter().enumerate() {
            let split = self.plan.split_nodes[n] && self.plan.split.contains(&call.purpose.kind());
            match call.stage {
                Stage::Sent if split => steps.push(Step::Deliver(n, i)),
                Stage::Sent => steps.push(Step::Exchange(n, i)),
                Stage::Answered(_) | Stage::Prepared(_) => steps.push(Step::Hear(n, i)),
            }
            if split && world.spent.losses < self.plan.losses {
                steps.push(Step::Lose(n, i));
            }
        }
    }

    fn death_steps(&self, world: &World, n: usize, p: &Process, steps: &mut Vec<Step>) {
        let crashes = self.plan.crash_nodes[n] && world.spent.crashes < self.plan.crashes;
        let dies = self.plan.crash_nodes[n] && world.spent.guardian_crashes < self.plan.guardian_crashes;
        if crashes {
            steps.push(Step::Crash(n));
        }
        if dies && p.guardian.is_some() {
            steps.push(Step::CrashGuardian(n));
            if crashes {
                steps.push(Step::CrashBoth(n));
            }
        }
    }

    fn start_steps(&self, node: &Node, n: usize, steps: &mut Vec<Step>) {
        let runs = node.left.iter().any(|g| g.program.is_some());
        // The guardian keeps the lock on the data dir until the program is dead.
        let may = self.plan.mutant == Mutant::LockGoesWithProcess || !runs;
        if may && node.disk.incarnation.0 < u64::from(self.plan.starts[n]) {
            steps.push(Step::Start(n));
        }
    }

    fn guardian_steps(&self, node: &Node, n: usize, steps: &mut Vec<Step>) {
        let early = self.plan.mutant == Mutant::RevokeBeforeKill;
        if node.left.iter().any(|g| g.program.is_some()) {
            steps.push(Step::Kill(n));
        }
        if node.left.iter().any(|g| !g.leases.is_empty() && (early || g.program.is_none())) {
            steps.push(Step::Revoke(n));
        }
    }
}

fn can_see(world: &World, n: usize) -> bool {
    let newest = world.store.views.last().map(|v| v.revision);
    world.process(n).is_some_and(|p| newest > Some(p.elector.view().revision))
}

// === impl Run: which step is what ===

impl Run<'_> {
    fn take(&mut self, step: Step) {
        match step {
            Step::Tick => self.tick(),
            Step::Wake(n) => self.feed(n, None),
            Step::See(n) => self.see(n),
            Step::Deliver(n, i) => self.deliver(n, i),
            Step::Hear(n, i) => self.hear(n, i),
            Step::Exchange(n, i) => self.exchange(n, i),
            Step::Lose(n, i) => self.lose(n, i),
            Step::DeliverStray(i) => self.deliver_stray(i),
            Step::Crash(n) => self.crash(n),
            Step::CrashGuardian(n) => self.crash_guardian(n),
            Step::CrashBoth(n) => self.crash_both(n),
            Step::Kill(n) => self.kill(n),
            Step::Revoke(n) => self.revoke(n),
            Step::Start(n) => self.start(n),
            Step::AskToStop(n) => self.ask_to_stop(n),
            Step::EndMainLoop(n) => self.end_main_loop(n),
            Step::Write(n) => self.write(n),
        }
    }
}
