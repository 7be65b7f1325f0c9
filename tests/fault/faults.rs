//! Faults of etcd and of the network, on real processes: leadership is never lost needlessly, and never held twice.
//!
//! One row each, at a lease of 5 s with hangs of 12 s. `METAD_FAULT_LEASE_SECS` and `METAD_FAULT_HANG_SECS`
//! change that (`make faults`). With `METAD_FAULT_SECURED=1` etcd wants a client certificate and a login, whose tokens
//! end after 5 s. Every row ends in the history checker.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use crate::cpus;
use crate::support;
use crate::support::crew::{
    self, PATIENCE, assert_handed_on_in_time, between, hang, leader, lease, members_seen, report, started_ns,
    tenures, wait_for_leader,
};
use crate::support::etcd::{EtcdBuilder, EtcdCluster};
use crate::support::login::Login;
use crate::support::node::{Node, NodeBuilder, Signal};
use crate::support::poll::{boot_ns, holds_within, wait_until};
use crate::support::proxy::FaultProxy;
use crate::support::{fenced, http, spawn, witness};

/// What the members are started with: a new leader of etcd refreshes every lease.
const ETCD_ELECTION: Duration = Duration::from_secs(1);

/// How long etcd's token of a login lasts.
const TOKEN_SECS: &str = "5";
/// The rows are about logins, not about a machine whose three clusters hash passwords at the same time.
const FAST_HASH: &str = "--bcrypt-cost=4";

/// Three nodes on three members, each node behind proxies of its own; `nodes[0]` leads.
struct Scene {
    nodes: Vec<Node>,
    /// The first node's ways to the members.
    proxies: Vec<FaultProxy>,
    etcd: EtcdCluster,
    login: Option<Login>,
}

impl Drop for Scene {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            fenced::assert_no_stale_write(&self.etcd, &self.nodes);
        }
    }
}

impl Scene {
    fn new() -> Self {
        Self::on(EtcdCluster::builder().members(3))
    }

    fn on(builder: EtcdBuilder) -> Self {
        let is_secured = crew::setting("METAD_FAULT_SECURED", 0) == 1;
        let secure = |b: EtcdBuilder| b.tls().arg(format!("--auth-token-ttl={TOKEN_SECS}")).arg(FAST_HASH);
        let etcd = if is_secured { secure(builder) } else { builder }.start();
        let login = is_secured.then(|| Login::enable(&etcd, "secret"));
        let proxies: Vec<_> = (0..3).map(|i| FaultProxy::start(etcd.addr(i))).collect();
        let mut scene = Self { nodes: Vec::new(), proxies, etcd, login };
        let first = scene.node("e0", &scene.proxies).spawn();
        first.wait_for("main_loop_started", PATIENCE);
        let addresses = || (0..3).map(|i| scene.etcd.addr(i));
        let others = ["e1", "e2"].map(|id| scene.node_at(id, addresses()).spawn());
        scene.nodes = std::iter::once(first).chain(others).collect();
        for node in &scene.nodes {
            node.wait_for("joined", PATIENCE);
        }
        // A few renewals, so that the fault meets a leader in its stride.
        std::thread::sleep(Duration::from_secs(1));
        scene
    }

    fn node_at(&self, id: &str, addresses: impl Iterator<Item = SocketAddr>) -> NodeBuilder {
        let node = NodeBuilder::new(id).lease_secs(lease().as_secs()).etcd_behind(&self.etcd, addresses);
        self.login.iter().fold(node, |node, login| login.of(node))
    }

    /// A node that reaches etcd through these.
    fn node(&self, id: &str, proxies: &[FaultProxy]) -> NodeBuilder {
        self.node_at(id, proxies.iter().map(FaultProxy::addr))
    }

    /// The first node leads without a break, from the start until `after` from now.
    #[track_caller]
    fn assert_kept(&self, after: Duration) {
        crew::assert_kept(&self.nodes, 0, after);
    }

    /// The first node stops before anybody else starts, and somebody else does.
    #[track_caller]
    fn assert_handed_on_in_time(&self, since_ns: u64) {
        assert_handed_on_in_time(&self.nodes, since_ns, lease(), lease() + PATIENCE);
    }

    /// How many leases each member has ended by its own count, because nobody renewed them as far as it knew.
    fn expired(&self) -> [u64; 3] {
        [0, 1, 2].map(|member| {
            let (_, page) =
                http::get(self.etcd.metrics_addr(member), "/metrics", PATIENCE).expect("etcd has metrics");
            let count =
                page.lines().find_map(|l| l.strip_prefix("etcd_debugging_server_lease_expired_total "));
            count.and_then(|count| count.trim().parse::<f64>().ok()).expect("etcd counts them") as u64
        })
    }

