//! `--on-leader-change CMD` on real nodes: every node runs it at every change that it sees, one at a time and the newest
//! first; one that hangs costs nothing, and is killed with what it has forked.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::crew::{PATIENCE, leader, wait_for_leader, wait_until_all_know_all};
use crate::support::etcd::EtcdCluster;
use crate::support::http;
use crate::support::node::{Node, NodeBuilder, Signal};
use crate::support::poll::{holds_within, wait_until};

/// What one node's command has written, one line a run.
struct Told(PathBuf);

impl Told {
    fn of(folder: &Path, id: &str) -> Self {
        Self(folder.join(id))
    }

    fn lines(&self) -> Vec<String> {
        fs::read_to_string(&self.0).unwrap_or_default().lines().map(str::to_owned).collect()
    }
}

const SAY: &str = r#"echo "leader=$METAD_LEADER token=$METAD_TOKEN role=$METAD_ROLE before=$METAD_PREVIOUS_LEADER at=$METAD_LEADER_ADDRESS" >>$FOLDER/$METAD_NODE_ID"#;

fn node(id: &str, etcd: &EtcdCluster, folder: &Path, command: &str) -> NodeBuilder {
    NodeBuilder::new(id).etcd(etcd).env("FOLDER", folder).arg("--on-leader-change").arg(command)
}

fn token_of(node: &Node) -> u64 {
    node.wait_for("main_loop_started", PATIENCE).token().expect("a token")
}

/// All of them have told last that this node leads.
#[track_caller]
fn wait_told(told: &[&Told], leader: &Node) {
    let role = |t: &Told| if t.0.ends_with(leader.id()) { "leader" } else { "follower" };
    let line = |t: &Told| format!("leader={} token={} role={} ", leader.id(), token_of(leader), role(t));
    wait_until("each is told of the newest leader", PATIENCE, || {
        told.iter().all(|t| t.lines().last().is_some_and(|last| last.starts_with(&line(t))))
    });
}

#[test]
fn every_node_runs_it_at_every_change_of_leader() {
    let (etcd, folder) = (EtcdCluster::start(1), tempfile::tempdir().expect("a folder"));
    // What a program or a person has put into our environment is no business of the command's.
    let command = format!("env >$FOLDER/env-$METAD_NODE_ID; {SAY}");
    let start = |id: &str| {
        node(id, &etcd, folder.path(), &command).env("METAD_STORE_PASSWORD", "open sesame").spawn()
    };
    let nodes = ["h0", "h1", "h2"].map(start);
    let told = ["h0", "h1", "h2"].map(|id| Told::of(folder.path(), id));
    let first = wait_for_leader(&nodes, PATIENCE);
    wait_until_all_know_all(&nodes);
    wait_told(&told.iter().collect::<Vec<_>>(), &nodes[first]);
    let env = fs::read_to_string(folder.path().join("env-h0")).expect("its environment");
    assert!(env.contains("METAD_LEADER=") && !env.contains("sesame"), "{env}");

    // Killed: a vacancy, and somebody else.
    nodes[first].kill();
    wait_until("another one leads", PATIENCE, || leader(&nodes).is_some());
    let second = leader(&nodes).expect("it was seen");
    let rest: Vec<&Told> = (0..3).filter(|i| *i != first).map(|i| &told[i]).collect();
    wait_told(&rest, &nodes[second]);

    // Stopped: in one write, or by a vacancy.
    nodes[second].signal(Signal::TERM);
    assert_eq!(nodes[second].wait_exit(PATIENCE), 0, "{}", nodes[second].report());
    let third = 3 - first - second;
    wait_told(&[&told[third]], &nodes[third]);

    // Nobody was told the same thing twice, and the last one was told of all three.
    for t in &told {
        let lines = t.lines();
        assert!(lines.windows(2).all(|pair| pair[0] != pair[1]), "{lines:?}");
    }
    let lines = told[third].lines();
    for leader in [first, second, third] {
        let name = format!("leader={} ", nodes[leader].id());
        assert!(lines.iter().any(|l| l.starts_with(&name)), "{name}: {lines:?}");
    }
    let page = http::get(nodes[third].http_addr(), "/metrics", PATIENCE).expect("an answer").1;
    assert!(page.contains("metad_leader_hook_runs_total{result=\"failed\"} 0"), "{page}");
    let ended = nodes[third].wait_for("leader_hook_ended", PATIENCE);
    assert_eq!((ended.str("result"), ended.json["code"].as_i64()), ("ok", Some(0)));
}

