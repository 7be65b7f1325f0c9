//! `metad run --standby`, on real processes: a new leader's program is warm, does nothing before it is told, and nothing of
//! the last one is left by then. The figures are in `the_figures`, which `make standby` runs.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::FromRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, thread};

use etcd_client::{Client, Compare, CompareOp, Txn, TxnOp};
use tempfile::TempDir;

use crate::support::etcd::EtcdCluster;
use crate::support::fenced;
use crate::support::node::{Node, NodeBuilder, Signal};
use crate::support::poll::{boot_ns, holds_within, wait_until};
use crate::support::{ourselves, spawn};

/// Starting processes and etcd on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// A lease that no test waits for: whoever leads before it ends was let in.
const DAY_SECS: u64 = 86_400;
/// How long nobody is seen to lead, where somebody would within milliseconds.
const QUIET: Duration = Duration::from_secs(2);
const LEADER: &str = "/metad/default/election/meta/leader";
const KEY: &str = "/metad/default/state/program";
/// A token that a program may believe in that was told none: nobody's.
const GUESS: i64 = 1;

// === The program ===

const FOLDER: &str = "STANDBY_FOLDER";
const ETCD: &str = "STANDBY_ETCD";
/// How long it takes to be warm.
const START_MS: &str = "STANDBY_START_MS";
/// What it does that it should not.
const HABITS: &str = "STANDBY_HABITS";
/// It ignores SIGTERM.
const STUBBORN: &str = "stubborn";
/// It writes before it is told to.
const HASTY: &str = "hasty";
/// It ends at once until this file exists, in the folder.
const MAY_LIVE: &str = "may-live";
/// It is not warm before this file exists, in the folder.
const MAY_BE_WARM: &str = "may-be-warm";

/// Writes down what a program does, and when.
struct Diary(fs::File);

impl Diary {
    fn note(&mut self, what: &str, token: i64) {
        let line = format!("{} {what} {token}\n", boot_ns());
        self.0.write_all(line.as_bytes()).expect("the test is still there");
    }
}

