//! Programs of a metad that is not root, on real processes: one with a set-user-ID bit, and one that there is no room for
//! at the moment. Run by root, these tests become another user; run by somebody else, they ask sudo for the bit.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::etcd::EtcdCluster;
use crate::support::node::{Node, NodeBuilder, Signal};
use crate::support::poll::{holds_within, wait_until};
use crate::support::spawn;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);
/// A lease that no test waits for: whoever leads before it ends was let in.
const DAY_SECS: u64 = 86_400;
/// A user that nothing else runs as.
const USER: &str = "54321";

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A folder that everybody may write to, with a metad that everybody may run.
struct Place {
    folder: TempDir,
    metad: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).expect("permissions");
        let (built, metad) = (spawn::metad_program(), folder.path().join("metad"));
        std::fs::hard_link(&built, &metad)
            .or_else(|_| std::fs::copy(&built, &metad).map(drop))
            .expect("a copy");
        Self { folder, metad }
    }

    /// A node that is not root and runs this program.
    fn node(&self, id: &str, etcd: &EtcdCluster, program: &[&str]) -> UserNode {
        let builder = NodeBuilder::new(id)
            .data_dir(self.folder.path().join(id))
            .lease_secs(DAY_SECS)
            .env("METAD_STORE__ETCD__ENDPOINTS", etcd.endpoint(0));
        let metad = self.metad.to_str().expect("text").to_owned();
        let command = ["run", "--events", "--"].iter().chain(program).map(|s| (*s).to_owned());
        UserNode { builder, command: std::iter::once(metad).chain(command).collect() }
    }
}

struct UserNode {
    builder: NodeBuilder,
    command: Vec<String>,
}

impl UserNode {
    fn spawn(&self) -> Node {
        self.builder.spawn_program(as_user(&self.command))
    }
}

/// The same command, by somebody who is not root.
fn as_user(command: &[String]) -> Command {
    if !is_root() {
        let mut plain = Command::new(&command[0]);
        plain.args(&command[1..]);
        return plain;
    }
    let mut setpriv = Command::new("setpriv");
    setpriv.args(["--reuid", USER, "--regid", USER, "--clear-groups", "--"]).args(command);
    setpriv
}

/// `sleep`, which runs as root whoever starts it.
fn lifted(place: &Place) -> String {
    let lifted = place.folder.path().join("lifted-sleep");
    let mut install = Command::new(if is_root() { "install" } else { "sudo" });
    if !is_root() {
        install.args(["-n", "install"]);
    }
    install.args(["-m", "4755", "-o", "root", "/bin/sleep"]).arg(&lifted);
    let output = spawn::output(install, PATIENCE);
    assert!(output.status.success(), "a set-user-ID file needs root, or sudo without a password: {output:?}");
    lifted.to_str().expect("text").to_owned()
}

/// As whom a process acts.
fn effective_user(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let users = status.lines().find_map(|l| l.strip_prefix("Uid:"))?;
    users.split_whitespace().nth(1)?.parse().ok()
}

fn is_named(pid: u32, name: &str) -> bool {
    spawn::name_and_parent(pid).0 == name
}

#[test]
fn a_set_user_id_program_gets_no_new_privileges_and_does_not_outlive_its_leadership() {
    let (place, etcd) = (Place::new(), EtcdCluster::start(1));
    let lifted = lifted(&place);
    let mut direct = as_user(&[lifted.clone(), "1000".into()]);
    direct.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut direct = spawn::spawn(direct).expect("it starts");
    wait_until("twin: it acts as root", PATIENCE, || {
        is_named(direct.id(), "lifted-sleep") && effective_user(direct.id()) == Some(0)
    });
    direct.kill().expect("root may");
    direct.wait().expect("its end");

    let leader = place.node("a", &etcd, &[&lifted, "1000"]).spawn();
    leader.wait_for("main_loop_started", PATIENCE);
    let mut program = None;
    wait_until("the program", PATIENCE, || {
        program = leader.tree().into_iter().find(|pid| is_named(*pid, "lifted-sleep"));
        program.is_some()
    });
    let program = program.expect("just found");
    assert_eq!(effective_user(program), effective_user(leader.pid()), "it gained nothing");
    assert_ne!(effective_user(program), Some(0), "twin: metad is not root");
    let follower = place.node("b", &etcd, &["sleep", "1000"]).spawn();
    follower.wait_for("joined", PATIENCE);
    leader.kill();
    follower.wait_for("main_loop_started", PATIENCE);
    assert!(!is_named(program, "lifted-sleep"), "it was dead before the next leader started");
    wait_until("the guardian ends", PATIENCE, || leader.tree().is_empty());
}

/// How many processes the user of this process may have from now on: this many, or as many as before.
fn limit_processes(pid: u32, limit: &str) {
    let command = ["prlimit", "--pid", &pid.to_string(), &format!("--nproc={limit}:")].map(str::to_owned);
    let output = spawn::output(as_user(&command), PATIENCE);
    assert!(output.status.success(), "{output:?}");
}

/// A leader, and a follower whose guardian cannot fork.
fn follower_without_room(place: &Place, etcd: &EtcdCluster, start_timeout_secs: &str) -> [Node; 2] {
    let leader = place.node("a", etcd, &["sleep", "1000"]).spawn();
    leader.wait_for("main_loop_started", PATIENCE);
    let mut follower = place.node("b", etcd, &["sleep", "1000"]);
    follower.builder = follower.builder.env("METAD_META__START_TIMEOUT_SECS", start_timeout_secs);
    let follower = follower.spawn();
    follower.wait_for("joined", PATIENCE);
    limit_processes(follower.guardian(), "1");
    [leader, follower]
}

#[test]
fn a_program_that_there_is_no_room_for_is_tried_again_until_there_is() {
    let (place, etcd) = (Place::new(), EtcdCluster::start(1));
    let [leader, follower] = follower_without_room(&place, &etcd, "600");
    leader.signal(Signal::TERM);
    wait_until("twin: it cannot fork", PATIENCE, || follower.stderr().contains("\"next_try_in\":\"1s\""));
    assert!(follower.stderr().contains("Resource temporarily unavailable"), "{}", follower.report());
    assert!(!follower.has_event("main_loop_started"), "nothing runs yet: {}", follower.report());
    limit_processes(follower.guardian(), "1000");
    follower.wait_for("main_loop_started", PATIENCE);
    assert!(!follower.has_event("main_loop_stopping"), "{}", follower.report());
    assert!(follower.tree().iter().any(|pid| is_named(*pid, "sleep")), "{}", follower.report());
}

#[test]
fn a_leader_whose_program_cannot_start_in_time_gives_way() {
    let (place, etcd) = (Place::new(), EtcdCluster::start(1));
    let [leader, follower] = follower_without_room(&place, &etcd, "3");
    leader.signal(Signal::TERM);
    follower.wait_for("leadership_won", PATIENCE);
    assert_eq!(leader.wait_exit(PATIENCE), 0, "{}", leader.report());
    let next = place.node("c", &etcd, &["sleep", "1000"]).spawn();
    assert_eq!(follower.wait_exit(PATIENCE), 75, "{}", follower.report());
    let stopping = follower.wait_for("main_loop_stopping", PATIENCE);
    assert_eq!(stopping.str("reason"), "start_timeout", "{}", follower.report());
    assert!(!follower.has_event("main_loop_started"), "{}", follower.report());
    next.wait_for("main_loop_started", PATIENCE);
    assert!(!holds_within(Duration::from_millis(300), || next.has_event("main_loop_stopping")));
}
