//! Epochs: the numbers of barriers, made of wall time but ordered without it.
//!
//! This file must not know barriers.

use std::fmt;

/// How far the milliseconds are shifted: room for 65,536 epochs in each of them.
const SHIFT: u32 = 16;
/// Wall time counts up to here (the year 4199), so that an epoch can always grow, whatever a clock said once.
const WALL_MS_MAX: u64 = (1 << 46) - 1;

/// The number of a barrier: the milliseconds since the Unix epoch when it was injected, times 65,536, or one
/// more than its predecessor if that is greater. 0: none yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Epoch(u64);

// === impl Epoch ===

impl Epoch {
    /// No epoch yet.
    pub const NONE: Self = Self(0);

    /// The epoch with this number; `None` from 2⁶³ on, which none ever has.
    pub const fn new(number: u64) -> Option<Self> {
        if number >> 63 == 0 { Some(Self(number)) } else { None }
    }

    /// The first epoch of a millisecond since the Unix epoch.
    pub const fn of_wall_ms(ms: u64) -> Self {
        Self(if ms < WALL_MS_MAX { ms << SHIFT } else { WALL_MS_MAX << SHIFT })
    }

    /// Its number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The millisecond since the Unix epoch that it stands for; for display.
    pub const fn wall_ms(self) -> u64 {
        self.0 >> SHIFT
    }

    /// So many epochs later.
    pub(in crate::meta) const fn plus(self, epochs: u64) -> Self {
        Self(self.0.saturating_add(epochs))
    }

    /// So many milliseconds later.
    pub(in crate::meta) const fn plus_ms(self, ms: u64) -> Self {
        self.plus(ms << SHIFT)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
