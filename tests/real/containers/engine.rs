//! Docker and podman, with storage of their own, and the images: the project's, built as `config/Dockerfile` says, and
//! those that it and `docker-compose.yml` begin with. No registry is asked: stand-ins under the same names are made of
//! files of this machine.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

use crate::support::crew::PATIENCE;
use crate::support::install::EtcdInstall;
use crate::support::poll::wait_until;
use crate::support::{ourselves, sealed, spawn};

pub const IMAGE: &str = "metad";

/// One of the two, by the name of its program.
#[derive(Clone, Copy, Debug)]
pub struct Engine(&'static str);

// === impl Engine ===

impl Engine {
    /// Docker, whose daemon is started first.
    pub fn docker() -> Self {
        static ONCE: Once = Once::new();
        ONCE.call_once(start_daemon);
        Self("docker")
    }

    /// Both, with the image.
    pub fn both() -> [Self; 2] {
        let both = [Self::docker(), Self("podman")];
        both.into_iter().for_each(Self::build);
        both
    }

    /// Runs it to its end; panics if it fails.
    #[track_caller]
    pub fn call(self, args: &[&str]) -> String {
        called(self.command(args))
    }

    fn command(self, args: &[&str]) -> Command {
        let mut command = program(self.0);
        if self.0 == "podman" {
            let at = |name| sealed::folder().join(name);
            command.arg("--root").arg(at("podman")).arg("--runroot").arg(at("podman-run"));
            command.arg("--cgroup-manager=cgroupfs").arg("--events-backend=file");
        }
        command.args(args);
        command
    }

    /// All that the container has written.
    pub fn log(self, id: &str) -> String {
        let output = spawn::output(self.command(&["logs", id]), PATIENCE);
        [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).concat()
    }

    /// Process 1 of the container, as we number it.
    #[track_caller]
    pub fn init(self, id: &str) -> u32 {
        self.call(&["inspect", "--format", "{{.State.Pid}}", id]).parse().expect("a process id")
    }

    /// The node in the container: the child of process 1.
    #[track_caller]
    pub fn node(self, id: &str) -> u32 {
        let init = self.init(id);
        let children =
            std::fs::read_to_string(format!("/proc/{init}/task/{init}/children")).expect("it lives");
        children.split_whitespace().next().and_then(|pid| pid.parse().ok()).expect("a child")
    }

    /// The project's image as its Dockerfile says, of a binary that is built already.
    pub fn build(self) {
        self.stand_ins();
        self.call(&["build", "--file", "config/Dockerfile", "--tag", IMAGE, "."]);
    }

    /// What `config/Dockerfile` begins with: a builder whose cargo brings the binary that the test was built with, and
    /// the libraries of it, and of the tests, whose own program runs in containers too.
    pub fn stand_ins(self) {
        let builder = Root::new();
        for tool in ["sh", "mkdir", "cp", "rm"] {
            builder.add(&Path::new("/bin").join(tool), &format!("bin/{tool}"));
        }
        builder.script("apt-get", "case $1 in update | install) ;; *) exit 1 ;; esac");
        builder.script("cargo", "mkdir -p target/release && cp /built target/release/metad");
        let mut strip = Command::new("strip");
        strip.arg("--strip-debug").arg(spawn::metad_program()).arg("-o").arg(builder.0.path().join("built"));
        called(strip);
        for folder in ["tmp", "run", "var/lib/apt/lists"] {
            std::fs::create_dir_all(builder.0.path().join(folder)).expect("a folder");
        }
        builder.import(self, &["ENV PATH=/bin"], "rust:1-bookworm");
        let runtime = Root::new();
        runtime.add_libraries(&spawn::metad_program());
        runtime.add_libraries(Path::new(&ourselves::path()));
        runtime.import(self, &["USER 65532"], "gcr.io/distroless/cc-debian12:nonroot");
    }

    /// etcd's image, of the etcd that all tests run on, under the name that `docker-compose.yml` has for it.
    pub fn etcd_image(self) {
        let composed = std::fs::read_to_string("docker-compose.yml").expect("the file");
        let line = composed.lines().find_map(|line| line.strip_prefix("  image: gcr.io/")).expect("an image");
        let (install, root) = (EtcdInstall::find(), Root::new());
        println!("etcd {} stands in for gcr.io/{line}", install.version);
        root.add(&install.etcd, "usr/local/bin/etcd");
        root.add(&install.etcdctl, "usr/local/bin/etcdctl");
        std::fs::create_dir_all(root.0.path().join("var/lib/etcd")).expect("a folder");
        let changes = ["ENV PATH=/usr/local/bin", "CMD [\"/usr/local/bin/etcd\"]"];
        root.import(self, &changes, &format!("gcr.io/{line}"));
    }
}

/// What Docker and Compose are called with: the daemon of this test, and the client that came with it. A newer client
/// from elsewhere, which may be first on the path, builds only with a plug-in.
pub fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("/usr/sbin:/usr/bin:{path}"));
    command.env("DOCKER_HOST", socket()).env("DOCKER_BUILDKIT", "1");
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    command
}

