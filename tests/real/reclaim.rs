//! A node that starts again: it takes its own record back whenever it crashed, whatever the lease; and what becomes
//! of a data dir that is copied, rolled back or lost.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support;
use crate::support::crew::{
    PATIENCE, SCHEDULING_SLACK, assert_kept, between, leads, report, slack, started_ns, tenures,
};
use crate::support::disaster::copy_dir;
use crate::support::etcd::EtcdCluster;
use crate::support::node::{Node, NodeBuilder, Signal};
use crate::support::poll::{boot_ns, wait_until};
use crate::support::proxy::FaultProxy;
use crate::support::witness;

/// A lease that nobody waits for.
const LONG_SECS: u64 = 86_400;
/// The lease of those who do wait for it.
const SHORT: Duration = Duration::from_secs(5);

// --- crashes ---------------------------------------------------------------------------------------------------------

/// Where a start is killed: what TCP has carried by then, in pieces. Of the next request etcd never hears, or of the next
/// reply the node does not, although etcd has done by then whatever it was asked.
#[derive(Clone, Copy, Debug)]
enum Point {
    Request(u32),
    Reply(u32),
    /// Etcd has the record, and the node is not told so.
    ReplyToClaim,
}

/// What only a leader record has in it.
const OF_A_RECORD: &[u8] = b"\"acquireTime\"";

/// Makes a point of a number of pieces.
type Kind = fn(u32) -> Point;

/// What a killed start had got etcd to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Written {
    Nothing,
    Registration,
    Record,
}

/// The node leads again, under a token greater than any before: it does not wait for the lease, which lasts a day.
fn assert_leads_again(builder: &NodeBuilder, before: Option<u64>, when: &str) -> Node {
    let begin = boot_ns();
    let node = builder.spawn();
    let took = between(begin, started_ns(&node));
    let token = node.wait_for("main_loop_started", PATIENCE).token();
    println!("{when}: leads again in {took:?} with token {token:?}, after {before:?}");
    assert!(token > before, "{when}: {token:?} after {before:?}");
    node
}

/// Starts of one node that are killed, through a way to etcd that stops at a point.
struct Crashes<'a> {
    id: String,
    etcd: &'a EtcdCluster,
    proxy: FaultProxy,
}

impl Crashes<'_> {
    /// The last changes of its registration and its record.
    fn revisions(&self) -> [u64; 2] {
        let keys = [format!("nodes/{}", self.id), "election/meta/leader".to_owned()];
        keys.map(|key| {
            let said = self.etcd.etcdctl_ok(&["get", &format!("/metad/{}/{key}", self.id), "-w", "json"]);
            let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
            said["kvs"][0]["mod_revision"].as_u64().unwrap_or(0)
        })
    }

    /// Kills a start, with its guardian, at this point. `None` for what it had written: the point was not met, because
    /// the node led before.
    fn crash(&self, point: Point, slow: &NodeBuilder) -> (Node, Option<Written>) {
        let before = self.revisions();
        match point {
            Point::Request(piece) => self.proxy.stop_at_request(piece),
            Point::Reply(piece) => self.proxy.stop_at_reply(piece),
            Point::ReplyToClaim => self.proxy.stop_at_reply_to(OF_A_RECORD),
        }
        let node = slow.spawn();
        wait_until("the point, or the end of the start", PATIENCE, || {
            self.proxy.has_stopped() || leads(&node)
        });
        let has_led = leads(&node);
        node.kill_with_guardian();
        self.proxy.pass();
        let after = self.revisions();
        let written = match (after[0] > before[0], after[1] > before[1]) {
            (_, true) => Written::Record,
            (true, false) => Written::Registration,
            (false, false) => Written::Nothing,
        };
        (node, (!has_led).then_some(written))
    }

    /// A first start and one that takes its record back are killed at this point, and the node leads again after each.
    fn at(&self, point: Point) -> [Option<Written>; 2] {
        // A cluster of its own, and the same data dir: only the way to etcd differs.
        let node = NodeBuilder::new(&self.id).cluster(&self.id).lease_secs(LONG_SECS);
        let slow = node.clone().endpoints([self.proxy.addr()]);
        let direct = node.etcd(self.etcd);
        let (first, at_first) = self.crash(point, &slow);
        let token = first.events().iter().filter_map(|event| event.token()).max();
        let again = assert_leads_again(&direct, token, &format!("{point:?} of a first start, {at_first:?}"));
        again.kill_with_guardian();
        let token = again.wait_for("main_loop_started", PATIENCE).token();
        let (second, at_second) = self.crash(point, &slow);
        let token = second.events().iter().filter_map(|event| event.token()).max().max(token);
        let last = assert_leads_again(&direct, token, &format!("{point:?} of a reclaim, {at_second:?}"));
        let nodes = [first, again, second, last];
        let led = tenures(&nodes).len();
        assert!(led >= 2, "{led} tenures\n{}", report(&nodes));
        [at_first, at_second]
    }
}

