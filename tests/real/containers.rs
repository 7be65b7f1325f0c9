//! Real containers, by Docker and by podman (`make containers`): the image that `config/Dockerfile` builds, and the
//! cluster of `docker-compose.yml`. The image has neither a shell nor an init of its own; its root is read-only, it has
//! no capabilities and is not root.

mod compose;
mod engine;
mod programs;
mod stack;

use std::time::Duration;

use crate::support::crew::{PATIENCE, leads, report, slack};
use crate::support::etcd::EtcdCluster;
use crate::support::node::{Node, NodeBuilder, Signal};
use crate::support::poll::{boot_ns, holds_within, wait_until};
use crate::support::{sealed, spawn};
use engine::{Engine, IMAGE};

/// A lease that no test waits for.
const LONG_SECS: u64 = 86_400;
/// The volume where a guardian beside them has its socket.
const SOCKETS: &str = "sockets:/run/metad";
const SOCKET: &str = "/run/metad/guardian.sock";

/// How each container is run.
const RUN: [&str; 13] = [
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
];

struct Container {
    engine: Engine,
    name: String,
    id: String,
}

/// How to start a node in a container.
struct Setup<'a> {
    engine: Engine,
    etcd: &'a EtcdCluster,
    lease_secs: u64,
    /// Is there a guardian beside it?
    watched: bool,
    /// The main loop, and more words for the engine that it needs.
    program: &'a [String],
    more: &'a [String],
}

impl<'a> Setup<'a> {
    fn new(engine: Engine, etcd: &'a EtcdCluster) -> Self {
        Self { engine, etcd, lease_secs: LONG_SECS, watched: false, program: &[], more: &[] }
    }

    /// Node `id` in a container of its own.
    fn start(&self, id: &str) -> Container {
        let mut args: Vec<&str> = Vec::new();
        if self.watched {
            args.extend([
                "--volume",
                SOCKETS,
                "--env",
                "METAD_NODE__GUARDIAN_SOCKET=/run/metad/guardian.sock",
            ]);
        }
        args.extend(self.more.iter().map(String::as_str));
        args.extend([IMAGE, if self.program.is_empty() { "serve" } else { "run" }]);
        let (endpoint, lease) = (self.etcd.endpoint(0), self.lease_secs.to_string());
        args.extend(["--node-id", id, "--etcd-endpoints", &endpoint, "--cluster", "containers"]);
        args.extend(["--listen-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0"]);
        args.extend(["--meta-leader-lease-secs", &lease]);
        if !self.program.is_empty() {
            args.push("--");
            args.extend(self.program.iter().map(String::as_str));
        }
        Container::run(self.engine, id, &args)
    }

    /// The same, once it leads and is watched by whoever is beside it.
    fn leader(&self) -> Container {
        let container = self.start("a");
        wait_until("it leads", PATIENCE, || container.log().contains("main_loop_started"));
        if self.watched {
            container.wait_watched();
        }
        container
    }
}

impl Container {
    fn run(engine: Engine, name: &str, args: &[&str]) -> Self {
        let name = format!("metad-test-{name}");
        let id = engine.call(&[&RUN[..], &["--name", &name], args].concat());
        Self { engine, name, id }
    }

    /// The guardian beside the others.
    fn guardian(engine: Engine, etcd: &EtcdCluster) -> Self {
        let endpoint = etcd.endpoint(0);
        let command = ["guardian", "--socket", SOCKET, "--etcd-endpoints", &endpoint];
        let container =
            Self::run(engine, "guardian", &[&["--volume", SOCKETS, IMAGE][..], &command].concat());
        wait_until("it listens", PATIENCE, || container.log().contains("watching whoever connects"));
        container
    }

    fn wait_watched(&self) {
        wait_until("it is watched", PATIENCE, || self.log().contains("watches this container"));
    }

    fn call(&self, verb: &str) -> String {
        self.engine.call(&[verb, &self.name])
    }

    fn log(&self) -> String {
        self.engine.log(&self.id)
    }

    /// Its process 1, as the host numbers it.
    fn init(&self) -> u32 {
        self.engine.init(&self.id)
    }

    fn node(&self) -> u32 {
        self.engine.node(&self.id)
    }

    fn exit_code(&self) -> i32 {
        self.call("wait").parse().expect("a code")
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}: {}", self.name, self.log());
        }
        self.engine.call(&["rm", "--force", "--volumes", &self.id]);
    }
}

