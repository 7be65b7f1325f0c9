//! Guards, atomicity, what a transaction finds, and races.

use std::sync::Arc;

use metad::election::record::Revision;
use metad::store::{Guard, Op, Refusal, Store, TXN_OPS_MAX, Txn};

use super::suite::{Case, Ctx, LONG, absent, cases, new_lease, txn_at};

/// The cases of this file.
pub const CASES: &[Case] = cases![
    a_guard_holds_at_the_right_revision_only,
    the_guard_of_revision_0_holds_for_an_absent_key_only,
    all_guards_must_hold,
    a_prefix_is_empty_until_a_key_begins_with_it,
    a_revoked_lease_empties_a_prefix,
    a_put_under_an_unknown_lease_is_refused_and_nothing_is_written,
    an_unknown_lease_in_the_branch_not_taken_does_not_matter,
    finds_come_in_the_order_of_their_operations,
    a_list_is_sorted_by_key_and_ends_with_its_prefix,
    a_get_finds_one_key_only,
    a_transaction_reads_what_it_wrote_before_and_not_what_it_writes_after,
    a_key_knows_its_creation_its_last_write_and_its_lease,
    values_are_any_bytes,
    a_transaction_may_hold_the_most_operations,
    what_one_client_wrote_the_other_reads_at_once,
    of_two_writers_on_one_guard_exactly_one_wins,
    increments_under_a_guard_are_never_lost,
];

/// How often writers race.
const ROUNDS: usize = 50;
/// How often a writer tries again when others were faster.
const ATTEMPTS: usize = 500;

/// A transaction that tells which branch was taken, by writing to `then` or to `otherwise`.
fn either(ctx: &Ctx, guards: Vec<Guard>, value: &str) -> Txn {
    Txn {
        guards,
        then: vec![ctx.op_put("then", value, None)],
        otherwise: vec![ctx.op_put("otherwise", value, None)],
    }
}

/// Do these guards hold? Checks that just the right branch was done.
async fn holds(ctx: &Ctx, guards: Vec<Guard>) -> bool {
    let mark = uuid::Uuid::new_v4().to_string();
    let reply = ctx.txn(either(ctx, guards.clone(), &mark)).await;
    for (name, taken) in [("then", reply.succeeded), ("otherwise", !reply.succeeded)] {
        let written = ctx.get(name).await.is_some_and(|kv| kv.value == mark.as_bytes());
        assert_eq!(written, taken, "was {name} done? guards {guards:?}, reply {reply:?}");
    }
    reply.succeeded
}

async fn a_guard_holds_at_the_right_revision_only(ctx: Ctx) {
    let key = ctx.key("k");
    let Revision(first) = ctx.put("k", "1", None).await;
    let Revision(second) = ctx.put("k", "2", None).await;
    let at = |revision| vec![Guard::ModRevision(key.clone(), Revision(revision))];
    assert!(holds(&ctx, at(second)).await, "its own revision");
    assert!(!holds(&ctx, at(first)).await, "a stale revision");
    assert!(!holds(&ctx, at(second + 1)).await, "a revision to come");
    ctx.delete("k").await;
    assert!(!holds(&ctx, at(second)).await, "the revision of a deleted key");
}

async fn the_guard_of_revision_0_holds_for_an_absent_key_only(ctx: Ctx) {
    let guard = || vec![absent(&ctx.key("k"))];
    assert!(holds(&ctx, guard()).await, "never written");
    ctx.put("k", "1", None).await;
    assert!(!holds(&ctx, guard()).await, "written");
    ctx.delete("k").await;
    assert!(holds(&ctx, guard()).await, "deleted");
}

async fn all_guards_must_hold(ctx: Ctx) {
    let at = ctx.put("k", "1", None).await;
    let good = || Guard::ModRevision(ctx.key("k"), at);
    let bad = || absent(&ctx.key("k"));
    let empty = || Guard::PrefixEmpty(ctx.key("none/"));
    assert!(holds(&ctx, vec![]).await, "no guard");
    assert!(holds(&ctx, vec![good(), empty()]).await, "both hold");
    assert!(!holds(&ctx, vec![bad(), good(), empty()]).await, "the first fails");
    assert!(!holds(&ctx, vec![good(), empty(), bad()]).await, "the last fails");
}

async fn a_prefix_is_empty_until_a_key_begins_with_it(ctx: Ctx) {
    let guard = || vec![Guard::PrefixEmpty(ctx.key("p/"))];
    for neighbour in ["p", "o/x", "p.x", "p0", "q/x"] {
        ctx.put(neighbour, "", None).await;
    }
    assert!(holds(&ctx, guard()).await, "its neighbours do not count");
    ctx.put("p/x", "", None).await;
    assert!(!holds(&ctx, guard()).await, "one key");
    ctx.delete("p/x").await;
    assert!(holds(&ctx, guard()).await, "deleted");
    ctx.put("p/", "", None).await;
    assert!(!holds(&ctx, guard()).await, "the prefix itself is a key");
}

