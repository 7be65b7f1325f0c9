//! Any bytes as a request of `metad.v1`: what the handlers do with it before they touch anything.

use std::collections::BTreeSet;
use std::time::Duration;

use metad::api::grpc::election::{self, FREEZE_SECS_MAX, FreezeFor, REASON_CHARS_MAX};
use metad::api::grpc::requests::quoted;
use metad::api::grpc::{barrier as barriers, cluster, history as past, state};
use metad::clock::Instant;
use metad::election::record::PRIORITY_MAX;
use metad::meta::workers::{Registry, WorkerId, WorkerSpec};
use metad::meta::{codec, store::PAGE_MAX};
use metad::proto::metad as proto;
use metad::protocol::writes::{CHANGES_MAX, Change, VALUE_BYTES_MAX, WRITE_BYTES_MAX, Write};
use prost::Message;
use tonic::{Code, Status};

use super::bytes::Bytes;

/// The longest name, and the longest text of a status: both end up in headers.
const NAME_BYTES_MAX: usize = 1024;
const MESSAGE_BYTES_MAX: usize = 4 * 1024;

/// What became of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    NoMessage,
    Refused,
    Accepted,
}

/// A request that holds something. One without fields has nothing that could be wrong.
pub struct Kind {
    pub message: &'static str,
    /// Is anything refused?
    pub has_bounds: bool,
    check: fn(&[u8]) -> Outcome,
    /// A request that makes sense, mostly.
    pub sample: fn(&mut Bytes<'_>) -> Vec<u8>,
}

/// Every kind; a test looks for what is missing.
pub const KINDS: [Kind; 17] = [
    Kind {
        message: "StepDownRequest",
        has_bounds: false,
        check: |bytes| decoded(bytes, step_down),
        sample: |b| {
            let expected_token = revision(b);
            proto::StepDownRequest { to: b.text(), expected_token }.encode_to_vec()
        },
    },
    Kind {
        message: "PrepareRequest",
        has_bounds: false,
        check: |bytes| decoded(bytes, |_: proto::PrepareRequest| Ok(())),
        sample: |b| proto::PrepareRequest { token: b.number() }.encode_to_vec(),
    },
    Kind {
        message: "FreezeRequest",
        has_bounds: true,
        check: |bytes| decoded(bytes, freeze),
        sample: |b| {
            let (reason, for_secs) = (b.text(), b.number() % 5_000_000);
            proto::FreezeRequest { reason, for_secs, replace: false }.encode_to_vec()
        },
    },
    Kind {
        message: "SetPriorityRequest",
        has_bounds: true,
        check: |bytes| decoded(bytes, set_priority),
        sample: |b| {
            let priority = u32::try_from(b.number() % 1_500).unwrap_or(0);
            proto::SetPriorityRequest { node: b.text(), priority }.encode_to_vec()
        },
    },
    Kind {
        message: "HistoryRequest",
        has_bounds: true,
        check: |bytes| decoded(bytes, history),
        sample: |b| {
            let (since_ms, limit) = (b.number(), u32::try_from(b.number() >> 32).unwrap_or(0));
            proto::HistoryRequest { since_ms, limit, page_token: page_token(b) }.encode_to_vec()
        },
    },
    Kind {
        message: "RegisterRequest",
        has_bounds: true,
        check: |bytes| decoded(bytes, |r| cluster::checked_register(r).map(|spec| check_spec(&spec))),
        sample: |b| {
            let labels = (0..b.byte() % 18).map(|_| (b.text(), b.text())).collect();
            let port = u32::try_from(b.number() % 70_000).unwrap_or(0);
            proto::RegisterRequest { host: b.text(), port, kind: b.text(), labels }.encode_to_vec()
        },
    },
    Kind {
        message: "HeartbeatRequest",
        has_bounds: false,
        check: |bytes| decoded(bytes, |_: proto::HeartbeatRequest| Ok(())),
        sample: |b| proto::HeartbeatRequest { worker_id: b.number() }.encode_to_vec(),
    },
    Kind {
        message: "DeregisterRequest",
        has_bounds: false,
        check: |bytes| decoded(bytes, |_: proto::DeregisterRequest| Ok(())),
        sample: |b| proto::DeregisterRequest { worker_id: b.number() }.encode_to_vec(),
    },
    Kind {
        message: "ListRequest",
        has_bounds: true,
        check: |bytes| decoded(bytes, list),
        sample: |b| {
            let page_size = u32::try_from(b.number() >> 32).unwrap_or(0);
            proto::ListRequest { page_size, page_token: page_token(b) }.encode_to_vec()
        },
    },
    Kind {
        message: "BarrierCollected",
        has_bounds: true,
        check: |bytes| decoded(bytes, barrier),
        sample: |b| {
            proto::BarrierCollected { worker_id: b.number() % 3, epoch: b.number() % 3 }.encode_to_vec()
        },
    },
    Kind {
        message: "GetRequest",
        has_bounds: true,
        check: |bytes| decoded(bytes, |r| state::checked_get(r).map(|key| check_name(&key))),
        sample: |b| proto::GetRequest { key: b.text() }.encode_to_vec(),
    },
    Kind {
        message: "RangeRequest",
        has_bounds: true,
        check: |bytes| decoded(bytes, |r| state::checked_range(r).map(|page| check_page(&page))),
        sample: |b| {
            let limit = u32::try_from(b.number() >> 32).unwrap_or(0);
            proto::RangeRequest { prefix: b.text(), after: b.text(), limit }.encode_to_vec()
        },
    },
    Kind {
        message: "PutRequest",
        has_bounds: true,
        check: |bytes| decoded(bytes, |r| state::checked_put(r).map(|write| check_write(&write))),
        sample: |b| {
            let expected_revision = revision(b);
            proto::PutRequest { key: b.text(), value: b.take(50).into(), expected_revision }.encode_to_vec()
        },
    },
    Kind {
        message: "DeleteRequest",
        has_bounds: true,
        check: |bytes| decoded(bytes, |r| state::checked_delete(r).map(|write| check_write(&write))),
        sample: |b| {
            let expected_revision = revision(b);
            proto::DeleteRequest { key: b.text(), expected_revision }.encode_to_vec()
        },
    },
    Kind {
        message: "TxnRequest",
        has_bounds: true,
        check: |bytes| decoded(bytes, |r| state::checked_txn(r).map(|write| check_write(&write))),
        sample: |b| txn(b).encode_to_vec(),
    },
    Kind {
        message: "StateWatchRequest",
        has_bounds: true,
        check: |bytes| decoded(bytes, |r| state::checked_watch(r).map(|w| check_bound(&w.prefix))),
        sample: |b| proto::StateWatchRequest { prefix: b.text(), start_revision: b.number() }.encode_to_vec(),
    },
    Kind {
        message: "",
        has_bounds: false,
        check: |bytes| decoded(bytes, |_: proto::LeaderRequest| Ok(())),
        sample: |_| vec![],
    },
];

/// The first byte says which request the others are. Panics if anything is wrong.
pub fn check(data: &[u8]) -> Outcome {
    let Some((kind, bytes)) = data.split_first() else { return Outcome::NoMessage };
    (KINDS[usize::from(*kind) % KINDS.len()].check)(bytes)
}

fn revision(b: &mut Bytes<'_>) -> Option<u64> {
    Some(b.number()).filter(|n| n % 3 > 0)
}

fn page_token(b: &mut Bytes<'_>) -> String {
    if b.byte().is_multiple_of(2) { b.number().to_string() } else { b.text() }
}

fn txn(b: &mut Bytes<'_>) -> proto::TxnRequest {
    use proto::change::Change::{Delete, Put};
    let many =
        |b: &mut Bytes<'_>| if b.byte().is_multiple_of(16) { 95 + b.byte() % 10 } else { b.byte() % 5 };
    let changes = (0..many(b)).map(|i| match b.byte() % 8 {
        0 => None,
        1..3 => Some(Delete(format!("{}{i}", b.text()))),
        3 => Some(Put(proto::Put { key: b.text(), value: vec![0; usize::from(b.byte()) * 4096] })),
        _ => Some(Put(proto::Put { key: format!("{}{i}", b.text()), value: b.take(9).into() })),
    });
    let changes = changes.map(|change| proto::Change { change }).collect();
    let expectations = (0..many(b)).map(|_| proto::Expectation { key: b.text(), mod_revision: b.number() });
    proto::TxnRequest { expectations: expectations.collect(), changes }
}

fn decoded<M: Message + Default + PartialEq + std::fmt::Debug>(
    bytes: &[u8],
    handle: impl FnOnce(M) -> Result<(), Status>,
) -> Outcome {
    let Ok(message) = M::decode(bytes) else { return Outcome::NoMessage };
    let again = M::decode(message.encode_to_vec().as_slice()).expect("what was encoded can be decoded");
    assert!(again == message, "{message:?} became {again:?}");
    match handle(message) {
        Ok(()) => Outcome::Accepted,
        Err(status) => {
            assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
            assert!((1..MESSAGE_BYTES_MAX).contains(&status.message().len()), "{status:?}");
            Outcome::Refused
        }
    }
}

fn step_down(request: proto::StepDownRequest) -> Result<(), Status> {
    let target = election::checked_step_down(request).to;
    assert!(target.as_ref().is_none_or(|to| !to.is_empty() && quoted(to).len() < MESSAGE_BYTES_MAX));
    Ok(())
}

fn freeze(request: proto::FreezeRequest) -> Result<(), Status> {
    let FreezeFor { reason, duration, .. } = election::checked_freeze(request)?;
    assert!((1..=REASON_CHARS_MAX).contains(&reason.chars().count()), "{reason:?}");
    assert!(!reason.contains('\n') && duration.is_none_or(|d| (1..=FREEZE_SECS_MAX).contains(&d.as_secs())));
    Ok(())
}

fn set_priority(request: proto::SetPriorityRequest) -> Result<(), Status> {
    let wanted = request.priority;
    let (_, priority) = election::checked_set_priority(request)?;
    assert_eq!((u32::from(priority), wanted <= u32::from(PRIORITY_MAX)), (wanted, true));
    Ok(())
}

fn history(request: proto::HistoryRequest) -> Result<(), Status> {
    past::checked_history(&request).map(|asked| assert!(asked.limit > 0, "{request:?}"))
}

fn list(request: proto::ListRequest) -> Result<(), Status> {
    let listed = cluster::checked_list(request)?;
    assert!((1..=cluster::WORKERS_PAGE_MAX).contains(&listed.limit), "{listed:?}");
    Ok(())
}

/// As the first message, and as a later one.
fn barrier(message: proto::BarrierCollected) -> Result<(), Status> {
    let epoch = barriers::checked_report(WorkerId(1), message);
    assert_eq!(epoch.is_ok(), message.worker_id <= 1, "{message:?}: {epoch:?}");
    barriers::checked_hello(message)
        .map(|worker| assert_eq!((worker.0, 0), (message.worker_id, message.epoch)))
}

fn check_name(name: &str) {
    assert!((1..=NAME_BYTES_MAX).contains(&name.len()), "{name:?}");
}

fn check_bound(bound: &str) {
    assert!(bound.len() <= NAME_BYTES_MAX, "{bound:?}");
}

fn check_page(page: &state::Page) {
    assert!((1..=PAGE_MAX).contains(&page.limit), "{page:?}");
    check_bound(&page.prefix);
    check_bound(&page.after);
}

fn check_write(write: &Write) {
    assert!((1..=CHANGES_MAX).contains(&write.changes.len()) && write.expected.len() <= CHANGES_MAX);
    write.expected.iter().for_each(|(name, _)| check_name(name));
    let (mut names, mut sum) = (BTreeSet::new(), 0);
    for change in &write.changes {
        let (name, size) = match change {
            Change::Put(name, value) => (name, value.len()),
            Change::Delete(name) => (name, 0),
        };
        check_name(name);
        assert!(names.insert(name), "{name:?} twice");
        assert!(size <= VALUE_BYTES_MAX);
        sum += name.len() + size;
    }
    assert!(sum <= WRITE_BYTES_MAX);
}

/// A worker that was accepted is registered, written, and read again as it was.
fn check_spec(spec: &WorkerSpec) {
    let (now, minute) = (Instant::default(), Duration::from_secs(60));
    let registry = Registry::load(minute, now, [], WorkerId(1));
    let mut edit = registry.edit();
    let id = registry.add_register(&mut edit, spec.clone()).expect("what was accepted can be registered");
    let id = id.expect("an edit of nothing has room");
    let rows = codec::edit_changes(&edit).into_iter().map(|change| match change {
        Change::Put(name, value) => (name, value),
        Change::Delete(name) => panic!("{name} is deleted"),
    });
    let rows: Vec<_> = rows.collect();
    let read = codec::read(rows.iter().map(|(name, value)| (name.as_str(), value.as_slice())));
    assert_eq!(read.unreadable, []);
    assert_eq!(read.workers.iter().map(|w| (w.id, &w.spec)).collect::<Vec<_>>(), [(id, spec)]);
}
