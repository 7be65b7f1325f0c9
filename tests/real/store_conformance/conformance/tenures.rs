//! The tenures of the election on this store: how a tenure moves or ends, and what its fence refuses.

use metad::election::event::{Event, HandOverAnswer};
use metad::election::record::{Incarnation, Leader, LeaderRecord, Member, Revision, Token};
use metad::protocol::transactions;
use metad::store::{Guard, Op, Request, Txn, TxnReply};

use super::claims::{Candidate, register, tenure, view};
use super::suite::{Case, Ctx, LONG, SHORT, absent, cases, new_lease, txn_at};

/// The cases of this file.
pub const CASES: &[Case] = cases![
    a_release_deletes_the_record_and_leaves_the_registration_to_its_lease,
    a_release_under_a_wrong_token_changes_nothing,
    a_reclaim_moves_the_record_to_the_new_lease,
    a_reclaim_under_a_wrong_token_changes_nothing,
    a_hand_over_gives_the_record_to_the_heir,
    a_hand_over_under_a_wrong_token_changes_nothing,
    a_hand_over_to_an_heir_of_another_generation_changes_nothing,
    a_hand_over_that_has_begun_goes_on_in_a_frozen_election,
    a_hand_over_to_an_ended_lease_is_refused,
    a_fenced_write_happens_under_the_right_token,
    a_fenced_write_needs_the_token,
    a_fenced_write_is_refused_by_another_guard,
    a_leader_whose_lease_ends_leaves_a_vacant_seat,
];

async fn a_release_deletes_the_record_and_leaves_the_registration_to_its_lease(ctx: Ctx) {
    let one = Candidate::register(&ctx, 1).await;
    let token = one.wins(&ctx, 1).await;
    let answer = ctx.here.call(Request::Txn(transactions::release(&ctx.keys, token))).await;
    assert_eq!(transactions::release_event(&answer), Event::Released(true));
    let view = view(&ctx).await;
    let members: Vec<_> = view.members.iter().map(|m| &m.registration.member).collect();
    // By now it might be that of our next start.
    assert_eq!((view.leader, members), (Leader::Vacant, vec![&one.id]));
    assert_eq!(ctx.renew(one.lease).await.ttl, Some(LONG), "its lease lives on");
}

async fn a_release_under_a_wrong_token_changes_nothing(ctx: Ctx) {
    let (one, two) = (Candidate::register(&ctx, 1).await, Candidate::register(&ctx, 2).await);
    let old = one.wins(&ctx, 1).await;
    ctx.txn(transactions::release(&ctx.keys, old)).await;
    let token = two.wins(&ctx, 1).await;
    let before = view(&ctx).await;
    for wrong in [old.revision().0, token.get() + 1] {
        let wrong = Token::new(Revision(wrong)).expect("not 0");
        let reply = ctx.txn(transactions::release(&ctx.keys, wrong)).await;
        assert!(!reply.succeeded, "{wrong} is not {token}");
    }
    let after = view(&ctx).await;
    assert_eq!((after.leader, after.members), (before.leader, before.members));
}

async fn a_reclaim_moves_the_record_to_the_new_lease(ctx: Ctx) {
    let mut one = Candidate::register(&ctx, 1).await;
    let (old_lease, old_token) = (one.lease, one.wins(&ctx, 1).await);
    one.id.incarnation = Incarnation(2);
    one.lease = ctx.grant(LONG).await;
    one.generation = register(&ctx, &one, one.generation).await.expect("re-registered");
    let reply = ctx.txn(transactions::reclaim(&ctx.keys, &one.record(2), one.lease, old_token)).await;
    assert!(reply.succeeded, "{reply:?}");
    let shown = transactions::watched_keys(&reply).view(&ctx.keys);
    ctx.revoke(old_lease).await;
    let now = tenure(&ctx).await;
    assert_eq!((now.lease, &now.record), (one.lease, &one.record(2)), "the old lease took nothing");
    assert!(now.token > old_token, "{} after {old_token}", now.token);
    assert_eq!(shown.leader.tenure(), Some(&now), "the answer's picture shows the new tenure");
    assert_eq!(view(&ctx).await.members.len(), 1, "nor the registration");
}