/// Goes through every so many of the points, until the node leads before one is met: what was written at each, in a first
/// start and in a reclaim.
fn crash_at_each(step: usize, from: u32, kind: Kind, etcd: &EtcdCluster) -> [Vec<Written>; 2] {
    let mut all = [Vec::new(), Vec::new()];
    for piece in (from..).step_by(step) {
        let id = format!("{:?}", kind(piece)).replace('(', "-").replace(')', "").to_lowercase();
        let crashes = Crashes { id, etcd, proxy: FaultProxy::start(etcd.addr(0)) };
        let met = crashes.at(kind(piece));
        for (all, met) in all.iter_mut().zip(met) {
            all.extend(met);
        }
        if met == [None, None] {
            return all;
        }
    }
    unreachable!("a start that never ends")
}

#[test]
fn a_node_that_is_killed_at_any_point_of_its_start_leads_again_at_once_whatever_the_lease() {
    let etcd = EtcdCluster::start(1);
    // Requests take more pieces than replies.
    let walks: [(usize, u32, Kind); 3] =
        [(2, 0, Point::Request), (2, 1, Point::Request), (1, 0, Point::Reply)];
    let [even, odd, replies] = std::thread::scope(|scope| {
        let walks = walks.map(|(step, from, kind)| {
            let etcd = &etcd;
            scope.spawn(move || crash_at_each(step, from, kind, etcd))
        });
        walks.map(|walk| walk.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    for (i, start) in ["first start", "reclaim"].iter().enumerate() {
        let (requests, replies) = ([&even[i][..], &odd[i]].concat(), &replies[i]);
        println!("{start}: written when killed at requests {requests:?}, at replies {replies:?}");
        // Twin: the points were met, those before, between and after the writes that make a leader.
        for points in [&requests, replies] {
            assert!(points.contains(&Written::Nothing), "{start}: before the first write: {points:?}");
        }
    }
    // A first start is a candidate for a while. A reclaim may be done with the next piece.
    let first = [&even[0][..], &odd[0], &replies[0]].concat();
    assert!(first.contains(&Written::Registration), "registered, and no leader yet: {first:?}");
    // No number of pieces stands for this point in each start, because several connections share them.
    let crashes = Crashes { id: "claimed".into(), etcd: &etcd, proxy: FaultProxy::start(etcd.addr(0)) };
    assert_eq!(
        crashes.at(Point::ReplyToClaim),
        [Some(Written::Record); 2],
        "etcd has the record, the node does not know"
    );
}

#[test]
fn a_leader_that_is_killed_with_its_guardian_takes_its_record_back() {
    let etcd = EtcdCluster::start(3);
    let node = |id| NodeBuilder::new(id).lease_secs(LONG_SECS).etcd(&etcd);
    let builder = node("a");
    let first = builder.spawn();
    let token = first.wait_for("main_loop_started", PATIENCE).token();
    let follower = node("b").spawn();
    follower.wait_for("joined", PATIENCE);
    first.kill_with_guardian();
    // The follower sees no vacancy, so there is nobody to race with.
    let again = assert_leads_again(&builder, token, "with a follower");
    let nodes = [first, follower, again];
    assert_eq!(tenures(&nodes).len(), 2);
    let vacant =
        |e: &support::history::TimedEvent| e.kind() == "leader_changed" && e.json["leader"].is_null();
    assert!(!nodes[1].events().iter().any(vacant), "the record never was absent\n{}", report(&nodes));
}

// --- data dirs -------------------------------------------------------------------------------------------------------

/// A folder beside a node's data dir.
fn beside(node: &Node, name: &str) -> PathBuf {
    node.data_dir().with_file_name(name)
}

/// A node that leads and, with no guardian, leaves its record behind when it is killed.
fn lone_leader(etcd: &EtcdCluster, lease: Duration) -> (NodeBuilder, Node) {
    let builder = NodeBuilder::new("a").lease_secs(lease.as_secs()).etcd(etcd);
    let builder = builder.env("METAD_NODE__GUARDIAN", "false");
    let node = builder.spawn();
    node.wait_for("main_loop_started", PATIENCE);
    (builder, node)
}

fn stop(node: &Node) {
    node.signal(Signal::TERM);
    assert_eq!(node.wait_exit(PATIENCE), 0, "{}", node.report());
}

/// Leads, but not before the dead one's lease has ended: the record was a stranger's.
fn assert_waits_for_the_lease(stranger: &Node, dead: &Node) {
    let (died, started) = (dead.died_ns().expect("dead"), started_ns(stranger));
    let waited = between(died, started);
    // As long as its last renewal was on its way, which a busy machine may have drawn out.
    let renewing = witness::waited(died.saturating_sub(2_000_000_000), died);
    assert!(waited + renewing > SHORT / 2, "it took a stranger's record: {waited:?}\n{}", stranger.report());
    assert!(waited < SHORT + Duration::from_secs(1) + slack(died, started), "{waited:?}");
    assert_eq!(stranger.wait_for("joined", PATIENCE).u64("incarnation"), Some(1), "a new identity");
}

#[test]
fn a_copy_of_a_data_dir_in_use_is_refused_and_the_original_goes_on() {
    let etcd = EtcdCluster::start(1);
    let (builder, original) = lone_leader(&etcd, SHORT);
    let folder = beside(&original, "copy");
    copy_dir(original.data_dir(), &folder);
    let copy = builder.clone().data_dir(&folder).spawn();
    assert_eq!(copy.wait_exit(PATIENCE), 73, "{}", copy.report());
    let said = copy.messages();
    let address = original.rpc_addr().to_string();
    assert!(said.contains("this data dir is a copy"), "{said}");
    assert!(said.contains("node id \"a\" is in use") && said.contains(&address), "{said}");
    assert!(said.contains("--node-id"), "the way out: {said}");
    assert_kept(&[original, copy], 0, SHORT);
}

#[test]
fn a_copy_of_a_data_dir_whose_original_has_moved_on_starts_as_a_stranger() {
    let etcd = EtcdCluster::start(1);
    let (builder, first) = lone_leader(&etcd, SHORT);
    let folder = beside(&first, "copy");
    copy_dir(first.data_dir(), &folder);
    first.kill();
    let second = builder.spawn();
    second.wait_for("main_loop_started", PATIENCE);
    assert!(between(first.died_ns().expect("dead"), started_ns(&second)) < SHORT / 2, "twin: its own record");
    second.kill();
    let copy = builder.clone().data_dir(&folder).spawn();
    assert_waits_for_the_lease(&copy, &second);
    // And now it is the original that comes second.
    let original = builder.spawn();
    assert_eq!(original.wait_exit(PATIENCE), 73, "{}", original.report());
    assert!(original.stderr().contains(&copy.rpc_addr().to_string()), "{}", original.stderr());
    let nodes = [first, second, copy, original];
    assert_eq!(tenures(&nodes).len(), 3);
    assert!(nodes[2].is_alive() && !nodes[2].has_event("main_loop_stopping"), "{}", nodes[2].report());
}

#[test]
fn a_data_dir_that_was_rolled_back_gets_a_new_identity_and_leaves_its_old_record_alone() {
    let etcd = EtcdCluster::start(1);
    let (builder, first) = lone_leader(&etcd, SHORT);
    let old = beside(&first, "old");
    stop(&first);
    copy_dir(first.data_dir(), &old);
    let second = builder.spawn();
    second.wait_for("main_loop_started", PATIENCE);
    second.kill();
    // In place: the folder itself stays, so this is no copy.
    for file in ["identity", "state"] {
        std::fs::copy(old.join(file), second.data_dir().join(file)).expect("copied");
    }
    let stale = builder.spawn();
    assert_eq!(stale.wait_exit(PATIENCE), 75, "restart me\n{}", stale.report());
    let said = stale.stderr();
    assert!(said.contains("data_dir_stale") && said.contains("the next start has a new identity"), "{said}");
    let stranger = builder.spawn();
    assert_waits_for_the_lease(&stranger, &second);
    assert_eq!(tenures(&[first, second, stale, stranger]).len(), 3);
}

#[test]
fn a_node_that_lost_its_data_dir_waits_for_its_old_lease() {
    let etcd = EtcdCluster::start(1);
    let (builder, first) = lone_leader(&etcd, SHORT);
    first.kill();
    std::fs::remove_dir_all(first.data_dir()).expect("removed");
    let stranger = builder.spawn();
    assert_waits_for_the_lease(&stranger, &first);
    assert_eq!(tenures(&[first, stranger]).len(), 2);
}

#[test]
fn a_node_that_lost_its_data_dir_under_a_long_lease_says_how_to_free_its_record() {
    let etcd = EtcdCluster::start(1);
    let (builder, first) = lone_leader(&etcd, Duration::from_secs(LONG_SECS));
    let lease = first.wait_for("joined", PATIENCE).str("lease").to_owned();
    first.kill();
    std::fs::remove_dir_all(first.data_dir()).expect("removed");
    let stranger = builder.spawn();
    assert_eq!(stranger.wait_exit(Duration::from_secs(60) + PATIENCE), 73, "{}", stranger.report());
    let said = stranger.stderr();
    let command = ["lease", "revoke", lease.trim_start_matches('0')];
    assert!(said.contains("etcdctl lease revoke") && said.contains(&lease), "{said}");
    etcd.etcdctl_ok(&command);
    let next = builder.spawn();
    next.wait_for("main_loop_started", PATIENCE);
    wait_until("it leads alone", PATIENCE, || next.has_event("leader_changed"));
    assert_eq!(tenures(&[first, stranger, next]).len(), 2);
}

// --- proof of death --------------------------------------------------------------------------------------------------

/// Makes the folder look as if a process on another machine, in another boot, had left it.
fn move_from_elsewhere(folder: &Path) {
    let inode = std::fs::metadata(folder).expect("a folder").ino();
    edit(&folder.join("identity"), |json| json["binding"] = format!("another machine:{inode}").into());
    edit(&folder.join("state"), |json| json["boot"] = "another boot".into());
}

fn edit(file: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    let mut json = serde_json::from_slice(&std::fs::read(file).expect("read")).expect("JSON");
    change(&mut json);
    std::fs::write(file, json.to_string()).expect("written");
}

#[test]
fn a_data_dir_from_another_machine_leaves_the_record_of_a_process_alone_that_may_live_there() {
    let etcd = EtcdCluster::start(1);
    let (builder, original) = lone_leader(&etcd, SHORT);
    // A clone of the volume: for all that the files say, the same folder.
    let folder = beside(&original, "clone");
    copy_dir(original.data_dir(), &folder);
    move_from_elsewhere(&folder);
    let clone = builder.clone().data_dir(&folder);
    for word in ["false", "true"] {
        let clone = clone.clone().env("METAD_NODE__DATA_DIR_EXCLUSIVE", word).spawn();
        if word == "false" {
            assert_eq!(clone.wait_exit(PATIENCE), 73, "{}", clone.report());
            assert!(clone.stderr().contains("/etc/machine-id"), "{}", clone.stderr());
            assert!(
                original.is_alive() && !original.has_event("main_loop_stopping"),
                "{}",
                original.report()
            );
            // The stranger that it became says nothing about the next clone.
            std::fs::remove_dir_all(&folder).expect("removed");
            original.kill();
            copy_dir(original.data_dir(), &folder);
            move_from_elsewhere(&folder);
        } else {
            clone.wait_for("main_loop_started", PATIENCE);
            let took = between(original.died_ns().expect("dead"), started_ns(&clone));
            assert!(
                took < SHORT / 2 + SCHEDULING_SLACK,
                "by the operator's word it takes its record back: {took:?}"
            );
            assert_eq!(tenures(&[original, clone]).len(), 2);
            return;
        }
    }
}

#[test]
fn a_machine_that_got_another_name_is_told_both_causes_and_the_command() {
    let etcd = EtcdCluster::start(1);
    let (builder, first) = lone_leader(&etcd, Duration::from_secs(LONG_SECS));
    first.kill();
    move_from_elsewhere(first.data_dir());
    let stranger = builder.spawn();
    assert_eq!(stranger.wait_exit(Duration::from_secs(60) + PATIENCE), 73, "{}", stranger.report());
    let said = stranger.stderr();
    for part in
        ["another machine", "/etc/machine-id", "metad release --node a --it-is-dead", "data_dir_exclusive"]
    {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    assert_eq!(tenures(&[first, stranger]).len(), 1);
}

#[test]
fn a_crashed_leader_that_starts_with_priority_0_gives_its_record_up_at_once() {
    let etcd = EtcdCluster::start(1);
    let (builder, first) = lone_leader(&etcd, Duration::from_secs(LONG_SECS));
    let other = NodeBuilder::new("b").lease_secs(LONG_SECS).etcd(&etcd).spawn();
    other.wait_for("joined", PATIENCE);
    first.kill();
    let observer = builder.env("METAD_NODE__PRIORITY", "0").spawn();
    // Its lease of a day is not waited for.
    other.wait_for("main_loop_started", PATIENCE);
    observer.wait_for("joined", PATIENCE);
    assert!(!observer.has_event("leadership_won"), "{}", observer.report());
    assert_eq!(tenures(&[first, other, observer]).len(), 2);
}
