//! Renewals through what stands between a node and etcd: logins and their tokens, passwords that change, `etcd
//! grpc-proxy`; and what an idle node costs etcd.
//!
//! `METAD_RENEWAL_LEASES` (3), `METAD_RENEWAL_TOKEN_SECS` (25), `METAD_RENEWAL_HANG_SECS` (10) and
//! `METAD_RENEWAL_IDLE_SECS` (15) make them longer: 10, 600, 60 and 60 are what is promised.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support;
use crate::support::crew::{PATIENCE, report, setting};
use crate::support::etcd::{EtcdBuilder, EtcdCluster};
use crate::support::http;
use crate::support::login::{Login, USER};
use crate::support::node::{Node, NodeBuilder};
use crate::support::poll::{holds_within, wait_until};
use crate::support::ports::Port;
use crate::support::proxy::FaultProxy;
use crate::support::spawn::{self, Killed};

const LEASE_SECS: u64 = 5;

/// An etcd that asks for a login, and what lets nodes in.
struct Guarded {
    etcd: EtcdCluster,
    login: Login,
}

impl Guarded {
    fn start(builder: EtcdBuilder) -> Self {
        let etcd = builder.start();
        let login = Login::enable(&etcd, "first");
        Self { etcd, login }
    }

    fn node(&self, id: &str) -> NodeBuilder {
        self.login.of(NodeBuilder::new(id).etcd(&self.etcd))
    }

    fn change_in_file(&self, to: &str) {
        let fresh = self.login.file.with_extension("new");
        std::fs::write(&fresh, to).expect("a file");
        std::fs::rename(fresh, &self.login.file).expect("renamed");
    }

    fn change_at_etcd(&self, to: &str) {
        let mut child = self.etcd.spawn_etcdctl(&["user", "passwd", USER, "--interactive=false"]);
        let mut stdin = child.stdin.take().expect("piped");
        std::io::Write::write_all(&mut stdin, format!("{to}\n").as_bytes()).expect("written");
        drop(stdin);
        assert!(child.wait().expect("it ends").success(), "etcdctl user passwd");
    }

    /// How often anybody has logged in.
    fn logins(&self) -> u64 {
        (0..self.etcd.size()).map(|i| counted(&self.etcd, i, "grpc_method=\"Authenticate\"")).sum()
    }
}

fn counted(etcd: &EtcdCluster, member: usize, label: &str) -> u64 {
    let (_, page) = http::get(etcd.metrics_addr(member), "/metrics", PATIENCE).expect("etcd has metrics");
    let of = |l: &&str| l.starts_with("grpc_server_started_total{") && l.contains(label);
    let values = page.lines().filter(of).filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok());
    values.sum::<f64>() as u64
}

fn tokens_of(secs: u64) -> String {
    format!("--auth-token-ttl={secs}")
}

#[track_caller]
fn assert_keeps(nodes: &[Node], so_long: Duration) {
    let lost = || nodes.iter().any(|n| n.has_event("main_loop_stopping") || n.has_event("rejoining"));
    assert!(!holds_within(so_long, lost), "{}", report(nodes));
}

/// A leader and a follower.
fn pair(node: impl Fn(&str) -> NodeBuilder) -> Vec<Node> {
    let first = node("a").spawn();
    first.wait_for("main_loop_started", PATIENCE);
    let second = node("b").spawn();
    second.wait_for("joined", PATIENCE);
    vec![first, second]
}

// --- passwords -------------------------------------------------------------------------------------------------------

#[test]
fn a_password_that_is_changed_in_the_file_first_costs_nothing() {
    let guarded = Guarded::start(EtcdCluster::builder().members(1).arg(tokens_of(4)));
    let nodes = pair(|id| guarded.node(id));
    guarded.change_in_file("second");
    assert_keeps(&nodes, Duration::from_secs(LEASE_SECS));
    // Its tokens end with it: now only the older password lets anybody in.
    guarded.etcd.restart(0);
    guarded.etcd.wait_healthy();
    wait_until("they log in anew", PATIENCE, || guarded.logins() > 0);
    assert_keeps(&nodes, Duration::from_secs(LEASE_SECS));
    let logins = guarded.logins();
    guarded.change_at_etcd("second");
    assert_keeps(&nodes, Duration::from_secs(LEASE_SECS * 2));
    assert!(guarded.logins() > logins, "twin: the old tokens were refused");
}

