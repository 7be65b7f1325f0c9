//! Who may do what: every attempt of somebody who may not is refused, with the right status and an event, and costs the leader
//! nothing.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use metad::client::{MemberClient, MetaClient, WorkerSpec};
use metad::tls::client::Credentials;
use tempfile::TempDir;

use crate::support::crew::{PATIENCE, leads, report, tenures, wait_until_all_know_all};
use crate::support::etcd::EtcdCluster;
use crate::support::node::{Node, NodeBuilder};
use crate::support::papers::{Papers, Shown};
use crate::support::poll::{holds_within, wait_until};
use crate::support::{spawn, usage};

const LEASE_SECS: u64 = 5;
/// Longer than files that have changed are unnoticed.
const NOTICED: Duration = Duration::from_secs(20);
/// How many connections never begin a handshake.
const HALF_OPEN: usize = 1000;
const RSS_MAX_MB: f64 = 100.0;
/// How long a call may take while everything is rotated.
const CALL_MAX: Duration = Duration::from_secs(5);

struct Cluster {
    nodes: Vec<Node>,
    papers: Papers,
    etcd: EtcdCluster,
    dir: TempDir,
}

// === impl Cluster ===

impl Cluster {
    /// n1 leads, n2 follows; `tokens`: role, name, file.
    fn start(tokens: &[(&str, &str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let papers = Papers::create(&dir.path().join("papers"), &["n1", "n2"]);
        papers.make_tokens(tokens);
        let etcd = EtcdCluster::start(1);
        let mut nodes = Vec::new();
        for id in ["n1", "n2"] {
            nodes.push(papers.of(NodeBuilder::new(id).etcd(&etcd).lease_secs(LEASE_SECS)).spawn());
            nodes[0].wait_for("main_loop_started", PATIENCE);
        }
        wait_until_all_know_all(&nodes);
        Self { nodes, papers, etcd, dir }
    }

    fn run(&self, args: &[&str], node: usize, shown: &Shown) -> (i32, String) {
        let mut command = spawn::metad_command();
        command.args(args).args(["--meta", &self.nodes[node].rpc_addr().to_string()]).args(shown);
        let output = spawn::output(command, PATIENCE);
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        (output.status.code().unwrap_or(-1), said.concat())
    }

    fn credentials(&self, name: &str) -> Credentials {
        self.papers.credentials(Some(name), None)
    }

    /// It was refused in these words, and the node has told so.
    #[track_caller]
    fn assert_refused(&self, what: &str, (code, said): (i32, String), words: &str, event: &str) {
        assert_eq!(code, 1, "{what}: {said}");
        assert!(said.contains(words), "{what}: {words:?} in {said}");
        self.assert_told(what, event);
    }

    #[track_caller]
    fn assert_told(&self, what: &str, event: &str) {
        let tells = |node: &Node| {
            let events = node.events();
            events.iter().any(|e| e.kind() == "call_refused" && e.json.to_string().contains(event))
        };
        let is_told = holds_within(PATIENCE, || self.nodes.iter().any(tells));
        assert!(is_told, "{what}: no event with {event:?}\n{}", report(&self.nodes));
    }

    /// Nothing of all that has cost the leader anything.
    #[track_caller]
    fn assert_untouched(&self) {
        assert!(leads(&self.nodes[0]), "{}", report(&self.nodes));
        assert_eq!(tenures(&self.nodes).len(), 1);
    }
}

fn block_on<T>(limit: Duration, future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(limit, future).await.expect("in time") })
}

fn spec(host: &str) -> WorkerSpec {
    WorkerSpec { host: host.into(), port: 7, kind: "compute".into(), labels: [].into() }
}

// === the attempts ===

