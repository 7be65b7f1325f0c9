//! `metad run -- CMD`, on real processes: never two programs at once, whatever is killed; what is left of one ends
//! with it; a program that fails; and what a program gets to see of all this.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::crew::{assert_ended_in_time, between, slack};
use crate::support::etcd::EtcdCluster;
use crate::support::family::{ALL, COMET, Families, Family, PROGRAM, live};
use crate::support::node::{Node, NodeBuilder, Signal};
use crate::support::poll::{boot_ns, holds_within, wait_until};
use crate::support::proxy::FaultProxy;
use crate::support::{ourselves, spawn, witness};

/// Starting processes and etcd on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// A lease that no test waits for: whoever leads before it ends was let in.
const DAY_SECS: u64 = 86_400;
/// When nothing may be left of a program's tree after its node, or the program itself, was killed.
const NO_ORPHANS_AFTER: Duration = Duration::from_secs(2);

#[test]
#[ignore = "a program that the other tests run, not a test"]
fn program_that_lives() {
    live();
}

fn on_etcd(id: &str, etcd: &EtcdCluster, lease_secs: u64) -> NodeBuilder {
    NodeBuilder::new(id).etcd(etcd).lease_secs(lease_secs)
}

/// A leader with a family, and a follower that will have one.
struct Pair {
    families: Families,
    nodes: [Node; 2],
    first: Family,
    _etcd: EtcdCluster,
}

impl Pair {
    fn start(lease_secs: u64, members: &[&str]) -> Self {
        let (etcd, families) = (EtcdCluster::start(1), Families::new());
        let node = |id| families.of(on_etcd(id, &etcd, lease_secs), program_that_lives, members);
        let leader = node("a").spawn();
        let first = families.wait_for(1, "a", members, PATIENCE);
        let follower = node("b").spawn();
        follower.wait_for("joined", PATIENCE);
        Self { families, nodes: [leader, follower], first, _etcd: etcd }
    }

    /// Does this to the leader (it is told the program's process id), and waits for the follower's family. Nothing of
    /// the first one was left by then, nor 2 s after the deed.
    fn succeed(&self, members: &[&str], doom: impl FnOnce(&Node, u32)) {
        let doomed = boot_ns();
        doom(&self.nodes[0], self.first.program());
        self.families.wait_for(2, "b", members, PATIENCE);
        let families = self.families.check();
        assert_eq!(families.len(), 2, "{families:?}");
        assert!(families[0].token < families[1].token, "{families:?}");
        let last = families[0].last_ns();
        let left = between(doomed, last);
        assert!(left < NO_ORPHANS_AFTER + slack(doomed, last), "orphans for {left:?}");
    }
}

// === Never two at once ===

#[test]
fn metad_is_killed() {
    Pair::start(DAY_SECS, &ALL).succeed(&ALL, |metad, _| metad.kill());
}

#[test]
fn the_program_is_killed() {
    let pair = Pair::start(DAY_SECS, &ALL);
    pair.succeed(&ALL, |_, program| spawn::signal(program, Signal::KILL));
    assert_eq!(pair.nodes[0].wait_exit(PATIENCE), 137, "{}", pair.nodes[0].report());
}

#[test]
fn metad_and_the_program_are_killed() {
    Pair::start(DAY_SECS, &ALL).succeed(&ALL, |metad, program| {
        spawn::signal(program, Signal::KILL);
        metad.kill();
    });
}

#[test]
fn the_groups_of_metad_and_of_the_program_are_killed() {
    Pair::start(DAY_SECS, &ALL).succeed(&ALL, |metad, program| {
        kill_group(metad.pid());
        kill_group(program);
    });
}

/// What `kill -9 -PID` does.
fn kill_group(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).expect("a process id");
    rustix::process::kill_process_group(pid, Signal::KILL).expect("a group");
}

/// A process that is another one each time that one looks is caught as well.
#[test]
fn metad_is_killed_while_its_program_forks_all_the_time() {
    let members = [PROGRAM, COMET];
    Pair::start(DAY_SECS, &members).succeed(&members, |metad, _| metad.kill());
}

