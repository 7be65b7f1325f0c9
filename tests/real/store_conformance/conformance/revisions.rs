//! Revisions and headers, counted exactly. These cases need the store to themselves.

use metad::election::record::Revision;
use metad::store::{Header, Op, Request, Txn};

use super::suite::{Case, Ctx, LONG, SHORT, absent, cases, new_lease, renew_at, revision_at, txn_at};

/// The cases of this file.
pub const CASES: &[Case] = cases![
    all_answers_name_the_same_store,
    every_writing_transaction_takes_the_next_revision,
    all_writes_of_a_transaction_share_one_revision,
    writes_of_the_otherwise_branch_take_a_revision,
    reading_takes_no_revision,
    an_answer_never_shows_less_than_was_seen_before_it_was_asked_for,
    deleting_what_is_not_there_takes_no_revision,
    a_refused_transaction_takes_no_revision,
    granting_and_renewing_take_no_revision,
    ending_a_lease_without_keys_takes_no_revision,
    ending_a_lease_deletes_all_its_keys_in_one_revision,
];

async fn header(ctx: &Ctx, request: Request) -> Header {
    let answer = ctx.here.call(request.clone()).await;
    answer.unwrap_or_else(|e| panic!("{e} to {request:?}")).header()
}

/// The store's revision, seen from there.
async fn revision(ctx: &Ctx) -> Revision {
    revision_at(&*ctx.there).await
}

async fn assert_revision(ctx: &Ctx, expected: u64, what: &str) {
    assert_eq!(revision(ctx).await, Revision(expected), "the revision after {what}");
}

async fn all_answers_name_the_same_store(ctx: Ctx) {
    let read = txn_at(&*ctx.there, Txn::read(vec![Op::Get(ctx.key("k"))])).await.header;
    assert_ne!(read.cluster, 0, "the store has an identity");
    let lease = new_lease();
    let write = Txn::read(vec![ctx.op_put("k", "v", None)]);
    let mut headers = vec![("a transaction", header(&ctx, Request::Txn(write)).await)];
    headers.push(("a grant", header(&ctx, Request::Grant { lease, ttl: LONG }).await));
    headers.push(("a renewal", renew_at(&*ctx.here, lease).await.header));
    headers.push(("a renewal of nothing", renew_at(&*ctx.here, new_lease()).await.header));
    headers.push(("a revoke", header(&ctx, Request::Revoke(lease)).await));
    let of = |h: Header| (h.cluster, h.raft_term);
    let wrong: Vec<_> = headers.iter().filter(|(_, h)| of(*h) != of(read)).collect();
    assert!(wrong.is_empty(), "cluster or term differ from {read:?}: {wrong:?}");
    let nothing = header(&ctx, Request::Revoke(new_lease())).await;
    let silent = nothing == Header::default(); // etcd's "not found" says nothing about the store
    assert!(silent || of(nothing) == of(read), "a revoke of nothing: {nothing:?}");
}

async fn every_writing_transaction_takes_the_next_revision(ctx: Ctx) {
    let Revision(first) = ctx.put("a", "1", None).await;
    assert_eq!(ctx.put("a", "2", None).await, Revision(first + 1), "an overwrite");
    assert_eq!(ctx.put("a", "2", None).await, Revision(first + 2), "the same again");
    assert_eq!(ctx.put("b", "1", None).await, Revision(first + 3), "another key");
    assert_eq!(ctx.delete("a").await, Revision(first + 4), "a deletion");
    assert_revision(&ctx, first + 4, "five writes").await;
}

async fn all_writes_of_a_transaction_share_one_revision(ctx: Ctx) {
    let Revision(before) = ctx.put("d", "1", None).await;
    let puts = ["a", "b", "c"].map(|name| ctx.op_put(name, "v", None));
    let ops = puts.into_iter().chain([Op::Delete(ctx.key("d"))]).collect();
    assert_eq!(ctx.write(ops).await, Revision(before + 1), "the reply's revision");
    for name in ["a", "b", "c"] {
        let kv = ctx.get(name).await.expect("written");
        let at = Revision(before + 1);
        assert_eq!((kv.created, kv.modified), (at, at), "{name}");
    }
    assert_revision(&ctx, before + 1, "one transaction").await;
}