    /// etcd's leader woke up and revoked the leases that its successor had renewed: nobody can keep one then. Proven by
    /// the members' own counts: the one that hung has ended leases, and none of those has that did not. The main loop
    /// stops at once, and somebody leads within a second.
    #[track_caller]
    fn assert_revoked_by(&self, woken: usize, before: [u64; 3]) {
        let after = self.expired();
        for member in 0..3 {
            let has_ended_some = after[member] > before[member];
            assert_eq!(
                has_ended_some,
                member == woken,
                "{before:?}, then {after:?}\n{}",
                report(&self.nodes)
            );
        }
        let stopping = self.nodes[0].wait_for("main_loop_stopping", PATIENCE);
        assert_eq!(stopping.str("reason"), "record_deleted", "{}", report(&self.nodes));
        let others = self.nodes[1..].iter().all(|n| n.has_event("rejoining"));
        assert!(others, "the leases of those who only follow are gone as well\n{}", report(&self.nodes));
        wait_for_leader(&self.nodes, PATIENCE);
        let all = tenures(&self.nodes);
        let stopped = all[0].end_ns.expect("it has stopped");
        let stop = between(stopping.at_ns(), stopped);
        assert!(stop < crew::slack(stopping.at_ns(), stopped), "stops at once: {stop:?}");
        let gap = between(stopped, all[1].start_ns);
        let bound = Duration::from_secs(1) + crew::slack(stopped, all[1].start_ns);
        assert!(gap < bound, "somebody leads soon: {gap:?}");
    }

    fn delay_replies(&self, by: Duration) {
        self.proxies.iter().for_each(|p| p.delay_replies(by));
    }
}

#[test]
fn a_stall_of_all_of_etcd_for_0_6_of_the_lease_is_survived() {
    let _cpu = cpus::some();
    stall(0.6);
}

#[test]
fn a_stall_of_all_of_etcd_for_most_of_the_lease_is_survived() {
    let _cpu = cpus::some();
    // 0.9 is promised from 10 s on; at 5 s the fixed parts of the margin weigh more. A binary that is not optimised takes a
    // tenth of a second and more for the answers to all attempts of the stall, which come at once.
    let at_5_s = if cfg!(debug_assertions) { 0.75 } else { 0.85 };
    stall(if lease() >= Duration::from_secs(10) { 0.9 } else { at_5_s });
}

const ROUNDS_MAX: usize = 5;

/// A machine may take more than a stall has left, and so may an election of etcd's members, which have not heard from
/// each other meanwhile; then it is another one that must be survived.
fn stall(fraction: f64) {
    assert!(
        (0..ROUNDS_MAX).any(|_| is_kept_through_a_stall(fraction)),
        "nothing was shown: no CPU for metad, or elections of etcd"
    );
}

fn is_kept_through_a_stall(fraction: f64) -> bool {
    let scene = Scene::new();
    let elections = scene.etcd.elections();
    scene.etcd.pause_all();
    std::thread::sleep(lease().mul_f64(fraction));
    let over = boot_ns();
    scene.etcd.resume_all();
    let ends = || scene.nodes[0].has_event("main_loop_stopping") || !scene.nodes[0].is_alive();
    if !holds_within(lease() * 2, ends) {
        scene.assert_kept(Duration::ZERO);
        return true;
    }
    let left = lease().mul_f64(1.0 - fraction);
    let waited = witness::waited(over, over + left.as_nanos() as u64);
    let reason = scene.nodes[0].wait_for("main_loop_stopping", PATIENCE);
    println!("lost ({}) after a stall of {fraction}: waited for a CPU for {waited:?}", reason.str("reason"));
    if left < ETCD_ELECTION && scene.etcd.elections() > elections {
        println!("etcd's members elected a leader after the stall, which takes {ETCD_ELECTION:?} and more");
        return false;
    }
    // What the stall leaves is for several steps: etcd's members find each other again, then answer.
    assert!(
        waited > left / 8,
        "lost needlessly; waited for a CPU for {waited:?} only\n{}",
        report(&scene.nodes)
    );
    false
}

#[test]
fn replies_that_come_0_3_of_the_lease_late_for_ten_leases_are_survived() {
    let _cpu = cpus::some();
    let scene = Scene::new();
    scene.delay_replies(lease().mul_f64(0.3));
    scene.assert_kept(lease() * 10);
}

#[test]
fn a_member_that_hangs_costs_nothing_whichever_it_is() {
    let _cpu = cpus::some();
    let scene = Scene::new();
    let leader = scene.etcd.leader();
    for member in (0..3).filter(|m| *m != leader) {
        scene.etcd.pause(member);
        scene.assert_kept(hang());
        scene.etcd.resume(member);
        scene.assert_kept(Duration::from_secs(2));
    }
}

