//! The rows of workers and barriers under `state/`: their names, and their JSON.
//!
//! Fields that a later version added are ignored. What cannot be read is reported and skipped, and never costs
//! a tenure: an id or an epoch that may have been in a lost row is passed over by a wide margin.
//!
//! This file must not know when anything is written.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::barrier::{Barrier, Epoch, Persisted};
use super::workers::{Edit, Worker, WorkerId, WorkerRow, WorkerSpec};
use crate::protocol::writes::Change;

/// The prefix of all names here, below `state/`. A new leader reads all of it in its opening snapshot.
pub const PREFIX: &str = "meta/";
const WORKERS: &str = "meta/workers/";
const NEXT_WORKER: &str = "meta/next_worker";
const COMMITTED: &str = "meta/barrier/committed";
const CEILING: &str = "meta/barrier/ceiling";

/// How many ids are passed over when the next one cannot be read: more than were ever given out beyond the
/// workers that are still there.
const LOST_IDS: u64 = 1 << 32;
/// How much time is passed over, from the newest commit on, when the ceiling cannot be read: an hour. That is
/// enough unless the wall clock was set back by more than that just then.
const LOST_CEILING_MS: u64 = 3_600_000;

/// How many rows that cannot be read are reported.
const UNREADABLE_MAX: usize = 100;

/// What a new leader finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The workers, in the order of their ids.
    pub workers: Vec<Worker>,
    /// The id that the next new worker gets.
    pub next_id: WorkerId,
    /// How far barriers have come.
    pub barriers: Persisted,
    /// What could not be read.
    pub unreadable: Vec<Unreadable>,
}

/// A row that cannot be read. It stays in the store as it is until its name is written again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("state/{name} cannot be read and is skipped: {why}")]
pub struct Unreadable {
    /// Its name, below `state/`.
    pub name: String,
    /// What is wrong with it.
    pub why: String,
}

#[derive(Serialize, Deserialize)]
struct WorkerJson {
    host: String,
    port: u16,
    kind: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct NextWorkerJson {
    id: u64,
}

#[derive(Serialize, Deserialize)]
struct CommittedJson {
    epoch: u64,
    #[serde(default)]
    checkpoint: bool,
}

#[derive(Serialize, Deserialize)]
struct CeilingJson {
    epoch: u64,
}

/// What is gathered from the rows, one by one.
#[derive(Default)]
pub struct RowReader {
    workers: BTreeMap<WorkerId, Worker>,
    next_id: Option<WorkerId>,
    /// The largest id that any row's name has, readable or not.
    largest_id: u64,
    committed: Option<Epoch>,
    ceiling: Option<Epoch>,
    unreadable: Vec<Unreadable>,
}

// === writing ===

/// The changes that write an edit of the registry: all of them in one write.
pub fn edit_changes(edit: &Edit) -> Vec<Change> {
    let change = |row: &WorkerRow<'_>| match *row {
        WorkerRow::Worker(worker) => {
            let WorkerSpec { host, port, kind, labels } = worker.spec.clone();
            Change::Put(worker_name(worker.id), to_json(&WorkerJson { host, port, kind, labels }))
        }
        WorkerRow::Gone(id) => Change::Delete(worker_name(id)),
        WorkerRow::NextId(id) => Change::Put(NEXT_WORKER.to_owned(), to_json(&NextWorkerJson { id: id.0 })),
    };
    edit.rows().iter().map(change).collect()
}

/// The change that commits a barrier.
pub fn commit_change(barrier: Barrier) -> Change {
    let row = CommittedJson { epoch: barrier.epoch.get(), checkpoint: barrier.checkpoint };
    Change::Put(COMMITTED.to_owned(), to_json(&row))
}

/// The change that raises the ceiling.
pub fn ceiling_change(epoch: Epoch) -> Change {
    Change::Put(CEILING.to_owned(), to_json(&CeilingJson { epoch: epoch.get() }))
}

fn worker_name(id: WorkerId) -> String {
    format!("{WORKERS}{:020}", id.0)
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default() // strings and numbers always have a JSON
}

// === reading ===

/// What the rows below [`PREFIX`] say: pairs of a name (below `state/`) and a value. Other names are ignored.
pub fn read<'a>(rows: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Opening {
    let mut reading = RowReader::default();
    rows.into_iter().for_each(|(name, value)| reading.row(name, value));
    reading.opening()
}

