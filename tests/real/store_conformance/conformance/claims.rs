//! The claims of the election on this store: who may register, and whose claim wins the seat.
//!
//! What follows a won claim is in [`super::tenures`].

use std::sync::Arc;

use metad::election::event::{ClaimAnswer, Event};
use metad::election::lease::LeaseId;
use metad::election::record::{
    Freeze, Incarnation, Leader, LeaderRecord, MemberId, MemberUuid, Nonce, Registration, Revision, Tenure,
    Token, View,
};
use metad::protocol::transactions;
use metad::store::codec::{Keys, decode_identity};
use metad::store::{Op, Request, Response, Store, StoreError, Txn};

use super::suite::{Case, Ctx, LONG, cases, txn_at};

/// The cases of this file.
pub const CASES: &[Case] = cases![
    a_claim_of_the_vacant_seat_wins,
    a_claim_of_a_taken_seat_is_lost,
    a_claim_delivered_twice_is_won_once_with_one_token,
    a_claim_of_a_stale_generation_is_lost,
    a_claim_of_an_unregistered_node_is_lost,
    a_claim_behind_a_foreign_campaigner_is_lost,
    a_claim_in_a_frozen_election_is_lost,
    a_late_copy_of_a_freeze_or_an_unfreeze_changes_nothing,
    the_end_of_an_older_freeze_ends_no_other_one,
    a_claim_under_an_ended_lease_is_lost,
    of_many_claims_at_once_one_wins,
    tokens_grow_from_tenure_to_tenure,
    a_registration_replaces_only_what_it_knows,
    an_enrolment_writes_identity_and_registration_or_neither,
];

/// A member with a lease, perhaps registered.
pub struct Candidate {
    /// Who it is.
    pub id: MemberId,
    /// What its registration and its record hang on.
    pub lease: LeaseId,
    /// Its registration's.
    pub generation: Revision,
}

impl Candidate {
    /// Number `n`: takes a lease and registers.
    pub async fn register(ctx: &Ctx, n: u128) -> Self {
        let mut candidate = Self {
            id: MemberId { node: format!("n{n}"), uuid: MemberUuid(n), incarnation: Incarnation(1) },
            lease: ctx.grant(LONG).await,
            generation: Revision(0),
        };
        candidate.generation = register(ctx, &candidate, Revision(0)).await.expect("registered");
        candidate
    }

    fn registration(&self) -> Registration {
        Registration {
            member: self.id.clone(),
            rpc_address: "127.0.0.1:5690".into(),
            http_address: "127.0.0.1:5691".into(),
            priority: 100,
            version: "0.1.0".into(),
            ttl: LONG,
            lease: self.lease,
        }
    }

    /// The record that it claims with.
    pub fn record(&self, nonce: u64) -> LeaderRecord {
        LeaderRecord {
            holder: self.id.clone(),
            address: "127.0.0.1:5690".into(),
            nonce: Nonce(nonce),
            ttl: LONG,
            acquired_ms: 1_700_000_000_000,
            transitions: 0,
            probe_handed_ms: 0,
        }
    }

    fn claim(&self, ctx: &Ctx, nonce: u64) -> Txn {
        transactions::claim(&ctx.keys, &self.record(nonce), self.lease, self.generation)
    }

    /// What the elector is told about an answer to its claim.
    fn judge(&self, ctx: &Ctx, nonce: u64, answer: &Result<Response, StoreError>) -> ClaimAnswer {
        let event = transactions::claim_event(&ctx.keys, &self.record(nonce), Revision(0), answer);
        match event {
            Event::Claimed { nonce: n, answer, .. } if n == Nonce(nonce) => answer,
            other => panic!("not an answer to claim {nonce}: {other:?}"),
        }
    }

    async fn claims(&self, ctx: &Ctx, store: &dyn Store, nonce: u64) -> ClaimAnswer {
        let answer = store.call(Request::Txn(self.claim(ctx, nonce))).await;
        self.judge(ctx, nonce, &answer)
    }

