//! etcd as metad's own store client asks it, without an election and without a fence: what the benchmarks compare with.

use std::sync::Arc;
use std::time::Duration;

use metad::clock::OsClock;
use metad::election::record::Revision;
use metad::store::etcd::{EtcdOptions, EtcdStore};
use metad::store::{Op, Request, Store, Txn};

/// A client of these members. Must be called on a runtime.
pub fn open(endpoints: Vec<String>) -> EtcdStore {
    let options = EtcdOptions {
        endpoints,
        tls: None,
        login: None,
        connect_timeout: Duration::from_secs(1),
        request_timeout: Duration::from_secs(3),
        hedge_max: Duration::from_secs(1),
    };
    EtcdStore::new(options, Arc::new(OsClock)).expect("a store")
}

/// Writes a key, whatever it holds. Returns its revision.
pub async fn put(store: &EtcdStore, key: String, value: &[u8]) -> Revision {
    let txn = Txn { then: vec![Op::Put(key, value.to_vec(), None)], ..Txn::default() };
    store.call(Request::Txn(txn)).await.expect("a put").header().revision
}
