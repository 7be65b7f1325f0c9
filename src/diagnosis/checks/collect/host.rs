//! Looks at this machine.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::super::facts::{HostFacts, OwnFacts, Syncs};
use super::Depth;
use crate::clock::Clock;
use crate::config::Config;
use crate::diagnosis::advice::{self, LeaseAdvice};
use crate::files;
use crate::guardian::init;
use crate::journal::stalls;
use crate::store::network_fs;

/// How many syncs are measured, of how much, and how long they may take together.
const SYNCS: usize = 50;
const SYNC_BYTES: usize = 4096;
const SYNCS_TIME_MAX: Duration = Duration::from_secs(5);
/// How long reading a file of the data dir may take.
const READ_TIME_MAX: Duration = Duration::from_secs(5);
/// How often, and for how long, a timer is tried.
const TIMERS: u32 = 10;
const TIMER: Duration = Duration::from_millis(10);
/// The file that is written and removed.
const PROBE_FILE: &str = ".doctor";

/// Looks at this machine, and remembers the cgroup's counters for the next time.
pub struct HostCollector {
    data_dir: PathBuf,
    ttl: Duration,
    is_alone: bool,
    /// The stalls are being read; a disk that hangs keeps it.
    reading: Option<JoinHandle<Option<Result<LeaseAdvice, String>>>>,
    is_node: bool,
    clock: Arc<dyn Clock>,
    /// Periods of the cgroup, and those in which it was throttled.
    periods: Option<(u64, u64)>,
}

impl HostCollector {
    /// For the machine on which a node of this configuration runs, or would. Is this process that node?
    pub fn new(config: &Config, is_node: bool, clock: Arc<dyn Clock>) -> Self {
        Self {
            data_dir: config.node.data_dir.clone(),
            ttl: Duration::from_secs(config.meta.meta_leader_lease_secs),
            is_alone: config.checks.expected_members == 1,
            reading: None,
            is_node,
            clock,
            periods: throttling(),
        }
    }

    /// Looks.
    pub async fn collect(&mut self, depth: Depth) -> HostFacts {
        let timer_delay = self.late_timers().await;
        let dir = existing(&self.data_dir);
        let syncs = match (&dir, depth.writes && self.data_dir.is_dir()) {
            (Some(dir), true) => syncs(dir.clone(), self.clock.clone()).await,
            _ => Syncs::NotTried,
        };
        let throttled = self.throttled();
        HostFacts {
            data_dir: self.data_dir.display().to_string(),
            data_dir_mode: std::fs::metadata(&self.data_dir).ok().map(|m| m.mode() & 0o7777),
            syncs,
            network_fs: dir.as_deref().and_then(|dir| network_fs::of(dir).ok().flatten()),
            disk: dir.as_deref().and_then(room),
            pressure: pressure("cpu").zip(pressure("io")),
            throttled,
            timer_delay: Some(timer_delay),
            lease_advice: self.lease_advice().await,
            own: self.is_node.then(own),
        }
    }

    /// The file is 2 MB at most, but its disk may hang: nobody waits for that, and one thread at most.
    async fn lease_advice(&mut self) -> Option<Result<LeaseAdvice, String>> {
        let (dir, ttl, is_alone) = (self.data_dir.clone(), self.ttl, self.is_alone);
        let read = move || {
            let record = stalls::file::read(&dir).map_err(|e| e.to_string()).transpose()?;
            Some(record.map(|record| advice::advise(&record, ttl, is_alone)))
        };
        let reading = self.reading.get_or_insert_with(|| tokio::task::spawn_blocking(read));
        let Ok(read) = tokio::time::timeout(READ_TIME_MAX, reading).await else {
            return Some(Err("the disk does not answer".into()));
        };
        self.reading = None;
        read.unwrap_or_default()
    }

    async fn late_timers(&self) -> Duration {
        let mut latest = Duration::ZERO;
        for _ in 0..TIMERS {
            let began = self.clock.now();
            tokio::time::sleep(TIMER).await;
            latest = latest.max(self.clock.now().since(began).saturating_sub(TIMER));
        }
        latest
    }

