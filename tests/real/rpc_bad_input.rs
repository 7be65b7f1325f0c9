//! Bad input at every RPC, on real processes: the right status, a message that helps, and nothing lost. The good
//! call works beside each bad one.

mod good;
mod raw;
mod rows;

use std::fmt::Debug;
use std::time::Duration;

use crate::support::crew::{PATIENCE, tenures, wait_until_all_know_all};
use crate::support::etcd::EtcdCluster;
use crate::support::fenced;
use crate::support::node::{Node, NodeBuilder};
use good::{Services, Stream, block_on, endless, worker};
use metad::proto::metad::{
    Change, DeleteRequest, DeregisterRequest, Expectation, FreezeRequest, GetRequest, HeartbeatRequest,
    LeaderRequest, ListRequest, PutRequest, RangeRequest, RegisterRequest, SetPriorityRequest,
    StateWatchRequest, StepDownRequest, TxnRequest, WatchRequest,
};
use raw::{Raw, field, frame};
use rows::{BARRIERS, Row, Rpcs, put_change};
use tonic::{Code, Response, Status};
use tonic_types::StatusExt;

/// Nobody asks for that in vain: the leader would do it.
const STEP_DOWN: &str = "metad.v1.ElectionService/StepDown";
const MIB: usize = 1024 * 1024;
/// The largest value.
const VALUE: usize = MIB / 2;

/// A leader; barriers are quick, so that a test need not wait for them, and workers need not send heartbeats.
fn leader(set: impl Fn(NodeBuilder) -> NodeBuilder) -> Node {
    let quick = NodeBuilder::new("a").lease_secs(60).env("METAD_META__BARRIER_INTERVAL_MS", "50");
    let quick = quick.env("METAD_META__MAX_HEARTBEAT_INTERVAL_SECS", "600");
    let node = set(quick).spawn();
    node.wait_for("main_loop_started", PATIENCE);
    node
}

fn follower(etcd: &EtcdCluster) -> Node {
    let node = NodeBuilder::new("b").lease_secs(60).etcd(etcd).spawn();
    node.wait_for("leader_changed", PATIENCE);
    node
}

/// One main loop, which still runs, and nobody panicked.
#[track_caller]
fn assert_unharmed(nodes: &[Node]) {
    for node in nodes {
        assert!(node.is_alive() && !node.stderr().contains("panicked"), "{}", node.report());
    }
    assert_eq!(tenures(nodes).len(), 1);
    assert!(!nodes[0].has_event("main_loop_stopping"), "{}", nodes[0].report());
}

#[track_caller]
fn assert_refused<T: Debug>(result: Result<Response<T>, Status>, code: Code, says: &str) {
    let status = result.expect_err(says);
    assert_eq!(status.code(), code, "{says:?}: {status:?}");
    assert!(status.message().contains(says), "{says:?} is missing in {status:?}");
}

