//! Sends a claim, and says why one was refused.

use std::time::Duration;

use super::Driver;
use crate::clock::wall_clock_ms;
use crate::election::event::{ClaimAnswer, Event};
use crate::election::lease::LeaseId;
use crate::election::record::{LeaderRecord, Nonce, Revision};
use crate::protocol::transactions;
use crate::telemetry;

impl Driver {
    pub(super) fn claim(&self, nonce: Nonce, lease: LeaseId, generation: Revision) {
        let record = LeaderRecord {
            holder: self.me(),
            address: self.parts.registration.rpc_address.clone(),
            nonce,
            ttl: self.elector.lease().map_or(Duration::ZERO, |l| l.timing().ttl()),
            acquired_ms: wall_clock_ms(),
            transitions: self.transitions_so_far(),
        };
        let (keys, newest, telemetry) =
            (self.parts.keys.clone(), self.newest(), self.parts.telemetry.clone());
        let txn = transactions::claim(&keys, &record, lease, generation);
        self.ask("claim", txn, move |answer| {
            let event = transactions::claim_event(&keys, &record, nonce, newest, answer);
            if let (Event::Claimed { answer: ClaimAnswer::Refused, .. }, Err(e)) = (&event, answer) {
                telemetry.emit(telemetry::Event::ClaimRefused { error: e.to_string() });
            }
            event
        });
    }

    /// How many tenures we know of; for display.
    pub(super) fn transitions_so_far(&self) -> u64 {
        self.last_leader.as_ref().map_or(0, |r| r.transitions + 1)
    }
}
