//! Writers that saturate an etcd with a slow disk: the leader's own writes never cost it the lease that allows them.
//!
//! The disk is slow because strace delays what etcd waits for. `METAD_FAULT_LEASE_SECS` and
//! `METAD_FAULT_SATURATE_SECS` change the lengths (`make faults`).

use std::time::{Duration, Instant};

use crate::cpus;
use crate::support::crew::{PATIENCE, assert_kept, lease, setting};
use crate::support::etcd::EtcdCluster;
use crate::support::node::{Node, NodeBuilder};
use crate::support::slow_disk::SlowDisk;
use crate::support::{http, papers, sudo};
use metad::proto::metad::state_service_client::StateServiceClient;
use metad::proto::metad::{GetRequest, PutRequest};
use metad::tls::client::Authorized;
use tonic::Code;

/// More than may be under way at once: 64.
const WRITERS: usize = 80;
/// How many writers share a connection.
const WRITERS_EACH: usize = 20;
const VALUE_BYTES: usize = 256 * 1024;
/// How long each flush of the disk takes at least.
const FLUSH: Duration = Duration::from_millis(250);
/// How soon a writer that was refused tries again.
const REFUSED_PAUSE: Duration = Duration::from_millis(50);

/// How long etcd has waited for its log to be on disk in all, in seconds, and how often.
fn flushes(etcd: &EtcdCluster) -> [f64; 2] {
    let (_, page) = http::get(etcd.addr(0), "/metrics", PATIENCE).expect("etcd has metrics");
    ["sum", "count"].map(|end| {
        let name = format!("etcd_disk_wal_fsync_duration_seconds_{end} ");
        let number = page.lines().find_map(|l| l.strip_prefix(&name)?.trim().parse().ok());
        number.unwrap_or_else(|| panic!("no {name}"))
    })
}

/// What a writer came to.
#[derive(Default)]
struct Written {
    /// The number in its last write that was acknowledged.
    last: u64,
    refused: u64,
}

/// Writes numbers, one after the other, each in a value as large as asked for.
async fn write(mut to: StateServiceClient<Authorized>, key: String, until: Instant) -> Written {
    let mut written = Written::default();
    let mut value = vec![b'x'; VALUE_BYTES];
    while Instant::now() < until {
        value[..8].copy_from_slice(&(written.last + 1).to_be_bytes());
        let put = PutRequest { key: key.clone(), value: value.clone(), expected_revision: None };
        match to.put(put).await {
            Ok(_) => written.last += 1,
            Err(status) => {
                assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
                written.refused += 1;
                tokio::time::sleep(REFUSED_PAUSE).await;
            }
        }
    }
    written
}

async fn write_all(leader: &Node, until: Instant) -> Vec<Written> {
    let mut writers = tokio::task::JoinSet::new();
    for first in (0..WRITERS).step_by(WRITERS_EACH) {
        let client = StateServiceClient::new(papers::channel(leader.rpc_addr()));
        for n in first..first + WRITERS_EACH {
            let client = client.clone();
            writers.spawn(async move { (n, write(client, format!("w/{n}"), until).await) });
        }
    }
    let mut written: Vec<_> = writers.join_all().await;
    written.sort_by_key(|(n, _)| *n);
    written.into_iter().map(|(_, written)| written).collect()
}

async fn stored(leader: &Node, n: usize) -> u64 {
    let mut client = StateServiceClient::new(papers::channel(leader.rpc_addr()));
    let found = client.get(GetRequest { key: format!("w/{n}") }).await.expect("an answer").into_inner();
    found.entry.map_or(0, |e| u64::from_be_bytes(e.value[..8].try_into().expect("eight bytes")))
}

#[test]
fn writers_that_saturate_an_etcd_with_a_slow_disk_cost_nothing() {
    let _cpu = cpus::all();
    let this = writers_that_saturate_an_etcd_with_a_slow_disk_cost_nothing;
    if !sudo::may_trace() && sudo::runs(this, "strace") {
        return;
    }
    let so_long = Duration::from_secs(setting("METAD_FAULT_SATURATE_SECS", 10));
    // Every version of a key stays: nobody compacts.
    let etcd = EtcdCluster::builder().syncs().arg("--quota-backend-bytes=8589934592").start();
    let node = |id| NodeBuilder::new(id).lease_secs(lease().as_secs()).etcd(&etcd).spawn();
    let first = node("a");
    first.wait_for("main_loop_started", PATIENCE);
    let second = node("b");
    second.wait_for("joined", PATIENCE);
    let nodes = [first, second];
    let disk = SlowDisk::under(etcd.pid(0), FLUSH);
    let before = flushes(&etcd);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let written = runtime.block_on(write_all(&nodes[0], Instant::now() + so_long));
    assert_kept(&nodes, 0, Duration::ZERO);
    let after = flushes(&etcd);
    let flush = Duration::from_secs_f64((after[0] - before[0]) / (after[1] - before[1]));
    drop(disk);
    assert_kept(&nodes, 0, Duration::from_secs(1));
    let (writes, refused): (u64, u64) =
        (written.iter().map(|w| w.last).sum(), written.iter().map(|w| w.refused).sum());
    println!("{writes} writes, {refused} refused, a flush took {flush:?}");
    assert!(flush >= FLUSH.mul_f64(0.8), "twin: the disk was slow: {flush:?}");
    assert!(writes >= 64 && refused > 0, "twin: as many as may be under way were, and more were refused");
    for (n, written) in written.iter().enumerate() {
        assert_eq!(runtime.block_on(stored(&nodes[0], n)), written.last, "what writer {n} was told is there");
    }
}
