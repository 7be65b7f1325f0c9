//! Real metad processes, and what they say.
//!
//! A [`Node`] is one process. Its builder can be spawned again to restart the node on the same data dir.

use std::ffi::{OsStr, OsString};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;
use std::{fs, thread};

pub use rustix::process::Signal;
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};
use tempfile::TempDir;

use super::etcd::EtcdCluster;
use super::history::{TimedEvent, Trace};
use super::network::Place;
use super::output::{Output, Said};
use super::poll::{boot_ns, holds_within, wait_until};
use super::traces::Election;
use super::{papers, spawn, traces, witness};

/// Marks the environment of a node and of all that descend from it.
const MARKER: &str = "TEST_NODE_MARKER";
/// A guardian's name in `top`.
const GUARDIAN: &str = "metad: guardian";
/// How often the built-in main loop writes, for what is checked in its writes.
const TICK: &str = "METAD_META__TICK_INTERVAL_MS";
const LISTEN_TIMEOUT: Duration = Duration::from_secs(60);
const KILL_TIMEOUT: Duration = Duration::from_secs(60);

/// How a node is to be started; each clone and each spawn has the same data dir.
#[derive(Clone, Debug)]
pub struct NodeBuilder {
    id: String,
    dir: Arc<TempDir>,
    data_dir: PathBuf,
    cluster: String,
    lease_secs: u64,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    payload: Vec<OsString>,
    place: Option<Place>,
    descriptors: Option<u64>,
    elects_in: Option<(PathBuf, Arc<AtomicBool>)>,
    program: Option<PathBuf>,
    is_traced: bool,
}

/// A metad process, killed with all its descendants on drop.
#[derive(Debug)]
pub struct Node {
    id: String,
    pid: u32,
    pidfd: OwnedFd,
    marker: String,
    data_dir: PathBuf,
    output: Arc<Output>,
    killed_ns: AtomicU64,
    /// Since when it has stood still; a process that dies so has done nothing after it.
    paused_ns: AtomicU64,
    trace: Option<PathBuf>,
    election: Option<Election>,
    _dir: Arc<TempDir>,
}

// === impl NodeBuilder ===

impl NodeBuilder {
    /// A node of this id, whose built-in main loop writes its tick, with a lease of 5 s, a temporary data dir and, until told otherwise, SQLite in it.
    pub fn new(id: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("metad-node-").tempdir().expect("a temporary directory");
        Self {
            id: id.into(),
            data_dir: dir.path().join("data"),
            dir: Arc::new(dir),
            cluster: "default".into(),
            lease_secs: 5,
            args: Vec::new(),
            env: vec![(TICK.into(), "3000".into())],
            payload: Vec::new(),
            place: None,
            descriptors: None,
            elects_in: None,
            program: None,
            is_traced: true,
        }
    }

    /// A build of another version may write other traces than ours can be compared with.
    pub fn untraced(mut self) -> Self {
        self.is_traced = false;
        self
    }

    /// Another build of metad.
    pub fn program(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = Some(program.into());
        self
    }

    /// Its built-in main loop writes nothing by itself.
    pub fn without_tick(self) -> Self {
        self.env(TICK, "0")
    }

    /// The node id.
    pub fn node_id(&self) -> String {
        self.id.clone()
    }

    /// Where it listens.
    pub fn ip(&self) -> Ipv4Addr {
        self.place.as_ref().map_or(Ipv4Addr::LOCALHOST, |place| place.ip)
    }

    /// Elects in this etcd cluster, with its client certificate if it has one.
    pub fn etcd(self, etcd: &EtcdCluster) -> Self {
        let addresses = (0..etcd.size()).map(|i| etcd.addr(i));
        self.etcd_behind(etcd, addresses)
    }

    /// The same at these addresses, such as those of proxies.
    pub fn etcd_behind(mut self, etcd: &EtcdCluster, addresses: impl Iterator<Item = SocketAddr>) -> Self {
        self.elects_in = Some((etcd.dir.path().into(), etcd.was_restored.clone()));
        match etcd.tls() {
            None => self.endpoints(addresses),
            Some(tls) => self
                .endpoints(addresses.map(|address| format!("https://{address}")))
                .env("METAD_STORE__ETCD__CA_FILE", &tls.ca)
                .env("METAD_STORE__ETCD__CERT_FILE", &tls.cert)
                .env("METAD_STORE__ETCD__KEY_FILE", &tls.key),
        }
    }

