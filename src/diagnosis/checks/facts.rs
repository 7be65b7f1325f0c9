//! What the checks judge: plain values, as they were asked for and measured.

use std::collections::BTreeSet;
use std::time::Duration;

use super::changes::Change;
use super::page::{Etcd, Learned};
use crate::config::Config;
use crate::diagnosis::advice::LeaseAdvice;
use crate::election::record::{Foreign, Freeze};
use crate::store::etcd::inspect::ListedMember;
use crate::store::probe::{MemberStatus, Probe};

/// After so many revisions somebody should have compacted.
pub const REVISIONS_MAX: u64 = 50_000;
/// etcd's own elections before this do not count any more.
pub const ELECTIONS_WINDOW: Duration = Duration::from_secs(15 * 60);

/// All facts of one examination. What was not asked for is absent.
#[derive(Clone, Debug)]
pub struct Facts {
    /// How this node is configured.
    pub config: Config,
    /// What the configuration itself warns of.
    pub warnings: Vec<String>,
    /// Why it cannot be used at all: a certificate or a password that cannot be read.
    pub unusable: Option<String>,
    /// The etcd cluster.
    pub etcd: Option<EtcdFacts>,
    /// The meta nodes.
    pub meta: Option<MetaFacts>,
    /// This machine.
    pub host: Option<HostFacts>,
    /// What a running node knows of the past.
    pub past: Option<PastFacts>,
}

/// The etcd cluster, asked member by member.
#[derive(Clone, Debug, Default)]
pub struct EtcdFacts {
    /// The configured endpoints, in their order.
    pub endpoints: Vec<EndpointFacts>,
    /// Who belongs to the cluster, as the member that knows best says.
    pub members: Option<Vec<ListedMember>>,
    /// Voters that no configured endpoint leads to, and whether they answer at an address of their own.
    pub others: Vec<(String, bool)>,
    /// Linearizable writes: how long each took, or why one failed. `None`: not tried.
    pub writes: Option<Result<Vec<Duration>, String>>,
    /// What a lease of 1 s was granted as. `None`: not tried.
    pub shortest_lease: Option<Result<Duration, String>>,
    /// Is the first revision still readable? `None`: not asked.
    pub never_compacted: Option<bool>,
    /// By how much the number of etcd's own elections has grown, and in how long. `None`: it was seen once only.
    pub elections: Option<(f64, Duration)>,
    /// How many writes etcd made in a second, between the two looks.
    pub writes_per_sec: Option<f64>,
    /// The longest request that a member accepts.
    pub request_bytes_max: Option<u64>,
}

/// One configured endpoint.
#[derive(Clone, Debug)]
pub struct EndpointFacts {
    /// What a look at it has shown.
    pub probe: Probe,
    /// How long reads took that the member answers by itself.
    pub reads: Vec<Duration>,
    /// Its metrics page, or why there is none.
    pub page: Result<Etcd, String>,
    /// The page some time before, and how long ago that was.
    pub page_before: Option<(Etcd, Duration)>,
    /// What `/debug/vars` tells of its command line.
    pub learned: Option<Learned>,
}

/// The meta nodes: who is registered, and what each one answers.
#[derive(Clone, Debug, Default)]
pub struct MetaFacts {
    /// Who is registered, in the store or, where that cannot be asked, as a member says. `None`: nobody could say.
    pub registered: Option<Vec<Registered>>,
    /// Whom the leader record in the store names, and its token. `None`: nobody, or the store was not asked.
    pub leader: Option<(String, u64)>,
    /// A key where only the leader record belongs.
    pub foreign: Option<Foreign>,
    /// The freeze, if the election is frozen.
    pub freeze: Option<Freeze>,
    /// Was the election read from the store? Else `leader`, `foreign` and `freeze` say nothing.
    pub is_read: bool,
    /// Who has ever led, as far as the history is known.
    pub led: BTreeSet<String>,
    /// What the members answered, each at its address.
    pub answers: Vec<MemberAnswer>,
}

/// A registered member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Its node id.
    pub node: String,
    /// Its data dir.
    pub uuid: String,
    /// Its gRPC address.
    pub address: String,
    /// Its version.
    pub version: String,
    /// The lease it asks for.
    pub ttl: Duration,
    /// Its start number.
    pub incarnation: u64,
}

/// One address that was asked.
#[derive(Clone, Debug)]
pub struct MemberAnswer {
    /// The address.
    pub address: String,
    /// What was answered.
    pub seen: Result<Seen, String>,
}

/// What a member answers.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its node id.
    pub node: String,
    /// What it is.
    pub role: String,
    /// Who leads in its eyes, under which token.
    pub leader: Option<(String, u64)>,
    /// The foreign candidate that it sees.
    pub foreign: Option<Foreign>,
    /// The freeze that it sees.
    pub freeze: Option<Freeze>,
    /// What its probe has measured, while that fails.
    pub probe: Option<String>,
    /// Why its main loop is not ready, while it is not.
    pub unready: Option<String>,
    /// How old its view is.
    pub age: Duration,
    /// Is it older than the lease, so that it says nothing any more?
    pub is_outdated: bool,
    /// For how long nobody has led, if nobody does and it has seen the last leader go.
    pub vacant_for: Option<Duration>,
    /// Whom it has seen go within the last hour.
    pub gone: Vec<String>,
    /// By how much its wall clock is ahead of ours, in milliseconds.
    pub ahead_ms: f64,
    /// The round trip of that measurement: the error is at most half of it.
    pub rtt: Duration,
    /// What it found itself.
    pub findings: Vec<super::Finding>,
    /// How long ago it last looked at everything.
    pub looked_ago: Duration,
    /// What it says of its own process, if it has looked.
    pub burden: Option<Burden>,
}

