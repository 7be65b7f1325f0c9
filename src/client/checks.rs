//! What a member finds when it checks itself, and what time it thinks it is.

use std::time::Duration;

use super::member::{CallError, bounded, endpoint};
use crate::clock::{Clock, wall_clock_ms};
use crate::proto::metad::check_service_client::CheckServiceClient;
use crate::proto::metad::{ChecksRequest, ChecksResponse, ClockRequest};
use crate::tls::client::{Authorized, Credentials};

/// A member, asked for its checks and its clock. Connects when it is used.
#[derive(Clone, Debug)]
pub struct CheckClient {
    address: String,
    service: CheckServiceClient<Authorized>,
    timeout: Duration,
}

/// A member's wall clock against ours.
#[derive(Clone, Debug, PartialEq)]
pub struct ClockOffset {
    /// By how much it is ahead of ours, in milliseconds.
    pub ahead_ms: f64,
    /// The round trip: the offset is wrong by half of it at most.
    pub rtt: Duration,
}

impl CheckClient {
    /// The member at `host:port`; every call may take `timeout`. Needs a runtime.
    ///
    /// # Errors
    /// The address is malformed.
    pub fn lazy(address: &str, with: &Credentials, timeout: Duration) -> Result<Self, CallError> {
        let service = CheckServiceClient::new(with.connect_lazily(&endpoint(address, with, timeout)?));
        Ok(Self { address: address.to_owned(), service, timeout })
    }

    /// What its background checks found last.
    ///
    /// # Errors
    /// It does not answer in time, or with an error.
    pub async fn checks(&mut self) -> Result<ChecksResponse, CallError> {
        bounded(&self.address, self.timeout, self.service.checks(ChecksRequest {})).await
    }

    /// Its wall clock, as NTP asks for it: sent and received here, received and sent there.
    ///
    /// # Errors
    /// It does not answer in time, or with an error.
    pub async fn clock(&mut self, clock: &dyn Clock) -> Result<ClockOffset, CallError> {
        let (began, sent) = (clock.now(), wall_clock_ms() as f64);
        let answer = bounded(&self.address, self.timeout, self.service.clock(ClockRequest {})).await?;
        let rtt = clock.now().since(began);
        let returned = sent + rtt.as_secs_f64() * 1000.0;
        let there = answer.received_ms as f64 + answer.sent_ms as f64;
        Ok(ClockOffset { ahead_ms: (there - sent - returned) / 2.0, rtt })
    }
}