async fn a_reclaim_under_a_wrong_token_changes_nothing(ctx: Ctx) {
    let (one, two) = (Candidate::register(&ctx, 1).await, Candidate::register(&ctx, 2).await);
    let old = one.wins(&ctx, 1).await;
    ctx.txn(transactions::release(&ctx.keys, old)).await;
    let token = two.wins(&ctx, 1).await;
    let reply = ctx.txn(transactions::reclaim(&ctx.keys, &one.record(2), one.lease, old)).await;
    assert!(!reply.succeeded);
    let shown = transactions::watched_keys(&reply).view(&ctx.keys);
    assert_eq!(shown.leader.tenure().map(|t| t.token), Some(token), "the answer shows who leads");
    assert_eq!(tenure(&ctx).await.record, two.record(1));
}

/// Hands the record over, and says what the elector is told.
async fn hands_over(ctx: &Ctx, record: &LeaderRecord, successor: &Member, token: Token) -> HandOverAnswer {
    let txn = transactions::hand_over(&ctx.keys, record, successor, token);
    match transactions::hand_over_event(&ctx.here.call(Request::Txn(txn)).await) {
        Event::HandedOver(answer) => answer,
        other => panic!("not an answer to a hand-over: {other:?}"),
    }
}

/// A leader with its token, and an successor as it is registered.
async fn leader_and_heir(ctx: &Ctx) -> (Candidate, Token, Candidate, Member) {
    let (one, two) = (Candidate::register(ctx, 1).await, Candidate::register(ctx, 2).await);
    let token = one.wins(ctx, 1).await;
    let successor = view(ctx).await.member("n2").expect("registered").clone();
    (one, token, two, successor)
}

async fn a_hand_over_gives_the_record_to_the_heir(ctx: Ctx) {
    let (one, old, two, successor) = leader_and_heir(&ctx).await;
    let record = two.record(7);
    assert_eq!(hands_over(&ctx, &record, &successor, old).await, HandOverAnswer::Done);
    ctx.revoke(one.lease).await;
    let now = tenure(&ctx).await;
    assert_eq!((&now.record, now.lease), (&record, two.lease), "on the successor's lease");
    assert!(now.token > old, "{} after {old}", now.token);
    let late = fenced(&ctx, old, vec![], "late").await;
    assert!(transactions::refused_by_fence(&late, old), "{late:?}");
    // A second copy finds the token moved on. Nobody can tell it from a refusal, and it does nothing.
    assert_eq!(hands_over(&ctx, &record, &successor, old).await, HandOverAnswer::Unknown);
    assert_eq!(tenure(&ctx).await, now);
}

async fn a_hand_over_under_a_wrong_token_changes_nothing(ctx: Ctx) {
    let (_, token, two, successor) = leader_and_heir(&ctx).await;
    let before = tenure(&ctx).await;
    let wrong = Token::new(Revision(token.get() + 1)).expect("not 0");
    assert_eq!(hands_over(&ctx, &two.record(7), &successor, wrong).await, HandOverAnswer::Unknown);
    assert_eq!(tenure(&ctx).await, before);
}

async fn a_hand_over_to_an_heir_of_another_generation_changes_nothing(ctx: Ctx) {
    let (_, token, mut two, successor) = leader_and_heir(&ctx).await;
    let before = tenure(&ctx).await;
    two.generation = register(&ctx, &two, two.generation).await.expect("the successor withdraws");
    assert_eq!(hands_over(&ctx, &two.record(7), &successor, token).await, HandOverAnswer::Unknown);
    ctx.revoke(two.lease).await;
    let successor = Member { generation: two.generation, ..successor };
    assert_eq!(
        hands_over(&ctx, &two.record(8), &successor, token).await,
        HandOverAnswer::Unknown,
        "the successor is gone"
    );
    assert_eq!(tenure(&ctx).await, before);
}

async fn a_hand_over_that_has_begun_goes_on_in_a_frozen_election(ctx: Ctx) {
    let (_, token, two, successor) = leader_and_heir(&ctx).await;
    ctx.write(vec![Op::Put(ctx.keys.control(), b"{}".to_vec(), None)]).await;
    let record = two.record(7);
    assert_eq!(hands_over(&ctx, &record, &successor, token).await, HandOverAnswer::Done);
    assert_eq!(tenure(&ctx).await.record, record);
}

