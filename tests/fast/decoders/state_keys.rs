//! Any bytes as keys and values of the store: decoding never panics, and what was encoded is decoded as it was.

use std::time::Duration;

use metad::election::lease::LeaseId;
use metad::election::record::{
    Incarnation, Leader, LeaderRecord, MemberId, MemberUuid, Nonce, Registration, Revision,
};
use metad::meta::barrier::{Barrier, Epoch};
use metad::meta::codec as rows;
use metad::store::codec::{self, IdentityRow, Keys, WatchedKeys};
use metad::store::{KeyRange, KeyValue};

use super::bytes::Bytes;

/// The last millisecond that a record names: the end of the year 9999, wherever on Earth.
const LAST_MS: u64 = 253_402_207_200_999;
/// Where a value may stand that is none of ours.
const OUR_NAMES: [&str; 5] =
    ["meta/next_worker", "meta/barrier/committed", "meta/barrier/ceiling", "meta/workers/x", "meta/other"];
/// How many rows one input has at most.
const ROWS_MAX: usize = 16;

/// Panics if anything is wrong.
pub fn check(data: &[u8]) {
    let mut bytes = Bytes(data);
    match bytes.byte() % 4 {
        0 => check_names(&mut bytes),
        1 => check_records(&mut bytes),
        2 => check_values(&mut bytes),
        _ => check_rows(&mut bytes),
    }
}

/// Names become keys of their area, and of no other; ranges hold what begins with their prefix.
fn check_names(bytes: &mut Bytes<'_>) {
    let keys = Keys::new("c", "meta");
    let (prefix, after, name) = (bytes.text(), bytes.text(), bytes.text());
    let name = if bytes.byte().is_multiple_of(2) { format!("{prefix}{name}") } else { name };
    let key = keys.state(&name);
    assert_eq!(key.strip_prefix(&keys.state("")), Some(name.as_str()));
    assert!(!keys.watched().contains(&key) && !KeyRange::prefix(&keys.nodes()).contains(&key));
    let all = KeyRange::prefix(&keys.state(&prefix));
    assert_eq!(all.contains(&key), name.starts_with(&prefix), "{prefix:?} {name:?} {all:?}");
    let page = KeyRange::page(&keys.state(&prefix), &keys.state(&after));
    let wanted = name.starts_with(&prefix) && name > after;
    assert_eq!(page.contains(&key), wanted, "{prefix:?} {after:?} {name:?} {page:?}");
}

/// Our own records are read as they were written.
fn check_records(bytes: &mut Bytes<'_>) {
    let uuid = MemberUuid(u128::from(bytes.number()) << 64 | u128::from(bytes.number()));
    let member = MemberId { node: bytes.text(), uuid, incarnation: Incarnation(bytes.number()) };
    let ttl = Duration::from_secs(bytes.number());
    let lease = LeaseId(bytes.number().cast_signed());
    let leader = LeaderRecord {
        holder: member.clone(),
        address: bytes.text(),
        nonce: Nonce(bytes.number()),
        ttl,
        acquired_ms: bytes.number(),
        transitions: bytes.number(),
        probe_handed_ms: bytes.number(),
    };
    let tenure = codec::decode_tenure(&kv("k", codec::encode_leader(&leader), Some(lease)));
    let leader = LeaderRecord { acquired_ms: leader.acquired_ms.min(LAST_MS), ..leader };
    assert_eq!(tenure.expect("our own record").record, leader);
    let registration = Registration {
        member,
        rpc_address: bytes.text(),
        http_address: bytes.text(),
        priority: u16::from(bytes.byte()) << 8,
        version: bytes.text(),
        ttl,
        lease,
    };
    let keys = Keys::new("c", "meta");
    let key = keys.node(&registration.member.node);
    let value = codec::encode_registration(&registration);
    let found = codec::decode_member(&keys, &kv(&key, value.clone(), Some(lease)));
    assert_eq!(found.expect("our own registration").registration, registration);
    for stray in [kv("k", value.clone(), Some(lease)), kv(&key, value, None)] {
        assert_eq!(codec::decode_member(&keys, &stray), None, "under another key, or on no lease");
    }
    let row = IdentityRow { incarnation: Incarnation(bytes.number()), lease, seen_ms: bytes.number() };
    assert_eq!(codec::decode_identity(&codec::encode_identity(&row)), Some(row));
}

