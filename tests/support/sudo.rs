//! Tests that need what only root may: run by somebody else, they run themselves again with sudo, and say so.

use std::io::Write;
use std::process::Command;
use std::time::Duration;

use super::{ourselves, spawn};

const TIMEOUT: Duration = Duration::from_secs(600);
/// What of our environment the test needs with sudo as well.
const KEPT: [&str; 5] = ["METAD_", "RUST_", "CARGO_", "PATH", "TMPDIR"];

/// If we are not root, runs this test (which is the caller) to its end with sudo and panics if it fails there: the
/// caller has nothing left to do. `needs` says for what.
#[must_use]
#[track_caller]
pub fn runs<T>(test: T, needs: &str) -> bool {
    if rustix::process::geteuid().is_root() {
        return false;
    }
    again(ourselves::name_of(test), needs, &[], &[], TIMEOUT);
    true
}

/// Runs this test once more as root, behind these words, with these variables, and panics if it fails there.
#[track_caller]
pub fn again(name: &str, needs: &str, behind: &[&str], variables: &[String], timeout: Duration) {
    let is_kept = |name: &str| KEPT.iter().any(|kept| name.starts_with(kept));
    let kept =
        std::env::vars().filter(|(name, _)| is_kept(name)).map(|(name, value)| format!("{name}={value}"));
    let mut command = Command::new("env");
    if !rustix::process::geteuid().is_root() {
        say(&format!("{name} needs {needs}, which only root may have: it is run with sudo\n"));
        command = Command::new("sudo");
        command.args(["-n", "env"]);
    }
    command.args(kept).args(variables).args(behind).arg(ourselves::path());
    command.args(["--exact", name, "--nocapture", "--include-ignored"]);
    let output = spawn::output(command, timeout);
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (said, log) = (said(&output.stdout), said(&output.stderr));
    print!("{said}");
    eprint!("{log}");
    assert!(
        output.status.success(),
        "{name} needs root for {needs}, and did not pass. If sudo wants a password, call `sudo -v` before"
    );
    assert!(said.contains("1 passed"), "twin: it was run there");
}

/// May we trace our own processes that are not our children, as strace does? Where Yama forbids it, root may.
pub fn may_trace() -> bool {
    let scope = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    rustix::process::geteuid().is_root() || ["", "0"].contains(&scope.trim())
}

/// Says it also where the harness keeps what passing tests print.
fn say(text: &str) {
    std::io::stderr().write_all(text.as_bytes()).expect("standard error");
}
