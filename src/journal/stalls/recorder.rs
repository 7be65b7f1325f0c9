//! Observes the driver for the file of the stalls.

use std::time::Duration;

use futures_util::future::BoxFuture;

use super::file::StallLog;
use super::watch::StallWatch;
use super::{RecordedStall, StallLine, StallOf};
use crate::clock::{Instant, millis, wall_clock_ms};
use crate::driver::observer::{Moment, Observer};
use crate::election::event::Action;
use crate::election::history::row::Row;
use crate::election::history::{Ending, Reason};
use crate::election::lease::{Lease, LeaseTiming};

/// Has the stalls of one driver written.
pub struct StallRecorder {
    log: StallLog,
    watch: StallWatch,
}

/// How the last process of this data dir ended, if its lease ran out while it stood still: it could not say so itself. The
/// lease is taken to have been this one.
pub fn killed(past: Option<&Row>, ttl: Duration) -> Option<RecordedStall> {
    let end = past.and_then(|row| row.end.as_ref())?;
    let stood_still = matches!(end.reason, Reason::Fuse | Reason::KernelTimer | Reason::GuardianKill);
    let timing = LeaseTiming::new(ttl);
    stood_still.then(|| RecordedStall {
        of: StallOf::Process,
        ended_ms: end.at_ms,
        least_ms: millis(timing.span().saturating_sub(timing.leader_cadence())),
        most_ms: None,
        ttl_ms: millis(ttl),
        lost: true,
    })
}

// === impl StallRecorder ===

impl StallRecorder {
    /// One that writes there.
    pub fn new(log: StallLog, now: Instant) -> Self {
        Self { log, watch: StallWatch::new(now) }
    }

    fn write(&mut self) {
        self.watch.drain().for_each(|line| self.log.write(line));
    }
}

impl Observer for StallRecorder {
    fn sleeps(&mut self, now: Instant, at_most: Duration) {
        self.watch.sleeps(now, wall_clock_ms(), at_most);
        self.write();
    }

    fn woke(&mut self, moment: Moment<'_>, _by_timer: bool) {
        self.watch.woke(moment.now, wall_clock_ms());
    }

    fn asks(&mut self, moment: Moment<'_>, action: &Action) {
        if matches!(action, Action::Renew(_)) {
            self.watch.asked(moment.now);
        }
    }

    fn handled(&mut self, moment: Moment<'_>, _lease_before: Option<&Lease>) {
        let leads = moment.elector.main_loop_token().is_some();
        let lease = moment.elector.lease().filter(|_| leads).copied();
        self.watch.handled(moment.now, wall_clock_ms(), lease);
    }

    fn joined(&mut self) {
        self.log.write(StallLine::Back(wall_clock_ms()));
    }

    fn main_loop_told(&mut self, moment: Moment<'_>, reason: Reason) {
        if matches!(reason, Reason::RenewDeadline | Reason::ClockSuspended) {
            self.watch.lost(moment.now, wall_clock_ms());
        }
    }

    fn ends(&mut self, _ending: &Ending) -> BoxFuture<'static, ()> {
        self.watch.ends(wall_clock_ms());
        self.write();
        Box::pin(std::future::ready(()))
    }
}
