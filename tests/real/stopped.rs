//! Processes that are stopped (`kill -STOP`, a debugger, a freezer), on real processes: whichever of them stand still, two
//! programs never run at once, because the kernel's own timers end what a lease no longer covers.
//!
//! `METAD_STOPPED_ROUNDS` says how often each is done (2), at a random moment of the lease each time.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::support::crew::{between, setting};
use crate::support::etcd::EtcdCluster;
use crate::support::family::{Families, PROGRAM, live};
use crate::support::node::{Node, NodeBuilder, Signal};
use crate::support::poll::{boot_ns, holds_within, wait_until};
use crate::support::spawn;

/// Starting processes and etcd on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const LEASE: Duration = Duration::from_secs(5);
const DAY_SECS: u64 = 86_400;
/// How many rounds run side by side.
const SIDE_BY_SIDE: u64 = 3;

#[test]
#[ignore = "a program that the other tests run, not a test"]
fn program_that_lives() {
    live();
}

/// A leader and a follower with a program each.
struct Pair {
    families: Families,
    leader: Node,
    guardian: u32,
    program: u32,
    next: NodeBuilder,
    follower: Node,
}

impl Pair {
    fn start(etcd: &EtcdCluster, cluster: &str, lease_secs: u64) -> Self {
        let families = Families::new();
        let node = |id| {
            let node = NodeBuilder::new(id).etcd(etcd).cluster(cluster).lease_secs(lease_secs);
            let node = node.env("METAD_META__STOP_TIMEOUT_SECS", "1");
            families.of(node, program_that_lives, &[PROGRAM])
        };
        let leader = node("a").spawn();
        let program = families.wait_for(1, "a", &[PROGRAM], PATIENCE).program();
        let guardian = leader.guardian();
        let next = node("b");
        let follower = next.spawn();
        follower.wait_for("joined", PATIENCE);
        Self { families, leader, guardian, program, next, follower }
    }

    fn stop(&self, pids: &[u32]) {
        pids.iter().for_each(|pid| spawn::signal(*pid, Signal::STOP));
        pids.iter().for_each(|pid| spawn::wait_stopped(*pid));
    }

    /// Waits until another program has run. A machine that is too busy for the follower's lease as well ends that one;
    /// then somebody starts it again, as a supervisor does.
    fn wait_for_next(&mut self) {
        wait_until("another program", PATIENCE, || {
            if !self.follower.is_alive() {
                self.follower = self.next.spawn();
            }
            self.families.seen().len() > 1
        });
    }

    fn report(&self) -> String {
        format!("{}\n{}", self.leader.report(), self.follower.report())
    }
}

/// A moment within a lease, another one each time.
fn random_moment() -> Duration {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let step = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(boot_ns());
    let step = step.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    LEASE.mul_f64((step >> 11) as f64 / (1_u64 << 53) as f64)
}

/// Has this done to a leader again and again, at a random moment each time, and waits until another program runs. It
/// answers whether all went as it was meant to: a machine that is too busy ends a leader at the same time.
fn rounds(what: &str, doom: impl Fn(&Pair) -> bool + Sync) {
    let (etcd, begun, as_meant) = (EtcdCluster::start(1), AtomicU64::new(0), AtomicU64::new(0));
    let lived_on = Mutex::new(Vec::new());
    let count = setting("METAD_STOPPED_ROUNDS", 2);
    let round = |number: u64| {
        let mut pair = Pair::start(&etcd, &format!("round-{number}"), LEASE.as_secs());
        std::thread::sleep(random_moment());
        let doomed = boot_ns();
        as_meant.fetch_add(u64::from(doom(&pair)), Ordering::Relaxed);
        pair.wait_for_next();
        std::thread::sleep(Duration::from_millis(200)); // one that lives on would show it
        let all = pair.families.check();
        assert!(all[0].token < all[1].token, "{all:?}\n{}", pair.report());
        lived_on.lock().expect("no panic").push(between(doomed, all[0].last_ns()));
    };
    std::thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE.min(count) {
            scope.spawn(|| {
                std::iter::repeat_with(|| begun.fetch_add(1, Ordering::Relaxed))
                    .take_while(|number| *number < count)
                    .for_each(round);
            });
        }
    });
    let (lived_on, as_meant) = (lived_on.into_inner().expect("no panic"), as_meant.into_inner());
    let (least, most) = (lived_on.iter().min(), lived_on.iter().max());
    println!(
        "{what}: {count} rounds, {as_meant} as meant; the first program lived on for {least:.1?} to {most:.1?}, \
         never beside another"
    );
    assert!(as_meant > 0, "at least once");
}

