//! The fence: where nothing else protects, the store itself refuses the writes of an old leader.

use std::time::Duration;

use crate::support::crew::PATIENCE;
use crate::support::etcd::EtcdCluster;
use crate::support::fenced;
use crate::support::node::{Node, NodeBuilder};
use crate::support::proxy::FaultProxy;
use metad::proto::metad::state_service_client::StateServiceClient;
use metad::proto::metad::{PutRequest, PutResponse};
use tonic::{Code, Status};

const LEASE_SECS: u64 = 5;
const KEY: &str = "/metad/default/state/user/held";

/// A node without a guardian: nobody ends it while it is stopped.
fn unguarded(id: &str) -> NodeBuilder {
    NodeBuilder::new(id).lease_secs(LEASE_SECS).env("METAD_NODE__GUARDIAN", "false")
}

/// A leader behind a proxy and a follower of it, and a write that the proxy holds; a twin of it has landed before.
struct Held {
    old: Node,
    new: Node,
    proxy: FaultProxy,
    write: tokio::task::JoinHandle<Result<tonic::Response<PutResponse>, Status>>,
    runtime: tokio::runtime::Runtime,
    etcd: EtcdCluster,
}

impl Held {
    fn new() -> Self {
        let etcd = EtcdCluster::start(1);
        let proxy = FaultProxy::start(etcd.addr(0));
        let old = unguarded("a").endpoints([proxy.addr()]).spawn();
        old.wait_for("main_loop_started", PATIENCE);
        let new = unguarded("b").etcd(&etcd).spawn();
        new.wait_for("joined", PATIENCE);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        let url = format!("http://{}", old.rpc_addr());
        let mut client = runtime.block_on(StateServiceClient::connect(url)).expect("it listens");
        let put =
            |value: &str| PutRequest { key: "held".into(), value: value.into(), expected_revision: None };
        runtime.block_on(client.put(put("before"))).expect("twin: the same write, not held, lands");
        proxy.hold_requests();
        let write = runtime.spawn(async move { client.put(put("too late")).await });
        std::thread::sleep(Duration::from_millis(300));
        Self { old, new, proxy, write, runtime, etcd }
    }

    /// etcd gets the write now that another member leads, and has had the time to do it.
    fn release(&self) {
        self.new.wait_for("main_loop_started", PATIENCE);
        self.proxy.release();
        std::thread::sleep(Duration::from_secs(1));
        let stored = self.etcd.etcdctl_ok(&["get", "--print-value-only", KEY]);
        assert_eq!(stored.trim(), "before", "etcd has refused it");
    }

    fn check(&self) {
        // Two main loops overlap here, on purpose; what they wrote does not.
        let writes = fenced::check(&self.etcd, "default", &[]).unwrap_or_else(|e| panic!("{e}"));
        assert!(writes.fenced > 0 && writes.tokens.len() == 2, "{writes:?}");
    }
}

/// The guardian is off, and a fuse cannot fire in a process that stands still: the kernel timer ends it (137), and the
/// fence refuses what it had already sent.
#[test]
fn a_leader_that_freezes_in_the_middle_of_a_write_for_three_leases_writes_nothing() {
    let held = Held::new();
    held.old.pause();
    std::thread::sleep(Duration::from_secs(3 * LEASE_SECS));
    held.release();
    held.old.resume();
    assert!([75, 76, 137].contains(&held.old.wait_exit(PATIENCE)), "{}", held.old.report());
    held.check();
}

/// The lease is revoked by hand, so that another member leads while the old leader still believes in its own.
#[test]
fn a_write_that_arrives_after_the_next_leaders_claim_is_refused_and_shown() {
    let mut held = Held::new();
    let lease = held.old.wait_for("joined", PATIENCE).str("lease").to_owned();
    // It stands still meanwhile: it hears of the deletion and of the refusal at once, and not of the deletion first,
    // for which it would end before the write has arrived.
    held.old.pause();
    held.etcd.etcdctl_ok(&["lease", "revoke", &lease]);
    held.release();
    held.old.resume();
    let refusal = held.runtime.block_on(&mut held.write).expect("no panic").expect_err("it did not happen");
    assert_eq!(refusal.code(), Code::FailedPrecondition, "{refusal:?}");
    held.old.wait_for("write_fenced", PATIENCE);
    assert_eq!(held.old.wait_exit(PATIENCE), 75, "{}", held.old.report());
    assert!(held.old.stderr().contains("a write was refused"), "{}", held.old.report());
    held.check();
}
