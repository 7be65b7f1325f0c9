//! The barrier manager, case by case. Epochs and their ceiling: `tests_epochs.rs`; random lives: `random.rs`.

use super::*;

/// A wall clock that starts here, in milliseconds.
pub(super) const WALL: u64 = 1_000_000;

pub(super) fn settings() -> BarrierSettings {
    BarrierSettings {
        interval: Duration::from_millis(1_000),
        collect_timeout: Duration::from_millis(5_000),
        checkpoint_frequency: 3,
        in_flight_max: 3,
        failures_max: u32::MAX,
    }
}

pub(super) fn at(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

pub(super) fn w(id: u64) -> WorkerId {
    WorkerId(id)
}

/// A manager whose owner carries out everything at once: ceilings are written, commits on request.
pub(super) struct Bench {
    pub(super) m: BarrierManager,
    now: u64,
    pub(super) wall: u64,
    /// Commits that wait for an answer.
    commits: VecDeque<Epoch>,
    pub(super) log: Vec<BarrierAction>,
}

impl Bench {
    pub(super) fn new(workers: &[u64]) -> Self {
        Self::with(BarrierManager::load(settings(), Persisted::default()), workers)
    }

    pub(super) fn with(m: BarrierManager, workers: &[u64]) -> Self {
        let mut b = Self { m, now: 0, wall: WALL, commits: VecDeque::new(), log: Vec::new() };
        workers.iter().for_each(|id| b.m.worker_joined(at(0), w(*id)));
        b.run();
        b
    }

    /// Carries out what is to be done.
    fn run(&mut self) {
        self.m.handle_timeout(at(self.now), self.wall);
        while let Some(action) = self.m.poll_action() {
            match &action {
                BarrierAction::WriteCeiling(epoch) => self.m.ceiling_written(*epoch),
                BarrierAction::Commit(barrier) => self.commits.push_back(barrier.epoch),
                _ => {}
            }
            self.log.push(action);
        }
    }

    /// Lets time pass, waking up when asked to.
    pub(super) fn pass(&mut self, ms: u64) {
        let until = self.now + ms;
        while let Some(next) = self.m.poll_timeout().filter(|t| at(until).reached(*t)) {
            let woken = (next.boot_ns() / 1_000_000).max(self.now);
            (self.wall, self.now) = (self.wall + (woken - self.now), woken);
            self.run();
        }
        (self.wall, self.now) = (self.wall + (until - self.now), until);
    }

    pub(super) fn collect(&mut self, workers: &[u64], epoch: Epoch) {
        workers.iter().for_each(|id| self.m.collected(at(self.now), w(*id), epoch).unwrap());
        self.run();
    }

    pub(super) fn has_commit(&self) -> bool {
        !self.commits.is_empty()
    }

    /// A worker's stream ends, and it opens another.
    pub(super) fn rejoin(&mut self, worker: u64) {
        self.m.worker_left(at(self.now), w(worker));
        self.m.worker_joined(at(self.now), w(worker));
        self.run();
    }

    /// A worker is not registered any more.
    pub(super) fn gone(&mut self, worker: u64) {
        self.m.worker_gone(at(self.now), w(worker));
        self.run();
    }

    pub(super) fn commit_done(&mut self) {
        let epoch = self.commits.pop_front().expect("a commit");
        self.m.commit_done(at(self.now), epoch);
        self.run();
    }

    pub(super) fn injected(&self) -> Vec<(Epoch, Vec<u64>)> {
        let injected = |a: &BarrierAction| match a {
            BarrierAction::Inject { barrier, to } => Some((barrier.epoch, to.iter().map(|w| w.0).collect())),
            _ => None,
        };
        self.log.iter().filter_map(injected).collect()
    }

    pub(super) fn epochs(&self) -> Vec<Epoch> {
        self.injected().into_iter().map(|(epoch, _)| epoch).collect()
    }

    pub(super) fn announced(&self) -> Vec<Epoch> {
        let announced = |a: &BarrierAction| match a {
            BarrierAction::Announce { barrier, .. } => Some(barrier.epoch),
            _ => None,
        };
        self.log.iter().filter_map(announced).collect()
    }

    pub(super) fn dropped(&self) -> Vec<(Epoch, DropReason, Vec<u64>)> {
        let dropped = |a: &BarrierAction| match a {
            BarrierAction::Dropped { barrier, why, missing } => {
                Some((barrier.epoch, *why, missing.iter().map(|w| w.0).collect()))
            }
            _ => None,
        };
        self.log.iter().filter_map(dropped).collect()
    }

    pub(super) fn ceilings(&self) -> Vec<Epoch> {
        let ceiling = |a: &BarrierAction| match a {
            BarrierAction::WriteCeiling(epoch) => Some(*epoch),
            _ => None,
        };
        self.log.iter().filter_map(ceiling).collect()
    }
}

#[test]
fn a_barrier_goes_to_all_and_is_committed_when_all_have_collected_it() {
    let mut b = Bench::new(&[2, 1]);
    b.pass(1_000);
    let epoch = Epoch::of_wall_ms(WALL + 1_000);
    assert_eq!(b.injected(), [(epoch, vec![1, 2])]);
    b.pass(100);
    b.collect(&[1], epoch);
    assert_eq!(b.commits, [], "one is missing");
    b.collect(&[2], epoch);
    assert_eq!((b.commits.clone(), b.m.committed()), (VecDeque::from([epoch]), Epoch::NONE));
    b.pass(50);
    b.commit_done();
    let latency = Duration::from_millis(150);
    let barrier = Barrier { epoch, previous: Epoch::NONE, checkpoint: true };
    assert_eq!(b.log.last(), Some(&BarrierAction::Announce { barrier, latency }));
    assert_eq!(b.m.committed(), epoch);
    assert_eq!(b.m.latencies().collect::<Vec<_>>(), [CommitLatency { epoch, latency }]);
    assert_eq!(b.m.in_flight().len(), 0);
}

#[test]
fn without_workers_there_are_no_barriers_and_no_writes() {
    let mut b = Bench::new(&[]);
    b.pass(100_000);
    assert_eq!((b.log.clone(), b.m.poll_timeout()), (vec![], None));
    b.m.worker_joined(at(b.now), w(1));
    b.run();
    b.m.worker_left(at(b.now), w(1));
    b.run();
    let written = b.log.len();
    b.pass(100_000);
    assert_eq!((b.log.len(), b.m.poll_timeout()), (written, None));
}

#[test]
fn commits_are_in_the_order_of_epochs() {
    let mut b = Bench::new(&[1, 2]);
    b.pass(3_000);
    let [a, c, d] = b.epochs()[..] else { panic!("{:?}", b.log) };
    b.collect(&[1, 2], c);
    b.collect(&[1, 2], d);
    assert_eq!(b.commits, [], "the oldest is not collected");
    b.collect(&[2, 1], a);
    assert_eq!(b.commits, [a], "one at a time");
    for _ in 0..3 {
        b.commit_done();
    }
    assert_eq!(b.announced(), [a, c, d]);
}

#[test]
fn a_late_worker_fails_the_barrier_and_the_next_go_on() {
    let mut b = Bench::new(&[1, 2, 3]);
    b.pass(2_000);
    let [first, second] = b.epochs()[..] else { panic!("{:?}", b.log) };
    b.collect(&[2], first);
    b.collect(&[1, 2, 3], second);
    b.pass(3_999);
    assert_eq!(b.dropped(), []);
    b.pass(1);
    assert_eq!(b.dropped(), [(first, DropReason::TimedOut, vec![1, 3])]);
    assert_eq!(b.commits, [second], "it waited for its predecessor only");
    assert_eq!(b.m.collected(at(b.now), w(1), first), Err(CollectError::Finished(first)));
}

#[test]
fn a_report_that_comes_after_the_deadline_is_late_whatever_woke_us() {
    let mut b = Bench::new(&[1]);
    b.pass(1_000);
    let epoch = b.epochs()[0];
    assert_eq!(b.m.collected(at(6_000), w(1), epoch), Err(CollectError::Finished(epoch)));
    b.run();
    assert_eq!(b.dropped(), [(epoch, DropReason::TimedOut, vec![1])]);
}

#[test]
fn a_worker_that_leaves_fails_what_it_has_not_collected() {
    let mut b = Bench::new(&[1, 2]);
    b.pass(3_000);
    let [a, c, d] = b.epochs()[..] else { panic!("{:?}", b.log) };
    b.collect(&[1], a);
    b.collect(&[2], c);
    b.collect(&[1, 2], d);
    b.m.worker_left(at(b.now), w(1));
    b.run();
    assert_eq!(b.dropped(), [(c, DropReason::WorkerLeft(w(1)), vec![1])]);
    b.collect(&[2], a);
    b.commit_done();
    b.commit_done();
    assert_eq!(b.announced(), [a, d], "what it had collected is the other's to complete");
    b.pass(1_000);
    assert_eq!(b.injected().last().unwrap().1, [2]);
    assert_eq!(b.m.collected(at(b.now), w(1), d), Err(CollectError::UnknownWorker(w(1))));
    b.m.worker_left(at(b.now), w(1)); // again: no-op
    assert_eq!(b.m.poll_action(), None);
}

#[test]
fn a_worker_takes_part_from_the_next_barrier_on() {
    let mut b = Bench::new(&[1]);
    b.pass(1_000);
    b.m.worker_joined(at(b.now), w(2));
    let first = b.epochs()[0];
    let not_sent = Err(CollectError::NotSent { worker: w(2), epoch: first });
    assert_eq!(b.m.collected(at(b.now), w(2), first), not_sent);
    b.collect(&[1], first);
    b.commit_done();
    b.pass(1_000);
    assert_eq!(b.injected()[1].1, [1, 2]);
}

#[test]
fn a_worker_that_joins_again_has_lost_what_it_was_sent() {
    let mut b = Bench::new(&[1, 2]);
    b.pass(2_000);
    let [first, second] = b.epochs()[..] else { panic!("{:?}", b.log) };
    b.collect(&[1], first);
    b.m.worker_joined(at(b.now), w(1));
    b.run();
    assert_eq!(b.dropped(), [(second, DropReason::WorkerLeft(w(1)), vec![1, 2])]);
    b.pass(1_000);
    assert_eq!(b.injected()[2].1, [1, 2]);
}

#[test]
fn a_report_without_cause_is_refused_and_says_why() {
    let mut b = Bench::new(&[1, 2]);
    b.pass(1_000);
    let epoch = b.epochs()[0];
    b.collect(&[1, 1], epoch); // twice is no error
    let next = epoch.plus(1);
    for (worker, epoch, error) in [
        (3, epoch, CollectError::UnknownWorker(w(3))),
        (1, next, CollectError::UnknownEpoch(next)),
        (1, Epoch::NONE, CollectError::Finished(Epoch::NONE)),
        (1, Epoch::of_wall_ms(1), CollectError::Finished(Epoch::of_wall_ms(1))),
    ] {
        assert_eq!(b.m.collected(at(b.now), w(worker), epoch), Err(error), "{error}");
    }
    assert_eq!((b.commits.len(), b.m.in_flight().next().unwrap().missing), (0, 1));
    assert_eq!(Epoch::new(1 << 63), None, "no such epoch, and no panic");
}

#[test]
fn when_as_many_as_may_be_are_in_flight_the_next_one_waits_and_nothing_is_made_up_for() {
    let mut b = Bench::new(&[1]);
    b.pass(4_700);
    let epochs = b.epochs();
    assert_eq!((epochs.len(), b.m.in_flight().len()), (3, 3));
    assert_eq!(b.m.held_back(), Some(HeldBack::InFlight));
    b.collect(&[1], epochs[0]);
    assert_eq!(b.epochs().len(), 3, "it is not committed yet");
    b.commit_done();
    assert_eq!(b.epochs().len(), 4, "there is room: at once");
    assert_eq!(b.epochs()[3], Epoch::of_wall_ms(WALL + 4_700));
    b.collect(&[1], epochs[1]);
    b.commit_done();
    b.pass(999);
    assert_eq!(b.epochs().len(), 4);
    b.pass(1);
    assert_eq!(b.epochs().len(), 5, "a new beat begins at the late one");
}

#[test]
fn a_little_lateness_does_not_shift_the_beat() {
    let mut b = Bench::new(&[1]);
    for late in [0, 3, 499, 0] {
        b.pass(1_000 - b.now % 1_000 - 1);
        let beat = b.now + 1;
        assert_eq!(b.m.poll_timeout(), Some(at(beat)));
        (b.now, b.wall) = (beat + late, b.wall + 1 + late);
        b.run();
        let epoch = *b.epochs().last().unwrap();
        b.collect(&[1], epoch);
        b.commit_done();
    }
    assert_eq!(b.epochs().len(), 4);
}

#[test]
fn a_commit_that_is_not_written_drops_its_barrier() {
    let mut b = Bench::new(&[1]);
    b.pass(2_000);
    let [first, second] = b.epochs()[..] else { panic!("{:?}", b.log) };
    b.collect(&[1], second);
    b.collect(&[1], first);
    b.m.commit_failed(at(b.now), second); // not asked for yet: no-op
    b.m.commit_failed(at(b.now), b.commits[0]);
    b.commits.clear();
    b.run();
    assert_eq!(b.dropped(), [(first, DropReason::CommitFailed, vec![])]);
    b.m.commit_done(at(b.now), first); // contradicts itself: no-op
    assert_eq!((b.m.committed(), b.commits.clone()), (Epoch::NONE, VecDeque::from([second])));
    b.commit_done();
    assert_eq!(b.announced(), [second]);
}

#[test]
fn a_barrier_that_is_being_committed_does_not_time_out() {
    let mut b = Bench::new(&[1]);
    b.pass(1_000);
    b.collect(&[1], b.epochs()[0]);
    b.pass(60_000);
    b.m.worker_left(at(b.now), w(1));
    b.commit_done();
    assert_eq!(b.announced(), [b.epochs()[0]]);
}

#[test]
fn latencies_are_kept_within_a_bound() {
    let mut b = Bench::new(&[1]);
    for _ in 0..LATENCIES_MAX + 7 {
        b.pass(1_000);
        b.collect(&[1], *b.epochs().last().unwrap());
        b.commit_done();
    }
    assert_eq!(b.m.latencies().len(), LATENCIES_MAX);
    assert_eq!(b.m.latencies().last().unwrap().epoch, b.m.committed());
}