#[test]
fn who_shows_nothing_or_something_bad_is_refused() {
    let cluster = Cluster::start(&[]);
    let (papers, status) = (&cluster.papers, ["status"]);
    let others = Papers::create(&papers.path("others"), &["n1"]);
    papers.sign("expired", &["metad:admin"], true);
    papers.sign("no-role", &["spiffe://cluster/admin"], false);

    let refused = cluster.run(&status, 0, &papers.nothing());
    cluster.assert_refused(
        "no certificate",
        refused,
        "neither a client certificate nor a token",
        "neither a client",
    );
    let mut foreign = others.certificate("admin");
    foreign[1] = papers.path("ca.pem").display().to_string();
    let refused = cluster.run(&status, 0, &foreign);
    cluster.assert_refused(
        "another authority's certificate",
        refused,
        "does not accept the certificate of this client",
        "BadSignature",
    );
    let refused = cluster.run(&status, 0, &papers.certificate("expired"));
    cluster.assert_refused("an expired certificate", refused, "has expired", "certificate expired");
    let refused = cluster.run(&status, 0, &papers.certificate("no-role"));
    cluster.assert_refused(
        "a certificate without a role",
        refused,
        "without a role",
        "spiffe://cluster/admin",
    );
    let (code, said) = cluster.run(&status, 0, &others.nothing());
    assert_eq!((code, said.contains("not signed by the CA in tls.ca_file")), (1, true), "{said}");

    let (code, said) = cluster.run(&status, 0, &papers.certificate("reader"));
    assert_eq!(code, 0, "a reader may read: {said}");
    cluster.assert_untouched();
}

#[test]
fn a_role_is_for_what_it_is_for() {
    let cluster = Cluster::start(&[("worker", "h1", "h1.token")]);
    let papers = &cluster.papers;
    for (name, grant) in
        [("worker", "worker"), ("reader", "reader"), ("writer", "writer"), ("n2", "member:n2")]
    {
        let refused = cluster.run(&["step-down", "--yes"], 0, &papers.certificate(name));
        let event = format!("{grant} at 127.0.0.1 does not have the role admin");
        cluster.assert_refused(name, refused, "does not have the role admin", &event);
    }
    let lead = cluster.nodes[0].rpc_addr().to_string();
    let follow = cluster.nodes[1].rpc_addr().to_string();
    block_on(PATIENCE * 2, async {
        let token = {
            let mut client =
                MemberClient::lazy(&lead, &cluster.credentials("reader"), PATIENCE).expect("a client");
            client.leader().await.expect("an answer").leader.expect("a leader").token
        };
        // Only a member may ask another one to stand ready, and of the members only the leader.
        for (who, words) in
            [("admin", "does not have the role member"), ("n2", "may not prepare a hand-over: n1 leads")]
        {
            let mut client =
                MemberClient::lazy(&follow, &cluster.credentials(who), PATIENCE).expect("a client");
            let refused = client.prepare(token).await.expect_err("refused").to_string();
            assert!(refused.contains(words), "{who}: {refused}");
        }
        let mut leader = MemberClient::lazy(&follow, &cluster.credentials("n1"), PATIENCE).expect("a client");
        assert!(leader.prepare(token).await.is_ok_and(|answer| answer.ready), "twin: the leader may");

        let meta = |with: Credentials| {
            MetaClient::new([lead.clone()]).expect("a client").credentials(with).deadline(NOTICED)
        };
        let refused = meta(cluster.credentials("worker")).put("k", b"v".to_vec()).await.expect_err("refused");
        assert!(refused.to_string().contains("does not have the role writer"), "{refused}");
        meta(cluster.credentials("writer")).put("k", b"v".to_vec()).await.expect("twin: a writer may");
        let refused =
            meta(cluster.credentials("writer")).register_worker(spec("h2")).await.expect_err("refused");
        assert!(refused.to_string().contains("does not have the role worker"), "{refused}");

        // A worker that is known by its host is no other one.
        let other = meta(cluster.credentials("worker"))
            .register_worker(spec("h2"))
            .await
            .expect("any worker")
            .worker_id;
        let h1 = meta(papers.credentials(None, Some("h1.token")));
        let refused = h1.register_worker(spec("h2")).await.expect_err("refused");
        assert!(refused.to_string().contains("may not act for the worker at h2:7"), "{refused}");
        let own = h1.register_worker(spec("h1")).await.expect("itself").worker_id;
        h1.heartbeat(own).await.expect("itself");
        for refused in [
            h1.heartbeat(other).await.expect_err("refused"),
            h1.deregister(other).await.expect_err("refused"),
        ] {
            assert!(refused.to_string().contains("may not act for the worker at h2:7"), "{refused}");
        }
    });
    cluster.assert_told("an admin's prepare", "admin at 127.0.0.1 does not have the role member");
    cluster
        .assert_told("a follower's prepare", "member:n2 at 127.0.0.1 may not prepare a hand-over: n1 leads");
    cluster.assert_told("put", "worker at 127.0.0.1 does not have the role writer");
    cluster
        .assert_told("another's worker", "worker:h1 (token) at 127.0.0.1 may not act for the worker at h2:7");
    cluster.assert_untouched();
    let (code, said) = cluster.run(&["step-down", "--yes"], 0, &papers.certificate("admin"));
    assert_eq!(code, 0, "an admin may: {said}");
    let by = |e: &crate::support::history::TimedEvent| e.kind() == "admin_action";
    let told = cluster.nodes[0].wait_event(by, PATIENCE);
    assert_eq!((&told.json["by"], &told.json["action"]), (&"admin at 127.0.0.1".into(), &"step-down".into()));
    assert_eq!(tenures(&cluster.nodes).len(), 2);
    let handed_over = cluster.nodes[1].events().iter().any(|e| e.json["reason"] == "handed_over");
    assert!(handed_over, "members hand over to each other as ever\n{}", report(&cluster.nodes));
}

