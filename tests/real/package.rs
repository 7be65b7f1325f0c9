//! The Debian package in a Debian 12 of its own, as root: `make deb-test`. That is a chroot, where no systemd runs: the node is
//! started as the unit says, by its user, with its command line and its directories.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::crew::PATIENCE;
use crate::support::etcd::EtcdCluster;
use crate::support::http;
use crate::support::poll::wait_until;
use crate::support::ports::Port;
use crate::support::spawn::{self, Killed};

/// For what fetches or unpacks packages.
const LONG: Duration = Duration::from_secs(900);
/// What people look at and type with. The package's own dependencies come with it.
const TOOLS: &str = "systemd,man-db,bash-completion,zsh,fish";
const UNIT: &str = "metad.service";
const CONFIG: &str = "etc/metad/metad.toml";
/// What depends on how busy this machine and its disk are, and on the age of its etcd.
const OF_THIS_MACHINE: &str = "HOST_003,HOST_005,ETCD_005,ETCD_006,ETCD_008,ETCD_009,ETCD_016,ETCD_018";
/// Caches, and what apt, dpkg and passwd keep for themselves.
const NOT_OURS: [&str; 8] = [
    "/var/cache/",
    "/var/log/",
    "/var/lib/apt/extended_states",
    "/var/lib/apt/lists/",
    "/var/lib/dpkg/status-old",
    "/etc/.pwd.lock",
    "/proc/",
    "/tmp/",
];
const ACCOUNTS: [&str; 4] = ["etc/passwd", "etc/group", "etc/shadow", "etc/gshadow"];

/// A machine's files, and what runs among them.
struct Debian {
    root: tempfile::TempDir,
}

fn targets() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

fn succeed(command: Command, timeout: Duration) -> String {
    let what = format!("{command:?}");
    let done = spawn::output(command, timeout);
    let said = [done.stdout, done.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(done.status.success(), "{what}: {}\n{said}", done.status);
    said
}

/// A Debian 12 without metad, made once; who wants newer packages in it removes `target/tmp/debian-12`.
fn pristine() -> PathBuf {
    static MAKING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = MAKING.lock().expect("nobody has failed");
    let made = targets().join("debian-12");
    if !made.exists() {
        let unfinished = tempfile::tempdir_in(targets()).expect("a folder");
        let mirror = std::env::var("METAD_TEST_MIRROR");
        let mut debootstrap = Command::new("debootstrap");
        debootstrap
            .args(["--variant=minbase", &format!("--include={TOOLS}"), "bookworm"])
            .arg(unfinished.path());
        debootstrap.arg(mirror.as_deref().unwrap_or("http://deb.debian.org/debian"));
        succeed(debootstrap, LONG);
        std::fs::rename(unfinished.keep(), &made).expect("the same disk");
    }
    made
}

/// What `make deb` built.
fn package() -> PathBuf {
    let named =
        std::env::var_os("METAD_TEST_PACKAGE").expect("METAD_TEST_PACKAGE names it: call make deb-test");
    let path = PathBuf::from(named);
    assert!(path.is_file(), "{} is no file", path.display());
    path
}

// === impl Debian ===

impl Debian {
    fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "a chroot needs root: call make deb-test as root");
        let root = tempfile::tempdir_in(targets()).expect("a folder");
        let mut copy = Command::new("cp");
        copy.args(["-a", "--reflink=auto"]).arg(pristine().join(".")).arg(root.path());
        succeed(copy, LONG);
        // TempDir made it for us alone, and another user is to look into it.
        std::fs::set_permissions(root.path(), PermissionsExt::from_mode(0o755)).expect("permissions");
        Self { root }
    }

    /// One with the package.
    fn with_metad() -> Self {
        let debian = Self::new();
        debian.install();
        debian
    }

    fn install(&self) {
        std::fs::copy(package(), self.path("tmp/metad.deb")).expect("a copy");
        self.run("apt-get update");
        self.run("apt-get install --yes --no-install-recommends /tmp/metad.deb");
    }

    fn path(&self, below: &str) -> PathBuf {
        self.root.path().join(below)
    }

    fn read(&self, below: &str) -> String {
        std::fs::read_to_string(self.path(below)).unwrap_or_else(|e| panic!("{below}: {e}"))
    }

    /// A command in there. Its /proc is gone when it ends.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", r#"mount -t proc proc "$0/proc" && exec chroot "$0" "$@""#]);
        command.arg(self.root.path()).args(args).env_clear();
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        command.envs([("PATH", path), ("LC_ALL", "C.UTF-8"), ("DEBIAN_FRONTEND", "noninteractive")]);
        command.current_dir("/");
        command
    }

    /// What a line of shell prints; it must succeed.
    #[track_caller]
    fn run(&self, line: &str) -> String {
        succeed(self.command(&["sh", "-c", line]), LONG)
    }

    /// The value of a setting of the unit.
    fn unit(&self, setting: &str) -> String {
        let unit = self.read(&format!("lib/systemd/system/{UNIT}"));
        let found = unit.lines().find_map(|line| line.strip_prefix(setting)?.strip_prefix('='));
        found.unwrap_or_else(|| panic!("no {setting}= in {unit}")).to_owned()
    }

    /// A command as the user of the unit.
    fn as_its_user(&self, args: &[&str]) -> Command {
        let user = self.unit("User");
        let become_it = ["setpriv", "--reuid", &user, "--regid", &user, "--init-groups", "--no-new-privs"];
        let without_rights = ["--inh-caps=-all", "--bounding-set=-all", "--pdeathsig", "KILL", "--"];
        self.command(&[&become_it[..], &without_rights, args].concat())
    }

    /// All files and folders, as an administrator would list them.
    fn files(&self) -> BTreeSet<String> {
        let listed = self.run("find / -xdev -type d -printf '%p/\\n' -o -print");
        let listed = listed.lines().map(str::to_owned);
        listed.filter(|file| !NOT_OURS.iter().any(|not_ours| file.starts_with(not_ours))).collect()
    }

    fn accounts(&self) -> Vec<String> {
        ACCOUNTS.iter().map(|file| self.read(file)).collect()
    }
}

