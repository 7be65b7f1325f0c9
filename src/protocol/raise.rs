//! After `--accept-new-store`: lifts the store's revision above every one that this node has seen, so that the next
//! token is above all earlier ones, and whoever fences with it outside of the store refuses nobody.
//!
//! Each write lifts the revision by one. etcd takes thousands of them a second, so what a backup of minutes or hours has
//! lost is made good in seconds; what is further back is etcd's own business (`etcdutl snapshot restore --bump-revision`).

use super::join::JoinFailure;
use crate::election::record::Revision;
use crate::store::codec::Keys;
use crate::store::{Op, Txn};

/// How many writes it may take; each leaves about 100 bytes in etcd until the next compaction.
const WRITES_MAX: u64 = 100_000;
/// How many of them are under way at once.
pub const AT_ONCE: u64 = 64;

/// Shows which revision the store is at.
pub fn look(keys: &Keys) -> Txn {
    Txn::read(vec![Op::Get(keys.revision())])
}

/// How many writes a store at this revision is below the floor.
///
/// # Errors
/// They are too many.
pub fn missing(at: Revision, floor: Revision) -> Result<u64, JoinFailure> {
    let missing = floor.0.saturating_sub(at.0);
    if missing <= WRITES_MAX {
        return Ok(missing);
    }
    Err(JoinFailure::StoreChanged(format!(
        "the store is at revision {at}, but this data dir has seen {floor}: tokens up to {floor} may have \
         been issued, and raising the store's revision would take {missing} writes, which is too many; \
         restore the backup again with etcdutl snapshot restore --bump-revision {missing} --mark-compacted, \
         or, if nothing outside the store keeps a token, give this node an empty data dir"
    )))
}

/// Lifts the revision by one.
pub fn lift(keys: &Keys) -> Txn {
    let value = b"lifting the revision".to_vec();
    Txn { then: vec![Op::Put(keys.revision(), value, None)], ..Txn::default() }
}

/// Leaves nothing behind.
pub fn clean(keys: &Keys) -> Txn {
    Txn { then: vec![Op::Delete(keys.revision())], ..Txn::default() }
}
