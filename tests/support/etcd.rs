//! Real etcd clusters on loopback, whose members can be paused, killed and restarted.
//!
//! Peers talk plain HTTP also when clients must use TLS. Each member has a third, plain port for `/health`
//! and `/metrics`, so that looking at a cluster needs neither certificates nor a password.

use std::fs::{self, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;

use super::install::EtcdInstall;
use super::member::Member;
use super::network::Place;
use super::poll::holds_within;
use super::tls::TlsFiles;
use super::{http, spawn};

const START_TIMEOUT: Duration = Duration::from_secs(60);
const PORT_TAKEN: &str = "address already in use";

/// What a cluster is to be like; made by [`EtcdCluster::builder`].
#[derive(Clone, Debug)]
pub struct EtcdBuilder {
    members: usize,
    args: Vec<String>,
    tls: bool,
    syncs: bool,
    places: Vec<Place>,
    first: Option<usize>,
    restores: bool,
}

/// A running cluster, killed on drop.
#[derive(Debug)]
pub struct EtcdCluster {
    members: Vec<Member>,
    pub(super) install: EtcdInstall,
    args: Vec<String>,
    syncs: bool,
    pub(super) tls: Option<TlsFiles>,
    /// `root:password`, once authentication is on.
    pub(super) root: Mutex<Option<String>>,
    /// What a new cluster's id is made from, besides its addresses.
    pub(super) token: Mutex<String>,
    /// The member that is a cluster of its own.
    alone: Mutex<Option<usize>>,
    /// Has it got another past, or were there two clusters for a while?
    pub(super) was_restored: Arc<AtomicBool>,
    pub(super) dir: TempDir,
}

// === impl EtcdBuilder ===

impl EtcdBuilder {
    /// How many members; one unless said otherwise.
    pub fn members(mut self, members: usize) -> Self {
        self.members = members;
        self
    }

    /// One more flag for every member; it overrides a flag of the same name given before.
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Makes the members demand TLS with a client certificate; see [`EtcdCluster::tls`].
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Makes the members wait for the disk, as they do outside of tests; those that can are told not to otherwise.
    pub fn syncs(mut self) -> Self {
        self.syncs = true;
        self
    }

    /// One member on each of these machines.
    pub fn places(mut self, places: Vec<Place>) -> Self {
        self.members = places.len();
        self.places = places;
        self
    }

    /// An etcd whose etcdctl can restore a snapshot for it.
    pub fn restores(mut self) -> Self {
        self.restores = true;
        self
    }

    /// Starts only the first `first` members, and does not wait for them: see [`EtcdCluster::restart`].
    pub fn only_first(mut self, first: usize) -> Self {
        self.first = Some(first);
        self
    }

    /// Starts the cluster and waits until every member is healthy. Panics when that fails.
    #[track_caller]
    pub fn start(self) -> EtcdCluster {
        for _ in 0..4 {
            let cluster = self.create();
            match cluster.try_start(self.first) {
                Ok(()) => return cluster,
                Err(why) if why.contains(PORT_TAKEN) => {}
                Err(why) => panic!("{why}"),
            }
        }
        panic!("etcd found one of its ports taken, four times over");
    }

    fn create(&self) -> EtcdCluster {
        assert!(self.members >= 1, "a cluster has a member");
        let dir = tempfile::Builder::new().prefix("metad-etcd-").tempdir().expect("a temporary directory");
        EtcdCluster {
            members: (0..self.members).map(|i| Member::new(i, self.places.get(i).cloned())).collect(),
            install: if self.restores { EtcdInstall::that_restores() } else { EtcdInstall::find() },
            args: self.args.clone(),
            syncs: self.syncs,
            tls: self.tls.then(|| TlsFiles::create(&dir.path().join("tls"))),
            root: Mutex::new(None),
            token: Mutex::new("first".into()),
            alone: Mutex::new(None),
            was_restored: Arc::default(),
            dir,
        }
    }
}

// === impl EtcdCluster ===

impl EtcdCluster {
    /// Starts a plain cluster of `members`.
    #[track_caller]
    pub fn start(members: usize) -> Self {
        Self::builder().members(members).start()
    }

    /// Describes a cluster step by step.
    pub fn builder() -> EtcdBuilder {
        let (args, places) = (Vec::new(), Vec::new());
        EtcdBuilder { members: 1, args, tls: false, syncs: false, places, first: None, restores: false }
    }

    /// How many members there are, running or not.
    pub fn size(&self) -> usize {
        self.members.len()
    }

    /// The clients' address of member `i`.
    pub fn addr(&self, i: usize) -> SocketAddr {
        self.members[i].client_addr()
    }

    /// Where member `i` serves its metrics in plain HTTP.
    pub fn metrics_addr(&self, i: usize) -> SocketAddr {
        self.members[i].metrics_addr()
    }

    /// The program.
    pub fn program(&self) -> &std::path::Path {
        &self.install.etcd
    }

    /// The clients' address of member `i` as `127.0.0.1:port`.
    pub fn endpoint(&self, i: usize) -> String {
        self.addr(i).to_string()
    }

    /// All members' addresses as `127.0.0.1:port`.
    pub fn endpoints(&self) -> Vec<String> {
        (0..self.size()).map(|i| self.endpoint(i)).collect()
    }

    /// All members' addresses with `http://` or `https://`.
    pub fn urls(&self) -> Vec<String> {
        self.members.iter().map(|member| self.client_url(member)).collect()
    }

    /// The certificates, if the cluster was built with [`EtcdBuilder::tls`].
    pub fn tls(&self) -> Option<&TlsFiles> {
        self.tls.as_ref()
    }

    /// The version of etcd, such as `3.4.23`.
    pub fn version(&self) -> &str {
        &self.install.version
    }

    /// Is this etcd `major.minor` or newer?
    pub fn is_at_least(&self, major: u32, minor: u32) -> bool {
        self.install.is_at_least(major, minor)
    }

    /// How often member `i` has been asked this, such as `LeaseKeepAlive`, since it started.
    pub fn calls(&self, i: usize, method: &str) -> u64 {
        let of_it = format!("grpc_method=\"{method}\"");
        self.samples(i, |l| l.starts_with("grpc_server_started_total") && l.contains(&of_it)) as u64
    }

    /// A metric of member `i` that has no labels.
    pub fn metric(&self, i: usize, name: &str) -> f64 {
        self.samples(i, |l| l.split(' ').next() == Some(name))
    }

    /// Its revision.
    pub fn revision(&self) -> u64 {
        self.metric(0, "etcd_debugging_mvcc_current_revision") as u64
    }

    /// The sum of these samples of member `i`.
    fn samples(&self, i: usize, is_one: impl Fn(&str) -> bool) -> f64 {
        let page = http::get(self.members[i].metrics_addr(), "/metrics", START_TIMEOUT);
        let (_, page) = page.unwrap_or_else(|why| panic!("no metrics of etcd: {why}"));
        let samples = page.lines().filter(|l| is_one(l));
        samples.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// The process id of member `i`, which must be running.
    pub fn pid(&self, i: usize) -> u32 {
        self.members[i].pid().expect("the member runs")
    }

    /// Stops member `i` with SIGSTOP: its sockets stay open and nobody answers. Returns when it stands still.
    #[track_caller]
    pub fn pause(&self, i: usize) {
        self.members[i].set_paused(true);
        self.members[i].wait_paused();
    }

    /// Lets member `i` go on after [`pause`](Self::pause).
    pub fn resume(&self, i: usize) {
        self.members[i].set_paused(false);
    }

    /// Stops all members with SIGSTOP. Returns when they stand still.
    #[track_caller]
    pub fn pause_all(&self) {
        self.members.iter().for_each(|member| member.set_paused(true));
        self.members.iter().for_each(Member::wait_paused);
    }

    /// Lets all members go on.
    pub fn resume_all(&self) {
        self.members.iter().for_each(|member| member.set_paused(false));
    }

    /// Kills member `i` with SIGKILL; its data stays.
    pub fn kill(&self, i: usize) {
        self.members[i].kill();
    }

    /// Starts member `i` again on its data and ports, killing it first if it runs. Does not wait for it.
    pub fn restart(&self, i: usize) {
        self.kill(i);
        self.spawn(i).unwrap_or_else(|why| panic!("{why}"));
    }

    /// Waits until every member that runs and is not paused is healthy, which takes a quorum.
    #[track_caller]
    pub fn wait_healthy(&self) {
        if let Err(why) = self.try_wait_healthy() {
            panic!("{why}");
        }
    }

    /// The index of the raft leader; waits for one that a majority follows, without which it panics.
    #[track_caller]
    pub fn leader(&self) -> usize {
        let mut leader = None;
        holds_within(START_TIMEOUT, || {
            leader = self.leader_now();
            leader.is_some()
        });
        leader.expect("etcd has a leader in time")
    }

    /// How many elections its members have won.
    pub fn elections(&self) -> usize {
        (0..self.size()).map(|i| self.whole_log(i).matches("became leader at term").count()).sum()
    }

    /// The end of member `i`'s log.
    pub fn log(&self, i: usize) -> String {
        let log = self.whole_log(i);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    fn whole_log(&self, i: usize) -> String {
        fs::read_to_string(self.log_path(&self.members[i])).unwrap_or_default()
    }
}

/// Starting and looking at members.
impl EtcdCluster {
    fn try_start(&self, first: Option<usize>) -> Result<(), String> {
        (0..first.unwrap_or(self.size())).try_for_each(|i| self.spawn(i))?;
        if first.is_some() { Ok(()) } else { self.try_wait_healthy() }
    }

    fn try_wait_healthy(&self) -> Result<(), String> {
        let is_settled = |member: &Member| !member.is_active() || member.is_healthy();
        let mut result = Ok(());
        let decided = holds_within(START_TIMEOUT, || {
            result = (0..self.size()).try_for_each(|i| self.check_alive(i));
            result.is_err() || self.members.iter().all(is_settled)
        });
        if decided {
            return result;
        }
        let logs: Vec<_> = (0..self.size()).map(|i| self.log(i)).collect();
        Err(format!("etcd not healthy after {START_TIMEOUT:?}:\n{}", logs.join("\n---\n")))
    }

    fn check_alive(&self, i: usize) -> Result<(), String> {
        let member = &self.members[i];
        match member.ended() {
            Some(status) => Err(format!("etcd member {i} ended with {status}:\n{}", self.log(i))),
            None => Ok(()),
        }
    }

    fn leader_now(&self) -> Option<usize> {
        let active = (0..self.size()).filter(|&i| self.members[i].is_active());
        let views: Vec<_> = active.filter_map(|i| Some((i, self.members[i].raft_view()?))).collect();
        let following = views.iter().filter(|(_, view)| view.has_leader).count();
        let mut leaders = views.iter().filter(|(_, view)| view.is_leader);
        // Two at once: one was paused and does not know yet that it was replaced.
        let (Some((leader, _)), None) = (leaders.next(), leaders.next()) else {
            return None;
        };
        (following > self.size() / 2).then_some(*leader)
    }

    fn spawn(&self, i: usize) -> Result<(), String> {
        let member = &self.members[i];
        let log = OpenOptions::new().create(true).append(true).open(self.log_path(member));
        let log = log.expect("a log file");
        let mut command = self.etcd_command(member);
        if let Some(place) = &member.place {
            place.enter(&mut command);
        }
        command.stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a second handle")).stderr(log);
        let child = spawn::spawn(command).map_err(|error| format!("cannot start etcd: {error}"))?;
        member.adopt(child);
        Ok(())
    }

    fn etcd_command(&self, member: &Member) -> Command {
        let client = self.client_url(member);
        let data_dir = self.data_dir().join(&member.name).display().to_string();
        let metrics = format!("http://{}", member.metrics_addr());
        let alone =
            self.alone.lock().expect("not poisoned").is_some_and(|i| self.members[i].name == member.name);
        let peers = if alone { peer_of(member) } else { self.peers() };
        let flags = [
            ("--name", member.name.clone()),
            ("--data-dir", data_dir),
            ("--listen-client-urls", client.clone()),
            ("--advertise-client-urls", client),
            ("--listen-peer-urls", member.peer_url()),
            ("--initial-advertise-peer-urls", member.peer_url()),
            ("--initial-cluster", peers),
            ("--initial-cluster-token", self.token.lock().expect("not poisoned").clone()),
            ("--listen-metrics-urls", metrics),
            ("--heartbeat-interval", "100".into()),
            ("--election-timeout", "1000".into()),
            ("--logger", "zap".into()),
        ];
        let mut command = Command::new(&self.install.etcd);
        spawn::remove_env(&mut command, "ETCD_");
        command.args(flags.map(|(flag, value)| format!("{flag}={value}")));
        if self.is_at_least(3, 5) && !self.syncs {
            command.arg("--unsafe-no-fsync");
        }
        if let Some(tls) = &self.tls {
            command.arg("--client-cert-auth");
            command.arg("--trusted-ca-file").arg(&tls.ca);
            command.arg("--cert-file").arg(&tls.server_cert);
            command.arg("--key-file").arg(&tls.server_key);
        }
        command.args(&self.args);
        command
    }

    /// Makes the data of member `i` from a snapshot.
    pub(super) fn restore_command(&self, i: usize, snapshot: &Path) -> Command {
        let member = &self.members[i];
        let mut command = Command::new(&self.install.etcdctl);
        command.env("ETCDCTL_API", "3").args(["snapshot", "restore"]).arg(snapshot);
        command.arg("--name").arg(&member.name);
        command.arg("--data-dir").arg(self.data_dir().join(&member.name));
        command.arg("--initial-cluster").arg(self.peers());
        command.arg("--initial-cluster-token").arg(&*self.token.lock().expect("not poisoned"));
        command.arg("--initial-advertise-peer-urls").arg(member.peer_url());
        command
    }

    /// Member `i` is a cluster of its own from its next start on.
    pub(super) fn set_alone(&self, i: usize) {
        *self.alone.lock().expect("not poisoned") = Some(i);
    }

    pub(super) fn member_name(&self, i: usize) -> &str {
        &self.members[i].name
    }

    fn peers(&self) -> String {
        self.members.iter().map(peer_of).collect::<Vec<_>>().join(",")
    }

    fn client_url(&self, member: &Member) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", member.client_addr())
    }

    /// Holds one folder for each member.
    pub(super) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn log_path(&self, member: &Member) -> PathBuf {
        self.dir.path().join(format!("{}.log", member.name))
    }
}

fn peer_of(member: &Member) -> String {
    format!("{}={}", member.name, member.peer_url())
}

impl Drop for EtcdCluster {
    fn drop(&mut self) {
        self.members.iter().for_each(Member::kill);
    }
}