    /// Claims the vacant seat.
    pub async fn wins(&self, ctx: &Ctx, nonce: u64) -> Token {
        match self.claims(ctx, &*ctx.here, nonce).await {
            ClaimAnswer::Won(token) => token,
            other => panic!("the seat was vacant: {other:?}"),
        }
    }
}

/// Writes the registration over the one of generation `expected`; the new generation.
pub async fn register(ctx: &Ctx, candidate: &Candidate, expected: Revision) -> Option<Revision> {
    let txn = transactions::register(&ctx.keys, &candidate.registration(), expected);
    match transactions::register_event(&ctx.here.call(Request::Txn(txn)).await) {
        Event::Registered(generation) => generation,
        other => panic!("not an answer to a registration: {other:?}"),
    }
}

/// What the other client sees.
pub async fn view(ctx: &Ctx) -> View {
    let reply = txn_at(&*ctx.there, transactions::read(&ctx.keys)).await;
    transactions::watched_keys(&reply).view(&ctx.keys)
}

/// Whoever leads, as the other client sees it.
pub async fn tenure(ctx: &Ctx) -> Tenure {
    let leader = view(ctx).await.leader;
    let tenure = leader.tenure().cloned();
    tenure.unwrap_or_else(|| panic!("somebody leads, and not {leader:?}"))
}

async fn a_claim_of_the_vacant_seat_wins(ctx: Ctx) {
    let one = Candidate::register(&ctx, 1).await;
    assert_eq!(view(&ctx).await.leader, Leader::Vacant);
    let token = one.wins(&ctx, 7).await;
    let expected = Tenure { record: one.record(7), token, lease: one.lease, rewritten: false };
    assert_eq!(tenure(&ctx).await, expected);
    let view = view(&ctx).await;
    let member = view.member("n1").expect("registered");
    assert_eq!((&member.registration, member.generation), (&one.registration(), one.generation));
}

async fn a_claim_of_a_taken_seat_is_lost(ctx: Ctx) {
    let (one, two) = (Candidate::register(&ctx, 1).await, Candidate::register(&ctx, 2).await);
    let token = one.wins(&ctx, 1).await;
    assert_eq!(two.claims(&ctx, &*ctx.there, 1).await, ClaimAnswer::Lost);
    // A new claim of the holder is another claim: it must not take the record for its own.
    assert_eq!(one.claims(&ctx, &*ctx.here, 2).await, ClaimAnswer::Lost);
    assert_eq!(tenure(&ctx).await.token, token);
}

async fn a_claim_delivered_twice_is_won_once_with_one_token(ctx: Ctx) {
    let one = Candidate::register(&ctx, 1).await;
    let token = one.wins(&ctx, 1).await;
    for store in [&ctx.here, &ctx.there] {
        assert_eq!(one.claims(&ctx, &**store, 1).await, ClaimAnswer::Won(token));
    }
    assert_eq!(tenure(&ctx).await.token, token);
}

async fn a_claim_of_a_stale_generation_is_lost(ctx: Ctx) {
    let mut one = Candidate::register(&ctx, 1).await;
    let late = one.claim(&ctx, 1);
    one.generation = register(&ctx, &one, one.generation).await.expect("rewritten");
    let answer = ctx.there.call(Request::Txn(late)).await;
    assert_eq!(one.judge(&ctx, 1, &answer), ClaimAnswer::Lost, "cancelled by rewriting");
    assert_eq!(view(&ctx).await.leader, Leader::Vacant);
    one.wins(&ctx, 2).await;
}

async fn a_claim_of_an_unregistered_node_is_lost(ctx: Ctx) {
    let one = Candidate::register(&ctx, 1).await;
    ctx.write(vec![Op::Delete(ctx.keys.node("n1"))]).await;
    assert_eq!(one.claims(&ctx, &*ctx.here, 1).await, ClaimAnswer::Lost);
    assert_eq!(view(&ctx).await.leader, Leader::Vacant);
}

