//! The one list of checks. `src/docs/checks.md` shows it to operators, and a test compares the two.

use super::facts::Facts;
use super::{Judgement, judge};

/// A check: what it is called, why it is made, and the function that judges the facts.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// The code, such as `ETCD_005`. It never changes its meaning.
    pub code: &'static str,
    /// The name for a command line.
    pub name: &'static str,
    /// What is checked, in a few words.
    pub title: &'static str,
    /// Why it matters.
    pub why: &'static str,
    /// Where it belongs.
    pub group: Group,
    /// Only a running node knows, by its past or of its own process; others ask one.
    pub asks_a_node: bool,
    /// Judges.
    pub judge: fn(&Facts) -> Judgement,
}

/// The groups, in the order in which they are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// The configuration.
    Config,
    /// This machine.
    Host,
    /// Who leads.
    Leader,
    /// The meta nodes.
    Cluster,
    /// The etcd cluster.
    Etcd,
    /// The lease.
    Lease,
}

impl Group {
    /// All of them, in their order.
    pub const ALL: [Group; 6] =
        [Group::Config, Group::Host, Group::Leader, Group::Cluster, Group::Etcd, Group::Lease];

    /// Its heading.
    pub fn as_str(self) -> &'static str {
        match self {
            Group::Config => "configuration",
            Group::Host => "this machine",
            Group::Leader => "leader",
            Group::Cluster => "meta nodes",
            Group::Etcd => "etcd",
            Group::Lease => "lease",
        }
    }
}

// === impl Check ===

impl Check {
    const fn new(
        group: Group,
        (code, name): (&'static str, &'static str),
        title: &'static str,
        judge: fn(&Facts) -> Judgement,
        why: &'static str,
    ) -> Self {
        Self { code, name, title, why, group, asks_a_node: false, judge }
    }

    const fn asks_a_node(self) -> Self {
        Self { asks_a_node: true, ..self }
    }

    /// Where it is explained.
    pub fn doc(&self) -> String {
        format!("src/docs/checks.md#{}", self.code.to_lowercase())
    }

    /// Is this its code or its name?
    pub fn is_called(&self, name: &str) -> bool {
        self.code.eq_ignore_ascii_case(name) || self.name.eq_ignore_ascii_case(name)
    }
}

/// The check of this code or name.
pub fn find(name: &str) -> Option<&'static Check> {
    CHECKS.iter().find(|c| c.is_called(name))
}

/// The checks of a group.
pub fn of(group: Group) -> impl Iterator<Item = &'static Check> {
    CHECKS.iter().filter(move |c| c.group == group)
}

