//! The embedded store where it is not as it should be: its file is gone, its lock is held, its disk is full. On real
//! processes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::crew::{PATIENCE, SCHEDULING_SLACK, between, leads, report};
use crate::support::node::NodeBuilder;
use crate::support::poll::{boot_ns, wait_until};
use crate::support::slow_disk::SlowDisk;
use metad::clock::OsClock;
use metad::election::lease::LeaseId;
use metad::store::places::Health;
use metad::store::sqlite::SqliteStore;
use metad::store::{Op, Refusal, Request, Response, Store, StoreError, Txn};
use tempfile::TempDir;

const LEASE: Duration = Duration::from_secs(5);

/// A folder of its own for a database.
struct Shelf {
    dir: TempDir,
}

impl Shelf {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("store")).expect("a folder");
        Self { dir }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("store").join("metad.db")
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        PathBuf::from(format!("{}{suffix}", self.file().display()))
    }

    fn node(&self, id: &str) -> NodeBuilder {
        NodeBuilder::new(id).sqlite(self.file()).lease_secs(LEASE.as_secs())
    }

    fn remove_log_and_index(&self) {
        for suffix in ["-wal", "-shm"] {
            fs::remove_file(self.beside(suffix)).expect("in use, so it is there");
        }
    }

    fn delete(&self) {
        fs::remove_file(self.file()).expect("it is there");
        self.remove_log_and_index();
    }

    /// Puts a copy in its place, as of now.
    fn replace(&self) {
        let copy = self.dir.path().join("copy.db");
        let sqlite = rusqlite::Connection::open(self.file()).expect("a database");
        sqlite.execute("VACUUM INTO ?1", [copy.to_str().expect("UTF-8")]).expect("copied");
        fs::rename(copy, self.file()).expect("replaced");
        self.remove_log_and_index();
    }

    fn move_folder(&self) {
        let folder = self.dir.path().join("store");
        fs::rename(&folder, self.dir.path().join("elsewhere")).expect("moved");
        fs::create_dir(folder).expect("a folder");
    }
}

// === the file is gone ===

/// A leader and a follower of it lose their store; a third node finds another one in its place.
fn assert_gone_before_another_leads(how: &str, lose: impl Fn(&Shelf)) {
    let shelf = Shelf::new();
    let leader = shelf.node("a").spawn();
    leader.wait_for("main_loop_started", PATIENCE);
    let follower = shelf.node("b").spawn();
    follower.wait_for("leader_changed", PATIENCE);
    let lost_at = boot_ns();
    lose(&shelf);
    let next = shelf.node("c").spawn();
    for node in [&leader, &follower] {
        assert_eq!(node.wait_exit(PATIENCE), 78, "{how}: {}", node.report());
        let said = node.stderr();
        let names =
            said.contains(shelf.file().to_str().expect("UTF-8")) && said.contains("--accept-new-store");
        assert!(names, "{how}: it names the file and what to do\n{said}");
    }
    let stopped = leader.wait_for("main_loop_stopped", PATIENCE).at_ns();
    let took = between(lost_at, stopped);
    assert!(took < Duration::from_secs(1) + SCHEDULING_SLACK, "{how}: noticed after {took:?}");
    let started = next.wait_for("main_loop_started", LEASE + PATIENCE).at_ns();
    assert!(started > stopped, "{how}: two led\n{}{}", leader.report(), next.report());
    println!("{how}: gone after {took:?}, another led after {:?}", between(lost_at, started));
}

#[test]
fn a_leader_whose_file_is_deleted_is_gone_before_another_leads() {
    assert_gone_before_another_leads("deleted", Shelf::delete);
}

#[test]
fn a_leader_whose_file_is_replaced_is_gone_before_another_leads() {
    assert_gone_before_another_leads("replaced", Shelf::replace);
}

#[test]
fn a_leader_whose_folder_is_moved_is_gone_before_another_leads() {
    assert_gone_before_another_leads("moved", Shelf::move_folder);
}

/// The writers' lock lies on the index: two indexes are two elections.
#[test]
fn a_leader_whose_index_is_deleted_is_gone() {
    let shelf = Shelf::new();
    let leader = shelf.node("a").spawn();
    leader.wait_for("main_loop_started", PATIENCE);
    shelf.remove_log_and_index();
    assert_eq!(leader.wait_exit(PATIENCE), 78, "{}", leader.report());
}

// === the lock is held, the disk is slow or full ===

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(future)
}

async fn open(file: &Path, busy: Duration) -> SqliteStore {
    SqliteStore::open(file, busy, std::sync::Arc::new(OsClock)).await.expect("it opens")
}

fn put(key: &str) -> Request {
    Request::Txn(Txn { then: vec![Op::Put(key.into(), vec![1], None)], ..Txn::default() })
}