/// What a meta node says of its own process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Burden {
    /// How much of one CPU it used since its last look, in percent.
    pub cpu_percent: f64,
    /// Its resident memory, in bytes.
    pub rss_bytes: u64,
    /// The least part of the lease that was left lately; `None` while it does not lead.
    pub headroom: Option<f64>,
}

/// This machine.
#[derive(Clone, Debug, Default)]
pub struct HostFacts {
    /// Where the data dir is, or would be.
    pub data_dir: String,
    /// Its mode; `None`: it is not there, or cannot be looked at.
    pub data_dir_mode: Option<u32>,
    /// How long syncing to its disk took.
    pub syncs: Syncs,
    /// Is it on a network file system?
    pub network_fs: Option<&'static str>,
    /// Free and total bytes of its file system.
    pub disk: Option<(u64, u64)>,
    /// Percent of the last ten seconds in which something waited for the CPU, and for the disk.
    pub pressure: Option<(f64, f64)>,
    /// Percent of the scheduling periods in which the cgroup was throttled.
    pub throttled: Option<f64>,
    /// How late timers fire, the slowest of some.
    pub timer_delay: Option<Duration>,
    /// What the stalls that the data dir has recorded say about the lease; or why they cannot be read.
    pub lease_advice: Option<Result<LeaseAdvice, String>>,
    /// What only the node's own process can see of itself.
    pub own: Option<OwnFacts>,
}

/// Writing to the data dir's disk.
#[derive(Clone, Debug, Default)]
pub enum Syncs {
    /// Nobody was to write, or there is nothing yet.
    #[default]
    NotTried,
    /// Whoever asks may not write there; the node's own user may.
    Denied(String),
    /// It does not work.
    Failed(String),
    /// How long each took.
    Took(Vec<Duration>),
}

/// A node's own process: another one on the same machine has other limits.
#[derive(Clone, Copy, Debug, Default)]
pub struct OwnFacts {
    /// The most file descriptors that it may open.
    pub fd_limit: u64,
    /// Time after which systemd kills it unless it gives signs of life.
    pub watchdog: Option<Duration>,
}

/// What a running node knows of the past.
#[derive(Clone, Debug, Default)]
pub struct PastFacts {
    /// When this was asked, in milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// The changes of the leader that the history tells of.
    pub changes: Vec<Change>,
    /// When which node appeared, in milliseconds since the Unix epoch.
    pub starts: Vec<(u64, String)>,
    /// How long there has been no leader.
    pub leaderless: Option<Duration>,
    /// The longest that its clock stood still beyond its sleep, since the last look.
    pub stood_still: Duration,
    /// The least part of the lease that was left lately. `None` while it does not lead.
    pub headroom: Option<f64>,
}

// === impl Facts ===

impl Facts {
    /// Only the configuration is known.
    pub fn of(config: Config, warnings: Vec<String>) -> Self {
        Self { config, warnings, unusable: None, etcd: None, meta: None, host: None, past: None }
    }

    /// The configured lease.
    pub fn ttl(&self) -> Duration {
        Duration::from_secs(self.config.meta.meta_leader_lease_secs)
    }

    /// Is the store etcd?
    pub fn is_etcd(&self) -> bool {
        self.config.store.is_etcd()
    }

    /// How many members there are: registered, or expected, whatever is more. `None`: nobody knows.
    pub fn members(&self) -> Option<usize> {
        let expected = usize::try_from(self.config.checks.expected_members).unwrap_or(0);
        let registered = self.meta.as_ref().and_then(|m| m.registered.as_ref()).map(Vec::len);
        Some(expected.max(registered.unwrap_or(0))).filter(|n| *n > 0)
    }
}

// === impl EtcdFacts ===

impl EtcdFacts {
    /// The endpoints that answer, with what they say.
    pub fn answering(&self) -> impl Iterator<Item = (&EndpointFacts, &MemberStatus)> {
        self.endpoints.iter().filter_map(|e| Some((e, e.probe.says()?)))
    }

    /// Has a majority of its members answered us?
    pub fn decides(&self) -> bool {
        self.endpoints.iter().any(|e| e.probe.decided.is_ok()) || matches!(self.writes, Some(Ok(_)))
    }

    /// What to call an endpoint: the member's name if it is known, and the URL.
    pub fn name_of(&self, endpoint: &EndpointFacts) -> String {
        let (url, id) = (&endpoint.probe.place, endpoint.probe.says().map(|s| s.member));
        let listed = self.members.iter().flatten().find(|m| Some(m.id) == id);
        listed.map_or_else(|| url.clone(), |m| format!("{} ({url})", m.name))
    }
}
