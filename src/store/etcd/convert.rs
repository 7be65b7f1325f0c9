//! Our requests in etcd-client's types, and its answers in ours.

use std::time::Duration;

use etcd_client::{
    Client, Compare, CompareOp, GetOptions, LeaseGrantOptions, PutOptions, ResponseHeader, TxnOp,
    TxnOpResponse,
};

use super::error::{error, status_error};
use crate::election::lease::LeaseId;
use crate::election::record::Revision;
use crate::store::{
    ANSWER_BYTES_MAX, Guard, Header, KeyRange, KeyValue, Op, Refusal, Request, Response, StoreError, Txn,
    TxnReply,
};

/// Asks one member.
pub(super) async fn call(client: &mut Client, request: &Request) -> Result<Response, StoreError> {
    match request {
        Request::Grant { lease, ttl } => {
            let secs = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
            let options = LeaseGrantOptions::new().with_id(lease.0);
            let granted = client.lease_grant(secs, Some(options)).await.map_err(|e| error(&e))?;
            Ok(Response::Granted(header(granted.header()), seconds(granted.ttl())))
        }
        Request::Revoke(lease) => match client.lease_revoke(lease.0).await {
            Ok(revoked) => Ok(Response::Revoked(header(revoked.header()))),
            Err(e) => match error(&e) {
                StoreError::Refused(Refusal::LeaseNotFound, _) => Ok(Response::Revoked(Header::default())),
                e => Err(e),
            },
        },
        Request::Txn(txn) => {
            let mut kv = client.kv_client().max_decoding_message_size(ANSWER_BYTES_MAX);
            let reply = kv.txn(to_txn(txn)).await.map_err(|e| txn_error(txn, &e))?;
            let ops = reply.op_responses().into_iter();
            let found = if is_bare(txn) { Vec::new() } else { ops.filter_map(found).collect() };
            Ok(Response::Txn(TxnReply {
                header: header(reply.header()),
                succeeded: reply.succeeded(),
                found,
            }))
        }
        // Renewals have streams of their own; see `keepalive`.
        Request::Renew(_) => Err(status_error(&tonic::Status::unimplemented("renewals are not unary"))),
    }
}

/// An answer that is too large was one to a question, and asking it did nothing.
fn txn_error(txn: &Txn, e: &etcd_client::Error) -> StoreError {
    match e {
        etcd_client::Error::GRpcStatus(status)
            if status.code() == tonic::Code::OutOfRange && !txn.writes() =>
        {
            StoreError::Refused(Refusal::TooLarge, status.message().to_owned())
        }
        e => error(e),
    }
}

fn to_txn(txn: &Txn) -> etcd_client::Txn {
    let guards: Vec<Compare> = txn.guards.iter().map(to_compare).collect();
    let asked = etcd_client::Txn::new().when(guards);
    if is_bare(txn) {
        // etcd answers a transaction without operations from what the member knows; one read makes it linearizable.
        let key = txn.guards.iter().map(|g| match g {
            Guard::ModRevision(key, _) | Guard::PrefixEmpty(key) => key.as_str(),
        });
        let key = key.into_iter().next().unwrap_or("/metad/");
        let read = || vec![TxnOp::get(key, None)];
        return asked.and_then(read()).or_else(read());
    }
    let ops = |ops: &[Op]| ops.iter().map(to_op).collect::<Vec<_>>();
    asked.and_then(ops(&txn.then)).or_else(ops(&txn.otherwise))
}

fn is_bare(txn: &Txn) -> bool {
    txn.then.is_empty() && txn.otherwise.is_empty()
}

fn to_compare(guard: &Guard) -> Compare {
    match guard {
        Guard::ModRevision(key, is) => {
            Compare::mod_revision(key.as_str(), CompareOp::Equal, is.0.cast_signed())
        }
        // A range compare holds for all keys of the range; for none, it sees a key of zeros (etcd's apply.go).
        Guard::PrefixEmpty(prefix) => {
            Compare::create_revision(prefix.as_str(), CompareOp::Equal, 0).with_prefix()
        }
    }
}

fn to_op(op: &Op) -> TxnOp {
    match op {
        Op::Put(key, value, lease) => {
            let options = lease.map(|l| PutOptions::new().with_lease(l.0));
            TxnOp::put(key.as_str(), value.clone(), options)
        }
        Op::Delete(key) => TxnOp::delete(key.as_str(), None),
        Op::Get(key) => TxnOp::get(key.as_str(), None),
        Op::List(prefix) => TxnOp::get(prefix.as_str(), Some(GetOptions::new().with_prefix())),
        Op::Page { prefix, after, limit } => {
            let range = KeyRange::page(prefix, after);
            let limit = i64::try_from(*limit).unwrap_or(i64::MAX);
            TxnOp::get(range.from, Some(GetOptions::new().with_range(range.to).with_limit(limit)))
        }
    }
}

fn found(response: TxnOpResponse) -> Option<Vec<KeyValue>> {
    match response {
        TxnOpResponse::Get(get) => Some(get.kvs().iter().map(key_value).collect()),
        _ => None,
    }
}

/// A key with its value. Keys of other tools may be any bytes; ours are text.
pub(super) fn key_value(kv: &etcd_client::KeyValue) -> KeyValue {
    KeyValue {
        key: String::from_utf8_lossy(kv.key()).into_owned(),
        value: kv.value().to_vec(),
        created: revision(kv.create_revision()),
        modified: revision(kv.mod_revision()),
        lease: Some(kv.lease()).filter(|l| *l != 0).map(LeaseId),
    }
}

/// A revision as etcd writes it.
pub(super) fn revision(etcd: i64) -> Revision {
    Revision(u64::try_from(etcd).unwrap_or(0))
}

/// Whole seconds as etcd writes them; negative means none.
pub(super) fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl).unwrap_or(0))
}

fn header(h: Option<&ResponseHeader>) -> Header {
    h.map_or_else(Header::default, |h| Header {
        cluster: h.cluster_id(),
        revision: revision(h.revision()),
        raft_term: h.raft_term(),
    })
}
