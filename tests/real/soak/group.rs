//! Three nodes, each behind proxies of its own, on three etcd members; and the supervisor that starts them again.

use std::time::Duration;

use crate::support::etcd::EtcdCluster;
use crate::support::history::{self, Tenure};
use crate::support::node::{Node, NodeBuilder};
use crate::support::poll::holds_within;
use crate::support::proxy::FaultProxy;

const NODES: usize = 3;
/// After a fault somebody leads and everybody is there within this time on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The scene of a soak.
pub struct Group {
    places: Vec<Place>,
    etcd: EtcdCluster,
}

/// One node's place: its data dir, its ways to etcd, and all of its processes so far.
struct Place {
    builder: NodeBuilder,
    proxies: Vec<FaultProxy>,
    /// The last one is the present one. The older are kept: dropping one would kill its guardian at work.
    processes: Vec<Node>,
}

// === impl Group ===

impl Group {
    /// Starts everything and waits until the first node leads and the others follow.
    pub fn start(lease_secs: u64) -> Self {
        let etcd = EtcdCluster::start(NODES);
        let place = |n: usize| {
            let proxies: Vec<_> = (0..NODES).map(|i| FaultProxy::start(etcd.addr(i))).collect();
            let builder = NodeBuilder::new(&format!("n{n}"))
                .lease_secs(lease_secs)
                .env("METAD_META__TICK_INTERVAL_MS", "50")
                .env("METAD_META__BARRIER_INTERVAL_MS", "200")
                .endpoints(proxies.iter().map(FaultProxy::addr));
            let processes = vec![builder.spawn()];
            Place { builder, proxies, processes }
        };
        let places = (0..NODES).map(place).collect();
        let mut group = Self { places, etcd };
        group.settle("the start");
        group
    }

    /// The etcd cluster.
    pub fn etcd(&self) -> &EtcdCluster {
        &self.etcd
    }

    /// Everything that ever led, checked.
    pub fn tenures(&self) -> Vec<Tenure> {
        let traces = || self.places.iter().flat_map(|p| &p.processes).map(Node::trace).collect();
        history::check_running(traces).unwrap_or_else(|e| panic!("{e}"))
    }

    /// Why a main loop was told to stop; empty if it never was.
    pub fn reason(&self, tenure: &Tenure) -> String {
        let mut all = self.places.iter().flat_map(|p| &p.processes);
        let process = all.find(|p| p.trace().label == tenure.label);
        let events = process.map(Node::events).unwrap_or_default();
        let told = events.into_iter().find(|e| e.kind() == "main_loop_stopping");
        told.map(|e| e.str("reason").to_owned()).unwrap_or_default()
    }

    /// Which place leads.
    pub fn leader(&self) -> Option<usize> {
        (0..NODES).find(|n| leads(self.node(*n)))
    }

    /// The present process of a place.
    pub fn node(&self, n: usize) -> &Node {
        self.places[n].processes.last().expect("one was started")
    }

    /// Where the present processes answer gRPC.
    pub fn addresses(&self) -> Vec<String> {
        (0..NODES).map(|n| self.node(n).rpc_addr().to_string()).collect()
    }

    /// A place's ways to etcd.
    pub fn proxies(&self, n: usize) -> &[FaultProxy] {
        &self.places[n].proxies
    }

    /// Plays the supervisor until somebody leads and all the others follow.
    pub fn settle(&mut self, after: &str) {
        let settled = holds_within(PATIENCE, || {
            self.supervise();
            let is_there =
                |n| self.node(n).has_event("joined") && !self.node(n).has_event("main_loop_stopping");
            self.leader().is_some() && (0..NODES).all(|n| self.node(n).is_alive() && is_there(n))
        });
        assert!(settled, "nobody leads, or somebody is missing, after {after}\n{}", self.report());
    }

    /// Starts again what has ended.
    pub fn supervise(&mut self) {
        for place in &mut self.places {
            if place.processes.last().is_none_or(|p| !p.is_alive()) {
                place.processes.push(place.builder.spawn());
            }
        }
    }

    /// The ends of all logs.
    pub fn report(&self) -> String {
        (0..NODES).map(|n| self.node(n).report()).collect::<Vec<_>>().join("\n")
    }
}

fn leads(node: &Node) -> bool {
    node.is_alive() && node.has_event("main_loop_started") && !node.has_event("main_loop_stopping")
}