/// The configuration as an operator leaves it: etcd, and ports that nobody else has.
fn edit(debian: &Debian, etcd: &EtcdCluster, ports: &[Port; 2]) -> String {
    let mut config = debian.read(CONFIG);
    let endpoints = format!("endpoints = [\"{}\"]", etcd.endpoint(0));
    let [rpc, http] = [0, 1].map(|i| format!("listen_addr = \"127.0.0.1:{}\"", ports[i].number()));
    let lines = [
        ("#endpoints = []", endpoints),
        // One machine is one node here.
        ("#meta_leader_lease_secs = 15", "meta_leader_lease_secs = 86400".to_owned()),
        ("#listen_addr = \"127.0.0.1:5690\"", rpc),
        ("#listen_addr = \"127.0.0.1:5691\"", http),
    ];
    for (before, after) in lines {
        assert!(config.contains(before), "{before} is not in {config}");
        config = config.replace(before, &after);
    }
    std::fs::write(debian.path(CONFIG), &config).expect("the file");
    config
}

struct Node {
    process: Killed,
    log: PathBuf,
}

// === impl Node ===

impl Node {
    /// What systemd does before it starts the unit, and then its command line.
    fn start(debian: &Debian) -> Self {
        let [user, name, mode] = ["User", "StateDirectory", "StateDirectoryMode"].map(|key| debian.unit(key));
        let state = format!("/var/lib/{name}");
        debian.run(&format!("install -d -o {user} -g {user} -m {mode} {state}"));
        let line = debian.unit("ExecStart").replace("${STATE_DIRECTORY}", &state);
        let mut command = debian.as_its_user(&line.split_whitespace().collect::<Vec<_>>());
        let log = debian.path("tmp/log");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(std::fs::File::create(&log).expect("a file"));
        let node = Self { process: Killed(spawn::spawn(command).expect("it starts")), log };
        wait_until("it leads", PATIENCE, || node.log().contains("main_loop_started"));
        node
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).expect("its log")
    }

    /// What systemd does at the end.
    fn stop(mut self) {
        spawn::signal(self.process.0.id(), Signal::TERM);
        let mut ended = None;
        wait_until("it ends", PATIENCE, || {
            ended = self.process.0.try_wait().expect("our child");
            ended.is_some()
        });
        assert_eq!(ended.and_then(|ended| ended.code()), Some(0), "{}", self.log());
    }
}

#[test]
#[ignore = "needs root, debootstrap and the package: make deb-test"]
fn the_package_brings_a_unit_that_systemd_accepts_and_that_nothing_has_started() {
    let debian = Debian::with_metad();
    let said = debian.run(&format!("systemd-analyze verify /lib/systemd/system/{UNIT}"));
    assert!(said.trim().is_empty(), "systemd has remarks: {said}");
    let exposure = debian.run(&format!("systemd-analyze security --offline=true --threshold=30 {UNIT}"));
    println!("{}", exposure.lines().last().unwrap_or_default());
    let state = spawn::output(debian.command(&["systemctl", "is-enabled", "metad"]), PATIENCE);
    assert_eq!(String::from_utf8_lossy(&state.stdout).trim(), "disabled");
    assert!(!debian.path("var/lib/metad").exists(), "nothing has run");
    let checked = debian.run(&format!("metad config check --config /{CONFIG}"));
    println!("{}", checked.trim());
    assert_eq!(debian.read(CONFIG), include_str!("../../config/metad.toml"));
    assert_eq!(
        debian.run("dpkg-query -W -f '${Conffiles}' metad").split_whitespace().next(),
        Some("/etc/metad/metad.toml")
    );
    let size = std::fs::metadata(debian.path("usr/bin/metad")).expect("the program").len();
    assert!(size <= 16_000_000, "the program has {size} bytes");
    println!("{size} bytes");
}

