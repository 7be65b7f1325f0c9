//! The one list of configuration keys.
//!
//! Everything that has to know the keys reads this list: environment names, flags and their help, unknown-key
//! errors and their suggestions, the checks of type and range, `config print`, and `config/metad.toml`, which
//! is generated.
//! A key that is added to a section's struct must be added here, and the reverse; a test compares the two.

use super::store_kind::StoreKind;
use crate::election::record::PRIORITY_MAX;

/// One configuration key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Section and name, `meta.meta_leader_lease_secs`.
    pub path: &'static str,
    /// What a value must look like.
    pub kind: Kind,
    /// The value when no layer gives one.
    pub fallback: Fallback,
    /// The unit, `seconds` or `milliseconds`; empty when there is none.
    pub unit: &'static str,
    /// The command line flag that sets it.
    pub flag: Option<Flag>,
    /// One or two sentences: what it does and why one would change it.
    pub help: &'static str,
}

/// A command line flag that sets a key.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Its name, with its dashes.
    pub name: &'static str,
    /// What stands for its value in the help.
    pub value: &'static str,
    /// What it sets, in a few words; [`Key::flag_help`] adds the default.
    pub help: &'static str,
}

/// What the values of a key look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole number within a closed range.
    Integer {
        /// The smallest value.
        min: i64,
        /// The largest value.
        max: i64,
    },
    /// 1 to 63 of `A-Z a-z 0-9 . _ -`, not beginning with a dot or a dash: safe in a key, a path and a label.
    Name,
    /// Any text.
    Text,
    /// A path; relative to the working directory.
    Path,
    /// `host:port`, where port 0 means that the system chooses.
    Address,
    /// A list of `host:port`, `http://host:port` or `https://host:port`.
    Endpoints,
    /// A program and its arguments: a list of strings, or, typed, words between blanks.
    Command,
    /// One of a few words.
    Choice(&'static [&'static str]),
    /// `true` or `false`.
    Switch,
}

/// What a key's value is when no layer gives one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// This number.
    Integer(i64),
    /// This text.
    Text(&'static str),
    /// On or off.
    Switch(bool),
    /// The empty list.
    EmptyList,
    /// A value that follows from others.
    Computed {
        /// How it is computed, in words.
        from: &'static str,
        /// A value it may have, for the sample file.
        example: &'static str,
    },
    /// No value at all.
    Unset {
        /// What happens without it, in words.
        means: &'static str,
        /// A value it may have, for the sample file.
        example: &'static str,
    },
}

/// The sections, in the order they are printed in, with a sentence on each.
pub(super) const SECTIONS: [(&str, &str); 11] = [
    ("node", "The identity of this process and the place of its files."),
    ("meta", "Leadership and the main loop."),
    ("store", "Where the leader record is stored."),
    ("store.etcd", "The etcd cluster; used when store.kind is \"etcd\"."),
    (
        "store.sqlite",
        "The database file for an election among processes of one machine; used when store.kind is \
         \"sqlite\".",
    ),
    ("rpc", "The gRPC listener."),
    ("http", "The listener for probes, metrics and the page."),
    ("tls", "TLS on both listeners, between members, and for the clients' certificates."),
    ("auth", "Who may do what."),
    ("log", "The log, written to stderr."),
    ("checks", "The limits of `metad doctor`, `metad check` and the node's own checks."),
];

/// An hour: more than any stop, start or wait can reasonably need.
const HOUR_SECS: i64 = 3600;
/// An hour, for what is given in milliseconds.
const HOUR_MS: i64 = HOUR_SECS * 1000;
/// A minute: a single request or connection that takes longer is a broken one.
const MINUTE_MS: i64 = 60_000;
/// A day: more than any program needs to be warm.
const DAY_SECS: i64 = 86_400;
/// A year: beyond it a lease is a misprint.
const YEAR_SECS: i64 = 365 * DAY_SECS;

