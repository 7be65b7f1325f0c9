//! Commands that are given several members: one that hangs, refuses or does not exist costs nothing, and a mistake is
//! named.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::support::crew::{PATIENCE, wait_until_all_know_all};
use crate::support::etcd::EtcdCluster;
use crate::support::node::{Node, NodeBuilder};
use crate::support::spawn::{self, metad};

/// More than any command waits for a member: what ends later hangs.
const ANSWER: Duration = Duration::from_secs(60);
/// How many members hang.
const HUNG: usize = 30;
const COMMANDS: [&[&str]; 7] = [
    &["status"],
    &["leader"],
    &["members"],
    &["history"],
    &["health"],
    &["wait", "leader", "--timeout", "20s"],
    &["check", "leader-exists", "-o", "nagios"],
];

fn leading() -> Node {
    let node = NodeBuilder::new("n1").spawn();
    node.wait_for("main_loop_started", PATIENCE);
    node
}

fn asked(args: &[&str], meta: &str) -> (i32, String) {
    let before = Instant::now();
    let (code, said, error) = metad(&[args, &["--meta", meta]].concat(), ANSWER);
    println!("{args:?} --meta {meta}: {code} after {:.0?}", before.elapsed());
    (code, said + &error)
}

#[test]
fn one_that_hangs_or_is_not_there_costs_nothing() {
    let node = leading();
    let alive = node.rpc_addr();
    // They take connections, and answer nothing. One after the other they would take longer than a command gets.
    let hang: Vec<TcpListener> =
        (0..HUNG).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
    let hung =
        hang.iter().map(|l| l.local_addr().expect("an address").to_string()).collect::<Vec<_>>().join(",");
    let http = node.http_addr().to_string();
    for dead in [hung.as_str(), "127.0.0.1:1", "no-such-host.invalid:5690", &http] {
        for args in COMMANDS {
            let (code, said) = asked(args, &format!("{dead},{alive}"));
            assert_eq!(code, 0, "{args:?} with {dead} first: {said}");
        }
    }
    let watched = format!(
        "timeout -s KILL 60 {} watch --meta {hung},{alive} | head -n 1",
        spawn::metad_program().display()
    );
    let mut shell = std::process::Command::new("sh");
    spawn::remove_env(&mut shell, "METAD_");
    shell.args(["-c", &watched]);
    let said = String::from_utf8_lossy(&spawn::output(shell, ANSWER).stdout).into_owned();
    assert!(said.contains("leader n1 token"), "{said}");
}

#[test]
fn a_mistake_is_named_where_nobody_answers() {
    let node = leading();
    let http = node.http_addr().to_string();
    let rows = [
        (http.as_str(), "not its gRPC port, which is 5690 by default; 5691 is HTTP"),
        ("127.0.0.1:1", "metad at 127.0.0.1:1: Connection refused"),
        ("no-such-host.invalid", "metad at no-such-host.invalid:5690: "),
    ];
    for (meta, says) in rows {
        for args in [&["status"][..], &["leader"], &["members"], &["history"], &["watch"]] {
            let (code, said) = asked(args, meta);
            assert!(code == 1 && said.contains(says), "{args:?} --meta {meta}: {code}: {said}");
        }
    }
}

#[test]
fn the_leader_is_found_and_steps_down_whoever_hangs() {
    let etcd = EtcdCluster::start(1);
    let node = |id| NodeBuilder::new(id).etcd(&etcd).spawn();
    let first = node("n1");
    first.wait_for("main_loop_started", PATIENCE);
    let nodes = [first, node("n2"), node("n3")];
    wait_until_all_know_all(&nodes);
    nodes[2].pause();
    let meta = format!("{},{},{}", nodes[2].rpc_addr(), nodes[1].rpc_addr(), nodes[0].rpc_addr());
    let (code, said) = asked(&["step-down", "--yes", "--to", "n2"], &meta);
    assert!(
        code == 0 && said.contains("n2 leads now") && said.contains("n1 ends with exit code 75"),
        "{code}: {said}"
    );
    assert_eq!(nodes[0].wait_exit(PATIENCE), 75);
}
