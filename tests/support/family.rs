//! Programs for `metad run` that leave evidence of when they lived.
//!
//! Each process of such a program, and of those that it starts, writes a stamp of `CLOCK_BOOTTIME` into a file of its
//! own every few milliseconds. What they say of each other is therefore exact, however busy the machine is: a stamp is
//! taken before it is written, so nobody was alive later than it seems.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;
use std::{env, thread};

use tempfile::TempDir;

use super::node::NodeBuilder;
use super::ourselves;
use super::poll::{boot_ns, holds_within};

/// The program itself.
pub const PROGRAM: &str = "program";
/// A child of it, in a session of its own.
pub const SESSION: &str = "session";
/// A grandchild in a session of its own, whose parent has ended.
pub const ORPHAN: &str = "orphan";
/// One that is a new process all the time: each forks the next and ends.
pub const COMET: &str = "comet";
/// Those that stay what they are.
pub const ALL: [&str; 3] = [PROGRAM, SESSION, ORPHAN];

const FOLDER: &str = "FAMILY_FOLDER";
const MEMBERS: &str = "FAMILY_MEMBERS";
const STUBBORN: &str = "FAMILY_STUBBORN";
const ROLE: &str = "FAMILY_ROLE";
const ROOT: &str = "FAMILY_ROOT";
/// The parent of the orphan; it leaves no stamps.
const MIDDLE: &str = "middle";
const STAMP_EVERY: Duration = Duration::from_millis(3);
/// Nobody stamps for longer, should a test forget to end it.
const LIFE_MAX_NS: u64 = 300_000_000_000;

/// The evidence of all families of one test.
pub struct Families {
    folder: TempDir,
}

/// What is known of one process.
#[derive(Clone, Debug)]
pub struct Life {
    pub role: String,
    pub pid: u32,
    pub first_ns: u64,
    pub last_ns: u64,
}

/// One start of the program, and all that descends from it.
#[derive(Clone, Debug)]
pub struct Family {
    pub node: String,
    pub token: u64,
    pub lives: Vec<Life>,
}

// === impl Families ===

impl Families {
    pub fn new() -> Self {
        Self { folder: tempfile::Builder::new().prefix("families-").tempdir().expect("a folder") }
    }

    /// Makes the program of `test` (which must do nothing but [`live`]) the node's, with these members.
    pub fn of<T>(&self, node: NodeBuilder, test: T, members: &[&str]) -> NodeBuilder {
        node.payload(&ourselves::calling(test))
            .env(FOLDER, self.folder.path())
            .env(MEMBERS, members.join(","))
    }

    /// Where the evidence is, for a program that is started by something else than a [`NodeBuilder`].
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// What such a program has to find in its environment.
    pub fn variables(&self, members: &[&str]) -> [String; 2] {
        [format!("{FOLDER}={}", self.folder.path().display()), format!("{MEMBERS}={}", members.join(","))]
    }

    /// Nobody of it cares for SIGTERM.
    pub fn stubborn(node: NodeBuilder) -> NodeBuilder {
        node.env(STUBBORN, "1")
    }

    /// All families so far, in the order of their starts.
    pub fn seen(&self) -> Vec<Family> {
        // Two containers number their processes alike: the token tells their families apart.
        let mut families: BTreeMap<(String, u64, String), Family> = BTreeMap::new();
        for entry in fs::read_dir(self.folder.path()).expect("the folder").flatten() {
            let name = entry.file_name().into_string().expect("a name that we gave");
            let [node, token, root, role, pid] = name.split('.').collect::<Vec<_>>()[..] else {
                panic!("a strange file: {name}")
            };
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            let stamps: Vec<u64> =
                text.split_inclusive('\n').filter_map(|l| l.trim_end().parse().ok()).collect();
            // One stamp proves a start, two of them a life.
            let [first_ns, .., last_ns] = stamps[..] else { continue };
            let (node, token): (_, u64) = (node.to_owned(), token.parse().expect("a token"));
            let family = families.entry((node.clone(), token, root.to_owned()));
            let family = family.or_insert(Family { node, token, lives: Vec::new() });
            let (role, pid) = (role.to_owned(), pid.parse().expect("a process id"));
            family.lives.push(Life { role, pid, first_ns, last_ns });
        }
        let mut families: Vec<_> = families.into_values().collect();
        families.sort_by_key(Family::first_ns);
        families
    }

