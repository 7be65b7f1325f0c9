//! One member of an etcd cluster: its ports, its process, and how it looks from outside.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Child;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::Signal;

use super::network::Place;
use super::ports::Port;
use super::{http, spawn};

const PROBE_TIMEOUT: Duration = Duration::from_millis(1500);

/// A member, running or not; it keeps its ports.
#[derive(Debug)]
pub struct Member {
    /// Its name in the cluster.
    pub name: String,
    /// The machine it runs on, if not this one.
    pub place: Option<Place>,
    client: Port,
    peer: Port,
    metrics: Port,
    process: Mutex<Option<Process>>,
}

#[derive(Debug)]
struct Process {
    child: Child,
    paused: bool,
}

/// What a member believes about raft.
#[derive(Clone, Copy, Debug)]
pub struct RaftView {
    /// It leads.
    pub is_leader: bool,
    /// It follows someone, or leads.
    pub has_leader: bool,
}

impl Member {
    /// Member number `i`, with ports and without a process.
    pub fn new(i: usize, place: Option<Place>) -> Self {
        let [client, peer, metrics] = [(); 3].map(|()| Port::reserve());
        Self { name: format!("m{i}"), place, client, peer, metrics, process: Mutex::new(None) }
    }

    /// Where clients connect.
    pub fn client_addr(&self) -> SocketAddr {
        self.addr(&self.client)
    }

    /// The URL for the other members.
    pub fn peer_url(&self) -> String {
        format!("http://{}", self.addr(&self.peer))
    }

    /// Where `/health` and `/metrics` are served in plain HTTP.
    pub fn metrics_addr(&self) -> SocketAddr {
        self.addr(&self.metrics)
    }

    /// Takes charge of the member's process.
    pub fn adopt(&self, child: Child) {
        *self.process() = Some(Process { child, paused: false });
    }

    /// The process id, while there is a process.
    pub fn pid(&self) -> Option<u32> {
        self.process().as_ref().map(|process| process.child.id())
    }

    /// Does it run, unpaused?
    pub fn is_active(&self) -> bool {
        self.process().as_ref().is_some_and(|process| !process.paused)
    }

    /// How the process ended, if it did so without being killed by us.
    pub fn ended(&self) -> Option<String> {
        let status = self.process().as_mut()?.child.try_wait().ok()??;
        Some(status.to_string())
    }

    /// Sends SIGSTOP, without waiting until the process has stopped, or SIGCONT.
    pub fn set_paused(&self, paused: bool) {
        if let Some(process) = self.process().as_mut() {
            process.paused = paused;
            spawn::signal(process.child.id(), if paused { Signal::STOP } else { Signal::CONT });
        }
    }

    /// Waits until a paused member stands still.
    #[track_caller]
    pub fn wait_paused(&self) {
        let paused =
            self.process().as_ref().filter(|process| process.paused).map(|process| process.child.id());
        paused.into_iter().for_each(spawn::wait_stopped);
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(&self) {
        if let Some(mut process) = self.process().take() {
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
    }

    /// Does it say that it can serve a linearizable read?
    pub fn is_healthy(&self) -> bool {
        let health = http::get(self.metrics_addr(), "/health", PROBE_TIMEOUT);
        health.is_ok_and(|(status, body)| status == 200 && body.contains(r#""health":"true""#))
    }

    /// What it says about raft; `None` when it does not answer.
    pub fn raft_view(&self) -> Option<RaftView> {
        let (_, metrics) = http::get(self.metrics_addr(), "/metrics", PROBE_TIMEOUT).ok()?;
        let is_one = |name: &str| metrics.lines().any(|line| line.strip_prefix(name) == Some(" 1"));
        let (is_leader, has_leader) = (is_one("etcd_server_is_leader"), is_one("etcd_server_has_leader"));
        Some(RaftView { is_leader, has_leader })
    }

    fn addr(&self, port: &Port) -> SocketAddr {
        let ip = self.place.as_ref().map_or(Ipv4Addr::LOCALHOST, |place| place.ip);
        (IpAddr::V4(ip), port.number()).into()
    }

    /// Usable from `Drop` in a panicking test, hence indifferent to poison.
    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