/// Nobody is left to clear up. The parent-death signal ends the program itself, and the lease the tenure; what the
/// program started is left to a cgroup.
#[test]
fn metad_and_its_guardian_are_killed_at_once() {
    Pair::start(5, &[PROGRAM]).succeed(&[PROGRAM], |metad, program| {
        metad.pause(); // it must not notice
        let others = metad.tree().into_iter().filter(|pid| ![metad.pid(), program].contains(pid));
        let guardian: Vec<u32> = others.collect();
        assert_eq!(guardian.len(), 1, "{guardian:?}");
        spawn::signal(guardian[0], Signal::KILL);
        metad.kill();
    });
}

#[test]
fn a_program_that_cares_for_no_signal_ends_before_leadership_is_handed_over() {
    let (etcd, families) = (EtcdCluster::start(1), Families::new());
    let node = |id| {
        let node = families.of(on_etcd(id, &etcd, DAY_SECS), program_that_lives, &ALL);
        Families::stubborn(node).env("METAD_META__STOP_TIMEOUT_SECS", "1").spawn()
    };
    let leader = node("a");
    families.wait_for(1, "a", &ALL, PATIENCE);
    let follower = node("b");
    follower.wait_for("joined", PATIENCE);
    let told = boot_ns();
    leader.signal(Signal::TERM);
    assert_eq!(leader.wait_exit(PATIENCE), 0, "{}", leader.report());
    families.wait_for(2, "b", &ALL, PATIENCE);
    let last = families.check()[0].last_ns();
    let (stopped, waited) = (between(told, last), witness::waited(told, last + 1_000_000_000));
    assert!(stopped + waited > Duration::from_millis(900), "twin: it did not care for SIGTERM: {stopped:?}");
}

#[test]
fn a_program_that_cares_for_no_signal_ends_before_the_lease_of_a_leader_that_is_cut_off() {
    let (etcd, families) = (EtcdCluster::start(1), Families::new());
    let proxy = FaultProxy::start(etcd.addr(0));
    let family = |node| Families::stubborn(families.of(node, program_that_lives, &ALL)).spawn();
    let leader = family(NodeBuilder::new("a").endpoints([proxy.addr()]).lease_secs(5));
    families.wait_for(1, "a", &ALL, PATIENCE);
    let follower = family(on_etcd("b", &etcd, 5));
    follower.wait_for("joined", PATIENCE);
    let cut = boot_ns();
    proxy.cut();
    let lease = Duration::from_secs(5);
    assert_ended_in_time(&leader, cut, lease);
    families.wait_for(2, "b", &ALL, PATIENCE);
    // What counts is in `check`: no stamp of the old program is later than the new one's first.
    let last = families.check()[0].last_ns();
    let (lived, waited) = (between(cut, last), witness::waited(cut, last));
    assert!(lived < lease + waited, "within the lease: {lived:?}");
    assert!(lived + waited > lease / 2, "twin: it lived on after the cut: {lived:?}");
}

// === The end of a program ===

#[test]
fn a_program_that_ends_hands_its_leadership_over_and_its_code_is_the_nodes() {
    let etcd = EtcdCluster::start(1);
    let mut in_one_write = 0;
    for (script, code) in [("exit 7", 7), ("exit 0", 0), ("kill -USR1 $$", 138)] {
        let cluster = format!("ends-with-{code}");
        let wait_for_file = format!("until [ -e now ]; do sleep 0.05; done; {script}");
        let builder = on_etcd("a", &etcd, DAY_SECS).cluster(&cluster).payload(&["sh", "-c", &wait_for_file]);
        let leader = builder.spawn();
        let token = leader.wait_for("main_loop_started", PATIENCE).token().expect("a token");
        let follower = on_etcd("b", &etcd, DAY_SECS).cluster(&cluster).spawn();
        leader.wait_event(|e| e.kind() == "member_joined" && e.str("member") == "b", PATIENCE);
        std::fs::write(leader.data_dir().with_file_name("now"), "").expect("a file");
        assert_eq!(leader.wait_exit(PATIENCE), code, "{script}: {}", leader.report());
        let next = follower.wait_for("main_loop_started", PATIENCE).token().expect("a token");
        let key = format!("/metad/{cluster}/election/meta/leader");
        let record = etcd.etcdctl_ok(&["get", &key, "-w", "json"]);
        let record: serde_json::Value = serde_json::from_str(&record).expect("JSON");
        let record = &record["kvs"][0];
        assert_eq!(record["mod_revision"].as_u64(), Some(next), "{script}: {record}");
        // Then the record was never gone: it was changed, and not created again.
        in_one_write += u32::from(record["create_revision"].as_u64() == Some(token));
        let given_up = leader.wait_for("leadership_resigned", PATIENCE).at_ns();
        assert!(given_up < leader.ended_ns().expect("ended"), "{script}: first given up, then ended");
    }
    // On a busy machine a candidate may say too late that it is ready.
    assert!(in_one_write > 0, "no leadership was handed over in one write");
}

