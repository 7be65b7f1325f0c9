//! The cluster of `docker-compose.yml` as it is shipped, with the image that `config/Dockerfile` builds: what its nodes
//! say, who leads, and whether two ever led at once.
//!
//! Its nodes say what happens in their logs, on the clock of the day, and so all stamps here are on that clock.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::engine::{self, Engine};
use crate::support::crew::PATIENCE;
use crate::support::history::{self, Tenure, TimedEvent, Trace};
use crate::support::poll::wait_until;

/// `METAD_META__META_LEADER_LEASE_SECS` of the file.
pub const LEASE: Duration = Duration::from_secs(15);
pub const NODES: [&str; 3] = ["metad-1", "metad-2", "metad-3"];
pub const GUARDIAN: &str = "guardian";
const ETCDS: [&str; 3] = ["etcd-1", "etcd-2", "etcd-3"];
/// Docker waits for up to a minute before it restarts a container that ended several times.
const RESTART_TIMEOUT: Duration = Duration::from_secs(180);

pub struct Stack {
    pub docker: Engine,
    /// When a node could do nothing any more: killed, or paused.
    ended: RefCell<Vec<(String, u64)>>,
    /// How often a node has to have been started.
    starts: RefCell<BTreeMap<String, usize>>,
}

/// Nanoseconds since 1970.
pub fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("later").as_nanos() as u64
}

impl Stack {
    /// The images that no registry is asked for. Nothing runs yet.
    pub fn new() -> Self {
        let docker = Engine::docker();
        docker.stand_ins();
        docker.etcd_image();
        Self { docker, ended: RefCell::default(), starts: RefCell::default() }
    }

    /// All of it, healthy.
    pub fn up() -> Self {
        let stack = Self::new();
        println!("{}", compose(&["version"]).lines().next().unwrap_or_default());
        compose(&["up", "--build", "--detach"]);
        stack.wait_ready();
        stack
    }

    /// The container of a service.
    pub fn id(&self, service: &str) -> String {
        let label = format!("label=com.docker.compose.service={service}");
        self.docker.call(&["ps", "--all", "--quiet", "--no-trunc", "--filter", &label])
    }

    /// What metad says in the container of a node.
    pub fn metad(&self, node: &str, args: &[&str]) -> String {
        self.docker.call(&[&["exec", &self.id(node), "/metad"], args].concat())
    }

    /// Waits until every container is healthy, every node takes part, and the guardian watches all of them.
    #[track_caller]
    pub fn wait_ready(&self) {
        for service in ETCDS.into_iter().chain(NODES) {
            let health = ["inspect", "--format", "{{.State.Health.Status}}", &self.id(service)];
            let is_healthy = || self.docker.call(&health) == "healthy";
            wait_until(&format!("{service} is healthy"), RESTART_TIMEOUT, is_healthy);
        }
        wait_until("all nodes take part and are watched", RESTART_TIMEOUT, || {
            NODES.iter().all(|node| self.takes_part(node))
        });
        self.leader();
    }

    /// Waits until one leads; that one, and its token.
    #[track_caller]
    pub fn leader(&self) -> (String, u64) {
        let mut found = None;
        wait_until("one leads", PATIENCE, || {
            let newest = self.tenures_unchecked().into_iter().max_by_key(|tenure| tenure.token);
            found = newest.filter(|tenure| tenure.end_ns.is_none());
            found.is_some()
        });
        let tenure = found.expect("just found");
        (tenure.label.split(' ').next().unwrap_or_default().to_owned(), tenure.token)
    }

    /// This node is about to end: from here on it takes part once it has been started again.
    pub fn will_end(&self, node: &str) {
        self.starts.borrow_mut().insert(node.to_owned(), self.lives(node).len() + 1);
    }

    /// From this instant on the node can do nothing.
    pub fn ends_at(&self, node: &str, ns: u64) {
        self.ended.borrow_mut().push((node.to_owned(), ns));
    }