/// Anybody's bytes may stand where our records do.
fn check_values(bytes: &mut Bytes<'_>) {
    let keys = Keys::new("c", "meta");
    let lease = Some(LeaseId(1)).filter(|_| bytes.byte().is_multiple_of(2));
    let value = bytes.0.to_vec();
    let _ = codec::decode_identity(&value).map(|row| {
        assert_eq!(codec::decode_identity(&codec::encode_identity(&row)), Some(row));
    });
    let found = [kv(&keys.leader(), value.clone(), lease), kv(&keys.node("n"), value, lease)];
    if let Some(tenure) = codec::decode_tenure(&found[0]) {
        let again = codec::decode_tenure(&kv("k", codec::encode_leader(&tenure.record), lease));
        assert_eq!(again.expect("what was decoded can be encoded").record, tenure.record);
    }
    if let Some(member) = codec::decode_member(&keys, &found[1]) {
        assert_eq!((member.registration.member.node.as_str(), Some(member.registration.lease)), ("n", lease));
        let value = codec::encode_registration(&member.registration);
        let again = codec::decode_member(&keys, &kv(&keys.node("n"), value, lease));
        assert_eq!(again.expect("what was decoded can be encoded").registration, member.registration);
    }
    let view = WatchedKeys::of(Revision(9), &[found.to_vec()]).view(&keys);
    assert_ne!(view.leader, Leader::Vacant, "whatever is there, somebody leads");
}

/// The rows of workers and barriers, some of them ours, some not.
fn check_rows(bytes: &mut Bytes<'_>) {
    let mut all = Vec::new();
    let mut committed = Epoch::NONE;
    while !bytes.is_empty() && all.len() < ROWS_MAX {
        let value = |bytes: &mut Bytes<'_>| {
            let n = usize::from(bytes.byte());
            bytes.take(n).to_vec()
        };
        let epoch = Epoch::new(bytes.number() >> 1).expect("below 2⁶³");
        let change = match bytes.byte() % 6 {
            0 => {
                committed = epoch;
                rows::commit_change(Barrier { epoch, previous: Epoch::NONE, checkpoint: true })
            }
            1 => rows::ceiling_change(epoch),
            2 => row(format!("meta/workers/{:020}", bytes.number()), value(bytes)),
            3 => {
                let (host, port) = (bytes.text(), bytes.number());
                let json =
                    serde_json::json!({ "host": host, "port": port, "kind": "k", "labels": {"l": host} });
                row(format!("meta/workers/{:020}", bytes.number()), json.to_string().into_bytes())
            }
            4 => row("meta/next_worker".into(), format!("{{\"id\":{}}}", bytes.number()).into_bytes()),
            _ => {
                let name = OUR_NAMES[usize::from(bytes.byte()) % OUR_NAMES.len()];
                row(name.to_owned(), [b"?", value(bytes).as_slice()].concat())
            }
        };
        let metad::protocol::writes::Change::Put(name, value) = change else { panic!("a row is written") };
        all.push((name, value));
    }
    let opening = rows::read(all.iter().map(|(name, value)| (name.as_str(), value.as_slice())));
    assert!(
        opening.workers.iter().all(|w| w.id < opening.next_id),
        "an id would be given out again: {opening:?}"
    );
    assert!(opening.workers.is_sorted_by_key(|w| w.id));
    assert!(opening.barriers.committed >= committed || committed == Epoch::NONE, "{opening:?}");
}

fn row(name: String, value: Vec<u8>) -> metad::protocol::writes::Change {
    metad::protocol::writes::Change::Put(name, value)
}

fn kv(key: &str, value: Vec<u8>, lease: Option<LeaseId>) -> KeyValue {
    KeyValue { key: key.into(), value, created: Revision(5), modified: Revision(6), lease }
}