/// Whoever is stopped together with its guardian is ended by two kernel timers alone.
#[test]
fn main_process_and_guardian_are_stopped() {
    rounds("main process and guardian stopped", |pair| {
        pair.stop(&[pair.guardian, pair.leader.pid()]);
        let stopped = boot_ns();
        let code = pair.leader.wait_exit(PATIENCE);
        wait_until("the guardian is dead", PATIENCE, || !spawn::stands_still(pair.guardian));
        code == 137 && pair.families.seen()[0].last_ns() > stopped // it ran on while both stood still
    });
}

#[test]
fn the_guardian_is_stopped_and_the_main_process_killed() {
    rounds("guardian stopped, main process killed", |pair| {
        pair.stop(&[pair.guardian]);
        let stopped = boot_ns();
        pair.leader.kill();
        let stood_still = spawn::stands_still(pair.guardian);
        wait_until("the guardian is dead", PATIENCE, || !spawn::stands_still(pair.guardian));
        stood_still && pair.families.seen()[0].last_ns() > stopped
    });
}

#[test]
fn the_program_is_stopped() {
    rounds("program stopped, then a resignation", |pair| {
        pair.stop(&[pair.program]);
        pair.leader.signal(Signal::TERM);
        let code = pair.leader.wait_exit(PATIENCE);
        assert!(!spawn::stands_still(pair.program), "it was killed all the same");
        code == 0
    });
}

#[test]
fn all_three_are_stopped() {
    rounds("main process, guardian and program stopped", |pair| {
        let all = [pair.guardian, pair.leader.pid(), pair.program];
        pair.stop(&all);
        let code = pair.leader.wait_exit(PATIENCE);
        wait_until("all are dead", PATIENCE, || !all.iter().any(|pid| spawn::stands_still(*pid)));
        code == 137
    });
}

/// Nothing is over then but the guardian: leadership goes on in order, long before a lease of a day ends.
#[test]
fn a_stopped_guardian_of_a_program_costs_leadership_in_order() {
    let etcd = EtcdCluster::start(1);
    let pair = Pair::start(&etcd, "default", DAY_SECS);
    let guardian = pair.guardian;
    pair.stop(&[guardian]);
    assert_eq!(pair.leader.wait_exit(PATIENCE), 75, "{}", pair.report());
    let stopping = pair.leader.wait_for("main_loop_stopping", PATIENCE);
    assert_eq!(stopping.str("reason"), "guardian_lost", "{}", pair.report());
    assert!(pair.leader.has_event("leadership_resigned"), "{}", pair.report());
    assert!(!spawn::stands_still(guardian), "it is dead");
    pair.families.wait_for(2, "b", &[PROGRAM], PATIENCE);
    pair.families.check();
}

#[test]
fn a_stopped_guardian_without_a_program_is_replaced_and_costs_nothing() {
    let node = NodeBuilder::new("n1").lease_secs(DAY_SECS).spawn();
    node.wait_for("main_loop_started", PATIENCE);
    let first = node.guardian();
    spawn::signal(first, Signal::STOP);
    wait_until("another guardian", PATIENCE, || node.guardian() != first);
    assert!(!spawn::stands_still(first), "it is dead");
    assert!(!node.has_event("main_loop_stopping"), "{}", node.report());
    assert!(
        node.stderr().contains("the guardian does not answer; starting another one"),
        "{}",
        node.report()
    );
}

#[test]
fn a_candidate_whose_guardian_is_stopped_gets_another_one_and_then_its_program_runs() {
    let etcd = EtcdCluster::start(1);
    let pair = Pair::start(&etcd, "default", DAY_SECS);
    let next = &pair.follower;
    let guardian = next.guardian();
    pair.stop(&[guardian]);
    pair.leader.signal(Signal::TERM);
    next.wait_for("leadership_won", PATIENCE);
    let said = holds_within(Duration::from_millis(500), || next.has_event("main_loop_started"));
    assert!(spawn::stands_still(guardian), "twin: it stood still all the while");
    assert!(!said, "no main loop runs: {}", next.report());
    pair.families.wait_for(2, "b", &[PROGRAM], PATIENCE);
    next.wait_for("main_loop_started", PATIENCE);
    pair.families.check();
    assert!(!next.has_event("main_loop_stopping"), "{}", next.report());
}