#[test]
#[ignore = "a program that the other tests run, not a test"]
fn program_that_stands_by() {
    let folder = PathBuf::from(env::var(FOLDER).expect("a folder"));
    let habits = env::var(HABITS).unwrap_or_default();
    let name = format!("{}.{}", env::var("METAD_NODE_ID").expect("metad tells it"), std::process::id());
    let file = OpenOptions::new().create(true).append(true).open(folder.join(name));
    let mut diary = Diary(file.expect("a file"));
    diary.note("begins", 0);
    if habits.contains(STUBBORN) {
        // SAFETY: sets a disposition.
        unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
    }
    if habits.contains(MAY_LIVE) && !folder.join(MAY_LIVE).exists() {
        std::process::exit(3);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.expect("a runtime").block_on(work(&folder, &habits, diary));
}

async fn work(folder: &Path, habits: &str, mut diary: Diary) {
    let etcd = env::var(ETCD).expect("its address");
    let mut client = Client::connect(etcd.split(',').collect::<Vec<_>>(), None).await.expect("etcd");
    client.get(KEY, None).await.expect("a connection that is warm");
    let start_ms = env::var(START_MS).map_or(0, |ms| ms.parse().expect("a number"));
    thread::sleep(Duration::from_millis(start_ms));
    while habits.contains(MAY_BE_WARM) && !folder.join(MAY_BE_WARM).exists() {
        thread::sleep(Duration::from_millis(10));
    }
    let told = tokio::task::spawn_blocking(wait_for_token);
    if habits.contains(HASTY) {
        while !told.is_finished() {
            write(&mut client, &mut diary, GUESS).await;
        }
    }
    let token = told.await.expect("a token");
    diary.note("told", token);
    loop {
        write(&mut client, &mut diary, token).await;
    }
}

/// The token, once this program may act.
fn wait_for_token() -> i64 {
    let Ok(fd) = env::var("METAD_PROMOTE_FD") else {
        return env::var("METAD_TOKEN").expect("metad tells it").parse().expect("a number");
    };
    assert_eq!(env::var("METAD_ROLE").as_deref(), Ok("standby"));
    spawn::notify("READY=1");
    // SAFETY: metad gives us this descriptor, and nobody else here uses it.
    let promotion = unsafe { fs::File::from_raw_fd(fd.parse().expect("a number")) };
    let mut line = String::new();
    BufReader::new(&promotion).read_line(&mut line).expect("a pipe");
    std::mem::forget(promotion); // its end would say that metad is gone: it stays open
    let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    let deadline_ms = line["deadline_ms"].as_u64().expect("a number");
    assert!(deadline_ms > boot_ns() / 1_000_000, "{line}");
    line["token"].as_i64().expect("a number")
}

/// One write under the fence, and how it ended.
async fn write(client: &mut Client, diary: &mut Diary, token: i64) {
    let value = format!("{{\"token\":{token}}}");
    let fence = Compare::mod_revision(LEADER, CompareOp::Equal, token);
    let write = Txn::new().when([fence]).and_then([TxnOp::put(KEY, value, None)]);
    let done = client.txn(write).await.expect("etcd answers");
    diary.note(if done.succeeded() { "wrote" } else { "refused" }, token);
    tokio::time::sleep(Duration::from_millis(1)).await;
}

// === What is known of it ===

/// A pair of candidates, and what their programs did.
struct Pair {
    folder: TempDir,
    etcd: EtcdCluster,
}

/// What one start of the program did.
#[derive(Clone, Debug, Default)]
struct Life {
    node: String,
    pid: u32,
    began_ns: u64,
    token: i64,
    told_ns: Option<u64>,
    wrote_ns: Vec<u64>,
    refused: usize,
    /// Whatever it did last.
    last_ns: u64,
}

impl Pair {
    fn new(etcd: EtcdCluster) -> Self {
        let folder = tempfile::Builder::new().prefix("standby-").tempdir().expect("a folder");
        Self { folder, etcd }
    }

    fn node(&self, id: &str, start: Duration, habits: &[&str]) -> NodeBuilder {
        self.cold(id, start, habits).arg("--standby")
    }

    /// The same program, which is started when its node leads.
    fn cold(&self, id: &str, start: Duration, habits: &[&str]) -> NodeBuilder {
        let node = NodeBuilder::new(id).etcd(&self.etcd).lease_secs(DAY_SECS);
        node.env("METAD_META__STOP_TIMEOUT_SECS", "1")
            .env(FOLDER, self.folder.path())
            .env(ETCD, self.etcd.urls().join(","))
            .env(START_MS, start.as_millis().to_string())
            .env(HABITS, habits.join(","))
            .payload(&ourselves::calling(program_that_stands_by))
    }

    fn lives(&self) -> Vec<Life> {
        let files = fs::read_dir(self.folder.path()).expect("the folder").flatten();
        let mut lives: Vec<Life> = files.filter_map(|file| Life::read(&file.path())).collect();
        lives.sort_by_key(|life| life.began_ns);
        lives
    }

    /// Waits until this node's newest program has written; that one.
    #[track_caller]
    fn wait_for_writes(&self, node: &Node) -> Life {
        self.wait_for_writes_since(node, 0)
    }

    /// The same of one that began after this moment.
    #[track_caller]
    fn wait_for_writes_since(&self, node: &Node, since_ns: u64) -> Life {
        let newest = || self.lives().into_iter().rfind(|life| life.node == node.id());
        let writes = || newest().filter(|life| life.began_ns > since_ns && life.wrote_ns.len() > 1);
        let found = holds_within(PATIENCE, || writes().is_some());
        assert!(found, "{} writes nothing: {:?}\n{}", node.id(), self.lives(), node.report());
        writes().expect("it does not vanish")
    }

    fn allow(&self, what: &str) {
        fs::write(self.folder.path().join(what), "").expect("a file");
    }

    /// No effect before its promotion, none of two programs at once, and none that etcd should have refused.
    #[track_caller]
    fn check(&self) -> Vec<Life> {
        let lives = self.lives();
        for life in &lives {
            let early = life.wrote_ns.first().is_some_and(|at| life.told_ns.is_none_or(|told| told > *at));
            assert!(!early, "it wrote before it was told: {life:?}");
        }
        let mut led: Vec<&Life> = lives.iter().filter(|life| life.told_ns.is_some()).collect();
        led.sort_by_key(|life| life.told_ns);
        for pair in led.windows(2) {
            assert!(Some(pair[0].last_ns) < pair[1].told_ns, "two at once: {pair:?}");
            assert!(pair[0].token < pair[1].token, "tokens went back: {pair:?}");
        }
        let writes = fenced::check(&self.etcd, "default", &[]).unwrap_or_else(|e| panic!("{e}"));
        assert!(writes.fenced > 0, "twin: something was written");
        lives
    }
}

impl Life {
    fn read(file: &Path) -> Option<Self> {
        let (node, pid) = file.file_name()?.to_str()?.split_once('.')?;
        let mut life = Life { node: node.into(), pid: pid.parse().ok()?, ..Life::default() };
        let text = fs::read_to_string(file).ok()?;
        for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            let [at, what, token] = line.split_whitespace().collect::<Vec<_>>()[..] else { continue };
            let at = at.parse().expect("a number");
            life.last_ns = at;
            match what {
                "begins" => life.began_ns = at,
                "told" => (life.told_ns, life.token) = (Some(at), token.parse().expect("a number")),
                "wrote" => life.wrote_ns.push(at),
                _ => life.refused += 1,
            }
        }
        Some(life)
    }
}

