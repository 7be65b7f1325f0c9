//! `identity/<uuid>` tells a data dir that was rolled back from one that was not. One row for each data dir that ever
//! joined would grow for ever where each start has a new one, so the leader looks after them once a day: it deletes
//! what nobody was seen with for `FORGOTTEN_AFTER`, and notes that those that are registered are still in use. A row
//! that does not say when counts from the first look on.
//!
//! The days are counted on wall clocks, which may be wrong. What that can cost is bounded: a data dir whose row was
//! deleted is no longer recognised if it is rolled back, and whatever is written here is written under the token.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{millis, wall_clock_ms};
use crate::election::record::{MemberUuid, Token};
use crate::protocol::transactions;
use crate::store::codec::{Keys, WatchedKeys, decode_identity, encode_identity};
use crate::store::{Guard, KeyValue, Op, Store, StoreError, Txn, ask};

/// The first look after a tenure has begun, when there is time for it; and the next ones.
const FIRST: Duration = Duration::from_secs(600);
const EVERY: Duration = Duration::from_secs(24 * 3600);
/// Nobody was seen with it for so long: it is deleted.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(90 * 24 * 3600);
/// A row that is in use is written anew when it is so old: about once a day.
const NOTED_EVERY: Duration = Duration::from_secs(20 * 3600);
/// How many rows one write changes: with their guards they must fit into one transaction.
const AT_ONCE: usize = 40;

/// What becomes of a row.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Stays,
    /// It is in use, and says so from now on.
    Noted(Vec<u8>),
    Goes,
}

/// Looks after the rows, for as long as the record carries this token.
pub(crate) async fn look_after(store: Arc<dyn Store>, keys: Keys, token: Token) {
    let mut pause = FIRST;
    loop {
        tokio::time::sleep(pause).await;
        pause = EVERY;
        match look(store.as_ref(), &keys, token, wall_clock_ms()).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(e) => tracing::debug!(error = %e, "identity cleanup failed; retrying in 24 h"),
        }
    }
}

/// One look. False: we do not lead any more.
async fn look(store: &dyn Store, keys: &Keys, token: Token, now_ms: u64) -> Result<bool, StoreError> {
    let read = Txn::read(vec![Op::List(keys.identities()), Op::List(keys.nodes())]);
    let reply = ask(store, read).await?;
    let members = WatchedKeys::of(reply.header.revision, &reply.found[1..]).view(keys).members;
    let in_use: BTreeSet<MemberUuid> = members.iter().map(|m| m.registration.member.uuid).collect();
    let prefix = keys.identities();
    let is_in_use = |kv: &KeyValue| {
        let uuid = kv.key.strip_prefix(&prefix).and_then(|uuid| uuid.parse().ok());
        uuid.is_some_and(|uuid| in_use.contains(&uuid))
    };
    let changes: Vec<(Guard, Op)> = reply.found[0]
        .iter()
        .filter_map(|kv| {
            let op = match fate(kv, is_in_use(kv), now_ms) {
                Fate::Stays => return None,
                Fate::Noted(value) => Op::Put(kv.key.clone(), value, None),
                Fate::Goes => Op::Delete(kv.key.clone()),
            };
            Some((Guard::ModRevision(kv.key.clone(), kv.modified), op))
        })
        .collect();
    for some in changes.chunks(AT_ONCE) {
        let (guards, ops) = some.iter().cloned().unzip();
        let reply = ask(store, transactions::fenced(keys, token, guards, ops)).await?;
        if transactions::refused_by_fence(&reply, token) {
            return Ok(false);
        }
        // Refused for another reason: somebody has just joined with one of them. The rest is for tomorrow.
    }
    Ok(true)
}

