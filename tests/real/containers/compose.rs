//! What `docker-compose.yml` promises, as it is shipped: the commands of its head; whoever is killed, stopped, paused, cut
//! off or restarted; and how little the containers may do.

use std::path::PathBuf;
use std::time::Duration;

use super::stack::{GUARDIAN, LEASE, NODES, Stack, compose, now_ns};
use crate::support::crew::PATIENCE;
use crate::support::node::Signal;
use crate::support::poll::{holds_within, wait_until};
use crate::support::{ourselves, sealed, spawn};

const ROUNDS: usize = 20;
/// What a container may use when its memory is to run out.
const MEMORY: &str = "256m";
const HOG_GROUP: &str = "HOG_GROUP";
const HOG_VICTIM: &str = "HOG_VICTIM";

/// The lines of the file's head, in their order. `metad-1` leads before one of them stops or kills it.
#[test]
#[ignore = "make containers"]
fn the_commands_of_its_head_do_what_it_says() {
    if sealed::runs(the_commands_of_its_head_do_what_it_says) {
        return;
    }
    let stack = Stack::new();
    let file = std::fs::read_to_string("docker-compose.yml").expect("the file");
    compose(&["config", "--quiet"]);
    let commands = file.lines().take_while(|line| line.starts_with('#'));
    let commands: Vec<_> = commands.filter_map(|line| line.strip_prefix("#   docker compose ")).collect();
    assert!(commands.len() >= 9, "{commands:?}");
    for command in commands {
        let words: Vec<_> = command.split_whitespace().take_while(|word| *word != "#").collect();
        let since_ns = now_ns();
        match words[..] {
            ["stop" | "kill", node] => {
                lead(&stack, node);
                let (leader, took) = stack.replace(|leader| {
                    if words[0] == "kill" {
                        stack.ends_at(leader, now_ns());
                    }
                    println!("{words:?}: {}", compose(&words));
                });
                println!("{words:?}: another main loop {took:.0?} after it was called");
                assert_eq!(leader, node);
                assert!(took < LEASE / 3, "the lease was not waited for: {took:?}");
                let code = if words[0] == "kill" { "137" } else { "0" };
                assert_eq!(stack.exit_code(node, since_ns), code);
                let running = ["inspect", "--format", "{{.State.Running}}", &stack.id(node)];
                assert_eq!(stack.docker.call(&running), "false", "it is not restarted by itself");
            }
            ["down", ..] => {
                stack.check_history();
                compose(&words);
            }
            // Without a terminal it has to be told so.
            ["exec", ref rest @ ..] => println!("{words:?}:\n{}", compose(&[&["exec", "-T"], rest].concat())),
            _ => drop(compose(&words)),
        }
    }
    assert_eq!(stack.docker.call(&["ps", "--all", "--quiet"]), "");
    assert_eq!(stack.docker.call(&["volume", "ls", "--quiet"]), "");
}

/// Makes this node the leader.
#[track_caller]
fn lead(stack: &Stack, node: &str) {
    stack.wait_ready();
    let (leader, _) = stack.leader();
    if leader != node {
        // Asked from there: with the leader ends its container, and who asks in it.
        stack.replace(|leader| {
            let at = format!("{leader}:5690");
            stack.metad(node, &["step-down", "--meta", &at, "--to", node, "--yes"]);
        });
    }
    stack.wait_ready();
    assert_eq!(stack.leader().0, node);
}

#[test]
#[ignore = "make containers"]
fn whoever_is_killed_is_replaced_at_once() {
    if sealed::runs(whoever_is_killed_is_replaced_at_once) {
        return;
    }
    let stack = Stack::up();
    repeated("out of memory", 3, || run_out_of_memory(&stack));
    repeated("docker kill of the leader", ROUNDS, || {
        let (leader, took) = stack.replace(|leader| {
            stack.ends_at(leader, now_ns());
            stack.docker.call(&["kill", &stack.id(leader)]);
        });
        compose(&["start", &leader]);
        took
    });
    repeated("kill -9 of the node in its container", ROUNDS, || {
        let doomed = |leader: &str| {
            let node = stack.docker.node(&stack.id(leader));
            stack.ends_at(leader, now_ns());
            spawn::signal(node, Signal::KILL);
        };
        stack.replace(doomed).1
    });
    stack.wait_ready();
    assert!(stack.check_history().len() > 2 * ROUNDS + 3);
}

