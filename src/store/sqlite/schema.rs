//! The file: opening it, making it, and refusing what cannot work.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, ffi};

use super::place::{FileId, Place};

use crate::store::network_fs;

use crate::files;

/// "metd": marks the file as ours (`PRAGMA application_id`).
const APPLICATION_ID: i32 = 0x6d65_7464;
/// The layout's version (`PRAGMA user_version`).
const SCHEMA_VERSION: i32 = 1;

const SCHEMA: &str = "
CREATE TABLE store (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    cluster INTEGER NOT NULL,    -- random, made with the file
    revision INTEGER NOT NULL,
    forgotten INTEGER NOT NULL,  -- deletions up to this revision are no longer remembered
    boot_id TEXT NOT NULL,       -- leases of another boot are over
    time_ns TEXT NOT NULL        -- boot clocks of two time namespaces cannot be compared
) STRICT;
CREATE TABLE lease (id INTEGER PRIMARY KEY, ttl_ms INTEGER NOT NULL, ends_boot_ns INTEGER NOT NULL) STRICT;
CREATE TABLE kv (
    key TEXT PRIMARY KEY,
    value BLOB NOT NULL,
    created INTEGER NOT NULL,
    modified INTEGER NOT NULL,
    lease INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX kv_by_lease ON kv (lease) WHERE lease IS NOT NULL;
CREATE TABLE gone (revision INTEGER NOT NULL, key TEXT NOT NULL, PRIMARY KEY (revision, key)) STRICT, WITHOUT ROWID;
";

/// Which file it was when it was last opened. Not a part of the layout's version: whoever does not know it does without.
const PLACE: &str = "CREATE TABLE IF NOT EXISTS place (
    one INTEGER PRIMARY KEY CHECK (one = 1), device INTEGER NOT NULL, inode INTEGER NOT NULL
) STRICT";
/// How long a leader gets to notice that its file is gone: it hears of it at once, and of a mount over it within a second.
const SETTLES: Duration = Duration::from_secs(1);
/// The pause before a file that others are opening is tried again.
const WAL_PAUSE: Duration = Duration::from_millis(20);

/// Why the file cannot be used. Each says which file, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It cannot be opened or written.
    #[error(
        "cannot use the store {path}: {why}; check that its folder exists and that this user may write to it"
    )]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// It is something else.
    #[error("{path} is not a metad store ({why}); move it away, or name another file with store.sqlite.path")]
    NotOurs {
        /// The file.
        path: PathBuf,
        /// What it is.
        why: String,
    },
    /// It lies on a network file system.
    #[error(
        "{path} is on {kind}, where file locks do not hold between machines; put it on a local disk, or use \
         etcd for several machines (--etcd-endpoints)"
    )]
    Network {
        /// The file.
        path: PathBuf,
        /// The file system.
        kind: &'static str,
    },
    /// It is in use in another time namespace.
    #[error(
        "{path} is in use by processes in another time namespace, whose clocks cannot be compared with ours; \
         run all nodes in one"
    )]
    TimeNamespace {
        /// The file.
        path: PathBuf,
    },
}

impl OpenError {
    pub(super) fn io(path: &Path, why: impl ToString) -> Self {
        Self::Io { path: path.to_owned(), why: why.to_string() }
    }

    fn not_ours(path: &Path, why: impl ToString) -> Self {
        Self::NotOurs { path: path.to_owned(), why: why.to_string() }
    }
}

/// A file that is open, once to write and once to read.
pub(super) struct Opened {
    pub(super) writer: Connection,
    pub(super) reader: Connection,
    pub(super) place: Place,
}

/// Opens the file and brings it up to date.
pub(super) fn open(path: &Path, busy_timeout: Duration) -> Result<Opened, OpenError> {
    let io = |e: rusqlite::Error| OpenError::io(path, e);
    refuse_network(path)?;
    let writer = open_writer(path, busy_timeout)?;
    let reader = Connection::open(path).map_err(io)?;
    reader.busy_timeout(busy_timeout).map_err(io)?;
    reader.pragma_update(None, "query_only", true).map_err(io)?;
    let revision = |c: &Connection| c.query_row("SELECT revision FROM store", [], |row| row.get::<_, i64>(0));
    revision(&reader).map_err(io)?;
    let place = Place::of(path).map_err(|e| OpenError::io(path, e))?;
    if has_moved(&writer) || has_moved(&reader) {
        return Err(OpenError::io(path, "it was replaced while it was being opened"));
    }
    place.check().map_err(|how| OpenError::io(path, how))?;
    Ok(Opened { writer, reader, place })
}

/// Is the file that is open another one than the one that lies there?
fn has_moved(connection: &Connection) -> bool {
    let mut moved: std::ffi::c_int = 0;
    // SAFETY: the connection is open, "main" is its database, and this question is answered with one int.
    let asked = unsafe {
        let answer = std::ptr::from_mut(&mut moved).cast();
        ffi::sqlite3_file_control(connection.handle(), c"main".as_ptr(), ffi::SQLITE_FCNTL_HAS_MOVED, answer)
    };
    asked == ffi::SQLITE_OK && moved != 0
}