    /// Does this to the leader, of which it ends, and waits until another main loop runs: who led, and how long after
    /// its end, if the deed told one, else after the deed was begun, that was.
    #[track_caller]
    pub fn replace(&self, deed: impl FnOnce(&str)) -> (String, Duration) {
        self.wait_ready();
        let (leader, token) = self.leader();
        self.will_end(&leader);
        let since_ns = now_ns();
        deed(&leader);
        let mut next = None;
        wait_until("another main loop runs", LEASE + PATIENCE, || {
            next = self.tenures_unchecked().into_iter().find(|tenure| tenure.token > token);
            next.is_some()
        });
        let next = next.expect("just found");
        assert!(!next.label.starts_with(&leader), "{leader} leads again");
        let ended = self.ended.borrow();
        let told = ended.last().filter(|(node, ns)| *node == leader && *ns >= since_ns).map(|(_, ns)| *ns);
        let took = next.start_ns.saturating_sub(told.unwrap_or(since_ns));
        drop(ended);
        (leader, Duration::from_nanos(took))
    }

    /// With what code the container ended first after this instant.
    #[track_caller]
    pub fn exit_code(&self, service: &str, since_ns: u64) -> String {
        let since = format!("{}.{:09}", since_ns / 1_000_000_000, since_ns % 1_000_000_000);
        let id = format!("container={}", self.id(service));
        let mut codes = String::new();
        wait_until(&format!("{service} ends"), LEASE + PATIENCE, || {
            let until = (now_ns() / 1_000_000_000).to_string();
            let asked = ["events", "--since", &since, "--until", &until, "--filter", &id];
            let wanted = ["--filter", "event=die", "--format", "{{.Actor.Attributes.exitCode}}"];
            codes = self.docker.call(&[&asked[..], &wanted].concat());
            !codes.is_empty()
        });
        codes.lines().next().unwrap_or_default().to_owned()
    }

    /// All main loops so far. Two never ran at once, tokens rise, and the cluster's own history agrees.
    #[track_caller]
    pub fn check_history(&self) -> Vec<Tenure> {
        let (leader, token) = self.leader();
        let tenures = history::check_running(|| self.traces()).unwrap_or_else(|e| panic!("{e}"));
        let mut rows = Vec::new();
        wait_until("the history has the newest tenure", PATIENCE, || {
            let told = self.metad(&leader, &["history", "-o", "json"]);
            let told: Value = serde_json::from_str(&told).expect("JSON");
            rows = told["tenures"].as_array().expect("rows").clone();
            rows.iter().any(|row| row["token"] == token)
        });
        let told: Vec<_> = rows.iter().filter_map(|row| row["token"].as_u64()).collect();
        let seen: Vec<_> = tenures.iter().map(|tenure| tenure.token).collect();
        assert_eq!(told, seen, "the history and the logs name the same tenures, in this order");
        for pair in rows.windows(2) {
            // One that was frozen was killed when it went on, while another led. The logs tell that it did nothing then.
            if ["fuse", "kernel_timer", "guardian_kill"].iter().any(|late| pair[0]["reason"] == *late) {
                continue;
            }
            let [end, next] =
                [&pair[0]["to"], &pair[1]["from"]].map(|t| unix_ns(t.as_str().expect("a time")));
            assert!(end <= next, "{pair:#?}");
        }
        println!("{} tenures, never two at once; reasons: {:?}", rows.len(), reasons(&rows));
        tenures
    }

    fn takes_part(&self, node: &str) -> bool {
        let lives = self.lives(node);
        let started = lives.len() >= self.starts.borrow().get(node).copied().unwrap_or(0);
        let life = lives.last().map(Vec::as_slice).unwrap_or_default();
        let said = |what: &str| life.iter().any(|line| line.str("message").contains(what));
        started && said("this node may lead") && said("watches this container")
    }

