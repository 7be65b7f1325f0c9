//! Bad input, one row each: a clear message that names the value and the fix, the right exit code, no panic, no
//! backtrace, and nothing written outside the data dir.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support;
use crate::support::etcd::EtcdCluster;
use crate::support::poll::wait_until;
use crate::support::spawn;

/// Long enough for the slowest row (a store that does not answer is waited for).
const PATIENCE: Duration = Duration::from_secs(60);

/// One row: arguments (`DIR` stands for a fresh folder), a configuration file, what must come out.
#[derive(Default)]
struct Row {
    name: &'static str,
    args: Vec<String>,
    env: Vec<(&'static str, String)>,
    config: Option<String>,
    code: i32,
    says: Vec<String>,
}

fn row(name: &'static str, code: i32, args: &[&str], says: &[&str]) -> Row {
    let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
    Row { name, code, args: own(args), says: own(says), ..Row::default() }
}

fn file(name: &'static str, config: &str, says: &[&str]) -> Row {
    Row { config: Some(config.to_owned()), ..row(name, 78, &[], says) }
}

/// Runs `metad serve` (or what the row says) in a folder of its own and judges what it did.
fn judge(row: &Row) {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("cwd");
    std::fs::create_dir(&dir).expect("a folder");
    let mut command = spawn::metad_command();
    let mut args: Vec<String> =
        row.args.iter().map(|a| a.replace("DIR", &dir.display().to_string())).collect();
    if args.first().is_none_or(|a| a.starts_with('-')) {
        args.insert(0, "serve".into());
    }
    if args[0] == "serve" {
        for default in [["--listen-addr", "127.0.0.1:0"], ["--http-addr", "127.0.0.1:0"], ["--node-id", "n"]]
        {
            if !args.iter().any(|a| a == default[0]) && row.name != "an unusable host name" {
                args.extend(default.map(str::to_owned));
            }
        }
    }
    if let Some(config) = &row.config {
        let path = folder.path().join("metad.toml");
        std::fs::write(&path, config).expect("a file");
        args.extend(["--config".to_owned(), path.display().to_string()]);
    }
    command.args(&args).envs(row.env.iter().cloned()).env("RUST_BACKTRACE", "1").current_dir(&dir);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = spawn::output(command, PATIENCE);
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let context = format!("{}: {args:?}\n{said}", row.name);
    assert_eq!(output.status.code(), Some(row.code), "{context}");
    for what in &row.says {
        assert!(said.contains(what.as_str()), "must say {what:?}: {context}");
    }
    assert!(!said.contains("panicked") && !said.contains("stack backtrace"), "{context}");
    let written: Vec<_> =
        std::fs::read_dir(&dir).expect("a folder").map(|e| e.expect("an entry").file_name()).collect();
    assert!(written.iter().all(|f| f == "n.metad"), "written outside the data dir: {written:?}: {context}");
}

fn judge_all(rows: Vec<Row>) {
    assert!(!rows.is_empty());
    std::thread::scope(|s| {
        for row in &rows {
            s.spawn(move || judge(row));
        }
    });
}

#[test]
fn command_lines() {
    judge_all(vec![
        row("no command", 64, &["nonsense"], &["nonsense", "Usage"]),
        row(
            "an unknown flag",
            64,
            &["--meta-leader-lease-sec", "3"],
            &["--meta-leader-lease-sec", "--meta-leader-lease-secs"],
        ),
        row("run without a program", 64, &["run"], &["CMD"]),
        row("an unknown output", 64, &["status", "-o", "xml"], &["xml", "json"]),
        Row {
            env: vec![("METAD_LOG__FILTER", "a=b=c".into())],
            ..row("a log filter that serve would refuse", 78, &["config", "check"], &["a=b=c", "log.filter"])
        },
        row("a guardian without a store", 78, &["guardian", "--socket", "g.sock"], &["--etcd-endpoints"]),
        Row {
            env: vec![("METAD_NODE__GUARDIAN_SOCKET", "g.sock".into())],
            ..row(
                "a guardian beside what is no container",
                78,
                &["serve"],
                &["node.guardian_socket", "entry point"],
            )
        },
        row("wait for nothing", 64, &["wait", "godot"], &["godot", "leader"]),
        row("a lease of 0", 78, &["--meta-leader-lease-secs", "0"], &["0", "3", "--meta-leader-lease-secs"]),
        row("a lease of 2", 78, &["--meta-leader-lease-secs", "2"], &["2", "3"]),
        row("a lease of -1", 78, &["--meta-leader-lease-secs", "-1"], &["-1", "3"]),
        row("a lease of 10^12", 78, &["--meta-leader-lease-secs", "1000000000000"], &["1000000000000"]),
        row("a lease of words", 78, &["--meta-leader-lease-secs", "long"], &["long"]),
        row("no endpoints", 78, &["--store", "etcd"], &["--etcd-endpoints"]),
        row("an empty endpoint", 78, &["--etcd-endpoints", "a:1,,b:2"], &["endpoint"]),
        row("an endpoint without a port", 78, &["--etcd-endpoints", "localhost"], &["localhost", "port"]),
        row("an endpoint of another scheme", 78, &["--etcd-endpoints", "ftp://a:1"], &["ftp://a:1"]),
        row("a port that is none", 78, &["--etcd-endpoints", "a:99999"], &["99999"]),
        row("an unknown store", 78, &["--store", "redis"], &["redis", "sqlite", "etcd"]),
        row("a node id with a slash", 78, &["--node-id", "a/b"], &["a/b"]),
        row("a listen address without a port", 78, &["--listen-addr", "localhost"], &["localhost"]),
        row(
            "somebody else's address",
            78,
            &["--listen-addr", "192.0.2.1:5690", "--advertise-addr", "h:1"],
            &["192.0.2.1:5690", "--listen-addr"],
        ),
        row("nobody to ask", 1, &["status", "--meta", "127.0.0.1:1"], &["127.0.0.1:1", "running"]),
        row("a malformed member", 1, &["status", "--meta", "not an address"], &["not an address"]),
        row(
            "a wait that is over",
            1,
            &["wait", "leader", "--meta", "127.0.0.1:1", "--timeout", "300ms"],
            &["no leader", "127.0.0.1:1"],
        ),
        row("an unhealthy node", 1, &["health", "--meta", "127.0.0.1:1"], &["127.0.0.1:1"]),
    ]);
}

#[test]
fn configuration_files() {
    judge_all(vec![
        file("malformed TOML", "[meta\nmeta_leader_lease_secs = 5\n", &["metad.toml", "line 1", "^"]),
        file(
            "an unknown key",
            "[meta]\nmeta_leader_lease_sec = 5\n",
            &["meta_leader_lease_sec", ":2", "meta_leader_lease_secs"],
        ),
        file("an unknown section", "[mata]\nx = 1\n", &["mata", "meta"]),
        file("a wrong type", "[meta]\nmeta_leader_lease_secs = \"15s\"\n", &["meta_leader_lease_secs", ":2"]),
        file("out of range", "[meta]\nmeta_leader_lease_secs = 2\n", &["meta_leader_lease_secs", "2", ":2"]),
        file("empty endpoints", "[store]\nkind = \"etcd\"\n[store.etcd]\nendpoints = []\n", &["endpoints"]),
        file(
            "a certificate without a key",
            "[store.etcd]\nendpoints=[\"https://a:1\"]\ncert_file=\"c\"\n",
            &["key_file"],
        ),
        file("a bad log filter", "[log]\nfilter = \"info,=nonsense=\"\n", &["log.filter", "=nonsense="]),
        file(
            "a missing CA",
            "[store.etcd]\nendpoints=[\"https://127.0.0.1:1\"]\nca_file=\"/nowhere/ca.pem\"\n",
            &["/nowhere/ca.pem", "ca_file"],
        ),
        row("a missing file", 78, &["--config", "/nowhere/metad.toml"], &["/nowhere/metad.toml"]),
        Row {
            env: vec![("METAD_META__META_LEADER_LEASE_SECS", "soon".into())],
            ..row("a bad variable", 78, &[], &["METAD_META__META_LEADER_LEASE_SECS", "soon"])
        },
        Row {
            env: vec![("METAD_META__LEASE", "5".into())],
            ..row("an unknown variable", 78, &[], &["METAD_META__LEASE"])
        },
        row(
            "config check says it too",
            78,
            &["config", "check", "--meta-leader-lease-secs", "1"],
            &["1", "3"],
        ),
    ]);
}

#[test]
fn ports_and_disks() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let folder = tempfile::tempdir().expect("a folder");
    let not_a_folder = folder.path().join("file");
    std::fs::write(&not_a_folder, "x").expect("a file");
    let below = not_a_folder.join("data").display().to_string();
    let foreign = folder.path().join("foreign.db");
    make_foreign_database(&foreign);
    let junk = folder.path().join("junk.db");
    std::fs::write(&junk, "this is no database, and long enough to be looked at".repeat(50)).expect("a file");
    let sqlite = |name, path: &Path, code, says: &[&str]| Row {
        env: vec![("METAD_STORE__SQLITE__PATH", path.display().to_string())],
        ..row(name, code, &[], says)
    };
    judge_all(vec![
        row("a port in use", 73, &["--listen-addr", &address], &[&address, "--listen-addr"]),
        row("an HTTP port in use", 73, &["--http-addr", &address], &[&address, "--http-addr"]),
        row("an unwritable data dir", 74, &["--data-dir", &below], &[&below, "--data-dir"]),
        row("a read-only data dir", 74, &["--data-dir", "/proc/metad"], &["/proc/metad", "--data-dir"]),
        sqlite("somebody else's database", &foreign, 78, &["foreign.db", "not a metad store"]),
        sqlite("no database at all", &junk, 78, &["junk.db", "not a metad store"]),
        sqlite("a database in no folder", Path::new("/nowhere/metad.db"), 74, &["/nowhere/metad.db"]),
    ]);
}

