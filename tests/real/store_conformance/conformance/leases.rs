//! Leases: names, renewals, what ends with them, and when.

use std::time::Duration;

use futures_util::StreamExt;
use metad::clock::{Clock, Instant, OsClock};
use metad::election::lease::LeaseId;
use metad::store::{Op, Refusal, Request, Response, Txn};

use super::suite::{Case, Ctx, GRACE, LONG, SHORT, cases, new_lease, renew_at, txn_at, waited_since};

/// The cases of this file.
pub const CASES: &[Case] = cases![
    a_lease_has_the_name_that_we_chose_and_only_one_can_have_it,
    a_renewal_tells_the_time_to_live_at_either_client,
    a_renewal_of_an_unknown_lease_tells_that_there_is_none,
    a_renewal_carries_a_stamp_taken_before_it_left,
    a_round_of_renewals_ends,
    revoking_an_unknown_lease_is_no_error,
    a_revoked_lease_takes_its_own_keys_and_no_others,
    a_put_without_a_lease_detaches_the_key,
    a_key_moved_to_another_lease_survives_the_old_one,
    a_lease_name_can_be_used_again_after_a_revoke,
    a_granted_lease_ends_after_its_time_and_not_before,
    a_renewed_lease_ends_after_its_time_and_not_before,
    a_lease_renewed_in_time_does_not_end,
    an_expired_lease_takes_all_its_keys_at_once_and_is_gone,
];

async fn a_lease_has_the_name_that_we_chose_and_only_one_can_have_it(ctx: Ctx) {
    let lease = ctx.grant(LONG).await;
    ctx.put("k", "v", Some(lease)).await;
    for store in [&ctx.here, &ctx.there] {
        let again = store.call(Request::Grant { lease, ttl: LONG }).await;
        let refusal = again.as_ref().err().and_then(|e| e.refusal());
        assert_eq!(refusal, Some(Refusal::LeaseExists), "{again:?}");
    }
    let kv = ctx.get("k").await.expect("the first lease is as it was");
    assert_eq!(kv.lease, Some(lease));
}

async fn a_renewal_tells_the_time_to_live_at_either_client(ctx: Ctx) {
    let lease = ctx.grant(LONG).await;
    for store in [&ctx.here, &ctx.there] {
        let renewal = renew_at(&**store, lease).await;
        assert_eq!(renewal.ttl, Some(LONG), "{renewal:?}");
    }
}

async fn a_renewal_of_an_unknown_lease_tells_that_there_is_none(ctx: Ctx) {
    assert_eq!(ctx.renew(new_lease()).await.ttl, None, "never granted");
    let lease = ctx.grant(LONG).await;
    ctx.revoke(lease).await;
    for store in [&ctx.here, &ctx.there] {
        let renewal = renew_at(&**store, lease).await;
        assert_eq!(renewal.ttl, None, "revoked: {renewal:?}");
    }
}

async fn a_renewal_carries_a_stamp_taken_before_it_left(ctx: Ctx) {
    let lease = ctx.grant(LONG).await;
    for _ in 0..10 {
        let before = OsClock.now();
        let renewal = ctx.renew(lease).await;
        let after = OsClock.now();
        let (from, at, to) = (before.boot_ns(), renewal.stamp.boot_ns(), after.boot_ns());
        assert!(from <= at && at < to, "asked {from}, stamp {at}, answered {to}");
    }
}

async fn a_round_of_renewals_ends(ctx: Ctx) {
    let lease = ctx.grant(LONG).await;
    let round = tokio::time::timeout(Duration::from_secs(60), ctx.here.renew(lease).collect::<Vec<_>>());
    let answers = round.await.expect("the stream ends");
    assert!(!answers.is_empty(), "with an answer");
    let all_good = answers.iter().all(|a| a.as_ref().is_ok_and(|r| r.ttl == Some(LONG)));
    assert!(all_good, "{answers:?}");
}

async fn revoking_an_unknown_lease_is_no_error(ctx: Ctx) {
    for lease in [new_lease(), ctx.grant(LONG).await] {
        for _ in 0..2 {
            let answer = ctx.here.call(Request::Revoke(lease)).await;
            assert!(matches!(answer, Ok(Response::Revoked(_))), "{answer:?}");
        }
    }
}

async fn a_revoked_lease_takes_its_own_keys_and_no_others(ctx: Ctx) {
    let (mine, other) = (ctx.grant(LONG).await, ctx.grant(LONG).await);
    ctx.put("mine/1", "v", Some(mine)).await;
    ctx.put("mine/2", "v", Some(mine)).await;
    ctx.put("other", "v", Some(other)).await;
    ctx.put("none", "v", None).await;
    ctx.revoke(mine).await;
    let left: Vec<_> = ctx.list("").await.into_iter().map(|(name, _)| name).collect();
    assert_eq!(left, ["none", "other"]);
    assert_eq!(ctx.renew(other).await.ttl, Some(LONG), "the other lease lives");
}

