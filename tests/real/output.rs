//! What becomes of a process that cannot say what it has to say: its output is a full disk, a pipe that nobody reads,
//! or one whose reader has gone. The exit code stays, nothing hangs, nothing panics.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::crew::PATIENCE;
use crate::support::etcd::EtcdCluster;
use crate::support::node::{Node, NodeBuilder, Signal};
use crate::support::poll::{boot_ns, holds_within};
use crate::support::spawn;
use rustix::fs::{Mode, OFlags};

/// From a decision to end until the end, as the design has it; the rest is for a busy machine.
const EXIT_LIMIT: Duration = Duration::from_secs(2);

fn full_disk() -> Stdio {
    File::options().write(true).open("/dev/full").expect("/dev/full").into()
}

fn nobody_reads() -> Stdio {
    rustix::pipe::pipe().expect("a pipe").1.into()
}

/// A pipe that has no room left, and its end that nobody reads.
fn full_pipe() -> (OwnedFd, Stdio) {
    let (read, write) = rustix::pipe::pipe().expect("a pipe");
    fill(&write);
    (read, write.into())
}

/// Leaves no room in this pipe. It is opened again for that: the one at hand still blocks.
fn fill(pipe: &impl AsRawFd) {
    let path = format!("/proc/self/fd/{}", pipe.as_raw_fd());
    let again = rustix::fs::open(path, OFlags::WRONLY | OFlags::NONBLOCK, Mode::empty()).expect("a pipe");
    while rustix::io::write(&again, &[b'x'; 4096]).is_ok() {}
    while rustix::io::write(&again, b"x").is_ok() {}
}

