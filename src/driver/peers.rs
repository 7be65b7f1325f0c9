//! What the driver asks of the other members. Whoever is asked may be slow, silent, or somebody else.

use std::time::Duration;

use async_trait::async_trait;

use crate::election::record::{Incarnation, MemberUuid, Token};

/// The other members, at the addresses that they have registered.
#[async_trait]
pub trait Peers: Send + Sync + 'static {
    /// Keeps connections to these addresses, in the background, and forgets all others: a hand-over must not wait for a
    /// handshake.
    fn keep_warm(&self, addresses: &[&str]);

    /// Asks a candidate whether it would take this tenure over.
    async fn prepare(&self, address: &str, token: Token) -> Option<Prepared>;

    /// Whose data dir is it that answers there?
    async fn who_answers(&self, address: &str) -> Option<MemberUuid>;
}

/// A candidate's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// Who has answered.
    pub uuid: MemberUuid,
    /// In which start.
    pub incarnation: Incarnation,
    /// It would start at once.
    pub is_ready: bool,
    /// How long its probes have succeeded.
    pub healthy_for: Duration,
}
