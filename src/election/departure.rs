//! How a leader's record became another's, as a bystander sees it.
//!
//! A leader that is gone tells nobody why, and its process ends with it, so its own counters are never read. The
//! others can tell the causes apart by what else has changed in the same moment: a leader that gives its record up
//! is still registered, one whose lease is over is not.

use super::record::View;

/// How a leader left its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Departure {
    /// It put another's name into the record.
    HandedOver,
    /// It deleted the record (or somebody did, by hand), and was still registered.
    GivenUp,
    /// Its lease was over, or was revoked.
    Vanished,
    /// It died, and its next start took the record back.
    Reclaimed,
}

// === impl Departure ===

impl Departure {
    /// All of them.
    pub const ALL: [Departure; 4] =
        [Departure::HandedOver, Departure::GivenUp, Departure::Vanished, Departure::Reclaimed];

    /// The name in labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Departure::HandedOver => "handed_over",
            Departure::GivenUp => "given_up",
            Departure::Vanished => "vanished",
            Departure::Reclaimed => "reclaimed",
        }
    }

    /// Did it leave without a word? Then its main loop may have ended long before its record did.
    pub fn is_silent(self) -> bool {
        matches!(self, Departure::Vanished | Departure::Reclaimed)
    }

    /// What became of the leader of `old` by the time of `new`; `None`: it still leads, or there was none.
    pub fn seen(old: &View, new: &View) -> Option<Departure> {
        let left = old.leader.tenure()?;
        let next = new.leader.tenure();
        if next.is_some_and(|next| next.token == left.token) {
            return None;
        }
        let is_registered = new.members.iter().any(|m| m.registration.member == left.record.holder);
        Some(match next {
            Some(next) if next.record.holder.uuid == left.record.holder.uuid => Departure::Reclaimed,
            // The one before may have left meanwhile: both may be seen at once.
            Some(next) if next.rewritten => Departure::HandedOver,
            _ if is_registered => Departure::GivenUp,
            _ => Departure::Vanished,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::election::lease::LeaseId;
    use crate::election::record::{
        Incarnation, Leader, LeaderRecord, Member, MemberId, MemberUuid, Nonce, Registration, Revision,
        Tenure, Token,
    };

    fn id(uuid: u128, incarnation: u64) -> MemberId {
        MemberId { node: "n".into(), uuid: MemberUuid(uuid), incarnation: Incarnation(incarnation) }
    }

    fn view(leader: Option<(MemberId, u64, bool)>, members: &[MemberId]) -> View {
        let leader = leader.map_or(Leader::Vacant, |(holder, token, rewritten)| {
            let (ttl, address) = (Duration::from_secs(5), String::new());
            let record = LeaderRecord {
                holder,
                address,
                nonce: Nonce(1),
                ttl,
                acquired_ms: 0,
                transitions: 0,
                probe_handed_ms: 0,
            };
            let token = Token::new(Revision(token)).expect("not zero");
            Leader::Held(Box::new(Tenure { record, token, lease: LeaseId(1), rewritten }))
        });
        let member = |member: &MemberId| Member {
            registration: Registration::of(member.clone()),
            created: Revision(1),
            generation: Revision(1),
        };
        View {
            revision: Revision(9),
            leader,
            members: members.iter().map(member).collect(),
            ..View::default()
        }
    }

    #[test]
    fn a_departure_is_told_by_what_else_has_changed() {
        let (a, b, a2) = (id(1, 1), id(2, 1), id(1, 2));
        let led = view(Some((a.clone(), 3, false)), &[a.clone(), b.clone()]);
        let (both, only_b) = ([a.clone(), b.clone()], [b.clone()]);
        for (new, expected) in [
            (view(Some((b.clone(), 4, true)), &both), Some(Departure::HandedOver)),
            (view(Some((b.clone(), 4, true)), &only_b), Some(Departure::HandedOver)),
            (view(Some((b.clone(), 5, false)), &both), Some(Departure::GivenUp)),
            (view(Some((b.clone(), 5, false)), &only_b), Some(Departure::Vanished)),
            (view(Some((a2.clone(), 4, true)), &[a2, b.clone()]), Some(Departure::Reclaimed)),
            (view(None, &both), Some(Departure::GivenUp)),
            (view(None, &only_b), Some(Departure::Vanished)),
            (view(Some((a.clone(), 3, false)), &only_b), None),
        ] {
            assert_eq!(Departure::seen(&led, &new), expected, "{new:?}");
        }
        assert_eq!(Departure::seen(&view(None, &both), &led), None, "nobody has left");
    }
}