    /// Elects in etcd behind these endpoints, such as those of proxies.
    pub fn endpoints<E: ToString>(self, endpoints: impl IntoIterator<Item = E>) -> Self {
        let endpoints: Vec<_> = endpoints.into_iter().map(|endpoint| endpoint.to_string()).collect();
        self.arg("--etcd-endpoints").arg(endpoints.join(","))
    }

    /// Elects in this SQLite file.
    pub fn sqlite(self, file: impl AsRef<Path>) -> Self {
        self.arg("--store").arg("sqlite").env("METAD_STORE__SQLITE__PATH", file.as_ref())
    }

    /// The cluster's name; `default` unless set.
    pub fn cluster(mut self, cluster: &str) -> Self {
        self.cluster = cluster.into();
        self
    }

    /// `meta_leader_lease_secs`.
    pub fn lease_secs(mut self, secs: u64) -> Self {
        self.lease_secs = secs;
        self
    }

    /// Another data dir than the builder's own.
    pub fn data_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.data_dir = dir.into();
        self
    }

    /// One more argument.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// One more environment variable; those of the test that begin with `METAD_` are not passed on.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Runs this command as the main loop: `metad run … -- CMD` instead of `metad serve`.
    pub fn payload<W: AsRef<OsStr>>(mut self, command: &[W]) -> Self {
        self.payload = command.iter().map(OsString::from).collect();
        self
    }

    /// Runs it on this machine instead of the test's own.
    pub fn place(mut self, place: &Place) -> Self {
        self.place = Some(place.clone());
        self
    }

    /// How many files it may open: the hard limit.
    pub fn descriptors(mut self, limit: u64) -> Self {
        self.descriptors = Some(limit);
        self
    }

    /// Starts a process of this node. Does not wait until it listens.
    pub fn spawn(&self) -> Node {
        let is_secured = self.env.iter().any(|(name, _)| name == "METAD_TLS__CA_FILE");
        match papers::all_nodes_are_secured() && !is_secured {
            true => papers::common().of(self.clone()).spawn(),
            false => self.launch(self.command(), self.is_traced),
        }
    }

    /// Starts another program than metad as a process of this node. It finds id, data dir, cluster, lease and
    /// addresses in its environment, as metad would; what [`arg`](Self::arg) added it is not told.
    pub fn spawn_program(&self, mut program: Command) -> Node {
        spawn::remove_env(&mut program, "METAD_");
        program.env("METAD_NODE__ID", &self.id);
        program.env("METAD_NODE__DATA_DIR", &self.data_dir);
        program.env("METAD_NODE__CLUSTER", &self.cluster);
        program.env("METAD_META__META_LEADER_LEASE_SECS", self.lease_secs.to_string());
        program.env("METAD_RPC__LISTEN_ADDR", "127.0.0.1:0").env("METAD_HTTP__LISTEN_ADDR", "127.0.0.1:0");
        self.launch(program, false)
    }

    fn launch(&self, mut command: Command, traced: bool) -> Node {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        witness::start();
        let marker = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let trace = self.dir.path().join(format!("trace-{marker}.jsonl"));
        command.env(MARKER, &marker);
        if traced {
            command.env("METAD_TRACE", &trace);
        }
        command.envs(self.env.iter().cloned()).current_dir(self.dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(place) = &self.place {
            place.enter(&mut command);
        }
        if let Some(limit) = self.descriptors {
            spawn::limit_descriptors(&mut command, limit);
        }
        let election = self.elects_in.clone().map(|(etcd, was_restored)| Election {
            etcd,
            cluster: self.cluster.clone(),
            was_restored,
        });
        let child = spawn::spawn(command).expect("metad starts");
        let pid = child.id();
        let raw = Pid::from_raw(pid as i32).expect("a process id");
        let pidfd = pidfd_open(raw, PidfdFlags::empty()).expect("a pidfd of a child");
        Node {
            id: self.id.clone(),
            pid,
            pidfd,
            marker,
            data_dir: self.data_dir.clone(),
            output: Output::follow(child),
            killed_ns: AtomicU64::new(u64::MAX),
            paused_ns: AtomicU64::new(u64::MAX),
            trace: traced.then_some(trace),
            election,
            _dir: self.dir.clone(),
        }
    }

    fn command(&self) -> Command {
        let mut command = self.program.as_deref().map_or_else(spawn::metad_command, spawn::command_of);
        command.arg(if self.payload.is_empty() { "serve" } else { "run" });
        command.arg("--node-id").arg(&self.id);
        command.arg("--data-dir").arg(&self.data_dir);
        let ip = self.ip();
        command.args(["--listen-addr", &format!("{ip}:0"), "--http-addr", &format!("{ip}:0")]);
        if !ip.is_loopback() {
            command.arg("--insecure");
        }
        command.arg("--events").arg("--cluster").arg(&self.cluster);
        command.arg("--meta-leader-lease-secs").arg(self.lease_secs.to_string());
        command.args(&self.args);
        if !self.payload.is_empty() {
            command.arg("--").args(&self.payload);
        }
        command
    }
}

