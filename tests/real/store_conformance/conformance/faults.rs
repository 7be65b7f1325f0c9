//! `Unreliable` held to its own promises: what was lost before did not happen, what was lost after did.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use metad::clock::SimClock;
use metad::election::lease::LeaseId;
use metad::election::record::Revision;
use metad::store::memory::MemoryStore;
use metad::store::unreliable::{Faults, Unreliable};
use metad::store::{Guard, KeyRange, Op, Request, Response, Store, StoreError, Txn};

use super::suite::txn_at;

/// How many requests are made; with a fault of 30 % each, that one never comes has a chance of 10⁻³¹.
const REQUESTS: usize = 200;
const SEED: u64 = 7;
const TTL: Duration = Duration::from_secs(10);

/// What became of a request, and what its caller was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fate {
    happened: bool,
    told: bool,
}

const GOOD: Fate = Fate { happened: true, told: true };
const LOST_BEFORE: Fate = Fate { happened: false, told: false };
const LOST_AFTER: Fate = Fate { happened: true, told: false };

fn faults(lost_before: u64, lost_after: u64) -> Faults {
    Faults { lost_before, lost_after, ..Faults::default() }
}

fn memory() -> (MemoryStore, SimClock) {
    let clock = SimClock::default();
    (MemoryStore::new(Arc::new(clock.clone())), clock)
}

fn put(i: usize) -> Txn {
    let key = format!("/k/{i}");
    Txn {
        guards: vec![Guard::ModRevision(key.clone(), Revision(0))],
        then: vec![Op::Put(key, b"v".to_vec(), None)],
        otherwise: vec![],
    }
}

/// Writes through an unreliable store, and looks at the store behind it.
async fn fates_of_writes(faults: Faults, seed: u64) -> Vec<Fate> {
    let (store, _) = memory();
    let unreliable = Unreliable::new(store.clone(), faults, seed);
    let mut fates = Vec::new();
    for i in 0..REQUESTS {
        let told = match unreliable.call(Request::Txn(put(i))).await {
            Ok(Response::Txn(reply)) => reply.succeeded,
            Err(StoreError::Unknown(_)) => false,
            other => panic!("an outcome is told or unknown: {other:?}"),
        };
        let read = txn_at(&store, Txn::read(vec![Op::Get(format!("/k/{i}"))])).await;
        fates.push(Fate { happened: !read.found[0].is_empty(), told });
    }
    fates
}

/// Renews through an unreliable store, and looks at the lease behind it.
async fn fates_of_renewals(faults: Faults, seed: u64) -> Vec<Fate> {
    let (store, clock) = memory();
    let unreliable = Unreliable::new(store.clone(), faults, seed);
    let mut fates = Vec::new();
    for i in 0..REQUESTS {
        let lease = LeaseId(i64::try_from(i).expect("small") + 1);
        let granted = store.call(Request::Grant { lease, ttl: TTL }).await;
        granted.expect("a new lease");
        clock.advance(TTL / 2);
        let answers: Vec<_> = unreliable.renew(lease).collect().await;
        let told = !answers.is_empty();
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        clock.advance(TTL / 2); // now it lives only if it was renewed
        let alive: Vec<_> = store.renew(lease).collect().await;
        let happened = alive.iter().any(|a| a.as_ref().is_ok_and(|r| r.ttl.is_some()));
        fates.push(Fate { happened, told });
    }
    fates
}

fn assert_fates(what: &str, fates: &[Fate], expected: &[Fate]) {
    for fate in expected {
        assert!(fates.contains(fate), "{what}: {fate:?} never came");
    }
    let strange = fates.iter().find(|fate| !expected.contains(fate));
    assert_eq!(strange, None, "{what}: expected are {expected:?}");
}

#[tokio::test]
async fn a_request_that_was_lost_before_did_not_happen() {
    let faults = faults(30, 0);
    assert_fates("writes", &fates_of_writes(faults, SEED).await, &[GOOD, LOST_BEFORE]);
    assert_fates("renewals", &fates_of_renewals(faults, SEED).await, &[GOOD, LOST_BEFORE]);
}

#[tokio::test]
async fn a_request_that_was_lost_after_happened_and_the_caller_does_not_know() {
    let faults = faults(0, 30);
    assert_fates("writes", &fates_of_writes(faults, SEED).await, &[GOOD, LOST_AFTER]);
    assert_fates("renewals", &fates_of_renewals(faults, SEED).await, &[GOOD, LOST_AFTER]);
}

#[tokio::test]
async fn both_losses_come_and_nothing_else() {
    let all = [GOOD, LOST_BEFORE, LOST_AFTER];
    assert_fates("writes", &fates_of_writes(faults(30, 30), SEED).await, &all);
    assert_fates("renewals", &fates_of_renewals(faults(30, 30), SEED).await, &all);
}

#[tokio::test]
async fn without_faults_nothing_is_lost() {
    assert_fates("writes", &fates_of_writes(faults(0, 0), SEED).await, &[GOOD]);
    assert_fates("renewals", &fates_of_renewals(faults(0, 0), SEED).await, &[GOOD]);
}

#[tokio::test]
async fn the_same_seed_gives_the_same_faults_and_another_gives_others() {
    let first = fates_of_writes(faults(30, 30), SEED).await;
    assert_eq!(first, fates_of_writes(faults(30, 30), SEED).await);
    assert_ne!(first, fates_of_writes(faults(30, 30), SEED + 1).await);
}

#[tokio::test]
async fn a_guarded_write_with_an_unknown_outcome_is_settled_by_repeating_it() {
    let (store, _) = memory();
    let unreliable = Unreliable::new(store.clone(), faults(40, 40), SEED);
    for i in 0..REQUESTS {
        while unreliable.call(Request::Txn(put(i))).await.is_err() {}
    }
    let found = txn_at(&store, Txn::read(vec![Op::List("/k/".into())])).await;
    assert_eq!(found.found[0].len(), REQUESTS);
    let revisions = found.header.revision;
    assert_eq!(revisions, Revision(REQUESTS as u64), "each was written once");
}

#[tokio::test]
async fn a_slow_request_takes_longer() {
    let (store, _) = memory();
    let slow_by = Duration::from_millis(40);
    let faults = Faults { slow: 50, slow_by, ..Faults::default() };
    let unreliable = Unreliable::new(store, faults, SEED);
    let mut took = Vec::new();
    for i in 0..20 {
        let begin = tokio::time::Instant::now();
        unreliable.call(Request::Txn(put(i))).await.expect("slow, and not lost");
        took.push(begin.elapsed());
    }
    assert!(took.iter().any(|t| *t >= slow_by), "none was slow");
    assert!(took.iter().any(|t| *t < slow_by), "none was fast");
}

#[tokio::test]
async fn a_silent_watch_shows_nothing_for_ever_and_a_good_one_does() {
    for (silent_watch, is_silent) in [(100, true), (0, false)] {
        let (store, _) = memory();
        let faults = Faults { silent_watch, ..Faults::default() };
        let unreliable = Unreliable::new(store.clone(), faults, SEED);
        txn_at(&store, put(1)).await;
        let range = KeyRange::prefix("/k/");
        let opened = unreliable.watch(range, Revision(0), TTL / 100).await;
        let mut batches = opened.unwrap_or_else(|e| panic!("{e}"));
        let first = tokio::time::timeout(Duration::from_secs(1), batches.next()).await;
        assert_eq!(first.is_err(), is_silent, "{first:?}");
    }
}