fn wait_until_warm(node: &Node) {
    wait_until("the program is warm", PATIENCE, || node.stderr().contains("the program is warm"));
}

fn step_down(leader: &Node, to: &str) -> (i32, String) {
    let meta = leader.rpc_addr().to_string();
    let (code, out, errors) = spawn::metad(&["step-down", "--to", to, "--yes", "--meta", &meta], PATIENCE);
    (code, out + &errors)
}

// === The tests ===

#[test]
fn a_warm_program_takes_over_and_nothing_of_the_last_one_is_left() {
    let pair = Pair::new(EtcdCluster::start(1));
    let second = Duration::from_secs(1);
    let a = pair.node("a", second, &[STUBBORN]).spawn();
    pair.wait_for_writes(&a);
    let b = pair.node("b", second, &[]).spawn();
    wait_until_warm(&b);
    let asked = boot_ns();
    let (code, said) = step_down(&a, "b");
    assert_eq!(code, 0, "{said}\n{}", a.report());
    assert_eq!(a.wait_exit(PATIENCE), 75, "{}", a.report());
    let (old, stopped) = (&pair.lives()[0], a.wait_for("main_loop_stopped", PATIENCE).at_ns());
    assert!(old.last_ns < stopped, "it outlives its main loop: {old:?}");
    let new = pair.wait_for_writes(&b);
    assert!(new.began_ns < asked, "it was not started for that: {new:?}");
    b.kill();
    let c = pair.node("c", Duration::ZERO, &[]).spawn();
    pair.wait_for_writes(&c);
    let lives = pair.check();
    assert_eq!(lives.len(), 3, "each was started once: {lives:?}");
    // A standby ends with its node.
    c.signal(Signal::TERM);
    assert_eq!(c.wait_exit(PATIENCE), 0, "{}", c.report());
}

#[test]
fn a_program_that_acts_before_it_is_told_is_refused_by_the_fence() {
    let pair = Pair::new(EtcdCluster::start(1));
    let a = pair.node("a", Duration::ZERO, &[HASTY]).spawn();
    pair.wait_for_writes(&a);
    let b = pair.node("b", Duration::ZERO, &[HASTY]).spawn();
    wait_until_warm(&b);
    thread::sleep(Duration::from_millis(200));
    a.kill();
    let new = pair.wait_for_writes(&b);
    assert!(new.refused > 0, "twin: it tried: {new:?}");
    pair.check();
    // The program of a node that dies dies with it, and one that stands by as well.
    let waits = pair.node("c", Duration::ZERO, &[]).spawn();
    wait_until_warm(&waits);
    let program = pair.lives().into_iter().find(|life| life.node == "c").expect("it was started").pid;
    waits.kill();
    wait_until("its program is gone", PATIENCE, || !Path::new(&format!("/proc/{program}")).exists());
}

