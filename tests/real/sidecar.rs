//! `metad guardian` beside a container: a namespace of processes that is killed as a whole is replaced at once, and nothing
//! that happens to the guardian itself costs anything.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::crew::{PATIENCE, assert_second_leads, leads, report};
use crate::support::etcd::EtcdCluster;
use crate::support::node::{Node, NodeBuilder, Signal};
use crate::support::poll::{holds_within, wait_until};
use crate::support::{spawn, sudo};
use tempfile::TempDir;

/// A lease that no test waits for.
const LONG_SECS: u64 = 86_400;

struct Sidecar {
    child: Child,
    log: PathBuf,
}

impl Sidecar {
    fn start(folder: &Path, etcd: &EtcdCluster) -> Self {
        let log = folder.join("guardian.log");
        let file = std::fs::File::options().create(true).append(true).open(&log).expect("a log");
        let mut command = spawn::metad_command();
        command.args(["guardian", "--etcd-endpoints", &etcd.endpoint(0), "--socket"]).arg(socket(folder));
        command.current_dir(folder).stdout(Stdio::null()).stderr(file);
        Self { child: spawn::spawn(command).expect("it starts"), log }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn wait_for(&self, words: &str, times: usize) {
        wait_until(words, PATIENCE, || self.log().matches(words).count() >= times);
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A sidecar that listens, an etcd, and the folder that they share with a container.
struct World {
    etcd: EtcdCluster,
    sidecar: Sidecar,
    folder: TempDir,
}

impl World {
    fn start() -> Self {
        let (folder, etcd) = (tempfile::tempdir().expect("a folder"), EtcdCluster::start(1));
        let sidecar = Sidecar::start(folder.path(), &etcd);
        sidecar.wait_for("watching whoever connects", 1);
        Self { etcd, sidecar, folder }
    }

    /// The node in the container.
    fn contained(&self, program: &[&str]) -> Node {
        contained(self.folder.path(), &self.etcd, true, program)
    }

    /// The same, once it is watched.
    fn watched(&self, program: &[&str]) -> Node {
        let node = self.contained(program);
        self.sidecar.wait_for("watching the container of a", 1);
        node
    }
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("guardian.sock")
}

/// Node `a` in a namespace of processes, with or without somebody beside it; with a program, as its main loop.
fn contained(folder: &Path, etcd: &EtcdCluster, watched: bool, program: &[&str]) -> Node {
    let mut container = Command::new("unshare");
    container.args(["--pid", "--fork", "--kill-child", "--mount-proc"]).arg(spawn::metad_program());
    container.arg(if program.is_empty() { "serve" } else { "run" });
    container.args(["--events", "--etcd-endpoints", &etcd.endpoint(0)]);
    if !program.is_empty() {
        container.arg("--").args(program);
    }
    let mut node = NodeBuilder::new("a").etcd(etcd).lease_secs(LONG_SECS);
    if watched {
        node = node.env("METAD_NODE__GUARDIAN_SOCKET", socket(folder));
    }
    let node = node.spawn_program(container);
    node.wait_for("main_loop_started", PATIENCE);
    node
}

fn follower(etcd: &EtcdCluster) -> Node {
    let node = NodeBuilder::new("b").etcd(etcd).lease_secs(LONG_SECS).spawn();
    node.wait_for("joined", PATIENCE);
    node
}

/// Kills process 1, and the kernel all the others with it.
#[track_caller]
fn kill_container(node: &Node) {
    node.kill_within(node.init());
}

#[test]
fn a_container_that_is_killed_is_replaced_at_once_and_only_with_a_guardian_beside_it() {
    let this = a_container_that_is_killed_is_replaced_at_once_and_only_with_a_guardian_beside_it;
    if sudo::runs(this, "a namespace of processes") {
        return;
    }
    let world = World::start();
    let nodes = [world.watched(&["sleep", "1000"]), follower(&world.etcd)];
    let is_program = |pid: &u32| spawn::name_and_parent(*pid).0 == "sleep";
    let program = nodes[0].tree().into_iter().find(is_program).expect("the program runs");
    kill_container(&nodes[0]);
    assert_second_leads(&nodes);
    assert!(!Path::new(&format!("/proc/{program}")).exists(), "nothing was left when the lease was revoked");
    world.sidecar.wait_for("the container of a has ended", 1);
    drop(nodes);

    let other = EtcdCluster::start(1);
    let nodes = [contained(world.folder.path(), &other, false, &[]), follower(&other)];
    kill_container(&nodes[0]);
    assert!(
        !holds_within(Duration::from_secs(2), || leads(&nodes[1])),
        "twin: without it the lease has to end"
    );
}

#[test]
fn a_guardian_beside_a_container_that_is_killed_revokes_nothing_and_is_told_again() {
    let this = a_guardian_beside_a_container_that_is_killed_revokes_nothing_and_is_told_again;
    if sudo::runs(this, "a namespace of processes") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let etcd = EtcdCluster::start(1);
    // It comes after its node, goes, and comes again.
    let nodes = [contained(folder.path(), &etcd, true, &[]), follower(&etcd)];
    assert!(nodes[0].stderr().contains("no guardian at"), "{}", nodes[0].stderr());
    let mut sidecar = Sidecar::start(folder.path(), &etcd);
    sidecar.wait_for("watching the container of a", 1);
    sidecar.kill();
    assert!(
        !holds_within(Duration::from_secs(1), || !leads(&nodes[0])),
        "it revokes nothing: {}",
        report(&nodes)
    );
    let sidecar = Sidecar::start(folder.path(), &etcd);
    sidecar.wait_for("watching the container of a", 2);
    // A second one is refused, and the first one goes on.
    let endpoint = etcd.endpoint(0);
    let at = |socket: &Path| {
        let socket = socket.display().to_string();
        let (code, _, said) =
            spawn::metad(&["guardian", "--etcd-endpoints", &endpoint, "--socket", &socket], PATIENCE);
        (code, said)
    };
    let (code, said) = at(&socket(folder.path()));
    assert!(code == 73 && said.contains("another guardian listens"), "{code}: {said}");
    // What is no socket stays.
    let (code, said) = at(&sidecar.log);
    assert!(code == 74 && said.contains("cannot listen at"), "{code}: {said}");
    assert!(sidecar.log().contains("watching whoever connects"), "the file is still there");
    kill_container(&nodes[0]);
    assert_second_leads(&nodes);
}

#[test]
fn a_clean_stop_leaves_a_guardian_beside_it_nothing_to_do() {
    let this = a_clean_stop_leaves_a_guardian_beside_it_nothing_to_do;
    if sudo::runs(this, "a namespace of processes") {
        return;
    }
    let world = World::start();
    let nodes = [world.watched(&[]), follower(&world.etcd)];
    spawn::signal(nodes[0].init(), Signal::TERM);
    assert_eq!(nodes[0].wait_exit(PATIENCE), 0, "{}", nodes[0].report());
    assert_second_leads(&nodes);
    assert!(!world.sidecar.log().contains("has ended"), "{}", world.sidecar.log());
}

/// What it was told waits in the socket while it stands still; that its process is dead by then is the very reason to act.
#[test]
fn a_guardian_beside_a_container_that_hears_of_it_too_late_revokes_all_the_same() {
    let this = a_guardian_beside_a_container_that_hears_of_it_too_late_revokes_all_the_same;
    if sudo::runs(this, "a namespace of processes") {
        return;
    }
    let world = World::start();
    spawn::signal(world.sidecar.child.id(), Signal::STOP);
    let nodes = [world.contained(&[]), follower(&world.etcd)];
    kill_container(&nodes[0]);
    assert!(!holds_within(Duration::from_secs(1), || leads(&nodes[1])), "twin: nobody could revoke");
    spawn::signal(world.sidecar.child.id(), Signal::CONT);
    assert_second_leads(&nodes);
}

#[test]
fn a_guardian_beside_a_container_ends_on_sigterm_though_its_store_is_away() {
    let this = a_guardian_beside_a_container_ends_on_sigterm_though_its_store_is_away;
    if sudo::runs(this, "a namespace of processes") {
        return;
    }
    let mut world = World::start();
    let node = world.watched(&[]);
    world.etcd.pause_all();
    kill_container(&node);
    world.sidecar.wait_for("the container of a has ended", 1);
    spawn::signal(world.sidecar.child.id(), Signal::TERM);
    wait_until("it ends", PATIENCE, || world.sidecar.child.try_wait().is_ok_and(|ended| ended.is_some()));
    world.etcd.resume_all();
}