#[test]
fn plain_text_and_tls_are_told_from_each_other() {
    let cluster = Cluster::start(&[]);
    let refused = cluster.run(&["status"], 0, &vec![]);
    cluster.assert_refused(
        "plain text to TLS",
        refused,
        "TLS is spoken there: set tls.ca_file (--tls-ca)",
        "it speaks no TLS",
    );
    let mut stream = TcpStream::connect(cluster.nodes[0].http_addr()).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("use https://"), "{answer}");

    // A session that could be resumed would not be verified again.
    let mut openssl = std::process::Command::new("sh");
    openssl.args(["-c", "sleep 1 | openssl s_client -connect $0 -alpn h2 -CAfile $1"]);
    openssl.arg(cluster.nodes[0].rpc_addr().to_string()).arg(cluster.papers.path("ca.pem"));
    let said = String::from_utf8_lossy(&spawn::output(openssl, PATIENCE).stdout).into_owned();
    assert!(said.contains("TLSv1.3") && !said.contains("Session Ticket arrived"), "{said}");

    let plain = NodeBuilder::new("plain").sqlite(cluster.dir.path().join("plain.db")).spawn();
    plain.wait_for("main_loop_started", PATIENCE);
    let mut command = spawn::metad_command();
    command.args(["status", "--meta", &plain.rpc_addr().to_string()]).args(cluster.papers.nothing());
    let output = spawn::output(command, PATIENCE);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("no TLS is spoken there: leave tls.ca_file (--tls-ca) out"), "{said}");
    cluster.assert_untouched();
}

#[test]
fn a_token_is_good_until_it_is_replaced() {
    let cluster = Cluster::start(&[("admin", "ops", "ops.token"), ("reader", "*", "reader.token")]);
    let papers = &cluster.papers;
    let ok = |file: &str| cluster.run(&["status"], 0, &papers.token(file)).0 == 0;
    assert!(ok("ops.token") && ok("reader.token"));
    std::fs::copy(papers.path("ops.token"), papers.path("stolen.token")).expect("a copy");
    std::fs::remove_file(papers.path("ops.token")).expect("removed");
    let fresh = papers.make_token("admin", "ops", "ops.token");
    papers.write_access(&[&fresh]);
    wait_until("the new one counts", NOTICED, || ok("ops.token"));
    let replayed = cluster.run(&["step-down", "--yes"], 0, &papers.token("stolen.token"));
    cluster.assert_refused("a token that was replaced", replayed, "is not known", "is not known");
    assert!(!ok("reader.token"), "one that was taken out");
    // A file that cannot be used replaces nothing.
    papers.write_access(&["admin ops not-a-hash\n"]);
    wait_until("it says so", NOTICED, || cluster.nodes[0].messages().contains("cannot be used"));
    assert!(ok("ops.token"));
    cluster.assert_untouched();
}