impl RowReader {
    /// Takes in a row, in any order.
    pub fn row(&mut self, name: &str, value: &[u8]) {
        if let Err(why) = self.take(name, value)
            && self.unreadable.len() < UNREADABLE_MAX
        {
            self.unreadable.push(Unreadable { name: name.to_owned(), why });
        }
    }

    /// What all rows say.
    pub fn opening(self) -> Opening {
        let (next_id, barriers) = (self.next_id(), self.barriers());
        Opening {
            workers: self.workers.into_values().collect(),
            next_id,
            barriers,
            unreadable: self.unreadable,
        }
    }

    fn take(&mut self, name: &str, value: &[u8]) -> Result<(), String> {
        match name {
            NEXT_WORKER => self.next_id = Some(id(from_json::<NextWorkerJson>(value)?.id)?),
            COMMITTED => self.committed = Some(epoch(from_json::<CommittedJson>(value)?.epoch)?),
            CEILING => self.ceiling = Some(epoch(from_json::<CeilingJson>(value)?.epoch)?),
            _ => {
                if let Some(digits) = name.strip_prefix(WORKERS) {
                    self.take_worker(digits, value)?;
                }
            }
        }
        Ok(())
    }

    fn take_worker(&mut self, digits: &str, value: &[u8]) -> Result<(), String> {
        let number = digits.parse().map_err(|_| "its name does not end in a worker's id".to_owned())?;
        let id = id(number)?;
        self.largest_id = self.largest_id.max(number);
        let WorkerJson { host, port, kind, labels } = from_json(value)?;
        let worker = Worker { id, spec: WorkerSpec { host, port, kind, labels } };
        self.workers.insert(worker.id, worker);
        Ok(())
    }

    fn next_id(&self) -> WorkerId {
        let after_rows = WorkerId(self.largest_id + 1);
        match self.next_id {
            Some(id) => id.max(after_rows),
            None if self.largest_id == 0 && !self.is_unreadable(NEXT_WORKER) => after_rows,
            None => WorkerId(after_rows.0 + LOST_IDS), // no worker is ever written without it
        }
    }

    fn barriers(&self) -> Persisted {
        let committed = self.committed.unwrap_or_default();
        // Nothing is ever committed without a ceiling, so where there is none it is lost.
        let ceiling = self.ceiling.unwrap_or(match committed {
            Epoch::NONE => Epoch::NONE,
            _ => committed.plus_ms(LOST_CEILING_MS),
        });
        Persisted { committed, ceiling }
    }

    fn is_unreadable(&self, name: &str) -> bool {
        self.unreadable.iter().any(|u| u.name == name) || self.unreadable.len() == UNREADABLE_MAX
    }
}

fn from_json<'a, T: Deserialize<'a>>(value: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(value).map_err(|e| e.to_string())
}

fn epoch(number: u64) -> Result<Epoch, String> {
    Epoch::new(number).ok_or_else(|| format!("{number} is not an epoch"))
}

