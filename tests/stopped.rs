//! Processes that are stopped (`kill -STOP`, a debugger, a freezer), on real processes: whichever of them stand still, two
//! programs never run at once, because the kernel's own timers end what a lease no longer covers.
//!
//! `METAD_STOPPED_ROUNDS` says how often each is done (2), at a random moment of the lease each time.

#[path = "support/lib.rs"]
mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use support::crew::{between, setting};
use support::etcd::EtcdCluster;
use support::family::{Families, Family, PROGRAM, live};
use support::node::{Node, NodeBuilder, Signal};
use support::poll::{boot_ns, holds_within, wait_until};
use support::spawn;

/// Starting processes and etcd on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const LEASE: Duration = Duration::from_secs(5);
const DAY_SECS: u64 = 86_400;
/// How many rounds run side by side.
const SIDE_BY_SIDE: u64 = 4;

#[test]
#[ignore = "a program that the other tests run, not a test"]
fn program_that_lives() {
    live();
}

/// A leader and a follower with a program each.
struct Pair {
    families: Families,
    nodes: [Node; 2],
    first: Family,
}

impl Pair {
    fn start(etcd: &EtcdCluster, cluster: &str, lease_secs: u64) -> Self {
        let families = Families::new();
        let node = |id| {
            let node = NodeBuilder::new(id).etcd(etcd).cluster(cluster).lease_secs(lease_secs);
            let node = node.env("METAD_META__STOP_TIMEOUT_SECS", "1");
            families.of(node, "program_that_lives", &[PROGRAM]).spawn()
        };
        let leader = node("a");
        let first = families.wait_for(1, "a", &[PROGRAM], PATIENCE);
        let follower = node("b");
        follower.wait_for("joined", PATIENCE);
        // Its guardian has armed nothing yet that is not the newest.
        leader.guardian();
        Self { families, nodes: [leader, follower], first }
    }

    fn leader(&self) -> &Node {
        &self.nodes[0]
    }

    fn stop(&self, pids: &[u32]) {
        pids.iter().for_each(|pid| spawn::signal(*pid, Signal::STOP));
        pids.iter().for_each(|pid| spawn::wait_stopped(*pid));
    }

    fn report(&self) -> String {
        self.nodes.iter().map(Node::report).collect::<Vec<_>>().join("\n")
    }
}

/// A moment within a lease, another one each time.
fn random_moment() -> Duration {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let step =
        NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(boot_ns()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    LEASE.mul_f64((step >> 11) as f64 / (1_u64 << 53) as f64)
}

/// Has this done to a leader again and again, at a random moment each time, and waits until another program runs. Says
/// how long the first one lived on after the deed.
fn rounds(what: &str, doom: impl Fn(&Pair) + Sync) {
    let (etcd, done) = (EtcdCluster::start(1), AtomicU64::new(0));
    let lived_on = std::sync::Mutex::new(Vec::new());
    let count = setting("METAD_STOPPED_ROUNDS", 2);
    std::thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE.min(count) {
            scope.spawn(|| {
                loop {
                    let round = done.fetch_add(1, Ordering::Relaxed);
                    if round >= count {
                        return;
                    }
                    let pair = Pair::start(&etcd, &format!("round-{round}"), LEASE.as_secs());
                    std::thread::sleep(random_moment());
                    let doomed = boot_ns();
                    doom(&pair);
                    pair.families.wait_for(2, "b", &[PROGRAM], PATIENCE);
                    std::thread::sleep(Duration::from_millis(200)); // one that lives on would show it
                    let all = pair.families.check();
                    assert!(all[0].token < all[1].token, "{all:?}\n{}", pair.report());
                    assert!(
                        !std::path::Path::new(&format!("/proc/{}", pair.first.program())).exists()
                            || all[0].last_ns() < all[1].first_ns()
                    );
                    lived_on.lock().expect("no panic").push(between(doomed, all[0].last_ns()));
                }
            });
        }
    });
    let mut lived_on = lived_on.into_inner().expect("no panic");
    lived_on.sort();
    let (least, most) = (lived_on[0], lived_on[lived_on.len() - 1]);
    println!(
        "{what}: {count} rounds; the first program lived on for {least:.1?} to {most:.1?}, never beside another"
    );
}