#[test]
fn a_program_that_cannot_be_started_is_said_at_once_and_never_leads() {
    let folder = tempfile::tempdir().expect("a folder");
    let plain = folder.path().join("plain");
    std::fs::write(&plain, "no program").expect("a file");
    let plain = plain.to_str().expect("text");
    for (program, code, why) in [
        ("/nowhere/program", 127, "No such file"),
        ("no-such-program", 127, "No such file"),
        (plain, 126, "Permission denied"),
        ("/", 126, "Permission denied"),
    ] {
        let node = NodeBuilder::new("n1").payload(&[program]).spawn();
        assert_eq!(node.wait_exit(PATIENCE), code, "{}", node.report());
        let said = node.messages();
        assert!(said.contains(&format!("cannot run {program:?}")) && said.contains(why), "{said}");
        assert!(!node.has_event("joined") && !node.has_event("main_loop_started"), "{}", node.report());
    }
}

/// What cannot be passed on is said before it takes part in the election, and not by each node in its turn.
#[test]
fn arguments_that_are_too_long_are_said_at_once_and_never_lead() {
    let many = vec!["y".repeat(1_000); 250];
    let command: Vec<&str> = std::iter::once("true").chain(many.iter().map(String::as_str)).collect();
    let node = NodeBuilder::new("n1").payload(&command).spawn();
    assert_eq!(node.wait_exit(PATIENCE), 64, "{}", node.report());
    let said = node.stderr();
    assert!(said.contains("the program's arguments are too long"), "{said}");
    assert!(said.contains("fix: put them into a file"), "{said}");
    assert!(!node.has_event("joined"), "{}", node.report());
    let short = "x".repeat(100_000);
    let node = NodeBuilder::new("n1").payload(&["true", &short]).spawn();
    assert_eq!(node.wait_exit(PATIENCE), 0, "twin: shorter ones run: {}", node.report());
}

/// That cannot be seen from outside: the file is there and may be executed.
#[test]
fn a_program_without_its_interpreter_gives_leadership_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = folder.path().join("script");
    std::fs::write(&script, "#!/nowhere/interpreter\n").expect("a file");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, executable).expect("permissions");
    let script = script.to_str().expect("text");
    let node = NodeBuilder::new("n1").arg("--restart").arg("on-failure").payload(&[script]).spawn();
    assert_eq!(node.wait_exit(PATIENCE), 127, "{}", node.report());
    let log = node.stderr();
    assert!(log.lines().any(|l| l.contains("cannot run") && l.contains(script)), "{}", node.report());
    assert!(!log.contains("keep alive failed"), "it had nothing to do with it: {log}");
    assert!(node.has_event("leadership_resigned"), "{}", node.report());
    assert!(!node.has_event("main_loop_started"), "it never ran: {}", node.report());
}

// === Restarts ===

/// Says which run it is, under which token, and when; fails in the first three, and then ends well.
const FAILS_THRICE: &str = "n=$(cat runs 2>/dev/null || echo 0); n=$((n + 1)); echo $n > runs
    read up rest < /proc/uptime; echo run $n token $METAD_TOKEN at $up
    case $n in 1) exit 3;; 2) kill -9 $$;; 3) exit 4;; *) exit 0;; esac";

/// The tokens and times of its runs.
fn runs(node: &Node) -> Vec<(u64, f64)> {
    let said = node.stdout();
    let words = said.lines().filter(|l| l.starts_with("run ")).map(|l| l.split(' ').collect::<Vec<_>>());
    words.map(|w| (w[3].parse().expect("a token"), w[5].parse().expect("seconds"))).collect()
}

