//! An exhaustive exploration of small worlds: every order in which things can happen there, not a sample of them.
//!
//! What is explored is the real code, not a copy: two real electors, the real join machine, the real transactions,
//! on the real store in memory. The model adds what surrounds them: requests under way, disks, time, guardians, main
//! loops, and the driver's few lines between them. Where the simulation draws long lives at random, this visits each
//! state of short ones.
//!
//! # What a step is
//!
//! A request arrives; its answer arrives; its sender takes it for lost, and it arrives later, or never; the watch
//! shows one more watched; a member is scheduled; a tick passes; a process or its guardian dies; a supervisor starts
//! the next process; the guardian kills, or revokes; somebody asks a leader to stop; a main loop writes, or ends.
//! Nothing is forced but fuse, guardian's kill and the end of a lease, when their time has come. So whoever is not
//! scheduled stalls, for as long as one likes.
//!
//! # What was made smaller
//!
//! - Time comes in ticks of 1.45 s with leases of 3 s: S falls between the second tick and H, H and the end of the
//!   lease before the third. All members and the store share one clock; drift is the simulation's business.
//! - A read is answered at once, and so is a renewal where renewals are not the subject. A read can only become stale
//!   in the watch's way, and the watch is as late as one likes. An answer lost is as good as a member that is not
//!   scheduled.
//! - Requests of a sort that is not the subject are one step from their sending to their answer. They may be late.
//! - A member has one renewal under way at most, and no second copy of an identical request.
//! - A started main loop begins at once. A guardian that died is not replaced.
//!
//! States are told apart by a fingerprint of 64 bits. With `-- --nocapture` the tests print
//! the numbers.

mod configurations;
mod driving;
mod explore;
mod facts;
mod joining;
mod network;
mod properties;
mod scenario;
mod time;
mod world;

use std::time::Instant;

use configurations::{
    CLAIMS, HAND_OVER, LATE_CLAIMS, LATE_GUARDIAN, LEADER_COMES_BACK, NO_GUARDIAN_LEFT, PROGRAM, RECLAIM,
    RECLAIM_OR_EXPIRY, REGISTRATION, RENEWALS, SUCCESSOR_CRASHES,
};
use explore::Explored;
use facts::Fact;
use properties::{
    BELIEF_ENDS_FIRST, FRESH_WRITES, GIVEN_UP_LAST, ONE_MAIN_LOOP, REGISTRATIONS_STAY, TOKENS_GROW,
};
use scenario::{Mutant, Scenario};

/// Explores a configuration to its end: every property holds in every state, and every twin was reached.
#[track_caller]
fn holds(plan: Scenario) {
    let (name, twins, began) = (plan.name, plan.twins, Instant::now());
    let outcome = Explored::new(plan).explore();
    println!(
        "{name}: {} states, depth {}, {:.1} s; reached {:?}",
        outcome.states,
        outcome.depth,
        began.elapsed().as_secs_f64(),
        outcome.facts.all()
    );
    for (property, steps) in &outcome.violated {
        println!("{name} violates {property:?} after {} steps: {steps:?}", steps.len());
    }
    assert!(outcome.violated.is_empty(), "{name}: see above");
    let missed: Vec<&Fact> = twins.iter().filter(|f| !outcome.facts.has(**f)).collect();
    assert!(missed.is_empty(), "{name}: never reached: {missed:?}");
}

/// Looks for a way to violate a property, shortest ways first, and must find one.
#[track_caller]
fn breaks(plan: Scenario, property: &'static str) {
    let (name, mutant) = (plan.name, plan.mutant);
    let outcome = Explored::new(plan).look_for(property);
    let found = outcome.violated.iter().find(|(p, _)| *p == property);
    let Some((_, steps)) = found else { panic!("{name}, {mutant:?}: {property:?} holds") };
    println!("{name}, {mutant:?}: violates {property:?} after {} steps: {steps:?}", steps.len());
}

#[test]
fn renewals() {
    holds(RENEWALS);
}

#[test]
fn claims() {
    holds(CLAIMS);
    holds(LATE_CLAIMS);
}

#[test]
fn reclaims() {
    holds(RECLAIM);
    holds(RECLAIM_OR_EXPIRY);
}

#[test]
fn registrations() {
    holds(REGISTRATION);
}

#[test]
fn guardians() {
    holds(LATE_GUARDIAN);
    holds(PROGRAM);
    holds(NO_GUARDIAN_LEFT);
}

#[test]
fn hand_overs() {
    holds(HAND_OVER);
    holds(SUCCESSOR_CRASHES);
    holds(LEADER_COMES_BACK);
}

/// Each rule that is broken is noticed.
#[test]
fn mutants_are_found() {
    let mutants = [
        (Mutant::DeadlineFromReceipt, RENEWALS, ONE_MAIN_LOOP),
        (Mutant::DeadlineFromReceipt, RENEWALS, BELIEF_ENDS_FIRST),
        (Mutant::UnfencedWrite, RENEWALS, FRESH_WRITES),
        (Mutant::AdoptedLease, LATE_GUARDIAN, ONE_MAIN_LOOP),
        (Mutant::RevokeBeforeKill, PROGRAM, ONE_MAIN_LOOP),
        (Mutant::LockGoesWithProcess, PROGRAM, ONE_MAIN_LOOP),
        (Mutant::UncomparedRegistration, REGISTRATION, REGISTRATIONS_STAY),
        (Mutant::ResumeAfterHandOver, HAND_OVER, ONE_MAIN_LOOP),
        (Mutant::GivenUpWhileRunning, HAND_OVER, ONE_MAIN_LOOP),
        (Mutant::GivenUpWhileRunning, HAND_OVER, GIVEN_UP_LAST),
        (Mutant::OldTokenAgain, HAND_OVER, ONE_MAIN_LOOP),
        (Mutant::OldTokenAgain, HAND_OVER, TOKENS_GROW),
    ];
    for (mutant, plan, property) in mutants {
        breaks(Scenario { mutant, ..plan }, property);
    }
}