#[test]
fn an_etcd_that_is_started_again_costs_each_connection_one_login() {
    let guarded = Guarded::start(EtcdCluster::builder().members(1));
    let nodes = pair(|id| guarded.node(id));
    guarded.etcd.restart(0);
    guarded.etcd.wait_healthy();
    wait_until("they log in anew", PATIENCE, || guarded.logins() > 1);
    assert_keeps(&nodes, Duration::from_secs(LEASE_SECS * 3));
    let (connections, logins) = (3 * nodes.len() as u64, guarded.logins());
    assert!(logins <= connections + 2, "{logins} logins of {connections} connections: {}", report(&nodes));
}

#[test]
fn a_password_that_is_changed_at_etcd_first_costs_nothing() {
    let guarded = Guarded::start(EtcdCluster::builder().members(1).arg(tokens_of(4)));
    let nodes = pair(|id| guarded.node(id));
    let logins = guarded.logins();
    guarded.change_at_etcd("second");
    // Logins are refused meanwhile.
    wait_until("somebody was refused", PATIENCE, || guarded.logins() > logins);
    guarded.change_in_file("second");
    assert_keeps(&nodes, Duration::from_secs(LEASE_SECS * 2));
}

#[test]
fn a_follower_that_is_refused_for_longer_than_its_lease_comes_back_with_the_right_password() {
    let guarded = Guarded::start(EtcdCluster::builder().members(1).arg(tokens_of(4)));
    let nodes = pair(|id| guarded.node(id));
    guarded.change_at_etcd("second");
    let is_refused =
        |e: &support::history::TimedEvent| e.kind() == "verdict" && e.str("verdict") == "etcd_refuses";
    let verdict = nodes[0].wait_event(is_refused, PATIENCE);
    assert!(verdict.str("text").contains("password_file"), "{}", verdict.str("text"));
    let stopping = nodes[0].wait_for("main_loop_stopping", PATIENCE);
    assert_eq!(stopping.str("reason"), "renew_deadline");
    assert_eq!(nodes[0].wait_exit(PATIENCE), 75);
    guarded.change_in_file("second");
    nodes[1].wait_for("main_loop_started", PATIENCE);
}

