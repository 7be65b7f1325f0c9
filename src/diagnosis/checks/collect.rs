//! Asks and measures: the facts that the checks judge. Everything here has a time limit.

mod elections;
pub mod etcd;
pub mod host;
pub mod meta;

use std::time::Duration;

/// How long one question may take.
pub const TIMEOUT: Duration = Duration::from_secs(3);

/// How thoroughly to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    /// How long to watch etcd's counters; zero: compare them with those of the last look.
    pub sample: Duration,
    /// May something be written: a key and a lease in etcd, a file in the data dir?
    pub writes: bool,
    /// How many reads to measure at each endpoint.
    pub reads: usize,
}

impl Depth {
    /// For a running node, every minute.
    pub const CHEAP: Depth = Depth { sample: Duration::ZERO, writes: false, reads: 5 };
}