async fn a_claim_behind_a_foreign_campaigner_is_lost(ctx: Ctx) {
    let one = Candidate::register(&ctx, 1).await;
    let foreign = format!("{}694d7a7b8c9d", ctx.keys.election());
    ctx.write(vec![Op::Put(foreign.clone(), b"another tool".to_vec(), None)]).await;
    assert_eq!(one.claims(&ctx, &*ctx.there, 1).await, ClaimAnswer::Lost);
    assert_eq!(view(&ctx).await.leader, Leader::Foreign("another tool".into()));
    ctx.write(vec![Op::Delete(foreign)]).await;
    one.wins(&ctx, 2).await;
}

async fn a_claim_in_a_frozen_election_is_lost(ctx: Ctx) {
    let one = Candidate::register(&ctx, 1).await;
    let until_ms = Some(1_700_000_060_000);
    let freeze = Freeze { reason: "r".into(), by: "b".into(), since_ms: 1_700_000_000_000, until_ms };
    assert!(txn_at(&*ctx.here, transactions::freeze(&ctx.keys, &freeze, Revision(0))).await.succeeded);
    assert_eq!(
        one.claims(&ctx, &*ctx.there, 1).await,
        ClaimAnswer::Lost,
        "it may have left before the freeze"
    );
    assert_eq!(view(&ctx).await.freeze.expect("frozen").0, freeze);
    let (_, changed) = control(&ctx).await;
    assert!(txn_at(&*ctx.there, transactions::unfreeze(&ctx.keys, changed)).await.succeeded);
    assert_eq!(view(&ctx).await.freeze, None);
    one.wins(&ctx, 2).await;
}

async fn control(ctx: &Ctx) -> (Option<Freeze>, Revision) {
    transactions::control(&ctx.keys, &txn_at(&*ctx.there, transactions::read_control(&ctx.keys)).await)
}

/// Each write of a freeze, delivered once more after everything that came later.
async fn a_late_copy_of_a_freeze_or_an_unfreeze_changes_nothing(ctx: Ctx) {
    let freeze = |reason: &str| Freeze { reason: reason.into(), by: "b".into(), since_ms: 1, until_ms: None };
    let mut sent = vec![transactions::freeze(&ctx.keys, &freeze("never delivered in time"), Revision(0))];
    for wanted in [None, Some(freeze("one")), Some(freeze("two")), None, Some(freeze("one")), None] {
        let (_, changed) = control(&ctx).await;
        let txn = match &wanted {
            Some(freeze) => transactions::freeze(&ctx.keys, freeze, changed),
            None => transactions::unfreeze(&ctx.keys, changed),
        };
        assert!(txn_at(&*ctx.here, txn.clone()).await.succeeded, "twin");
        sent.push(txn);
        for late in &sent {
            assert!(!txn_at(&*ctx.there, late.clone()).await.succeeded, "{late:?}");
        }
        assert_eq!(control(&ctx).await.0, wanted);
    }
}

async fn the_end_of_an_older_freeze_ends_no_other_one(ctx: Ctx) {
    let freeze = Freeze { reason: "r".into(), by: "b".into(), since_ms: 1, until_ms: Some(2) };
    for _ in 0..2 {
        let (_, changed) = control(&ctx).await;
        assert!(txn_at(&*ctx.here, transactions::freeze(&ctx.keys, &freeze, changed)).await.succeeded);
    }
    let (_, written) = view(&ctx).await.freeze.expect("frozen");
    let older = transactions::end_freeze(&ctx.keys, Revision(written.0 - 1));
    assert!(!txn_at(&*ctx.there, older).await.succeeded);
    assert!(txn_at(&*ctx.there, transactions::end_freeze(&ctx.keys, written)).await.succeeded, "twin");
    assert_eq!(view(&ctx).await.freeze, None);
}

async fn a_claim_under_an_ended_lease_is_lost(ctx: Ctx) {
    let mut one = Candidate::register(&ctx, 1).await;
    let lease = one.lease;
    ctx.revoke(lease).await;
    assert_eq!(one.claims(&ctx, &*ctx.here, 1).await, ClaimAnswer::Lost, "its registration is gone");
    one.lease = ctx.grant(LONG).await;
    one.generation = register(&ctx, &one, Revision(0)).await.expect("registered anew");
    one.lease = lease;
    assert_eq!(one.claims(&ctx, &*ctx.here, 2).await, ClaimAnswer::Lost, "the lease is gone");
    assert_eq!(view(&ctx).await.leader, Leader::Vacant);
}

