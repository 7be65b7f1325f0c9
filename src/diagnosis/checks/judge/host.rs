//! This machine.

use super::super::facts::{Facts, OwnFacts, Syncs};
use super::super::{Judgement, Outcome, Skip, Status};
use super::{above, count, host, list, mib, millis, ms, p99_ms, skip};
use crate::files::is_open_to_all;

/// So much waiting for the CPU in the last ten seconds is much, in percent.
const PRESSURE_PERCENT: f64 = 40.0;
/// So many throttled periods of the cgroup are too many, in percent.
const THROTTLED_PERCENT: f64 = 5.0;
/// The least room on the data dir's disk: this part, and so many bytes.
const FREE_PERCENT: f64 = 5.0;
const FREE_BYTES: u64 = 100 << 20;
/// Fewer descriptors are too few, and below that far too few.
const FILES: u64 = 4096;
const FILES_MIN: u64 = 1024;

/// Pressure, throttling and late timers.
pub fn cpu(facts: &Facts) -> Judgement {
    let h = host(facts)?;
    let tenth = millis(facts.ttl()) / 10.0;
    let mut said = Vec::new();
    let mut status = Status::Pass;
    if let Some((cpu, _)) = h.pressure {
        said.push(format!("CPU pressure {cpu:.0} % over 10 s"));
        status = Status::worst([status, above(cpu, PRESSURE_PERCENT, f64::INFINITY)]);
    }
    if let Some(throttled) = h.throttled {
        said.push(format!("the cgroup was throttled in {throttled:.0} % of its periods"));
        status = Status::worst([status, above(throttled, THROTTLED_PERCENT, f64::INFINITY)]);
    }
    if let Some(delay) = h.timer_delay.map(millis) {
        said.push(format!("timers fire up to {} late", ms(delay)));
        status = Status::worst([status, above(delay, tenth / 2.0, tenth)]);
    }
    if let Some(stood) = facts.past.as_ref().map(|p| millis(p.stood_still)).filter(|ms| *ms > tenth / 2.0) {
        said.push(format!("this process stalled for {}", self::ms(stood)));
        status = Status::worst([status, above(stood, tenth / 2.0, tenth)]);
    }
    if said.is_empty() {
        return skip("the kernel does not report it");
    }
    let limit = format!(
        "pressure {PRESSURE_PERCENT} %, throttled {THROTTLED_PERCENT} %, timers a tenth of the lease ({})",
        ms(tenth)
    );
    let pressure = h.pressure.map_or(0.0, |(cpu, _)| cpu);
    Outcome::new(status, list(&said), limit)
        .fix("raise the CPU limit of the container or unit (CPUQuota=), or move other work away")
        .reading(pressure, "%", PRESSURE_PERCENT)
        .made()
}

/// Room for the data dir.
pub fn disk(facts: &Facts) -> Judgement {
    let h = host(facts)?;
    let limit = format!("{FREE_PERCENT} % and {} free", mib(FREE_BYTES));
    let Some((free, total)) = h.disk else {
        return skip(format!("{} and the directory above it do not exist", h.data_dir));
    };
    let percent = free as f64 * 100.0 / total.max(1) as f64;
    let status = match free {
        0..FREE_BYTES => Status::Fail,
        _ if percent < FREE_PERCENT => Status::Warn,
        _ => Status::Pass,
    };
    let free = mib(free);
    let measured = match h.data_dir_mode {
        Some(_) => format!("{} has {free} free, {percent:.0} %", h.data_dir),
        None => {
            format!("{} is not there yet; where it would be, {free} are free, {percent:.0} %", h.data_dir)
        }
    };
    Outcome::new(status, measured, limit)
        .fix(format!("free space: du -xh --max-depth=1 {}", h.data_dir))
        .reading(percent, "%", FREE_PERCENT)
        .lower_is_worse()
        .made()
}

/// Whoever can replace the files of a node can take its place.
pub fn private(facts: &Facts) -> Judgement {
    let h = host(facts)?;
    let Some(mode) = h.data_dir_mode else { return skip(format!("{} is not there", h.data_dir)) };
    let status = if is_open_to_all(mode) { Status::Warn } else { Status::Pass };
    Outcome::new(status, format!("{} has mode {mode:03o}", h.data_dir), "not world-writable")
        .fix(format!("chmod 700 {}", h.data_dir))
        .made()
}

/// How quickly it syncs.
pub fn sync(facts: &Facts) -> Judgement {
    let h = host(facts)?;
    let warn = facts.config.checks.fsync_p99_ms as f64;
    let limit = format!("a local disk, p99 {}", ms(warn));
    if let Some(kind) = h.network_fs {
        let measured = format!("{} is on {kind}", h.data_dir);
        let fix = "node.data_dir = a directory on a local disk";
        return Outcome::new(Status::Fail, measured, limit).fix(fix).made();
    }
    let syncs = match &h.syncs {
        Syncs::NotTried => return skip("the disk was not written to"),
        Syncs::Denied(path) => {
            return skip(format!("this user may not write {path}; run this as the owner of the data dir"));
        }
        Syncs::Failed(why) => {
            let fix =
                format!("df -h {0}; dmesg | tail: a disk that is full, read-only or broken", h.data_dir);
            return Outcome::new(Status::Fail, why.clone(), limit).fix(fix).made();
        }
        Syncs::Took(syncs) => syncs,
    };
    let Some(p99) = p99_ms(syncs) else { return skip("no measurement") };
    let measured = format!("{}, p99 {}", count(syncs.len(), "sync"), ms(p99));
    Outcome::new(above(p99, warn, f64::INFINITY), measured, limit)
        .fix("node.data_dir = a directory on a faster disk")
        .reading(p99, "ms", warn)
        .made()
}

fn own(facts: &Facts) -> Result<&OwnFacts, Skip> {
    host(facts)?
        .own
        .as_ref()
        .ok_or_else(|| Skip::new("only a running node knows; none has answered, or none has checked yet"))
}

/// How many files may be open.
pub fn files(facts: &Facts) -> Judgement {
    let limit = own(facts)?.fd_limit;
    let status = match limit {
        0..FILES_MIN => Status::Fail,
        FILES_MIN..FILES => Status::Warn,
        _ => Status::Pass,
    };
    Outcome::new(status, format!("limit {limit} open files"), format!("{FILES} or more"))
        .fix("LimitNOFILE=40000 in the unit, or ulimit -n 40000")
        .made()
}

/// metad tells systemd nothing, so a watchdog of systemd's would only kill it.
pub fn watchdog(facts: &Facts) -> Judgement {
    let own = own(facts)?;
    let limit = "the guardian on, no systemd watchdog";
    if let Some(every) = own.watchdog {
        let measured =
            format!("systemd ends this process after {every:?} without WATCHDOG=1, and metad sends none");
        return Outcome::new(Status::Fail, measured, limit).fix("remove WatchdogSec= from the unit").made();
    }
    if !facts.config.node.guardian {
        let measured = "node.guardian is false: a crash is noticed only when the lease ends";
        return Outcome::new(Status::Warn, measured, limit).fix("node.guardian = true").made();
    }
    Outcome::new(Status::Pass, "the guardian is on, and no systemd watchdog is set", limit).made()
}