fn id(number: u64) -> Result<WorkerId, String> {
    if (1..1 << 63).contains(&number) {
        Ok(WorkerId(number))
    } else {
        Err(format!("{number} is not a worker's id"))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Instant;
    use crate::meta::workers::Registry;

    fn spec(host: &str) -> WorkerSpec {
        let labels = BTreeMap::from([("zone".to_owned(), "a \"b\"".to_owned())]);
        WorkerSpec { host: host.to_owned(), port: 5688, kind: "compute".to_owned(), labels }
    }

    fn read_all(rows: &BTreeMap<String, Vec<u8>>) -> Opening {
        read(rows.iter().map(|(name, value)| (name.as_str(), value.as_slice())))
    }

    fn write(rows: &mut BTreeMap<String, Vec<u8>>, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Put(name, value) => drop(rows.insert(name, value)),
                Change::Delete(name) => drop(rows.remove(&name)),
            }
        }
    }

    /// Two workers, the first of them gone again, and barriers.
    fn some_rows() -> BTreeMap<String, Vec<u8>> {
        let (now, mut rows) = (Instant::default(), BTreeMap::new());
        let mut registry = Registry::load(Duration::from_secs(60), now, [], WorkerId(0));
        for host in ["a", "b"] {
            let (_, edit) = registry.prepare_register(spec(host)).unwrap();
            write(&mut rows, edit_changes(&edit));
            registry.apply(now, edit).unwrap();
        }
        write(&mut rows, edit_changes(&registry.prepare_deregister(WorkerId(1)).unwrap()));
        let barrier = Barrier { epoch: Epoch::of_wall_ms(1_000), previous: Epoch::NONE, checkpoint: true };
        write(&mut rows, vec![commit_change(barrier), ceiling_change(Epoch::of_wall_ms(61_000))]);
        rows
    }

    #[test]
    fn what_was_written_is_read_again() {
        let opening = read_all(&some_rows());
        assert_eq!(opening.workers, [Worker { id: WorkerId(2), spec: spec("b") }]);
        assert_eq!(opening.next_id, WorkerId(3));
        let barriers = Persisted { committed: Epoch::of_wall_ms(1_000), ceiling: Epoch::of_wall_ms(61_000) };
        assert_eq!(opening.barriers, barriers);
        assert_eq!(opening.unreadable, []);
        let nothing = read([]);
        assert_eq!(
            (nothing.workers.len(), nothing.next_id, nothing.barriers),
            (0, WorkerId(1), Persisted::default())
        );
    }

    #[test]
    fn rows_have_the_names_and_the_json_that_the_documents_show() {
        let rows = some_rows();
        let text = |name: &str| String::from_utf8(rows[name].clone()).unwrap();
        assert_eq!(
            text("meta/workers/00000000000000000002"),
            r#"{"host":"b","port":5688,"kind":"compute","labels":{"zone":"a \"b\""}}"#
        );
        assert_eq!(text("meta/next_worker"), r#"{"id":3}"#);
        assert_eq!(text("meta/barrier/committed"), r#"{"epoch":65536000,"checkpoint":true}"#);
        assert_eq!(text("meta/barrier/ceiling"), r#"{"epoch":3997696000}"#);
        assert!(rows.keys().all(|name| name.starts_with(PREFIX)));
    }

    #[test]
    fn fields_and_rows_of_a_later_version_are_ignored() {
        let mut rows = some_rows();
        let worker = br#"{"host":"b","port":1,"kind":"k","since":{"x":[1]}}"#;
        rows.insert(worker_name(WorkerId(2)), worker.to_vec());
        rows.insert("meta/barrier/other".to_owned(), b"?".to_vec());
        let opening = read_all(&rows);
        assert_eq!(opening.unreadable, []);
        assert_eq!(opening.workers[0].spec.port, 1);
        assert_eq!(opening.workers[0].spec.labels.len(), 0);
    }

    #[test]
    fn what_cannot_be_read_is_reported_and_passed_over() {
        for (name, value) in [
            ("meta/workers/00000000000000000002", &b"{"[..]),
            ("meta/workers/00000000000000000002", br#"{"host":"b","port":65536,"kind":"k"}"#),
            ("meta/workers/00000000000000000002", b"\xff"),
            ("meta/workers/2x", b"{}"),
            ("meta/workers/", b"{}"),
            ("meta/workers/00000000000000000000", b"{}"),
            ("meta/workers/18446744073709551615", b"{}"),
            ("meta/next_worker", b""),
            ("meta/next_worker", br#"{"id":-1}"#),
            ("meta/next_worker", br#"{"id":18446744073709551615}"#),
            ("meta/barrier/committed", b"[]"),
            ("meta/barrier/ceiling", b"null"),
            ("meta/barrier/ceiling", br#"{"epoch":9223372036854775808}"#),
        ] {
            let mut rows = some_rows();
            rows.insert(name.to_owned(), value.to_vec());
            let opening = read_all(&rows);
            assert_eq!(opening.unreadable.iter().map(|u| u.name.as_str()).collect::<Vec<_>>(), [name]);
            assert!(opening.next_id >= WorkerId(3), "{name}: {opening:?}");
            assert!(opening.next_id < WorkerId(1 << 40), "{name}: {opening:?}");
            assert!(opening.barriers.ceiling >= Epoch::of_wall_ms(61_000), "{name}: {opening:?}");
            let text = opening.unreadable[0].to_string();
            assert!(text.starts_with(&format!("state/{name} cannot be read")), "{text}");
        }
    }

    #[test]
    fn ids_are_not_given_out_again_when_their_counter_is_lost() {
        for (rows, next_id) in [
            (vec![("meta/next_worker", "?")], LOST_IDS + 1),
            (vec![("meta/workers/00000000000000000007", "?")], LOST_IDS + 8),
            (vec![("meta/workers/00000000000000000007", "?"), ("meta/next_worker", "{\"id\":9}")], 9),
            (vec![("meta/workers/00000000000000000007", "?"), ("meta/next_worker", "{\"id\":3}")], 8),
        ] {
            let opening = read(rows.iter().map(|(name, value)| (*name, value.as_bytes())));
            assert_eq!(opening.next_id, WorkerId(next_id), "{rows:?}");
        }
    }
}