/// How often etcd may take the leases away that it had granted, before one hang of its leader must be survived.
const WRONG_REVOKES_MAX: usize = 2;

/// A leadership that is lost is forgiven only where etcd's members prove that one of them revoked it wrongly (see
/// `src/docs/failures.md`), and then the whole is repeated: it passes only when leadership is kept from the start to a
/// lease after the hang.
#[test]
fn the_raft_leader_that_hangs_costs_nothing() {
    let _cpu = cpus::some();
    let wrong = (0..=WRONG_REVOKES_MAX).take_while(|_| !is_kept_while_the_raft_leader_hangs()).count();
    assert!(wrong <= WRONG_REVOKES_MAX, "lost each time, by etcd's fault: nothing was shown of metad");
}

fn is_kept_while_the_raft_leader_hangs() -> bool {
    let scene = Scene::new();
    let leader = scene.etcd.leader();
    let before = scene.expired();
    scene.etcd.pause(leader);
    scene.assert_kept(hang());
    assert_ne!(scene.etcd.leader(), leader, "twin: another member leads etcd meanwhile");
    scene.etcd.resume(leader);
    let lost = holds_within(lease(), || scene.nodes[0].has_event("main_loop_stopping"));
    // Counted and printed, never hidden, not even by a test harness that keeps what passing tests print.
    let count =
        format!("etcd {}: leases revoked by a waking leader: {}\n", scene.etcd.version(), u8::from(lost));
    std::io::stderr().write_all(count.as_bytes()).expect("standard error");
    if lost {
        scene.assert_revoked_by(leader, before);
    } else {
        scene.assert_kept(Duration::ZERO);
    }
    !lost
}

#[test]
fn the_raft_leader_that_is_killed_costs_nothing() {
    let _cpu = cpus::some();
    let scene = Scene::new();
    scene.etcd.kill(scene.etcd.leader());
    scene.assert_kept(lease() * 3);
}

#[test]
fn cut_connections_with_new_ones_that_hang_stop_the_leader_before_anybody_else_starts() {
    let _cpu = cpus::some();
    let scene = Scene::new();
    let since = boot_ns();
    scene.proxies.iter().for_each(FaultProxy::cut);
    scene.assert_handed_on_in_time(since);
}

#[test]
fn one_late_reply_and_then_a_black_hole_stop_the_leader_in_time() {
    let _cpu = cpus::some();
    let scene = Scene::new();
    scene.delay_replies(lease().mul_f64(0.25));
    std::thread::sleep(lease().mul_f64(0.3));
    // From here on nothing is sent any more that could be answered.
    let since = boot_ns();
    scene.proxies.iter().for_each(FaultProxy::black_hole);
    scene.assert_handed_on_in_time(since);
}

/// Stops two of the three members, their leader among them; they are the first two values.
fn stop_a_majority(etcd: &EtcdCluster) -> [usize; 2] {
    let leader = etcd.leader();
    let majority = [leader, (leader + 1) % 3];
    majority.iter().for_each(|member| etcd.pause(*member));
    majority
}

#[test]
fn a_majority_of_etcd_that_fails_for_half_of_the_lease_costs_nothing() {
    let _cpu = cpus::some();
    // A majority that is back has no leader for up to a few election timeouts more, which count as well: with the
    // second that etcd takes by default they would fill what a lease of 5 s leaves.
    let election = ["--heartbeat-interval=25", "--election-timeout=250"];
    let etcd = election.into_iter().fold(EtcdCluster::builder().members(3), EtcdBuilder::arg);
    let scene = Scene::on(etcd);
    let majority = stop_a_majority(&scene.etcd);
    std::thread::sleep(lease() / 2);
    majority.iter().for_each(|member| scene.etcd.resume(*member));
    scene.assert_kept(lease() * 2);
}

#[test]
fn a_majority_of_etcd_that_fails_for_longer_stops_the_leader_in_time_and_one_leads_when_it_is_back() {
    let _cpu = cpus::some();
    let mut scene = Scene::new();
    let since = boot_ns();
    let majority = stop_a_majority(&scene.etcd);
    let by_itself = crew::assert_ended_in_time(&scene.nodes[0], since, lease());
    let end =
        if by_itself { scene.nodes[0].wait_for("main_loop_stopped", PATIENCE).at_ns() } else { boot_ns() };
    crew::assert_not_early(since, end, lease());
    std::thread::sleep(lease());
    assert_eq!(
        (leader(&scene.nodes), tenures(&scene.nodes).len()),
        (None, 1),
        "nobody can lead without etcd"
    );
    // A supervisor starts it again while etcd is still away.
    let again = scene.node("e0", &scene.proxies).spawn();
    scene.nodes.push(again);
    let back = boot_ns();
    majority.iter().for_each(|member| scene.etcd.resume(*member));
    let next = wait_for_leader(&scene.nodes, lease() + ETCD_ELECTION * 3 + PATIENCE);
    let took = between(back, started_ns(&scene.nodes[next]));
    println!("led again {took:?} after etcd was back");
    let bound = lease() + ETCD_ELECTION * 3 + crew::slack(back, started_ns(&scene.nodes[next]));
    assert!(took <= bound, "one lease, three of etcd's election timeouts at most: {took:?}");
    assert_eq!(tenures(&scene.nodes).len(), 2);
}