/// Prints how long each took; nobody waited for the lease.
fn repeated(what: &str, rounds: usize, mut once: impl FnMut() -> Duration) {
    let mut all: Vec<_> = (0..rounds).map(|_| once()).collect();
    all.sort_unstable();
    println!("{what}: another main loop, {} of {rounds}, after {all:.0?}", all.len());
    assert!(all.iter().all(|took| *took < LEASE / 3), "the lease was not waited for");
}

/// The kernel ends the leader's node, because somebody else in its control group takes all the memory that there is.
fn run_out_of_memory(stack: &Stack) -> Duration {
    stack.wait_ready();
    let (leader, _) = stack.leader();
    stack.docker.call(&["update", "--memory", MEMORY, "--memory-swap", MEMORY, &stack.id(&leader)]);
    let (_, took) = stack.replace(|leader| {
        let id = stack.id(leader);
        let (init, node) = (stack.docker.init(&id), stack.docker.node(&id));
        let group = memory_group(init);
        let all_at_once = std::fs::read_to_string(group.join("memory.oom.group")).unwrap_or_default();
        assert_ne!(all_at_once.trim(), "1", "the kernel would end the whole container");
        // Of the two the kernel chooses this one, large as the other may be.
        std::fs::write(format!("/proc/{node}/oom_score_adj"), "1000").expect("we are root");
        let mut hog = ourselves::command(program_that_takes_memory);
        hog.env(HOG_GROUP, &group).env(HOG_VICTIM, node.to_string());
        let said = spawn::output(hog, PATIENCE);
        let said =
            [said.stdout, said.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        let alive = said.rsplit_once("it is alive at ").and_then(|(_, rest)| rest.split_whitespace().next());
        let alive: u64 = alive.and_then(|ns| ns.parse().ok()).unwrap_or_else(|| panic!("no end: {said}"));
        stack.ends_at(leader, alive);
        wait_until("the whole container ends with its node", PATIENCE, || {
            std::fs::read_to_string(format!("/proc/{init}/stat")).is_err()
        });
    });
    took
}

/// Takes memory in another process's control group until that process is gone. It says when it last saw it alive each time,
/// because the kernel may end this one as well: for what it asks before the memory of the other one is free.
#[test]
#[ignore = "a program that the other tests run, not a test"]
fn program_that_takes_memory() {
    let var = |name| std::env::var(name).expect("the test tells it");
    std::fs::write(PathBuf::from(var(HOG_GROUP)).join("cgroup.procs"), "0").expect("we are root");
    let victim = PathBuf::from("/proc").join(var(HOG_VICTIM));
    let lives = || victim.join("fd").read_dir().is_ok_and(|mut fds| fds.next().is_some());
    let mut taken = Vec::new();
    while lives() {
        println!("it is alive at {} , {} MB taken", now_ns(), taken.len());
        assert!(taken.len() < 1_000, "the kernel kills nobody");
        taken.push(vec![1_u8; 1 << 20]);
    }
}

/// The control group that limits the memory of a process.
fn memory_group(pid: u32) -> PathBuf {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it lives");
    let of = |mark: &str| groups.lines().find_map(|line| Some(line.split_once(mark)?.1.to_owned()));
    match of(":memory:") {
        Some(path) => PathBuf::from(format!("/sys/fs/cgroup/memory{path}")),
        None => PathBuf::from(format!("/sys/fs/cgroup{}", of("0::").expect("a group"))),
    }
}

#[test]
#[ignore = "make containers"]
fn whoever_is_paused_cut_off_or_restarted_never_leads_beside_another() {
    if sealed::runs(whoever_is_paused_cut_off_or_restarted_never_leads_beside_another) {
        return;
    }
    let stack = Stack::up();
    assert_confined(&stack);
    pause(&stack);
    cut_off(&stack);
    restart(&stack);
    stack.wait_ready();
    // The first one, and one each after pause, disconnect, restart and kill.
    assert_eq!(stack.check_history().len(), 5, "nobody lost leadership needlessly");
}

/// What the kernel says of every process of ours: no capability, not root, a root that nobody can write to.
fn assert_confined(stack: &Stack) {
    for service in NODES.iter().chain([&GUARDIAN]) {
        let id = stack.id(service);
        let mut pids = vec![stack.docker.init(&id)];
        if NODES.contains(service) {
            pids.push(stack.docker.node(&id));
        }
        for pid in pids {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
            let has =
                |line: &str| assert!(status.lines().any(|l| l == line), "{service}: no {line}: {status}");
            let none = "0000000000000000";
            for set in ["Inh", "Prm", "Eff", "Bnd", "Amb"] {
                has(&format!("Cap{set}:\t{none}"));
            }
            for id in ["Uid", "Gid"] {
                has(&format!("{id}:\t65532\t65532\t65532\t65532"));
            }
            has("NoNewPrivs:\t1");
            has("Seccomp:\t2");
            let refused = std::fs::write(format!("/proc/{pid}/root/probe"), "").expect_err("its root");
            assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem, "{service}: even for root");
        }
        println!("{service}: user 65532, no capability, no new privileges, seccomp, root read-only");
    }
}