/// What it prints; panics if it fails.
#[track_caller]
pub fn called(command: Command) -> String {
    let what = format!("{command:?}");
    let output = spawn::output(command, 5 * PATIENCE);
    let [said, errors] =
        [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    assert!(output.status.success(), "{what}: {}: {said}{errors}", output.status);
    said.trim().to_owned()
}

fn socket() -> String {
    format!("unix://{}", sealed::folder().join("docker.sock").display())
}

fn start_daemon() {
    let (folder, mut daemon) = (sealed::folder(), program("dockerd"));
    let log = std::fs::File::create(folder.join("dockerd.log")).expect("a log");
    daemon.arg("--host").arg(socket()).arg("--data-root").arg(folder.join("docker"));
    daemon.arg("--exec-root").arg(folder.join("docker-run")).arg("--pidfile").arg(folder.join("docker.pid"));
    daemon.args(["--cgroup-parent", &sealed::cgroup()]);
    daemon.stdout(log.try_clone().expect("a log")).stderr(log);
    let mut child = spawn::spawn(daemon).expect("dockerd: make containers installs it");
    wait_until("the Docker daemon listens", PATIENCE, || {
        if let Ok(Some(status)) = child.try_wait() {
            let log = std::fs::read_to_string(folder.join("dockerd.log")).unwrap_or_default();
            panic!("dockerd ended with {status}: {log}");
        }
        let mut version = program("docker");
        version.arg("version");
        spawn::output(version, PATIENCE).status.success()
    });
}

/// The files of an image.
struct Root(tempfile::TempDir);

impl Root {
    fn new() -> Self {
        Self(tempfile::tempdir_in(sealed::folder()).expect("a folder"))
    }

    fn copy(&self, from: &Path, to: &Path) {
        let to = self.0.path().join(to.strip_prefix("/").unwrap_or(to));
        std::fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
        std::fs::copy(from, to).expect("a copy");
    }

    /// A program, with the libraries that it needs.
    fn add(&self, from: &Path, to: &str) {
        self.copy(from, Path::new(to));
        self.add_libraries(from);
    }

    fn add_libraries(&self, of: &Path) {
        let mut ldd = Command::new("ldd");
        ldd.arg(of);
        // One that is linked statically has none, and ldd fails.
        let listed = String::from_utf8_lossy(&spawn::output(ldd, PATIENCE).stdout).into_owned();
        listed.split_whitespace().filter(|word| word.starts_with('/')).for_each(|library| {
            self.copy(Path::new(library), Path::new(library));
        });
    }

    fn script(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt;
        let file: PathBuf = self.0.path().join("bin").join(name);
        std::fs::write(&file, format!("#!/bin/sh\nset -e\n{text}\n")).expect("a script");
        std::fs::set_permissions(file, PermissionsExt::from_mode(0o755)).expect("a mode");
    }

    fn import(self, engine: Engine, changes: &[&str], name: &str) {
        let archive = self.0.path().with_extension("tar");
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(self.0.path()).arg("-cf").arg(&archive).arg(".");
        called(tar);
        let mut args = vec!["import"];
        changes.iter().for_each(|change| args.extend(["--change", change]));
        let file = archive.display().to_string();
        args.extend([&file, name]);
        engine.call(&args);
        let _ = std::fs::remove_file(archive);
    }
}