async fn writes_of_the_otherwise_branch_take_a_revision(ctx: Ctx) {
    let Revision(before) = ctx.put("taken", "", None).await;
    let reply = ctx
        .txn(Txn {
            guards: vec![absent(&ctx.key("taken"))],
            then: vec![],
            otherwise: vec![ctx.op_put("a", "1", None)],
        })
        .await;
    assert_eq!((reply.succeeded, reply.header.revision), (false, Revision(before + 1)));
    assert_eq!(ctx.get("a").await.expect("written").modified, Revision(before + 1));
}

/// What lets a lower revision prove that a store went back in time.
async fn an_answer_never_shows_less_than_was_seen_before_it_was_asked_for(ctx: Ctx) {
    for round in 0..50 {
        let seen = ctx.put("k", &round.to_string(), None).await;
        let read = txn_at(&*ctx.there, Txn::read(vec![Op::Get(ctx.key("k"))])).await.header.revision;
        assert!(read >= seen, "a read after {seen} shows {read}");
        let refused = Txn { guards: vec![absent(&ctx.key("k"))], ..Txn::read(vec![]) };
        let refused = txn_at(&*ctx.there, refused).await.header.revision;
        assert!(refused >= read, "a refused transaction after {read} shows {refused}");
        let granted = ctx.there.call(Request::Grant { lease: new_lease(), ttl: SHORT }).await;
        let granted = granted.unwrap_or_else(|e| panic!("{e}")).header().revision;
        assert!(granted >= refused, "a grant after {refused} shows {granted}");
    }
}

async fn reading_takes_no_revision(ctx: Ctx) {
    let Revision(before) = ctx.put("a", "1", None).await;
    let reads = vec![Op::Get(ctx.key("a")), Op::List(ctx.key(""))];
    let reply = ctx.txn(Txn::read(reads.clone())).await;
    assert_eq!(reply.header.revision, Revision(before), "the reply names the store's revision");
    let guarded =
        Txn { guards: vec![absent(&ctx.key("a"))], then: vec![ctx.op_put("b", "", None)], otherwise: reads };
    let reply = ctx.txn(guarded).await;
    assert_eq!((reply.succeeded, reply.header.revision), (false, Revision(before)));
    assert_revision(&ctx, before, "reads").await;
}

async fn deleting_what_is_not_there_takes_no_revision(ctx: Ctx) {
    let Revision(before) = ctx.put("a", "1", None).await;
    let reply = ctx.txn(Txn::read(vec![Op::Delete(ctx.key("x"))])).await;
    assert_eq!((reply.succeeded, reply.header.revision), (true, Revision(before)));
    assert_revision(&ctx, before, "a deletion of nothing").await;
    let both = vec![Op::Delete(ctx.key("x")), ctx.op_put("b", "1", None)];
    assert_eq!(ctx.write(both).await, Revision(before + 1), "a deletion of nothing and a put");
    assert_eq!(ctx.get("b").await.expect("written").modified, Revision(before + 1));
}

async fn a_refused_transaction_takes_no_revision(ctx: Ctx) {
    let Revision(before) = ctx.put("a", "1", None).await;
    let put = |name, lease| ctx.op_put(name, "v", lease);
    let ops = vec![put("b", None), Op::Delete(ctx.key("a")), put("c", Some(new_lease()))];
    ctx.refused(Txn::read(ops)).await;
    assert_revision(&ctx, before, "a refused transaction").await;
}

async fn granting_and_renewing_take_no_revision(ctx: Ctx) {
    let Revision(before) = revision(&ctx).await;
    let lease = ctx.grant(SHORT).await;
    ctx.renew(lease).await;
    assert_revision(&ctx, before, "a grant and a renewal").await;
    ctx.revoke(lease).await;
}

async fn ending_a_lease_without_keys_takes_no_revision(ctx: Ctx) {
    let lease = ctx.grant(LONG).await;
    let Revision(before) = revision(&ctx).await;
    ctx.revoke(lease).await;
    ctx.revoke(lease).await;
    assert_revision(&ctx, before, "revoking a lease without keys").await;
}

async fn ending_a_lease_deletes_all_its_keys_in_one_revision(ctx: Ctx) {
    let lease = ctx.grant(LONG).await;
    for name in ["a", "b", "c"] {
        ctx.put(name, "v", Some(lease)).await;
    }
    let Revision(before) = ctx.put("d", "v", None).await;
    let Header { revision, .. } = header(&ctx, Request::Revoke(lease)).await;
    assert_eq!(revision, Revision(before + 1), "the answer's revision");
    assert_revision(&ctx, before + 1, "revoking a lease with three keys").await;
    assert_eq!(ctx.list("").await, [("d".to_owned(), "v".to_owned())]);
}