async fn a_revoked_lease_empties_a_prefix(ctx: Ctx) {
    let lease = ctx.grant(LONG).await;
    ctx.put("p/x", "", Some(lease)).await;
    let guard = || vec![Guard::PrefixEmpty(ctx.key("p/"))];
    assert!(!holds(&ctx, guard()).await, "while the lease lives");
    ctx.revoke(lease).await;
    assert!(holds(&ctx, guard()).await, "when it has ended");
}

async fn a_put_under_an_unknown_lease_is_refused_and_nothing_is_written(ctx: Ctx) {
    ctx.put("deleted", "still there", None).await;
    let unknown = Some(new_lease());
    let ops = || {
        vec![
            ctx.op_put("before", "v", None),
            Op::Delete(ctx.key("deleted")),
            ctx.op_put("leased", "v", unknown),
            ctx.op_put("after", "v", None),
        ]
    };
    let otherwise = Txn { guards: vec![absent(&ctx.key("deleted"))], then: vec![], otherwise: ops() };
    for txn in [Txn::read(ops()), otherwise] {
        let e = ctx.refused(txn).await;
        assert_eq!(e.refusal(), Some(Refusal::LeaseNotFound), "{e}");
        let left = [("deleted".to_owned(), "still there".to_owned())];
        assert_eq!(ctx.list("").await, left);
    }
}

async fn an_unknown_lease_in_the_branch_not_taken_does_not_matter(ctx: Ctx) {
    let txn = Txn {
        guards: vec![],
        then: vec![ctx.op_put("k", "v", None)],
        otherwise: vec![ctx.op_put("leased", "v", Some(new_lease()))],
    };
    assert!(ctx.txn(txn).await.succeeded);
    assert_eq!(ctx.list("").await.len(), 1);
}

async fn finds_come_in_the_order_of_their_operations(ctx: Ctx) {
    for name in ["a", "b/1", "b/2"] {
        ctx.put(name, name, None).await;
    }
    let ops = vec![
        Op::List(ctx.key("b/")),
        ctx.op_put("c", "c", None),
        Op::Get(ctx.key("a")),
        Op::Get(ctx.key("absent")),
        Op::Delete(ctx.key("b/1")),
        Op::List(ctx.key("b/")),
        Op::List(ctx.key("absent/")),
    ];
    let reply = ctx.txn(Txn::read(ops)).await;
    let found: Vec<Vec<String>> =
        reply.found.iter().map(|kvs| ctx.names(kvs).into_iter().map(|(name, _)| name).collect()).collect();
    let expected: [&[&str]; 5] = [&["b/1", "b/2"], &["a"], &[], &["b/2"], &[]];
    assert_eq!(found, expected, "puts and deletes find nothing");
}

async fn a_list_is_sorted_by_key_and_ends_with_its_prefix(ctx: Ctx) {
    for name in ["l/b", "l/a/x", "l/B", "l/10", "l/9", "l/a", "l/é", "l/", "l0", "l", "k/z"] {
        ctx.put(name, "", None).await;
    }
    let names: Vec<_> = ctx.list("l/").await.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["l/", "l/10", "l/9", "l/B", "l/a", "l/a/x", "l/b", "l/é"], "by bytes");
}

async fn a_get_finds_one_key_only(ctx: Ctx) {
    for name in ["ka", "k/a", "kk"] {
        ctx.put(name, "", None).await;
    }
    assert_eq!(ctx.get("k").await, None, "others begin with it");
    ctx.put("k", "v", None).await;
    assert_eq!(ctx.get("k").await.expect("written").key, ctx.key("k"));
}

async fn a_transaction_reads_what_it_wrote_before_and_not_what_it_writes_after(ctx: Ctx) {
    ctx.put("p/gone", "old", None).await;
    ctx.put("p/k", "old", None).await;
    let ops = vec![
        Op::List(ctx.key("p/")),
        ctx.op_put("p/k", "new", None),
        Op::Delete(ctx.key("p/gone")),
        ctx.op_put("p/more", "new", None),
        Op::List(ctx.key("p/")),
        Op::Get(ctx.key("p/late")),
        ctx.op_put("p/late", "new", None),
    ];
    let reply = ctx.txn(Txn::read(ops)).await;
    let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    };
    assert_eq!(ctx.names(&reply.found[0]), pairs(&[("p/gone", "old"), ("p/k", "old")]));
    assert_eq!(ctx.names(&reply.found[1]), pairs(&[("p/k", "new"), ("p/more", "new")]));
    assert!(reply.found[2].is_empty(), "written after the get");
    let modified = reply.found[1].iter().map(|kv| kv.modified);
    assert!(modified.into_iter().all(|at| at == reply.header.revision), "{reply:?}");
}