#[test]
fn what_is_no_request_is_refused_by_every_rpc_of_every_member() {
    let etcd = EtcdCluster::start(1);
    let nodes = [leader(|b| b.etcd(&etcd)), follower(&etcd)];
    wait_until_all_know_all(&nodes); // the follower may be seen between two of the calls that list the members
    block_on(async {
        let mut services = Services::of(&nodes[0]).await;
        services.register(1).await;
        services.state.put(put("kept", b"v", None)).await.expect("written");
        services.call_all().await;
        let before = services.kept().await;
        let rpcs = Rpcs::all();
        for node in &nodes {
            let raw = Raw::new(node.rpc_addr());
            for row in [rpcs.broken(), rpcs.not_text(), rows::unheard_of()].into_iter().flatten() {
                let Row { what, path, headers, body, code, says } = row;
                raw.call(&path, &headers, body).await.assert(&what, code, &says);
            }
            // An empty message is a request of every kind: it is answered, or refused for what it does not say.
            for path in rpcs.unary().filter(|path| *path != STEP_DOWN) {
                let said = raw.begin(path, frame(b"")).await;
                let of_ours = [Code::Internal, Code::Unknown, Code::Unimplemented, Code::Unavailable];
                assert!(!of_ours.contains(&said.code()), "{path}: {said:?}");
            }
        }
        assert_eq!(services.kept().await, before, "nothing was lost, nothing was written");
        services.call_all().await;
    });
    assert_unharmed(&nodes);
    fenced::check(&etcd, "default", &tenures(&nodes)).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn values_out_of_bounds_are_refused_on_etcd() {
    let etcd = EtcdCluster::start(1);
    values_out_of_bounds_are_refused(leader(|b| b.etcd(&etcd)));
}

#[test]
fn values_out_of_bounds_are_refused_on_sqlite() {
    values_out_of_bounds_are_refused(leader(|b| b));
}

fn values_out_of_bounds_are_refused(node: Node) {
    block_on(async {
        let mut services = Services::of(&node).await;
        services.register(1).await;
        services.state.put(put("kept", b"v", None)).await.expect("written");
        let before = services.kept().await;
        refused_state(&mut services).await;
        refused_workers(&mut services).await;
        refused_step_downs(&mut services).await;
        refused_freezes(&mut services).await;
        refused_priorities(&mut services).await;
        assert_eq!(services.kept().await, before, "nothing was lost, nothing was written");
        services.call_all().await;
        good_at_the_bounds(&mut services).await;
    });
    assert_unharmed(&[node]);
}

async fn refused_state(services: &mut Services) {
    let (state, long) = (&mut services.state, "é".repeat(513));
    let key = |key: &str| GetRequest { key: key.into() };
    let delete = |key: &str, expected_revision| DeleteRequest { key: key.into(), expected_revision };
    let range =
        |prefix: &str, after: &str| RangeRequest { prefix: prefix.into(), after: after.into(), limit: 1 };
    let invalid = Code::InvalidArgument;
    for (bad, says) in [("", "a key of 0 bytes; use 1 to 1024"), (&long, "a key of 1026 bytes")] {
        assert_refused(state.get(key(bad)).await, invalid, says);
        assert_refused(state.put(put(bad, b"v", None)).await, invalid, says);
        assert_refused(state.delete(delete(bad, None)).await, invalid, says);
        let changes = vec![put_change("k", b"v"), put_change(bad, b"v")];
        assert_refused(state.txn(txn(vec![], changes)).await, invalid, says);
        let expectations = vec![Expectation { key: bad.into(), mod_revision: 0 }];
        assert_refused(state.txn(txn(expectations, vec![put_change("k", b"v")])).await, invalid, says);
    }
    let too_long = "1026 bytes; no key has more than 1024";
    assert_refused(state.range(range(&long, "")).await, invalid, too_long);
    assert_refused(state.range(range("", &long)).await, invalid, too_long);
    assert_refused(
        state.watch(StateWatchRequest { prefix: long.clone(), start_revision: 0 }).await,
        invalid,
        too_long,
    );

    let large = vec![0; VALUE + 1];
    let says = r#"the value of "large" has 524289 bytes; at most 524288 fit"#;
    assert_refused(state.put(put("large", &large, None)).await, invalid, says);
    let both = vec![put_change("k", b"v"), put_change("large", &large)];
    assert_refused(state.txn(txn(vec![], both)).await, invalid, says);
    let three = (0..3).map(|i| put_change(&format!("k{i}"), &large[1..])).collect();
    assert_refused(state.txn(txn(vec![], three)).await, invalid, "at most 1048576 fit");
    let many = |n| (0..n).map(|i| put_change(&format!("k{i}"), b"v")).collect::<Vec<_>>();
    assert_refused(state.txn(txn(vec![], many(101))).await, invalid, "101 changes; at most 100 fit");
    let expected = (0..101).map(|i| Expectation { key: format!("k{i}"), mod_revision: 0 }).collect();
    assert_refused(state.txn(txn(expected, many(1))).await, invalid, "101 expectations; at most 100 fit");
    assert_refused(state.txn(txn(vec![], vec![])).await, invalid, "without changes");
    let neither = vec![put_change("k", b"v"), Change { change: None }];
    assert_refused(state.txn(txn(vec![], neither)).await, invalid, "change 1 is neither");
    let twice = vec![put_change("k", b"1"), put_change("k", b"2")];
    assert_refused(state.txn(txn(vec![], twice)).await, invalid, r#""k" is changed twice"#);

    for wrong in [0, 1, i64::MAX.cast_unsigned(), 1 << 63, u64::MAX] {
        let says = format!("not at {wrong} (0: absent)");
        assert_refused(state.put(put("kept", b"w", Some(wrong))).await, Code::Aborted, &says);
        assert_refused(state.delete(delete("kept", Some(wrong))).await, Code::Aborted, &says);
        let expectations = vec![Expectation { key: "kept".into(), mod_revision: wrong }];
        let changes = vec![put_change("other", b"w")];
        assert_refused(state.txn(txn(expectations, changes)).await, Code::Aborted, &says);
    }
    assert_eq!(state.get(key("other")).await.expect("Get").into_inner().entry, None);
}

async fn refused_workers(services: &mut Services) {
    let cluster = &mut services.cluster;
    let with = |change: &dyn Fn(&mut RegisterRequest)| {
        let mut request = worker(2);
        change(&mut request);
        request
    };
    let label = |key: &str, value: &str| [(key.to_owned(), value.to_owned())].into_iter().collect();
    for (request, says) in [
        (RegisterRequest::default(), "host"),
        (with(&|r| r.port = 0), "port 0"),
        (with(&|r| r.port = 65_536), "65536"),
        (with(&|r| r.port = u32::MAX), "port 4294967295 is not between 1 and 65535"),
        (with(&|r| r.host = String::new()), "1 to 253 bytes"),
        (with(&|r| r.host = "h".repeat(254)), "1 to 253 bytes"),
        (with(&|r| r.host = "a b".into()), "without blanks"),
        (with(&|r| r.host = "a\0b".into()), r#""a\0b""#),
        (with(&|r| r.kind = String::new()), "1 to 63 characters"),
        (with(&|r| r.kind = "k".repeat(64)), "1 to 63 characters"),
        (with(&|r| r.kind = "no blanks".into()), "no blanks"),
        (with(&|r| r.kind = "k".repeat(60_000)), "1 to 63 characters"),
        (with(&|r| r.labels = (0..17).map(|i| (format!("l{i}"), String::new())).collect()), "17 labels"),
        (with(&|r| r.labels = label("", "v")), "1 to 63 bytes"),
        (with(&|r| r.labels = label(&"k".repeat(64), "v")), "1 to 63 bytes"),
        (with(&|r| r.labels = label("zone", &"v".repeat(256))), "\"zone\" must have at most 255 bytes"),
        (with(&|r| r.labels = label("zone", "a\nb")), "none of them control"),
    ] {
        assert_refused(cluster.register(request).await, Code::InvalidArgument, says);
    }
    for worker_id in [0, 99, 1 << 63, u64::MAX] {
        let says = worker_id.to_string();
        assert_refused(cluster.heartbeat(HeartbeatRequest { worker_id }).await, Code::NotFound, &says);
        assert_refused(cluster.deregister(DeregisterRequest { worker_id }).await, Code::NotFound, &says);
        let hello = metad::proto::metad::BarrierCollected { worker_id, epoch: 0 };
        let stream = services.barriers.stream(tokio_stream::iter([hello])).await;
        assert_refused(stream, Code::NotFound, &says);
    }
}

async fn refused_step_downs(services: &mut Services) {
    let election = &mut services.election;
    let to = |to: &str| StepDownRequest { to: to.into(), expected_token: None };
    assert_refused(election.step_down(to("nobody")).await, Code::NotFound, "no member \"nobody\"");
    assert_refused(election.step_down(to(&"n".repeat(60_000))).await, Code::NotFound, "(60000 bytes)");
    assert_refused(election.step_down(to("a")).await, Code::FailedPrecondition, "a leads already");
    let leader = election.leader(LeaderRequest {}).await.expect("an answer").into_inner().leader;
    let token = leader.expect("it leads").token;
    for expected in [0, token - 1, u64::MAX] {
        let request = StepDownRequest { to: String::new(), expected_token: Some(expected) };
        let says = format!("the leader's token is {token}, not {expected}");
        let refused = election.step_down(request).await;
        let info = refused.as_ref().expect_err("another token").get_details_error_info().expect("details");
        assert_eq!((&info.reason[..], &info.metadata["token"]), ("ANOTHER_TOKEN", &token.to_string()));
        assert_refused(refused, Code::FailedPrecondition, &says);
    }
}

async fn refused_freezes(services: &mut Services) {
    let election = &mut services.election;
    let rows = [
        ("", 0, "reason is empty"),
        (" \t", 1, "reason is empty"),
        ("a\nb", 0, "one line"),
        ("x", u64::MAX, "30 days"),
    ];
    for (reason, for_secs, says) in rows {
        let asked = election.freeze(FreezeRequest { reason: reason.into(), for_secs, replace: false }).await;
        assert_refused(asked, Code::InvalidArgument, says);
    }
    let long = FreezeRequest { reason: "é".repeat(201), for_secs: 0, replace: false };
    assert_refused(election.freeze(long).await, Code::InvalidArgument, "200 characters");
}

async fn refused_priorities(services: &mut Services) {
    let election = &mut services.election;
    let asked = |node: &str, priority| SetPriorityRequest { node: node.into(), priority };
    for priority in [1001, u32::MAX] {
        assert_refused(
            election.set_priority(asked("a", priority)).await,
            Code::InvalidArgument,
            "at most 1000",
        );
    }
    for node in ["", "b", "A"] {
        let refused = election.set_priority(asked(node, 7)).await;
        assert_refused(refused, Code::FailedPrecondition, &format!("this is a, not {node:?}"));
    }
    assert_refused(election.set_priority(asked("a", 0)).await, Code::FailedPrecondition, "only a follower");
}

/// The twins: what is just within the bounds, and what only looks strange.
async fn good_at_the_bounds(services: &mut Services) {
    let large = vec![7; VALUE];
    for key in ["é".repeat(512), "\0".into(), "a\0b".into(), "\u{10ffff}".into(), "../../election/x".into()]
    {
        services
            .state
            .put(put(&key, &large[..1], Some(0)))
            .await
            .unwrap_or_else(|e| panic!("{key:?}: {e:?}"));
        let got = services.state.get(GetRequest { key: key.clone() }).await.expect("Get").into_inner().entry;
        assert_eq!(got.expect("there").key, key);
        let found = services.all(&key).await;
        assert_eq!(found.iter().map(|kv| &kv.key).collect::<Vec<_>>(), [&key]);
    }
    let hundred: Vec<_> = (0..100).map(|i| put_change(&format!("h/{i:02}"), b"v")).collect();
    services.state.txn(txn(vec![], hundred)).await.expect("100 are fine");
    let two = vec![put_change("2/a", &large[9..]), put_change("2/b", &large[9..])];
    services.state.txn(txn(vec![], two)).await.expect("1 MiB is fine");

    // Neighbours of the surrogates, which no text has.
    for key in ["s/\u{d7ff}x", "s/\u{e000}x"] {
        services.state.put(put(key, b"v", None)).await.expect("Put");
    }
    let found = services.all("s/\u{d7ff}").await;
    assert_eq!(found.iter().map(|kv| kv.key.as_str()).collect::<Vec<_>>(), ["s/\u{d7ff}x"]);

    // More than fits into one message of 4 MiB.
    for i in 0..20 {
        services.state.put(put(&format!("big/{i:02}"), &large, None)).await.expect("512 KiB are fine");
    }
    assert_eq!(services.all("big/").await.len(), 20);
    let expectations: Vec<_> =
        (0..20).map(|i| Expectation { key: format!("big/{i:02}"), mod_revision: 1 }).collect();
    let result = services.state.txn(txn(expectations, vec![put_change("k", b"v")])).await;
    assert_refused(result, Code::Aborted, "big/00 is at revision");

    let mut longest = RegisterRequest { host: "h".repeat(253), kind: "k".repeat(63), ..worker(65_535) };
    longest.labels = (0..16).map(|i| (format!("{i:063}"), "é".repeat(127))).collect();
    services.cluster.register(longest).await.expect("within all bounds");
}

#[test]
fn reports_that_cannot_be_end_their_stream_and_no_other() {
    let node = leader(|b| b);
    block_on(async {
        let mut services = Services::of(&node).await;
        let id = services.register(1).await;
        // (what is reported after a barrier of this epoch was sent, how the stream ends)
        type Bad = fn(u64, u64) -> (u64, u64);
        let bad: [(Bad, &str); 6] = [
            (|id, epoch| (id, epoch + (1 << 40)), "was never injected"),
            (|id, _| (id, 1 << 63), "9223372036854775808 is not an epoch"),
            (|id, _| (id, u64::MAX), "18446744073709551615 is not an epoch"),
            (|id, _| (id, 0), "0 is not an epoch"),
            (|id, epoch| (id + 1, epoch), "is named on the stream of worker"),
            (|_, epoch| (u64::MAX, epoch), "worker 18446744073709551615 is named"),
        ];
        for (report, says) in bad {
            let mut stream = Stream::open(&services, id).await;
            let (worker_id, epoch) = report(id, stream.barrier().await);
            stream.report(worker_id, epoch).await;
            let status = stream.end().await.expect(says);
            assert_eq!(status.code(), Code::InvalidArgument, "{says:?}: {status:?}");
            assert!(status.message().contains(says), "{says:?} is missing in {status:?}");
        }
        // Late, twice, without the name, of an earlier stream's: no mistakes.
        let mut stream = Stream::open(&services, id).await;
        let epoch = stream.barrier().await;
        for (worker_id, epoch) in [(0, epoch), (id, epoch), (id, epoch), (id, 1)] {
            stream.report(worker_id, epoch).await;
        }
        stream.committed(epoch).await;
        stream.report(id, epoch).await;
        let epoch = stream.barrier().await;
        stream.report(id, epoch).await;
        stream.committed(epoch).await;
    });
    assert_unharmed(&[node]);
}

#[test]
fn streams_that_are_silent_half_closed_broken_or_reset_end_with_a_reason() {
    let node = leader(|b| b);
    block_on(async {
        let mut services = Services::of(&node).await;
        let (one, other) = (services.register(1).await, services.register(2).await);
        let raw = Raw::new(node.rpc_addr());
        let hello = frame(&[8, u8::try_from(one).expect("a small id")]);
        let then = |more: Vec<u8>| [hello.clone(), more].concat();
        let silent = raw.call(BARRIERS, &[], endless(vec![])).await;
        silent.assert("silent", Code::DeadlineExceeded, "the first must name the worker");
        raw.call(BARRIERS, &[], hello.clone()).await.assert("half closed", Code::Ok, "");
        let broken = raw.call(BARRIERS, &[], endless(then(frame(&[0x0f])))).await;
        broken.assert("broken", Code::InvalidArgument, "failed to decode");
        let large = raw.call(BARRIERS, &[], endless(then(frame(&vec![0; 65_537])))).await;
        large.assert("too large", Code::InvalidArgument, "the limit is: 1024 bytes");
        let early = raw.call(BARRIERS, &[], then(vec![0, 0, 0, 0, 9, 8])).await;
        early.assert("ends in the middle", Code::InvalidArgument, "EOF");
        let epoch = raw.call(BARRIERS, &[], frame(&[8, 1, 16, 5])).await;
        epoch.assert("not a hello", Code::InvalidArgument, "its epoch must be 0, not 5");

        // Each reset takes its worker out of the barriers; the other's go on.
        let mut stream = Stream::open(&services, other).await;
        for _ in 0..300 {
            drop(Stream::open(&services, one).await);
        }
        stream.take_part(3).await;
    });
    assert_unharmed(&[node]);
}

#[test]
fn a_stream_that_nobody_reads_is_cut_off_with_a_reason() {
    let node = leader(|b| b.env("METAD_META__BARRIER_COLLECT_TIMEOUT_MS", "100"));
    block_on(async {
        let mut services = Services::of(&node).await;
        let id = services.register(1).await;
        // Its connection takes a few bytes more than it reads.
        let lazy = Services::with(&node, |e| e.initial_stream_window_size(64)).await;
        let watch = StateWatchRequest { prefix: "w/".into(), start_revision: 0 };
        let mut changes = lazy.state.clone().watch(watch).await.expect("a watch").into_inner();
        changes.message().await.expect("open").expect("the beginning");
        let mut workers = lazy.cluster.clone().watch(WatchRequest {}).await.expect("a watch").into_inner();
        let barriers = Stream::open(&lazy, id).await;

        let other = services.register(2).await;
        for i in 0..12 {
            services.state.put(put(&format!("w/{i}"), &[b'v'; 256], None)).await.expect("written");
        }
        for i in 0..1_500 {
            let mut request = worker(2);
            request.labels.insert("n".into(), i.to_string());
            services.cluster.register(request).await.expect("registered");
        }
        // The others go on as soon as it is cut off: until then it fails every barrier.
        Stream::open(&services, other).await.take_part(3).await;
        // A watch may stand still for 10 s; neither of the two is read before both have.
        while node.stderr().matches("was not read for 10s").count() < 2 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }

        let status = barriers.end().await.expect("cut off");
        assert_eq!(status.code(), Code::Aborted, "{status:?}");
        assert!(status.message().contains("does not read its barriers"), "{status:?}");
        assert_cut("the state", &mut changes, "was not read for 10s").await;
        assert_cut("the workers", &mut workers, "was not read for 10s").await;
        assert_eq!(services.all("w/").await.len(), 12);
        services.call_all().await;
    });
    assert_unharmed(&[node]);
}

/// What was sent before can still be read; then comes the reason.
async fn assert_cut<T>(what: &str, stream: &mut tonic::Streaming<T>, says: &str) {
    let mut read = 0;
    let status = loop {
        match stream.message().await {
            Ok(Some(_)) => read += 1,
            Ok(None) => panic!("{what}: an end without a reason"),
            Err(status) => break status,
        }
    };
    assert!(read > 0, "{what}: nothing was sent before");
    assert_eq!(status.code(), Code::Aborted, "{what}: {status:?}");
    assert!(status.message().contains(says), "{what}: {says:?} is missing in {status:?}");
}

#[test]
fn deadlines_are_kept_while_the_store_hangs() {
    let etcd = EtcdCluster::start(1);
    let node = leader(|b| b.etcd(&etcd));
    block_on(async {
        let mut services = Services::of(&node).await;
        let id = services.register(1).await;
        services.state.put(put("k", b"before", None)).await.expect("written");
        let before = services.kept().await;
        let raw = Raw::new(node.rpc_addr());
        etcd.pause_all();

        // The store is not needed for these.
        services.election.leader(LeaderRequest {}).await.expect("Leader");
        services.cluster.heartbeat(HeartbeatRequest { worker_id: id }).await.expect("Heartbeat");
        services.cluster.list(ListRequest::default()).await.expect("List");
        let write = frame(&[field(1, b"k"), field(2, b"after")].concat());
        let get = frame(&field(1, b"k"));
        let spec = frame(&[field(1, b"h"), vec![16, 1], field(3, b"k")].concat());
        let [put_at, get_at] = ["Put", "Get"].map(|name| format!("metad.v1.StateService/{name}"));
        let register_at = "metad.v1.ClusterService/Register";
        for (timeout, says) in [("1m", "within 1ms (the caller's deadline)"), ("300000u", "within 300ms")] {
            for (path, body) in [(put_at.as_str(), &write), (&get_at, &get), (register_at, &spec)] {
                let end = raw.call(path, &[("grpc-timeout", timeout)], body.clone()).await;
                end.assert(path, Code::DeadlineExceeded, says);
                assert!(end.took < Duration::from_secs(5), "{path}: {end:?}");
            }
        }
        // Without a deadline of their own, and with one that is none, they end as well.
        let forever = [("grpc-timeout", "99999999H")];
        let (write, get, register) = tokio::join!(
            raw.call(&put_at, &[("grpc-timeout", "soon")], write.clone()),
            raw.call(&get_at, &[], get.clone()),
            raw.call(register_at, &forever, spec.clone()),
        );
        write.assert("Put", Code::DeadlineExceeded, "within 10s");
        register.assert("Register", Code::DeadlineExceeded, "within 10s");
        let codes = [Code::Unavailable, Code::DeadlineExceeded];
        assert!(codes.contains(&get.code) && !get.message.is_empty(), "{get:?}");

        etcd.resume_all();
        etcd.wait_healthy();
        services.call_all().await;
        let after = services.kept().await;
        assert_eq!(after.token, before.token);
        // Both writes may have been done: the answer says so.
        assert!([&b"before"[..], b"after"].contains(&after.state[0].value.as_slice()), "{after:?}");
        assert!(after.workers.starts_with(&before.workers), "{after:?}");
        // In time, a deadline does no harm.
        let end =
            raw.call("metad.v1.StateService/Get", &[("grpc-timeout", "30S")], frame(&field(1, b"k"))).await;
        end.assert("Get", Code::Ok, "");
    });
    assert_unharmed(std::slice::from_ref(&node));
}

fn put(key: &str, value: &[u8], expected_revision: Option<u64>) -> PutRequest {
    PutRequest { key: key.into(), value: value.into(), expected_revision }
}

fn txn(expectations: Vec<Expectation>, changes: Vec<Change>) -> TxnRequest {
    TxnRequest { expectations, changes }
}