#[test]
fn a_program_that_fails_is_started_again_under_the_same_leadership_after_growing_pauses() {
    let node = NodeBuilder::new("n1")
        .arg("--restart")
        .arg("on-failure")
        .payload(&["sh", "-c", FAILS_THRICE])
        .spawn();
    assert_eq!(node.wait_exit(PATIENCE), 0, "the last one ended well: {}", node.report());
    let token = node.wait_for("main_loop_started", PATIENCE).token().expect("a token");
    let runs = runs(&node);
    assert_eq!(runs.iter().map(|run| run.0).collect::<Vec<_>>(), [token; 4], "{}", node.report());
    for (pair, pause) in runs.windows(2).zip([0.5, 1.0, 2.0]) {
        assert!(pair[1].1 - pair[0].1 > pause - 0.02, "a pause of {pause} s: {runs:?}"); // the stamps are rounded
    }
    let log = node.stderr();
    for (code, pause) in [(3, "500ms"), (137, "1s"), (4, "2s")] {
        let line =
            log.lines().find(|l| l.contains("restarting it") && l.contains(&format!("\"code\":{code},")));
        assert!(line.is_some_and(|l| l.contains(&format!("\"next_try_in\":\"{pause}\""))), "{code}: {log}");
    }
}

#[test]
fn without_that_the_first_failure_ends_the_node() {
    let node = NodeBuilder::new("n1").payload(&["sh", "-c", FAILS_THRICE]).spawn();
    assert_eq!(node.wait_exit(PATIENCE), 3, "{}", node.report());
    assert_eq!(runs(&node).len(), 1, "{}", node.report());
}

#[test]
fn nothing_of_a_killed_program_is_left_when_it_is_started_again() {
    let families = Families::new();
    let node = NodeBuilder::new("a").env("METAD_META__RESTART", "on-failure");
    let node = families.of(node, program_that_lives, &ALL).spawn();
    for count in 1..=3 {
        let family = families.wait_for(count, "a", &ALL, PATIENCE);
        spawn::signal(family.program(), Signal::KILL);
    }
    families.wait_for(4, "a", &ALL, PATIENCE);
    let families = families.check();
    assert!(families.iter().all(|f| f.token == families[0].token), "{families:?}");
    assert!(!node.has_event("main_loop_stopping"), "{}", node.report());
}

/// What the program that fails at once is told again in: long enough to see that nobody waits for it.
const LONG_PAUSE: Duration = Duration::from_secs(8);

/// A node in the long pause before its program is started again, and a follower of it.
fn in_the_pause(etcd: &EtcdCluster, cluster: &str) -> [Node; 2] {
    let builder = on_etcd("a", etcd, DAY_SECS).cluster(cluster).arg("--restart").arg("on-failure");
    let leader = builder.payload(&["sh", "-c", "exit 1"]).spawn();
    leader.wait_for("main_loop_started", PATIENCE);
    let follower = on_etcd("b", etcd, DAY_SECS).cluster(cluster).spawn();
    follower.wait_for("joined", PATIENCE);
    let pause = format!("\"next_try_in\":\"{LONG_PAUSE:?}\"");
    wait_until("the long pause", PATIENCE, || leader.stderr().contains(&pause));
    assert!(!leader.has_event("main_loop_stopping"), "twin: it leads all the while: {}", leader.report());
    [leader, follower]
}

#[test]
fn what_ends_leadership_does_not_wait_for_the_next_start() {
    let etcd = EtcdCluster::start(1);
    let etcd = &etcd;
    let [told, orphaned] = std::thread::scope(|scope| {
        let start = |cluster| scope.spawn(move || in_the_pause(etcd, cluster));
        [start("told"), start("orphaned")].map(|node| node.join().expect("a pair"))
    });
    let begin = boot_ns();
    told[0].signal(Signal::TERM);
    let guardian = orphaned[0].guardian();
    spawn::signal(guardian, Signal::KILL);
    assert_eq!(told[0].wait_exit(PATIENCE), 0, "{}", told[0].report());
    let ended = told[0].wait_for("main_loop_stopped", PATIENCE).at_ns();
    assert!(between(begin, ended) < LONG_PAUSE / 2, "it waited: {}", told[0].report());
    told[1].wait_for("main_loop_started", PATIENCE);
    // Without a program a guardian is only replaced, and the next run is the new one's.
    wait_until("another guardian", PATIENCE, || orphaned[0].guardian() != guardian);
    wait_until("the next run", PATIENCE, || orphaned[0].stderr().contains("\"next_try_in\":\"16s\""));
    assert!(!orphaned[0].has_event("main_loop_stopping"), "{}", orphaned[0].report());
}

/// A program that gives signs of life is not taken for hung while it is not there.
#[test]
#[ignore = "a program that the other tests run, not a test"]
fn program_that_gives_a_sign_of_life_and_fails() {
    spawn::notify("WATCHDOG=1");
    std::process::exit(1);
}