fn command(args: &[&str]) -> Command {
    let mut command = spawn::metad_command();
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// The exit code; 128 + n for an end by signal n.
#[track_caller]
fn code(mut child: Child) -> i32 {
    let mut ended = None;
    let is_over = || {
        ended = child.try_wait().expect("a child can be waited for");
        ended.is_some()
    };
    assert!(holds_within(PATIENCE, is_over), "it does not end");
    ended.and_then(|e| e.code().or(e.signal().map(|s| 128 + s))).expect("one of them")
}

#[track_caller]
fn run(command: Command) -> i32 {
    code(spawn::spawn(command).expect("metad starts"))
}

fn leading(id: &str) -> (Node, String) {
    let node = NodeBuilder::new(id).spawn();
    node.wait_for("main_loop_started", PATIENCE);
    let address = node.rpc_addr().to_string();
    (node, address)
}

#[test]
fn an_output_that_cannot_be_written_is_said_and_a_reader_that_has_gone_is_fine() {
    let (_node, at) = leading("n1");
    let commands: [&[&str]; 9] = [
        &["--help"],
        &["completions", "bash"],
        &["config", "print"],
        &["config", "check"],
        &["doctor", "--list"],
        &["status", "--meta", &at],
        &["leader", "-o", "json", "--meta", &at],
        &["members", "--meta", &at],
        &["history", "--meta", &at],
    ];
    for args in commands {
        let mut full = command(args);
        full.stdout(full_disk()).stderr(Stdio::piped());
        let mut child = spawn::spawn(full).expect("metad starts");
        let mut said = String::new();
        child.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
        assert_eq!(code(child), 74, "{args:?}: {said}");
        assert!(said.contains("cannot write the output: No space left"), "{args:?}: {said}");
        let mut gone = command(args);
        gone.stdout(nobody_reads());
        assert_eq!(run(gone), 0, "{args:?}, as with head");
        assert_eq!(run(command(args)), 0, "{args:?}, twin");
    }
    let mut forever = command(&["status", "--watch", "--meta", &at]);
    forever.stdout(full_disk());
    assert_eq!(run(forever), 74);
}

#[test]
fn what_cannot_be_said_on_stderr_leaves_the_exit_code_as_it_is() {
    let (node, _) = leading("n1");
    let data_dir = node.data_dir().to_str().expect("UTF-8");
    let start = ["serve", "--listen-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0"];
    let of = |more: &[&str]| [&start[..], more].concat().iter().map(|a| (*a).to_owned()).collect::<Vec<_>>();
    let rows: [(Vec<String>, i32); 5] = [
        (vec!["status".into(), "--meta".into(), "127.0.0.1:1".into()], 1),
        (vec!["serve".into(), "--no-such-flag".into()], 64),
        (of(&["--meta-leader-lease-secs", "1"]), 78),
        (of(&["--data-dir", data_dir, "--node-id", "n1"]), 73),
        (of(&["--data-dir", "/proc/nowhere", "--node-id", "n2"]), 74),
    ];
    for (args, expected) in rows {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let (_unread, full) = full_pipe();
        for (what, stderr) in [("full disk", full_disk()), ("no reader", nobody_reads()), ("full pipe", full)]
        {
            let mut command = command(&args);
            command.stderr(stderr);
            assert_eq!(run(command), expected, "{args:?}, {what}");
        }
    }
}

/// A node that logs all it can to a stderr that takes nothing.
fn speechless(stderr: Stdio) -> (Child, tempfile::TempDir, String) {
    let dir = tempfile::tempdir().expect("a folder");
    let mut serve = spawn::metad_command();
    serve.args(["serve", "--events", "--node-id", "n1", "--meta-leader-lease-secs", "5", "--data-dir"]);
    serve.arg(dir.path().join("data"));
    serve
        .args(["--listen-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0"])
        .env("METAD_LOG__FILTER", "trace");
    serve.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
    let mut child = spawn::spawn(serve).expect("metad starts");
    let mut events = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let mut until = |kind: &str| {
        let event = events.find_map(|line| {
            serde_json::from_str(&line).ok().filter(|e: &serde_json::Value| e["type"] == kind)
        });
        event.unwrap_or_else(|| panic!("it ended without {kind}"))
    };
    let address = until("listening")["rpc"].as_str().expect("an address").to_owned();
    until("main_loop_started");
    std::thread::spawn(move || events.for_each(drop)); // somebody reads them
    (child, dir, address)
}

#[test]
fn a_node_ends_in_time_with_its_code_though_nobody_reads_its_log() {
    for ends_by_signal in [true, false] {
        let (_unread, full) = full_pipe();
        let (child, _dir, address) = speechless(full);
        let before = boot_ns();
        let expected = if ends_by_signal {
            spawn::signal(child.id(), Signal::TERM);
            0
        } else {
            let mut step_down = command(&["step-down", "--yes", "--force", "--meta", &address]);
            step_down.stdout(Stdio::null());
            std::thread::spawn(move || run(step_down)); // nobody else can lead
            75
        };
        assert_eq!(code(child), expected);
        let took = Duration::from_nanos(boot_ns() - before);
        println!("ended {took:?} after it was told to, of {EXIT_LIMIT:?} after its decision");
    }
    let (child, _dir, _) = speechless(Stdio::null());
    spawn::signal(child.id(), Signal::TERM);
    assert_eq!(code(child), 0, "twin");
}

/// The main loop is over in time; that nobody reads of it must not look like one that hangs.
#[test]
fn a_lost_lease_is_told_from_a_main_loop_that_hangs_though_nobody_reads_its_events() {
    for is_read in [false, true] {
        let etcd = EtcdCluster::start(1);
        let (read, write) = rustix::pipe::pipe().expect("a pipe");
        let ours = write.try_clone().expect("a descriptor");
        let dir = tempfile::tempdir().expect("a folder");
        let data_dir = dir.path().join("data");
        let mut serve = command(&["serve", "--events", "--node-id", "n1", "--meta-leader-lease-secs", "15"]);
        serve.args(["--store", "etcd", "--etcd-endpoints", &etcd.endpoint(0), "--data-dir"]).arg(data_dir);
        serve.args(["--listen-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0"]).stdout(write);
        let child = spawn::spawn(serve).expect("metad starts");
        let mut events = BufReader::new(File::from(read)).lines().map_while(Result::ok);
        assert!(events.any(|line| line.contains("main_loop_started")), "twin");
        if is_read {
            std::thread::spawn(move || events.for_each(drop)); // as long as its guardian has it open
        } else {
            fill(&ours);
        }
        etcd.pause_all();
        assert_eq!(code(child), 75, "its events are read: {is_read}");
    }
}

#[test]
fn a_node_ends_with_its_code_though_its_log_is_a_full_disk_or_has_no_reader() {
    for stderr in [full_disk(), nobody_reads()] {
        let (child, _dir, address) = speechless(stderr);
        let step_down = command(&["step-down", "--yes", "--force", "--meta", &address]);
        std::thread::spawn(move || run(step_down));
        assert_eq!(code(child), 75);
    }
}

#[test]
fn what_never_ends_by_itself_ends_with_its_reader() {
    let (_node, at) = leading("n1");
    let commands: [&[&str]; 5] = [
        &["status", "--watch", "1h", "--meta", &at],
        &["leader", "--watch", "1h", "--meta", &at],
        &["members", "-o", "json", "--watch", "1h", "--meta", &at],
        &["watch", "--meta", &at],
        &["worker", "--meta", &at],
    ];
    for args in commands {
        let mut endless = command(args);
        endless.stdout(Stdio::piped());
        let mut child = spawn::spawn(endless).expect("metad starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("text");
        assert!(!line.is_empty(), "{args:?}: at least one line");
        // Its only reader is gone by now.
        assert_eq!(code(child), 0, "{args:?}");
    }
}

#[test]
fn a_panic_exits_70_with_its_text_and_what_to_do() {
    // No thread can have a stack of this size, so none can be started: not the one that asks for an address.
    let (code, _, said) = with_no_threads(&["status", "--meta", "localhost:1"]);
    assert_eq!(code, Some(70), "{said}");
    assert!(
        said.contains("internal error: OS can't spawn worker thread") && said.contains("ulimit"),
        "{said}"
    );
    let start = ["serve", "--data-dir", "/nowhere", "--node-id", "n"];
    let (code, _, said) = with_no_threads(&start);
    assert_eq!(code, Some(70), "{said}");
    assert!(said.contains("cannot start the log's thread") && said.contains("ulimit"), "{said}");
}

fn with_no_threads(args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = spawn::metad_command();
    command.args(args).env("RUST_MIN_STACK", (1_u64 << 46).to_string());
    let output = spawn::output(command, PATIENCE);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// The levels of the log's lines, which are JSON to the last one.
#[track_caller]
fn levels(log: &str) -> Vec<String> {
    let line = |text: &str| serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text:?}"));
    let lines = log.lines().map(|text| -> serde_json::Value { line(text) });
    lines
        .map(|line| {
            assert!(line["target"].is_string() && line["timestamp"].is_string(), "{line}");
            line["level"].as_str().expect("a level").to_owned()
        })
        .collect()
}

#[test]
fn the_log_is_json_to_its_last_line_and_one_loss_is_one_error() {
    let etcd = EtcdCluster::start(1);
    let errors = |node: &Node| levels(&node.stderr()).iter().filter(|level| *level == "ERROR").count();
    let lost = NodeBuilder::new("n1").etcd(&etcd).lease_secs(15).spawn();
    lost.wait_for("main_loop_started", PATIENCE);
    let taken = NodeBuilder::new("n1").etcd(&etcd).lease_secs(15).spawn();
    assert_eq!((taken.wait_exit(PATIENCE), errors(&taken)), (73, 1), "{}", taken.stderr());
    etcd.pause_all();
    assert_eq!((lost.wait_exit(PATIENCE), errors(&lost)), (75, 1), "{}", lost.stderr());
    etcd.resume_all();
    let stopped = NodeBuilder::new("n2").etcd(&etcd).spawn();
    stopped.wait_for("main_loop_started", PATIENCE);
    stopped.signal(Signal::TERM);
    assert_eq!((stopped.wait_exit(PATIENCE), errors(&stopped)), (0, 0), "{}", stopped.stderr());
    let homeless = NodeBuilder::new("n3").data_dir("/proc/nowhere").spawn();
    assert_eq!(
        (homeless.wait_exit(PATIENCE), errors(&homeless)),
        (74, 1),
        "a start that fails: {}",
        homeless.stderr()
    );
}

#[test]
fn a_shell_is_told_the_checks_the_codes_and_the_members() {
    let node = NodeBuilder::new("meta-7").spawn();
    node.wait_for("main_loop_started", PATIENCE);
    let complete = |words: &[&str]| {
        let mut command = spawn::metad_command();
        command.env("METAD_COMPLETE", "fish").env("METAD_META", node.rpc_addr().to_string());
        command.arg("--").args(words);
        let output = spawn::output(command, PATIENCE);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(complete(&["metad", "check", "ETCD_00"]).contains("ETCD_005"));
    assert!(complete(&["metad", "check", "etcd-end"]).contains("etcd-endpoints"));
    assert!(complete(&["metad", "explain", "renew_"]).contains("renew_deadline"));
    assert!(complete(&["metad", "step-down", "--to", ""]).contains("meta-7"));
    assert!(complete(&["metad", "st"]).contains("step-down"));
    assert!(
        !complete(&["metad", "step-down", "--to", "x"]).contains("meta-7"),
        "twin: what does not fit is not named"
    );
}

#[test]
fn repeated_looks_are_dated_and_a_table_fits_its_terminal() {
    let node = NodeBuilder::new("a-meta-node-with-a-name-that-is-rather-long").spawn();
    node.wait_for("main_loop_started", PATIENCE);
    let at = node.rpc_addr().to_string();
    // Through a pipe nothing is wrapped; on a terminal of 60 columns nothing is wider.
    let (_, piped, _) = spawn::metad(&["members", "--meta", &at], PATIENCE);
    assert!(piped.lines().next().is_some_and(|line| line.len() > 80), "{piped}");
    let program = spawn::metad_program();
    let on_terminal = |args: &str| {
        let mut script = std::process::Command::new("script");
        let line = format!("stty cols 60; {} {args} --meta {at}", program.display());
        script.args(["-qec", &line, "/dev/null"]).stdin(std::process::Stdio::null());
        String::from_utf8_lossy(&spawn::output(script, PATIENCE).stdout).into_owned()
    };
    let shown = on_terminal("members");
    assert!(shown.contains("LEASE") && shown.contains("source"), "{shown}");
    let table = shown.lines().take_while(|line| !line.starts_with("source"));
    assert!(
        table.clone().count() > 2 && table.clone().all(|line| line.trim_end().chars().count() <= 60),
        "{shown}"
    );
    let repeated = on_terminal("status -w 200ms & sleep 1; kill $! #");
    assert!(
        repeated.matches("\u{1b}[2J").count() >= 2 && repeated.contains("every 200 ms, 20"),
        "{repeated:?}"
    );
}
