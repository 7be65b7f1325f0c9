//! What the election asks of a store, as transactions; and what the answers mean to the elector.
//!
//! Pure functions. The driver, the simulation and the model checker all use these, so a guard that is missing
//! here is missing in all of them. Every transaction is safe to deliver twice and late: each compares the
//! revision that it is about to replace. [`fenced`] leaves that to its caller: the fence does not change between
//! two writes of one tenure, so each written key needs a guard of its own.

use crate::election::event::{ClaimAnswer, Event, HandOverAnswer, ReadAnswer, ReadId};
use crate::election::lease::LeaseId;
use crate::election::record::{Freeze, LeaderRecord, Member, Registration, Revision, Tenure, Token};
use crate::store::codec::{
    IdentityRow, Keys, WatchedKeys, encode_freeze, encode_identity, encode_leader, encode_registration,
};
use crate::store::{Guard, Op, Refusal, Response, StoreError, Txn, TxnReply};

/// What a store said, or why it did not.
pub type Answer = Result<Response, StoreError>;

// === reading ===

/// Reads record and registrations.
pub fn read(keys: &Keys) -> Txn {
    Txn::read(read_ops(keys))
}

fn read_ops(keys: &Keys) -> Vec<Op> {
    vec![Op::List(keys.election()), Op::List(keys.nodes()), Op::Get(keys.control())]
}

/// The view that an answer to [`read`] shows.
pub fn watched_keys(reply: &TxnReply) -> WatchedKeys {
    WatchedKeys::of(reply.header.revision, &reply.found)
}

/// The elector's event for an answer to [`read`]. `newest`: of our newest view when the read began.
pub fn read_event(keys: &Keys, id: ReadId, newest: Revision, answer: &Answer) -> Event {
    let answer = match answer {
        Ok(Response::Txn(reply)) => {
            if let Some(how) = went_back(newest, reply.header.revision) {
                return Event::StoreChanged(how);
            }
            Some(ReadAnswer { view: watched_keys(reply).view(keys), raft_term: reply.header.raft_term })
        }
        _ => None,
    };
    Event::Read { id, answer }
}

/// Did the store go back in time? A transaction, also one that only reads, is linearizable: its answer shows all that
/// was committed before it began, and so at least revision `newest`, which had been seen by then. If it shows less, the
/// store has lost what it had committed; the text says so. The raft term proves nothing besides: a member that was sent
/// a snapshot answers with an older one until the next write.
pub fn went_back(newest: Revision, answered: Revision) -> Option<String> {
    (answered < newest).then(|| {
        format!(
            "the store went back in time: it is at revision {answered}, but {newest} has been seen; it was restored \
             from a backup{ACCEPT}"
        )
    })
}

/// What an operator can do about a store that is not the one it was.
pub const ACCEPT: &str = "; if that is intended, start each node once with --accept-new-store";

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

/// A start's own registration: identity and registration in one, and the view afterwards.
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
    txn.then.extend(read_ops(keys));
    txn
}

// === the leader record ===

/// Claims the record: only if nobody leads or queues there, nothing freezes the election, and our registration is of this
/// generation, so that the claim of a dead incarnation, or one that was cancelled, can never commit.
pub fn claim(keys: &Keys, record: &LeaderRecord, lease: LeaseId, generation: Revision) -> Txn {
    Txn {
        guards: vec![
            Guard::PrefixEmpty(keys.election()),
            Guard::ModRevision(keys.node(&record.holder.node), generation),
            not_frozen(keys),
        ],
        then: [Op::Put(keys.leader(), encode_leader(record), Some(lease))]
            .into_iter()
            .chain(read_ops(keys))
            .collect(),
        otherwise: read_ops(keys),
    }
}

/// The elector's event for an answer to [`claim`], with the view that it shows: whoever has won must be able to
/// say at once who leads. A second copy of a claim that had worked finds our own record. `newest`: of our newest view
/// when the claim was sent.
pub fn claim_event(keys: &Keys, record: &LeaderRecord, newest: Revision, answer: &Answer) -> Event {
    let nonce = record.nonce;
    let reply = match answer {
        Ok(Response::Txn(reply)) => reply,
        Err(e) => return Event::Claimed { nonce, answer: claim_failed(e), seen: None },
        Ok(_) => return Event::Claimed { nonce, answer: ClaimAnswer::Unknown, seen: None },
    };
    if let Some(how) = went_back(newest, reply.header.revision) {
        return Event::StoreChanged(how); // even if it was won: its token may have been another's
    }
    let view = watched_keys(reply).view(keys);
    let is_this_claim = |t: &&Tenure| t.record.holder == record.holder && t.record.nonce == nonce;
    let won = view.leader.tenure().filter(is_this_claim).map(|t| ClaimAnswer::Won(t.token));
    Event::Claimed { nonce, answer: won.unwrap_or(ClaimAnswer::Lost), seen: Some(Box::new(view)) }
}