async fn of_many_claims_at_once_one_wins(ctx: Ctx) {
    let mut claims = tokio::task::JoinSet::new();
    for n in 1..=6 {
        let (ctx, one) = (ctx.clone(), Candidate::register(&ctx, n).await);
        claims.spawn(async move {
            let store = if n % 2 == 0 { &ctx.here } else { &ctx.there };
            (one.id.clone(), one.claims(&ctx, &**store, 1).await)
        });
    }
    let mut answers = claims.join_all().await;
    answers.retain(|(_, answer)| *answer != ClaimAnswer::Lost);
    let tenure = tenure(&ctx).await;
    assert_eq!(answers, [(tenure.record.holder, ClaimAnswer::Won(tenure.token))]);
}

async fn tokens_grow_from_tenure_to_tenure(ctx: Ctx) {
    let mut tokens = Vec::new();
    for n in 1..=4 {
        let one = Candidate::register(&ctx, n).await;
        let token = one.wins(&ctx, 1).await;
        tokens.push(token);
        // In turns by choice and by force.
        match n % 2 {
            0 => ctx.revoke(one.lease).await,
            _ => drop(ctx.txn(transactions::release(&ctx.keys, token)).await),
        }
    }
    assert!(tokens.is_sorted_by(|a, b| a < b), "{tokens:?}");
}

async fn a_registration_replaces_only_what_it_knows(ctx: Ctx) {
    let one = Candidate::register(&ctx, 1).await;
    assert_eq!(register(&ctx, &one, Revision(0)).await, None, "somebody is registered");
    let second = register(&ctx, &one, one.generation).await.expect("its own");
    assert!(second > one.generation);
    assert_eq!(register(&ctx, &one, one.generation).await, None, "a late copy");
    assert_eq!(view(&ctx).await.member("n1").expect("there").generation, second);
    ctx.revoke(one.lease).await;
    assert_eq!(view(&ctx).await.members, [], "it hangs on the lease that it names");
}

async fn an_enrolment_writes_identity_and_registration_or_neither(ctx: Ctx) {
    let one = Candidate::register(&ctx, 1).await;
    let identity = ctx.keys.identity(one.id.uuid);
    let enrol = |registered, identified| {
        transactions::enrol(&ctx.keys, &one.registration(), registered, identified, 9)
    };
    let reply = ctx.txn(enrol(Revision(0), Revision(0))).await;
    assert!(!reply.succeeded, "the registration has another generation");
    assert_eq!(ctx.txn(Txn::read(vec![Op::Get(identity.clone())])).await.found, [vec![]]);
    let reply = ctx.txn(enrol(one.generation, Revision(0))).await;
    assert!(reply.succeeded, "{reply:?}");
    let seen = transactions::watched_keys(&reply).view(&ctx.keys);
    let generation = seen.member("n1").expect("the picture shows the new registration").generation;
    assert_eq!(generation, reply.header.revision);
    let reply = txn_at(&*ctx.there, Txn::read(vec![Op::Get(identity)])).await;
    let kv = &reply.found[0][0];
    let row = decode_identity(&kv.value).expect("readable");
    assert_eq!((row.incarnation, row.lease, row.seen_ms), (Incarnation(1), one.lease, 9));
    assert_eq!(kv.lease, None);
    let reply = ctx.txn(enrol(generation, Revision(0))).await;
    assert!(!reply.succeeded, "the identity has another generation");
}

/// A claim of which two copies are under way is won, with the token that the record has. `slow` makes the copies.
pub async fn a_hedged_claim_is_won(slow: &dyn Store, good: Arc<dyn Store>, cluster: &str) {
    let ctx = Ctx { here: good.clone(), there: good, keys: Keys::new(cluster, "meta") };
    let one = Candidate::register(&ctx, 1).await;
    let answer = one.claims(&ctx, slow, 1).await;
    assert_eq!(answer, ClaimAnswer::Won(tenure(&ctx).await.token), "{cluster}");
}