// === impl Node ===

impl Node {
    /// The node id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The data dir.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Where gRPC is served; waits until it is.
    #[track_caller]
    pub fn rpc_addr(&self) -> SocketAddr {
        self.listening("rpc")
    }

    /// Where the probes, metrics and the page are served; waits until they are.
    #[track_caller]
    pub fn http_addr(&self) -> SocketAddr {
        self.listening("http")
    }

    /// All events so far.
    pub fn events(&self) -> Vec<TimedEvent> {
        self.output.now().events.clone()
    }

    /// Has there been an event of this type?
    pub fn has_event(&self, kind: &str) -> bool {
        self.output.now().events.iter().any(|event| event.kind() == kind)
    }

    /// What stdout carried besides events, such as the payload's output.
    pub fn stdout(&self) -> String {
        self.output.now().stdout.join("\n")
    }

    /// The log so far.
    pub fn stderr(&self) -> String {
        self.output.now().stderr.join("\n")
    }

    /// The messages in it, as people read them: without the escapes of JSON.
    pub fn messages(&self) -> String {
        self.stderr().replace("\\\"", "\"").replace("\\n", "\n")
    }

    /// The first event, old or new, that `wanted` accepts. Panics with the ends of both logs after `timeout`,
    /// or at once when the process has ended without it.
    #[track_caller]
    pub fn wait_event(&self, wanted: impl Fn(&TimedEvent) -> bool, timeout: Duration) -> TimedEvent {
        let Some(event) = self.find_event(wanted, timeout) else {
            panic!("no such event within {timeout:?}: {}", self.report());
        };
        event
    }

    /// The first event of this type; panics as [`wait_event`](Self::wait_event) does.
    #[track_caller]
    pub fn wait_for(&self, kind: &str, timeout: Duration) -> TimedEvent {
        let Some(event) = self.find_event(|event| event.kind() == kind, timeout) else {
            panic!("no {kind} within {timeout:?}: {}", self.report());
        };
        event
    }

    /// Waits for the end of the process and its output. The exit code, 128 + n for an end by signal n.
    #[track_caller]
    pub fn wait_exit(&self, timeout: Duration) -> i32 {
        let Some(exit) = self.output.wait(timeout, |said| said.exit.filter(|_| said.is_over())) else {
            panic!("no end within {timeout:?}: {}", self.report());
        };
        exit.code
    }

    /// Does the process run (or stand still, paused)?
    pub fn is_alive(&self) -> bool {
        self.output.now().exit.is_none()
    }