#[test]
fn one_that_hangs_costs_nothing_and_only_the_newest_change_waits_for_it() {
    let (etcd, folder) = (EtcdCluster::start(1), tempfile::tempdir().expect("a folder"));
    // A child that cares for nothing, and holds the output open; and a command that never ends.
    let command =
        format!("{SAY}; (trap '' TERM HUP; sleep 600) & echo $! >>$FOLDER/children; echo waits; sleep 600");
    let start = |id: &str| {
        let node =
            node(id, &etcd, folder.path(), &command).env("METAD_META__ON_LEADER_CHANGE_TIMEOUT_SECS", "6");
        node.lease_secs(86_400).spawn()
    };
    let leading = start("h0");
    let told = Told::of(folder.path(), "h1");
    leading.wait_for("main_loop_started", PATIENCE);
    let next = start("h1");
    wait_until("the command hangs", PATIENCE, || !told.lines().is_empty());
    assert!(told.lines()[0].starts_with("leader=h0 "), "{:?}", told.lines());
    leading.kill();
    next.wait_for("main_loop_started", PATIENCE);
    let is_hanging = !next.has_event("leader_hook_ended");
    let killed = next.wait_for("leader_hook_ended", PATIENCE);
    assert_eq!((killed.str("result"), killed.str("leader")), ("timeout", "h0"));
    assert!(next.messages().contains("waits"), "what it said is logged: {}", next.report());
    wait_until("the newest change is told", PATIENCE, || told.lines().len() > 1);
    if is_hanging {
        // The vacancy was over before its turn came.
        assert!(told.lines()[1].starts_with("leader=h1 "), "{:?}", told.lines());
    }
    let children = fs::read_to_string(folder.path().join("children")).expect("process ids");
    let child = children.lines().nth(1).expect("of h1's first run, after that of h0").to_owned();
    let lives = || fs::read_to_string(format!("/proc/{child}/stat")).is_ok_and(|s| !s.contains(") Z "));
    wait_until("its child is dead", PATIENCE, || !lives());
    assert!(!next.has_event("main_loop_stopping"), "{}", next.report());
}

#[test]
fn a_node_that_ends_takes_it_along_and_one_that_cannot_be_started_is_told_of() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = folder.path().join("store.db");
    let with = |id: &str, command: &str| {
        NodeBuilder::new(id)
            .sqlite(&store)
            .env("FOLDER", folder.path())
            .env("METAD_META__ON_LEADER_CHANGE", command)
    };
    let node = with("h0", "sleep 600 & echo $! >$FOLDER/child; exec sleep 600").spawn();
    let child = || fs::read_to_string(folder.path().join("child")).unwrap_or_default();
    wait_until("it runs", PATIENCE, || child().ends_with('\n'));
    node.wait_for("main_loop_started", PATIENCE);
    node.signal(Signal::TERM);
    assert_eq!(node.wait_exit(PATIENCE), 0, "{}", node.report());
    let stat = format!("/proc/{}/stat", child().trim());
    let is_dead = || !fs::read_to_string(&stat).is_ok_and(|s| !s.contains(") Z "));
    assert!(holds_within(PATIENCE, is_dead), "it outlived its node");

    let node = with("h0", "seq 150; no-such-command").spawn();
    let ended = node.wait_for("leader_hook_ended", PATIENCE);
    assert_eq!((ended.str("result"), ended.json["code"].as_i64()), ("failed", Some(127)));
    assert_eq!(ended.json["lines_left_out"], 51, "100 lines are logged");
    wait_until("its words are logged", PATIENCE, || node.messages().contains("on_leader_change says"));
}
