//! Why the process ended, as a number that a supervisor understands. The one place that knows these numbers.

use super::history::{Ending, Reason};

/// The exit codes (sysexits(3) where there is one). Part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Exit {
    /// Stopped by SIGTERM or SIGINT, everything given back.
    Stopped,
    /// The command line is wrong.
    Usage,
    /// The store was not there at the start.
    StoreUnavailable,
    /// A bug, or a panic of the main loop.
    Internal,
    /// The data dir or the node id is in use.
    InUse,
    /// The disk.
    Io,
    /// Leadership was lost, or handed over on request: restart me.
    LeadershipLost,
    /// The fuse ended the process at `H`.
    Fuse,
    /// The store refuses us.
    Denied,
    /// The configuration is wrong, or names another store than the data dir belongs to.
    Config,
    /// The program ended by itself; its code is ours.
    MainLoop(i32),
}

/// All codes but that of the main loop, with what they mean; the README lists them.
pub const EXITS: [(Exit, &str); 10] = [
    (Exit::Stopped, "stopped by SIGTERM or SIGINT"),
    (Exit::Usage, "invalid command line"),
    (Exit::StoreUnavailable, "store unreachable at start"),
    (Exit::Internal, "internal error, such as a panic; or out of threads or memory"),
    (Exit::InUse, "data dir, node id or port in use"),
    (Exit::Io, "I/O error"),
    (Exit::LeadershipLost, "leadership lost, or handed over on request: restart me"),
    (Exit::Fuse, "the fuse ended a process that could not stop in time: restart me"),
    (Exit::Denied, "the store refuses the credentials"),
    (Exit::Config, "invalid configuration, or not the store that this data dir belongs to"),
];

// === impl Exit ===

impl Exit {
    /// The number.
    pub const fn code(self) -> i32 {
        match self {
            Exit::Stopped => 0,
            Exit::Usage => 64,
            Exit::StoreUnavailable => 69,
            Exit::Internal => 70,
            Exit::InUse => 73,
            Exit::Io => 74,
            Exit::LeadershipLost => 75,
            Exit::Fuse => 76,
            Exit::Denied => 77,
            Exit::Config => 78,
            Exit::MainLoop(code) => code,
        }
    }

    /// The exit that an ending leads to.
    pub fn of(ending: &Ending) -> Self {
        match ending.reason {
            Reason::ResignedSignal => Exit::Stopped,
            Reason::MainLoopEnded => ending.main_loop_code.map_or(Exit::LeadershipLost, Exit::MainLoop),
            Reason::NodeIdInUse => Exit::InUse,
            Reason::StoreUnavailable => Exit::StoreUnavailable,
            Reason::StoreDenied => Exit::Denied,
            Reason::StoreChanged => Exit::Config,
            Reason::DiskFailed => Exit::Io,
            Reason::Fuse => Exit::Fuse,
            Reason::RenewDeadline
            | Reason::ClockSuspended
            | Reason::KernelTimer
            | Reason::GuardianKill
            | Reason::HandedOver
            | Reason::Vanished
            | Reason::LeaseExpired
            | Reason::RecordDeleted
            | Reason::Deposed
            | Reason::Fenced
            | Reason::ResignedRequest
            | Reason::FailedBack
            | Reason::MainLoopHung
            | Reason::ProbeFailed
            | Reason::StartTimeout
            | Reason::GuardianLost
            | Reason::DataDirStale => Exit::LeadershipLost,
        }
    }
}