/// A member on the host, which follows.
fn follower(etcd: &EtcdCluster, lease_secs: u64) -> Node {
    let node = NodeBuilder::new("b").etcd(etcd).cluster("containers").lease_secs(lease_secs).spawn();
    node.wait_for("joined", PATIENCE);
    node
}

/// How long after this instant it leads.
#[track_caller]
fn led_after(node: &Node, since_ns: u64) -> Duration {
    assert!(holds_within(PATIENCE, || leads(node)), "nobody took over\n{}", node.report());
    Duration::from_nanos(node.wait_for("main_loop_started", PATIENCE).at_ns() - since_ns)
}

#[test]
#[ignore = "make containers"]
fn a_node_that_is_killed_in_its_container_is_replaced_at_once() {
    if sealed::runs(a_node_that_is_killed_in_its_container_is_replaced_at_once) {
        return;
    }
    for engine in Engine::both() {
        let etcd = EtcdCluster::start(1);
        let container = Setup::new(engine, &etcd).leader();
        let next = follower(&etcd, LONG_SECS);
        let killed_ns = boot_ns();
        spawn::signal(container.node(), Signal::KILL);
        println!("{engine:?}: another main loop {:.1?} after the kill", led_after(&next, killed_ns));
        assert_eq!(container.exit_code(), 137, "{}", container.log());
    }
}

#[test]
#[ignore = "make containers"]
fn a_container_that_is_stopped_hands_over() {
    if sealed::runs(a_container_that_is_stopped_hands_over) {
        return;
    }
    for engine in Engine::both() {
        let etcd = EtcdCluster::start(1);
        let container = Setup::new(engine, &etcd).leader();
        let next = follower(&etcd, LONG_SECS);
        container.call("stop");
        led_after(&next, 0);
        assert_eq!(container.exit_code(), 0, "{}", container.log());
        assert!(container.log().contains("leadership_resigned"), "{}", container.log());
    }
}

/// The kernel ends all of it at once, so nobody is left to revoke.
#[test]
#[ignore = "make containers"]
fn a_container_that_is_killed_costs_its_lease() {
    if sealed::runs(a_container_that_is_killed_costs_its_lease) {
        return;
    }
    for engine in Engine::both() {
        let etcd = EtcdCluster::start(1);
        let lease_secs = 5;
        let container = Setup { lease_secs, ..Setup::new(engine, &etcd) }.leader();
        let next = follower(&etcd, lease_secs);
        let killed_ns = boot_ns();
        container.call("kill");
        let took = led_after(&next, killed_ns);
        println!("{engine:?}: another main loop {took:.1?} after the kill of the container, lease 5 s");
        let most = Duration::from_millis(5_500) + slack(killed_ns, boot_ns());
        assert!(took > Duration::from_secs(3) && took < most, "{took:?}");
    }
}

#[test]
#[ignore = "make containers"]
fn a_container_that_is_killed_with_a_guardian_beside_it_is_replaced_at_once() {
    if sealed::runs(a_container_that_is_killed_with_a_guardian_beside_it_is_replaced_at_once) {
        return;
    }
    for engine in Engine::both() {
        let etcd = EtcdCluster::start(1);
        let _guardian = Container::guardian(engine, &etcd);
        let mut all = Vec::new();
        for _ in 0..20 {
            let container = Setup { watched: true, ..Setup::new(engine, &etcd) }.leader();
            let next = follower(&etcd, LONG_SECS);
            let killed_ns = boot_ns();
            container.call("kill");
            all.push(led_after(&next, killed_ns));
            next.signal(Signal::TERM);
            next.wait_exit(PATIENCE);
        }
        all.sort_unstable();
        println!("{engine:?}: another main loop after `kill` was called, {} of 20: {all:.0?}", all.len());
    }
}

#[test]
#[ignore = "make containers"]
fn a_container_that_is_paused_for_longer_than_its_lease_never_leads_again() {
    if sealed::runs(a_container_that_is_paused_for_longer_than_its_lease_never_leads_again) {
        return;
    }
    for engine in Engine::both() {
        let etcd = EtcdCluster::start(1);
        let lease_secs = 5;
        let container = Setup { lease_secs, ..Setup::new(engine, &etcd) }.leader();
        let next = follower(&etcd, lease_secs);
        container.call("pause");
        led_after(&next, 0);
        container.call("unpause");
        let code = container.exit_code();
        assert!([75, 76, 137].contains(&code), "{code}: {}", container.log());
        assert!(leads(&next), "{}", report(&[next]));
    }
}