async fn a_hand_over_to_an_ended_lease_is_refused(ctx: Ctx) {
    let (_, token, two, mut successor) = leader_and_heir(&ctx).await;
    let before = tenure(&ctx).await;
    successor.registration.lease = new_lease();
    assert_eq!(hands_over(&ctx, &two.record(7), &successor, token).await, HandOverAnswer::Refused);
    assert_eq!(tenure(&ctx).await, before);
}

/// A main loop's write of `value`.
async fn fenced(ctx: &Ctx, token: Token, guards: Vec<Guard>, value: &str) -> TxnReply {
    let op = Op::Put(ctx.keys.state("k"), value.into(), None);
    ctx.txn(transactions::fenced(&ctx.keys, token, guards, vec![op])).await
}

async fn state(ctx: &Ctx) -> Option<String> {
    let reply = txn_at(&*ctx.there, Txn::read(vec![Op::Get(ctx.keys.state("k"))])).await;
    ctx.names(&reply.found[0]).pop().map(|(_, value)| value)
}

async fn a_fenced_write_happens_under_the_right_token(ctx: Ctx) {
    let one = Candidate::register(&ctx, 1).await;
    let token = one.wins(&ctx, 1).await;
    let reply = fenced(&ctx, token, vec![], "1").await;
    assert!(reply.succeeded && !transactions::refused_by_fence(&reply, token), "{reply:?}");
    let known = Guard::ModRevision(ctx.keys.state("k"), reply.header.revision);
    let reply = fenced(&ctx, token, vec![known], "2").await;
    assert!(reply.succeeded && !transactions::refused_by_fence(&reply, token), "{reply:?}");
    assert_eq!(state(&ctx).await.as_deref(), Some("2"));
}

async fn a_fenced_write_needs_the_token(ctx: Ctx) {
    let (one, two) = (Candidate::register(&ctx, 1).await, Candidate::register(&ctx, 2).await);
    let old = one.wins(&ctx, 1).await;
    fenced(&ctx, old, vec![], "in time").await;
    ctx.txn(transactions::release(&ctx.keys, old)).await;
    let reply = fenced(&ctx, old, vec![], "nobody leads").await;
    assert!(!reply.succeeded && transactions::refused_by_fence(&reply, old), "{reply:?}");
    let new = two.wins(&ctx, 1).await;
    let reply = fenced(&ctx, old, vec![], "another leads").await;
    assert!(!reply.succeeded && transactions::refused_by_fence(&reply, old), "{reply:?}");
    assert_eq!(state(&ctx).await.as_deref(), Some("in time"));
    assert!(fenced(&ctx, new, vec![], "the new leader").await.succeeded);
}

async fn a_fenced_write_is_refused_by_another_guard(ctx: Ctx) {
    let one = Candidate::register(&ctx, 1).await;
    let token = one.wins(&ctx, 1).await;
    fenced(&ctx, token, vec![], "1").await;
    let reply = fenced(&ctx, token, vec![absent(&ctx.keys.state("k"))], "2").await;
    assert!(!reply.succeeded, "the key is there");
    assert!(!transactions::refused_by_fence(&reply, token), "the token was right: {reply:?}");
    assert_eq!(state(&ctx).await.as_deref(), Some("1"));
}

async fn a_leader_whose_lease_ends_leaves_a_vacant_seat(ctx: Ctx) {
    let (mut one, two) = (Candidate::register(&ctx, 1).await, Candidate::register(&ctx, 2).await);
    one.lease = ctx.grant(SHORT).await;
    one.generation = register(&ctx, &one, one.generation).await.expect("re-registered");
    let old = one.wins(&ctx, 1).await;
    let mut watching = ctx.watch_range(ctx.keys.watched(), old.revision()).await;
    watching.until_deleted(&ctx.keys.leader()).await;
    let view = view(&ctx).await;
    let left: Vec<_> = view.members.iter().map(|m| &m.registration.member).collect();
    assert_eq!((view.leader, left), (Leader::Vacant, vec![&two.id]));
    assert!(two.wins(&ctx, 1).await > old);
}
