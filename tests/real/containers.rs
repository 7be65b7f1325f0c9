//! Real containers, by podman and runc, as root: `make containers`. The image is made from local files, and has neither a
//! shell nor an init of its own; its root is read-only, and it has no capabilities.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::crew::{PATIENCE, leads, report, slack};
use crate::support::etcd::EtcdCluster;
use crate::support::node::{Node, NodeBuilder};
use crate::support::poll::{boot_ns, holds_within, wait_until};
use crate::support::spawn;

/// A lease that no test waits for.
const LONG_SECS: u64 = 86_400;
const IMAGE: &str = "localhost/metad-test";

fn podman(args: &[&str]) -> String {
    let mut command = Command::new("podman");
    command.args(args);
    let output = spawn::output(command, PATIENCE);
    let [said, errors] =
        [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    assert!(output.status.success(), "podman {args:?}: {said}{errors}");
    said.trim().to_owned()
}

/// metad and `sleep`, with the libraries that they need, and nothing else.
fn make_image() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let root = tempfile::tempdir().expect("a folder");
        for (program, name) in [(spawn::metad_program(), "metad"), ("/bin/sleep".into(), "sleep")] {
            std::fs::copy(&program, root.path().join(name)).expect("a copy");
            let mut ldd = Command::new("ldd");
            ldd.arg(&program);
            let listed = String::from_utf8_lossy(&spawn::output(ldd, PATIENCE).stdout).into_owned();
            for library in listed.split_whitespace().filter(|word| word.starts_with('/')) {
                let target = root.path().join(&library[1..]);
                std::fs::create_dir_all(target.parent().expect("a folder")).expect("a folder");
                std::fs::copy(library, target).expect("a copy");
            }
        }
        std::fs::create_dir(root.path().join("data")).expect("a folder");
        let archive = root.path().with_extension("tar");
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(root.path()).arg("-cf").arg(&archive).arg(".");
        assert!(spawn::output(tar, PATIENCE).status.success());
        podman(&["import", &archive.display().to_string(), IMAGE]);
        let _ = std::fs::remove_file(archive);
    });
}

struct Container {
    name: String,
    data: tempfile::TempDir,
}

/// How each container is run.
const RUN: [&str; 14] = [
    "run",
    "--detach",
    "--network",
    "host",
    "--read-only",
    "--cap-drop",
    "ALL",
    "--ulimit",
    "nofile=1024:1024",
    "--ulimit",
    "nproc=1000:1000",
    "--security-opt",
    "no-new-privileges",
    "--name",
];

impl Container {
    /// Node `a` in a container of its own; with a program, as its main loop.
    fn start(name: &str, etcd: &EtcdCluster, lease_secs: u64, program: &[&str]) -> Self {
        Self::start_beside(None, name, etcd, lease_secs, program)
    }

    /// The same, with the volume where a guardian beside it has its socket.
    fn start_beside(
        sockets: Option<&str>,
        name: &str,
        etcd: &EtcdCluster,
        lease_secs: u64,
        program: &[&str],
    ) -> Self {
        make_image();
        let container =
            Self { name: format!("metad-test-{name}"), data: tempfile::tempdir().expect("a folder") };
        let volume = format!("{}:/data", container.data.path().display());
        let verb = if program.is_empty() { "serve" } else { "run" };
        let (endpoint, lease) = (etcd.endpoint(0), lease_secs.to_string());
        let mut args = [&RUN[..], &[&container.name, "--volume", &volume]].concat();
        if let Some(sockets) = sockets {
            args.extend([
                "--volume",
                sockets,
                "--env",
                "METAD_NODE__GUARDIAN_SOCKET=/run/metad/guardian.sock",
            ]);
        }
        args.extend([IMAGE, "/metad", verb]);
        args.extend([
            "--node-id",
            "a",
            "--data-dir",
            "/data/a",
            "--etcd-endpoints",
            &endpoint,
            "--cluster",
            "containers",
        ]);
        args.extend([
            "--listen-addr",
            "127.0.0.1:0",
            "--http-addr",
            "127.0.0.1:0",
            "--meta-leader-lease-secs",
            &lease,
        ]);
        if !program.is_empty() {
            args.push("--");
            args.extend(program);
        }
        podman(&args);
        wait_until("it leads", PATIENCE, || container.log().contains("main_loop_started"));
        container
    }

    /// The guardian beside the others, with its socket on this volume.
    fn guardian(sockets: &str, etcd: &EtcdCluster) -> Self {
        make_image();
        let data = tempfile::tempdir().expect("a folder");
        let container = Self { name: "metad-test-guardian".to_owned(), data };
        let endpoint = etcd.endpoint(0);
        let own = [
            &container.name,
            "--volume",
            sockets,
            IMAGE,
            "/metad",
            "guardian",
            "--socket",
            "/run/metad/guardian.sock",
        ];
        podman(&[&RUN[..], &own, &["--etcd-endpoints", &endpoint]].concat());
        wait_until("it listens", PATIENCE, || container.log().contains("watching whoever connects"));
        container
    }

    fn log(&self) -> String {
        let mut logs = Command::new("podman");
        logs.args(["logs", &self.name]);
        let output = spawn::output(logs, PATIENCE);
        [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).concat()
    }

    /// Its process 1, as the host numbers it.
    fn init(&self) -> u32 {
        podman(&["inspect", "--format", "{{.State.Pid}}", &self.name]).parse().expect("a process id")
    }

    /// The node: the child of process 1.
    fn node(&self) -> u32 {
        let init = self.init();
        let children =
            std::fs::read_to_string(format!("/proc/{init}/task/{init}/children")).expect("it lives");
        children.split_whitespace().next().and_then(|pid| pid.parse().ok()).expect("a child")
    }

