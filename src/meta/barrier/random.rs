//! Random lives of the barrier manager over many leaders, watched by an observer that trusts nothing it says.

use std::collections::BTreeMap;

use super::tests::settings;
use super::*;
use crate::store::unreliable::Dice;

const HOUR_MS: u64 = 3_600_000;

/// What was seen at least once: each "never" below would hold for a manager that does nothing.
#[derive(Debug, Default)]
struct Observed {
    injected: u64,
    committed: u64,
    checkpoints: u64,
    leaders: u64,
    clock_steps: u64,
    timed_out: u64,
    worker_left: u64,
    commit_failed: u64,
    committed_unheard: u64,
    held_by_in_flight: u64,
    held_by_ceiling: u64,
    waited_for_predecessor: u64,
    refused: u64,
}

/// What the observer knows of an epoch.
#[derive(Debug)]
struct Known {
    sent: Vec<WorkerId>,
    collected: BTreeSet<WorkerId>,
    injected_ms: u64,
    leader: u64,
    /// Announced or dropped.
    over: bool,
}

impl Known {
    fn missing(&self) -> impl Iterator<Item = WorkerId> {
        self.sent.iter().filter(|worker| !self.collected.contains(worker)).copied()
    }

    fn is_collected(&self) -> bool {
        self.missing().next().is_none()
    }
}

