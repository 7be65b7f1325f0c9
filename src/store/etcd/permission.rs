//! Which permission is missing, where etcd says no more than `permission denied`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::member::Member;
use super::{Login, Shared};
use crate::store::{Guard, Op, Refusal, Request, StoreError, Txn};

/// How long the questions may take that tell which permission is missing.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// How many keys are asked about; metad's transactions name fewer.
const KEYS_MAX: usize = 16;

/// Does etcd refuse because of a role? The text is that of etcd's ErrPermissionDenied.
pub(super) fn is_missing(e: &StoreError) -> bool {
    matches!(e, StoreError::Refused(Refusal::Denied, why) if why.contains("permission denied"))
}

impl Shared {
    /// The refusal of a transaction, with the permission that the user lacks. One that may not even read a key is told
    /// that; whoever may read all of it lacks the permission to write.
    pub(super) async fn name_permission(
        &self,
        member: &Arc<Member>,
        request: &Request,
        e: StoreError,
    ) -> StoreError {
        let (Request::Txn(txn), StoreError::Refused(refusal, why)) = (request, &e) else { return e };
        let asked = self.unreadable(member, txn);
        let Ok(unreadable) = tokio::time::timeout(ASK_TIMEOUT, asked).await else { return e };
        let (verb, keys) = if unreadable.is_empty() {
            ("write", txn.written_keys().map(str::to_owned).collect())
        } else {
            ("read", unreadable)
        };
        if keys.is_empty() {
            return e;
        }
        let user = self.options.login.as_ref().map_or("this client", Login::user);
        let keys = keys.into_iter().collect::<Vec<_>>().join(", ");
        StoreError::Refused(*refusal, format!("{why}: {user} may not {verb} {keys}"))
    }

    async fn unreadable(&self, member: &Arc<Member>, txn: &Txn) -> BTreeSet<String> {
        let mut unreadable = BTreeSet::new();
        for (name, look) in looks(txn).into_iter().take(KEYS_MAX) {
            let request = Request::Txn(Txn::read(vec![look]));
            let answer = member.call(self.clock.as_ref(), &request).await;
            if answer.is_err_and(|e| is_missing(&e)) {
                unreadable.insert(name);
            }
        }
        unreadable
    }
}

/// All that a transaction reads or compares, and a read of each.
fn looks(txn: &Txn) -> Vec<(String, Op)> {
    let page = |prefix: &str| Op::Page { prefix: prefix.to_owned(), after: String::new(), limit: 1 };
    let compared = txn.guards.iter().map(|guard| match guard {
        Guard::ModRevision(key, _) => (key.clone(), Op::Get(key.clone())),
        Guard::PrefixEmpty(prefix) => (prefix.clone(), page(prefix)),
    });
    let read = txn.then.iter().chain(&txn.otherwise).filter_map(|op| match op {
        Op::Get(key) => Some((key.clone(), op.clone())),
        Op::List(prefix) | Op::Page { prefix, .. } => Some((prefix.clone(), page(prefix))),
        Op::Put(..) | Op::Delete(_) => None,
    });
    compared.chain(read).collect()
}