fn make_foreign_database(path: &Path) {
    let done = Command::new("sqlite3").arg(path).arg("CREATE TABLE t (x)").status();
    if done.is_ok_and(|s| s.success()) {
        return;
    }
    // Without the sqlite3 tool: the library that metad uses.
    let connection = rusqlite::Connection::open(path).expect("a database");
    connection.execute_batch("CREATE TABLE t (x)").expect("a table");
}

#[test]
fn an_etcd_that_refuses_the_login() {
    let etcd = EtcdCluster::start(1);
    etcd.enable_auth("metad", "right");
    let folder = tempfile::tempdir().expect("a folder");
    let password = |text: &str| {
        let path = folder.path().join(text);
        std::fs::write(&path, text).expect("a file");
        ("METAD_STORE__ETCD__PASSWORD_FILE", path.display().to_string())
    };
    let user = |name: &str| ("METAD_STORE__ETCD__USERNAME", name.to_owned());
    let endpoint = etcd.endpoint(0);
    let asked = ["--etcd-endpoints", endpoint.as_str()];
    judge_all(vec![
        row("no login", 77, &asked, &["username"]),
        Row {
            env: vec![user("metad"), password("wrong")],
            ..row("a wrong password", 77, &asked, &["password_file"])
        },
        Row { env: vec![user("nobody"), password("x")], ..row("an unknown user", 77, &asked, &["username"]) },
        Row {
            env: vec![user("metad"), password("right"), ("METAD_NODE__CLUSTER", "x".into())],
            ..row(
                "the right one, no permission is missing",
                0,
                &["config", "check", asked[0], asked[1]],
                &["valid"],
            )
        },
    ]);
    // No secret was said: the rows above print everything, and none may contain a password.
    let node = support::node::NodeBuilder::new("n").etcd(&etcd);
    let node = [user("metad"), password("right")].into_iter().fold(node, |n, (k, v)| n.env(k, v)).spawn();
    node.wait_for("main_loop_started", PATIENCE); // twin: the right login works
    assert!(!node.stderr().contains("right"), "{}", node.stderr());
}

