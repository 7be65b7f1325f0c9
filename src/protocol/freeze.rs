//! An operator's order to freeze or unfreeze the election, and the end of a freeze that ends by itself.

use std::time::Duration;

use super::transactions;
use crate::clock::Instant;
use crate::election::record::{Freeze, Revision, View};
use crate::store::Txn;
use crate::store::codec::Keys;

/// What an operator asks for.
#[derive(Clone, Debug)]
pub enum FreezeOrder {
    /// Freeze the election.
    Freeze {
        /// The freeze.
        freeze: Freeze,
        /// Also in the place of another freeze?
        replaces: bool,
    },
    /// End the freeze.
    Unfreeze,
}

/// When a freeze ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FreezeEnd {
    /// We saw it come: our boot clock counts its time, whatever the wall clocks say.
    Boot(Instant),
    /// It was there when we came: only the wall clock knows when it began.
    WallMs(u64),
}

/// A freeze that ends by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndingFreeze {
    /// The revision that it was written at.
    pub written: Revision,
    /// Why the election was frozen.
    pub reason: String,
    due: FreezeEnd,
}

// === impl FreezeOrder ===

impl FreezeOrder {
    /// What to write where the election was last frozen or unfrozen at `changed` (0: never).
    pub fn txn(&self, keys: &Keys, changed: Revision) -> Txn {
        match self {
            Self::Freeze { freeze, .. } => transactions::freeze(keys, freeze, changed),
            Self::Unfreeze => transactions::unfreeze(keys, changed),
        }
    }

    /// May it not be carried out while there is another freeze?
    pub fn is_refused_by_another(&self) -> bool {
        matches!(self, Self::Freeze { replaces: false, .. })
    }

    /// Is it carried out, where this was found?
    pub fn is_done(&self, found: Option<&Freeze>) -> bool {
        match self {
            Self::Freeze { freeze, .. } => found == Some(freeze),
            Self::Unfreeze => found.is_none(),
        }
    }
}

// === impl EndingFreeze ===

impl EndingFreeze {
    /// The end of the freeze in this view. `has_seen`: was there a view before it, which did not show this freeze?
    pub fn of(known: Option<Self>, view: &View, has_seen: bool, now: Instant) -> Option<Self> {
        let (freeze, written) = view.freeze.as_ref()?;
        if let Some(known) = known.filter(|known| known.written == *written) {
            return Some(known);
        }
        let until_ms = freeze.until_ms?;
        let due = match has_seen {
            true => FreezeEnd::Boot(now + Duration::from_millis(until_ms.saturating_sub(freeze.since_ms))),
            false => FreezeEnd::WallMs(until_ms),
        };
        Some(Self { written: *written, reason: freeze.reason.clone(), due })
    }

    /// How long it still lasts. Zero: it is to be ended.
    pub fn left(&self, now: Instant, wall_ms: u64) -> Duration {
        match self.due {
            FreezeEnd::Boot(at) => now.until(at),
            FreezeEnd::WallMs(at) => Duration::from_millis(at.saturating_sub(wall_ms)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(freeze: Option<(Freeze, Revision)>) -> View {
        View { revision: Revision(9), freeze, ..View::default() }
    }

    fn freeze(written: u64) -> Option<(Freeze, Revision)> {
        let freeze = Freeze { reason: "r".into(), by: "b".into(), since_ms: 5_000, until_ms: Some(65_000) };
        Some((freeze, Revision(written)))
    }

    fn at(secs: u64) -> Instant {
        Instant::from_millis(secs * 1_000)
    }

    #[test]
    fn a_freeze_that_is_seen_to_come_ends_by_the_boot_clock_alone() {
        let ends = EndingFreeze::of(None, &view(freeze(7)), true, at(100)).expect("it ends");
        let a_day_ahead = 86_400_000;
        assert_eq!(ends.left(at(159), a_day_ahead), Duration::from_secs(1));
        assert_eq!(ends.left(at(160), 0), Duration::ZERO, "nor does a slow one keep it");
        // Another view of the same freeze does not begin it anew; another freeze does.
        let ends = EndingFreeze::of(Some(ends), &view(freeze(7)), true, at(150)).expect("it ends");
        assert_eq!(ends.due, FreezeEnd::Boot(at(160)));
        let ends = EndingFreeze::of(Some(ends), &view(freeze(8)), true, at(150)).expect("it ends");
        assert_eq!(ends.due, FreezeEnd::Boot(at(210)));
        assert!(EndingFreeze::of(Some(ends), &view(None), true, at(151)).is_none(), "unfrozen");
    }

    #[test]
    fn a_freeze_that_was_there_before_ends_by_the_wall_clock() {
        let ends = EndingFreeze::of(None, &view(freeze(7)), false, at(100)).expect("it ends");
        assert_eq!(ends.left(at(1_000), 64_000), Duration::from_secs(1));
        assert_eq!(ends.left(at(100), 65_000), Duration::ZERO);
    }

    #[test]
    fn a_freeze_without_an_end_never_ends_by_itself() {
        let (mut forever, written) = freeze(7).expect("one");
        forever.until_ms = None;
        assert!(EndingFreeze::of(None, &view(Some((forever, written))), true, at(100)).is_none());
    }
}