#[test]
fn a_program_that_is_not_warm_is_handed_nothing_and_claims_last() {
    let pair = Pair::new(EtcdCluster::start(1));
    let a = pair.node("a", Duration::ZERO, &[]).spawn();
    pair.wait_for_writes(&a);
    let b = pair.node("b", Duration::ZERO, &[MAY_BE_WARM]).spawn();
    b.wait_for("joined", PATIENCE);
    wait_until("it runs", PATIENCE, || b.stderr().contains("the program stands by"));
    let (code, said) = step_down(&a, "b");
    assert!(code != 0 && said.contains("the standby program is not warm"), "{code}: {said}");
    assert!(!a.has_event("main_loop_stopping"), "{}", a.report());
    let status = spawn::metad(&["status", "--meta", &b.rpc_addr().to_string()], PATIENCE).1;
    assert!(status.contains("b is not ready to lead: the standby program is not warm"), "{status}");
    // Nobody else is there: it wins, and its program is told when it is warm.
    a.kill();
    b.wait_for("leadership_won", PATIENCE);
    thread::sleep(Duration::from_millis(500));
    assert!(!b.has_event("main_loop_started"), "{}", b.report());
    let address = b.rpc_addr().to_string();
    let check = spawn::metad(&["check", "LEADER_001", "--meta", &address], PATIENCE);
    assert!(check.0 == 1 && check.1.contains("b leads, token"), "{check:?}");
    assert!(check.1.contains("without a main loop: the standby program is not warm"), "{check:?}");
    assert!(pair.lives().iter().all(|life| life.node != "b" || life.told_ns.is_none()));
    pair.allow(MAY_BE_WARM);
    pair.wait_for_writes(&b);
    pair.check();
}

#[test]
fn a_leader_that_is_not_warm_makes_way_for_a_member_that_is() {
    let pair = Pair::new(EtcdCluster::start(1));
    // It does not end when asked to. What it may take to save its state is not waited for: it has none.
    let cold = pair.node("a", Duration::ZERO, &[MAY_BE_WARM, STUBBORN]);
    let cold = cold.env("METAD_META__STOP_TIMEOUT_SECS", "600");
    let a = cold.spawn();
    a.wait_for("leadership_won", PATIENCE);
    wait_until("its program runs", PATIENCE, || !pair.lives().is_empty());
    let b = pair.node("b", Duration::ZERO, &[]).spawn();
    pair.wait_for_writes(&b);
    assert_eq!(a.wait_for("main_loop_stopping", PATIENCE).str("reason"), "start_timeout");
    assert_eq!(a.wait_exit(PATIENCE), 75, "{}", a.report());
    let told = || spawn::metad(&["history", "--meta", &b.rpc_addr().to_string()], PATIENCE).1;
    let why = "the standby program is not warm, and b is ready";
    wait_until("it says why", PATIENCE, || told().contains(why));
    // It comes back as cold as it was, and nobody makes way for it.
    let again = cold.spawn();
    wait_until("it stands by", PATIENCE, || again.stderr().contains("the program stands by"));
    assert!(!holds_within(QUIET, || b.has_event("main_loop_stopping")), "{}", b.report());
    let lives = pair.check();
    assert!(lives.iter().all(|life| life.node == "b" || life.told_ns.is_none()), "{lives:?}");
}

#[test]
fn a_leader_that_never_gets_warm_gives_leadership_up() {
    let pair = Pair::new(EtcdCluster::start(1));
    let cold = |id: &str| {
        let node = pair.node(id, Duration::ZERO, &[MAY_BE_WARM]);
        node.env("METAD_META__START_TIMEOUT_SECS", "1").env("METAD_META__WARM_UP_TIMEOUT_SECS", "3").spawn()
    };
    let nodes = [cold("a"), cold("b")];
    for node in &nodes {
        node.wait_for("leadership_won", PATIENCE);
    }
    for node in &nodes {
        assert_eq!(node.wait_exit(PATIENCE), 75, "{}", node.report());
        assert_eq!(node.wait_for("main_loop_stopping", PATIENCE).str("reason"), "start_timeout");
        let [won, stopping] =
            ["leadership_won", "main_loop_stopping"].map(|e| node.wait_for(e, PATIENCE).at_ns());
        assert!(stopping - won > 2_500_000_000, "twin: it had its time: {}", node.report());
        assert!(!node.has_event("main_loop_started"), "{}", node.report());
    }
}

#[test]
fn a_standby_that_ends_is_restarted_and_its_node_does_not_lead_meanwhile() {
    let pair = Pair::new(EtcdCluster::start(1));
    let a = pair.node("a", Duration::ZERO, &[]).spawn();
    pair.wait_for_writes(&a);
    let b = pair.node("b", Duration::ZERO, &[MAY_LIVE]).spawn();
    b.wait_for("joined", PATIENCE);
    // The pauses are 0.5, 1, 2 and 4 s: after the fourth end there is time to see that nothing happens.
    wait_until("it has ended four times", PATIENCE, || {
        b.messages().matches("it ended with code 3").count() == 4
    });
    a.kill();
    assert!(!holds_within(QUIET, || b.has_event("leadership_won")), "{}", b.report());
    pair.allow(MAY_LIVE);
    pair.wait_for_writes(&b);
    pair.check();
}

