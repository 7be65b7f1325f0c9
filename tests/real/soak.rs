//! Random faults, one after the other, on three nodes and three etcd members, while twenty workers collect barriers;
//! `make soak MINUTES=30`.
//!
//! After each fault somebody must lead and all nodes must be there, the history of all main loops so far must hold,
//! and a leader that the fault gave no reason to lose its seat must still have it. At the end etcd's own history is
//! checked for writes under old tokens, and for epochs that were lost, repeated or overtaken on the way to a worker. What was done, and what it came to, is printed.

mod epochs;
mod fault;
mod group;
mod workers;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::support::fenced;
use fault::{Fault, Hit};
use group::Group;
use workers::{WORKERS, Workers};

/// How long a plain `cargo test` soaks.
const SOAK: Duration = Duration::from_secs(40);
const LEASE_SECS: u64 = 5;

/// What a soak came to.
#[derive(Default)]
struct Tally {
    faults: BTreeMap<&'static str, Row>,
    needless: u32,
    /// Tenures that ended because etcd's hung leader woke up and revoked live leases (etcd-io/etcd#15247).
    revoked_by_etcd: u32,
}

#[derive(Default)]
struct Row {
    times: u32,
    changes: usize,
    longest_gap: Duration,
}

fn soak_for() -> Duration {
    let minutes = std::env::var("METAD_SOAK_MINUTES").ok().and_then(|m| m.parse::<f64>().ok());
    minutes.map_or(SOAK, |m| Duration::from_secs_f64(m * 60.0))
}

fn seed() -> u64 {
    let told = std::env::var("METAD_SOAK_SEED").ok().and_then(|s| s.parse().ok());
    told.unwrap_or_else(|| u64::from(std::process::id()))
}

#[test]
fn random_faults_make_no_second_leader_no_stale_write_and_no_needless_loss() {
    let (began, mut dice) = (Instant::now(), fault::Dice::new(seed()));
    let mut group = Group::start(LEASE_SECS);
    let workers = Workers::start(group.addresses());
    let mut tally = Tally::default();
    while began.elapsed() < soak_for() {
        let fault = Fault::draw(&mut dice);
        let before = group.tenures().len();
        let hit = fault.play(&mut group, &mut dice);
        group.settle(fault.name());
        workers.told_addresses(group.addresses());
        judge(&group, &fault, hit, before, &mut tally);
        std::thread::sleep(Duration::from_millis(500 + dice.below(4_000)));
    }
    let tenures = group.tenures();
    workers.wait_until_all_follow(tenures.last().expect("somebody leads").token);
    let seen = workers.seen(); // before the history is read, which then has all of it
    let writes = fenced::check(group.etcd(), "default", &tenures).unwrap_or_else(|e| panic!("{e}"));
    assert!(writes.fenced > 0, "no main loop has written anything");
    let epochs = epochs::check(&seen, &writes).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(epochs.workers, WORKERS, "each of them saw commits");
    println!(
        "etcd {}, seed {}, {:.1} minutes",
        group.etcd().version(),
        seed(),
        began.elapsed().as_secs_f64() / 60.0
    );
    tally.print();
    println!("tenures {}, fenced writes {}", tenures.len(), writes.fenced);
    println!("{epochs:?}");
    println!("needless losses {}", tally.needless);
    assert_eq!(tally.needless, 0);
}

/// Has etcd itself revoked the lease? The leader sees its record go, or, on an etcd that revokes all leases when its old
/// leader wakes (fixed in 3.4.31), is refused a write by then.
fn was_revoked(group: &Group, reason: &str) -> bool {
    reason == "record_deleted" || (reason == "fenced" && !group.etcd().is_at_least(3, 5))
}

/// Counts what a fault came to. A change of leader that it gave no reason for is a needless loss.
fn judge(group: &Group, fault: &Fault, hit: Hit, before: usize, tally: &mut Tally) {
    let tenures = group.tenures();
    let changes = tenures.len() - before;
    let row = tally.faults.entry(fault.name()).or_default();
    row.times += 1;
    row.changes += changes;
    for pair in tenures[before.saturating_sub(1)..].windows(2) {
        let end = pair[0].end_ns.unwrap_or(pair[1].start_ns);
        row.longest_gap = row.longest_gap.max(Duration::from_nanos(pair[1].start_ns.saturating_sub(end)));
    }
    match hit {
        Hit::MayCostLeadership => {}
        Hit::Harmless if changes == 0 => {}
        Hit::WakesRaftLeader if changes == 0 => {}
        Hit::WakesRaftLeader if was_revoked(group, &group.reason(&tenures[before - 1])) => {
            tally.revoked_by_etcd += 1;
        }
        Hit::Harmless | Hit::WakesRaftLeader => {
            println!("needless: {} after {}", group.report(), fault.name());
            tally.needless += 1;
        }
    }
}

// === impl Tally ===

impl Tally {
    fn print(&self) {
        println!("{:<44} {:>6} {:>8} {:>14}", "fault", "times", "changes", "longest gap");
        for (name, row) in &self.faults {
            let gap = format!("{:.3} s", row.longest_gap.as_secs_f64());
            println!("{name:<44} {:>6} {:>8} {gap:>14}", row.times, row.changes);
        }
        let faults: u32 = self.faults.values().map(|r| r.times).sum();
        let changes: usize = self.faults.values().map(|r| r.changes).sum();
        println!(
            "faults {faults}, fail-overs {changes}, leases revoked by a waking etcd leader {}",
            self.revoked_by_etcd
        );
    }
}
