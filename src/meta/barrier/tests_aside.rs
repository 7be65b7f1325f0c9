//! Workers that make barrier after barrier fail: set aside, and taken back.

use super::tests::{Bench, settings, w};
use super::*;

const FAILURES_MAX: u32 = 3;

fn bench(workers: &[u64]) -> Bench {
    let settings = BarrierSettings { failures_max: FAILURES_MAX, in_flight_max: 10, ..settings() };
    Bench::with(BarrierManager::load(settings, Persisted::default()), workers)
}

fn set_aside(b: &Bench) -> Vec<(u64, u32)> {
    let of = |a: &BarrierAction| match a {
        BarrierAction::SetAside { worker, failures } => Some((worker.0, *failures)),
        _ => None,
    };
    b.log.iter().filter_map(of).collect()
}

/// For so many seconds, these collect everything at once.
fn go_on(b: &mut Bench, seconds: u64, workers: &[u64]) {
    for _ in 0..seconds {
        let before = b.epochs().len();
        b.pass(1_000);
        for epoch in b.epochs().split_off(before) {
            b.collect(workers, epoch);
        }
        while b.has_commit() {
            b.commit_done();
        }
    }
}

#[test]
fn a_worker_that_never_reports_is_set_aside_and_commits_go_on() {
    let mut b = bench(&[1, 2]);
    go_on(&mut b, 20, &[1]);
    assert_eq!(set_aside(&b), [(2, FAILURES_MAX)]);
    assert_eq!(b.dropped().len(), FAILURES_MAX as usize, "and no barrier more: {:?}", b.dropped());
    assert!(b.announced().len() >= 10, "{:?}", b.announced());
    assert!(b.injected().iter().all(|(_, to)| to == &[1, 2]), "it still gets each barrier");
    assert_eq!(b.m.set_aside().iter().copied().collect::<Vec<_>>(), [w(2)]);
}

#[test]
fn it_takes_part_again_once_it_has_collected_one_in_time() {
    let mut b = bench(&[1, 2]);
    go_on(&mut b, 20, &[1]);
    go_on(&mut b, 1, &[1, 2]);
    assert!(b.log.contains(&BarrierAction::TakenBack(w(2))));
    let announced = b.announced().len();
    go_on(&mut b, 4, &[1]);
    assert_eq!(b.announced().len(), announced, "it is waited for again");
    go_on(&mut b, 10, &[1, 2]);
    assert!(b.announced().len() > announced && b.m.set_aside().is_empty());
}

#[test]
fn one_that_leaves_and_comes_back_all_the_time_is_set_aside_too() {
    let mut b = bench(&[1, 2]);
    for _ in 0..FAILURES_MAX {
        b.pass(1_000);
        b.rejoin(2);
    }
    assert_eq!(set_aside(&b), [(2, FAILURES_MAX)]);
    let dropped = b.dropped().len();
    go_on(&mut b, 5, &[1]);
    b.rejoin(2);
    go_on(&mut b, 5, &[1]);
    assert_eq!(b.dropped().len(), dropped, "it stops nobody any more");
}

#[test]
fn where_all_are_set_aside_nothing_is_committed_that_nobody_has_collected() {
    let mut b = bench(&[1, 2]);
    go_on(&mut b, 30, &[]);
    assert_eq!(set_aside(&b).len(), 2);
    assert_eq!(b.announced(), []);
    go_on(&mut b, 10, &[1]);
    assert!(!b.announced().is_empty(), "the first that reports is enough");
    assert_eq!(b.m.set_aside().iter().copied().collect::<Vec<_>>(), [w(2)]);
}

#[test]
fn what_a_worker_failed_at_is_forgotten_with_it() {
    let mut b = bench(&[1, 2]);
    go_on(&mut b, 20, &[1]);
    b.gone(2);
    assert!(b.m.set_aside().is_empty());
}
