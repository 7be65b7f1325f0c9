//! Watches: what they tell, in which order, and that they live.
//!
//! A watch need not tell every value that a key ever had; what it must tell is enough to have, at every batch's
//! revision, the very picture that a read would have shown.

use std::collections::BTreeMap;
use std::time::Duration;

use metad::clock::{Clock, OsClock};
use metad::election::record::Revision;
use metad::store::{Change, KeyRange, Op, Txn};

use super::suite::{ALIVE_EVERY, Case, Ctx, GRACE, LONG, SHORT, Watching, cases, txn_at, waited_since};

/// The cases of this file.
pub const CASES: &[Case] = cases![
    a_watch_from_the_past_tells_the_changes_in_their_order,
    a_watch_from_now_tells_what_happens_next,
    a_watch_tells_deletions,
    a_watch_tells_what_a_revoked_lease_took,
    a_watch_tells_what_an_expired_lease_took,
    a_watch_tells_nothing_from_outside_its_range,
    a_watch_shows_signs_of_life,
    a_batch_never_splits_a_transaction,
    a_folded_watch_ends_as_the_store_is,
    two_watches_of_one_client_tell_the_same,
];

/// The cases that need the store to themselves.
pub const ALONE: &[Case] = cases![a_watch_of_an_idle_store_shows_signs_of_life_and_is_quick];

/// How long a change may take to be told while nobody else uses the store: SQLite's watch looks every 50 ms.
const SOON: Duration = Duration::from_millis(800);
/// How late a sign of life may come while all the other cases use the same store.
const BUSY: Duration = Duration::from_millis(1500);
/// The same, while nobody does: less than the next sign would take.
const IDLE: Duration = Duration::from_millis(400);

/// A change in short: name and value, or name alone.
fn brief(ctx: &Ctx, change: &Change) -> String {
    let prefix = ctx.keys.prefix();
    match change {
        Change::Put(kv) => {
            format!("{}={}", kv.key.trim_start_matches(prefix), String::from_utf8_lossy(&kv.value))
        }
        Change::Deleted(key) => format!("-{}", key.trim_start_matches(prefix)),
    }
}

fn told(ctx: &Ctx, watching: &Watching) -> Vec<String> {
    watching.changes.iter().map(|c| brief(ctx, c)).collect()
}

async fn a_watch_from_the_past_tells_the_changes_in_their_order(ctx: Ctx) {
    let before = ctx.put("old", "0", None).await;
    let lease = ctx.grant(LONG).await;
    ctx.put("b", "1", None).await;
    ctx.put("a", "2", Some(lease)).await;
    ctx.delete("old").await;
    ctx.put("c", "3", None).await;
    let last = ctx.put("last", "4", None).await;
    let mut watching = ctx.watch(before).await;
    watching.until_put(&ctx.key("last"), "4").await;
    assert_eq!(told(&ctx, &watching), ["b=1", "a=2", "-old", "c=3", "last=4"]);
    assert!(watching.picture.revision() >= last, "complete up to the last change");
    let Some(Change::Put(told)) = watching.changes.get(1) else { panic!("{:?}", watching.changes) };
    assert_eq!(Some(told), ctx.get("a").await.as_ref(), "a change tells all about its key");
}

async fn a_watch_from_now_tells_what_happens_next(ctx: Ctx) {
    let now = ctx.put("k", "0", None).await;
    let mut watching = ctx.watch(now).await;
    for round in 1..=10 {
        let value = round.to_string();
        ctx.put("k", &value, None).await;
        watching.until_put(&ctx.key("k"), &value).await;
    }
    let expected: Vec<_> = (1..=10).map(|round| format!("k={round}")).collect();
    assert_eq!(told(&ctx, &watching), expected, "each once, and nothing older");
}

async fn a_watch_tells_deletions(ctx: Ctx) {
    let at = ctx.put("k", "1", None).await;
    let mut watching = ctx.watch(at).await;
    ctx.delete("k").await;
    watching.until_deleted(&ctx.key("k")).await;
    ctx.put("k", "2", None).await;
    watching.until_put(&ctx.key("k"), "2").await;
    assert_eq!(told(&ctx, &watching), ["-k", "k=2"]);
}

async fn a_watch_tells_what_a_revoked_lease_took(ctx: Ctx) {
    let lease = ctx.grant(LONG).await;
    let puts = ["a", "b"].map(|name| ctx.op_put(name, "v", Some(lease)));
    let at = ctx.write(puts.into()).await;
    let mut watching = ctx.watch(at).await;
    ctx.revoke(lease).await;
    watching.until_deleted(&ctx.key("b")).await;
    let mut told = told(&ctx, &watching);
    told.sort();
    assert_eq!(told, ["-a", "-b"]);
}

async fn a_watch_tells_what_an_expired_lease_took(ctx: Ctx) {
    let lease = ctx.grant(SHORT).await;
    let at = ctx.put("k", "v", Some(lease)).await;
    let answered = OsClock.now();
    let mut watching = ctx.watch(at).await;
    watching.until_deleted(&ctx.key("k")).await;
    let took = OsClock.now().since(answered);
    assert_eq!(told(&ctx, &watching), ["-k"]);
    let limit = SHORT + GRACE + ALIVE_EVERY + waited_since(answered);
    assert!(took <= limit, "told {took:?} after the put, more than {limit:?}");
}

