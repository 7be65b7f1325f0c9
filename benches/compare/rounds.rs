//! A fail-over of metad beside what etcd itself takes for a write that another process sees, and beside the election
//! of etcd's own Go library: on one fresh cluster that waits for its disk, in turn, so that noise hits all alike.
//!
//! Prints figures and asserts nothing. Alone: `cargo bench --bench leadership -- compare`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, PutOptions};
use futures_util::StreamExt;
use tokio::runtime::Runtime;

use super::support::etcd::EtcdCluster;
use super::support::install::on_path;
use super::support::node::{NodeBuilder, Signal};
use super::support::output::{Output, Said};
use super::support::poll::boot_ns;
use super::support::spawn;
use super::{PAUSE, TIMEOUT, median, pair, started_ns};

/// The argument with which the benchmark starts itself as the process that watches.
pub const WATCHER: &str = "compare-watcher";

const ROUNDS: usize = 20;
/// As in `main.go`.
const LEASE_SECS: u64 = 15;
/// It may have to fetch its modules first.
const GO_BUILD_TIMEOUT: Duration = Duration::from_secs(600);
const HAND_OVER_TARGET: f64 = 1.5;
const KILL_9_TARGET: f64 = 3.0;

/// What was measured of one kind, in milliseconds.
struct Row {
    what: &'static str,
    all: Vec<f64>,
}

/// A key that one process writes and another one watches, both at one member of etcd.
struct Bare {
    runtime: Runtime,
    client: Client,
    key: String,
    watcher: Program,
    puts: usize,
}

/// A process that prints lines of a word and nanoseconds on `CLOCK_BOOTTIME`; killed on drop.
struct Program {
    pid: u32,
    output: Arc<Output>,
}

/// Measures all kinds and prints them.
pub fn run() {
    let go = build_go();
    let etcd = EtcdCluster::builder().members(3).syncs().start();
    let leader = etcd.leader();
    let urls = etcd.urls();
    let mut bare = Bare::new(&urls[leader]);
    let mut bare_at_follower = Bare::new(&urls[(leader + 1) % urls.len()]);
    let mut rows = [
        "bare put, at etcd's leader",
        "bare put, at a follower",
        "bare revoke, at etcd's leader",
        "Go concurrency, SIGTERM",
        "metad, SIGTERM",
        "metad, kill -9",
    ]
    .map(|what| Row { what, all: Vec::new() });
    for round in 0..ROUNDS {
        rows[0].all.push(bare.measure());
        rows[1].all.push(bare_at_follower.measure());
        rows[2].all.push(bare.measure_revoke());
        rows[3].all.extend(go.as_ref().ok().map(|program| go_hand_over(program, &etcd, round)));
        rows[4].all.push(metad_fail_over(&etcd, round, Signal::TERM));
        rows[5].all.push(metad_fail_over(&etcd, round, Signal::KILL));
    }
    print_header(&etcd);
    print_table(&rows, go.err().as_deref());
    if etcd.leader() != leader {
        println!("  etcd changed its leader meanwhile: run it again");
    }
}

fn print_header(etcd: &EtcdCluster) {
    println!(
        "Fail-over compared: etcd {} with fsync below {}, 3 members, {ROUNDS} rounds of each kind in turn, lease \
         {LEASE_SECS} s.\n  \
         In ms, from just before the put or the signal to the stamp of another process, all on CLOCK_BOOTTIME.\n  \
         bare put: of one process, until another one has its event; each is a Rust etcd-client with a connection of \
         its own\n    to the same one member. At etcd's leader that is the least that a fail-over through etcd can \
         take.\n  \
         bare revoke: the same for a lease that the key hangs on. Revoke and put are the least that a fail-over after \
         a kill\n    can take.\n  \
         Go concurrency: clientv3 with Session and Election; the leader resigns, until the other's Campaign \
         returned.\n  \
         metad: until the other node's main loop started; kill -9 of the leader, not of its guardian.\n  \
         Go and metad are given all members, in each round with another one at the head of the list.",
        etcd.version(),
        std::env::temp_dir().display()
    );
}

fn print_table(rows: &[Row], no_go: Option<&str>) {
    let medians: Vec<f64> = rows.iter().map(|row| median_of(&row.all)).collect();
    let [bare, _, revoke, go, hand_over, kill_9] = medians[..] else { return };
    println!("  {:<28}{:>8}{:>8}{:>10}", "", "median", "p90", "to bare");
    for (row, median) in rows.iter().zip(&medians) {
        if row.all.is_empty() {
            println!("  {:<28}left out: {}", row.what, no_go.unwrap_or("not measured"));
        } else {
            let (p90, ratio) = (p90(&row.all), median / bare);
            println!("  {:<28}{median:>8.2}{p90:>8.2}{ratio:>10.2}", row.what);
        }
    }
    println!("  metad's hand-over to bare: {:.2} (goal: at most {HAND_OVER_TARGET})", hand_over / bare);
    match no_go {
        None => println!("  metad's hand-over to Go's: {:.2} (below 1: metad's is faster)", hand_over / go),
        Some(why) => println!("  metad's hand-over to Go's: left out: {why}"),
    }
    println!("  metad's kill -9 to bare: {:.2} (goal: at most {KILL_9_TARGET})", kill_9 / bare);
    println!("  metad's kill -9 to a bare revoke and a bare put: {:.2}", kill_9 / (revoke + bare));
}

fn median_of(all: &[f64]) -> f64 {
    if all.is_empty() { f64::NAN } else { median(all.to_vec()) }
}

/// So many of ten are no longer: nine.
fn p90(all: &[f64]) -> f64 {
    let mut sorted = all.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() * 9).div_ceil(10) - 1]
}