/// Only a lease that is gone is part of the race; to a full store, or one that forbids it, a claim is lost whoever leads.
fn claim_failed(e: &StoreError) -> ClaimAnswer {
    match e.refusal() {
        Some(Refusal::LeaseNotFound) => ClaimAnswer::Lost,
        Some(Refusal::NotSent) | None => ClaimAnswer::Unknown,
        Some(_) => ClaimAnswer::Refused,
    }
}

/// Moves our own record from a dead incarnation to this one, under a new lease; the token grows.
pub fn reclaim(keys: &Keys, record: &LeaderRecord, lease: LeaseId, token: Token) -> Txn {
    Txn {
        guards: vec![holds(keys, token)],
        then: [Op::Put(keys.leader(), encode_leader(record), Some(lease))]
            .into_iter()
            .chain(read_ops(keys))
            .collect(),
        otherwise: read_ops(keys),
    }
}

/// Puts a candidate into the record, on its own lease: if the record still carries our token and the candidate is
/// still of the generation that it was ready with. A freeze is no reason against it: its leader's main loop has ended
/// already, so without a successor nobody would lead.
pub fn hand_over(keys: &Keys, record: &LeaderRecord, successor: &Member, token: Token) -> Txn {
    let r = &successor.registration;
    Txn {
        guards: vec![holds(keys, token), Guard::ModRevision(keys.node(&r.member.node), successor.generation)],
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

// === the freeze ===

/// A claim that was sent before the freeze, and comes after it, does not happen.
fn not_frozen(keys: &Keys) -> Guard {
    Guard::ModRevision(keys.control(), Revision(0))
}

/// Reads the freeze, and when the election was last frozen or unfrozen.
pub fn read_control(keys: &Keys) -> Txn {
    Txn::read(vec![Op::Get(keys.control()), Op::Get(keys.control_changed())])
}

/// The freeze that an answer to [`read_control`] shows, and the revision to freeze or unfreeze at.
pub fn control(keys: &Keys, reply: &TxnReply) -> (Option<Freeze>, Revision) {
    let freeze = watched_keys(reply).view(keys).freeze.map(|(freeze, _)| freeze);
    let changed = reply.found.get(1).and_then(|found| found.first());
    (freeze, changed.map_or(Revision(0), |kv| kv.modified))
}

/// Freezes the election, if it was last frozen or unfrozen at `changed` (0: never).
///
/// That key is never deleted, so a copy of this write that arrives late does not freeze again what was unfrozen meanwhile.
pub fn freeze(keys: &Keys, freeze: &Freeze, changed: Revision) -> Txn {
    change_control(keys, changed, Op::Put(keys.control(), encode_freeze(freeze), None))
}

/// Ends the freeze, if the election was last frozen or unfrozen at `changed`. Also where there is none: then a freeze of
/// unknown outcome, which may still be on its way, never comes to be.
pub fn unfreeze(keys: &Keys, changed: Revision) -> Txn {
    change_control(keys, changed, Op::Delete(keys.control()))
}

fn change_control(keys: &Keys, changed: Revision, op: Op) -> Txn {
    let key = keys.control_changed();
    Txn {
        guards: vec![Guard::ModRevision(key.clone(), changed)],
        then: vec![op, Op::Put(key, vec![], None)],
        otherwise: vec![],
    }
}

/// Ends the freeze that was written at `written`, and no other one.
pub fn end_freeze(keys: &Keys, written: Revision) -> Txn {
    Txn {
        guards: vec![Guard::ModRevision(keys.control(), written)],
        then: vec![Op::Delete(keys.control())],
        otherwise: vec![],
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_lower_revision_than_was_seen_shows_that_a_store_went_back() {
        assert_eq!(went_back(Revision(7), Revision(7)), None);
        assert_eq!(went_back(Revision(7), Revision(8)), None);
        let said = went_back(Revision(7), Revision(6)).expect("it went back");
        assert!(
            said.contains("revision 6") && said.contains('7') && said.contains("--accept-new-store"),
            "{said}"
        );
    }

    #[test]
    fn a_claim_is_lost_only_to_somebody() {
        let refused = |refusal| claim_failed(&StoreError::Refused(refusal, String::new()));
        assert_eq!(refused(Refusal::LeaseNotFound), ClaimAnswer::Lost);
        for by_the_store in [Refusal::NoSpace, Refusal::Denied, Refusal::TooLarge, Refusal::NotAStore] {
            assert_eq!(refused(by_the_store), ClaimAnswer::Refused);
        }
        assert_eq!(refused(Refusal::NotSent), ClaimAnswer::Unknown);
        assert_eq!(claim_failed(&StoreError::Unknown(String::new())), ClaimAnswer::Unknown);
    }
}