/// The page is for those who are known, too; probes are for everybody.
#[test]
fn http_shows_itself_to_those_who_are_known() {
    let cluster = Cluster::start(&[("reader", "grafana", "reader.token")]);
    let papers = &cluster.papers;
    let curl = |path: &str, more: &[String]| {
        let mut command = std::process::Command::new("curl");
        command.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--cacert"]).arg(papers.path("ca.pem"));
        command.args(more).arg(format!("https://{}{path}", cluster.nodes[0].http_addr()));
        String::from_utf8_lossy(&spawn::output(command, PATIENCE).stdout).into_owned()
    };
    for path in ["/", "/page/page.js", "/livez", "/readyz", "/explain/75"] {
        assert_eq!(curl(path, &[]), "200", "{path}");
    }
    let token = std::fs::read_to_string(papers.path("reader.token")).expect("a token");
    let header = ["-H".to_owned(), format!("Authorization: Bearer {}", token.trim())];
    let certificate = ["--cert", "--key"].iter().zip(["pem", "key"]).flat_map(|(flag, kind)| {
        [(*flag).to_owned(), papers.path(&format!("reader.{kind}")).display().to_string()]
    });
    let certificate: Vec<String> = certificate.collect();
    for path in ["/metrics", "/leader", "/api/v1/state", "/api/v1/history", "/api/v1/checks"] {
        assert_eq!(curl(path, &[]), "401", "{path}");
        assert_eq!(curl(path, &["-H".into(), "Authorization: Bearer x".into()]), "401", "{path}");
        assert_eq!(curl(path, &header), "200", "{path}");
        assert_eq!(curl(path, &certificate), "200", "{path}");
    }
    cluster.assert_told("the metrics", "/metrics");
    cluster.assert_untouched();
}

#[test]
fn handshakes_that_never_end_cost_nobody_anything() {
    let cluster = Cluster::start(&[]);
    let address = cluster.nodes[0].rpc_addr();
    let open: Vec<TcpStream> = (0..HALF_OPEN).filter_map(|_| TcpStream::connect(address).ok()).collect();
    assert!(open.len() > HALF_OPEN / 2, "{} connections", open.len());
    let begun: Vec<TcpStream> = (0..HALF_OPEN)
        .filter_map(|_| {
            let mut stream = TcpStream::connect(address).ok()?;
            stream.write_all(&[0x16, 3, 1, 2, 0, 1]).ok()?; // the beginning of a ClientHello
            Some(stream)
        })
        .collect();
    for _ in 0..3 {
        let (code, said) = cluster.run(&["status"], 0, &cluster.papers.certificate("reader"));
        assert_eq!(code, 0, "whoever asks is served: {said}");
    }
    assert!(usage::rss_mb(cluster.nodes[0].pid()) < RSS_MAX_MB);
    // Each ends by itself, or has made way.
    let counted = |limit: &str| -> f64 {
        let page = cluster.papers.get(cluster.nodes[0].http_addr(), "/metrics", PATIENCE).expect("metrics").1;
        let series = format!("metad_limits_reached_total{{listener=\"grpc\",limit=\"{limit}\"}} ");
        page.lines().find_map(|l| l.strip_prefix(&series)?.parse().ok()).unwrap_or(0.0)
    };
    let ended = || counted("first_request") + counted("made_way");
    wait_until("all have ended", PATIENCE, || ended() >= (open.len() + begun.len()) as f64);
    drop((open, begun));
    cluster.assert_untouched();
}