#[test]
fn nodes_that_start_while_etcd_does_lead_soon_after_it_has_a_majority() {
    let _cpu = cpus::some();
    let etcd = EtcdCluster::builder().members(3).only_first(1).start();
    let secs = lease().as_secs();
    let nodes = ["e0", "e1", "e2"].map(|id| NodeBuilder::new(id).lease_secs(secs).etcd(&etcd).spawn());
    nodes.iter().for_each(|node| drop(node.wait_for("listening", PATIENCE)));
    // Well within store.etcd.start_timeout_secs.
    std::thread::sleep(Duration::from_secs(4));
    assert!(nodes.iter().all(Node::is_alive), "they wait for etcd\n{}", report(&nodes));
    assert_eq!(leader(&nodes), None, "nobody leads without etcd");
    (1..3).for_each(|member| etcd.restart(member));
    etcd.wait_healthy();
    let healthy = boot_ns();
    let first = wait_for_leader(&nodes, PATIENCE);
    println!("led {:?} after etcd was healthy", between(healthy, started_ns(&nodes[first])));
    nodes.iter().for_each(|node| drop(node.wait_for("joined", PATIENCE)));
    assert_eq!(tenures(&nodes).len(), 1);
}

#[test]
fn a_follower_that_etcd_refuses_waits_quietly_and_joins_again() {
    let _cpu = cpus::some();
    let scene = Scene::new();
    let proxies: Vec<_> = (0..3).map(|i| FaultProxy::start(scene.etcd.addr(i))).collect();
    let follower = scene.node("refused", &proxies).spawn();
    follower.wait_for("joined", PATIENCE);
    let (lines, cpu) = (follower.stderr().lines().count(), spawn::cpu_time(follower.pid()));
    proxies.iter().for_each(FaultProxy::refuse);
    std::thread::sleep(hang().max(lease() * 3));
    let (lines, cpu) = (follower.stderr().lines().count() - lines, spawn::cpu_time(follower.pid()) - cpu);
    println!("refused for {:?}: {lines} lines of log, {cpu:?} of CPU", hang().max(lease() * 3));
    assert!(follower.is_alive(), "{}", follower.report());
    assert!(lines > 0 && lines < 100, "{lines} lines\n{}", follower.report());
    assert!(cpu < Duration::from_secs(2), "{cpu:?}");
    let healed = boot_ns();
    proxies.iter().for_each(FaultProxy::pass);
    let joins_again = |e: &support::history::TimedEvent| e.kind() == "joined" && e.at_ns() > healed;
    follower.wait_event(joins_again, lease() + PATIENCE);
    scene.assert_kept(Duration::from_secs(1));
}

#[test]
fn when_the_next_in_line_is_dead_the_one_after_it_leads_at_once() {
    let _cpu = cpus::some();
    let etcd = EtcdCluster::start(3);
    // A lease that nobody can wait for: whoever leads was not held up by the dead one's.
    let node = |id| NodeBuilder::new(id).lease_secs(86_400).etcd(&etcd);
    let mut nodes = Vec::new();
    for id in ["e0", "e1", "e2"] {
        nodes.push(node(id).spawn());
        nodes[nodes.len() - 1].wait_for("joined", PATIENCE);
        wait_for_leader(&nodes, PATIENCE);
    }
    wait_until("the leader knows them", PATIENCE, || members_seen(&nodes[0]) == 3);
    // With its guardian, so that it stays registered.
    nodes[1].kill_with_guardian();
    nodes[0].signal(Signal::TERM);
    assert_eq!(nodes[0].wait_exit(PATIENCE), 0, "{}", report(&nodes));
    assert_eq!(wait_for_leader(&nodes, PATIENCE), 2);
    let stopped = nodes[0].wait_for("main_loop_stopped", PATIENCE).at_ns();
    let gap = between(stopped, started_ns(&nodes[2]));
    println!("led by nobody for {gap:?}");
    let bound = Duration::from_secs(1) + crew::slack(stopped, started_ns(&nodes[2]));
    assert!(gap < bound, "{gap:?}");
    assert_eq!(tenures(&nodes).len(), 2);
}