#[test]
fn an_etcd_that_is_full() {
    let etcd = EtcdCluster::builder().members(1).arg("--quota-backend-bytes=65536").start();
    let value = "x".repeat(16 * 1024);
    wait_until("the NOSPACE alarm", PATIENCE, || {
        etcd.etcdctl(&["put", "fill", &value]);
        String::from_utf8_lossy(&etcd.etcdctl(&["alarm", "list"]).stdout).contains("NOSPACE")
    });
    let quick = ("METAD_STORE__ETCD__START_TIMEOUT_SECS", "1".to_owned());
    let endpoint = etcd.endpoint(0);
    let asked = ["--etcd-endpoints", endpoint.as_str()];
    judge_all(vec![Row {
        env: vec![quick],
        ..row("full", 69, &asked, &["NOSPACE", "etcdctl alarm disarm"])
    }]);
}

/// Speaks with its own words: what a member that can serve nobody says is the cause, and no quorum is missed.
fn assert_says_why(name: &'static str, endpoint: &str, says: &[&str]) {
    let quick = ("METAD_STORE__ETCD__START_TIMEOUT_SECS", "2".to_owned());
    let row = Row { env: vec![quick], ..row(name, 69, &["--etcd-endpoints", endpoint], says) };
    judge(&row);
    let node = support::node::NodeBuilder::new("n").endpoints([endpoint]);
    let node = node.env("METAD_STORE__ETCD__START_TIMEOUT_SECS", "2").spawn();
    assert_eq!(node.wait_exit(PATIENCE), 69, "{}", node.report());
    assert!(!node.stderr().contains("lost its quorum"), "{name}: {}", node.stderr());
}

