//! The history against a store in memory: what a row keeps, and whose it is.

use super::*;
use crate::clock::OsClock;
use crate::election::departure::Departure;
use crate::election::history::Reason;
use crate::election::history::row::End;
use crate::election::record::{Incarnation, LeaderRecord, MemberId, MemberUuid, Nonce};
use crate::store::memory::MemoryStore;

struct Fixture {
    store: MemoryStore,
    keys: Keys,
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { store: MemoryStore::new(Arc::new(OsClock)), keys: Keys::new("c", "meta"), dir }
    }

    /// A process of its own.
    fn history(&self) -> Writer {
        Writer::new(self.keys.clone(), Arc::new(self.store.clone()), TenureFile::new(self.dir.path()))
    }

    async fn put(&self, key: String, value: Vec<u8>) -> Token {
        let txn = Txn { guards: vec![], then: vec![Op::Put(key, value, None)], otherwise: vec![] };
        Token::new(ask(&self.store, txn).await.unwrap().header.revision).unwrap()
    }

    /// Somebody gets the leader record.
    async fn lead(&self) -> Token {
        self.put(self.keys.leader(), b"anybody".to_vec()).await
    }

    async fn row(&self, token: Token) -> Option<Row> {
        let found =
            ask(&self.store, Txn::read(vec![Op::Get(row_key(&self.keys, token))])).await.unwrap().found;
        found.into_iter().flatten().next().and_then(|kv| decode_row(&kv.value))
    }
}

fn row(token: Token, node: &str) -> Row {
    let holder = MemberId { node: node.into(), uuid: MemberUuid(1), incarnation: Incarnation(1) };
    let (address, from_ms) = ("h:1".into(), 5);
    Row { token, holder, address, from_ms, gap_ms: Some(7), previous: None, end: None }
}

fn ended(mut row: Row, reason: Reason) -> Row {
    row.close(End { at_ms: 9, reason, detail: String::new(), seen: None, by_holder: true });
    row
}

fn left(row: &Row) -> Left {
    let record = LeaderRecord {
        holder: row.holder.clone(),
        address: row.address.clone(),
        nonce: Nonce(1),
        ttl: Duration::from_secs(5),
        acquired_ms: 5,
        transitions: 0,
        probe_handed_ms: 0,
    };
    Left { record, token: row.token, how: Departure::Vanished, at_ms: 8 }
}

#[tokio::test]
async fn a_leader_that_closes_its_row_keeps_who_led_before() {
    let world = Fixture::new();
    let first = row(world.lead().await, "a");
    world.history().write(HistoryEntry::Begun(first.clone(), None)).await;
    let second = row(world.lead().await, "b");
    let history = world.history();
    history.clone().write(HistoryEntry::Begun(second.clone(), Some(left(&first)))).await;
    history.close(&world.store, &ended(second.clone(), Reason::ResignedSignal)).await;
    let found = world.row(second.token).await.unwrap();
    assert_eq!((found.previous.as_deref(), found.gap_ms), (Some("a"), Some(7)));
    assert_eq!(found.end.unwrap().reason, Reason::ResignedSignal);
    assert_eq!(world.row(first.token).await.unwrap().end.unwrap().reason, Reason::Vanished);
    let third = row(world.lead().await, "c");
    world.history().write(HistoryEntry::Begun(third.clone(), Some(left(&first)))).await;
    let found = world.row(third.token).await.unwrap();
    assert_eq!((found.previous.as_deref(), found.gap_ms), (Some("b"), None), "that gap was before b");
}

#[tokio::test]
async fn a_row_that_was_never_opened_is_written_whole() {
    let world = Fixture::new();
    let only = row(world.lead().await, "a");
    world.history().close(&world.store, &ended(only.clone(), Reason::ResignedSignal)).await;
    assert_eq!(world.row(only.token).await, Some(ended(only, Reason::ResignedSignal)));
}

#[tokio::test]
async fn the_row_of_another_holder_is_not_ours_to_close() {
    let world = Fixture::new();
    let theirs = row(world.lead().await, "a");
    world.history().write(HistoryEntry::Begun(theirs.clone(), None)).await;
    world.history().write(HistoryEntry::Ended(ended(row(theirs.token, "b"), Reason::Fuse))).await;
    assert_eq!(world.row(theirs.token).await.unwrap().end, None);
    world.history().write(HistoryEntry::Ended(ended(theirs.clone(), Reason::Fuse))).await;
    assert_eq!(world.row(theirs.token).await.unwrap().end.unwrap().reason, Reason::Fuse, "twin: its own is");
}