/// Every key, in the order of the sections in [`Config`](super::Config).
pub static KEYS: &[Key] = &[
    Key::new("node.id", Kind::Name, computed("the host name", "node-1"))
        .flag("--node-id", "NAME", "Name of this node; default: the host name")
        .help("Name of this node, unique within its cluster."),
    Key::new("node.cluster", Kind::Name, Fallback::Text("default"))
        .flag("--cluster", "NAME", "Cluster name")
        .help(
            "Name of the cluster. Nodes elect a leader only within it, so clusters that share an etcd need \
             different names.",
        ),
    Key::new("node.data_dir", Kind::Path, computed("<node id>.metad", "node-1.metad"))
        .flag("--data-dir", "DIR", "Directory that holds this node's identity; default: NODE_ID.metad")
        .help(
            "Directory that holds the node's identity. Keep it: without it a restarted node cannot reclaim \
             its own leader record.",
        ),
    Key::new("node.data_dir_exclusive", Kind::Switch, Fallback::Switch(false)).help(
        "Set it only if the platform attaches the data dir to at most one process (a StatefulSet with \
         ReadWriteOncePod): a start on another machine then reclaims its own leader record at once instead \
         of waiting for the lease.",
    ),
    Key::new("node.advertise_addr", Kind::Address, computed("rpc.listen_addr", "10.0.0.1:5690"))
        .flag("--advertise-addr", "HOST:PORT", "Address at which other members reach this node, host:port")
        .help(
            "Address at which other members reach this node; set it when rpc.listen_addr is 0.0.0.0 or \
             behind NAT.",
        ),
    Key::new("node.priority", int(0, PRIORITY_MAX as i64), Fallback::Integer(100)).help(
        "At a vacancy the member with the highest priority leads; a node with 0 never leads, which suits an \
         observer.",
    ),
    Key::new("node.failback_delay_secs", int(0, YEAR_SECS), Fallback::Integer(0)).seconds().help(
        "A leader hands over to a member of higher priority that has been registered for this long, is ready, and \
         whose probes, if any, have succeeded for as long, 5 minutes at least. At most once in 5 minutes; 0: never, \
         because every change of leader has a cost.",
    ),
    Key::new("node.guardian", Kind::Switch, Fallback::Switch(true)).help(
        "A small process that revokes this node's lease within milliseconds of its death, so that another \
         member can lead, and that supervises the program of `metad run`. Without it a crash is noticed only \
         when the lease ends.",
    ),
    Key::new("node.guardian_socket", Kind::Path, unset("none", "/run/metad/guardian.sock")).help(
        "In a container: the socket of `metad guardian`, which runs in a container of its own beside it and revokes this \
         node's lease when the whole container is killed.",
    ),
    Key::new("node.reserved_descriptors", int(32, 1_000_000), Fallback::Integer(100)).help(
        "File descriptors reserved for the store, the data dir and the program: client connections share the \
         rest of the process's limit (ulimit -n, whose soft limit is raised to the hard one).",
    ),
    Key::new("meta.meta_leader_lease_secs", int(3, YEAR_SECS), Fallback::Integer(15))
        .seconds()
        .flag("--meta-leader-lease-secs", "SECS", "Leader lease in seconds")
        .help(
            "The leader's lease: a leader that cannot renew it for this long exits. A longer lease survives \
             longer stalls, a shorter one replaces a dead machine sooner.",
        ),
    Key::new("meta.group", Kind::Name, Fallback::Text("meta")).help(
        "Name of the election in the store; it must be the same on all members of a cluster, because two \
         names elect two leaders.",
    ),
    Key::new("meta.stop_timeout_secs", int(1, HOUR_SECS), Fallback::Integer(10)).seconds().help(
        "Time the main loop has to end on a planned stop; raise it if the program needs longer to save its \
         state.",
    ),
    Key::new("meta.start_timeout_secs", int(1, HOUR_SECS), Fallback::Integer(10)).seconds().help(
        "Time a new leader has to start its main loop, before it gives leadership up to another member.",
    ),
    Key::new("meta.warm_up_timeout_secs", int(1, DAY_SECS), Fallback::Integer(600)).seconds().help(
        "Time a standby (metad run --standby, or a library's) has to be warm once its node leads, before the node gives \
         leadership up and exits; the next start warms up anew. A member that is ready gets it sooner. Where \
         meta.start_timeout_secs is longer, that counts.",
    ),
    Key::new("meta.main_loop_timeout_secs", int(0, HOUR_SECS), Fallback::Integer(60)).seconds().help(
        "A main loop that sends no heartbeat for this long counts as hung: it is ended and leadership is \
         given up. The built-in loop sends heartbeats; a program is watched from its first WATCHDOG=1 \
         (sd_notify) on, a library's loop from its first heartbeat() on. 0: no main loop is watched.",
    ),
    Key::new("meta.probe_command", Kind::Command, Fallback::EmptyList).help(
        "A program that tells whether this node could lead: it ends with exit code 0 while it could. A leader that fails \
         hands over to a member that does not; a candidate that fails takes over last. Empty: none. Read again on SIGHUP, \
         as all of meta.probe_*.",
    ),
    Key::new("meta.probe_disk", Kind::Switch, Fallback::Switch(false)).help(
        "The same for the disk of the data dir: a small file is written and synced there, on a thread of its own.",
    ),
    Key::new("meta.probe_interval_secs", int(1, HOUR_SECS), Fallback::Integer(5))
        .seconds()
        .help("From the beginning of one probe to that of the next."),
    Key::new("meta.probe_timeout_secs", int(1, HOUR_SECS), Fallback::Integer(5)).seconds().help(
        "A probe that takes longer fails from then on; the program is killed, with its process group.",
    ),
    Key::new("meta.probe_failure_secs", int(1, HOUR_SECS), Fallback::Integer(30)).seconds().help(
        "How long a leader fails before it hands over: time in which its probe fails counts up, time in which it \
         succeeds counts down, twice as fast. More than probe_interval_secs.",
    ),
    Key::new("meta.restart", Kind::Choice(&["no", "on-failure"]), Fallback::Text("no"))
        .flag("--restart", "WHEN", "When metad run restarts its program, no or on-failure")
        .help(
            "With on-failure, a program of `metad run` that fails is restarted under the same leadership, \
             after a pause that grows from 0.5 s to 30 s. With no, its end gives leadership up and stops the \
             node.",
        ),
    Key::new("meta.on_leader_change", Kind::Text, unset("nothing is run", "systemctl reload haproxy"))
        .flag("--on-leader-change", "CMD", "Shell command that is run at each change of leader this node sees")
        .help(
            "Shell command that every node runs at each change of leader it sees, with METAD_LEADER (empty: \
             nobody), METAD_TOKEN and METAD_ROLE (leader or follower). One at a time; a change that is over \
             before its turn comes is left out. The election never waits for it.",
        ),
    Key::new("meta.on_leader_change_timeout_secs", int(1, HOUR_SECS), Fallback::Integer(10)).seconds().help(
        "A run of meta.on_leader_change that takes longer is killed, with its process group.",
    ),
    Key::new("meta.tick_interval_ms", int(0, MINUTE_MS), Fallback::Integer(0)).milliseconds().help(
        "Interval at which the built-in main loop writes the key state/tick under its fencing token, as a \
         heartbeat in the store; at most the lease. 0: never, so that an idle leader writes nothing.",
    ),
    Key::new("meta.max_heartbeat_interval_secs", int(1, HOUR_SECS), Fallback::Integer(60)).seconds().help(
        "A worker that is not heard from for this long expires. A new leader gives every worker this long \
         anew.",
    ),
    Key::new("meta.barrier_interval_ms", int(10, HOUR_MS), Fallback::Integer(1000))
        .milliseconds()
        .help("Time between two barriers. A shorter one commits sooner and writes more often."),
    Key::new("meta.checkpoint_frequency", int(1, 1_000_000), Fallback::Integer(1))
        .help("Every n-th barrier is a checkpoint, beginning with each leader's first."),
    Key::new("meta.barrier_collect_timeout_ms", int(10, HOUR_MS), Fallback::Integer(10_000))
        .milliseconds()
        .help(
            "A barrier that a worker has not collected within this time is dropped, and the worker is \
             reported.",
        ),
    Key::new("meta.barrier_failures_max", int(1, 1_000_000), Fallback::Integer(3)).help(
        "After this many consecutive barriers dropped because of one worker, barriers no longer wait for it, \
         until it has collected one in time.",
    ),
    Key::new("meta.in_flight_barrier_nums", int(1, 1000), Fallback::Integer(10))
        .help("When this many barriers wait for their workers, no more are sent until one is done."),
    Key::new("store.kind", Kind::Choice(StoreKind::NAMES), computed(KIND_RULE, "etcd"))
        .flag("--store", "KIND", "Store to use; default: etcd if endpoints are set, else sqlite")
        .help("etcd elects among machines, every other kind among processes of one machine."),
    Key::new("store.etcd.endpoints", Kind::Endpoints, Fallback::EmptyList)
        .flag("--etcd-endpoints", "A,B,C", "etcd client addresses, one per member")
        .help("Every etcd member: metad talks to each one directly, so that one hung member costs nothing."),
    Key::new("store.etcd.ca_file", Kind::Path, unset("the system's CAs", "/etc/metad/ca.pem"))
        .help("PEM file with the CA that signed etcd's certificates; a bare host:port then means https."),
    Key::new("store.etcd.cert_file", Kind::Path, unset("no client certificate", "/etc/metad/client.pem"))
        .help("PEM file with metad's client certificate, for an etcd that requires one; needs key_file."),
    Key::new("store.etcd.key_file", Kind::Path, unset("no client certificate", "/etc/metad/client.key"))
        .help("PEM file with the private key of cert_file."),
    Key::new("store.etcd.username", Kind::Text, unset("no login", "metad"))
        .help("The etcd user, for an etcd with auth enabled; needs password_file."),
    Key::new("store.etcd.password_file", Kind::Path, unset("no login", "/etc/metad/etcd-password"))
        .help("The file with the password. No key holds the password itself, so that no dump can show it."),
    Key::new("store.etcd.connect_timeout_ms", int(10, MINUTE_MS), Fallback::Integer(1000))
        .milliseconds()
        .help("Timeout for a TCP connection to one member; raise it only on a slow network."),
    Key::new("store.etcd.request_timeout_ms", int(10, MINUTE_MS), Fallback::Integer(3000))
        .milliseconds()
        .help(
            "Timeout for one request; at most the lease, since a later answer is useless. The keep-alive has \
             timeouts of its own.",
        ),
    Key::new("store.etcd.start_timeout_secs", int(1, HOUR_SECS), Fallback::Integer(10))
        .seconds()
        .help("How long to wait for etcd at start; after that the process exits with code 69."),
    Key::new("store.sqlite.path", Kind::Path, computed("<data_dir>/metad.db", "/var/lib/metad/metad.db"))
        .help(
            "The database file, on a local file system. Nodes of one machine elect among themselves only if \
             all of them use the same file.",
        ),
    Key::new("store.sqlite.busy_timeout_ms", int(1, MINUTE_MS), Fallback::Integer(2000))
        .milliseconds()
        .help("How long to wait for another process that holds the file's lock; at most the lease."),
    Key::new("rpc.listen_addr", Kind::Address, Fallback::Text("127.0.0.1:5690"))
        .flag("--listen-addr", "HOST:PORT", "gRPC listen address")
        .help("gRPC listen address; port 0 lets the system choose."),
    Key::new("rpc.max_connections", int(1, 1_000_000), Fallback::Integer(10_000)).help(
        "Maximum number of connections. At the limit, the one that has been idle longest is closed for a new \
         one.",
    ),
    Key::new("rpc.max_connections_per_address", int(1, 1_000_000), Fallback::Integer(5000))
        .help("Maximum number of connections from one address."),
    Key::new("rpc.max_unauthenticated_connections", int(1, 1_000_000), Fallback::Integer(500)).help(
        "Maximum number of connections on which no call was accepted yet, half of them from one address: each takes about 40 \
         KB. At the limit, the oldest is closed for a new one. At most half of max_connections.",
    ),
    Key::new("rpc.max_requests", int(1, 1_000_000), Fallback::Integer(20_000)).help(
        "Maximum number of calls in flight, open streams included; more are refused with RESOURCE_EXHAUSTED.",
    ),
    Key::new("rpc.max_requests_per_connection", int(1, 100_000), Fallback::Integer(256))
        .help("Maximum number of calls in flight on one connection; further ones wait at the client."),
    Key::new("rpc.max_costly_requests_per_sec", int(1, 1_000_000), Fallback::Integer(1000)).help(
        "Maximum rate per second of calls that are costly to answer: List, Range, Watch, History, Observe, \
         Events.",
    ),
    Key::new("rpc.max_bytes_in_flight_mib", int(8, 65_536), Fallback::Integer(64))
        .help("Maximum total size in MiB of the requests being read; more are refused."),
    Key::new("rpc.first_request_timeout_secs", int(1, HOUR_SECS), Fallback::Integer(10))
        .seconds()
        .help("Time a new connection has for its first complete request, handshake and headers included."),
    Key::new("rpc.idle_timeout_secs", int(1, 86_400), Fallback::Integer(900))
        .seconds()
        .help("A connection with no request for this long, and no open stream, is closed."),
    Key::new("rpc.write_timeout_secs", int(1, HOUR_SECS), Fallback::Integer(30))
        .seconds()
        .help("A connection whose client reads nothing of a pending answer for this long is closed."),
    Key::new("http.listen_addr", Kind::Address, Fallback::Text("127.0.0.1:5691"))
        .flag("--http-addr", "HOST:PORT", "HTTP listen address: probes, metrics, page")
        .help(
            "HTTP listen address, separate from gRPC so that a probe never waits behind a call; port 0 as \
             above.",
        ),
    Key::new(
        "http.advertise_addr",
        Kind::Address,
        unset("http.listen_addr, or its port at the host of node.advertise_addr where it is 0.0.0.0", "m1.example.com:5691"),
    )
    .help(
        "Address at which browsers reach this node's page; status, members and the pages of other members link to it.",
    ),
    Key::new("http.max_connections", int(1, 1_000_000), Fallback::Integer(1000)).help(
        "Maximum number of connections, as for gRPC; a few more are reserved for /livez, /readyz and \
         /healthz.",
    ),
    Key::new("http.max_connections_per_address", int(1, 1_000_000), Fallback::Integer(500))
        .help("Maximum number of connections from one address."),
    Key::new("http.max_unauthenticated_connections", int(1, 1_000_000), Fallback::Integer(250)).help(
        "Maximum number of connections on which no request was accepted yet, as for gRPC. Probes and the page itself, which \
         anybody may ask for, do not count as accepted.",
    ),
    Key::new("http.max_costly_requests_per_sec", int(1, 1_000_000), Fallback::Integer(200))
        .help("Maximum rate per second of requests for /metrics and below /api/."),
    Key::new("http.idle_timeout_secs", int(1, 86_400), Fallback::Integer(60)).seconds().help(
        "A connection with no request for this long is closed. A new one has a sixth of this time, at least \
         one second, for its first request.",
    ),
    Key::new("http.max_event_readers", int(1, 10_000), Fallback::Integer(64)).help(
        "Maximum number of readers of /api/v1/events; at the limit, the one that has read longest is closed \
         for a new one.",
    ),
    Key::new("http.allowed_hosts", Kind::Text, unset("no others", "meta.example.com,meta.example.org")).help(
        "Host names under which the page may be requested, separated by commas, besides that of http.advertise_addr. IP \
         addresses, names without \
         a dot and names of private networks (.local, .internal, .svc, …) always work; others are refused, \
         so that no web site can read this page through the browser of a user who can reach it.",
    ),
    Key::new("tls.ca_file", Kind::Path, unset("no TLS", "/etc/metad/tls/ca.pem")).help(
        "PEM file with the CA that signs the certificates of members and clients. TLS needs all three files; they are \
         read again when they change.",
    ),
    Key::new("tls.cert_file", Kind::Path, unset("no TLS", "/etc/metad/tls/node-1.pem")).help(
        "PEM file with this node's certificate: for its names and addresses, and with the URI metad:member:NODE_ID, by \
         which other members know it.",
    ),
    Key::new("tls.key_file", Kind::Path, unset("no TLS", "/etc/metad/tls/node-1.key"))
        .help("PEM file with the private key of cert_file."),
    Key::new("auth.access_file", Kind::Path, unset("no tokens", "/etc/metad/access")).help(
        "File with the roles of bearer tokens: a line each with role, name and the token's SHA-256, as `metad token` \
         prints it. Read again when it changes.",
    ),
    Key::new("auth.token_file", Kind::Path, unset("none", "/etc/metad/token")).help(
        "File with the token that this node shows to other members, where its certificate does not say that it is one.",
    ),
    Key::new("auth.insecure", Kind::Switch, Fallback::Switch(false))
        .flag("--insecure", "BOOL", "Listen on other addresses than loopback without TLS")
        .help(
        "Accept that whoever reaches the listeners may do anything, including making the leader step down. Without it a node \
         listens on other addresses than loopback only with TLS.",
    ),
    Key::new("log.filter", Kind::Text, Fallback::Text("info"))
        .help("Levels and modules, as in RUST_LOG, e.g. metad=debug,info."),
    Key::new("log.format", Kind::Choice(&["auto", "text", "json"]), Fallback::Text("auto"))
        .flag("--log-format", "FORMAT", "Log format, text or json; auto: text on a terminal")
        .help("auto is text on a terminal and JSON elsewhere."),
    Key::new("checks.interval_secs", int(0, HOUR_SECS), Fallback::Integer(60))
        .seconds()
        .help("Interval at which a running node runs the cheap checks; 0: never."),
    Key::new("checks.expected_members", int(0, 1000), Fallback::Integer(0))
        .help("Expected number of meta nodes; 0: as many as are registered."),
    Key::new("checks.max_leader_changes", int(0, 1000), Fallback::Integer(1))
        .help("More unplanned leader changes within the window count as flapping."),
    Key::new("checks.leader_change_window_secs", int(1, 86_400), Fallback::Integer(600))
        .seconds()
        .help("The window in which leader changes are counted."),
    Key::new("checks.fsync_p99_ms", int(1, MINUTE_MS), Fallback::Integer(10))
        .milliseconds()
        .help("A disk with a longer p99 sync time counts as slow: etcd's log, and the data dir."),
    Key::new("checks.commit_p99_ms", int(1, MINUTE_MS), Fallback::Integer(25))
        .milliseconds()
        .help("A longer p99 commit time of etcd's database counts as slow."),
    Key::new("checks.rtt_p99_ms", int(1, MINUTE_MS), Fallback::Integer(50))
        .milliseconds()
        .help("A longer round trip between members, or to one, counts as slow."),
    Key::new("checks.clock_skew_ms", int(1, MINUTE_MS), Fallback::Integer(50))
        .milliseconds()
        .help("Clocks of two members that differ by more count as skewed."),
    Key::new("checks.db_size_percent", int(1, 100), Fallback::Integer(80))
        .help("etcd's database counts as nearly full above this percentage of its quota."),
];

