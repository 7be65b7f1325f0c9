//! After `--accept-new-store`: lifts the store's revision above every one that this node has seen, so that the next
//! token is above all earlier ones, and whoever fences with it outside of the store refuses nobody.
//!
//! Each write lifts the revision by one. etcd takes thousands of them a second, so what a backup of minutes or hours has
//! lost is made good in seconds; what is further back is etcd's own business (`etcdutl snapshot restore --bump-revision`).

use futures_util::future::join_all;

use super::Shared;
use crate::election::record::Revision;
use crate::protocol::join::JoinFailure;
use crate::store::{Op, Request, StoreError, Txn, ask};

/// How many writes it may take; each leaves about 100 bytes in etcd until the next compaction.
const WRITES_MAX: u64 = 100_000;
/// How many of them are under way at once.
const AT_ONCE: u64 = 64;

/// Lifts the store's revision to `floor` at least. Safe to repeat: it looks first.
pub(super) async fn raise(shared: &Shared, floor: Revision) -> Result<(), JoinFailure> {
    let key = shared.keys.revision();
    let mut said = false;
    loop {
        let look = ask(shared.store.as_ref(), Txn::read(vec![Op::Get(key.clone())])).await;
        let at = look.map_err(|e| failure(&e))?.header.revision;
        let missing = floor.0.saturating_sub(at.0);
        if missing == 0 {
            break;
        }
        if missing > WRITES_MAX {
            return Err(JoinFailure::StoreChanged(too_far(at, floor, missing)));
        }
        if !std::mem::replace(&mut said, true) {
            tracing::info!(
                from = at.0,
                to = floor.0,
                "raising the store's revision above the tokens it has lost"
            );
        }
        let write = || shared.store.call(Request::Txn(put(&key)));
        for answer in join_all((0..missing.min(AT_ONCE)).map(|_| write())).await {
            answer.map_err(|e| failure(&e))?;
        }
    }
    let clean = Txn { then: vec![Op::Delete(key)], ..Txn::default() };
    ask(shared.store.as_ref(), clean).await.map(|_| ()).map_err(|e| failure(&e))
}

fn put(key: &str) -> Txn {
    Txn { then: vec![Op::Put(key.to_owned(), b"lifting the revision".to_vec(), None)], ..Txn::default() }
}

fn failure(e: &StoreError) -> JoinFailure {
    JoinFailure::of(e)
}

fn too_far(at: Revision, floor: Revision, missing: u64) -> String {
    format!(
        "the store is at revision {at}, but this data dir has seen {floor}: tokens up to {floor} may have \
         been issued, and raising the store's revision would take {missing} writes, which is too many; \
         restore the backup again with etcdutl snapshot restore --bump-revision {missing} --mark-compacted, \
         or, if nothing outside the store keeps a token, give this node an empty data dir"
    )
}
