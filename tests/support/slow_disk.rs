//! A disk that syncs slowly, or is full, for one process: strace delays what it waits for, or refuses it.

use std::path::Path;
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
        let delay = format!("inject=fdatasync,fsync:delay_enter={}", flush.as_micros());
        Self::attach(pid, &["-e", "trace=fdatasync,fsync", "-e", &delay])
    }

    /// Has no room for what the process writes to this file.
    #[track_caller]
    pub fn full(pid: u32, file: &Path) -> Self {
        let file = file.to_str().expect("UTF-8");
        let calls = "write,pwrite64,ftruncate,fallocate";
        let (trace, refuse) = (format!("trace={calls}"), format!("inject={calls}:error=ENOSPC"));
        Self::attach(pid, &["-P", file, "-e", &trace, "-e", &refuse])
    }

    /// Lets go of a process that has ended meanwhile. (Asked to detach, strace waits for ever for the thread that it holds.)
    pub fn abandon(self) {
        spawn::signal(self.0.id(), Signal::KILL);
    }

    #[track_caller]
    fn attach(pid: u32, args: &[&str]) -> Self {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-o", "/dev/null", "-p", &pid.to_string()]).args(args);
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
