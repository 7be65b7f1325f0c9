//! A disk that syncs slowly, for one process: strace delays what it waits for.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use super::poll::wait_until;
use super::spawn;

const PATIENCE: Duration = Duration::from_secs(60);

/// strace at work on a process; ends on drop, which lets the process go on as before.
#[derive(Debug)]
pub struct SlowDisk(Child);

impl SlowDisk {
    /// Delays each flush of the process by so much.
    #[track_caller]
    pub fn under(pid: u32, flush: Duration) -> Self {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync,fsync", "-p", &pid.to_string()]);
        strace.arg("-e").arg(format!("inject=fdatasync,fsync:delay_enter={}", flush.as_micros()));
        strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let strace = spawn::spawn(strace).expect("no strace found: run `apt-get install strace`");
        let tracer = format!("TracerPid:\t{}\n", strace.id());
        wait_until("strace has attached itself", PATIENCE, || {
            std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default().contains(&tracer)
        });
        Self(strace)
    }
}

impl Drop for SlowDisk {
    fn drop(&mut self) {
        spawn::signal(self.0.id(), Signal::TERM); // it detaches
        let _ = self.0.wait();
    }
}
