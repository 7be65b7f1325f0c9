//! Machines that are only network namespaces: each with an address of its own, all on one switch that can be split.
//!
//! The switch is a bridge in one more namespace, which the thread of the test enters, so that it can ask every
//! etcd how it is. Nothing of the machine's own network is touched, and two tests may use the same addresses.
//! What is cut off keeps its link and its address: packets vanish, as behind a switch that fails.
//!
//! Needs root (see [`sudo`](super::sudo)) and iproute2. Without them this panics: a test that cannot see a partition must
//! not pass.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{install, spawn};

const NEEDS: &str = "partitions need network namespaces: run the tests as root (in a container: with \
     CAP_NET_ADMIN and CAP_SYS_ADMIN), with iproute2 installed (`apt-get install iproute2`)";
const PREFIX: &str = "metad-test-";
const TIMEOUT: Duration = Duration::from_secs(60);
/// The switch, and the one that cut-off machines are moved to.
const MAIN: &str = "main";
const ASIDE: &str = "aside";

/// Machines on a switch; all of it is gone on drop.
#[derive(Debug)]
pub struct Network {
    hub: String,
    places: Vec<Place>,
    home: File,
}

/// One machine, to start processes on.
#[derive(Clone, Debug)]
pub struct Place {
    name: String,
    namespace: Arc<File>,
    /// Its address.
    pub ip: Ipv4Addr,
}

// === impl Network ===

impl Network {
    /// So many machines, connected; moves the calling thread to the switch, from where it reaches them all.
    #[track_caller]
    pub fn start(machines: u8) -> Self {
        assert!(install::on_path("ip").is_some(), "no `ip` found; {NEEDS}");
        sweep();
        let home = open("/proc/thread-self/ns/net");
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = format!("{PREFIX}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let hub = format!("{id}-hub");
        add_namespace(&hub);
        // From here on a panic cleans up.
        let mut network = Self { hub, places: Vec::new(), home };
        network.on_hub(&["link", "set", "lo", "up"]); // ports are reserved on it
        for bridge in [MAIN, ASIDE] {
            network.on_hub(&["link", "add", bridge, "type", "bridge", "forward_delay", "0"]);
            network.on_hub(&["link", "set", bridge, "up"]);
        }
        network.on_hub(&["address", "add", "10.0.0.254/24", "dev", MAIN]);
        (1..=machines).for_each(|number| network.add_machine(&format!("{id}-{number}"), number));
        enter(&open(&format!("/run/netns/{}", network.hub)));
        network
    }

    /// Machine `i`.
    pub fn place(&self, i: usize) -> &Place {
        &self.places[i]
    }

    /// Several machines.
    pub fn places(&self, range: std::ops::Range<usize>) -> Vec<Place> {
        self.places[range].to_vec()
    }

    /// Cuts these machines off from all others; they still reach each other.
    pub fn cut_off(&self, machines: &[usize]) {
        machines.iter().for_each(|i| self.plug(*i, ASIDE));
    }

    /// Puts all machines on one switch again.
    pub fn heal(&self) {
        (0..self.places.len()).for_each(|i| self.plug(i, MAIN));
    }

    fn plug(&self, i: usize, bridge: &str) {
        self.on_hub(&["link", "set", &format!("port{}", i + 1), "master", bridge]);
    }

    fn add_machine(&mut self, name: &str, number: u8) {
        add_namespace(name);
        let namespace = Arc::new(open(&format!("/run/netns/{name}")));
        let place = Place { name: name.to_owned(), namespace, ip: Ipv4Addr::new(10, 0, 0, number) };
        self.places.push(place);
        let (port, address) = (format!("port{number}"), format!("10.0.0.{number}/24"));
        self.on_hub(&["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", name]);
        self.on_hub(&["link", "set", &port, "master", MAIN, "up"]);
        ip(&["-n", name, "link", "set", "lo", "up"]);
        ip(&["-n", name, "address", "add", &address, "dev", "eth0"]);
        ip(&["-n", name, "link", "set", "eth0", "up"]);
    }

    fn on_hub(&self, args: &[&str]) {
        ip(&[&["-n", &self.hub], args].concat());
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // The thread may be the harness's own, which goes on with another test.
        let _ = move_into_link_name_space(self.home.as_fd(), Some(LinkNameSpaceType::Network));
        for name in self.places.iter().map(|place| &place.name).chain([&self.hub]) {
            delete_namespace(name);
        }
    }
}

// === impl Place ===

impl Place {
    /// Makes `command` run on this machine.
    pub fn enter(&self, command: &mut Command) {
        let namespace = self.namespace.clone();
        // SAFETY: the closure makes one system call and neither allocates nor locks.
        unsafe {
            command.pre_exec(move || {
                Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
            });
        }
    }
}

fn open(path: &str) -> File {
    File::open(path).unwrap_or_else(|e| panic!("{path}: {e}; {NEEDS}"))
}

fn enter(namespace: &File) {
    let entered = move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network));
    entered.unwrap_or_else(|e| panic!("cannot enter a network namespace: {e}; {NEEDS}"));
}

#[track_caller]
fn ip(args: &[&str]) {
    let mut command = Command::new("ip");
    command.args(args);
    let output = spawn::output(command, TIMEOUT);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {}: {}; {NEEDS}", args.join(" "), stderr.trim());
}

#[track_caller]
fn add_namespace(name: &str) {
    ip(&["netns", "add", name]);
}

fn delete_namespace(name: &str) {
    let mut command = Command::new("ip");
    command.args(["netns", "delete", name]);
    let _ = spawn::output(command, TIMEOUT); // what is left, the next start sweeps
}

/// Deletes what tests left behind that were killed.
fn sweep() {
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()).unwrap_or_default();
        if !owner.is_empty() && !fs::exists(format!("/proc/{owner}")).unwrap_or(true) {
            delete_namespace(&name);
        }
    }
}
