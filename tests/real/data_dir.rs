//! The data dir of a real node: who may read it, what is lost with it, and what nobody gets around by deleting files.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use crate::support;
use crate::support::crew::{PATIENCE, between};
use crate::support::etcd::EtcdCluster;
use crate::support::install;
use crate::support::node::{Node, NodeBuilder, Signal};
use crate::support::poll::{boot_ns, wait_until};
use crate::support::slow_disk::SlowDisk;
use crate::support::{spawn, sudo};

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("it is there").mode() & 0o777
}

fn leading(node: &NodeBuilder) -> Node {
    let node = node.spawn();
    node.wait_for("main_loop_started", PATIENCE);
    node
}

#[test]
fn nothing_that_a_node_keeps_is_readable_by_others() {
    let node = leading(&NodeBuilder::new("n1"));
    let files: Vec<_> = std::fs::read_dir(node.data_dir()).expect("a data dir").flatten().collect();
    let names: Vec<_> = files.iter().filter_map(|f| f.file_name().into_string().ok()).collect();
    for expected in ["identity", "lock", "metad.db", "metad.db-wal", "state"] {
        assert!(names.iter().any(|name| name == expected), "{expected} of {names:?}");
    }
    assert_eq!(mode(node.data_dir()), 0o700);
    for file in files {
        // One that was about to be renamed has another name now.
        if let Ok(found) = std::fs::metadata(file.path()) {
            assert_eq!(found.mode() & 0o077, 0, "{:?}", file.path());
        }
    }
}

#[test]
fn a_link_in_the_data_dir_is_not_followed_and_a_folder_of_everybody_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let (victim, data_dir) = (folder.path().join("victim"), folder.path().join("data"));
    std::fs::write(&victim, "precious").expect("a file");
    std::fs::create_dir(&data_dir).expect("a folder");
    std::os::unix::fs::symlink(&victim, data_dir.join("state.new")).expect("a link");
    let node = NodeBuilder::new("n1").data_dir(&data_dir);
    let refused = node.spawn();
    assert_eq!(refused.wait_exit(PATIENCE), 74, "{}", refused.report());
    assert!(refused.stderr().contains("symbolic links"), "{}", refused.report());
    assert_eq!(std::fs::read(&victim).expect("a file"), b"precious");
    std::fs::remove_file(data_dir.join("state.new")).expect("it goes");
    std::fs::write(data_dir.join("somebody's"), "").expect("another file");
    let _ = std::fs::remove_file(data_dir.join("identity")); // it may not have come to one
    std::fs::set_permissions(&data_dir, std::fs::Permissions::from_mode(0o777)).expect("ours");
    let refused = node.spawn();
    assert_eq!(refused.wait_exit(PATIENCE), 74, "{}", refused.report());
    assert!(refused.stderr().contains("it is world-writable"), "{}", refused.report());
    std::fs::set_permissions(&data_dir, std::fs::Permissions::from_mode(0o755)).expect("ours");
    leading(&node);
}

#[test]
fn a_folder_that_others_could_write_to_is_made_private_or_refused() {
    if sudo::runs(a_folder_that_others_could_write_to_is_made_private_or_refused, "another user's file") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("data");
    let open_to_all = || {
        std::fs::set_permissions(&data_dir, std::fs::Permissions::from_mode(0o777)).expect("ours");
    };
    std::fs::create_dir(&data_dir).expect("a folder");
    open_to_all();
    let node = NodeBuilder::new("n1").data_dir(&data_dir);
    let first = leading(&node);
    assert!(first.messages().contains("others could write to"), "{}", first.report());
    assert_eq!(mode(&data_dir), 0o700);
    // Somebody opens it while the node runs.
    open_to_all();
    let asked = ["check", "data-dir-private", "--data-dir", data_dir.to_str().expect("UTF-8")];
    let (code, said, _) = spawn::metad(&asked, PATIENCE);
    assert!(code == 1 && said.contains("mode 777"), "{code} {said}");
    drop(first);
    std::os::unix::fs::chown(data_dir.join("state"), Some(65_534), None).expect("we are root");
    let refused = node.spawn();
    assert_eq!(refused.wait_exit(PATIENCE), 74, "{}", refused.report());
    assert!(refused.stderr().contains("state in it belongs to user 65534"), "{}", refused.report());
    std::os::unix::fs::chown(data_dir.join("state"), Some(0), None).expect("we are root");
    leading(&node); // twin: the next start goes on
}

#[test]
fn a_folder_of_somebody_else_is_refused() {
    if sudo::runs(a_folder_of_somebody_else_is_refused, "another user's folder") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let node = NodeBuilder::new("n1").data_dir(folder.path());
    let nobody = 65_534;
    std::os::unix::fs::chown(folder.path(), Some(nobody), None).expect("we are root");
    let refused = node.spawn();
    assert_eq!(refused.wait_exit(PATIENCE), 74, "{}", refused.report());
    assert!(refused.stderr().contains("belongs to user 65534"), "{}", refused.report());
    std::os::unix::fs::chown(folder.path(), Some(0), None).expect("we are root");
    leading(&node); // twin: it is nothing else
}

