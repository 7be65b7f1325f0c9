//! How barriers are numbered, and that they stay below the ceiling.

use super::tests::{Bench, WALL, at, settings, w};
use super::*;

#[test]
fn every_third_barrier_is_a_checkpoint_beginning_with_the_first() {
    let mut b = Bench::new(&[1]);
    for _ in 0..7 {
        b.pass(1_000);
        let epoch = *b.epochs().last().unwrap();
        b.collect(&[1], epoch);
        b.commit_done();
    }
    let of = |wanted: fn(&BarrierAction) -> Option<bool>| b.log.iter().filter_map(wanted).collect::<Vec<_>>();
    let expected = [true, false, false, true, false, false, true];
    assert_eq!(
        of(|a| if let BarrierAction::Inject { barrier, .. } = a { Some(barrier.checkpoint) } else { None }),
        expected
    );
    assert_eq!(
        of(|a| if let BarrierAction::Commit(barrier) = a { Some(barrier.checkpoint) } else { None }),
        expected
    );
    assert_eq!(
        of(|a| if let BarrierAction::Announce { barrier, .. } = a { Some(barrier.checkpoint) } else { None }),
        expected
    );
}

#[test]
fn epochs_are_wall_time_but_grow_when_it_does_not() {
    let mut b = Bench::new(&[1]);
    b.pass(1_000);
    let first = Epoch::of_wall_ms(WALL + 1_000);
    assert_eq!((first.get(), first.wall_ms()), ((WALL + 1_000) << 16, WALL + 1_000));
    b.wall -= 3_600_000_u64.min(b.wall);
    b.pass(1_000);
    assert_eq!(b.epochs(), [first, first.plus(1)]);
    b.wall = u64::MAX - 100_000;
    b.pass(1_000);
    assert_eq!(b.epochs()[2], Epoch::of_wall_ms(u64::MAX));
    assert_eq!(b.m.held_back(), None, "the third one waited for its ceiling, and has it");
    b.collect(&[1], first);
    b.commit_done();
    b.wall = 0;
    b.pass(1_000);
    assert_eq!(b.epochs()[3], Epoch::of_wall_ms(u64::MAX).plus(1), "there is always a next one");
}

#[test]
fn the_ceiling_is_written_when_the_first_worker_joins_and_raised_ahead_of_time() {
    let mut b = Bench::new(&[1]);
    assert_eq!(b.ceilings(), [Epoch::of_wall_ms(WALL + 60_000)], "before the first barrier is due");
    for second in 1..=120 {
        b.pass(1_000);
        let epoch = *b.epochs().last().unwrap();
        assert_eq!(b.epochs().len(), second, "none had to wait");
        b.collect(&[1], epoch);
        b.commit_done();
    }
    assert!(b.ceilings().len() <= 5, "one write for half a minute: {:?}", b.ceilings());
    assert!(b.ceilings().windows(2).all(|pair| pair[0] < pair[1]));
}

#[test]
fn no_barrier_before_its_ceiling_is_written() {
    let mut m = BarrierManager::load(settings(), Persisted::default());
    m.worker_joined(at(0), w(1));
    assert_eq!(m.poll_timeout(), Some(at(0)), "not only when the first barrier is due");
    m.handle_timeout(at(0), WALL);
    let ceiling = Epoch::of_wall_ms(WALL + 60_000);
    assert_eq!(m.poll_action(), Some(BarrierAction::WriteCeiling(ceiling)));
    m.handle_timeout(at(1_000), WALL + 1_000);
    assert_eq!((m.poll_action(), m.held_back()), (None, Some(HeldBack::Ceiling)));
    assert_eq!(m.poll_timeout(), None, "the clock alone changes nothing");
    m.ceiling_failed(at(1_100), ceiling);
    assert_eq!(m.poll_timeout(), Some(at(1_350)), "a pause");
    m.handle_timeout(at(1_349), WALL + 1_349);
    assert_eq!(m.poll_action(), None);
    m.handle_timeout(at(1_350), WALL + 1_350);
    let ceiling = Epoch::of_wall_ms(WALL + 61_350);
    assert_eq!((m.poll_action(), m.poll_action()), (Some(BarrierAction::WriteCeiling(ceiling)), None));
    m.ceiling_written(ceiling.plus(1)); // another one than was asked for: no-op
    m.handle_timeout(at(1_400), WALL + 1_400);
    assert_eq!((m.poll_action(), m.ceiling()), (None, Epoch::NONE));
    m.ceiling_written(ceiling);
    assert_eq!(m.poll_timeout(), Some(at(1_000)), "it is due");
    m.handle_timeout(at(1_400), WALL + 1_400);
    assert!(matches!(m.poll_action(), Some(BarrierAction::Inject { .. })));
    assert_eq!(m.poll_timeout(), Some(at(2_000)), "the beat goes on");
}

#[test]
fn a_new_leader_starts_above_the_ceiling_and_gets_no_further_ahead_than_needed() {
    let mut persisted = Persisted::default();
    for tenure in 0..50 {
        let mut b = Bench::with(BarrierManager::load(settings(), persisted), &[1]);
        b.pass(1_000);
        let first = b.epochs()[0];
        assert!(first > persisted.ceiling, "tenure {tenure}");
        assert_eq!(b.m.committed(), persisted.committed);
        b.collect(&[1], first);
        b.commit_done();
        persisted = Persisted { committed: b.m.committed(), ceiling: b.m.ceiling() };
    }
    let ahead = persisted.ceiling.wall_ms() - WALL;
    assert!(ahead < 62_000, "50 leaders in one second of wall time are {ahead} ms ahead");
}
