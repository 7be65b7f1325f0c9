//! Two builds of metad in turns, so that whatever else the machine does falls on both: `make bench-compare OLD=path`.

use std::path::{Path, PathBuf};

use metad::proto::metad::GetRequest;
use metad::proto::metad::state_service_client::StateServiceClient;

use crate::support::etcd::EtcdCluster;
use crate::support::node::{Node, NodeBuilder, Signal};
use crate::support::poll::boot_ns;
use crate::support::spawn::{metad_program, signal};
use crate::{TIMEOUT, median, pair, started_ns};

/// How often each of the two is measured.
const ROUNDS: usize = 15;
/// How many look-ups a round makes, one after the other.
const LOOK_UPS: usize = 500;

/// Starts nodes of one build and measures something on them, in milliseconds.
type Measure = fn(&dyn Fn(&str) -> Node) -> f64;

const KINDS: [(&str, Measure); 3] = [
    ("SIGTERM to the next main loop", hand_over),
    ("kill -9 to the next main loop", kill_9),
    ("a fenced look-up", look_up),
];

/// Prints the medians of both, side by side.
pub fn compare(old: &Path) {
    let builds: [PathBuf; 2] = [old.to_owned(), metad_program()];
    let etcd = EtcdCluster::start(3);
    println!(
        "etcd {}, 3 members, {ROUNDS} rounds each, in turns; medians in ms, old and new",
        etcd.version()
    );
    for (what, measure) in KINDS {
        let mut all = [vec![], vec![]];
        for round in 0..ROUNDS {
            // Each goes first in every other round: what the one before has left behind falls on both.
            for which in [round % 2, 1 - round % 2] {
                let cluster =
                    format!("{}-{round}-{which}", what.replace(|c: char| !c.is_alphanumeric(), "-"));
                let node = |id: &str| {
                    let node = NodeBuilder::new(id).cluster(&cluster).etcd(&etcd);
                    node.program(&builds[which]).untraced().spawn()
                };
                all[which].push(measure(&node));
            }
        }
        let [old, new] = all.map(median);
        println!("{what}: {old:.2} and {new:.2}, ratio {:.2}", new / old);
    }
}

fn hand_over(node: &dyn Fn(&str) -> Node) -> f64 {
    let (first, second) = pair(node);
    let asked = boot_ns();
    first.signal(Signal::TERM);
    (started_ns(&second) - asked) as f64 / 1e6
}

fn kill_9(node: &dyn Fn(&str) -> Node) -> f64 {
    let (first, second) = pair(node);
    let killed = boot_ns();
    signal(first.pid(), Signal::KILL);
    (started_ns(&second) - killed) as f64 / 1e6
}

/// The answer is the leader's own, and still true when it leaves.
fn look_up(node: &dyn Fn(&str) -> Node) -> f64 {
    let node = node("a");
    started_ns(&node);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let at = format!("http://{}", node.rpc_addr());
        let mut state = StateServiceClient::connect(at).await.expect("it listens");
        let mut took = Vec::new();
        let begun = boot_ns();
        while took.len() < LOOK_UPS {
            let began = boot_ns();
            match state.get(GetRequest { key: "none".into() }).await {
                Ok(_) => took.push((boot_ns() - began) as f64 / 1e6),
                // Right after its start the main loop may not answer yet.
                Err(e) => assert!(u128::from(began - begun) < TIMEOUT.as_nanos(), "{e}"),
            }
        }
        median(took)
    })
}
