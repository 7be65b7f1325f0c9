//! Any bytes as a request of `metad.v1`: what the handlers do with it before they touch anything.

use std::collections::BTreeSet;
use std::time::Duration;

use metad::api::grpc::requests::{self, FREEZE_SECS_MAX, FreezeFor, REASON_CHARS_MAX};
use metad::clock::Instant;
use metad::election::record::PRIORITY_MAX;
use metad::meta::workers::{Registry, WorkerId, WorkerSpec};
use metad::meta::{codec, store::PAGE_MAX};
use metad::proto::{meta, metad as proto};
use metad::protocol::writes::{CHANGES_MAX, Change, VALUE_BYTES_MAX, WRITE_BYTES_MAX, Write};
use prost::Message;
use tonic::{Code, Status};

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

/// How many kinds of requests there are.
pub const KINDS: u8 = 20;

/// The first byte says which request the others are. Panics if anything is wrong.
pub fn check(data: &[u8]) -> Outcome {
    let Some((kind, bytes)) = data.split_first() else { return Outcome::NoMessage };
    match kind % KINDS {
        0 => decoded::<proto::LeaderRequest>(bytes, |_| Ok(())),
        1 => decoded::<proto::MembersRequest>(bytes, |_| Ok(())),
        2 => decoded::<proto::ObserveRequest>(bytes, |_| Ok(())),
        3 => decoded::<proto::StepDownRequest>(bytes, step_down),
        4 => decoded::<proto::PrepareRequest>(bytes, |_| Ok(())),
        5 => {
            decoded::<proto::RegisterRequest>(bytes, |r| requests::register(r).map(|spec| check_spec(&spec)))
        }
        6 => decoded::<proto::HeartbeatRequest>(bytes, |_| Ok(())),
        7 => decoded::<proto::DeregisterRequest>(bytes, |_| Ok(())),
        8 => decoded::<proto::ListRequest>(bytes, |_| Ok(())),
        9 => decoded::<proto::WatchRequest>(bytes, |_| Ok(())),
        10 => decoded::<proto::BarrierCollected>(bytes, barrier),
        11 => decoded::<proto::GetRequest>(bytes, |r| requests::get(r).map(|key| check_name(&key))),
        12 => decoded::<proto::RangeRequest>(bytes, |r| requests::range(r).map(|page| check_page(&page))),
        13 => decoded::<proto::PutRequest>(bytes, |r| requests::put(r).map(|write| check_write(&write))),
        14 => {
            decoded::<proto::DeleteRequest>(bytes, |r| requests::delete(r).map(|write| check_write(&write)))
        }
        15 => decoded::<proto::TxnRequest>(bytes, |r| requests::txn(r).map(|write| check_write(&write))),
        16 => {
            decoded::<proto::StateWatchRequest>(bytes, |r| requests::watch(r).map(|w| check_bound(&w.prefix)))
        }
        17 => decoded::<proto::FreezeRequest>(bytes, freeze),
        18 => decoded::<proto::SetPriorityRequest>(bytes, set_priority),
        _ => decoded::<meta::MembersRequest>(bytes, |_| Ok(())),
    }
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
    let target = requests::step_down(request).to;
    assert!(
        target.as_ref().is_none_or(|to| !to.is_empty() && requests::quoted(to).len() < MESSAGE_BYTES_MAX)
    );
    Ok(())
}

fn freeze(request: proto::FreezeRequest) -> Result<(), Status> {
    let FreezeFor { reason, duration, .. } = requests::freeze(request)?;
    assert!((1..=REASON_CHARS_MAX).contains(&reason.chars().count()), "{reason:?}");
    assert!(!reason.contains('\n') && duration.is_none_or(|d| (1..=FREEZE_SECS_MAX).contains(&d.as_secs())));
    Ok(())
}

fn set_priority(request: proto::SetPriorityRequest) -> Result<(), Status> {
    let wanted = request.priority;
    let (_, priority) = requests::set_priority(request)?;
    assert_eq!((u32::from(priority), wanted <= u32::from(PRIORITY_MAX)), (wanted, true));
    Ok(())
}

/// As the first message, and as a later one.
fn barrier(message: proto::BarrierCollected) -> Result<(), Status> {
    let epoch = requests::report(WorkerId(1), message);
    assert_eq!(epoch.is_ok(), message.worker_id <= 1, "{message:?}: {epoch:?}");
    requests::hello(message).map(|worker| assert_eq!((worker.0, 0), (message.worker_id, message.epoch)))
}

fn check_name(name: &str) {
    assert!((1..=NAME_BYTES_MAX).contains(&name.len()), "{name:?}");
}

fn check_bound(bound: &str) {
    assert!(bound.len() <= NAME_BYTES_MAX, "{bound:?}");
}

fn check_page(page: &requests::Page) {
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