    fn throttled(&mut self) -> Option<f64> {
        let (periods, throttled) = throttling()?;
        let (before, throttled_before) = self.periods.replace((periods, throttled))?;
        let passed = periods.saturating_sub(before);
        Some(if passed == 0 {
            0.0
        } else {
            throttled.saturating_sub(throttled_before) as f64 * 100.0 / passed as f64
        })
    }
}

/// The data dir, or the closest directory above it that exists: it will be made there.
fn existing(path: &Path) -> Option<PathBuf> {
    let absolute = std::path::absolute(path).ok()?;
    absolute.ancestors().find(|p| p.is_dir()).map(Path::to_path_buf)
}

fn own() -> OwnFacts {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    OwnFacts { fd_limit: files.unwrap_or(u64::MAX), watchdog: watchdog() }
}

/// The node runs as the owner of its data dir. Is that us?
fn is_ours(dir: &Path) -> bool {
    std::fs::metadata(dir).is_ok_and(|m| m.uid() == rustix::process::geteuid().as_raw())
}

async fn syncs(dir: PathBuf, clock: Arc<dyn Clock>) -> Syncs {
    let measure = move || {
        let path = dir.join(PROBE_FILE);
        let measured = write_and_sync(&path, clock.as_ref());
        let _ = std::fs::remove_file(&path); // it holds nothing
        match measured {
            Ok(took) => Syncs::Took(took),
            Err(e) if e.kind() == ErrorKind::PermissionDenied && !is_ours(&dir) => {
                Syncs::Denied(path.display().to_string())
            }
            Err(e) => Syncs::Failed(format!("cannot write {}: {e}", path.display())),
        }
    };
    // A disk that hangs keeps its thread; nobody waits for it longer than this.
    let done = tokio::time::timeout(SYNCS_TIME_MAX * 2, tokio::task::spawn_blocking(measure)).await;
    match done {
        Ok(measured) => measured.unwrap_or_else(|e| Syncs::Failed(e.to_string())),
        Err(_) => Syncs::Failed(format!("the disk has not completed a sync for {:?}", SYNCS_TIME_MAX * 2)),
    }
}

fn write_and_sync(path: &Path, clock: &dyn Clock) -> std::io::Result<Vec<Duration>> {
    use std::io::Write;
    let mut file = files::create(path)?;
    let (began, mut all) = (clock.now(), Vec::new());
    while all.len() < SYNCS && clock.now().since(began) < SYNCS_TIME_MAX {
        let stamp = clock.now();
        file.write_all(&[0; SYNC_BYTES])?;
        file.sync_data()?;
        all.push(clock.now().since(stamp));
    }
    Ok(all)
}

fn room(dir: &Path) -> Option<(u64, u64)> {
    let stat = rustix::fs::statvfs(dir).ok()?;
    Some((stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize))
}

/// "some avg10=1.23 …" of a resource.
fn pressure(of: &str) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/pressure/{of}")).ok()?;
    let (_, rest) = text.lines().next()?.split_once("avg10=")?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Periods of our cgroup, and those in which it was throttled. `None` where it has no limit.
fn throttling() -> Option<(u64, u64)> {
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|l| l.strip_prefix("0::"))?;
    let stat = std::fs::read_to_string(format!("/sys/fs/cgroup{path}/cpu.stat")).ok()?;
    let field = |name: &str| {
        let line = stat.lines().find_map(|l| l.strip_prefix(name))?;
        line.trim().parse::<u64>().ok()
    };
    Some((field("nr_periods ")?, field("nr_throttled ")?))
}

/// systemd's watchdog, if it is on us.
fn watchdog() -> Option<Duration> {
    let micros = std::env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    let pid = std::env::var("WATCHDOG_PID").ok();
    // Under an init it is that one's.
    let is_ours = |pid: u32| {
        pid == std::process::id() || (init::is_node() && pid == std::os::unix::process::parent_id())
    };
    let ours = pid.is_none_or(|pid| pid.parse().is_ok_and(is_ours));
    (ours && micros > 0).then(|| Duration::from_micros(micros))
}
