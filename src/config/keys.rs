//! The one list of configuration keys.
//!
//! Everything that has to know the keys reads this list: environment names, unknown-key errors and their
//! suggestions, the checks of type and range, `config print`, and `config/metad.toml`, which is generated.
//! A key that is added to a section's struct must be added here, and the reverse; a test compares the two.

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
    /// The command line flag that sets it, with its dashes.
    pub flag: Option<&'static str>,
    /// One or two sentences: what it does and why one would change it.
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
pub(super) const SECTIONS: [(&str, &str); 9] = [
    ("node", "Who this process is and where it keeps its files."),
    ("meta", "The leadership and its main loop."),
    ("store", "Where the leadership record lives."),
    ("store.etcd", "The etcd cluster; used when store.kind is \"etcd\"."),
    (
        "store.sqlite",
        "The file that elects among processes of one machine; used when store.kind is \"sqlite\".",
    ),
    ("rpc", "The gRPC listener."),
    ("http", "The listener for probes, metrics and the page."),
    ("log", "The log, which goes to stderr."),
    ("checks", "What `metad doctor`, `metad check` and the node's own checks hold against the cluster."),
];

/// An hour: more than any stop, start or wait can reasonably need.
const HOUR_SECS: i64 = 3600;
/// An hour, for what is given in milliseconds.
const HOUR_MS: i64 = HOUR_SECS * 1000;
/// A minute: a single request or connection that takes longer is a broken one.
const MINUTE_MS: i64 = 60_000;
/// A year: beyond it a lease is a misprint.
const YEAR_SECS: i64 = 365 * 86_400;