#[test]
fn a_disk_that_hangs_does_not_keep_a_node_from_ending() {
    if !sudo::may_trace() && sudo::runs(a_disk_that_hangs_does_not_keep_a_node_from_ending, "strace") {
        return;
    }
    let etcd = EtcdCluster::start(1);
    let node = leading(&NodeBuilder::new("n1").etcd(&etcd).lease_secs(60));
    let hang = Duration::from_secs(30);
    let disk = SlowDisk::under(node.pid(), hang);
    // Something that is to be remembered at the end; the next renewals tell of it.
    etcd.etcdctl_ok(&["put", "k", "v"]);
    std::thread::sleep(Duration::from_secs(4));
    let asked = boot_ns();
    node.signal(Signal::TERM);
    // It is a zombie until strace lets go of the thread that it holds for the disk.
    let status = || std::fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap_or_default();
    wait_until("it has ended", hang / 2, || status().contains("State:\tZ"));
    let took = between(asked, boot_ns());
    disk.abandon();
    assert_eq!(node.wait_exit(PATIENCE), 0, "{}", node.report());
    assert!(took > Duration::from_millis(400), "twin: it waited for its disk: {took:?}\n{}", node.report());
}

#[test]
fn the_lock_holds_whatever_is_deleted() {
    let node = NodeBuilder::new("n1");
    let first = leading(&node);
    std::fs::remove_file(first.data_dir().join("lock")).expect("it goes");
    let second = node.spawn();
    assert_eq!(second.wait_exit(PATIENCE), 73, "{}", second.report());
    assert!(second.stderr().contains("is in use by another process"), "{}", second.report());
    assert!(first.is_alive() && !first.has_event("main_loop_stopping"), "{}", first.report());
    first.kill();
    leading(&node); // twin: what is free is free
}

#[test]
fn a_data_dir_that_is_gone_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = leading(&NodeBuilder::new("n1").sqlite(folder.path().join("metad.db")).lease_secs(60));
    assert!(!node.has_event("data_dir_lost"), "twin: it is there");
    std::fs::rename(node.data_dir(), node.data_dir().with_extension("moved")).expect("it moves");
    let lost = node.wait_for("data_dir_lost", PATIENCE);
    assert_eq!(lost.str("path"), node.data_dir().display().to_string());
    let says_so = || node.stderr().contains("its next start will be a new node");
    wait_until("the log says what follows", PATIENCE, says_so);
}

#[test]
fn a_clock_before_1970_is_named() {
    let node = NodeBuilder::new("n1")
        .env("LD_PRELOAD", install::libfaketime())
        .env("FAKETIME", "1969-07-20 20:17:00")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .spawn();
    assert_eq!(node.wait_exit(PATIENCE), 70, "{}", node.report());
    assert!(node.stderr().contains("before 1970"), "{}", node.report());
}

#[test]
fn a_program_is_told_nothing_that_is_meant_for_metad_alone() {
    let ours = [
        "CREDENTIALS_DIRECTORY",
        "LISTEN_FDS",
        "LISTEN_PID",
        "WATCHDOG_PID",
        "WATCHDOG_USEC",
        "NOTIFY_SOCKET",
    ];
    let mut node =
        NodeBuilder::new("n1").env("METAD_META__MAIN_LOOP_TIMEOUT_SECS", "0").env("SOMETHING_ELSE", "kept");
    for name in ours {
        node = node.env(name, "1");
    }
    let node = node.payload(&["sh", "-c", "env; echo all said; exec sleep 1000"]).spawn();
    support::poll::wait_until("it has said all", PATIENCE, || node.stdout().contains("all said"));
    let told = node.stdout();
    for name in ours {
        assert!(!told.lines().any(|line| line.starts_with(&format!("{name}="))), "{name}: {told}");
    }
    assert!(told.contains("SOMETHING_ELSE=kept"), "twin: {told}");
}

#[test]
fn a_leader_is_asked_at_the_address_that_was_given() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("metad.db");
    let first = leading(&NodeBuilder::new("n1").sqlite(&file).arg("--advertise-addr").arg("127.0.0.1:1"));
    let second = NodeBuilder::new("n2").sqlite(&file).spawn();
    first.wait_event(|e| e.kind() == "member_joined" && e.str("member") == "n2", PATIENCE);
    let given = format!("{},{}", second.rpc_addr(), first.rpc_addr());
    let (code, said, error) =
        spawn::metad(&["step-down", "--yes", "--meta", &given], Duration::from_secs(60));
    assert_eq!(code, 0, "{error}");
    assert!(said.contains("n2 leads now"), "{said}");
}

#[test]
fn what_a_stranger_has_written_is_not_obeyed_by_a_terminal() {
    let node = leading(&NodeBuilder::new("n1").cluster("c").arg("--advertise-addr").arg("127.0.0.1:1"));
    let at = node.rpc_addr().to_string();
    let (code, _, said) = spawn::metad(&["status", "--meta", "127.0.0.1:1\u{1b}[2J"], PATIENCE);
    assert!(code != 0 && !said.contains('\u{1b}') && said.contains("\\u{1b}[2J"), "{said:?}");
    let (_, shown, _) = spawn::metad(&["status", "--meta", &at], PATIENCE);
    assert!(shown.contains("127.0.0.1:1"), "twin: {shown}");
}
