//! Tests that take every CPU, or the disk: each runs while no other does ([`cpus`]). Their name
//! comes first, so that nobody waits for them in between.

mod saturation;

use std::process::Command;
use std::time::Duration;

use crate::cpus;
use crate::starvation::node;
use crate::support::crew::{PATIENCE, assert_kept, leads, report, setting};
use crate::support::etcd::EtcdCluster;
use crate::support::hogs::Hogs;
use crate::support::spawn;
use crate::verdict::{FAIL, assert_said, assert_told, builder, is_verdict};

#[test]
fn eight_busy_processes_per_core_cost_nothing() {
    let _cpu = cpus::all();
    let etcd = EtcdCluster::start(3);
    // With a program, so that the guardian's kernel timer counts too.
    let first = node("a", &etcd).payload(&["sleep", "100000"]).spawn();
    first.wait_for("main_loop_started", PATIENCE);
    let second = node("b", &etcd).spawn();
    second.wait_for("joined", PATIENCE);
    let nodes = [first, second];
    let guardian = nodes[0].guardian();
    let so_long = Duration::from_secs(setting("METAD_FAULT_STARVE_SECS", 20));
    let hogs = Hogs::on_all_cpus(8);
    let idle = spawn::idle_time();
    assert_kept(&nodes, 0, so_long);
    assert_eq!(nodes[0].guardian(), guardian, "the same one all the while\n{}", report(&nodes));
    let (idle, used, cores) = (spawn::idle_time() - idle, hogs.cpu_time(), hogs.count() as u32 / 8);
    println!("{} busy processes used {used:?}; {cores} CPUs were idle for {idle:?}", hogs.count());
    assert!(idle < so_long * cores / 10 && used > so_long * cores / 10, "twin: the CPUs were busy, by these");
}

#[track_caller]
fn run(program: &str, args: &[&str]) {
    let mut command = Command::new(program);
    command.args(args);
    let output = spawn::output(command, PATIENCE);
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_starved_process_is_told_from_one_that_was_stopped() {
    let _cpu = cpus::all();
    let etcd = EtcdCluster::start(1);
    let node = |id: &str| {
        let node = builder(id, &etcd, 30).cluster(id).spawn();
        node.wait_for("main_loop_started", PATIENCE);
        node
    };
    let stopped = node("stopped");
    stopped.pause();
    std::thread::sleep(Duration::from_secs(5));
    stopped.resume();
    assert_said(&stopped, "process_stopped", "this node's process was stopped");
    assert_told(&stopped, "HOST_003", FAIL, "this process stalled for");
    assert!(leads(&stopped), "{}", stopped.report());
    // A process that gets only what nobody else wants, on a CPU that others want all the time.
    let starved = node("starved");
    let pid = starved.pid().to_string();
    run("taskset", &["-a", "-c", "-p", "0", &pid]);
    run("chrt", &["-a", "-i", "-p", "0", &pid]);
    let hogs = Hogs::on_cpu_0(4);
    std::thread::sleep(Duration::from_secs(8));
    drop(hogs); // what it has gone through it says when it can
    assert_said(&starved, "cpu_starved", "this node waited for a CPU");
    assert_told(&starved, "HOST_003", FAIL, "this process stalled for");
    let of_starved = starved.events();
    let stops = of_starved.iter().filter(|e| is_verdict(e, "process_stopped", "")).count();
    assert_eq!(stops, 0, "{}", starved.report());
}