#[test]
fn an_etcd_that_is_corrupt() {
    let etcd = EtcdCluster::start(1);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        use etcd_client::{AlarmAction, AlarmType, Client};
        let mut client = Client::connect([etcd.endpoint(0)], None).await.expect("connected");
        client.alarm(AlarmAction::Activate, AlarmType::Corrupt, None).await.expect("raised");
    });
    assert_says_why("corrupt", &etcd.endpoint(0), &["corrupt"]);
}

#[test]
fn an_etcd_member_that_is_a_learner() {
    let etcd = EtcdCluster::start(1);
    let [client, peer] = [support::ports::Port::reserve(), support::ports::Port::reserve()];
    let [client_url, peer_url] = [&client, &peer].map(|port| format!("http://{}", port.addr()));
    let added =
        etcd.etcdctl_ok(&["member", "add", "learner", "--learner", &format!("--peer-urls={peer_url}")]);
    let existing = added.lines().find_map(|l| l.strip_prefix("ETCD_INITIAL_CLUSTER=\"")).expect("a cluster");
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = std::process::Command::new(etcd.program());
    command.args(["--name=learner", "--initial-cluster-state=existing", "--log-level=error"]);
    command.arg("--data-dir").arg(folder.path());
    for (name, value) in [
        ("initial-cluster", existing.trim_end_matches('"')),
        ("listen-client-urls", &client_url),
        ("advertise-client-urls", &client_url),
        ("listen-peer-urls", &peer_url),
        ("initial-advertise-peer-urls", &peer_url),
    ] {
        command.arg(format!("--{name}={value}"));
    }
    let _learner = spawn::Killed(spawn::spawn(command).expect("etcd"));
    wait_until("the learner answers", PATIENCE, || std::net::TcpStream::connect(client.addr()).is_ok());
    assert_says_why("learner", &client.addr().to_string(), &["learner"]);
}
