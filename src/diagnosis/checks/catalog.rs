//! The one list of checks. `metad explain` shows an entry, and `src/docs/checks.md` is written from them all.

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
    /// What passes, and where it begins to fail.
    pub limit: &'static str,
    /// Why it matters.
    pub why: &'static str,
    /// What helps, before anything is measured; a finding knows better.
    pub fix: &'static str,
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
        code: &'static str,
        name: &'static str,
        judge: fn(&Facts) -> Judgement,
    ) -> Self {
        Self { code, name, title: "", limit: "", why: "", fix: "", group, asks_a_node: false, judge }
    }

    const fn title(self, title: &'static str) -> Self {
        Self { title, ..self }
    }

    const fn limit(self, limit: &'static str) -> Self {
        Self { limit, ..self }
    }

    const fn why(self, why: &'static str) -> Self {
        Self { why, ..self }
    }

    const fn fix(self, fix: &'static str) -> Self {
        Self { fix, ..self }
    }

    const fn asks_a_node(self) -> Self {
        Self { asks_a_node: true, ..self }
    }

    /// The command that explains it: who has the binary need not have the documents.
    pub fn doc(&self) -> String {
        format!("metad explain {}", self.code)
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
pub static CHECKS: &[Check] = &[
    Check::new(Group::Config, "CONFIG_001", "config", judge::setup::config)
        .title("the configuration has no ineffective value")
        .limit("no value without effect")
        .why("a value that is accepted but has no effect is usually a mistake")
        .fix("`metad config print --origins` shows where it comes from"),
    Check::new(Group::Config, "CONFIG_002", "listeners", judge::setup::listeners)
        .title("strangers can change nothing")
        .limit("TLS, or loopback")
        .why("whoever reaches a listener that asks nobody who is calling may make the leader step down")
        .fix("`tls.ca_file`, `tls.cert_file`, `tls.key_file`"),
    Check::new(Group::Config, "STORE_002", "store-kind", judge::setup::store_kind)
        .title("the store suits the number of nodes")
        .limit("etcd, when `checks.expected_members` is more than 1 and the nodes are on several machines")
        .why(
            "SQLite elects only among the processes of one machine: nodes on other machines would lead as \
             well",
        )
        .fix("`store.etcd.endpoints`"),
    Check::new(Group::Host, "HOST_003", "cpu", judge::host::cpu)
        .title("enough CPU is available")
        .limit(
            "CPU pressure 40 % over 10 s; throttled periods 5 %; timers late, or the process stalled, by a \
             twentieth (fail: a tenth) of the lease",
        )
        .why("a node starved of CPU renews its lease late, and may lose it")
        .fix("raise `CPUQuota=` or the container's limit; move other work away"),
    Check::new(Group::Host, "HOST_004", "data-dir-disk", judge::host::disk)
        .title("the data dir's disk has free space")
        .limit("5 % and 100 MiB free")
        .why("a node that cannot write its data dir cannot start")
        .fix("free disk space"),
    Check::new(Group::Host, "HOST_005", "data-dir-sync", judge::host::sync)
        .title("the data dir is on a local disk that syncs quickly")
        .limit("`checks.fsync_p99_ms`; fail: a network file system")
        .why("each start waits for it; on a network file system two nodes could share a data dir")
        .fix("`node.data_dir` on a local disk"),
    Check::new(Group::Host, "HOST_008", "data-dir-private", judge::host::private)
        .title("only the node's user may change the data dir")
        .limit("not world-writable")
        .why("whoever can replace the files of a node can take its place; a start makes a data dir private")
        .fix("`chmod 700`"),
    Check::new(Group::Host, "HOST_007", "file-descriptors", judge::host::files)
        .title("the limit of open files is high enough")
        .limit("4096 (fail: 1024)")
        .why("every worker and every reader is a connection; a node without free descriptors answers none")
        .fix("`LimitNOFILE=40000`")
        .asks_a_node(),
    Check::new(Group::Host, "HOST_006", "watchdog", judge::host::watchdog)
        .title("a hung node is ended by the guardian, not by systemd's watchdog")
        .limit("`node.guardian = true`; no `WatchdogSec=`, since metad sends no heartbeats to systemd")
        .why("the fuse and the guardian end a hung node in time; systemd's watchdog would end a healthy one")
        .fix("remove `WatchdogSec=`")
        .asks_a_node(),
    Check::new(Group::Leader, "LEADER_001", "leader-exists", judge::leader::exists)
        .title("there is a leader")
        .limit(
            "a leader whose main loop runs; fail: none for longer than the lease, or no node answers where one \
             has led",
        )
        .why("without a leader the main loop runs on no node")
        .fix("ETCD_001, ETCD_002, ETCD_013; then `metad members`"),
    Check::new(Group::Leader, "LEADER_002", "leader-agreed", judge::leader::agreed)
        .title("all members name the same leader (META_002)")
        .limit("one name; fail: a view older than the lease")
        .why(
            "a member that names another leader has an outdated view of the store, and sends its clients to \
             the wrong node",
        )
        .fix("on the odd one: ETCD_001 and ETCD_008"),
    Check::new(Group::Leader, "LEADER_003", "leader-flapping", judge::leader::flapping)
        .title("the leader does not change unnecessarily (META_003)")
        .limit(
            "`checks.max_leader_changes` unplanned ones in `checks.leader_change_window_secs`; clears by \
             itself",
        )
        .why("each unplanned change stops the work of the whole cluster for a while")
        .fix("ETCD_005, ETCD_008, HOST_003, LEASE_002")
        .asks_a_node(),
    Check::new(Group::Leader, "LEADER_004", "one-leader", judge::leader::one)
        .title("at most one member leads")
        .limit("one, or none")
        .why(
            "of two members that claim to lead one is wrong; the fence refuses its writes, but its clients \
             wait in vain",
        )
        .fix("stop the one with the lower token"),
    Check::new(Group::Leader, "LEADER_005", "foreign-candidate", judge::leader::foreign)
        .title("no foreign candidate queues for the leader record")
        .limit("no key but the leader record where it belongs; fail: and nobody leads")
        .why("while there is a key beside the leader record, no member can claim a vacancy")
        .fix("inspect the key with the command that the check names; delete it if it is not needed"),
    Check::new(Group::Leader, "LEADER_006", "not-frozen", judge::leader::frozen)
        .title("the election is not frozen")
        .limit("no freeze; fail: and nobody leads")
        .why("while it is frozen nobody takes over from a leader that dies")
        .fix("`metad unfreeze`, when the maintenance is over"),
    Check::new(Group::Leader, "LEADER_007", "probes-pass", judge::leader::probed)
        .title("no member fails its probe")
        .limit("none; fail: the leader does, and nobody is better")
        .why("a leader that fails its probe cannot do its work, and a member that does is no good successor")
        .fix("there: `meta.probe_command` by hand, or HOST_005 for the disk of the data dir"),
    Check::new(Group::Cluster, "CLUSTER_001", "members-online", judge::cluster::online)
        .title("every member is registered and answers")
        .limit("all that are registered, and `checks.expected_members`; fail: none answers")
        .why("a missing member cannot take over")
        .fix("start the members that are down"),
    Check::new(Group::Cluster, "CLUSTER_002", "same-settings", judge::cluster::settings)
        .title("all members have the same settings")
        .limit("the same lease")
        .why("a fail-over takes as long as the lease of the current leader")
        .fix("the same configuration everywhere"),
    Check::new(Group::Cluster, "CLUSTER_003", "same-version", judge::cluster::versions)
        .title("all members run the same version")
        .limit("one version")
        .why("an incomplete upgrade shows its faults when the old members are needed")
        .fix("finish the upgrade, followers first"),
    Check::new(Group::Cluster, "CLUSTER_004", "duplicates", judge::cluster::duplicates)
        .title("no two members share a data dir or an address")
        .limit("each its own")
        .why("a copied data dir makes two processes one member, and each evicts the other")
        .fix("an empty data dir, an address of its own"),
    Check::new(Group::Cluster, "CLUSTER_005", "restart-loop", judge::cluster::restarts)
        .title("no node restarts in a loop")
        .limit("3 starts in `checks.leader_change_window_secs`")
        .why("a node that restarts in a loop takes leadership and drops it each time")
        .fix("find out why it ends: the log's line `stopped`")
        .asks_a_node(),
    Check::new(Group::Cluster, "HOST_001", "clock-skew", judge::cluster::skew)
        .title("the members' clocks agree")
        .limit("`checks.clock_skew_ms`, beyond the error of the measurement (fail: 1 s)")
        .why("logs and timelines do not line up otherwise; safety does not depend on it")
        .fix("`chronyc tracking`"),
    Check::new(Group::Cluster, "CONFIG_004", "advertised-addresses", judge::cluster::addresses)
        .title("every member is reachable at its advertised address")
        .limit("not 0.0.0.0; loopback for all or for none")
        .why("clients and the other members connect to the address that a member advertises")
        .fix("`node.advertise_addr`"),
    Check::new(Group::Cluster, "CLUSTER_006", "member-rtt", judge::cluster::rtt)
        .title("the members answer quickly")
        .limit("`checks.rtt_p99_ms`")
        .why("a hand-over asks the candidates, and waits for them for 100 ms at most")
        .fix("place the members closer together"),
    Check::new(Group::Etcd, "ETCD_001", "etcd-endpoints", judge::etcd::endpoints)
        .title("every endpoint answers")
        .limit("all, each within ten times `checks.rtt_p99_ms`")
        .why("each one that does not answer leaves one fewer that may fail")
        .fix("by what is found there: start it, or correct the address, the scheme, the certificates or the network"),
    Check::new(Group::Etcd, "ETCD_002", "etcd-leader", judge::etcd::leader)
        .title("etcd has a leader, and its members agree on it")
        .limit("one leader for all")
        .why("without a leader etcd decides nothing: no lease is renewed, no vacancy is claimed")
        .fix("ETCD_003, ETCD_005, ETCD_007"),
    Check::new(Group::Etcd, "ETCD_003", "etcd-quorum", judge::etcd::quorum)
        .title("etcd has its quorum (META_006)")
        .limit("all voters; fail: fewer than n/2 + 1, and etcd decides nothing")
        .why("without a majority of its voters etcd stops, and with it every leader")
        .fix("start them; remove a dead one before adding another"),
    Check::new(Group::Etcd, "ETCD_004", "etcd-members", judge::etcd::members)
        .title("etcd has 3, 5 or 7 members")
        .limit("3, 5 or 7; 1 for a single node")
        .why("an even number survives no more failures than one member fewer; a single member survives none")
        .fix("`etcdctl member add`, `member remove`"),
    Check::new(Group::Etcd, "ETCD_005", "etcd-slow-fsync", judge::speed::fsync)
        .title("etcd's log syncs quickly")
        .limit("`checks.fsync_p99_ms` (fail: 500 ms)")
        .why("a slow disk makes etcd lose its leader, and metad its lease")
        .fix("a fast disk of its own, `ionice -c2 -n0`; a longer lease meanwhile"),
    Check::new(Group::Etcd, "ETCD_006", "etcd-slow-commit", judge::speed::commit)
        .title("etcd's database commits quickly")
        .limit("`checks.commit_p99_ms` (fail: 250 ms)")
        .why("a slow disk delays every request")
        .fix("a fast disk of its own"),
    Check::new(Group::Etcd, "ETCD_007", "etcd-peer-rtt", judge::speed::peers)
        .title("the round trips between etcd's members are short")
        .limit("`checks.rtt_p99_ms` (fail: three times)")
        .why(
            "every write waits for a round trip between them; etcd's election timeout should be ten round \
             trips",
        )
        .fix("`--heartbeat-interval` of one round trip, `--election-timeout` of ten"),
    Check::new(Group::Etcd, "ETCD_008", "etcd-rtt", judge::speed::reads)
        .title("etcd answers this node quickly")
        .limit("`checks.rtt_p99_ms` (fail: a tenth of the lease)")
        .why("every renewal takes a round trip, and a lost one several")
        .fix("closer endpoints"),
    Check::new(Group::Etcd, "ETCD_009", "etcd-writes", judge::speed::writes)
        .title("etcd writes quickly")
        .limit("100 ms, or twice `checks.fsync_p99_ms` (fail: 500 ms, or an error)")
        .why("a claim, a hand-over and every checkpoint is a write")
        .fix("ETCD_005 to ETCD_008"),
    Check::new(Group::Etcd, "ETCD_010", "etcd-db-size", judge::room::database)
        .title("etcd's database has free space")
        .limit("`checks.db_size_percent` of the quota (fail: 95 %)")
        .why("a full etcd grants no lease, so no leader can be elected")
        .fix("compact, defragment; `--quota-backend-bytes`"),
    Check::new(Group::Etcd, "ETCD_011", "etcd-quota", judge::room::quota)
        .title("etcd's quota is within the recommended maximum")
        .limit("8 GiB")
        .why("beyond 8 GiB restarting and adding a member take very long")
        .fix("`--quota-backend-bytes=8589934592`"),
    Check::new(Group::Etcd, "ETCD_012", "etcd-fragmentation", judge::room::fragmentation)
        .title("etcd's database is not fragmented")
        .limit("50 %, from 100 MiB on")
        .why("deleted data counts against the quota until the file is defragmented")
        .fix("`etcdctl defrag`, one member after the other"),
    Check::new(Group::Etcd, "ETCD_013", "etcd-alarms", judge::room::alarms)
        .title("no etcd alarm is active")
        .limit("none")
        .why("under NOSPACE etcd grants no lease and takes no write: no new leader can be elected")
        .fix("compact, defragment, `etcdctl alarm disarm`"),
    Check::new(Group::Etcd, "ETCD_014", "etcd-compaction", judge::room::compaction)
        .title("etcd's history is compacted")
        .limit("once in 50,000 revisions")
        .why("without compaction the database grows until it is full")
        .fix("`--auto-compaction-mode=periodic --auto-compaction-retention=1h`"),
    Check::new(Group::Etcd, "ETCD_015", "etcd-request-size", judge::room::requests)
        .title("etcd accepts the largest request that metad makes")
        .limit("1.1 MiB; metad writes 1 MiB at most at once")
        .why("a write that is too large for etcd fails each time it is tried")
        .fix("`--max-request-bytes=1572864`"),
    Check::new(Group::Etcd, "ETCD_016", "etcd-version", judge::versions::judge)
        .title("etcd's versions have no known faults")
        .limit("3.5.23, 3.6.5 or newer, the same everywhere; fail: below 3.4, and 3.5.0 to 3.5.2")
        .why("some versions revoke leases that were renewed, or renew leases that were revoked")
        .fix("upgrade etcd"),
    Check::new(Group::Etcd, "ETCD_017", "etcd-leader-changes", judge::speed::elections)
        .title("etcd's own leader is stable")
        .limit("1 in 15 minutes")
        .why("each change stops etcd for about a second, and refreshes every lease")
        .fix("ETCD_005, ETCD_007"),
    Check::new(Group::Etcd, "ETCD_018", "etcd-overload", judge::speed::overload)
        .title("etcd keeps up with its load")
        .limit("no slow applies, late heartbeats or failed proposals since the last reading")
        .why("slowly applied entries and late heartbeats precede lost leases")
        .fix("a faster disk, more CPU, less load"),
    Check::new(Group::Etcd, "ETCD_019", "etcd-one-cluster", judge::etcd::one_cluster)
        .title("all endpoints lead to voters of one cluster")
        .limit("one cluster id, no learner")
        .why("with two clusters there are two leaders")
        .fix("`store.etcd.endpoints`; `etcdctl member promote`"),
    Check::new(Group::Etcd, "ETCD_021", "etcd-load", judge::speed::load)
        .title("etcd's write load is moderate")
        .limit("10 MiB and 1000 writes per second")
        .why("large requests and many writes of other clients delay metad's")
        .fix("an etcd of its own for metad"),
    Check::new(Group::Etcd, "ETCD_022", "etcd-login", judge::etcd::login)
        .title("etcd asks for the configured login")
        .limit("authentication is enabled, where `store.etcd.username` is set")
        .why("an etcd without authentication lets everybody who reaches it change who leads; nodes go on without a login meanwhile")
        .fix("`etcdctl auth enable`"),
    Check::new(Group::Lease, "LEASE_001", "lease-granted", judge::lease::granted)
        .title("etcd grants the requested lease")
        .limit("what is configured")
        .why(
            "etcd raises a lease below 1.5 of its election timeouts; the fail-over takes as long as the \
             granted one",
        )
        .fix("`meta.meta_leader_lease_secs`, or a shorter `--election-timeout`"),
    Check::new(Group::Lease, "LEASE_002", "lease-latency", judge::lease::latency)
        .title("the lease is long enough for etcd's latency")
        .limit("20 of the slowest answers (fail: 10)")
        .why("a lease of a few round trips is lost at the first hiccup")
        .fix("a longer `meta.meta_leader_lease_secs`"),
    Check::new(Group::Lease, "LEASE_003", "single-node-lease", judge::lease::single)
        .title("a single node's lease is long enough")
        .limit("86400 s; not judged where several have led, unless `checks.expected_members` is 1")
        .why("no member can take over from a single node, so a short lease only adds reasons to exit")
        .fix("`meta.meta_leader_lease_secs = 86400`, or `checks.expected_members`"),
    Check::new(Group::Lease, "LEASE_004", "long-lease", judge::lease::several)
        .title("the lease of several nodes is short enough")
        .limit("60 s")
        .why("after a crash of the leader's machine there is no leader until its lease has ended")
        .fix("`meta.meta_leader_lease_secs = 15`"),
    Check::new(Group::Lease, "LEASE_005", "lease-headroom", judge::lease::headroom)
        .title("renewals are confirmed in good time")
        .limit("50 % left when a renewal is confirmed (fail: 33 %)")
        .why("a third of the lease left is one lost renewal before the end")
        .fix("ETCD_005, ETCD_008, HOST_003")
        .asks_a_node(),
    Check::new(Group::Lease, "LEASE_006", "lease-would-have-held", judge::lease::recorded)
        .title("the lease would have survived the recorded stalls")
        .limit("no loss in the recorded time, 30 days at most; not judged below a day as the leader")
        .why("what stalled the store or this machine once does it again")
        .fix("`metad advise lease`")
        .asks_a_node(),
];
