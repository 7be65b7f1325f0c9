//! What the election asks of a store, as transactions; and what the answers mean to the elector.
//!
//! Pure functions. The driver, the simulation and the model checker all use these, so a guard that is missing
//! here is missing in all of them. Every transaction is safe to deliver twice and late: each compares the
//! revision that it is about to replace. [`fenced`] leaves that to its caller: the fence does not change between
//! two writes of one tenure, so each written key needs a guard of its own.

use super::codec::{IdentityRow, Keys, Picture, encode_identity, encode_leader, encode_registration};
use super::{Guard, Op, Response, StoreError, Txn, TxnReply};
use crate::election::event::{ClaimAnswer, Event, HandOverAnswer, ReadAnswer, ReadId};
use crate::election::lease::LeaseId;
use crate::election::record::{LeaderRecord, Member, Nonce, Registration, Revision, Tenure, Token};

/// What a store said, or why it did not.
pub type Answer = Result<Response, StoreError>;

// === reading ===

/// Reads seat and registrations.
pub fn read(keys: &Keys) -> Txn {
    Txn::read(picture_ops(keys))
}

fn picture_ops(keys: &Keys) -> Vec<Op> {
    vec![Op::List(keys.election()), Op::List(keys.nodes())]
}

/// The picture that an answer to [`read`] shows.
pub fn picture(reply: &TxnReply) -> Picture {
    Picture::of(reply.header.revision, &reply.found)
}

/// The elector's event for an answer to [`read`].
pub fn read_event(keys: &Keys, id: ReadId, answer: &Answer) -> Event {
    let answer = match answer {
        Ok(Response::Txn(reply)) => {
            Some(ReadAnswer { view: picture(reply).view(keys), raft_term: reply.header.raft_term })
        }
        _ => None,
    };
    Event::Read { id, answer }
}

// === registering ===

/// Writes a registration if its last known `mod_revision` is still `expected` (0: absent).
pub fn register(keys: &Keys, registration: &Registration, expected: Revision) -> Txn {
    let key = keys.node(&registration.member.node);
    Txn {
        guards: vec![Guard::ModRevision(key.clone(), expected)],
        then: vec![Op::Put(key, encode_registration(registration), Some(registration.lease))],
        otherwise: vec![],
    }
}

/// The elector's event for an answer to [`register`].
pub fn register_event(answer: &Answer) -> Event {
    match answer {
        Ok(Response::Txn(reply)) if reply.succeeded => Event::Registered(Some(reply.header.revision)),
        _ => Event::Registered(None),
    }
}

/// A start's own registration: identity and registration in one, and the picture afterwards.
pub fn enrol(
    keys: &Keys,
    registration: &Registration,
    registered: Revision,
    identified: Revision,
    seen_ms: u64,
) -> Txn {
    let mut txn = register(keys, registration, registered);
    let key = keys.identity(registration.member.uuid);
    let (incarnation, lease) = (registration.member.incarnation, registration.lease);
    let row = IdentityRow { incarnation, lease, seen_ms };
    txn.guards.push(Guard::ModRevision(key.clone(), identified));
    txn.then.push(Op::Put(key, encode_identity(&row), None));
    txn.then.extend(picture_ops(keys));
    txn
}

// === the leader record ===

/// Claims the seat: only if nobody sits or queues there, and our registration is of this generation, so that
/// the claim of a dead incarnation, or one that was cancelled, can never commit.
pub fn claim(keys: &Keys, record: &LeaderRecord, lease: LeaseId, generation: Revision) -> Txn {
    Txn {
        guards: vec![
            Guard::PrefixEmpty(keys.election()),
            Guard::ModRevision(keys.node(&record.holder.node), generation),
        ],
        then: [Op::Put(keys.leader(), encode_leader(record), Some(lease))]
            .into_iter()
            .chain(picture_ops(keys))
            .collect(),
        otherwise: picture_ops(keys),
    }
}