/// All checks, group by group.
pub static CHECKS: [Check; 45] = [
    Check::new(
        Group::Config,
        ("CONFIG_001", "config"),
        "the configuration has no ineffective value",
        judge::setup::config,
        "a value that is accepted but has no effect is usually a mistake",
    ),
    Check::new(
        Group::Config,
        ("STORE_002", "store-kind"),
        "the store suits the number of nodes",
        judge::setup::store_kind,
        "SQLite elects only among the processes of one machine: nodes on other machines would lead as well",
    ),
    Check::new(
        Group::Host,
        ("HOST_003", "cpu"),
        "enough CPU is available",
        judge::host::cpu,
        "a node starved of CPU renews its lease late, and may lose it",
    ),
    Check::new(
        Group::Host,
        ("HOST_004", "data-dir-disk"),
        "the data dir's disk has free space",
        judge::host::disk,
        "a node that cannot write its data dir cannot start",
    ),
    Check::new(
        Group::Host,
        ("HOST_005", "data-dir-sync"),
        "the data dir is on a local disk that syncs quickly",
        judge::host::sync,
        "each start waits for it; on a network file system two nodes could share a data dir",
    ),
    Check::new(
        Group::Host,
        ("HOST_007", "file-descriptors"),
        "the limit of open files is high enough",
        judge::host::files,
        "every worker and every reader is a connection; a node without free descriptors answers none",
    )
    .asks_a_node(),
    Check::new(
        Group::Host,
        ("HOST_006", "watchdog"),
        "a hung node is ended by the guardian, not by systemd's watchdog",
        judge::host::watchdog,
        "the fuse and the guardian end a hung node in time; systemd's watchdog would end a healthy one",
    )
    .asks_a_node(),
    Check::new(
        Group::Leader,
        ("LEADER_001", "leader-exists"),
        "there is a leader",
        judge::leader::exists,
        "without a leader the main loop runs on no node",
    ),
    Check::new(
        Group::Leader,
        ("LEADER_002", "leader-agreed"),
        "all members name the same leader (META_002)",
        judge::leader::agreed,
        "a member that names another leader has an outdated view of the store, and sends its clients to the \
         wrong node",
    ),
    Check::new(
        Group::Leader,
        ("LEADER_003", "leader-flapping"),
        "the leader does not change unnecessarily (META_003)",
        judge::leader::flapping,
        "each unplanned change stops the work of the whole cluster for a while",
    )
    .asks_a_node(),
    Check::new(
        Group::Leader,
        ("LEADER_004", "one-leader"),
        "at most one member leads",
        judge::leader::one,
        "of two members that claim to lead one is wrong; the fence refuses its writes, but its clients wait \
         in vain",
    ),
    Check::new(
        Group::Leader,
        ("LEADER_005", "foreign-candidate"),
        "no foreign candidate queues for the leader record",
        judge::leader::foreign,
        "while there is a key beside the leader record, no member can claim a vacancy",
    ),
    Check::new(
        Group::Cluster,
        ("CLUSTER_001", "members-online"),
        "every member is registered and answers",
        judge::cluster::online,
        "a missing member cannot take over",
    ),
    Check::new(
        Group::Cluster,
        ("CLUSTER_002", "same-settings"),
        "all members have the same settings",
        judge::cluster::settings,
        "a fail-over takes as long as the lease of the current leader",
    ),
    Check::new(
        Group::Cluster,
        ("CLUSTER_003", "same-version"),
        "all members run the same version",
        judge::cluster::versions,
        "an incomplete upgrade shows its faults when the old members are needed",
    ),
    Check::new(
        Group::Cluster,
        ("CLUSTER_004", "duplicates"),
        "no two members share a data dir or an address",
        judge::cluster::duplicates,
        "a copied data dir makes two processes one member, and each evicts the other",
    ),
    Check::new(
        Group::Cluster,
        ("CLUSTER_005", "restart-loop"),
        "no node restarts in a loop",
        judge::cluster::restarts,
        "a node that restarts in a loop takes leadership and drops it each time",
    )
    .asks_a_node(),
    Check::new(
        Group::Cluster,
        ("HOST_001", "clock-skew"),
        "the members' clocks agree",
        judge::cluster::skew,
        "logs and timelines do not line up otherwise; safety does not depend on it",
    ),
    Check::new(
        Group::Cluster,
        ("CONFIG_004", "advertised-addresses"),
        "every member is reachable at its advertised address",
        judge::cluster::addresses,
        "clients and the other members connect to the address that a member advertises",
    ),
    Check::new(
        Group::Cluster,
        ("CLUSTER_006", "member-rtt"),
        "the members answer quickly",
        judge::cluster::rtt,
        "a hand-over asks the candidates, and waits for them for 100 ms at most",
    ),
    Check::new(
        Group::Etcd,
        ("ETCD_001", "etcd-endpoints"),
        "every endpoint answers",
        judge::etcd::endpoints,
        "each one that does not answer leaves one fewer that may fail",
    ),
    Check::new(
        Group::Etcd,
        ("ETCD_002", "etcd-leader"),
        "etcd has a leader, and its members agree on it",
        judge::etcd::leader,
        "without a leader etcd decides nothing: no lease is renewed, no vacancy is claimed",
    ),
    Check::new(
        Group::Etcd,
        ("ETCD_003", "etcd-quorum"),
        "etcd has its quorum (META_006)",
        judge::etcd::quorum,
        "without a majority of its voters etcd stops, and with it every leader",
    ),
    Check::new(
        Group::Etcd,
        ("ETCD_004", "etcd-members"),
        "etcd has 3, 5 or 7 members",
        judge::etcd::members,
        "an even number survives no more failures than one member fewer; a single member survives none",
    ),
    Check::new(
        Group::Etcd,
        ("ETCD_005", "etcd-slow-fsync"),
        "etcd's log syncs quickly",
        judge::speed::fsync,
        "a slow disk makes etcd lose its leader, and metad its lease",
    ),
    Check::new(
        Group::Etcd,
        ("ETCD_006", "etcd-slow-commit"),
        "etcd's database commits quickly",
        judge::speed::commit,
        "a slow disk delays every request",
    ),
    Check::new(
        Group::Etcd,
        ("ETCD_007", "etcd-peer-rtt"),
        "the round trips between etcd's members are short",
        judge::speed::peers,
        "every write waits for a round trip between them; etcd's election timeout should be ten round trips",
    ),
    Check::new(
        Group::Etcd,
        ("ETCD_008", "etcd-rtt"),
        "etcd answers this node quickly",
        judge::speed::reads,
        "every renewal takes a round trip, and a lost one several",
    ),
    Check::new(
        Group::Etcd,
        ("ETCD_009", "etcd-writes"),
        "etcd writes quickly",
        judge::speed::writes,
        "a claim, a hand-over and every checkpoint is a write",
    ),
    Check::new(
        Group::Etcd,
        ("ETCD_010", "etcd-db-size"),
        "etcd's database has free space",
        judge::room::database,
        "a full etcd grants no lease, so no leader can be elected",
    ),
    Check::new(
        Group::Etcd,
        ("ETCD_011", "etcd-quota"),
        "etcd's quota is within the recommended maximum",
        judge::room::quota,
        "beyond 8 GiB restarting and adding a member take very long",
    ),
    Check::new(
        Group::Etcd,
        ("ETCD_012", "etcd-fragmentation"),
        "etcd's database is not fragmented",
        judge::room::fragmentation,
        "deleted data counts against the quota until the file is defragmented",
    ),
    Check::new(
        Group::Etcd,
        ("ETCD_013", "etcd-alarms"),
        "no etcd alarm is active",
        judge::room::alarms,
        "under NOSPACE etcd grants no lease and takes no write: no new leader can be elected",
    ),
    Check::new(
        Group::Etcd,
        ("ETCD_014", "etcd-compaction"),
        "etcd's history is compacted",
        judge::room::compaction,
        "without compaction the database grows until it is full",
    ),
    Check::new(
        Group::Etcd,
        ("ETCD_015", "etcd-request-size"),
        "etcd accepts the largest request that metad makes",
        judge::room::requests,
        "a write that is too large for etcd fails each time it is tried",
    ),
    Check::new(
        Group::Etcd,
        ("ETCD_016", "etcd-version"),
        "etcd's versions have no known faults",
        judge::versions::judge,
        "some versions revoke leases that were renewed, or renew leases that were revoked",
    ),
    Check::new(
        Group::Etcd,
        ("ETCD_017", "etcd-leader-changes"),
        "etcd's own leader is stable",
        judge::speed::elections,
        "each change stops etcd for about a second, and refreshes every lease",
    ),
    Check::new(
        Group::Etcd,
        ("ETCD_018", "etcd-overload"),
        "etcd keeps up with its load",
        judge::speed::overload,
        "slowly applied entries and late heartbeats precede lost leases",
    ),
    Check::new(
        Group::Etcd,
        ("ETCD_019", "etcd-one-cluster"),
        "all endpoints lead to voters of one cluster",
        judge::etcd::one_cluster,
        "with two clusters there are two leaders",
    ),
    Check::new(
        Group::Etcd,
        ("ETCD_021", "etcd-load"),
        "etcd's write load is moderate",
        judge::speed::load,
        "large requests and many writes of other clients delay metad's",
    ),
    Check::new(
        Group::Lease,
        ("LEASE_001", "lease-granted"),
        "etcd grants the requested lease",
        judge::lease::granted,
        "etcd raises a lease below 1.5 of its election timeouts; the fail-over takes as long as the granted one",
    ),
    Check::new(
        Group::Lease,
        ("LEASE_002", "lease-latency"),
        "the lease is long enough for etcd's latency",
        judge::lease::latency,
        "a lease of a few round trips is lost at the first hiccup",
    ),
    Check::new(
        Group::Lease,
        ("LEASE_003", "single-node-lease"),
        "a single node's lease is long enough",
        judge::lease::single,
        "no member can take over from a single node, so a short lease only adds reasons to exit",
    ),
    Check::new(
        Group::Lease,
        ("LEASE_004", "long-lease"),
        "the lease of several nodes is short enough",
        judge::lease::several,
        "after a crash of the leader's machine there is no leader until its lease has ended",
    ),
    Check::new(
        Group::Lease,
        ("LEASE_005", "lease-headroom"),
        "renewals are confirmed in good time",
        judge::lease::headroom,
        "a third of the lease left is one lost renewal before the end",
    )
    .asks_a_node(),
];