async fn a_put_without_a_lease_detaches_the_key(ctx: Ctx) {
    let lease = ctx.grant(LONG).await;
    for name in ["detached", "attached"] {
        ctx.put(name, "1", Some(lease)).await;
    }
    ctx.put("detached", "2", None).await;
    ctx.put("attached", "2", Some(lease)).await;
    assert_eq!(ctx.get("detached").await.expect("there").lease, None);
    ctx.revoke(lease).await;
    assert_eq!(ctx.list("").await, [("detached".to_owned(), "2".to_owned())]);
}

async fn a_key_moved_to_another_lease_survives_the_old_one(ctx: Ctx) {
    let (old, new) = (ctx.grant(LONG).await, ctx.grant(LONG).await);
    ctx.put("k", "1", Some(old)).await;
    ctx.put("k", "2", Some(new)).await;
    ctx.revoke(old).await;
    assert_eq!(ctx.get("k").await.expect("moved").lease, Some(new));
    ctx.revoke(new).await;
    assert_eq!(ctx.get("k").await, None, "and goes with the new one");
}

async fn a_lease_name_can_be_used_again_after_a_revoke(ctx: Ctx) {
    let lease = ctx.grant(LONG).await;
    ctx.put("k", "1", Some(lease)).await;
    ctx.revoke(lease).await;
    let again = ctx.there.call(Request::Grant { lease, ttl: LONG }).await;
    assert!(matches!(again, Ok(Response::Granted(_, LONG))), "{again:?}");
    assert_eq!(ctx.get("k").await, None, "the keys of its first life stay deleted");
    ctx.put("k", "2", Some(lease)).await;
    assert_eq!(ctx.get("k").await.expect("written").lease, Some(lease));
}

/// Waits until the lease's key `k` is gone. `asked` was taken before the last request that set the lease's end
/// left, `answered` after its answer.
async fn assert_ends_in_time(ctx: &Ctx, asked: Instant, answered: Instant) {
    ctx.wait_gone("k").await;
    let now = OsClock.now();
    // The lease's count began after `asked`, and we saw its end before `now`.
    let (lived, late) = (now.since(asked), now.since(answered));
    assert!(lived >= SHORT, "ended after {lived:?}, granted for {SHORT:?}");
    assert!(
        late <= SHORT + GRACE + waited_since(asked),
        "still there {late:?} after the answer, granted for {SHORT:?}"
    );
}

async fn a_granted_lease_ends_after_its_time_and_not_before(ctx: Ctx) {
    let asked = OsClock.now();
    let lease = ctx.grant(SHORT).await;
    let answered = OsClock.now();
    ctx.put("k", "v", Some(lease)).await;
    assert_ends_in_time(&ctx, asked, answered).await;
}

async fn a_renewed_lease_ends_after_its_time_and_not_before(ctx: Ctx) {
    let lease = ctx.grant(SHORT).await;
    ctx.put("k", "v", Some(lease)).await;
    tokio::time::sleep(SHORT / 2).await;
    let asked = OsClock.now();
    let renewal = ctx.renew(lease).await;
    let answered = OsClock.now();
    assert_eq!(renewal.ttl, Some(SHORT), "{renewal:?}");
    assert_ends_in_time(&ctx, asked, answered).await;
}

async fn a_lease_renewed_in_time_does_not_end(ctx: Ctx) {
    let lease = ctx.grant(SHORT).await;
    ctx.put("k", "v", Some(lease)).await;
    let begin = OsClock.now();
    while OsClock.now().since(begin) < SHORT * 3 / 2 {
        tokio::time::sleep(SHORT / 5).await;
        let renewal = ctx.renew(lease).await;
        assert_eq!(renewal.ttl, Some(SHORT), "{renewal:?}");
        assert!(ctx.get("k").await.is_some(), "renewed, and gone");
    }
}

/// What is left of the case's keys, in one look.
async fn count(ctx: &Ctx) -> usize {
    let reply = txn_at(&*ctx.there, Txn::read(vec![Op::List(ctx.key(""))])).await;
    reply.found[0].len()
}

async fn an_expired_lease_takes_all_its_keys_at_once_and_is_gone(ctx: Ctx) {
    let lease: LeaseId = ctx.grant(SHORT).await;
    let puts = ["a", "b", "c"].map(|name| ctx.op_put(name, "v", Some(lease)));
    ctx.write(puts.into()).await;
    let begin = OsClock.now();
    let left = loop {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let left = count(&ctx).await;
        if left < 3 || OsClock.now().since(begin) > SHORT + GRACE + waited_since(begin) {
            break left;
        }
    };
    assert_eq!(left, 0, "keys seen when the lease had ended");
    assert_eq!(ctx.renew(lease).await.ttl, None);
    let e = ctx.refused(Txn::read(vec![ctx.op_put("k", "v", Some(lease))])).await;
    assert_eq!(e.refusal(), Some(Refusal::LeaseNotFound), "{e}");
    let again = ctx.here.call(Request::Grant { lease, ttl: LONG }).await;
    assert!(matches!(again, Ok(Response::Granted(..))), "its name is free: {again:?}");
}