    /// The lines of a node's log, those of each of its processes apart.
    fn lives(&self, node: &str) -> Vec<Vec<TimedEvent>> {
        let mut lives: Vec<Vec<TimedEvent>> = Vec::new();
        for line in self.docker.log(&self.id(node)).lines() {
            let Ok(mut json) = serde_json::from_str::<Value>(line) else { continue };
            let read_ns = json["timestamp"].as_str().map_or(0, unix_ns);
            json["type"] = json["event"].take();
            // A log is text: it says "3" where an event says 3.
            if let Some(token) = json["token"].as_str().and_then(|token| token.parse::<u64>().ok()) {
                json["token"] = token.into();
            }
            let event = TimedEvent { json, read_ns };
            let begins = event.kind() == "listening";
            match lives.last_mut() {
                Some(life) if !begins => life.push(event),
                _ => lives.push(vec![event]),
            }
        }
        lives
    }

    fn traces(&self) -> Vec<Trace> {
        NODES.iter().flat_map(|node| self.traces_of(node)).collect()
    }

    fn traces_of(&self, node: &str) -> Vec<Trace> {
        let lives = self.lives(node);
        let starts: Vec<u64> = lives.iter().map(|life| life[0].read_ns).collect();
        let trace = |(at, events): (usize, Vec<TimedEvent>)| {
            let next_ns = starts.get(at + 1).copied();
            let within = |ns: u64| ns >= starts[at] && next_ns.is_none_or(|next| ns < next);
            let ended = self.ended.borrow();
            let told = ended.iter().find(|(of, ns)| of == node && within(*ns)).map(|(_, ns)| *ns);
            Trace { label: format!("{node} (start {})", at + 1), events, died_ns: told.or(next_ns) }
        };
        lives.into_iter().enumerate().map(trace).collect()
    }

    /// The tenures of each node by itself.
    fn tenures_unchecked(&self) -> Vec<Tenure> {
        let of_one = |trace: Trace| history::check(&[trace]).unwrap_or_else(|e| panic!("{e}"));
        self.traces().into_iter().flat_map(of_one).collect()
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for service in NODES.iter().chain([&GUARDIAN]) {
                let log = self.docker.log(&self.id(service));
                let lines: Vec<_> = log.lines().collect();
                eprintln!("{service}: {}", lines[lines.len().saturating_sub(60)..].join("\n"));
            }
        }
    }
}

/// Docker Compose, `METAD_TEST_COMPOSE` or the one on the path.
pub fn compose(args: &[&str]) -> String {
    let named = std::env::var("METAD_TEST_COMPOSE").unwrap_or_else(|_| "docker-compose".to_owned());
    let mut command: Command = engine::program(&named);
    command.args(args);
    engine::called(command)
}

/// How often a tenure ended for each reason.
fn reasons(rows: &[Value]) -> BTreeMap<&str, usize> {
    let mut reasons = BTreeMap::new();
    rows.iter().filter_map(|row| row["reason"].as_str()).for_each(|r| *reasons.entry(r).or_default() += 1);
    reasons
}

/// RFC 3339 in UTC, with fractions of a second, as metad writes it.
fn unix_ns(time: &str) -> u64 {
    let numbers: Vec<u64> = time.split(['-', 'T', ':', '.', 'Z']).filter_map(|n| n.parse().ok()).collect();
    let [year, month, day, hour, minute, second, _] = numbers[..] else { panic!("no time: {time}") };
    let fraction = time.trim_end_matches('Z').rsplit('.').next().unwrap_or_default();
    let fraction: u64 = format!("{fraction:0<9}").parse().expect("digits");
    // Years begin in March here, so that a leap day ends one.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 719_469;
    (((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000_000 + fraction
}

#[test]
fn the_time_of_a_log_line_is_understood() {
    assert_eq!(unix_ns("1970-01-01T00:00:00.000000Z"), 0);
    assert_eq!(unix_ns("2026-11-29T06:04:55.240506Z"), 1_795_932_295_240_506_000);
    assert_eq!(unix_ns("2024-02-29T23:59:59.5Z"), 1_709_251_199_500_000_000);
}