    /// Sends a signal; a process that has ended gets none.
    pub fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.pidfd, signal);
    }

    /// Stops the process, not its guardian, with SIGSTOP. Returns when it stands still.
    #[track_caller]
    pub fn pause(&self) {
        self.signal(Signal::STOP);
        spawn::wait_stopped(self.pid);
        self.paused_ns.store(boot_ns(), Ordering::Relaxed);
    }

    /// Lets it go on after [`pause`](Self::pause).
    pub fn resume(&self) {
        if spawn::stands_still(self.pid) {
            self.paused_ns.store(u64::MAX, Ordering::Relaxed);
        }
        self.signal(Signal::CONT);
    }

    /// Kills the process, not its guardian, with SIGKILL, and waits for its end.
    #[track_caller]
    pub fn kill(&self) {
        // Stamped before the signal: whatever the death sets free happens after this instant.
        self.killed_ns.fetch_min(boot_ns(), Ordering::Relaxed);
        self.signal(Signal::KILL);
        self.wait_exit(KILL_TIMEOUT);
    }

    /// The init above it, if it is started under one.
    #[track_caller]
    pub fn init(&self) -> u32 {
        let is_init = |pid: &u32| spawn::name_and_parent(*pid).0 == "metad: init";
        self.tree().into_iter().find(is_init).unwrap_or_else(|| panic!("no init: {}", self.report()))
    }

    /// Kills a process of this node, with which its main loop ends: whoever was started first may outlive that one.
    pub fn kill_within(&self, pid: u32) {
        self.killed_ns.fetch_min(boot_ns(), Ordering::Relaxed);
        spawn::signal(pid, Signal::KILL);
    }

    /// Kills the process and its guardian, so that neither sees the other's end.
    #[track_caller]
    pub fn kill_with_guardian(&self) {
        self.pause(); // it starts no other guardian now
        let others = self.tree().into_iter().filter(|pid| *pid != self.pid);
        others.for_each(|pid| spawn::signal(pid, Signal::KILL));
        self.kill();
    }

    /// When the test was told of the process's end, on `CLOCK_BOOTTIME`; `None` while it lives.
    pub fn ended_ns(&self) -> Option<u64> {
        Some(self.output.now().exit?.seen_ns)
    }

    /// When the process died, on `CLOCK_BOOTTIME`, or when it did its last thing, if it died standing still.
    pub fn died_ns(&self) -> Option<u64> {
        let exit = self.output.now().exit?;
        let stamps = [&self.killed_ns, &self.paused_ns].map(|at| at.load(Ordering::Relaxed));
        Some(stamps.into_iter().fold(exit.seen_ns, u64::min))
    }

    /// The living processes of this node: itself, its guardian, the payload and their descendants.
    pub fn tree(&self) -> Vec<u32> {
        let mark = format!("{MARKER}={}", self.marker);
        let is_marked = |pid: &u32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|&byte| byte == 0).any(|variable| variable == mark.as_bytes())
        };
        let processes = fs::read_dir("/proc").expect("/proc is mounted").flatten();
        processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_marked).collect()
    }

    /// Its guardian, once there is one.
    #[track_caller]
    pub fn guardian(&self) -> u32 {
        let mut found = None;
        wait_until("a guardian", LISTEN_TIMEOUT, || {
            found = self
                .tree()
                .into_iter()
                .find(|pid| spawn::name_and_parent(*pid) == (GUARDIAN.into(), self.pid));
            found.is_some()
        });
        found.expect("just found")
    }

    /// What [`history::check`](super::history::check) needs to know about this process.
    pub fn trace(&self) -> Trace {
        let label = format!("{} (pid {})", self.id, self.pid);
        Trace { label, events: self.events(), died_ns: self.died_ns() }
    }

    /// Where its elector's trace is ([`traces`]), if it leaves one.
    pub fn trace_file(&self) -> Option<&Path> {
        self.trace.as_deref()
    }

    /// The ends of both logs, for messages.
    pub fn report(&self) -> String {
        format!("node {} (pid {}): {}", self.id, self.pid, self.output.now().report())
    }

    fn find_event(&self, wanted: impl Fn(&TimedEvent) -> bool, timeout: Duration) -> Option<TimedEvent> {
        let find = |said: &Said| said.events.iter().find(|event| wanted(event)).cloned();
        let decided = |said: &Said| find(said).map(Some).or(said.is_over().then_some(None));
        self.output.wait(timeout, decided).flatten()
    }

    #[track_caller]
    fn listening(&self, server: &str) -> SocketAddr {
        let event = self.wait_for("listening", LISTEN_TIMEOUT);
        event.str(server).parse().unwrap_or_else(|_| panic!("no {server} address in {}", event.json))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.report());
        }
        self.signal(Signal::KILL);
        holds_within(KILL_TIMEOUT, || {
            let left = self.tree();
            left.iter().for_each(|&pid| spawn::signal(pid, Signal::KILL));
            left.is_empty()
        });
        if let Some(trace) = &self.trace {
            traces::check(trace, self.election.as_ref(), self.has_event("joined"));
        }
    }
}