/// Certificates, the authority and tokens are replaced again and again under load: no call fails that a second try does not
/// hide, and leadership is kept. `METAD_TEST_ROTATION_SECS`: for how long, and `…_EVERY_SECS`: how often.
#[test]
fn everything_is_rotated_under_load() {
    let secs = |name: &str, otherwise: u64| {
        Duration::from_secs(std::env::var(name).ok().and_then(|s| s.parse().ok()).unwrap_or(otherwise))
    };
    let (so_long, every) = (secs("METAD_TEST_ROTATION_SECS", 8), secs("METAD_TEST_ROTATION_EVERY_SECS", 4));
    let cluster = Cluster::start(&[("writer", "load", "load.token")]);
    let papers = &cluster.papers;
    let with = papers.credentials(None, Some("load.token"));
    let (is_over, calls, failed) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(vec![])));
    let load = {
        let (is_over, calls, failed, with) = (is_over.clone(), calls.clone(), failed.clone(), with.clone());
        let addresses: Vec<String> = cluster.nodes.iter().map(|n| n.rpc_addr().to_string()).collect();
        std::thread::spawn(move || {
            block_on(so_long + PATIENCE, async {
                while !is_over.load(Ordering::Relaxed) {
                    // A client of its own now and then: connections are made all the time.
                    let client = MetaClient::new(addresses.clone())
                        .expect("a client")
                        .credentials(with.clone())
                        .deadline(CALL_MAX);
                    for _ in 0..10 {
                        let mut done = client.put("k", b"v".to_vec()).await;
                        if done.is_err() {
                            tokio::time::sleep(Duration::from_millis(1500)).await;
                            done = client.put("k", b"v".to_vec()).await;
                        }
                        if let Err(e) = done {
                            failed.lock().expect("a lock").push(e.to_string());
                        }
                        calls.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        })
    };
    // A connection that is open stays open.
    let mut watching = papers.token("load.token");
    watching.extend(["--meta".into(), cluster.nodes[0].rpc_addr().to_string()]);
    let mut watch = spawn::metad_command();
    watch.args(["watch", "-o", "json"]).args(watching);
    watch.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
    let mut watch = spawn::Killed(spawn::spawn(watch).expect("it starts"));
    let (began, mut rounds) = (Instant::now(), 0);
    while began.elapsed() < so_long {
        rotate(papers, rounds, &with, every);
        rounds += 1;
    }
    is_over.store(true, Ordering::Relaxed);
    load.join().expect("the load");
    assert!(watch.0.try_wait().is_ok_and(|ended| ended.is_none()), "it watches on");
    watch.0.kill().expect("killed");
    let mut complaints = String::new();
    watch.0.stderr.take().expect("piped").read_to_string(&mut complaints).expect("its words");
    assert_eq!(complaints, "", "it was never cut off");
    let failed = failed.lock().expect("a lock");
    let calls = calls.load(Ordering::Relaxed);
    println!("{rounds} rotations, {calls} calls, {} failed", failed.len());
    assert!(failed.is_empty(), "{failed:?}\n{}", report(&cluster.nodes));
    assert!(calls > 100 && rounds > 1, "{calls} calls in {rounds} rotations");
    assert!(cluster.nodes[0].messages().contains("they apply from now on"), "{}", report(&cluster.nodes));
    cluster.assert_untouched();
}

/// A new authority: first it is trusted beside the old one, then its certificates are used, then it is alone. A new token
/// likewise.
fn rotate(papers: &Papers, round: usize, client: &Credentials, every: Duration) {
    let fresh = Papers::create(&papers.path(&format!("round-{round}")), &["n1", "n2"]);
    let read = |path: PathBuf| std::fs::read_to_string(path).expect("a file");
    let replace = |name: &str, text: String| {
        std::fs::write(papers.path("new"), text).expect("written");
        std::fs::rename(papers.path("new"), papers.path(name)).expect("in its place");
    };
    let (old_line, new_line) =
        (read(papers.path("access")), papers.make_token("writer", "load", &format!("{round}.token")));
    replace("ca.pem", read(papers.path("ca.pem")) + &read(fresh.path("ca.pem")));
    replace("access", format!("{old_line}{new_line}"));
    std::thread::sleep(every / 3);
    client.reload().expect("credentials");
    for node in ["n1", "n2"] {
        // In two steps: for a moment the key is not that of the certificate.
        replace(&format!("{node}.pem"), read(fresh.path(&format!("{node}.pem"))));
        std::thread::sleep(Duration::from_millis(50));
        replace(&format!("{node}.key"), read(fresh.path(&format!("{node}.key"))));
    }
    replace("load.token", read(papers.path(&format!("{round}.token"))));
    client.reload().expect("credentials");
    std::thread::sleep(every / 3);
    replace("ca.pem", read(fresh.path("ca.pem")));
    replace("access", new_line);
    client.reload().expect("credentials");
    std::thread::sleep(every / 3);
}

/// No secret is anywhere but in its file.
#[test]
fn secrets_are_nowhere_to_be_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let papers = Papers::create(&dir.path().join("papers"), &["n1"]);
    papers.make_tokens(&[("admin", "ops", "ops.token"), ("member", "n1", "own.token")]);
    let seen = dir.path().join("seen");
    let program = format!("tr '\\0' '\\n' </proc/$$/environ >{}; exec sleep 1000", seen.display());
    let etcd = EtcdCluster::start(1);
    let node = papers
        .of(NodeBuilder::new("n1").etcd(&etcd).lease_secs(LEASE_SECS))
        .env("METAD_AUTH__TOKEN_FILE", papers.path("own.token"));
    let node = node.env("METAD_LOG__FILTER", "trace").payload(&["sh", "-c", &program]).spawn();
    node.wait_for("main_loop_started", PATIENCE);
    wait_until("the program has written", PATIENCE, || seen.metadata().is_ok_and(|m| m.len() > 0));
    let mut print = spawn::metad_command();
    print.args(["config", "print", "--origins"]).env("METAD_AUTH__TOKEN_FILE", papers.path("own.token"));
    let mut status = spawn::metad_command();
    status.args(["status", "--meta", &node.rpc_addr().to_string()]).args(papers.token("ops.token"));
    let status = spawn::output(status, PATIENCE);
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
    let token = std::fs::read_to_string(papers.path("ops.token")).expect("a token");
    let mut curl = std::process::Command::new("curl");
    curl.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--cacert"]).arg(papers.path("ca.pem"));
    curl.args(["-H", &format!("Authorization: Bearer {}", token.trim())]);
    curl.arg(format!("https://{}/metrics", node.http_addr()));
    assert_eq!(
        spawn::output(curl, PATIENCE).stdout,
        b"200",
        "a client that does not say that it is a secret"
    );
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let mut places = vec![node.stderr(), node.stdout(), text(spawn::output(print, PATIENCE).stdout)];
    places.push(std::fs::read_to_string(&seen).expect("the environment"));
    for pid in node.tree() {
        places.push(text(std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()));
    }
    places.push(format!("{:?}", papers.credentials(Some("admin"), Some("ops.token"))));
    assert!(
        places[0].len() > 1000 && places[3].contains("METAD_TOKEN"),
        "there is something to look through"
    );
    for file in ["ops.token", "own.token", "n1.key", "access"] {
        let secret = std::fs::read_to_string(papers.path(file)).expect("a file");
        let secret = secret
            .lines()
            .find(|l| !l.starts_with("-----"))
            .expect("a line")
            .trim()
            .trim_start_matches("admin ops sha256:")
            .to_owned();
        for place in &places {
            assert!(!place.contains(&secret), "{file} in {place}");
        }
    }
}

// === what commands do with what they are given ===

#[test]
fn a_token_goes_to_other_machines_over_tls_only() {
    let papers_dir = tempfile::tempdir().expect("a directory");
    let papers = Papers::create(papers_dir.path().join("papers").as_path(), &["n1"]);
    papers.make_token("admin", "ops", "ops.token");
    // Somebody who only listens, at an address that is not loopback.
    let listener = std::net::TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let ears = heard.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            stream.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = stream.read(&mut buffer) {
                ears.lock().expect("a lock").extend_from_slice(&buffer[..n]);
            }
        }
    });
    let own = "0.0.0.0"; // leads to this machine too, and is no loopback address
    // HTTP/2 packs headers: the length tells, the text does not.
    let length = |host: &str, shows_token: bool| {
        heard.lock().expect("a lock").clear();
        let mut command = spawn::metad_command();
        command.args(["status", "--meta", &format!("{host}:{port}")]);
        if shows_token {
            command.arg("--token-file").arg(papers.path("ops.token"));
        }
        spawn::output(command, PATIENCE);
        let heard = heard.lock().expect("a lock");
        assert!(heard.starts_with(b"PRI * HTTP/2.0"), "it was asked: {:?}", String::from_utf8_lossy(&heard));
        heard.len()
    };
    assert_eq!(length(own, true), length(own, false), "{own}");
    assert!(length("127.0.0.1", true) > length("127.0.0.1", false), "twin: on this machine it is shown");
    let (code, _, said) = spawn::metad(
        &["status", "--meta", "h:1", "--tls-cert", &papers.path("n1.pem").display().to_string()],
        PATIENCE,
    );
    assert_eq!((code, said.contains("name the CA")), (78, true), "{said}");
}