async fn a_key_knows_its_creation_its_last_write_and_its_lease(ctx: Ctx) {
    let lease = ctx.grant(LONG).await;
    let state = async || {
        let kv = ctx.get("k").await.expect("written");
        (kv.value, kv.created, kv.modified, kv.lease)
    };
    let first = ctx.put("k", "1", None).await;
    assert_eq!(state().await, (b"1".to_vec(), first, first, None));
    let second = ctx.put("k", "2", Some(lease)).await;
    assert_eq!(state().await, (b"2".to_vec(), first, second, Some(lease)));
    ctx.delete("k").await;
    assert_eq!(ctx.get("k").await, None);
    let third = ctx.put("k", "3", None).await;
    assert_eq!(state().await, (b"3".to_vec(), third, third, None), "made anew");
}

async fn values_are_any_bytes(ctx: Ctx) {
    let large = vec![0xff; 100_000];
    for value in [vec![], vec![0], vec![0xff, 0, 0xfe, b'\n', 0x80], large] {
        ctx.write(vec![Op::Put(ctx.key("k"), value.clone(), None)]).await;
        let found = ctx.get("k").await.expect("written").value;
        assert!(found == value, "{} bytes came back as {}", value.len(), found.len());
    }
}

async fn a_transaction_may_hold_the_most_operations(ctx: Ctx) {
    let name = |i: usize| format!("p/{i:03}");
    let put = |i| ctx.op_put(&name(i), "v", None);
    let txn = Txn {
        guards: vec![Guard::PrefixEmpty(ctx.key("p/"))],
        then: (0..TXN_OPS_MAX - 2).map(put).collect(),
        otherwise: vec![Op::List(ctx.key("p/"))],
    };
    assert!(ctx.txn(txn).await.succeeded);
    assert_eq!(ctx.list("p/").await.len(), TXN_OPS_MAX - 2);
}

async fn what_one_client_wrote_the_other_reads_at_once(ctx: Ctx) {
    for round in 0..ROUNDS {
        let (writer, reader) = match round % 2 {
            0 => (&ctx.here, &ctx.there),
            _ => (&ctx.there, &ctx.here),
        };
        let written = Txn::read(vec![ctx.op_put("k", &round.to_string(), None)]);
        let at = txn_at(&**writer, written).await.header.revision;
        let reply = txn_at(&**reader, Txn::read(vec![Op::Get(ctx.key("k"))])).await;
        assert_eq!(reply.found[0][0].modified, at, "round {round}");
        assert!(reply.header.revision >= at, "round {round}: {reply:?}");
    }
}

/// One racer: writes its name under the guard and says whether it won.
async fn race(store: Arc<dyn Store>, txn: Txn) -> bool {
    txn_at(&*store, txn).await.succeeded
}

async fn of_two_writers_on_one_guard_exactly_one_wins(ctx: Ctx) {
    let mut at = Revision(0);
    for round in 0..ROUNDS {
        let contender = |name: &str| Txn {
            guards: vec![Guard::ModRevision(ctx.key("k"), at)],
            then: vec![ctx.op_put("k", name, None)],
            otherwise: vec![],
        };
        let racers = [
            ("a", tokio::spawn(race(ctx.here.clone(), contender("a")))),
            ("b", tokio::spawn(race(ctx.there.clone(), contender("b")))),
            ("c", tokio::spawn(race(ctx.here.clone(), contender("c")))),
        ];
        let mut winners = Vec::new();
        for (name, racer) in racers {
            if racer.await.expect("a racer does not panic") {
                winners.push(name);
            }
        }
        let kv = ctx.get("k").await.expect("somebody won");
        assert_eq!(winners.len(), 1, "round {round}: winners {winners:?}");
        assert_eq!(kv.value, winners[0].as_bytes(), "round {round}: the winner's value stays");
        at = kv.modified;
    }
}

/// Adds one to the number at `key`, with a few attempts: somebody gets on in every round.
async fn increment(store: Arc<dyn Store>, key: String) {
    for _ in 0..ATTEMPTS {
        let reply = txn_at(&*store, Txn::read(vec![Op::Get(key.clone())])).await;
        let (number, at) = match reply.found[0].first() {
            Some(kv) => (String::from_utf8_lossy(&kv.value).parse().unwrap_or(0), kv.modified),
            None => (0_u32, Revision(0)),
        };
        let next = Txn {
            guards: vec![Guard::ModRevision(key.clone(), at)],
            then: vec![Op::Put(key.clone(), (number + 1).to_string().into(), None)],
            otherwise: vec![],
        };
        if txn_at(&*store, next).await.succeeded {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("no luck in {ATTEMPTS} attempts");
}

async fn increments_under_a_guard_are_never_lost(ctx: Ctx) {
    let mut writers = tokio::task::JoinSet::new();
    for store in [&ctx.here, &ctx.there, &ctx.here, &ctx.there] {
        let (store, key) = (store.clone(), ctx.key("k"));
        writers.spawn(async move {
            for _ in 0..10 {
                increment(store.clone(), key.clone()).await;
            }
        });
    }
    writers.join_all().await;
    assert_eq!(ctx.list("k").await, [("k".to_owned(), "40".to_owned())]);
}