    fn exit_code(&self) -> i32 {
        podman(&["wait", &self.name]).parse().expect("a code")
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = Command::new("podman").args(["rm", "--force", "--time", "0", &self.name]).output();
    }
}

/// A member on the host, which follows.
fn follower(etcd: &EtcdCluster, lease_secs: u64) -> Node {
    let node = NodeBuilder::new("b")
        .endpoints([etcd.endpoint(0)])
        .cluster("containers")
        .lease_secs(lease_secs)
        .spawn();
    node.wait_for("joined", PATIENCE);
    node
}

#[track_caller]
fn assert_leads(node: &Node) {
    assert!(holds_within(PATIENCE, || leads(node)), "nobody took over\n{}", node.report());
}

fn runs(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
#[ignore = "make containers"]
fn a_node_that_is_killed_in_its_container_is_replaced_at_once() {
    let etcd = EtcdCluster::start(1);
    let container = Container::start("killed", &etcd, LONG_SECS, &[]);
    let next = follower(&etcd, LONG_SECS);
    let killed_ns = boot_ns();
    spawn::signal(container.node(), rustix::process::Signal::KILL);
    assert_leads(&next);
    let started = next.wait_for("main_loop_started", PATIENCE);
    println!("another main loop {:.1?} after the kill", Duration::from_nanos(started.at_ns() - killed_ns));
    assert_eq!(container.exit_code(), 137, "{}", container.log());
}

#[test]
#[ignore = "make containers"]
fn a_container_that_is_stopped_hands_over() {
    let etcd = EtcdCluster::start(1);
    let container = Container::start("stopped", &etcd, LONG_SECS, &[]);
    let next = follower(&etcd, LONG_SECS);
    podman(&["stop", &container.name]);
    assert_leads(&next);
    assert_eq!(container.exit_code(), 0, "{}", container.log());
    assert!(container.log().contains("leadership_resigned"), "{}", container.log());
}

/// The program and all of its container are gone, whatever the lease, before another leads.
#[test]
#[ignore = "make containers"]
fn a_container_that_is_killed_with_a_guardian_beside_it_is_replaced_at_once() {
    let etcd = EtcdCluster::start(1);
    let folder = tempfile::tempdir().expect("a folder");
    let sockets = format!("{}:/run/metad", folder.path().display());
    let _guardian = Container::guardian(&sockets, &etcd);
    let mut all = Vec::new();
    for round in 0..20 {
        let name = format!("beside-{round}");
        let container = Container::start_beside(Some(&sockets), &name, &etcd, LONG_SECS, &["/sleep", "1000"]);
        wait_until("it is watched", PATIENCE, || container.log().contains("watches this container"));
        let next = follower(&etcd, LONG_SECS);
        let killed_ns = boot_ns();
        podman(&["kill", &container.name]);
        assert_leads(&next);
        all.push(Duration::from_nanos(next.wait_for("main_loop_started", PATIENCE).at_ns() - killed_ns));
        next.signal(rustix::process::Signal::TERM);
        next.wait_exit(PATIENCE);
    }
    all.sort_unstable();
    println!("another main loop after the kill of the container, {} times: {all:.0?}", all.len());
}

/// The kernel ends all of it at once, so nobody is left to revoke.
#[test]
#[ignore = "make containers"]
fn a_container_that_is_killed_costs_its_lease() {
    let etcd = EtcdCluster::start(1);
    let lease = 5;
    let container = Container::start("ended", &etcd, lease, &[]);
    let next = follower(&etcd, lease);
    let killed_ns = boot_ns();
    podman(&["kill", &container.name]);
    assert_leads(&next);
    let started_ns = next.wait_for("main_loop_started", PATIENCE).at_ns();
    let took = Duration::from_nanos(started_ns - killed_ns);
    println!("another main loop {took:.1?} after the kill of the container, lease {lease} s");
    assert!(
        took > Duration::from_secs(3) && took < Duration::from_millis(5_500) + slack(killed_ns, started_ns),
        "{took:?}"
    );
}

#[test]
#[ignore = "make containers"]
fn a_container_that_is_paused_for_longer_than_its_lease_never_leads_again() {
    let etcd = EtcdCluster::start(1);
    let container = Container::start("paused", &etcd, 5, &[]);
    let next = follower(&etcd, 5);
    podman(&["pause", &container.name]);
    assert_leads(&next);
    podman(&["unpause", &container.name]);
    let code = container.exit_code();
    assert!([75, 76, 137].contains(&code), "{code}: {}", container.log());
    assert!(leads(&next), "{}", report(&[next]));
}

#[test]
#[ignore = "make containers"]
fn a_program_in_a_container_is_gone_before_another_leads() {
    let etcd = EtcdCluster::start(1);
    let container = Container::start("program", &etcd, LONG_SECS, &["/sleep", "1000"]);
    let next = follower(&etcd, LONG_SECS);
    let init = container.init();
    let mut of_container = Command::new("ps");
    of_container.args(["-eo", "pid,args", "--no-headers"]);
    let listed = String::from_utf8_lossy(&spawn::output(of_container, PATIENCE).stdout).into_owned();
    let program = listed.lines().find(|line| line.ends_with("/sleep 1000")).expect("the program runs");
    let program: u32 =
        program.split_whitespace().next().and_then(|pid| pid.parse().ok()).expect("a process id");
    spawn::signal(container.node(), rustix::process::Signal::KILL);
    assert_leads(&next);
    assert!(!runs(program), "it was dead before the lease was revoked");
    assert_eq!(container.exit_code(), 137);
    wait_until("nothing is left", PATIENCE, || !runs(init));
}