/// `metad release` must not take one who answers for a dead one.
#[test]
fn a_node_that_does_not_say_who_it_is_is_not_released() {
    let cluster = Cluster::start(&[]);
    let endpoint = cluster.etcd.addr(0).to_string();
    let release = |shown: &Shown| {
        let mut command = spawn::metad_command();
        command.args(["release", "--node", "n1", "--it-is-dead", "--etcd-endpoints", &endpoint]).args(shown);
        let output = spawn::output(command, PATIENCE);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let others = Papers::create(&cluster.papers.path("others"), &["n1"]);
    for (how, shown) in [
        ("plain", vec![]),
        ("nothing", cluster.papers.nothing()),
        ("another CA", others.certificate("admin")),
        ("a reader", cluster.papers.certificate("reader")),
    ] {
        let (code, said) = release(&shown);
        assert_eq!(code, Some(73), "{how}: {said}");
    }
    cluster.assert_untouched();
    let address = cluster.nodes[0].rpc_addr();
    cluster.nodes[0].kill_with_guardian();
    // A node with no room for another connection accepts it, and closes it.
    let full = std::net::TcpListener::bind(address).expect("its port");
    full.set_nonblocking(true).expect("a switch");
    let is_over = Arc::new(AtomicBool::new(false));
    let over = is_over.clone();
    let closing = std::thread::spawn(move || {
        while !over.load(Ordering::Relaxed) {
            drop(full.accept());
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    let (code, said) = release(&vec![]);
    assert_eq!(code, Some(73), "one that closes every connection: {said}");
    is_over.store(true, Ordering::Relaxed);
    closing.join().expect("closed");
    let (code, said) = release(&vec![]);
    assert_eq!(code, Some(0), "twin: it is dead now: {said}");
}

#[test]
fn health_checks_need_no_role() {
    let cluster = Cluster::start(&[]);
    let (code, said) = cluster.run(&["health"], 0, &cluster.papers.nothing());
    assert_eq!((code, said.as_str()), (0, "healthy\n"));
    let (code, said) = cluster.run(&["health"], 0, &vec![]);
    assert!(code == 1 && said.contains("TLS is spoken there"), "{said}");
    let mut secured = spawn::metad_command();
    secured.args(["status", "--meta", &format!("https://{}", cluster.nodes[0].rpc_addr())]);
    let said = String::from_utf8_lossy(&spawn::output(secured, PATIENCE).stderr).into_owned();
    assert!(said.contains("https:// needs the CA"), "{said}");
    let others = Papers::create(&cluster.papers.path("others"), &["n1"]);
    let (code, said) = cluster.run(&["health"], 0, &others.nothing());
    assert!(code == 1 && said.contains("not signed by the CA"), "{said}");
}

#[test]
fn what_is_made_is_kept_and_kept_private() {
    let dir = tempfile::tempdir().expect("a directory");
    let papers = Papers::create(&dir.path().join("papers"), &["n1"]);
    let mode = |name: &str| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::metadata(papers.path(name)).expect("a file").permissions().mode() & 0o777
    };
    papers.make_token("reader", "*", "token");
    for name in ["ca.key", "n1.key", "admin.key", "token"] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    let init = |members: &str| {
        let folder = dir.path().join("papers").display().to_string();
        spawn::metad(&["tls", "init", &folder, "--members", members], PATIENCE)
    };
    let before = std::fs::read(papers.path("ca.key")).expect("a key");
    let (code, _, said) = init("n1");
    assert!(code == 74 && said.contains("somebody's only key"), "{said}");
    assert_eq!(std::fs::read(papers.path("ca.key")).expect("a key"), before);
    for (members, words) in
        [("a b", "contains the character"), ("admin", "another file is called so"), ("ca", "called so")]
    {
        let (code, _, said) = init(members);
        assert!(code == 64 && said.contains(words), "{members}: {said}");
    }
}