/// A store, wall clock and workers that outlive the leaders, and what an observer remembers.
struct World {
    dice: Dice,
    now: u64,
    wall: u64,
    stored: Persisted,
    manager: BarrierManager,
    leader: u64,
    alive: BTreeSet<WorkerId>,
    /// The writes that wait for an answer, in order.
    writes: VecDeque<BarrierAction>,
    known: BTreeMap<Epoch, Known>,
    /// All that was ever written as committed, in that order.
    commits: Vec<Epoch>,
    seen: Observed,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            dice: Dice::new(seed),
            now: 1_000,
            wall: 100 * HOUR_MS,
            stored: Persisted::default(),
            manager: BarrierManager::load(settings(), Persisted::default()),
            leader: 0,
            alive: BTreeSet::new(),
            writes: VecDeque::new(),
            known: BTreeMap::new(),
            commits: Vec::new(),
            seen: Observed::default(),
        }
    }

    fn at(&self) -> Instant {
        Instant::from_millis(self.now)
    }

    // --- what can happen ---

    fn step(&mut self) {
        self.pass_time();
        let worker = WorkerId(1 + self.dice.below(4));
        match self.dice.below(100) {
            0..6 => self.join(worker),
            6..8 => self.leave(worker),
            8..70 => self.collect(),
            70..90 => self.answer_a_write(),
            90 => self.new_leader(),
            91..95 => self.report_nonsense(worker),
            _ => {}
        }
        self.drain();
        self.manager.handle_timeout(self.at(), self.wall);
        let next = self.manager.poll_timeout();
        assert!(next.is_none_or(|next| !self.at().reached(next)), "the clock was just looked at");
        self.drain();
        for (epoch, known) in self.known.iter().filter(|(_, k)| k.leader == self.leader && !k.over) {
            let late = self.now - known.injected_ms >= settings().collect_timeout.as_millis() as u64;
            assert!(known.is_collected() || !late, "{epoch} is late");
            assert!(known.missing().all(|worker| self.alive.contains(&worker)), "{epoch} waits for the dead");
        }
    }

    fn pass_time(&mut self) {
        let ms = self.dice.below(400);
        self.now += ms;
        self.wall += ms;
        if self.dice.below(200) == 0 {
            self.seen.clock_steps += 1;
            self.wall = if self.dice.percent(50) { self.wall + HOUR_MS } else { self.wall - HOUR_MS };
        }
    }

    fn join(&mut self, worker: WorkerId) {
        self.alive.insert(worker);
        self.manager.worker_joined(self.at(), worker);
        self.drain();
        let open = self.known.values().filter(|k| k.leader == self.leader && !k.over);
        assert!(open.into_iter().all(|k| k.missing().all(|w| w != worker)), "{worker} has begun anew");
    }

    fn leave(&mut self, worker: WorkerId) {
        self.alive.remove(&worker);
        self.manager.worker_left(self.at(), worker);
    }

    /// A worker reports one of the barriers that it was sent, mostly an old one.
    fn collect(&mut self) {
        let open: Vec<_> = self.known.iter().filter(|(_, k)| k.leader == self.leader && !k.over).collect();
        let Some((epoch, known)) = open.get(self.dice.below(4) as usize).or(open.first()) else { return };
        let (epoch, worker) = (**epoch, known.sent[self.dice.below(known.sent.len() as u64) as usize]);
        let refused = self.manager.collected(self.at(), worker, epoch).is_err();
        if !refused {
            self.known.get_mut(&epoch).expect("an epoch").collected.insert(worker);
        }
        self.drain();
        let over = self.known[&epoch].over;
        assert!(!refused || over || !self.alive.contains(&worker), "{worker} was sent {epoch}");
        self.seen.refused += u64::from(refused);
        let open = self.known.values().filter(|k| k.leader == self.leader && !k.over);
        let collected: Vec<_> = open.map(Known::is_collected).collect();
        let waits = collected.first() == Some(&false) && collected.contains(&true);
        self.seen.waited_for_predecessor += u64::from(waits);
    }

    fn report_nonsense(&mut self, worker: WorkerId) {
        let newest = self.known.last_key_value().map_or(Epoch::NONE, |(epoch, _)| *epoch);
        self.manager.handle_timeout(self.at(), self.wall);
        self.drain();
        let not_sent = self.known.iter().filter(|(_, k)| k.over || !k.sent.contains(&worker));
        let not_sent: Vec<_> = not_sent.map(|(epoch, _)| *epoch).collect();
        for epoch in not_sent.into_iter().rev().take(20).chain([newest.plus(1 << 40), Epoch::NONE]) {
            assert!(self.manager.collected(self.at(), worker, epoch).is_err());
        }
        assert_eq!(self.manager.poll_action(), None, "nonsense has no effect");
    }

    fn answer_a_write(&mut self) {
        let Some(write) = self.writes.pop_front() else { return };
        let done = self.dice.percent(85);
        if done {
            self.store(&write);
        }
        match (write, done) {
            (BarrierAction::Commit(barrier), true) => self.manager.commit_done(self.at(), barrier.epoch),
            (BarrierAction::Commit(barrier), false) => self.manager.commit_failed(self.at(), barrier.epoch),
            (BarrierAction::WriteCeiling(epoch), true) => self.manager.ceiling_written(epoch),
            (BarrierAction::WriteCeiling(epoch), false) => self.manager.ceiling_failed(self.at(), epoch),
            (action, _) => panic!("{action:?} is no write"),
        }
    }

    /// The leader is gone, in the middle of whatever it did. Of the writes under way any number have happened.
    fn new_leader(&mut self) {
        for write in std::mem::take(&mut self.writes) {
            if self.dice.percent(50) {
                self.store(&write);
                self.seen.committed_unheard += u64::from(matches!(write, BarrierAction::Commit(_)));
            }
        }
        self.leader += 1;
        self.seen.leaders += 1;
        self.manager = BarrierManager::load(settings(), self.stored);
        assert_eq!(
            self.manager.committed(),
            self.commits.last().copied().unwrap_or_default(),
            "none is lost"
        );
        for worker in std::mem::take(&mut self.alive) {
            if self.dice.percent(80) {
                self.join(worker);
            }
        }
    }

    // --- the store: it refuses nothing, so that the manager alone keeps the order ---

    fn store(&mut self, write: &BarrierAction) {
        match write {
            BarrierAction::Commit(barrier) => {
                let last = self.commits.last().copied().unwrap_or_default();
                assert!(barrier.epoch > last, "committed epochs grow: {} after {last}", barrier.epoch);
                self.commits.push(barrier.epoch);
                self.stored.committed = barrier.epoch;
                self.seen.committed += 1;
                self.seen.checkpoints += u64::from(barrier.checkpoint);
            }
            BarrierAction::WriteCeiling(epoch) => {
                assert!(*epoch > self.stored.ceiling, "ceilings grow");
                self.stored.ceiling = *epoch;
            }
            action => panic!("{action:?} is no write"),
        }
    }

    // --- what the manager wants, and whether it may ---

    fn drain(&mut self) {
        while let Some(action) = self.manager.poll_action() {
            self.observe(action);
        }
        let open = self.known.values().filter(|k| k.leader == self.leader && !k.over).count();
        assert!(open <= settings().in_flight_max, "{open} in flight");
        assert_eq!(open, self.manager.in_flight().len(), "each one ends by an announcement or a drop");
        match self.manager.held_back() {
            Some(HeldBack::InFlight) => {
                assert_eq!(open, settings().in_flight_max, "it waits only while there is no room");
                self.seen.held_by_in_flight += 1;
            }
            Some(HeldBack::Ceiling) => self.seen.held_by_ceiling += 1,
            None => {}
        }
    }

    fn observe(&mut self, action: BarrierAction) {
        match action {
            BarrierAction::Inject { barrier, to } => self.observe_inject(barrier, to),
            BarrierAction::Commit(barrier) => {
                let known = &self.known[&barrier.epoch];
                assert!(known.is_collected() && !known.over, "{}: {known:?}", barrier.epoch);
                let under_way = self.writes.iter().any(|w| matches!(w, BarrierAction::Commit(_)));
                assert!(!under_way, "one commit at a time");
                let older = self.known.range(..barrier.epoch).filter(|(_, k)| k.leader == self.leader);
                assert!(older.into_iter().all(|(_, k)| k.over), "{} overtakes", barrier.epoch);
                self.writes.push_back(BarrierAction::Commit(barrier));
            }
            BarrierAction::WriteCeiling(epoch) => {
                assert!(!self.alive.is_empty(), "no workers, no writes");
                assert!(!self.writes.iter().any(|w| matches!(w, BarrierAction::WriteCeiling(_))));
                self.writes.push_back(BarrierAction::WriteCeiling(epoch));
            }
            BarrierAction::Announce { barrier, .. } => {
                assert_eq!(self.commits.last(), Some(&barrier.epoch), "announced is what is committed");
                assert_eq!(self.manager.committed(), barrier.epoch);
                self.end(barrier.epoch);
            }
            BarrierAction::Dropped { barrier, why, missing } => {
                self.observe_dropped(barrier.epoch, why, &missing)
            }
            BarrierAction::SetAside { .. } | BarrierAction::TakenBack(_) => {
                panic!("{action:?}: nobody ever fails too often here")
            }
        }
    }

    fn observe_inject(&mut self, barrier: Barrier, to: Vec<WorkerId>) {
        let newest = self.known.last_key_value().map_or(Epoch::NONE, |(epoch, _)| *epoch);
        assert!(barrier.epoch > newest, "{} after {newest}, whoever injected that", barrier.epoch);
        assert!(barrier.epoch <= self.stored.ceiling, "{} above the ceiling", barrier.epoch);
        assert!(!to.is_empty() && to.iter().eq(self.alive.iter()), "to all: {to:?}, {:?}", self.alive);
        let mine = self.known.iter().rfind(|(_, k)| k.leader == self.leader);
        assert_eq!(
            barrier.previous,
            mine.map_or(Epoch::NONE, |(epoch, _)| *epoch),
            "each names the one before"
        );
        self.seen.injected += 1;
        let known = Known {
            sent: to,
            collected: BTreeSet::new(),
            injected_ms: self.now,
            leader: self.leader,
            over: false,
        };
        self.known.insert(barrier.epoch, known);
    }

    fn observe_dropped(&mut self, epoch: Epoch, why: DropReason, missing: &[WorkerId]) {
        assert!(!self.commits.contains(&epoch), "{epoch} is committed, and dropped");
        let known = &self.known[&epoch];
        assert!(known.missing().eq(missing.iter().copied()), "{epoch}: {missing:?}, {known:?}");
        match why {
            DropReason::TimedOut => self.seen.timed_out += 1,
            DropReason::WorkerLeft(worker) => {
                assert!(missing.contains(&worker));
                self.seen.worker_left += 1;
            }
            DropReason::CommitFailed => self.seen.commit_failed += 1,
        }
        self.end(epoch);
    }

    fn end(&mut self, epoch: Epoch) {
        let known = self.known.get_mut(&epoch).expect("it was injected");
        assert!(!known.over && known.leader == self.leader, "{epoch} ends once, with its own leader");
        known.over = true;
    }

    // --- the end: nothing goes wrong any more ---

    /// Workers and store behave: within ten intervals there are commits, one per interval.
    fn commits_when_all_is_well(&mut self) {
        self.join(WorkerId(1));
        let before = self.commits.len();
        let end = self.now + 20_000;
        while self.now < end {
            self.now += 10;
            self.wall += 10;
            self.manager.handle_timeout(self.at(), self.wall);
            self.drain();
            while let Some(write) = self.writes.pop_front() {
                self.store(&write);
                match write {
                    BarrierAction::Commit(barrier) => self.manager.commit_done(self.at(), barrier.epoch),
                    BarrierAction::WriteCeiling(epoch) => self.manager.ceiling_written(epoch),
                    action => panic!("{action:?} is no write"),
                }
                self.drain();
            }
            let open: Vec<_> = self.manager.in_flight().map(|f| f.barrier.epoch).collect();
            for epoch in open {
                for worker in self.known[&epoch].sent.clone() {
                    if self.manager.collected(self.at(), worker, epoch).is_ok() {
                        self.known.get_mut(&epoch).expect("an epoch").collected.insert(worker);
                    }
                    self.drain();
                }
            }
        }
        let commits = self.commits.len() - before;
        assert!((18..=25).contains(&commits), "{commits} commits in 20 intervals: {:?}", self.manager);
    }
}

