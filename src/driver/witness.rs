//! What the driver tells the diagnosis of itself, and what it asks it when a tenure ends.

use std::time::Duration;

use tokio::sync::watch;

use super::Driver;
use super::diagnosis::{self, Diagnosis, Looking, Worry};
use super::status::Role;
use crate::clock::Instant;
use crate::election::history::{Ending, Reason};
use crate::election::lease::LeaseTiming;
use crate::store::{Op, Request, Txn};

/// A leader whose last ack is older than four of its cadences, and than this, has reason to worry.
const WORRY_MIN: Duration = Duration::from_millis(500);

/// Who saw what the driver went through.
pub(super) struct Witness {
    diagnosis: Diagnosis,
    /// The verdict on our own tenure.
    verdict: Option<String>,
}

// === impl Driver: the verdict ===

impl Driver {
    /// Must be called on the driver's thread and runtime.
    pub(super) fn call_witness(&mut self) {
        let ttl = self.parts.registration.ttl;
        let (worry, worried) = watch::channel(Worry::default());
        let looking = Looking {
            store: self.parts.store.clone(),
            question: Request::Txn(Txn::read(vec![Op::Get(self.parts.keys.leader())])),
            clock: self.parts.clock.clone(),
            telemetry: self.parts.telemetry.clone(),
            ttl,
            status: self.status.subscribe(),
            worry: worried,
        };
        let diagnosis = Diagnosis::begin(looking, worry);
        self.witness = Some(Witness { diagnosis, verdict: None });
    }

    /// The driver has woken: did it stand still, and are renewals late?
    pub(super) fn tell_worries(&self, now: Instant) {
        let (heard_at, hears_every, patience) = self.heard();
        let is_troubled = now.since(heard_at) > patience;
        let standstill = self.vitals.punctuality().standstill(now);
        if let Some(witness) = &self.witness {
            witness.diagnosis.tell(Worry { is_troubled, heard_at, hears_every, standstill });
        }
    }

    /// When the store confirmed something for the last time, how often it does, and for how long it may be silent.
    fn heard(&self) -> (Instant, Duration, Duration) {
        let leads = matches!(Role::of(self.elector.state()), Role::Starting | Role::Leader);
        match self.elector.lease().filter(|_| leads) {
            Some(lease) => {
                let timing = lease.timing();
                let hears_every = timing.leader_cadence() * 2;
                let patience = (hears_every * 2).max(WORRY_MIN);
                (lease.holds_until() - timing.span(), hears_every, patience)
            }
            None => {
                let hears_every = LeaseTiming::new(self.parts.registration.ttl).candidate_cadence();
                (self.confirmed_at, hears_every, hears_every * 2)
            }
        }
    }

    /// A tenure ends that nobody wanted to end: says whose fault it was.
    pub(super) fn say_verdict(&mut self, reason: Reason) {
        if !needs_verdict(reason) {
            return;
        }
        let registration_gone = self.elector.view().member(&self.me().node).is_none();
        if let Some(witness) = &mut self.witness {
            let verdict = witness.diagnosis.of_end(reason, registration_gone);
            diagnosis::say(&self.parts.telemetry, &verdict);
            witness.verdict = Some(verdict.to_string());
        }
    }

    /// The ending with the verdict, where it has no words of its own.
    pub(super) fn with_verdict(&mut self, ending: Ending) -> Ending {
        if !ending.detail.is_empty() || !needs_verdict(ending.reason) {
            return ending;
        }
        if self.witness.as_ref().is_some_and(|w| w.verdict.is_none()) {
            self.say_verdict(ending.reason);
        }
        let said = self.witness.as_ref().and_then(|w| w.verdict.clone());
        Ending { detail: said.unwrap_or_default(), ..ending }
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
