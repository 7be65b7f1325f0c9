//! Observes the driver for the diagnosis: is it on time, does the store confirm what it should, who is at fault?

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::prober::{self, Diagnosis, Looking, ProbeRound, Worry};
use super::stall::Punctuality;
use super::timings::Timings;
use crate::clock::{Clock, Instant};
use crate::driver::observer::{Moment, Observer};
use crate::election::history::{Ending, Reason};
use crate::election::lease::{Lease, LeaseTiming};
use crate::election::status::{Role, Status};
use crate::store::codec::Keys;
use crate::store::places::Health;
use crate::store::probe;
use crate::telemetry::Telemetry;
use crate::tls::client::Credentials;

/// A leader whose last ack is older than four of its cadences, and than this, has reason to worry.
const WORRY_MIN: Duration = Duration::from_millis(500);

/// What a monitor is made of.
pub struct MonitorParts {
    /// How the store fares.
    pub health: Arc<dyn Health>,
    /// Where the keys are.
    pub keys: Keys,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Where to tell.
    pub telemetry: Telemetry,
    /// The configured time to live.
    pub ttl: Duration,
    /// What other members are shown.
    pub credentials: Credentials,
}

/// Watches one driver, and says who was at fault when its tenure ends.
pub struct Monitor {
    parts: MonitorParts,
    timings: Timings,
    punctuality: SharedPunctuality,
    diagnosis: Option<Diagnosis>,
    looks: watch::Sender<Arc<ProbeRound>>,
    /// The verdict on our own tenure.
    verdict: Option<String>,
}

/// The driver's punctuality, for the others who want to know. Clones share it.
#[derive(Clone)]
pub struct SharedPunctuality(Arc<Mutex<Punctuality>>);

// === impl SharedPunctuality ===

impl SharedPunctuality {
    fn lock(&self) -> MutexGuard<'_, Punctuality> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How late the driver was at worst lately.
    pub fn worst_delay(&self, now: Instant) -> Duration {
        self.lock().worst_delay(now)
    }
}

// === impl Monitor ===

impl Monitor {
    /// One that waits for its driver to begin.
    pub fn new(parts: MonitorParts) -> Self {
        let now = parts.clock.now();
        let punctuality = SharedPunctuality(Arc::new(Mutex::new(Punctuality::new(parts.ttl, now))));
        let timings = Timings::new(parts.telemetry.clone(), now);
        let looks = watch::Sender::default();
        Self { parts, timings, punctuality, diagnosis: None, looks, verdict: None }
    }

    /// What the prober has seen last.
    pub fn looks(&self) -> watch::Receiver<Arc<ProbeRound>> {
        self.looks.subscribe()
    }

    /// The driver's punctuality.
    pub fn punctuality(&self) -> SharedPunctuality {
        self.punctuality.clone()
    }

    /// The driver has woken: did it stand still, and are renewals late?
    fn tell_worries(&self, moment: Moment<'_>) {
        let now = moment.now;
        let (heard_at, hears_every, timeout) = self.heard(moment);
        let is_troubled = now.since(heard_at) > timeout;
        let stall = self.punctuality.lock().stall(now);
        if let Some(diagnosis) = &self.diagnosis {
            diagnosis.tell(Worry { is_troubled, heard_at, hears_every, stall });
        }
    }

    /// When the store confirmed something for the last time, how often it does, and for how long it may be silent.
    fn heard(&self, moment: Moment<'_>) -> (Instant, Duration, Duration) {
        let leads = matches!(Role::of(moment.elector.state()), Role::Starting | Role::Leader);
        match moment.elector.lease().filter(|_| leads) {
            Some(lease) => {
                let timing = lease.timing();
                let hears_every = timing.leader_cadence() * 2;
                let timeout = (hears_every * 2).max(WORRY_MIN);
                (lease.holds_until() - timing.span(), hears_every, timeout)
            }
            None => {
                let hears_every = LeaseTiming::new(self.parts.ttl).candidate_cadence();
                (moment.confirmed_at, hears_every, hears_every * 2)
            }
        }
    }

    fn judge(&mut self, moment: Moment<'_>, reason: Reason) {
        if !needs_verdict(reason) {
            return;
        }
        let elector = moment.elector;
        let registration_gone = elector.view().member(&elector.me().node).is_none();
        if let Some(diagnosis) = &self.diagnosis {
            let verdict = diagnosis.of_end(reason, registration_gone);
            prober::say(&self.parts.telemetry, &verdict);
            self.verdict = Some(verdict.to_string());
        }
    }
}

impl Observer for Monitor {
    fn began(&mut self, status: &watch::Receiver<Arc<Status>>) {
        let (worry, worried) = watch::channel(Worry::default());
        let looking = Looking {
            health: self.parts.health.clone(),
            question: probe::question(&self.parts.keys),
            clock: self.parts.clock.clone(),
            telemetry: self.parts.telemetry.clone(),
            ttl: self.parts.ttl,
            credentials: self.parts.credentials.clone(),
            status: status.clone(),
            worry: worried,
        };
        self.diagnosis = Some(Diagnosis::begin(looking, worry, self.looks.clone()));
    }

    fn sleeps(&mut self, now: Instant, at_most: Duration) {
        self.punctuality.lock().sleeps(now, at_most);
    }

    fn woke(&mut self, moment: Moment<'_>, by_timer: bool) {
        let late = self.punctuality.lock().woke(moment.now);
        self.timings.ticked(moment.now, by_timer.then_some(late));
        self.tell_worries(moment);
    }

    fn handled(&mut self, moment: Moment<'_>, lease_before: Option<&Lease>) {
        self.timings.compare(moment.now, lease_before, moment.elector.lease());
    }

    /// A tenure ends that nobody wanted to end: says who was at fault.
    fn main_loop_told(&mut self, moment: Moment<'_>, reason: Reason) {
        self.judge(moment, reason);
    }

    fn explains(&mut self, moment: Moment<'_>, ending: &Ending) -> Option<String> {
        if !needs_verdict(ending.reason) {
            return None;
        }
        if self.verdict.is_none() {
            self.judge(moment, ending.reason);
        }
        self.verdict.clone()
    }
}

/// Did something outside of the main loop end it?
fn needs_verdict(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::RenewDeadline
            | Reason::ClockSuspended
            | Reason::LeaseExpired
            | Reason::RecordDeleted
            | Reason::Deposed
            | Reason::Fenced
            | Reason::StartTimeout
    )
}