async fn a_watch_tells_nothing_from_outside_its_range(ctx: Ctx) {
    let begin = ctx.put("b", "0", None).await;
    let range = KeyRange { from: ctx.key("b"), to: ctx.key("d") };
    let mut watching = ctx.watch_range(range, begin).await;
    for name in ["a", "b", "c", "c/x", "d", "e"] {
        ctx.put(name, "1", None).await;
    }
    for name in ["a", "b", "d"] {
        ctx.delete(name).await;
    }
    ctx.put("c", "last", None).await;
    watching.until_put(&ctx.key("c"), "last").await;
    let told = told(&ctx, &watching);
    let last_of_each: BTreeMap<&str, &String> =
        told.iter().map(|t| (t.trim_start_matches('-').split('=').next().unwrap_or(t), t)).collect();
    let expected = [("b", "-b"), ("c", "c=last"), ("c/x", "c/x=1")];
    let seen: Vec<_> = last_of_each.iter().map(|(k, v)| (*k, v.as_str())).collect();
    assert_eq!(seen, expected, "from b up to, and without, d; all told: {told:?}");
}

/// Reads one batch, without changes, that comes in time or `late` by no more than this.
async fn sign_of_life(watching: &mut Watching, late: Duration) -> Revision {
    let before = OsClock.now();
    let batch = watching.batch().await;
    let silent = OsClock.now().since(before);
    let limit = ALIVE_EVERY + late + waited_since(before);
    assert!(silent <= limit, "a sign of life after {silent:?}, asked for one in {ALIVE_EVERY:?}");
    assert_eq!(batch.changes, [], "nothing happened in its range");
    batch.revision
}

async fn a_watch_shows_signs_of_life(ctx: Ctx) {
    let at = ctx.put("outside", "0", None).await;
    let range = KeyRange::prefix(&ctx.key("inside/"));
    let mut watching = ctx.watch_range(range, at).await;
    // The first batch may come when it likes: the watch is new.
    let mut revision = watching.batch().await.revision;
    for round in 0..6 {
        let next = sign_of_life(&mut watching, BUSY).await;
        assert!(next >= revision, "went back from {revision} to {next}");
        revision = next;
        if round == 2 {
            ctx.put("outside", "1", None).await;
        }
    }
}

async fn a_watch_of_an_idle_store_shows_signs_of_life_and_is_quick(ctx: Ctx) {
    let at = ctx.put("k", "0", None).await;
    let mut watching = ctx.watch(at).await;
    watching.batch().await;
    for _ in 0..3 {
        sign_of_life(&mut watching, IDLE).await;
    }
    let written = OsClock.now();
    ctx.put("k", "1", None).await;
    watching.until_put(&ctx.key("k"), "1").await;
    let took = OsClock.now().since(written);
    assert!(took < SOON + waited_since(written), "a change is told after {took:?}");
}

/// Writes the same number to both keys in one transaction, again and again.
async fn write_pairs(ctx: Ctx) {
    for number in 1..=60 {
        let value = number.to_string();
        let both = vec![ctx.op_put("left", &value, None), ctx.op_put("right", &value, None)];
        ctx.write(both).await;
    }
}

async fn a_batch_never_splits_a_transaction(ctx: Ctx) {
    let at = ctx.put("begin", "", None).await;
    let mut watching = ctx.watch(at).await;
    let writer = tokio::spawn(write_pairs(ctx.clone()));
    let mut values = BTreeMap::new();
    while values.get(&ctx.key("left")).map(Vec::as_slice) != Some(b"60") {
        let batch = watching.batch().await;
        for change in &batch.changes {
            if let Change::Put(kv) = change {
                values.insert(kv.key.clone(), kv.value.clone());
                assert!(kv.modified <= batch.revision, "a change beyond its batch: {batch:?}");
            }
        }
        assert_eq!(
            values.get(&ctx.key("left")),
            values.get(&ctx.key("right")),
            "half a transaction: {batch:?}"
        );
    }
    writer.await.expect("the writer does not panic");
}

/// Writes, overwrites and deletes three keys in turns.
async fn churn(ctx: Ctx, names: [&'static str; 3]) {
    for round in 0..20 {
        for (i, name) in names.iter().enumerate() {
            match (round + i) % 4 {
                3 => ctx.delete(name).await,
                _ => ctx.put(name, &round.to_string(), None).await,
            };
        }
    }
}

async fn a_folded_watch_ends_as_the_store_is(ctx: Ctx) {
    let at = ctx.put("begin", "", None).await;
    let mut watching = ctx.watch(at).await;
    let writers = [
        tokio::spawn(churn(ctx.clone(), ["a", "b", "c"])),
        tokio::spawn(churn(ctx.clone(), ["d", "e", "f"])),
    ];
    for writer in writers {
        writer.await.expect("a writer does not panic");
    }
    ctx.put("end", "", None).await;
    watching.until_put(&ctx.key("end"), "").await;
    let mut folded = BTreeMap::new();
    for change in &watching.changes {
        match change {
            Change::Put(kv) => folded.insert(kv.key.clone(), kv.clone()),
            Change::Deleted(key) => folded.remove(key),
        };
    }
    let reply = txn_at(&*ctx.there, Txn::read(vec![Op::List(ctx.key(""))])).await;
    let read = reply.found[0].iter().filter(|kv| kv.key != ctx.key("begin"));
    let read: Vec<_> = read.cloned().collect();
    assert_eq!(folded.into_values().collect::<Vec<_>>(), read);
}

async fn two_watches_of_one_client_tell_the_same(ctx: Ctx) {
    let at = ctx.put("begin", "", None).await;
    let (mut one, mut two) = (ctx.watch(at).await, ctx.watch(at).await);
    for name in ["a", "b", "c"] {
        ctx.put(name, "v", None).await;
    }
    for watching in [&mut one, &mut two] {
        watching.until_put(&ctx.key("c"), "v").await;
        assert_eq!(told(&ctx, watching), ["a=v", "b=v", "c=v"]);
    }
}
