//! The good calls that stand beside the bad ones, and what they must find unharmed.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::body::Body;
use metad::proto::meta::MembersRequest as MetaMembersRequest;
use metad::proto::meta::meta_member_service_client::MetaMemberServiceClient;
use metad::proto::metad::barrier_event::Event;
use metad::proto::metad::barrier_service_client::BarrierServiceClient;
use metad::proto::metad::cluster_service_client::ClusterServiceClient;
use metad::proto::metad::election_service_client::ElectionServiceClient;
use metad::proto::metad::state_service_client::StateServiceClient;
use metad::proto::metad::{
    BarrierCollected, BarrierEvent, DeleteRequest, DeregisterRequest, FreezeRequest, GetRequest,
    HeartbeatRequest, KeyValue, LeaderRequest, ListRequest, MembersRequest, ObserveRequest, PrepareRequest,
    PutRequest, RangeRequest, RegisterRequest, SetPriorityRequest, StateWatchRequest, TxnRequest,
    UnfreezeRequest, WatchRequest, Worker,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

use super::rows::put_change;
use crate::support::crew::PATIENCE;
use crate::support::node::Node;

/// Runs a test's calls; the nodes are driven by the test's own thread.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(PATIENCE * 4, future).await.expect("in time") })
}

/// A member's services.
#[derive(Clone)]
pub struct Services {
    pub election: ElectionServiceClient<Channel>,
    pub cluster: ClusterServiceClient<Channel>,
    pub barriers: BarrierServiceClient<Channel>,
    pub state: StateServiceClient<Channel>,
    pub meta: MetaMemberServiceClient<Channel>,
}

/// What must not change.
#[derive(Debug, PartialEq)]
pub struct Kept {
    pub token: u64,
    pub state: Vec<KeyValue>,
    pub workers: Vec<Worker>,
}

/// A worker's end of its barrier stream.
pub struct Stream {
    pub id: u64,
    reports: mpsc::Sender<BarrierCollected>,
    pub events: Streaming<BarrierEvent>,
}

// === impl Services ===

impl Services {
    pub async fn of(node: &Node) -> Self {
        Self::with(node, |endpoint| endpoint).await
    }

    pub async fn with(node: &Node, set: impl FnOnce(Endpoint) -> Endpoint) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{}", node.rpc_addr())).expect("an address");
        let channel = set(endpoint).connect().await.expect("it listens");
        Self {
            election: ElectionServiceClient::new(channel.clone()),
            cluster: ClusterServiceClient::new(channel.clone()),
            barriers: BarrierServiceClient::new(channel.clone()),
            state: StateServiceClient::new(channel.clone()),
            meta: MetaMemberServiceClient::new(channel),
        }
    }

    /// The main loop of a leader that has just started may not answer yet.
    pub async fn register(&mut self, port: u32) -> u64 {
        loop {
            match self.cluster.register(worker(port)).await {
                Ok(answer) => return answer.into_inner().worker_id,
                Err(s) if s.code() == Code::Unavailable => {
                    tokio::time::sleep(Duration::from_millis(20)).await
                }
                Err(s) => panic!("{s:?}"),
            }
        }
    }

    pub async fn kept(&mut self) -> Kept {
        let leader = self.election.leader(LeaderRequest {}).await.expect("an answer").into_inner().leader;
        let workers = self.cluster.list(ListRequest::default()).await.expect("a list").into_inner().workers;
        Kept { token: leader.expect("somebody leads").token, state: self.all("").await, workers }
    }

    /// All keys with this prefix, page by page.
    pub async fn all(&mut self, prefix: &str) -> Vec<KeyValue> {
        let mut all: Vec<KeyValue> = Vec::new();
        loop {
            let after = all.last().map_or(String::new(), |kv| kv.key.clone());
            let page = RangeRequest { prefix: prefix.into(), after, limit: 0 };
            let page = self.state.range(page).await.expect("a page").into_inner();
            all.extend(page.entries);
            if !page.more {
                return all;
            }
        }
    }

    /// Good calls, of every RPC that takes arguments but StepDown, which would end the test.
    pub async fn call_all(&mut self) {
        let leader = self.election.leader(LeaderRequest {}).await.expect("Leader").into_inner();
        let me = leader.answerer.expect("who answers").node;
        let members = self.election.members(MembersRequest {}).await.expect("Members").into_inner();
        let mut observed = self.election.observe(ObserveRequest {}).await.expect("Observe").into_inner();
        observed.message().await.expect("a state").expect("one");
        self.election.prepare(PrepareRequest { token: 1 }).await.expect("Prepare");
        let freeze = FreezeRequest { reason: "a test".into(), for_secs: 60, replace: false };
        self.election.freeze(freeze).await.expect("Freeze");
        let ended = self.election.unfreeze(UnfreezeRequest {}).await.expect("Unfreeze").into_inner().ended;
        assert_eq!(ended.map(|freeze| freeze.reason), Some("a test".to_owned()));
        let me = members.members.iter().find(|m| m.node == me).expect("it is registered");
        let same = SetPriorityRequest { node: me.node.clone(), priority: me.priority };
        let before = self.election.set_priority(same).await.expect("SetPriority").into_inner().before;
        assert_eq!(before, Some(me.priority));
        let meta = self.meta.members(MetaMembersRequest {}).await.expect("Members").into_inner().members;
        assert_eq!(meta.len(), members.members.len());
        self.call_cluster().await;
        self.call_state().await;
    }

    async fn call_cluster(&mut self) {
        let id = self.register(9_999).await;
        self.cluster.heartbeat(HeartbeatRequest { worker_id: id }).await.expect("Heartbeat");
        let mut watch = self.cluster.watch(WatchRequest {}).await.expect("Watch").into_inner();
        let first = watch.message().await.expect("the list").expect("one");
        assert!(first.workers.iter().any(|w| w.id == id));
        let mut stream = Stream::open(self, id).await;
        let epoch = stream.barrier().await;
        stream.report(id, epoch).await;
        stream.committed(epoch).await;
        self.cluster.deregister(DeregisterRequest { worker_id: id }).await.expect("Deregister");
    }

    async fn call_state(&mut self) {
        let watch = StateWatchRequest { prefix: "good/".into(), start_revision: 0 };
        let mut changes = self.state.watch(watch).await.expect("Watch").into_inner();
        changes.message().await.expect("the beginning").expect("one");
        let put = PutRequest { key: "good/a".into(), value: b"v".to_vec(), expected_revision: None };
        let revision = self.state.put(put).await.expect("Put").into_inner().mod_revision;
        let seen = changes.message().await.expect("the change").expect("one");
        assert!(seen.changes.len() == 1 || seen.changes.is_empty(), "{seen:?}");
        let got = self.state.get(GetRequest { key: "good/a".into() }).await.expect("Get").into_inner();
        assert_eq!(got.entry.map(|kv| kv.mod_revision), Some(revision));
        let txn = TxnRequest { expectations: vec![], changes: vec![put_change("good/b", b"v")] };
        self.state.txn(txn).await.expect("Txn");
        assert_eq!(self.all("good/").await.len(), 2);
        for key in ["good/a", "good/b"] {
            let delete = DeleteRequest { key: key.into(), expected_revision: None };
            self.state.delete(delete).await.expect("Delete");
        }
    }
}