/// Every key, in the order of the sections in [`Config`](super::Config).
pub static KEYS: [Key; 62] = [
    Key::new("node.id", Kind::Name, computed("the host name", "node-1"))
        .flag("--node-id")
        .help("The name of this node; no two nodes of a cluster may have the same."),
    Key::new("node.cluster", Kind::Name, Fallback::Text("default")).flag("--cluster").help(
        "The name of the cluster; nodes elect only within it, so give each cluster on one etcd its own.",
    ),
    Key::new("node.data_dir", Kind::Path, computed("<node id>.metad", "node-1.metad"))
        .flag("--data-dir")
        .help("Holds the node's identity. Keep it: without it a restart cannot take its own record back."),
    Key::new("node.data_dir_exclusive", Kind::Switch, Fallback::Switch(false)).help(
        "Says that the platform gives the data dir to one process at most (a StatefulSet with ReadWriteOncePod): a start \
         on another machine then takes its own record back at once instead of waiting for the lease.",
    ),
    Key::new("node.advertise_addr", Kind::Address, computed("rpc.listen_addr", "10.0.0.1:5690"))
        .flag("--advertise-addr")
        .help("Where the others reach this node; set it when rpc.listen_addr is 0.0.0.0 or is translated."),
    Key::new("node.priority", int(0, 1000), Fallback::Integer(100))
        .help("At a vacancy the highest priority leads; 0 never leads, which suits an observer."),
    Key::new("node.failback_delay_secs", int(0, YEAR_SECS), Fallback::Integer(0)).seconds().help(
        "A leader makes way for a member of a higher priority that has been there for this long and is ready, \
         at most once in 5 minutes; 0: it never does, because a change of leader is never free.",
    ),
    Key::new("node.guardian", Kind::Switch, Fallback::Switch(true)).help(
        "A small process that frees the leader's seat in milliseconds when this one dies, and looks after the \
         program of `metad run`. Without it a crash is noticed only when the lease ends.",
    ),
    Key::new("node.reserved_descriptors", int(32, 1_000_000), Fallback::Integer(100)).help(
        "So many file descriptors are kept for the store, the data dir and the program: connections of clients share \
         what is left of the process's limit (ulimit -n, whose soft limit is raised to the hard one).",
    ),
    Key::new("meta.meta_leader_lease_secs", int(3, YEAR_SECS), Fallback::Integer(15))
        .seconds()
        .flag("--meta-leader-lease-secs")
        .help(
            "The lease on leadership: a leader that cannot renew it for this long ends itself. \
             Longer survives longer stalls, shorter replaces a dead machine sooner.",
        ),
    Key::new("meta.group", Kind::Name, Fallback::Text("meta"))
        .help("The election's name in the store, the same on all members of a cluster: two names are two leaders."),
    Key::new("meta.stop_timeout_secs", int(1, HOUR_SECS), Fallback::Integer(10)).seconds().help(
        "Time the main loop gets to end on a planned stop; raise it when the payload has much to save.",
    ),
    Key::new("meta.start_timeout_secs", int(1, HOUR_SECS), Fallback::Integer(10))
        .seconds()
        .help("Time a new leader gets to start its main loop, before it gives the leadership up to another."),
    Key::new("meta.main_loop_timeout_secs", int(0, HOUR_SECS), Fallback::Integer(60)).seconds().help(
        "A main loop that gives no sign of life for this long has hung: it is ended and leadership is given up. \
         The built-in loop gives them; a program is watched from its first WATCHDOG=1 (sd_notify) on, a library's \
         loop from its first heartbeat() on. 0: nobody is watched.",
    ),
    Key::new("meta.restart", Kind::Choice(&["no", "on-failure"]), Fallback::Text("no")).flag("--restart").help(
        "With on-failure a program of `metad run` that fails is started again, under the same leadership, after a \
         pause that grows from 0.5 s to 30 s. With no its end gives leadership up and ends the node.",
    ),
    Key::new("meta.tick_interval_ms", int(0, MINUTE_MS), Fallback::Integer(0)).milliseconds().help(
        "The built-in main loop writes the key state/tick once per interval, under its fencing token, as a sign of \
         life in the store itself; at most the lease. 0: never, so that an idle leader writes nothing.",
    ),
    Key::new("meta.max_heartbeat_interval_secs", int(1, HOUR_SECS), Fallback::Integer(60))
        .seconds()
        .help("A worker that is not heard of for this long expires. A new leader gives all of them this long."),
    Key::new("meta.barrier_interval_ms", int(10, HOUR_MS), Fallback::Integer(1000))
        .milliseconds()
        .help("Time between two barriers. Shorter commits sooner and writes more often."),
    Key::new("meta.checkpoint_frequency", int(1, 1_000_000), Fallback::Integer(1))
        .help("Every n-th barrier is a checkpoint, beginning with the first of each leader."),
    Key::new("meta.barrier_collect_timeout_ms", int(10, HOUR_MS), Fallback::Integer(10_000))
        .milliseconds()
        .help("A barrier that a worker has not collected by then is dropped, and the worker reported."),
    Key::new("meta.barrier_failures_max", int(1, 1_000_000), Fallback::Integer(3)).help(
        "After so many barriers in a row that were dropped because of one worker, barriers wait for it no longer, until \
         it has collected one in time.",
    ),
    Key::new("meta.in_flight_barrier_nums", int(1, 1000), Fallback::Integer(10))
        .help("When so many barriers wait for their workers, no more are sent until one is done."),
    Key::new("store.kind", Kind::Choice(&["sqlite", "etcd"]), computed(KIND_RULE, "etcd"))
        .flag("--store")
        .help("etcd elects among machines, SQLite among processes of one machine."),
    Key::new("store.etcd.endpoints", Kind::Endpoints, Fallback::EmptyList)
        .flag("--etcd-endpoints")
        .help("Every etcd member: metad talks to each one directly, so that one hung member costs nothing."),
    Key::new("store.etcd.ca_file", Kind::Path, unset("the system's authorities", "/etc/metad/ca.pem")).help(
        "PEM file with the authority that signed etcd's certificates; a bare host:port then means https.",
    ),
    Key::new("store.etcd.cert_file", Kind::Path, unset("we show no certificate", "/etc/metad/client.pem"))
        .help("PEM file with our certificate, for an etcd that asks for one; needs key_file."),
    Key::new("store.etcd.key_file", Kind::Path, unset("we show no certificate", "/etc/metad/client.key"))
        .help("PEM file with the private key of cert_file."),
    Key::new("store.etcd.username", Kind::Text, unset("no login", "metad"))
        .help("The etcd user, for an etcd with auth enabled; needs password_file."),
    Key::new("store.etcd.password_file", Kind::Path, unset("no login", "/etc/metad/etcd-password"))
        .help("The file with the password. No key holds the password itself, so that no dump can show it."),
    Key::new("store.etcd.connect_timeout_ms", int(10, MINUTE_MS), Fallback::Integer(1000))
        .milliseconds()
        .help("Time a TCP connection to one member may take; raise it only on a slow network."),
    Key::new("store.etcd.request_timeout_ms", int(10, MINUTE_MS), Fallback::Integer(3000))
        .milliseconds()
        .help(
            "Time one request may take; at most the lease, since a later answer is of no use. \
             The keep-alive has rules of its own.",
        ),
    Key::new("store.etcd.start_timeout_secs", int(1, HOUR_SECS), Fallback::Integer(10))
        .seconds()
        .help("How long to wait for etcd at start; then the process ends with exit code 69."),
    Key::new("store.sqlite.path", Kind::Path, computed("<data_dir>/metad.db", "/var/lib/metad/metad.db"))
        .help(
            "The database file, on a local file system. Nodes of one machine elect among themselves \
             only when all of them are given the same file.",
        ),
    Key::new("store.sqlite.busy_timeout_ms", int(1, MINUTE_MS), Fallback::Integer(2000))
        .milliseconds()
        .help("How long to wait for another process that holds the file's lock; at most the lease."),
    Key::new("rpc.listen_addr", Kind::Address, Fallback::Text("127.0.0.1:5690"))
        .flag("--listen-addr")
        .help("Where gRPC listens; port 0 lets the system choose."),
    Key::new("rpc.max_connections", int(1, 1_000_000), Fallback::Integer(10_000)).help(
        "The most connections at once. Where there is no room, the one that has been idle for the longest makes way.",
    ),
    Key::new("rpc.max_connections_per_address", int(1, 1_000_000), Fallback::Integer(5000))
        .help("The same for the connections of one address."),
    Key::new("rpc.max_requests", int(1, 1_000_000), Fallback::Integer(20_000))
        .help("The most calls under way at once, open streams included; more are refused with RESOURCE_EXHAUSTED."),
    Key::new("rpc.max_requests_per_connection", int(1, 100_000), Fallback::Integer(256))
        .help("The same for the calls of one connection; further ones wait at the client."),
    Key::new("rpc.max_costly_requests_per_sec", int(1, 1_000_000), Fallback::Integer(1000))
        .help("The most calls per second that show many things at once: List, Range, Watch, History, Observe, Events."),
    Key::new("rpc.max_bytes_in_flight_mib", int(8, 65_536), Fallback::Integer(64))
        .help("How many mebibytes the requests that are being read may have in all; more are refused."),
    Key::new("rpc.first_request_timeout_secs", int(1, HOUR_SECS), Fallback::Integer(10))
        .seconds()
        .help("Time from a connection to its first whole request, handshake and headers included."),
    Key::new("rpc.idle_timeout_secs", int(1, 86_400), Fallback::Integer(900))
        .seconds()
        .help("A connection on which nothing was asked for this long, and no stream is open, is closed."),
    Key::new("rpc.write_timeout_secs", int(1, HOUR_SECS), Fallback::Integer(30))
        .seconds()
        .help("A connection whose client takes nothing of what is to be sent for this long is closed."),
    Key::new("http.listen_addr", Kind::Address, Fallback::Text("127.0.0.1:5691"))
        .flag("--http-addr")
        .help("Where HTTP listens, apart from gRPC so that a probe never waits behind it; port 0 as above."),
    Key::new("http.max_connections", int(1, 1_000_000), Fallback::Integer(1000)).help(
        "The most connections at once, as for gRPC; a few more are kept for /livez, /readyz and /healthz alone.",
    ),
    Key::new("http.max_connections_per_address", int(1, 1_000_000), Fallback::Integer(500))
        .help("The same for the connections of one address."),
    Key::new("http.max_costly_requests_per_sec", int(1, 1_000_000), Fallback::Integer(200))
        .help("The most requests per second for /metrics and below /api/."),
    Key::new("http.idle_timeout_secs", int(1, 86_400), Fallback::Integer(60)).seconds().help(
        "A connection on which nothing was asked for this long is closed. A new one gets a sixth of it, and a second \
         at least, for its first request.",
    ),
    Key::new("http.max_event_readers", int(1, 10_000), Fallback::Integer(64)).help(
        "How many may follow /api/v1/events at once; the one that has followed for the longest makes way for the next.",
    ),
    Key::new("http.allowed_hosts", Kind::Text, unset("none besides", "meta.example.com,meta.example.org")).help(
        "Host names under which the page may be asked for, separated by commas. Addresses, names without a dot and \
         names that only a network of one's own has (.local, .internal, .svc, …) always work; others are refused, so \
         that no web site can read this page through the browser of somebody who can reach it.",
    ),
    Key::new("log.filter", Kind::Text, Fallback::Text("info")).help(
        "Levels and modules, as in RUST_LOG, e.g. metad=debug,info.",
    ),
    Key::new("log.format", Kind::Choice(&["auto", "text", "json"]), Fallback::Text("auto"))
        .help("auto is text on a terminal and JSON elsewhere."),
    Key::new("checks.interval_secs", int(0, HOUR_SECS), Fallback::Integer(60))
        .seconds()
        .help("How often a running node makes the cheap checks; 0: never."),
    Key::new("checks.expected_members", int(0, 1000), Fallback::Integer(0))
        .help("How many meta nodes there should be; 0: as many as are registered."),
    Key::new("checks.max_leader_changes", int(0, 1000), Fallback::Integer(1))
        .help("More unplanned changes of the leader within the window are flapping."),
    Key::new("checks.leader_change_window_secs", int(1, 86_400), Fallback::Integer(600))
        .seconds()
        .help("The window in which changes of the leader are counted."),
    Key::new("checks.fsync_p99_ms", int(1, MINUTE_MS), Fallback::Integer(10))
        .milliseconds()
        .help("A disk whose slowest percent of syncs takes longer is slow: etcd's log, and our data dir."),
    Key::new("checks.commit_p99_ms", int(1, MINUTE_MS), Fallback::Integer(25))
        .milliseconds()
        .help("The same for the commits of etcd's database."),
    Key::new("checks.rtt_p99_ms", int(1, MINUTE_MS), Fallback::Integer(50))
        .milliseconds()
        .help("A round trip between members, or to one, that takes longer is slow."),
    Key::new("checks.clock_skew_ms", int(1, MINUTE_MS), Fallback::Integer(50))
        .milliseconds()
        .help("Clocks of two members that differ by more are skewed."),
    Key::new("checks.db_size_percent", int(1, 100), Fallback::Integer(80))
        .help("etcd's database is nearly full when it takes more of its quota, in percent."),
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

    const fn flag(self, flag: &'static str) -> Self {
        Self { flag: Some(flag), ..self }
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
            Kind::Text => "a text".to_owned(),
            Kind::Path => "a path".to_owned(),
            Kind::Address => "host:port".to_owned(),
            Kind::Endpoints => "a list of host:port, http://host:port or https://host:port".to_owned(),
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
            Fallback::EmptyList => "10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379".to_owned(),
            Fallback::Computed { example, .. } | Fallback::Unset { example, .. } => example.to_owned(),
        }
    }
}