fn fate(kv: &KeyValue, in_use: bool, now_ms: u64) -> Fate {
    let Some(mut row) = decode_identity(&kv.value) else { return Fate::Stays };
    let age_ms = now_ms.saturating_sub(row.seen_ms);
    if row.seen_ms == 0 || (in_use && age_ms > millis(NOTED_EVERY)) {
        row.seen_ms = now_ms;
        Fate::Noted(encode_identity(&row))
    } else if !in_use && age_ms > millis(FORGOTTEN_AFTER) {
        Fate::Goes
    } else {
        Fate::Stays
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::OsClock;
    use crate::election::lease::LeaseId;
    use crate::election::record::{Incarnation, MemberId, Registration, Revision};
    use crate::store::Request;
    use crate::store::codec::{IdentityRow, encode_registration};
    use crate::store::memory::MemoryStore;

    const DAY_MS: u64 = 24 * 3600 * 1000;
    const NOW_MS: u64 = 1000 * DAY_MS;

    async fn put(store: &MemoryStore, key: String, value: Vec<u8>) -> Revision {
        let txn = Txn { guards: vec![], then: vec![Op::Put(key, value, None)], otherwise: vec![] };
        ask(store, txn).await.unwrap().header.revision
    }

    fn seen(days_ago: u64) -> Vec<u8> {
        let seen_ms = NOW_MS - days_ago * DAY_MS;
        encode_identity(&IdentityRow { incarnation: Incarnation(7), lease: LeaseId(1), seen_ms })
    }

    /// The rows that are left, with the days since they were seen.
    async fn left(store: &MemoryStore, keys: &Keys) -> Vec<(MemberUuid, u64)> {
        let rows = ask(store, Txn::read(vec![Op::List(keys.identities())])).await.unwrap().found.remove(0);
        let one = |kv: &KeyValue| {
            let row = decode_identity(&kv.value).unwrap();
            assert_eq!(row.incarnation, Incarnation(7), "nothing else is changed");
            let uuid = kv.key.strip_prefix(&keys.identities()).unwrap().parse().unwrap();
            (uuid, (NOW_MS - row.seen_ms) / DAY_MS)
        };
        rows.iter().map(one).collect()
    }

    #[tokio::test]
    async fn what_nobody_has_joined_with_for_a_season_goes_and_what_is_in_use_stays() {
        let (store, keys) = (MemoryStore::new(Arc::new(OsClock)), Keys::new("c", "meta"));
        for (uuid, days) in [(1, 89), (2, 91), (3, 91), (4, 10)] {
            put(&store, keys.identity(MemberUuid(uuid)), seen(days)).await;
        }
        for uuid in 100..200 {
            put(&store, keys.identity(MemberUuid(uuid)), seen(400)).await;
        }
        let member = MemberId { node: "n".into(), uuid: MemberUuid(3), incarnation: Incarnation(7) };
        let registration = Registration::of(member);
        let lease = registration.lease;
        store.call(Request::Grant { lease, ttl: registration.ttl }).await.unwrap();
        let registered = Op::Put(keys.node("n"), encode_registration(&registration), Some(lease));
        ask(&store, Txn { then: vec![registered], ..Txn::default() }).await.unwrap();
        let token = Token::new(put(&store, keys.leader(), b"anybody".to_vec()).await).unwrap();
        assert!(look(&store, &keys, token, NOW_MS).await.unwrap());
        let expected = [(1, 89), (3, 0), (4, 10)].map(|(uuid, days)| (MemberUuid(uuid), days));
        assert_eq!(left(&store, &keys).await, expected);
        // Twin: whoever leads no longer changes nothing.
        put(&store, keys.leader(), b"somebody else".to_vec()).await;
        assert!(!look(&store, &keys, token, NOW_MS + 91 * DAY_MS).await.unwrap());
        assert_eq!(left(&store, &keys).await, expected);
    }

    #[test]
    fn a_row_that_does_not_say_when_it_was_seen_is_not_deleted_yet() {
        let fate = |value: &[u8]| {
            let kv = KeyValue {
                key: "k".into(),
                value: value.into(),
                created: Revision(1),
                modified: Revision(1),
                lease: None,
            };
            fate(&kv, false, NOW_MS)
        };
        assert_eq!(fate(br#"{"incarnation":7,"lease":"1"}"#), Fate::Noted(seen(0)));
        assert_eq!(fate(b"?"), Fate::Stays, "not to be read, so not to be touched");
        assert_eq!(fate(&seen(91)), Fate::Goes, "twin");
    }
}
