//! Tests with containers: each runs itself again as root in namespaces of its own (network, mounts, processes), with a
//! folder of its own. So they meet no daemon, image, port or container of this machine, and all ends with them.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::{ourselves, spawn, sudo};

/// Names the folder; only who is inside has it.
const FOLDER: &str = "METAD_TEST_SEALED";
const TIMEOUT: Duration = Duration::from_secs(1_500);
/// Clearing up after it.
const CLEAR_TIMEOUT: Duration = Duration::from_secs(60);
const INTO: [&str; 11] = [
    "unshare",
    "--net",
    "--mount",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
    "sh",
    "-c",
    "ip link set lo up && exec \"$@\"",
    "sh",
];

/// Unless we are inside, runs this test (which is the caller) there to its end and panics if it fails.
#[must_use]
#[track_caller]
pub fn runs<T>(test: T) -> bool {
    if std::env::var_os(FOLDER).is_some() {
        return false;
    }
    let folder = tempfile::Builder::new().prefix("metad-sealed-").tempdir().expect("a folder");
    let inside = format!("{FOLDER}={}", folder.path().display());
    let name = ourselves::name_of(test);
    let ended = std::panic::catch_unwind(|| sudo::again(name, "containers", &INTO, &[inside], TIMEOUT));
    // The control groups of containers outlive their processes; the folder's contents are root's.
    let mut clear = Command::new(if rustix::process::geteuid().is_root() { "env" } else { "sudo" });
    clear.args(["sh", "-c", "find /sys/fs/cgroup -depth -type d -path \"*/$2/*\" -exec rmdir {} + ; find /sys/fs/cgroup -depth -type d -name \"$2\" -exec rmdir {} +; rm -rf \"$1\"/*", "sh"]);
    clear.arg(folder.path()).arg(folder.path().file_name().expect("a name"));
    spawn::output(clear, CLEAR_TIMEOUT);
    ended.unwrap_or_else(|why| std::panic::resume_unwind(why));
    true
}

/// The folder of whoever is inside.
pub fn folder() -> PathBuf {
    std::env::var_os(FOLDER).expect("the test has called `runs`").into()
}

/// The control group below which its containers are.
pub fn cgroup() -> String {
    format!("/{}", folder().file_name().expect("a name").display())
}