fn ms(began: u64, ended: u64) -> f64 {
    (ended as f64 - began as f64) / 1e6
}

/// Everybody's endpoints in this round: who asks the first one first shall not be lucky, or unlucky, in all of them.
fn endpoints(etcd: &EtcdCluster, round: usize) -> Vec<String> {
    let mut endpoints = etcd.endpoints();
    let first = round % endpoints.len();
    endpoints.rotate_left(first);
    endpoints
}

/// Two nodes, of which the leader gets this signal.
fn metad_fail_over(etcd: &EtcdCluster, round: usize, signal: Signal) -> f64 {
    let cluster = format!("compare-{}-{round}", signal.as_raw());
    let (first, second) = pair(|id| {
        let node = NodeBuilder::new(id).cluster(&cluster).lease_secs(LEASE_SECS).without_tick();
        node.endpoints(endpoints(etcd, round)).spawn()
    });
    let began = boot_ns();
    first.signal(signal);
    let took = ms(began, started_ns(&second));
    first.wait_exit(TIMEOUT);
    // In good order: a lease that expires later would disturb another round.
    second.signal(Signal::TERM);
    second.wait_exit(TIMEOUT);
    took
}

/// Two candidates, of which the leader gets SIGTERM.
fn go_hand_over(program: &Path, etcd: &EtcdCluster, round: usize) -> f64 {
    let candidate = |id: &str| {
        let mut command = Command::new(program);
        command.arg(endpoints(etcd, round).join(",")).arg(format!("/compare/go-{round}")).arg(id);
        Program::start(command)
    };
    let first = candidate("a");
    first.said("leading", 0);
    let second = candidate("b");
    second.said("queued", 0);
    std::thread::sleep(PAUSE);
    let began = boot_ns();
    first.signal(Signal::TERM);
    let took = ms(began, second.said("leading", 0));
    first.wait_exit();
    second.signal(Signal::TERM);
    second.wait_exit();
    took
}

/// Builds `main.go`, beside this file. The error says why there is none.
fn build_go() -> Result<PathBuf, String> {
    let go = on_path("go").ok_or("there is no Go on the PATH")?;
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compare-go");
    let mut command = Command::new(go);
    command.args(["build", "-trimpath", "-buildvcs=false", "-o"]).arg(&program).arg(".");
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/compare"));
    command.env("CGO_ENABLED", "0");
    let built = spawn::output(command, GO_BUILD_TIMEOUT);
    let errors = String::from_utf8_lossy(&built.stderr);
    let last = errors.lines().last().unwrap_or("it does not say why");
    if built.status.success() { Ok(program) } else { Err(format!("go build fails: {last}")) }
}

// === impl Bare ===

impl Bare {
    fn new(url: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args([WATCHER, url]);
        let watcher = Program::start(command);
        watcher.said("watching", 0);
        let runtime = runtime();
        let client = runtime.block_on(Client::connect([url], None)).expect("a client");
        let mut bare = Self { runtime, client, key: key(url), watcher, puts: 0 };
        bare.measure(); // connects
        bare
    }

    fn measure(&mut self) -> f64 {
        std::thread::sleep(PAUSE);
        let began = boot_ns();
        self.runtime.block_on(self.client.put(self.key.as_str(), "value", None)).expect("a put");
        self.puts += 1;
        ms(began, self.watcher.said("seen", self.puts - 1))
    }

    fn measure_revoke(&mut self) -> f64 {
        let lease = self.runtime.block_on(self.client.lease_grant(60, None)).expect("a lease").id();
        let options = PutOptions::new().with_lease(lease);
        self.runtime.block_on(self.client.put(self.key.as_str(), "value", Some(options))).expect("a put");
        std::thread::sleep(PAUSE);
        let began = boot_ns();
        self.runtime.block_on(self.client.lease_revoke(lease)).expect("a revoke");
        self.puts += 2;
        ms(began, self.watcher.said("seen", self.puts - 1))
    }
}

/// The process that watches, until it is killed.
pub fn watch(url: &str) {
    runtime().block_on(async {
        let mut client = Client::connect([url], None).await.expect("a client");
        let mut answers = client.watch(key(url), None).await.expect("a watch");
        while let Some(answer) = answers.next().await {
            let now = boot_ns();
            let answer = answer.expect("an answer");
            if answer.created() {
                println!("watching {now}");
            }
            answer.events().iter().for_each(|_| println!("seen {now}"));
        }
    });
}

/// One thread does all, so that no other one has to be woken.
fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn key(url: &str) -> String {
    format!("/compare/bare/{url}")
}

// === impl Program ===

impl Program {
    fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = spawn::spawn(command).expect("it starts");
        Self { pid: child.id(), output: Output::follow(child) }
    }

    /// The stamp of the line, old or new, that has this word for the n-th time, counted from 0.
    #[track_caller]
    fn said(&self, word: &str, n: usize) -> u64 {
        let stamp = |line: &String| line.strip_prefix(word)?.trim().parse::<u64>().ok();
        let look = |said: &Said| {
            let found = said.stdout.iter().filter_map(stamp).nth(n);
            found.map(Some).or(said.is_over().then_some(None))
        };
        let found = self.output.wait(TIMEOUT, look).flatten();
        found.unwrap_or_else(|| panic!("no `{word}` within {TIMEOUT:?}: {}", self.output.now().report()))
    }

    fn signal(&self, signal: Signal) {
        if self.output.now().exit.is_none() {
            spawn::signal(self.pid, signal);
        }
    }

    #[track_caller]
    fn wait_exit(&self) {
        let ended = self.output.wait(TIMEOUT, |said| said.exit);
        assert!(ended.is_some(), "no end within {TIMEOUT:?}: {}", self.output.now().report());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}