fn pause(stack: &Stack) {
    let since_ns = now_ns();
    let (paused, took) = stack.replace(|leader| {
        stack.ends_at(leader, now_ns());
        stack.docker.call(&["pause", &stack.id(leader)]);
    });
    println!("docker pause of the leader: another main loop after {took:.1?}");
    let next = stack.leader();
    stack.docker.call(&["unpause", &stack.id(&paused)]);
    let code = stack.exit_code(&paused, since_ns);
    println!("it exits with {code} when it goes on");
    assert!(["75", "76", "137"].contains(&code.as_str()), "{code}");
    stack.wait_ready();
    assert_eq!(stack.leader(), next, "it comes back as a candidate");
}

fn cut_off(stack: &Stack) {
    let networks = "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}}{{end}}";
    let since_ns = now_ns();
    let mut network = String::new();
    let (leader, took) = stack.replace(|leader| {
        network = stack.docker.call(&["inspect", "--format", networks, &stack.id(leader)]);
        stack.docker.call(&["network", "disconnect", &network, &stack.id(leader)]);
    });
    println!("docker network disconnect of the leader: another main loop after {took:.1?}");
    assert_eq!(stack.exit_code(&leader, since_ns), "75");
    let next = stack.leader();
    stack.docker.call(&["network", "connect", "--alias", &leader, &network, &stack.id(&leader)]);
    stack.wait_ready();
    assert_eq!(stack.leader(), next, "it comes back as a candidate");
}

fn restart(stack: &Stack) {
    let since_ns = now_ns();
    let restarted = |service: &str| stack.docker.call(&["restart", &stack.id(service)]);
    let (leader, took) = stack.replace(|leader| drop(restarted(leader)));
    println!("docker restart of the leader: another main loop {took:.0?} after it was called");
    assert_eq!(stack.exit_code(&leader, since_ns), "0", "it hands over");
    stack.wait_ready();
    let kept = stack.leader();
    let follower = NODES.iter().find(|node| **node != kept.0).expect("a follower");
    stack.will_end(follower);
    for service in [follower, "etcd-1", "etcd-2", "etcd-3", GUARDIAN] {
        restarted(service);
        if service == GUARDIAN {
            let log = || stack.docker.log(&stack.id(GUARDIAN));
            wait_until("it watches all of them again", PATIENCE, || {
                let log = log();
                let again = log.rsplit("watching whoever connects").next().unwrap_or_default().to_owned();
                NODES.iter().all(|node| again.contains(&format!("watching the container of {node}")))
            });
        }
        stack.wait_ready();
        assert!(!holds_within(Duration::from_secs(3), || stack.leader() != kept), "restart of {service}");
        println!("docker restart of {service}: {} leads on", kept.0);
    }
    let (leader, took) = stack.replace(|leader| {
        stack.ends_at(leader, now_ns());
        stack.docker.call(&["kill", &stack.id(leader)]);
    });
    println!("docker kill after the restart of the guardian: another main loop after {took:.0?}");
    assert!(took < LEASE / 3, "{took:?}");
    compose(&["start", &leader]);
}
