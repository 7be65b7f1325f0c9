//! `metad advise lease` on what a real leader has recorded: stalls of a real etcd and of the process itself, and the end of it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::support::crew::PATIENCE;
use crate::support::etcd::EtcdCluster;
use crate::support::node::NodeBuilder;
use crate::support::poll::wait_until;
use crate::support::spawn;

/// How long store and process stall: under the lease of 8 s, but beyond that of 3 s.
const STALL: Duration = Duration::from_millis(3_500);

/// What is said of a data dir: the exit code, and the document.
#[track_caller]
fn advice(dir: &Path) -> (i32, Value) {
    let dir = dir.display().to_string();
    let (code, out, said) = spawn::metad(&["advise", "lease", "-o", "json", "--data-dir", &dir], PATIENCE);
    (code, serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out:?} {said}")))
}

fn number(document: &Value, field: &str) -> u64 {
    document[field].as_u64().unwrap_or_else(|| panic!("{field}: {document:#}"))
}

fn at_least(document: &Value, lease_secs: u64) -> u64 {
    let trials = document["leases"].as_array().expect("a list");
    let trial = trials.iter().find(|t| t["lease_secs"] == lease_secs).expect("that lease");
    number(trial, "at_least")
}

#[test]
fn what_a_leader_survives_and_what_it_does_not_is_recorded_and_replayed() {
    let etcd = EtcdCluster::start(1);
    let node = NodeBuilder::new("a").etcd(&etcd).lease_secs(8).spawn();
    let dir = node.data_dir().to_owned();
    node.wait_for("main_loop_started", PATIENCE);
    let (code, nothing) = advice(&dir);
    assert_eq!((code, number(&nothing, "store_stalls")), (1, 0), "{nothing:#}");

    etcd.pause(0);
    std::thread::sleep(STALL);
    etcd.resume(0);
    wait_until("the stall of etcd is recorded", PATIENCE, || number(&advice(&dir).1, "store_stalls") == 1);
    std::thread::sleep(Duration::from_secs(1));
    node.pause();
    std::thread::sleep(STALL);
    node.resume();
    wait_until("the stall of the process is", PATIENCE, || number(&advice(&dir).1, "process_stalls") == 1);

    let (_, document) = advice(&dir);
    assert_eq!(document["configured_secs"], 8, "what the node leads under, though nobody says so");
    assert_eq!((at_least(&document, 3), at_least(&document, 15)), (2, 0), "{document:#}");
    assert_eq!((number(&document, "lost"), number(&document, "unended")), (0, 0));
    assert!(document["recommended_secs"].is_null(), "it has led for seconds");

    // The end of the lease finds a process that is stopped, which can record nothing any more.
    node.pause();
    assert_eq!(node.wait_exit(PATIENCE), 137);
    let again = NodeBuilder::new("a").etcd(&etcd).lease_secs(8).data_dir(&dir).spawn();
    again.wait_for("main_loop_started", PATIENCE);
    wait_until("the loss is recorded", PATIENCE, || number(&advice(&dir).1, "lost") == 1);
    let (_, document) = advice(&dir);
    assert_eq!((at_least(&document, 3), at_least(&document, 8)), (3, 1), "{document:#}");

    let at = ["--data-dir", &dir.display().to_string()].map(str::to_owned);
    let (code, table, _) = spawn::metad(&["advise", "lease", &at[0], &at[1]], PATIENCE);
    assert_eq!(code, 1);
    for words in ["1 cost the leadership", "8 s (configured)", "no recommendation: not enough data"] {
        assert!(table.contains(words), "no {words:?} in {table}");
    }
}

#[test]
fn what_cannot_be_read_or_written_says_so_and_costs_no_leadership() {
    let tmp = tempfile::tempdir().expect("a folder");
    let (code, _, said) = spawn::metad(
        &["advise", "lease", "--data-dir", &tmp.path().join("none").display().to_string()],
        PATIENCE,
    );
    assert!(code == 78 && said.contains("there is no data dir at"), "{code} {said}");

    let dir = tmp.path().join("data");
    std::fs::create_dir(&dir).expect("a folder");
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700)).expect("its mode");
    std::fs::write(dir.join("stalls"), "nonsense\n").expect("a file");
    let (code, _, said) =
        spawn::metad(&["advise", "lease", "--data-dir", &dir.display().to_string()], PATIENCE);
    assert!(code == 74 && said.contains("it does not begin as one"), "{code} {said}");

    // A folder in its place can neither be read nor replaced.
    std::fs::remove_file(dir.join("stalls")).expect("gone");
    std::fs::create_dir_all(dir.join("stalls/kept")).expect("a folder");
    let node = NodeBuilder::new("a").data_dir(&dir).spawn();
    node.wait_for("main_loop_started", PATIENCE);
    wait_until("it is said", PATIENCE, || {
        let log = node.messages();
        log.contains("cannot read") && log.contains("cannot write")
    });
}