fn open_writer(path: &Path, busy_timeout: Duration) -> Result<Connection, OpenError> {
    let io = |e: rusqlite::Error| OpenError::io(path, e);
    let _ = files::make(path); // SQLite gives its other files the same mode, and says what is wrong here
    let mut connection = Connection::open(path).map_err(io)?;
    connection.busy_timeout(busy_timeout).map_err(io)?;
    if let Err(e) = use_wal(&connection, busy_timeout) {
        return Err(match e.sqlite_error_code() {
            Some(rusqlite::ErrorCode::NotADatabase) => OpenError::not_ours(path, e),
            _ => io(e),
        });
    }
    connection.pragma_update(None, "synchronous", "FULL").map_err(io)?;
    prepare(&mut connection, path)?;
    Ok(connection)
}

/// A new file is put into this mode by whoever is first. SQLite calls no busy handler for that, so who comes at the same
/// moment is told at once that the database is locked, and tries again here.
fn use_wal(connection: &Connection, busy_timeout: Duration) -> rusqlite::Result<()> {
    let mut tries_left = busy_timeout.as_millis() / WAL_PAUSE.as_millis();
    loop {
        match connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())) {
            Err(e) if e.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) && tries_left > 0 => {
                tries_left -= 1;
                std::thread::sleep(WAL_PAUSE);
            }
            done => return done,
        }
    }
}

fn refuse_network(path: &Path) -> Result<(), OpenError> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match network_fs::of(folder).map_err(|e| OpenError::io(path, e))? {
        Some(kind) => Err(OpenError::Network { path: path.to_owned(), kind }),
        None => Ok(()),
    }
}

fn prepare(connection: &mut Connection, path: &Path) -> Result<(), OpenError> {
    let io = |e: rusqlite::Error| OpenError::io(path, e);
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(io)?;
    let application: i32 = tx.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(io)?;
    let version: i32 = tx.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(io)?;
    let tables: i64 = tx.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(io)?;
    let (boot_id, time_ns) = (boot_id(), time_namespace());
    match (application, version) {
        (APPLICATION_ID, SCHEMA_VERSION) => {}
        (0, 0) if tables == 0 => {
            tx.execute_batch(SCHEMA).map_err(io)?;
            tx.pragma_update(None, "application_id", APPLICATION_ID).map_err(io)?;
            tx.pragma_update(None, "user_version", SCHEMA_VERSION).map_err(io)?;
            let cluster = uuid::Uuid::new_v4().as_u64_pair().0.cast_signed();
            let row = (cluster, &boot_id, &time_ns);
            tx.execute("INSERT INTO store VALUES (1, ?1, 1, 0, ?2, ?3)", row).map_err(io)?;
        }
        (APPLICATION_ID, other) => {
            let why = format!("layout version {other}, this metad knows {SCHEMA_VERSION}");
            return Err(OpenError::not_ours(path, why));
        }
        _ => return Err(OpenError::not_ours(path, "another application's database")),
    }
    let known: (String, String) = tx
        .query_row("SELECT boot_id, time_ns FROM store", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .map_err(io)?;
    if known.0 != boot_id {
        bury_leases(&tx, &boot_id, &time_ns).map_err(io)?;
    } else if known.1 != time_ns {
        return Err(OpenError::TimeNamespace { path: path.to_owned() });
    }
    settle(&tx, path)?;
    tx.commit().map_err(io)
}

/// Waits before a file is used that was not used here before: new, copied, or brought back. It may lie where another one
/// was a moment ago, with a leader that has yet to notice.
fn settle(tx: &Connection, path: &Path) -> Result<(), OpenError> {
    let io = |e: rusqlite::Error| OpenError::io(path, e);
    let id = FileId::of(path).map_err(|e| OpenError::io(path, e))?;
    let here = (id.device.cast_signed(), id.inode.cast_signed());
    tx.execute_batch(PLACE).map_err(io)?;
    let known = tx.query_row("SELECT device, inode FROM place", [], |row| Ok((row.get(0)?, row.get(1)?)));
    if known.optional().map_err(io)? != Some(here) {
        std::thread::sleep(SETTLES);
        tx.execute("INSERT OR REPLACE INTO place VALUES (1, ?1, ?2)", here).map_err(io)?;
    }
    Ok(())
}

/// The machine was booted since: every process that held a lease is dead.
fn bury_leases(tx: &Connection, boot_id: &str, time_ns: &str) -> rusqlite::Result<()> {
    let sql = "UPDATE store SET revision = revision + 1, boot_id = ?1, time_ns = ?2 RETURNING revision";
    let revision: i64 = tx.query_row(sql, [boot_id, time_ns], |row| row.get(0))?;
    tx.execute("INSERT INTO gone SELECT ?1, key FROM kv WHERE lease IS NOT NULL", [revision])?;
    tx.execute("DELETE FROM kv WHERE lease IS NOT NULL", [])?;
    tx.execute("DELETE FROM lease", [])?;
    Ok(())
}

/// The kernel's name for this boot.
fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_| "?".into(), |s| s.trim().to_owned())
}

/// The kernel's name for our time namespace; the same for everybody where there are none.
fn time_namespace() -> String {
    std::fs::read_link("/proc/self/ns/time").map_or_else(|_| "-".into(), |p| p.display().to_string())
}