/// Whoever is stopped together with its guardian is ended by two kernel timers alone.
#[test]
fn main_process_and_guardian_are_stopped() {
    rounds("main process and guardian stopped", |pair| {
        let guardian = pair.leader().guardian();
        pair.stop(&[guardian, pair.leader().pid()]);
        let stopped = boot_ns();
        assert_eq!(pair.leader().wait_exit(PATIENCE), 137, "{}", pair.report());
        let last = pair.families.seen()[0].last_ns();
        assert!(last > stopped, "twin: the program ran on while both stood still");
        wait_until("the guardian is dead", PATIENCE, || !spawn::stands_still(guardian));
    });
}

#[test]
fn the_guardian_is_stopped_and_the_main_process_killed() {
    rounds("guardian stopped, main process killed", |pair| {
        let guardian = pair.leader().guardian();
        pair.stop(&[guardian]);
        let stopped = boot_ns();
        pair.leader().kill();
        assert!(spawn::stands_still(guardian), "twin: it stood still when the main process died");
        wait_until("the guardian is dead", PATIENCE, || !spawn::stands_still(guardian));
        assert!(pair.families.seen()[0].last_ns() > stopped, "twin: the program ran on meanwhile");
    });
}

#[test]
fn the_program_is_stopped() {
    rounds("program stopped, then a resignation", |pair| {
        pair.stop(&[pair.first.program()]);
        pair.leader().signal(Signal::TERM);
        assert_eq!(pair.leader().wait_exit(PATIENCE), 0, "{}", pair.report());
        assert!(!spawn::stands_still(pair.first.program()), "it was killed all the same");
    });
}

#[test]
fn all_three_are_stopped() {
    rounds("main process, guardian and program stopped", |pair| {
        let guardian = pair.leader().guardian();
        let all = [guardian, pair.leader().pid(), pair.first.program()];
        pair.stop(&all);
        assert_eq!(pair.leader().wait_exit(PATIENCE), 137, "{}", pair.report());
        wait_until("all are dead", PATIENCE, || !all.iter().any(|pid| spawn::stands_still(*pid)));
    });
}

/// Nothing is over then but the guardian: leadership goes on in order, long before a lease of a day ends.
#[test]
fn a_stopped_guardian_of_a_program_costs_leadership_in_order() {
    let etcd = EtcdCluster::start(1);
    let pair = Pair::start(&etcd, "default", DAY_SECS);
    let guardian = pair.leader().guardian();
    pair.stop(&[guardian]);
    assert_eq!(pair.leader().wait_exit(PATIENCE), 75, "{}", pair.report());
    let stopping = pair.leader().wait_for("main_loop_stopping", PATIENCE);
    assert_eq!(stopping.str("reason"), "guardian_lost", "{}", pair.report());
    assert!(pair.leader().has_event("leadership_resigned"), "{}", pair.report());
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
    let next = &pair.nodes[1];
    let guardian = next.guardian();
    pair.stop(&[guardian]);
    pair.leader().signal(Signal::TERM);
    next.wait_for("leadership_won", PATIENCE);
    let said = holds_within(Duration::from_millis(500), || next.has_event("main_loop_started"));
    assert!(spawn::stands_still(guardian), "twin: it stood still all the while");
    assert!(!said, "no main loop runs: {}", next.report());
    pair.families.wait_for(2, "b", &[PROGRAM], PATIENCE);
    next.wait_for("main_loop_started", PATIENCE);
    pair.families.check();
    assert!(!next.has_event("main_loop_stopping"), "{}", next.report());
}
