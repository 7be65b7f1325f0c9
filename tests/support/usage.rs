//! What a process has used of the machine, for benchmarks.

use std::fs;

/// The CPU time of all its threads that live, in seconds. The scheduler's own count: clock ticks of 10 ms are too coarse.
pub fn cpu_secs(pid: u32) -> f64 {
    cpu_secs_if_alive(pid).expect("a living process")
}

/// The same, of a process that may have ended.
pub fn cpu_secs_if_alive(pid: u32) -> Option<f64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    let nanoseconds = tasks.filter_map(|task| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    });
    Some(nanoseconds.sum::<f64>() / 1e9)
}

/// How often its threads have woken up to do something, so far.
pub fn wake_ups(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a living process").flatten();
    let waits = tasks.filter_map(|task| {
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        status.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:"))?.trim().parse::<u64>().ok()
    });
    waits.sum()
}

/// Its resident memory, in megabytes of 2^20 bytes.
pub fn rss_mb(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a living process");
    let line = status.lines().find(|l| l.starts_with("VmRSS")).expect("a size");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}