// === impl Stream ===

impl Stream {
    pub async fn open(services: &Services, id: u64) -> Self {
        let (reports, outbox) = mpsc::channel(16);
        reports.send(BarrierCollected { worker_id: id, epoch: 0 }).await.expect("room");
        let events = services.barriers.clone().stream(ReceiverStream::new(outbox)).await.expect("a stream");
        Self { id, reports, events: events.into_inner() }
    }

    pub async fn report(&self, worker_id: u64, epoch: u64) {
        self.reports.send(BarrierCollected { worker_id, epoch }).await.expect("room");
    }

    /// The next barrier.
    pub async fn barrier(&mut self) -> u64 {
        loop {
            if let Event::Barrier(barrier) = self.next().await.expect("more") {
                return barrier.epoch;
            }
        }
    }

    /// Waits until this epoch is committed; other barriers are collected meanwhile.
    pub async fn committed(&mut self, epoch: u64) {
        loop {
            match self.next().await.expect("more") {
                Event::Committed(done) if done.epoch == epoch => return,
                Event::Committed(_) | Event::Dropped(_) | Event::SetAside(_) => {}
                Event::Barrier(barrier) => self.report(self.id, barrier.epoch).await,
            }
        }
    }

    /// Collects every barrier until so many of them are committed.
    pub async fn take_part(&mut self, commits: usize) {
        let (mut collected, mut committed) = (BTreeSet::new(), 0);
        while committed < commits {
            match self.next().await.expect("more") {
                Event::Committed(done) => committed += usize::from(collected.contains(&done.epoch)),
                Event::Dropped(_) | Event::SetAside(_) => {}
                Event::Barrier(barrier) => {
                    collected.insert(barrier.epoch);
                    self.report(self.id, barrier.epoch).await;
                }
            }
        }
    }

    /// Reads on until the end; `None`: it ended well.
    pub async fn end(mut self) -> Option<Status> {
        loop {
            match self.events.message().await {
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(status) => return Some(status),
            }
        }
    }

    async fn next(&mut self) -> Option<Event> {
        Some(self.events.message().await.expect("open")?.event.expect("an event"))
    }
}

pub fn worker(port: u32) -> RegisterRequest {
    let labels = [("zone".to_owned(), "a".to_owned())].into_iter().collect();
    RegisterRequest { host: "10.0.0.1".into(), port, kind: "compute".into(), labels }
}

/// A body that sends this and then nothing, and does not end.
pub fn endless(first: Vec<u8>) -> Body {
    let (items, outbox) = mpsc::channel::<Result<Vec<u8>, std::convert::Infallible>>(1);
    items.try_send(Ok(first)).expect("room");
    tokio::spawn(async move { items.closed().await });
    Body::from_stream(ReceiverStream::new(outbox))
}
