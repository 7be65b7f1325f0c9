//! A main loop that hangs does not keep leadership, on real processes: it is ended, its record is given up, and the
//! process says so and exits with code 75.

use std::os::unix::fs::FileTypeExt;
use std::time::Duration;

use crate::support::etcd::EtcdCluster;
use crate::support::history;
use crate::support::node::{Node, NodeBuilder};
use crate::support::poll::holds_within;
use crate::support::{ourselves, spawn};

/// Starting processes and etcd on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// The shortest that the configuration allows.
const TIMEOUT_SECS: &str = "5";
/// A lease that no test waits for.
const DAY_SECS: u64 = 86_400;

/// A node that runs one of this file's programs as its main loop.
fn runs<T>(program: T, id: &str, etcd: &EtcdCluster) -> NodeBuilder {
    NodeBuilder::new(id)
        .etcd(etcd)
        .lease_secs(DAY_SECS)
        .env("METAD_META__MAIN_LOOP_TIMEOUT_SECS", TIMEOUT_SECS)
        .env("METAD_META__STOP_TIMEOUT_SECS", "1")
        .payload(&ourselves::calling(program))
}

/// sd_notify(3), as any program of a service does it.
fn notify(message: &str) {
    spawn::notify(message);
}

#[test]
#[ignore = "a program that the other tests run, not a test"]
fn program_that_hangs_after_its_first_sign_of_life() {
    assert_eq!(std::env::var("WATCHDOG_USEC").as_deref(), Ok("5000000"));
    notify("READY=1\nWATCHDOG=1\nSTATUS=about to hang");
    println!("gave a sign of life");
    std::thread::sleep(Duration::from_secs(3600));
}

#[test]
#[ignore = "a program that the other tests run, not a test"]
fn program_that_gives_signs_of_life() {
    loop {
        notify("WATCHDOG=1");
        std::thread::sleep(Duration::from_secs(1));
    }
}

#[test]
#[ignore = "a program that the other tests run, not a test"]
fn program_that_has_never_heard_of_it() {
    std::thread::sleep(Duration::from_secs(3600));
}

fn assert_kept(node: &Node, for_how_long: Duration) {
    let lost = holds_within(for_how_long, || node.has_event("main_loop_stopping") || !node.is_alive());
    assert!(!lost, "{}", node.report());
}

#[test]
fn a_program_that_hangs_is_ended_and_somebody_else_leads() {
    let etcd = EtcdCluster::start(1);
    let first = runs(program_that_hangs_after_its_first_sign_of_life, "a", &etcd).spawn();
    first.wait_for("main_loop_started", PATIENCE);
    let second = NodeBuilder::new("b").etcd(&etcd).lease_secs(DAY_SECS).spawn();
    second.wait_for("joined", PATIENCE);
    let stopping = first.wait_for("main_loop_stopping", PATIENCE);
    assert_eq!(stopping.str("reason"), "main_loop_hung");
    assert_eq!(first.wait_exit(PATIENCE), 75, "{}", first.report());
    assert!(first.stdout().contains("gave a sign of life"), "{}", first.report());
    assert!(first.stderr().contains("main_loop_hung"), "{}", first.report());
    second.wait_for("main_loop_started", PATIENCE);
    let tenures = history::check(&[first.trace(), second.trace()]).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(tenures.len(), 2);
}

#[test]
fn programs_that_live_or_promised_nothing_keep_leadership() {
    let etcd = EtcdCluster::start(1);
    let nodes = [
        runs(program_that_gives_signs_of_life, "a", &etcd).cluster("living"),
        runs(program_that_has_never_heard_of_it, "a", &etcd).cluster("silent"),
    ];
    for node in nodes {
        let node = node.spawn();
        node.wait_for("main_loop_started", PATIENCE);
        // What hears them has no file that could be deleted.
        for file in std::fs::read_dir(node.data_dir()).expect("a data dir").flatten() {
            if file.file_type().is_ok_and(|kind| kind.is_socket()) {
                std::fs::remove_file(file.path()).expect("it goes");
            }
        }
        assert_kept(&node, Duration::from_secs(8));
    }
}

#[test]
fn the_built_in_loop_gives_signs_of_life_also_while_the_store_is_away() {
    let etcd = EtcdCluster::start(1);
    let node = NodeBuilder::new("a")
        .etcd(&etcd)
        .lease_secs(60)
        .env("METAD_META__MAIN_LOOP_TIMEOUT_SECS", TIMEOUT_SECS)
        .spawn();
    node.wait_for("main_loop_started", PATIENCE);
    etcd.pause_all();
    assert_kept(&node, Duration::from_secs(12));
    etcd.resume_all();
    assert_kept(&node, Duration::from_secs(2));
}