#[test]
fn nodes_without_a_login_say_that_etcd_refuses_them_once_it_asks_for_one() {
    let etcd = EtcdCluster::start(1);
    let nodes = pair(|id| NodeBuilder::new(id).etcd(&etcd));
    etcd.enable_auth(USER, "first");
    assert_eq!(nodes[0].wait_exit(PATIENCE), 75);
    let verdicts = |n: &Node| {
        let all = n.events().into_iter().filter(|e| e.kind() == "verdict");
        all.map(|e| e.str("verdict").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(verdicts(&nodes[0]).last().map(String::as_str), Some("etcd_refuses"), "{}", report(&nodes));
    let is_refused =
        |e: &support::history::TimedEvent| e.kind() == "verdict" && e.str("verdict") == "etcd_refuses";
    nodes[1].wait_event(is_refused, PATIENCE);
}

#[test]
fn authentication_is_turned_on_and_off_under_nodes_that_have_a_login() {
    let etcd = EtcdCluster::builder().members(1).arg(tokens_of(4)).start();
    let login = Login::before_auth("first");
    let mut guarded = Guarded { etcd, login };
    let mut nodes = pair(|id| guarded.node(id));
    let warnings = |n: &Node| n.messages().matches("this node works without the login").count();
    wait_until("they warn", PATIENCE, || nodes.iter().all(|n| warnings(n) == 1));
    assert_eq!(checked_login(&guarded), 1, "a warning");
    let logins = guarded.logins();
    guarded.etcd.enable_auth(USER, "first");
    assert_keeps(&nodes, Duration::from_secs(LEASE_SECS * 2));
    assert!(guarded.logins() > logins + 1, "twin: both have logged in");
    assert_eq!(checked_login(&guarded), 0);
    guarded.etcd.etcdctl_ok(&["auth", "disable"]);
    assert_keeps(&nodes, Duration::from_secs(LEASE_SECS * 2));
    guarded.etcd.etcdctl_ok(&["auth", "enable"]);
    assert_keeps(&nodes, Duration::from_secs(LEASE_SECS));
    assert!(nodes.iter().all(|n| warnings(n) <= 2), "once each time that it is off\n{}", report(&nodes));
    // The old tokens are gone, and what writes logs in as well: a hand-over, a guardian, a start.
    nodes.push(guarded.node("c").spawn());
    nodes[2].wait_for("joined", PATIENCE);
    nodes[0].kill();
    nodes.remove(0);
    wait_until("another one leads", PATIENCE, || nodes.iter().any(|n| n.has_event("main_loop_started")));
    guarded.login = Login::before_auth("wrong");
    assert_eq!(guarded.node("d").spawn().wait_exit(PATIENCE), 77, "twin: now the password counts");
}

/// The exit code of the doctor's check of the login, without a node.
fn checked_login(guarded: &Guarded) -> i32 {
    let mut command = spawn::metad_command();
    command.args(["doctor", "--only", "etcd-login", "--meta", "127.0.0.1:9"]);
    command.args(["--etcd-endpoints", &guarded.etcd.endpoints().join(",")]);
    command.env("METAD_STORE__ETCD__USERNAME", USER);
    command.env("METAD_STORE__ETCD__PASSWORD_FILE", &guarded.login.file);
    spawn::output(command, PATIENCE).status.code().expect("an exit code")
}

// --- tokens ----------------------------------------------------------------------------------------------------------

#[test]
fn a_connection_that_breaks_costs_no_login() {
    let guarded = Guarded::start(EtcdCluster::builder().members(1));
    let proxy = FaultProxy::start(guarded.etcd.addr(0));
    let node = guarded.login.of(NodeBuilder::new("a").endpoints([proxy.addr()])).spawn();
    node.wait_for("main_loop_started", PATIENCE);
    let renewals = || counted(&guarded.etcd, 0, "grpc_method=\"LeaseKeepAlive\"");
    std::thread::sleep(Duration::from_secs(2));
    let logins = guarded.logins();
    for _ in 0..3 {
        let before = renewals();
        // Silent for so long that it is connected anew.
        proxy.black_hole();
        std::thread::sleep(Duration::from_millis(1_500));
        proxy.cut();
        proxy.pass();
        wait_until("renewed on a new connection", PATIENCE, || renewals() > before + 1);
    }
    assert_eq!(guarded.logins(), logins, "the token is good still\n{}", node.report());
    assert_keeps(&[node], Duration::from_secs(1));
}

#[test]
fn tokens_that_end_and_a_member_that_hangs_cost_less_than_0_3_of_the_lease() {
    let (secs, hang) = (setting("METAD_RENEWAL_TOKEN_SECS", 25), setting("METAD_RENEWAL_HANG_SECS", 10));
    let lease_secs = 10;
    let guarded = Guarded::start(EtcdCluster::builder().members(3).tls().arg(tokens_of(5)));
    let nodes = pair(|id| guarded.node(id).lease_secs(lease_secs));
    let logins = guarded.logins();
    std::thread::sleep(Duration::from_secs(secs.saturating_sub(hang) / 2));
    let hung = (guarded.etcd.leader() + 1) % 3;
    guarded.etcd.pause(hung);
    std::thread::sleep(Duration::from_secs(hang));
    guarded.etcd.resume(hung);
    assert_keeps(&nodes, Duration::from_secs(secs.saturating_sub(hang) / 2));
    let oldest = 1.0 - least_headroom(&nodes[0]);
    eprintln!(
        "tokens of 5 s for {secs} s, a member hung for {hang} s: the oldest validated ack was {oldest:.2} of the \
         lease old; {} logins",
        guarded.logins() - logins
    );
    assert!(oldest < 0.3, "{oldest}\n{}", report(&nodes));
}

/// The least part of the lease that was left when a renewal was confirmed.
fn least_headroom(node: &Node) -> f64 {
    let (_, page) = http::get(node.http_addr(), "/api/v1/headroom", PATIENCE).expect("the node answers");
    let page: serde_json::Value = serde_json::from_str(&page).expect("JSON");
    let points = page["points"].as_array().expect("points");
    assert!(!points.is_empty(), "twin: it was measured");
    points.iter().filter_map(|p| p[1].as_f64()).fold(1.0, f64::min)
}

// --- etcd's proxy ----------------------------------------------------------------------------------------------------

/// `etcd grpc-proxy`, killed on drop.
struct GrpcProxy {
    _process: Killed,
    port: Port,
}

impl GrpcProxy {
    fn start(etcd: &EtcdCluster) -> Self {
        let port = Port::reserve();
        let mut command = Command::new(etcd.program());
        spawn::remove_env(&mut command, "ETCD_");
        command.args(["grpc-proxy", "start", "--endpoints", &etcd.endpoints().join(",")]);
        command.args(["--listen-addr", &port.addr().to_string()]);
        command.args(["--advertise-client-url", &port.addr().to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = spawn::spawn(command).expect("etcd grpc-proxy starts");
        let proxy = Self { _process: Killed(process), port };
        let listens = || std::net::TcpStream::connect(proxy.addr()).is_ok();
        wait_until("the proxy listens", PATIENCE, listens);
        proxy
    }

    fn addr(&self) -> SocketAddr {
        self.port.addr()
    }
}

#[test]
fn leadership_is_kept_through_etcds_grpc_proxy() {
    let etcd = EtcdCluster::start(1);
    let proxy = GrpcProxy::start(&etcd);
    let nodes = pair(|id| NodeBuilder::new(id).endpoints([proxy.addr()]));
    let leases = setting("METAD_RENEWAL_LEASES", 3);
    assert_keeps(&nodes, Duration::from_secs(LEASE_SECS * leases));
    eprintln!("etcd {} behind grpc-proxy: kept for {leases} leases", etcd.version());
}

// --- idle ------------------------------------------------------------------------------------------------------------

#[test]
fn an_idle_leader_and_its_followers_write_nothing() {
    let etcd = EtcdCluster::start(1);
    let mut nodes = pair(|id| NodeBuilder::new(id).etcd(&etcd).without_tick());
    nodes.push(NodeBuilder::new("c").etcd(&etcd).without_tick().spawn());
    nodes[2].wait_for("joined", PATIENCE);
    let revision = || {
        let said = etcd.etcdctl_ok(&["get", "/metad/none", "-w", "json"]);
        let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
        said["header"]["revision"].as_u64().expect("a revision")
    };
    // Identities, the history's row, and what else belongs to the beginning: a busy machine takes its time for them.
    let is_quiet = || {
        let now = revision();
        !holds_within(Duration::from_secs(5), || revision() != now)
    };
    wait_until("the beginning is written", PATIENCE, is_quiet);
    let renewals = || counted(&etcd, 0, "grpc_method=\"LeaseKeepAlive\"");
    let (before, renewed) = (revision(), renewals());
    let idle = Duration::from_secs(setting("METAD_RENEWAL_IDLE_SECS", 15));
    assert_keeps(&nodes, idle);
    assert_eq!(revision(), before, "after {idle:?}");
    assert!(renewals() > renewed, "twin: they live");
    nodes.push(NodeBuilder::new("d").etcd(&etcd).spawn());
    nodes[3].wait_for("joined", PATIENCE);
    assert!(revision() > before, "twin: what is written is seen");
}