const KIND_RULE: &str = "etcd when store.etcd.endpoints is not empty, else sqlite";

/// The key with this path.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// The section of this name.
pub(super) fn find_section(path: &str) -> Option<&'static str> {
    SECTIONS.iter().map(|(name, _)| *name).find(|name| *name == path)
}

const fn int(min: i64, max: i64) -> Kind {
    Kind::Integer { min, max }
}

const fn computed(from: &'static str, example: &'static str) -> Fallback {
    Fallback::Computed { from, example }
}

const fn unset(means: &'static str, example: &'static str) -> Fallback {
    Fallback::Unset { means, example }
}

// === impl Key ===

impl Key {
    const fn new(path: &'static str, kind: Kind, fallback: Fallback) -> Self {
        Self { path, kind, fallback, unit: "", flag: None, help: "" }
    }

    const fn seconds(self) -> Self {
        Self { unit: "seconds", ..self }
    }

    const fn milliseconds(self) -> Self {
        Self { unit: "milliseconds", ..self }
    }

    const fn flag(self, name: &'static str, value: &'static str, help: &'static str) -> Self {
        Self { flag: Some(Flag { name, value, help }), ..self }
    }

    const fn help(self, help: &'static str) -> Self {
        Self { help, ..self }
    }

    /// The path without its last part: `store.etcd`.
    pub fn section(&self) -> &'static str {
        self.path.rsplit_once('.').map_or("", |(section, _)| section)
    }

    /// The last part of the path: `endpoints`.
    pub fn name(&self) -> &'static str {
        self.path.rsplit_once('.').map_or(self.path, |(_, name)| name)
    }

    /// The flag that sets it, else its path: how a message calls it.
    pub fn flag_or_path(&self) -> &'static str {
        self.flag.map_or(self.path, |flag| flag.name)
    }

    /// The help of its flag: what it sets, its default if that is one value, its variable.
    pub fn flag_help(&self) -> Option<String> {
        let help = self.flag?.help;
        let default = match self.fallback {
            Fallback::Integer(_) | Fallback::Text(_) | Fallback::Switch(_) => {
                format!("; default: {}", self.example())
            }
            Fallback::EmptyList | Fallback::Computed { .. } | Fallback::Unset { .. } => String::new(),
        };
        Some(format!("{help}{default} [env: {}]", self.env()))
    }

    /// The environment variable that sets it: `METAD_STORE__ETCD__ENDPOINTS`.
    pub fn env(&self) -> String {
        format!("METAD_{}", self.path.to_uppercase().replace('.', "__"))
    }

    /// What a value must look like, in words that follow "expected".
    pub fn expected(&self) -> String {
        match self.kind {
            Kind::Integer { min, max } if self.unit.is_empty() => format!("a whole number, {min} to {max}"),
            Kind::Integer { min, max } => format!("a whole number of {}, {min} to {max}", self.unit),
            Kind::Name => "1 to 63 of A-Z a-z 0-9 . _ -, not beginning with . or -".to_owned(),
            Kind::Text => "a string".to_owned(),
            Kind::Path => "a path".to_owned(),
            Kind::Address => "host:port".to_owned(),
            Kind::Endpoints => "a list of host:port, http://host:port or https://host:port".to_owned(),
            Kind::Command => "a program and its arguments, as a list of strings".to_owned(),
            Kind::Choice(words) => format!("one of {}", words.join(", ")),
            Kind::Switch => "true or false".to_owned(),
        }
    }

    /// A value that would do, as it is typed on a command line: the default where there is one.
    pub fn example(&self) -> String {
        match self.fallback {
            Fallback::Integer(number) => number.to_string(),
            Fallback::Text(text) => text.to_owned(),
            Fallback::Switch(on) => on.to_string(),
            Fallback::EmptyList if self.kind == Kind::Command => {
                "/usr/local/bin/is-healthy --quick".to_owned()
            }
            Fallback::EmptyList => "10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379".to_owned(),
            Fallback::Computed { example, .. } | Fallback::Unset { example, .. } => example.to_owned(),
        }
    }
}