    /// Waits until so many families have lived, the last one of which is the node's and complete; that one.
    #[track_caller]
    pub fn wait_for(&self, count: usize, node: &str, roles: &[&str], timeout: Duration) -> Family {
        let newest = || self.seen().get(count - 1).filter(|f| f.node == node && f.has(roles)).cloned();
        assert!(
            holds_within(timeout, || newest().is_some()),
            "no family {count} of {node}: {:?}",
            self.seen()
        );
        newest().expect("a family does not vanish")
    }

    /// All families; panics if two of them ever lived at once, or if tokens went back.
    #[track_caller]
    pub fn check(&self) -> Vec<Family> {
        let all = self.seen();
        for pair in all.windows(2) {
            let (before, after) = (&pair[0], &pair[1]);
            assert!(before.last_ns() < after.first_ns(), "two programs at once: {before:?} and {after:?}");
            assert!(before.token <= after.token, "tokens went back: {before:?} and {after:?}");
        }
        all
    }
}

// === impl Family ===

impl Family {
    pub fn first_ns(&self) -> u64 {
        self.lives.iter().map(|l| l.first_ns).min().expect("nobody is in no family")
    }

    pub fn last_ns(&self) -> u64 {
        self.lives.iter().map(|l| l.last_ns).max().expect("nobody is in no family")
    }

    pub fn has(&self, roles: &[&str]) -> bool {
        roles.iter().all(|role| self.lives.iter().any(|l| l.role == *role))
    }

    /// The process id of the program itself.
    #[track_caller]
    pub fn program(&self) -> u32 {
        self.lives.iter().find(|l| l.role == PROGRAM).expect("a program").pid
    }
}

/// What a process of a family does: starts the others, if it is the program, and stamps until it is ended.
pub fn live() {
    let role = env::var(ROLE).unwrap_or_else(|_| PROGRAM.to_owned());
    let root = env::var(ROOT).unwrap_or_else(|_| std::process::id().to_string());
    if env::var_os(STUBBORN).is_some() {
        // SAFETY: sets a disposition, which the children inherit.
        unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
    }
    match role.as_str() {
        PROGRAM => {
            let members = env::var(MEMBERS).expect("the members");
            for member in members.split(',').filter(|m| *m != PROGRAM) {
                start(if member == ORPHAN { MIDDLE } else { member }, &root);
            }
        }
        MIDDLE => {
            start(ORPHAN, &root);
            std::process::exit(0);
        }
        COMET => fly(file(&role, &root)),
        _ => {}
    }
    stamp(file(&role, &root));
}

fn start(role: &str, root: &str) {
    let mut command = Command::new(ourselves::path());
    command.args(env::args_os().skip(1)).env(ROLE, role).env(ROOT, root);
    // SAFETY: one system call, which neither allocates nor locks.
    unsafe { command.pre_exec(|| Ok(rustix::process::setsid().map(drop)?)) };
    let mut child = command.spawn().expect("another one of us");
    thread::spawn(move || child.wait());
}

/// The file of this process.
fn file(role: &str, root: &str) -> File {
    let var = |name: &str| env::var(name).expect("metad tells it");
    let name =
        [&var("METAD_NODE_ID"), &var("METAD_TOKEN"), root, role, &std::process::id().to_string()].join(".");
    File::create_new(std::path::Path::new(&var(FOLDER)).join(name)).expect("a file")
}

fn stamp(mut file: File) {
    let begin = boot_ns();
    while boot_ns() < begin + LIFE_MAX_NS {
        let line = format!("{}\n", boot_ns());
        file.write_all(line.as_bytes()).expect("the test is still there");
        thread::sleep(STAMP_EVERY);
    }
}

/// Ends within ten seconds by itself, because nobody else might be able to end it.
fn fly(mut file: File) -> ! {
    let begin = boot_ns();
    let mut line = [0; 32];
    while boot_ns() < begin + LIFE_MAX_NS / 30 {
        let mut rest = &mut line[..];
        let _ = writeln!(rest, "{}", boot_ns());
        let unused = rest.len();
        let _ = file.write_all(&line[..32 - unused]);
        // SAFETY: the child does nothing but what this loop does, without allocating or locking.
        if unsafe { libc::fork() } > 0 {
            break;
        }
    }
    // SAFETY: ends the process.
    unsafe { libc::_exit(0) }
}
