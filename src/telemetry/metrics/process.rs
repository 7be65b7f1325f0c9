//! What the kernel knows of this process, under the names that every Prometheus client uses.

use rustix::process::{Resource, getrlimit};

use super::Metrics;
use super::computed::MetricKind;
use crate::clock::wall_clock_ms;

/// What this process uses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// User and system time since its start, in seconds.
    pub cpu_secs: f64,
    /// Resident memory, in bytes.
    pub rss_bytes: f64,
}

// === impl Usage ===

impl Usage {
    /// As the kernel says now.
    pub fn now() -> Self {
        Self { cpu_secs: cpu_secs(), rss_bytes: pages(1) }
    }
}

pub(super) fn register(metrics: &Metrics) {
    let start = wall_clock_ms() as f64 / 1000.0;
    let m = metrics;
    m.register_computed(
        "process_start_time_seconds",
        "When the process started, since the Unix epoch",
        move || start,
    );
    m.register_computed("process_resident_memory_bytes", "Resident memory", || pages(1));
    m.register_computed("process_virtual_memory_bytes", "Virtual memory", || pages(0));
    m.register_computed("process_threads", "Threads", || stat(17));
    m.register_computed("process_open_fds", "Open file descriptors", || {
        std::fs::read_dir("/proc/self/fd").map_or(0.0, |fds| fds.count() as f64)
    });
    m.register_computed("process_max_fds", "How many file descriptors may be open", || {
        getrlimit(Resource::Nofile).current.map_or(f64::INFINITY, |n| n as f64)
    });
    m.register_kind(MetricKind::Counter, "process_cpu_seconds", "User and system time", cpu_secs);
}

fn cpu_secs() -> f64 {
    (stat(11) + stat(12)) / rustix::param::clock_ticks_per_second() as f64
}

/// A field of proc(5)'s stat, counted from 0 after the command's closing parenthesis.
fn stat(field: usize) -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    after.split_whitespace().nth(field).and_then(|f| f.parse().ok()).unwrap_or(0.0)
}

/// A field of proc(5)'s statm, in bytes.
fn pages(field: usize) -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = statm.split_whitespace().nth(field).and_then(|p| p.parse().ok()).unwrap_or(0.0);
    pages * rustix::param::page_size() as f64
}