/// The elector's event for an answer to [`claim`], with the picture that it shows: whoever has won must be able to
/// say at once who leads. A second copy of a claim that had worked finds our own record.
pub fn claim_event(keys: &Keys, record: &LeaderRecord, nonce: Nonce, answer: &Answer) -> Event {
    let reply = match answer {
        Ok(Response::Txn(reply)) => reply,
        Err(StoreError::Refused(..)) => {
            return Event::Claimed { nonce, answer: ClaimAnswer::Lost, seen: None };
        }
        _ => return Event::Claimed { nonce, answer: ClaimAnswer::Unknown, seen: None },
    };
    let view = picture(reply).view(keys);
    let is_this_claim = |t: &&Tenure| t.record.holder == record.holder && t.record.nonce == nonce;
    let won = view.seat.tenure().filter(is_this_claim).map(|t| ClaimAnswer::Won(t.token));
    Event::Claimed { nonce, answer: won.unwrap_or(ClaimAnswer::Lost), seen: Some(Box::new(view)) }
}

/// Moves our own record from a dead incarnation to this one, under a new lease; the token grows.
pub fn reclaim(keys: &Keys, record: &LeaderRecord, lease: LeaseId, token: Token) -> Txn {
    Txn {
        guards: vec![holds(keys, token)],
        then: [Op::Put(keys.leader(), encode_leader(record), Some(lease))]
            .into_iter()
            .chain(picture_ops(keys))
            .collect(),
        otherwise: picture_ops(keys),
    }
}

/// Puts a candidate into the record, on its own lease: if the record still carries our token and the candidate is
/// still of the generation that it was ready with.
pub fn hand_over(keys: &Keys, record: &LeaderRecord, heir: &Member, token: Token) -> Txn {
    let r = &heir.registration;
    Txn {
        guards: vec![holds(keys, token), Guard::ModRevision(keys.node(&r.member.node), heir.generation)],
        then: vec![Op::Put(keys.leader(), encode_leader(record), Some(r.lease))],
        otherwise: vec![],
    }
}

/// The elector's event for an answer to [`hand_over`].
pub fn hand_over_event(answer: &Answer) -> Event {
    Event::HandedOver(match answer {
        Ok(Response::Txn(reply)) if reply.succeeded => HandOverAnswer::Done,
        // A second copy of a write that had worked is refused as well: nobody knows.
        Ok(_) | Err(StoreError::Unknown(_)) => HandOverAnswer::Unknown,
        Err(StoreError::Refused(..)) => HandOverAnswer::Refused,
    })
}

/// Gives the record up, if it still carries our token. Our registration goes with our lease: here it might by now
/// be that of our next start.
pub fn release(keys: &Keys, token: Token) -> Txn {
    Txn { guards: vec![holds(keys, token)], then: vec![Op::Delete(keys.leader())], otherwise: vec![] }
}

/// The elector's event for an answer to [`release`]. A refused guard means: not under our name any more.
pub fn release_event(answer: &Answer) -> Event {
    Event::Released(matches!(answer, Ok(Response::Txn(_))))
}

// === the fence ===

/// The compare that every write of a main loop begins with.
pub fn holds(keys: &Keys, token: Token) -> Guard {
    Guard::ModRevision(keys.leader(), token.revision())
}

/// A write of the main loop: happens only while the leader record carries `token`. If it does not happen, the
/// answer's first find is the leader record, which tells a lost leadership from another guard.
pub fn fenced(keys: &Keys, token: Token, guards: Vec<Guard>, then: Vec<Op>) -> Txn {
    let mut all = vec![holds(keys, token)];
    all.extend(guards);
    Txn { guards: all, then, otherwise: vec![Op::Get(keys.leader())] }
}

/// Was leadership the reason that a [`fenced`] write was refused?
pub fn refused_by_fence(reply: &TxnReply, token: Token) -> bool {
    let record = reply.found.first().and_then(|f| f.first());
    !reply.succeeded && record.is_none_or(|kv| kv.modified != token.revision())
}