#[test]
fn a_guardian_that_is_killed_costs_a_standby_its_program_and_nobody_the_leadership() {
    let pair = Pair::new(EtcdCluster::start(1));
    let a = pair.node("a", Duration::ZERO, &[]).spawn();
    pair.wait_for_writes(&a);
    let b = pair.node("b", Duration::ZERO, &[]).spawn();
    wait_until_warm(&b);
    spawn::signal(b.guardian(), Signal::KILL);
    let warm_again = || b.stderr().matches("the program is warm").count() == 2;
    wait_until("another program is warm", PATIENCE, warm_again);
    assert!(a.is_alive() && b.is_alive() && !a.has_event("main_loop_stopping"));
    a.kill();
    pair.wait_for_writes(&b);
    pair.check();
}

/// What ends a leader's program ends one that was promoted, whoever stands still.
#[test]
fn a_promoted_program_ends_with_its_lease_although_metad_and_the_guardian_are_stopped() {
    let pair = Pair::new(EtcdCluster::start(1));
    let node = |id| pair.node(id, Duration::ZERO, &[]).lease_secs(5).spawn();
    let a = node("a");
    pair.wait_for_writes(&a);
    let b = node("b");
    wait_until_warm(&b);
    let guardian = a.guardian();
    for pid in [a.pid(), guardian] {
        spawn::signal(pid, Signal::STOP);
        spawn::wait_stopped(pid);
    }
    pair.wait_for_writes(&b);
    thread::sleep(Duration::from_millis(500));
    pair.check();
}

// === The examples ===

#[path = "../../examples/standby.rs"]
mod example;

#[test]
#[ignore = "a program that the other tests run, not a test"]
fn program_that_is_an_example() {
    example::main().expect("it ends the process");
}

#[test]
fn the_example_in_rust_is_warm_before_it_leads() {
    let etcd = EtcdCluster::start(1);
    let node = |id| NodeBuilder::new(id).env("METAD_STORE__ETCD__ENDPOINTS", etcd.endpoints().join(","));
    let spawn = |id| {
        let [program, args @ ..] = ourselves::calling(program_that_is_an_example);
        let mut command = std::process::Command::new(program);
        command.args(args);
        node(id).lease_secs(5).spawn_program(command)
    };
    let a = spawn("a");
    wait_until("a leads", PATIENCE, || a.stdout().contains("a leads with token"));
    let b = spawn("b");
    wait_until("b is warm", PATIENCE, || b.stdout().contains("b is warm"));
    assert!(!b.stdout().contains("leads"), "{}", b.report());
    a.signal(Signal::TERM);
    assert_eq!(a.wait_exit(PATIENCE), 0, "{}", a.report());
    wait_until("b leads", PATIENCE, || b.stdout().contains("b leads with token"));
    assert_eq!(b.stdout().matches("b is warm").count(), 1, "{}", b.report());
}

#[test]
fn the_example_in_python_is_warm_before_it_leads() {
    let etcd = EtcdCluster::start(1);
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/standby.py");
    let spawn = |id| {
        let node = NodeBuilder::new(id).etcd(&etcd).lease_secs(DAY_SECS).arg("--standby");
        node.payload(&["python3", example]).spawn()
    };
    let a = spawn("a");
    wait_until("a works", PATIENCE, || a.stdout().contains("a works under token"));
    let b = spawn("b");
    wait_until_warm(&b);
    assert_eq!(b.stdout(), "", "{}", b.report());
    a.signal(Signal::TERM);
    assert_eq!(a.wait_exit(PATIENCE), 0, "{}", a.report());
    wait_until("b works", PATIENCE, || b.stdout().contains("b works under token"));
}

// === The figures ===

const ROUNDS: usize = 20;
const START: Duration = Duration::from_secs(5);

/// How the old leader ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    HandOver,
    Kill,
}

/// Milliseconds of one change.
#[derive(Clone, Copy)]
struct Gap {
    /// From the last write of the old program, or from its death, to the first one of the new program.
    all: f64,
    /// Until the new one is told; it has been told nothing before.
    told: f64,
    /// What a write took before and after it, the pause of 1 ms included.
    write: f64,
}

