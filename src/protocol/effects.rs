//! What each action of the elector comes to: something to ask of the store, or something to do here.
//!
//! One pure function, [`effect`], for the product and the model checker: neither can ask for something else, or take an
//! answer for something else, than the other.

use std::time::Duration;

use super::transactions::{self, Answer};
use crate::election::event::{Action, Event, ReadId};
use crate::election::history::{Ending, Reason, Transition};
use crate::election::lease::LeaseId;
use crate::election::record::{LeaderRecord, Member, Nonce, Registration, Revision, Token};
use crate::store::Txn;
use crate::store::codec::Keys;

/// What is known where the elector is.
#[derive(Clone, Copy, Debug)]
pub struct Here<'a> {
    /// Where the keys are.
    pub keys: &'a Keys,
    /// What we register; its lease is filled in here.
    pub registration: &'a Registration,
    /// The granted time to live.
    pub ttl: Duration,
    /// The revision of our newest view.
    pub newest: Revision,
    /// How many tenures we know of; display only.
    pub transitions: u64,
    /// When the last leader that we know of says that the last one handed over because of its probe; 0: never.
    pub probe_handed_ms: u64,
    /// The wall clock; display only.
    pub wall_ms: u64,
}

/// What an action comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Join: [`super::join`].
    Join,
    /// Renew the lease.
    Renew(LeaseId),
    /// Ask the store, and tell the elector what the answer means.
    Ask(Question),
    /// Ask the candidates, or the one that is wanted.
    Prepare {
        /// The tenure that is ending.
        token: Token,
        /// The only candidate that is wanted.
        wanted: Option<String>,
    },
    /// Start the main loop.
    StartMainLoop(Token),
    /// Tell it to stop.
    StopMainLoop(Reason),
    /// End it.
    AbortMainLoop,
    /// End the process, and with it the main loop.
    EndProcess(Ending),
    /// Tell whoever wants to know.
    Report(Transition),
    /// Leave.
    Stop(Ending),
}

/// Something to ask of the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Question {
    /// What is asked.
    pub txn: Txn,
    /// What for.
    pub purpose: Purpose,
}

/// What a question is asked for, with what its answer is judged by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// To read record and registrations; the newest view's revision when it was asked.
    Read(ReadId, Revision),
    /// To write our registration.
    Register,
    /// To take the vacancy; the newest view's revision when it was asked.
    Claim(Box<LeaderRecord>, Revision),
    /// To put the successor into the record.
    HandOver(Token),
    /// To delete the record.
    Release(Token),
}

/// What this action comes to here.
pub fn effect(here: &Here<'_>, action: Action) -> Effect {
    let keys = here.keys;
    match action {
        Action::Join => Effect::Join,
        Action::Renew(lease) => Effect::Renew(lease),
        Action::Read(id) => ask(transactions::read(keys), Purpose::Read(id, here.newest)),
        Action::Register { lease, expected } => {
            let registration = Registration { lease, ..here.registration.clone() };
            ask(transactions::register(keys, &registration, expected), Purpose::Register)
        }
        Action::Claim { nonce, lease, generation } => {
            let record = claimed_record(here, nonce);
            let txn = transactions::claim(keys, &record, lease, generation);
            ask(txn, Purpose::Claim(Box::new(record), here.newest))
        }
        Action::HandOver { token, successor, reason } => {
            let record = handed_record(here, &successor, reason);
            ask(transactions::hand_over(keys, &record, &successor, token), Purpose::HandOver(token))
        }
        Action::Release(token) => ask(transactions::release(keys, token), Purpose::Release(token)),
        Action::Prepare { token, wanted } => Effect::Prepare { token, wanted },
        Action::StartMainLoop(token) => Effect::StartMainLoop(token),
        Action::StopMainLoop(_, reason) => Effect::StopMainLoop(reason),
        Action::AbortMainLoop => Effect::AbortMainLoop,
        Action::EndProcess(ending) => Effect::EndProcess(ending),
        Action::Report(transition) => Effect::Report(transition),
        Action::Stop(ending) => Effect::Stop(ending),
    }
}

fn ask(txn: Txn, purpose: Purpose) -> Effect {
    Effect::Ask(Question { txn, purpose })
}

fn claimed_record(here: &Here<'_>, nonce: Nonce) -> LeaderRecord {
    LeaderRecord {
        holder: here.registration.member.clone(),
        address: here.registration.rpc_address.clone(),
        nonce,
        ttl: here.ttl,
        acquired_ms: here.wall_ms,
        transitions: here.transitions,
        probe_handed_ms: here.probe_handed_ms,
    }
}

/// The record as the successor would have written it.
fn handed_record(here: &Here<'_>, successor: &Member, reason: Reason) -> LeaderRecord {
    let probe_handed_ms = if reason == Reason::ProbeFailed { here.wall_ms } else { here.probe_handed_ms };
    LeaderRecord {
        holder: successor.registration.member.clone(),
        address: successor.registration.rpc_address.clone(),
        nonce: Nonce(0),
        ttl: successor.registration.ttl,
        acquired_ms: here.wall_ms,
        transitions: here.transitions,
        probe_handed_ms,
    }
}

impl Purpose {
    /// Its name in the log and the metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Purpose::Read(..) => "read",
            Purpose::Register => "register",
            Purpose::Claim(..) => "claim",
            Purpose::HandOver(_) => "hand over",
            Purpose::Release(_) => "release",
        }
    }

    /// What the elector is told of an answer.
    pub fn event(&self, keys: &Keys, answer: &Answer) -> Event {
        match self {
            Purpose::Read(id, newest) => transactions::read_event(keys, *id, *newest, answer),
            Purpose::Register => transactions::register_event(answer),
            Purpose::Claim(record, newest) => transactions::claim_event(keys, record, *newest, answer),
            Purpose::HandOver(_) => transactions::hand_over_event(answer),
            Purpose::Release(_) => transactions::release_event(answer),
        }
    }
}