#[test]
fn reads_are_answered_and_watches_go_on_while_another_process_holds_the_lock() {
    let shelf = Shelf::new();
    block_on(async {
        let store = open(&shelf.file(), Duration::from_millis(300)).await;
        store.call(put("/metad/k")).await.expect("written");
        let mut other = rusqlite::Connection::open(shelf.file()).expect("a database");
        let lock = other.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).expect("free");
        let writing = store.call(put("/metad/l"));
        let reading = async {
            let get = Txn::read(vec![Op::Get("/metad/k".into())]);
            store.call(Request::Txn(get)).await
        };
        let (written, read) = tokio::join!(writing, reading);
        assert!(
            matches!(read, Ok(Response::Txn(reply)) if reply.found[0].len() == 1),
            "a read takes no lock"
        );
        // Twin: the lock was held all the time.
        let refused = written.expect_err("the lock is held");
        assert_eq!(refused.refusal(), Some(Refusal::NotSent), "{refused}");
        let why = store.complaint().expect("it is said");
        let holder = format!("process {} ", std::process::id());
        assert!(why.contains(&holder) && why.contains("holds its lock"), "{why}");
        drop(lock);
        store.call(put("/metad/l")).await.expect("written");
        assert_eq!(store.complaint(), None, "all is well again");
    });
}

#[test]
fn what_waits_for_the_file_is_bounded_and_what_is_late_is_never_done() {
    use futures_util::StreamExt;
    let shelf = Shelf::new();
    block_on(async {
        let store = open(&shelf.file(), Duration::from_millis(1500)).await;
        let lease = LeaseId(7);
        store.call(Request::Grant { lease, ttl: Duration::from_secs(600) }).await.expect("granted");
        let mut other = rusqlite::Connection::open(shelf.file()).expect("a database");
        let lock = other.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).expect("free");
        // One waits for the lock, which takes longer than the next ones have; the others wait for it.
        let writes = (0..300).map(|i| store.call(put(&format!("/metad/many/{i}"))));
        let writes = futures_util::future::join_all(writes);
        let renewals = (0..50).map(|_| store.renew(lease).collect::<Vec<_>>());
        let renewals = futures_util::future::join_all(renewals);
        let (renewals, written) = tokio::join!(renewals, writes);
        let answers: usize = renewals.iter().map(Vec::len).sum();
        assert_eq!(answers, 1, "one renewal of a lease is under way at most");
        let refusals: Vec<bool> =
            written.iter().map(|w| w.as_ref().is_err_and(|e| e.refusal().is_some())).collect();
        let why: Vec<String> =
            written.into_iter().map(|w| w.expect_err("the lock is held").to_string()).collect();
        let full = why.iter().filter(|w| w.contains("wait for the file already")).count();
        let late = why.iter().filter(|w| w.contains("so this was not done")).count();
        assert!(full > 0 && late > 200, "{full} found no room, {late} were late: {why:?}");
        drop(lock);
        store.call(put("/metad/after")).await.expect("written");
        let list = Txn::read(vec![Op::List("/metad/many/".into())]);
        let Ok(Response::Txn(reply)) = store.call(Request::Txn(list)).await else { panic!("no answer") };
        let mut done =
            reply.found[0].iter().filter_map(|kv| kv.key.rsplit('/').next()?.parse::<usize>().ok());
        assert!(done.all(|i| !refusals[i]), "what was refused was not done later: {reply:?}");
        let renewed: Vec<Result<_, StoreError>> = store.renew(lease).collect().await;
        assert!(matches!(&renewed[..], [Ok(r)] if r.ttl.is_some()), "twin: the next one is answered");
    });
}

#[test]
fn a_leader_whose_disk_is_full_says_so_and_blames_nobody_else() {
    let shelf = Shelf::new();
    // Under strace each system call takes its time, so it gets more of it between its stop and its kernel timer.
    let lease = LEASE * 3;
    let node = |id| shelf.node(id).lease_secs(lease.as_secs());
    let leader = node("a").spawn();
    leader.wait_for("main_loop_started", PATIENCE);
    let nodes = [leader, node("b").spawn()];
    nodes[1].wait_for("leader_changed", PATIENCE);
    let full = SlowDisk::full(nodes[0].pid(), &shelf.beside("-wal"));
    assert_eq!(nodes[0].wait_exit(lease + PATIENCE), 75, "{}", nodes[0].report());
    drop(full);
    let verdicts: Vec<String> =
        nodes[0].events().iter().filter(|e| e.kind() == "verdict").map(|e| e.json.to_string()).collect();
    let last = verdicts.last().unwrap_or_else(|| panic!("no verdict\n{}", report(&nodes)));
    assert!(last.contains("disk is full") && last.contains("metad.db"), "{last}");
    assert!(!last.contains("etcd"), "{last}");
    wait_until("another leads", LEASE + PATIENCE, || leads(&nodes[1]));
}

/// Whoever is first puts the file into WAL mode, and SQLite tells who comes at that moment that it is locked, at once. Only
/// processes meet there, and only in about one round of six.
#[test]
fn nodes_that_start_at_once_on_a_file_that_is_not_there_yet_all_join() {
    for _ in 0..4 {
        let folder = tempfile::tempdir().expect("a folder");
        let start = |i| NodeBuilder::new(&format!("n{i}")).sqlite(folder.path().join("metad.db")).spawn();
        let nodes: Vec<_> = (0..6).map(start).collect();
        nodes.iter().for_each(|node| drop(node.wait_for("joined", PATIENCE)));
    }
}