#[test]
fn committed_epochs_grow_over_any_number_of_leaders() {
    let mut all = Vec::new();
    for seed in 0..400 {
        println!("seed {seed}"); // shown when it fails
        let mut world = World::new(seed);
        (0..1_000).for_each(|_| world.step());
        world.commits_when_all_is_well();
        all.push(world.seen);
    }
    type Count = fn(&Observed) -> u64;
    let counts: [(&str, Count); 13] = [
        ("injected", |s| s.injected),
        ("committed", |s| s.committed),
        ("checkpoints", |s| s.checkpoints),
        ("leaders", |s| s.leaders),
        ("clock steps", |s| s.clock_steps),
        ("dropped by time-out", |s| s.timed_out),
        ("dropped by a leaving worker", |s| s.worker_left),
        ("dropped by a failed commit", |s| s.commit_failed),
        ("committed, and the leader never heard of it", |s| s.committed_unheard),
        ("held back by back-pressure", |s| s.held_by_in_flight),
        ("held back by the ceiling", |s| s.held_by_ceiling),
        ("a commit waited for its predecessor", |s| s.waited_for_predecessor),
        ("reports refused", |s| s.refused),
    ];
    for (what, count) in counts {
        let sum: u64 = all.iter().map(count).sum();
        println!("{what}: {sum}");
        assert!(sum >= 400, "{what}: {sum} times is too rarely");
    }
}