#[test]
fn a_pause_is_no_hang() {
    let program = ourselves::calling(program_that_gives_a_sign_of_life_and_fails);
    let node = NodeBuilder::new("n1")
        .env("METAD_META__MAIN_LOOP_TIMEOUT_SECS", "5")
        .arg("--restart")
        .arg("on-failure")
        .payload(&program)
        .spawn();
    let after_the_long_pause = "\"next_try_in\":\"16s\"";
    wait_until("it has lived through a pause of 8 s", PATIENCE, || {
        node.stderr().contains(after_the_long_pause)
    });
    assert!(!node.has_event("main_loop_stopping"), "{}", node.report());
}

// === What the program sees ===

/// Says each signal that it gets.
const SAYS_SIGNALS: &str = "for s in HUP USR1 USR2 WINCH; do trap \"echo got $s\" $s; done
    echo ready; while :; do sleep 1000 & wait $!; kill $!; done";

#[test]
fn signals_reach_the_program_and_change_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = |id| {
        let node = NodeBuilder::new(id).sqlite(folder.path().join("metad.db"));
        node.payload(&["sh", "-c", SAYS_SIGNALS]).spawn()
    };
    let leader = node("a");
    wait_until("the program is ready", PATIENCE, || leader.stdout().contains("ready"));
    let follower = node("b");
    follower.wait_for("joined", PATIENCE);
    for (signal, name) in
        [(Signal::HUP, "HUP"), (Signal::USR1, "USR1"), (Signal::USR2, "USR2"), (Signal::WINCH, "WINCH")]
    {
        leader.signal(signal);
        follower.signal(signal);
        wait_until(name, PATIENCE, || leader.stdout().contains(&format!("got {name}")));
    }
    let said = leader.stdout();
    assert_eq!(said.matches("got").count(), 4, "each once: {said}");
    leader.signal(Signal::TERM);
    assert_eq!(leader.wait_exit(PATIENCE), 0, "{}", leader.report());
    // Without a program the follower had nobody to pass them on to, and they did not end it.
    wait_until("the follower's turn", PATIENCE, || follower.stdout().contains("ready"));
    assert!(!follower.stdout().contains("got"), "{}", follower.report());
}

#[test]
fn under_nohup_a_hangup_stays_ignored() {
    let mut nohup = Command::new("nohup");
    nohup.arg(spawn::metad_program()).args(["run", "--", "sh", "-c", SAYS_SIGNALS]);
    let node = NodeBuilder::new("n1").spawn_program(nohup);
    wait_until("the program is ready", PATIENCE, || node.stdout().contains("ready"));
    node.signal(Signal::HUP);
    node.signal(Signal::USR1);
    wait_until("the other signal", PATIENCE, || node.stdout().contains("got USR1"));
    assert!(
        !holds_within(Duration::from_millis(300), || node.stdout().contains("got HUP")),
        "{}",
        node.report()
    );
}

/// So many bytes that look random, the same each time.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(count).collect()
}

#[test]
fn what_the_program_reads_and_writes_passes_through_unchanged() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = spawn::metad_command();
    command.args(["run", "--node-id", "n1", "--listen-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0"]);
    // First to stdout, then what is left of it to stderr, where nothing else may be then.
    command.args(["--", "sh", "-c", "head -c 1048576; cat >&2"]).env("METAD_LOG__FILTER", "off");
    command.current_dir(folder.path());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = spawn::spawn(command).expect("metad starts");
    let sent = noise(2 * 1024 * 1024);
    let mut stdin = child.stdin.take().expect("piped");
    let (mut stdout, mut stderr) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    let read_all = |from: &mut dyn Read| {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).expect("its output");
        bytes
    };
    let (out, err) = std::thread::scope(|scope| {
        let err = scope.spawn(|| read_all(&mut stderr));
        let out = scope.spawn(|| read_all(&mut stdout));
        stdin.write_all(&sent).expect("it reads");
        drop(stdin);
        (out.join().expect("stdout"), err.join().expect("stderr"))
    });
    assert_eq!(child.wait().expect("its end").code(), Some(0));
    let is_same = |got: &[u8], sent: &[u8]| got == sent; // a megabyte in a message helps nobody
    assert!(is_same(&out, &sent[..1024 * 1024]), "stdout: {} bytes", out.len());
    assert!(is_same(&err, &sent[1024 * 1024..]), "stderr: {} bytes", err.len());
}