/// Changes to and fro.
fn gaps(pair: &Pair, stands_by: bool, end: End) -> Vec<Gap> {
    let ids = ["a", "b"];
    let spawn = |id| if stands_by { pair.node(id, START, &[]) } else { pair.cold(id, START, &[]) }.spawn();
    let mut old = spawn(ids[0]);
    let mut before = pair.wait_for_writes_since(&old, 0);
    let mut gaps = Vec::new();
    for round in 1..=ROUNDS {
        let spawned = boot_ns();
        let new = spawn(ids[round % 2]);
        match stands_by {
            true => wait_until_warm(&new),
            false => drop(new.wait_for("joined", PATIENCE)),
        }
        thread::sleep(Duration::from_millis(500));
        let killed = boot_ns();
        match end {
            End::HandOver => old.signal(Signal::TERM),
            End::Kill => old.kill(),
        }
        let after = pair.wait_for_writes_since(&new, spawned);
        old.wait_exit(PATIENCE);
        let pid = before.pid;
        let last = pair.lives().into_iter().find(|life| life.pid == pid).expect("it has written").wrote_ns;
        let since = if end == End::Kill { killed } else { *last.last().expect("it has written") };
        let ms = |at: u64| (at - since) as f64 / 1e6;
        let first = *after.wrote_ns.first().expect("it has written");
        let mut writes: Vec<u64> = last.windows(2).map(|pair| pair[1] - pair[0]).collect();
        writes.sort_unstable();
        let write = writes[writes.len() / 2] as f64 / 1e6;
        gaps.push(Gap { all: ms(first), told: ms(after.told_ns.expect("told")), write });
        (old, before) = (new, after);
    }
    pair.check();
    gaps
}

fn median(of: impl Iterator<Item = f64>) -> (f64, String) {
    let mut all: Vec<f64> = of.collect();
    all.sort_by(f64::total_cmp);
    let median = all[all.len() / 2];
    (median, format!("{median:.1} ({:.1} to {:.1})", all[0], all[all.len() - 1]))
}

#[test]
#[ignore = "takes minutes: make standby"]
fn the_figures() {
    let disk_decides = 0.0..f64::MAX;
    let rows = [
        ("hand-over to a standby", false, true, End::HandOver, 0.0..20.0),
        ("kill -9 with a standby", false, true, End::Kill, 0.0..50.0),
        ("hand-over to a standby, etcd syncs", true, true, End::HandOver, disk_decides.clone()),
        ("kill -9 with a standby, etcd syncs", true, true, End::Kill, disk_decides),
        ("hand-over without one", false, false, End::HandOver, 5_000.0..f64::MAX),
    ];
    println!(
        "from the last write of a program, or its death, to the first one of the next, which takes {START:?} to"
    );
    println!("start; medians of {ROUNDS} in ms, on an etcd of three members");
    let mut wrong = Vec::new();
    for (what, syncs, stands_by, end, wanted) in rows {
        let etcd = EtcdCluster::builder().members(3);
        let etcd = if syncs { etcd.syncs() } else { etcd };
        let gaps = gaps(&Pair::new(etcd.start()), stands_by, end);
        let (all, said) = median(gaps.iter().map(|gap| gap.all));
        let told = median(gaps.iter().map(|gap| gap.told)).1;
        let write = median(gaps.iter().map(|gap| gap.write)).1;
        println!("{what}: {said}; until it is told {told}; one write {write}");
        if !wanted.contains(&all) {
            wrong.push(what);
        }
    }
    assert!(wrong.is_empty(), "not as promised: {wrong:?}");
}

#[test]
fn an_observer_whose_priority_is_raised_has_its_program_stand_by() {
    let pair = Pair::new(EtcdCluster::start(1));
    let a = pair.node("a", Duration::ZERO, &[]).spawn();
    pair.wait_for_writes(&a);
    let b = pair.node("b", Duration::ZERO, &[]).env("METAD_NODE__PRIORITY", "0").spawn();
    b.wait_for("joined", PATIENCE);
    assert!(!b.stderr().contains("the program stands by"), "{}", b.report());
    let raised = spawn::metad(&["priority", "b", "200", "--meta", &b.rpc_addr().to_string()], PATIENCE);
    assert_eq!(raised.0, 0, "{raised:?}");
    wait_until_warm(&b);
    a.kill();
    pair.wait_for_writes(&b);
    pair.check();
}