#[test]
#[ignore = "needs root, debootstrap and the package: make deb-test"]
fn its_manual_and_its_completions_are_where_they_are_looked_for() {
    let debian = Debian::with_metad();
    let pages = debian.run("ls /usr/share/man/man1 | grep ^metad");
    assert!(pages.lines().count() > 20, "{pages}");
    for page in pages.lines() {
        let name = page.strip_suffix(".1.gz").expect("packed");
        let shown = debian.run(&format!("man --warnings {name}"));
        assert!(shown.contains("SYNOPSIS") && !shown.contains("warning:"), "{name}: {shown}");
    }
    assert!(debian.run("man metad").contains("leadership lost, or handed over on request"));
    let bash = "source /usr/share/bash-completion/bash_completion; _completion_loader metad; \
        COMP_WORDS=(metad ste) COMP_CWORD=1; _clap_complete_metad metad ste metad; echo \"${COMPREPLY[@]}\"";
    // As in a shell where compinit has just run, and Tab is pressed for the first time.
    let zsh = "autoload -Uz compinit && compinit -u -D; function _describe { print -l -- ${(P)@[-1]} }; \
        words=(metad ste) CURRENT=2; $_comps[metad]";
    let fish = "complete --do-complete 'metad ste'";
    for (shell, line) in [("bash", bash), ("zsh", zsh), ("fish", fish)] {
        let offered = succeed(debian.command(&[shell, "-c", line]), PATIENCE);
        assert!(offered.contains("step-down"), "{shell} offers: {offered}");
    }
}

#[test]
#[ignore = "needs root, debootstrap and the package: make deb-test"]
fn it_leads_as_the_unit_says_and_the_doctor_finds_nothing() {
    let (debian, etcd, ports) =
        (Debian::with_metad(), EtcdCluster::start(1), [Port::reserve(), Port::reserve()]);
    edit(&debian, &etcd, &ports);
    let node = Node::start(&debian);
    let [member, page] = [0, 1].map(|i| SocketAddr::from(([127, 0, 0, 1], ports[i].number())));
    wait_until("it has checked itself", PATIENCE, || {
        let metrics = http::get(page, "/metrics", PATIENCE).map_or(String::new(), |(_, metrics)| metrics);
        metrics.lines().any(|l| l.starts_with("metad_check_status{code=\"HOST_006\"") && l.ends_with(" 0"))
    });
    let member = member.to_string();
    let doctor = ["metad", "doctor", "--config", "/etc/metad/metad.toml", "--data-dir", "/var/lib/metad"];
    let args = [&doctor[..], &["--meta", &member, "--skip", OF_THIS_MACHINE]].concat();
    let found = spawn::output(debian.as_its_user(&args), PATIENCE);
    let report = String::from_utf8_lossy(&found.stdout).into_owned();
    println!("{report}");
    assert!(found.status.success(), "the doctor: {}\n{report}\n{}", found.status, node.log());
    let data = std::fs::metadata(debian.path("var/lib/metad")).expect("the data dir");
    let user = std::fs::metadata(format!("/proc/{}", node.process.0.id())).expect("it runs").uid();
    assert!(data.uid() == user && user != 0 && data.mode() & 0o777 == 0o700, "{data:?}");
    node.stop();
}

#[test]
#[ignore = "needs root, debootstrap and the package: make deb-test"]
fn an_upgrade_and_a_removal_keep_what_is_the_operators_and_a_purge_leaves_nothing() {
    let (debian, etcd) = (Debian::new(), EtcdCluster::start(1));
    debian.run("apt-get update && apt-get install --yes --no-install-recommends procps");
    let (files, accounts) = (debian.files(), debian.accounts());
    debian.install();
    assert_ne!(debian.accounts(), accounts, "twin: it has a user");
    let edited = edit(&debian, &etcd, &[Port::reserve(), Port::reserve()]);
    std::fs::write(debian.path("etc/metad/node.key"), "secret").expect("a file of the operator's");
    debian.run("systemctl enable metad");
    Node::start(&debian).stop();
    let kept = |what: &str| {
        assert_eq!(debian.read(CONFIG), edited, "{what}");
        assert!(debian.path("etc/metad/node.key").exists(), "{what}");
        let data = debian.run("find /var/lib/metad -type f");
        assert!(data.lines().count() > 0, "{what}: {data}");
        debian.run("getent passwd metad");
    };
    debian.run("dpkg -i /tmp/metad.deb");
    kept("an upgrade");
    debian.run("systemctl is-enabled metad");
    debian.run("apt-get remove --yes metad");
    assert!(!debian.path("usr/bin/metad").exists());
    kept("a removal");
    debian.install();
    kept("another installation");
    debian.run("apt-get purge --yes metad");
    let left: Vec<_> = debian.files().difference(&files).cloned().collect();
    assert!(left.is_empty(), "a purge leaves {left:?}");
    let lost: Vec<_> = files.difference(&debian.files()).cloned().collect();
    assert!(lost.is_empty(), "a purge takes {lost:?} with it");
    assert_eq!(debian.accounts(), accounts);
}
