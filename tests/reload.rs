//! SIGHUP on the real binary: the log's filter changes, what needs a restart is named, a bad file changes nothing.

#[path = "support/lib.rs"]
mod support;

use std::path::Path;

use support::crew::PATIENCE;
use support::node::{Node, NodeBuilder, Signal};
use support::poll::wait_until;

fn write(file: &Path, text: &str) {
    std::fs::write(file, text).expect("a file");
}

/// Sends SIGHUP and waits for the line that answers it. Each answer is asked for once.
#[track_caller]
fn reload(node: &Node, answer: &str) {
    assert!(!node.stderr().contains(answer), "{answer} was said before");
    node.signal(Signal::HUP);
    wait_until(answer, PATIENCE, || node.stderr().contains(answer));
}

#[test]
fn sighup_reloads_the_log_filter_and_names_what_needs_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("metad.toml");
    write(&file, "[log]\nfilter = \"info\"\n");
    let node = NodeBuilder::new("n1").arg("--config").arg(&file).spawn();
    node.wait_for("main_loop_started", PATIENCE);
    reload(&node, "SIGHUP: log.filter has not changed");
    assert!(!node.stderr().contains("DEBUG"), "{}", node.stderr());

    write(&file, "[log]\nfilter = \"debug\"\n[meta]\nstop_timeout_secs = 7\nmeta_leader_lease_secs = 60\n");
    reload(&node, "SIGHUP: log.filter is reloaded");
    // The lease is given by a flag, which wins over the file as it did at the start.
    wait_until("the restart is named", PATIENCE, || {
        node.stderr().contains("SIGHUP: restart the node for the new values of meta.stop_timeout_secs\"")
    });

    for (text, answer) in [
        (
            "[log]\nfilter = \"a=b=c\"\n",
            "SIGHUP: the old filter stays: log.filter = \\\"a=b=c\\\" is no log filter",
        ),
        ("[log]\nfliter = \"info\"\n", "SIGHUP: nothing is reloaded, the old values stay: "),
    ] {
        write(&file, text);
        reload(&node, answer);
    }
    assert!(node.stderr().contains("fliter"), "the error names the key: {}", node.stderr());

    node.signal(Signal::TERM);
    assert_eq!(node.wait_exit(PATIENCE), 0, "it went on all the time");
    let debug = node.stderr().lines().filter(|l| l.contains("\"level\":\"DEBUG\"")).count();
    assert!(debug > 0, "the new filter is in force: {}", node.stderr());
}
