//! The registry: tables, and random lives of it over many leaders.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::meta::codec;
use crate::store::unreliable::Dice;

const INTERVAL: Duration = Duration::from_secs(60);

fn at(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

fn spec(host: &str, kind: &str) -> WorkerSpec {
    WorkerSpec { host: host.to_owned(), port: 1, kind: kind.to_owned(), labels: BTreeMap::new() }
}

fn empty() -> Registry {
    Registry::load(INTERVAL, at(0), [], WorkerId(0))
}

/// The edit of each kind alone.
impl Registry {
    pub(in crate::meta) fn prepare_register(
        &self,
        spec: WorkerSpec,
    ) -> Result<(WorkerId, Edit), RegisterError> {
        let mut edit = self.edit();
        let id = self.add_register(&mut edit, spec)?.expect("an edit of nothing has room");
        Ok((id, edit))
    }

    pub(in crate::meta) fn prepare_deregister(&self, id: WorkerId) -> Result<Edit, UnknownWorker> {
        let mut edit = self.edit();
        self.add_deregister(&mut edit, id).map(|_| edit)
    }

    fn prepare_expire(&self, now: Instant) -> Option<Edit> {
        let mut edit = self.edit();
        self.add_expired(&mut edit, now);
        (!edit.is_empty()).then_some(edit)
    }
}

#[test]
fn one_edit_changes_many_workers_each_once() {
    let mut r = empty();
    for host in ["old", "same", "late", "later"] {
        register(&mut r, at(0), spec(host, "x"));
    }
    let mut edit = r.edit();
    let mut wish = |host, kind| r.add_register(&mut edit, spec(host, kind)).unwrap().map(|id| id.0);
    assert_eq!(
        [wish("new", "x"), wish("newer", "x"), wish("old", "y"), wish("same", "x")],
        [5, 6, 1, 2].map(Some)
    );
    assert_eq!([wish("new", "x"), wish("old", "z")], [None, None], "not twice");
    assert_eq!(r.add_deregister(&mut edit, WorkerId(1)), Ok(false));
    assert_eq!(r.add_deregister(&mut edit, WorkerId(3)), Ok(true));
    r.add_expired(&mut edit, at(60_000));
    assert_eq!(edit.rows().len(), 6, "two new, one updated, two gone, and the next id: {:?}", edit.rows());
    let changes = r.apply(at(60_000), edit).unwrap();
    assert_eq!(changes.iter().map(|c| c.version).collect::<Vec<_>>(), [5, 6, 7, 8, 9]);
    assert_eq!(ids(&r), [1, 2, 5, 6]);
}

#[test]
fn whatever_is_wished_for_some_of_those_who_are_overdue_expire() {
    let mut r = empty();
    (0..100).for_each(|n| drop(register(&mut r, at(0), spec(&format!("h{n}"), "x"))));
    let mut edit = r.edit();
    let mut wished = 0;
    while !edit.is_full() {
        r.add_register(&mut edit, spec(&format!("new{wished}"), "x")).unwrap().unwrap();
        wished += 1;
    }
    r.add_expired(&mut edit, at(60_000));
    assert_eq!((wished, edit.rows().len()), (WISHES_MAX, EDITED_MAX + 1));
    let left = r.apply(at(60_000), edit).unwrap();
    assert_eq!(
        left.iter().filter(|c| c.kind == ChangeKind::Left(LeaveReason::Expired)).count(),
        EDITED_MAX - WISHES_MAX
    );
}

/// Registers, and says which id it got and what changed.
fn register(registry: &mut Registry, now: Instant, spec: WorkerSpec) -> (WorkerId, Vec<Change>) {
    let (id, edit) = registry.prepare_register(spec).unwrap();
    (id, registry.apply(now, edit).unwrap())
}

fn expire(registry: &mut Registry, now: Instant) -> Vec<Change> {
    registry.prepare_expire(now).map_or(vec![], |edit| registry.apply(now, edit).unwrap())
}

fn ids(registry: &Registry) -> Vec<u64> {
    registry.list().map(|w| w.id.0).collect()
}

#[test]
fn an_address_keeps_its_id_and_a_new_one_gets_the_next() {
    let mut r = empty();
    let mut all = Vec::new();
    for (host, kind, id, change) in [
        ("a", "compute", 1, Some(ChangeKind::Joined)),
        ("b", "compute", 2, Some(ChangeKind::Joined)),
        ("a", "compactor", 1, Some(ChangeKind::Updated)),
        ("a", "compactor", 1, None),
        ("c", "compute", 3, Some(ChangeKind::Joined)),
    ] {
        let (got, changes) = register(&mut r, at(0), spec(host, kind));
        assert_eq!(got, WorkerId(id), "{host}");
        assert_eq!(
            changes.iter().map(|c| c.kind).collect::<Vec<_>>(),
            Vec::from_iter(change),
            "{host} {kind}"
        );
        assert!(changes.iter().all(|c| c.worker == Worker { id: got, spec: spec(host, kind) }));
        all.extend(changes);
    }
    assert_eq!(all.iter().map(|c| c.version).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!((r.version(), ids(&r)), (4, vec![1, 2, 3]));
    let other_port = WorkerSpec { port: 2, ..spec("a", "compute") };
    assert_eq!(register(&mut r, at(0), other_port).0, WorkerId(4), "the port is part of the address");
}

#[test]
fn an_edit_says_what_to_write() {
    let mut r = empty();
    let (id, edit) = r.prepare_register(spec("a", "x")).unwrap();
    let worker = Worker { id, spec: spec("a", "x") };
    assert_eq!(edit.rows(), [WorkerRow::Worker(&worker), WorkerRow::NextId(WorkerId(2))]);
    r.apply(at(0), edit.clone()).unwrap();
    let (_, same) = r.prepare_register(spec("a", "x")).unwrap();
    assert_eq!(same.rows(), []);
    let (_, update) = r.prepare_register(spec("a", "y")).unwrap();
    assert_eq!(update.rows(), [WorkerRow::Worker(&Worker { id, spec: spec("a", "y") })]);
    assert_eq!(r.prepare_deregister(id).unwrap().rows(), [WorkerRow::Gone(id)]);
}

#[test]
fn a_prepared_edit_changes_nothing_until_it_is_applied() {
    let mut r = empty();
    let (first, lost) = r.prepare_register(spec("a", "x")).unwrap();
    assert_eq!(r.heartbeat(at(0), first), Err(UnknownWorker(first)));
    assert_eq!(r.list().len(), 0);
    let (again, edit) = r.prepare_register(spec("b", "x")).unwrap();
    assert_eq!(first, again, "the first one was not written, so nobody has its id");
    r.apply(at(0), edit).unwrap();
    assert_eq!(r.apply(at(0), lost), Err(Stale { basis: 0, version: 1 }));
    assert_eq!(ids(&r), [1]);
}

#[test]
fn who_is_silent_for_an_interval_expires_and_registers_under_a_new_id() {
    let mut r = empty();
    register(&mut r, at(0), spec("a", "x"));
    register(&mut r, at(10), spec("b", "x"));
    assert_eq!(r.next_expiry(), Some(at(60_000)));
    r.heartbeat(at(30_000), WorkerId(1)).unwrap();
    assert_eq!(r.next_expiry(), Some(at(60_010)));
    assert_eq!(expire(&mut r, at(60_009)), []);
    assert_eq!(r.overdue(at(60_010)).collect::<Vec<_>>(), [WorkerId(2)]);
    let changes = expire(&mut r, at(60_010));
    let left = Worker { id: WorkerId(2), spec: spec("b", "x") };
    assert_eq!(changes, [Change { version: 3, kind: ChangeKind::Left(LeaveReason::Expired), worker: left }]);
    assert_eq!(r.heartbeat(at(60_011), WorkerId(2)), Err(UnknownWorker(WorkerId(2))));
    assert_eq!((r.next_expiry(), ids(&r)), (Some(at(90_000)), vec![1]));
    assert_eq!(register(&mut r, at(60_012), spec("b", "x")).0, WorkerId(3));
}

#[test]
fn registering_again_is_a_sign_of_life_and_so_is_a_late_heartbeat() {
    let mut r = empty();
    register(&mut r, at(0), spec("a", "x"));
    register(&mut r, at(1), spec("b", "x"));
    register(&mut r, at(2), spec("c", "x"));
    register(&mut r, at(50_000), spec("a", "x"));
    register(&mut r, at(50_000), spec("b", "y"));
    assert_eq!(r.next_expiry(), Some(at(60_002)));
    r.heartbeat(at(60_100), WorkerId(3)).unwrap();
    assert_eq!(expire(&mut r, at(60_100)), [], "nobody has acted on its silence yet");
}

#[test]
fn time_counts_that_passes_on_one_clock_only() {
    let mut r = empty();
    register(&mut r, at(0), spec("a", "x"));
    let asleep = Instant::from_nanos(60_000_000_000, 1);
    assert_eq!(expire(&mut r, asleep).len(), 1, "suspend counts, as it does everywhere else");
}

#[test]
fn who_deregisters_is_gone_at_once() {
    let mut r = empty();
    register(&mut r, at(0), spec("a", "x"));
    let edit = r.prepare_deregister(WorkerId(1)).unwrap();
    let changes = r.apply(at(0), edit).unwrap();
    assert_eq!(changes[0].kind, ChangeKind::Left(LeaveReason::Deregistered));
    assert_eq!(r.prepare_deregister(WorkerId(1)), Err(UnknownWorker(WorkerId(1))));
    assert_eq!((r.next_expiry(), r.prepare_expire(at(1_000_000))), (None, None));
}

#[test]
fn a_new_leader_gives_everybody_one_full_interval() {
    let worker = |id, host| Worker { id: WorkerId(id), spec: spec(host, "x") };
    let mut r = Registry::load(INTERVAL, at(5_000), [worker(3, "a"), worker(9, "b")], WorkerId(4));
    assert_eq!((r.version(), ids(&r), r.next_expiry()), (0, vec![3, 9], Some(at(65_000))));
    assert_eq!(r.prepare_expire(at(64_999)), None);
    assert_eq!(r.prepare_register(spec("b", "x")).unwrap().1.rows(), [], "known, and the same: no write");
    assert_eq!(
        register(&mut r, at(6_000), spec("c", "x")).0,
        WorkerId(10),
        "above the rows, whatever is said"
    );
    assert_eq!(expire(&mut r, at(65_000)).len(), 2);
}

#[test]
fn of_two_rows_with_one_address_the_later_id_answers() {
    let worker = |id| Worker { id: WorkerId(id), spec: spec("a", "x") };
    let mut r = Registry::load(INTERVAL, at(0), [worker(7), worker(2)], WorkerId(8));
    assert_eq!(register(&mut r, at(1), spec("a", "y")).0, WorkerId(7));
    assert_eq!(expire(&mut r, at(60_000))[0].worker.id, WorkerId(2));
    assert_eq!(register(&mut r, at(60_000), spec("a", "z")).0, WorkerId(7));
}

#[test]
fn there_is_room_for_so_many_and_they_expire_in_batches() {
    let worker = |id| Worker { id: WorkerId(id), spec: spec(&format!("h{id}"), "x") };
    let mut r = Registry::load(INTERVAL, at(0), (1..WORKERS_MAX as u64).map(worker), WorkerId(0));
    register(&mut r, at(1), spec("the-last-one", "x"));
    assert_eq!(r.list().len(), WORKERS_MAX);
    let full = r.prepare_register(spec("one-more", "x")).unwrap_err();
    assert_eq!(full, RegisterError::Full);
    assert!(full.to_string().starts_with("10000 workers are registered"), "{full}");
    assert!(r.prepare_register(spec("h1", "y")).is_ok(), "who is registered may say something new");
    let edit = r.prepare_expire(at(60_000)).unwrap();
    assert_eq!(edit.rows().len(), EDITED_MAX);
    r.apply(at(60_000), edit).unwrap();
    assert!(r.prepare_register(spec("one-more", "x")).is_ok());
    let mut batches = 1;
    while !expire(&mut r, at(60_000)).is_empty() {
        batches += 1;
    }
    assert_eq!((batches, r.list().len()), ((WORKERS_MAX - 1).div_ceil(EDITED_MAX), 1));
}

#[test]
fn ids_end_with_an_error_instead_of_beginning_anew() {
    let r = Registry::load(INTERVAL, at(0), [], WorkerId(u64::MAX));
    assert_eq!(r.prepare_register(spec("a", "x")), Err(RegisterError::NoIds));
}

#[test]
fn a_worker_says_no_more_about_itself_than_fits() {
    let labels = |n: usize, key: usize, value: usize| -> BTreeMap<String, String> {
        (0..n).map(|i| (format!("{i:0key$}"), "v".repeat(value))).collect()
    };
    let with = |host: String, port, kind: String, labels| WorkerSpec { host, port, kind, labels };
    let (h, k) = (|n: usize| "h".repeat(n), |n: usize| "k".repeat(n));
    for (spec, refused) in [
        (with(h(253), 65_535, k(63), labels(16, 63, 255)), None),
        (with(h(1), 1, k(1), labels(1, 1, 0)), None),
        (with("::1".into(), 1, "compute".into(), labels(0, 1, 0)), None),
        (with(h(254), 1, k(1), labels(0, 1, 0)), Some("host")),
        (with(h(0), 1, k(1), labels(0, 1, 0)), Some("host")),
        (with("a b".into(), 1, k(1), labels(0, 1, 0)), Some("host \"a b\"")),
        (with("a\n".into(), 1, k(1), labels(0, 1, 0)), Some("host \"a\\n\"")),
        (with(h(1), 0, k(1), labels(0, 1, 0)), Some("port 0")),
        (with(h(1), 1, k(64), labels(0, 1, 0)), Some("kind")),
        (with(h(1), 1, k(0), labels(0, 1, 0)), Some("kind \"\"")),
        (with(h(1), 1, "a_B-9.x".into(), labels(0, 1, 0)), None),
        (with(h(1), 1, "ü".into(), labels(0, 1, 0)), Some("kind \"ü\"")),
        (with(h(1), 1, "a b".into(), labels(0, 1, 0)), Some("kind \"a b\"")),
        (with(h(1), 1, k(1), labels(17, 2, 0)), Some("17 labels")),
        (with(h(1), 1, k(1), labels(1, 64, 0)), Some("label key")),
        (with(h(1), 1, k(1), BTreeMap::from([(h(0), h(1))])), Some("label key \"\"")),
        (with(h(1), 1, k(1), labels(1, 1, 256)), Some("the value of label \"0\"")),
        (with(h(1), 1, k(1), BTreeMap::from([(h(1), "\0".into())])), Some("the value of label \"h\"")),
    ] {
        let error = empty().prepare_register(spec.clone()).err().map(|e| e.to_string());
        match refused {
            None => assert_eq!(error, None, "{spec:?}"),
            Some(text) => {
                let error = error.unwrap_or_else(|| panic!("{text}: accepted"));
                assert!(error.starts_with(text) && error.len() < 400, "{text}: {error}");
            }
        }
    }
}

/// What was seen at least once.
#[derive(Default)]
struct Tally {
    leaders: u64,
    rejoined_known: u64,
    expired: u64,
    unwritten: u64,
    written_but_never_applied: u64,
}

/// A store, a leader's registry, and what an observer remembers of all leaders.
struct Life {
    dice: Dice,
    now: u64,
    rows: BTreeMap<String, Vec<u8>>,
    registry: Registry,
    loaded_at: u64,
    version: u64,
    /// The last sign of life of each worker that this leader accepted.
    heard: BTreeMap<WorkerId, u64>,
    /// Whose id each one is, for ever.
    owners: BTreeMap<WorkerId, String>,
    acknowledged: BTreeSet<WorkerId>,
    seen: Tally,
}

impl Life {
    fn new(seed: u64) -> Self {
        Self {
            dice: Dice::new(seed),
            now: 1,
            rows: BTreeMap::new(),
            registry: Registry::load(INTERVAL, at(1), [], WorkerId(0)),
            loaded_at: 1,
            version: 0,
            heard: BTreeMap::new(),
            owners: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            seen: Tally::default(),
        }
    }

    fn new_leader(&mut self) {
        let rows = self.rows.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
        let opening = codec::read(rows);
        assert_eq!(opening.unreadable, []);
        self.registry = Registry::load(INTERVAL, at(self.now), opening.workers, opening.next_id);
        (self.loaded_at, self.version) = (self.now, 0);
        self.heard = self.registry.list().map(|w| (w.id, self.now)).collect();
        let known: BTreeSet<_> = self.registry.list().map(|w| w.id).collect();
        assert!(self.acknowledged.is_subset(&known), "what was acknowledged outlives its leader");
        self.seen.leaders += 1;
    }

    /// Writes and applies, or one of the ways in which that goes wrong. Says whether it was acknowledged.
    fn commit(&mut self, edit: Edit) -> bool {
        let changes = codec::edit_changes(&edit);
        let luck = if changes.is_empty() { 99 } else { self.dice.below(100) };
        if luck < 10 {
            self.seen.unwritten += 1;
            return false; // not written: forgotten
        }
        if luck >= 15 || self.dice.percent(50) {
            for change in changes {
                match change {
                    crate::protocol::writes::Change::Put(name, value) => drop(self.rows.insert(name, value)),
                    crate::protocol::writes::Change::Delete(name) => drop(self.rows.remove(&name)),
                }
            }
        }
        if luck < 15 {
            self.seen.written_but_never_applied += 1;
            self.acknowledged.retain(|id| !edit.rows().contains(&WorkerRow::Gone(*id)));
            self.new_leader(); // the leader is lost while it waits for the answer
            return false;
        }
        for change in self.registry.apply(at(self.now), edit).unwrap() {
            assert_eq!(change.version, self.version + 1, "versions grow one by one");
            self.version = change.version;
            if let ChangeKind::Left(reason) = change.kind {
                let silent = self.now - self.heard[&change.worker.id].max(self.loaded_at);
                let due = silent >= INTERVAL.as_millis() as u64;
                assert!(
                    due || reason == LeaveReason::Deregistered,
                    "{} expired after {silent}",
                    change.worker.id
                );
                self.acknowledged.remove(&change.worker.id);
                self.seen.expired += u64::from(reason == LeaveReason::Expired);
            }
        }
        true
    }

    fn register(&mut self) {
        let (host, kind) = (format!("h{}", self.dice.below(8)), format!("k{}", self.dice.below(2)));
        let known = self.registry.list().find(|w| w.spec.host == host).map(|w| w.id);
        let (id, edit) = self.registry.prepare_register(spec(&host, &kind)).unwrap();
        assert!(known.is_none_or(|known| known == id), "an address keeps its id");
        if self.commit(edit) {
            let owner = self.owners.entry(id).or_insert_with(|| host.clone());
            assert_eq!(*owner, host, "id {id} was another worker's");
            assert!(known.is_some() || self.acknowledged.iter().all(|old| *old < id), "new ids grow");
            self.acknowledged.insert(id);
            self.heard.insert(id, self.now);
            self.seen.rejoined_known += u64::from(known.is_some());
        }
    }

    fn step(&mut self) {
        self.now += self.dice.below(5_000);
        let some = WorkerId(self.dice.below(self.owners.len() as u64 + 2));
        match self.dice.below(100) {
            0..25 => self.register(),
            25..85 => {
                let known = self.registry.get(some).is_some();
                assert_eq!(self.registry.heartbeat(at(self.now), some).is_ok(), known);
                self.heard.entry(some).and_modify(|heard| *heard = self.now);
            }
            85..90 => {
                if let Ok(edit) = self.registry.prepare_deregister(some) {
                    self.commit(edit);
                }
            }
            90..92 => self.new_leader(),
            _ => {}
        }
        while let Some(edit) = self.registry.prepare_expire(at(self.now)) {
            if !self.commit(edit) {
                return; // try again at the next step
            }
        }
        let listed: BTreeSet<_> = self.registry.list().map(|w| w.id).collect();
        let due = |id: &WorkerId| self.now - self.heard[id] >= INTERVAL.as_millis() as u64;
        assert!(!listed.iter().any(due), "nobody stays who is due");
        assert!(self.registry.next_expiry().is_none_or(|next| !at(self.now).reached(next)));
        let hosts: BTreeSet<_> = self.registry.list().map(|w| w.spec.host.clone()).collect();
        assert_eq!(hosts.len(), listed.len(), "one id per address");
        let kept = (self.registry.by_address.len(), self.registry.heard.len());
        assert_eq!(kept, (listed.len(), listed.len()), "nothing is kept of those who left");
    }
}

#[test]
fn ids_and_workers_outlive_any_number_of_leaders() {
    let mut all = [0; 5];
    for seed in 0..300 {
        println!("seed {seed}"); // shown when it fails
        let mut life = Life::new(seed);
        (0..400).for_each(|_| life.step());
        let s = life.seen;
        let seen = [s.leaders, s.rejoined_known, s.expired, s.unwritten, s.written_but_never_applied];
        all = std::array::from_fn(|i| all[i] + seen[i]);
    }
    assert!(all.iter().all(|n| *n > 300), "every case was there, again and again: {all:?}");
}
