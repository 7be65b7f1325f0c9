//! Why leadership changed and why a member stops: closed sets, so that log, metric, exit code and page agree; and
//! the row that is kept of each tenure ([`row`]).

pub mod row;

use std::fmt;

use super::record::Token;

/// Why a tenure ended, or why a member stopped. A closed set: it labels metrics and is part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The time to believe in our lease ran out: no renewal was confirmed in time.
    RenewDeadline,
    /// The same, because the machine was suspended meanwhile.
    ClockSuspended,
    /// The lease was over before the main loop had started.
    LeaseExpired,
    /// The leader record is gone, and we did not delete it.
    RecordDeleted,
    /// The leader record names somebody else.
    Deposed,
    /// The store refused a write under our token.
    Fenced,
    /// A signal asked us to stop.
    ResignedSignal,
    /// An operator asked us to step down.
    ResignedRequest,
    /// A member of a higher priority is back, and ready.
    FailedBack,
    /// The main loop ended by itself.
    MainLoopEnded,
    /// The main loop gave no sign of life for longer than it may.
    MainLoopHung,
    /// Its probe had failed, and a healthy member was ready.
    ProbeFailed,
    /// The main loop could not be started in time, or was not warm yet when another member was.
    StartTimeout,
    /// The guardian died, or did not answer, while it looked after the program.
    GuardianLost,
    /// Another data dir is registered under our node id.
    NodeIdInUse,
    /// The store was not there when we started.
    StoreUnavailable,
    /// The store refused us: wrong credentials or missing permission.
    StoreDenied,
    /// The store is not the one this data dir belongs to.
    StoreChanged,
    /// The store knows a later start of this data dir: it was rolled back, or copied.
    DataDirStale,
    /// The data dir cannot be written.
    DiskFailed,
    /// The fuse ended the process at the end of its lease.
    Fuse,
    /// The kernel timer killed the process, which stood still at the end of its lease.
    KernelTimer,
    /// The guardian killed the process, which hung beyond the end of its lease.
    GuardianKill,
    /// Another member got the record, and the one before has not said why.
    HandedOver,
    /// The leader is gone without a word: killed, crashed, or cut off until its lease was over.
    Vanished,
}

/// How a member's life ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ending {
    /// Why.
    pub reason: Reason,
    /// The exit code of a main loop that ended by itself.
    pub main_loop_code: Option<i32>,
    /// What a person should know besides: who holds the node id, what the store said.
    pub detail: String,
}

/// A change that others may want to know of. Emitted once, by the elector.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Transition {
    /// We are registered and may lead.
    Joined,
    /// The candidate's lease was lost; we register again with a new one.
    Rejoining,
    /// The record is ours; the main loop is about to start.
    Won(Token),
    /// Our probe has failed, and we lead on, for this reason.
    LeadsOn(Token, &'static str),
    /// The main loop was told to stop.
    Stopping(Token, Reason),
    /// The record was given up.
    Resigned(Token),
    /// A claim was answered, and somebody else was faster.
    ClaimLost,
    /// A claim, its cancellation or a release has an unknown outcome; we read back.
    OutcomeUnknown,
}

// === impl Reason ===

impl Reason {
    /// All of them.
    pub const ALL: [Reason; 25] = [
        Reason::RenewDeadline,
        Reason::ClockSuspended,
        Reason::LeaseExpired,
        Reason::RecordDeleted,
        Reason::Deposed,
        Reason::Fenced,
        Reason::ResignedSignal,
        Reason::ResignedRequest,
        Reason::FailedBack,
        Reason::MainLoopEnded,
        Reason::MainLoopHung,
        Reason::ProbeFailed,
        Reason::StartTimeout,
        Reason::GuardianLost,
        Reason::NodeIdInUse,
        Reason::StoreUnavailable,
        Reason::StoreDenied,
        Reason::StoreChanged,
        Reason::DataDirStale,
        Reason::DiskFailed,
        Reason::Fuse,
        Reason::KernelTimer,
        Reason::GuardianKill,
        Reason::HandedOver,
        Reason::Vanished,
    ];

    /// The reason of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.as_str() == name)
    }

    /// The name in logs, labels and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::RenewDeadline => "renew_deadline",
            Reason::ClockSuspended => "clock_suspended",
            Reason::LeaseExpired => "lease_expired",
            Reason::RecordDeleted => "record_deleted",
            Reason::Deposed => "deposed",
            Reason::Fenced => "fenced",
            Reason::ResignedSignal => "resigned_signal",
            Reason::ResignedRequest => "resigned_request",
            Reason::FailedBack => "failed_back",
            Reason::MainLoopEnded => "main_loop_ended",
            Reason::MainLoopHung => "main_loop_hung",
            Reason::ProbeFailed => "probe_failed",
            Reason::StartTimeout => "start_timeout",
            Reason::GuardianLost => "guardian_lost",
            Reason::NodeIdInUse => "node_id_in_use",
            Reason::StoreUnavailable => "store_unavailable",
            Reason::StoreDenied => "store_denied",
            Reason::StoreChanged => "store_changed",
            Reason::DataDirStale => "data_dir_stale",
            Reason::DiskFailed => "disk_failed",
            Reason::Fuse => "fuse",
            Reason::KernelTimer => "kernel_timer",
            Reason::GuardianKill => "guardian_kill",
            Reason::HandedOver => "handed_over",
            Reason::Vanished => "vanished",
        }
    }

    /// What it means to an operator; `src/docs/history.md` lists it.
    pub fn meaning(self) -> &'static str {
        match self {
            Reason::RenewDeadline => "no renewal was confirmed in time",
            Reason::ClockSuspended => "the same, because the machine was suspended",
            Reason::LeaseExpired => "the lease was over before the main loop had started",
            Reason::RecordDeleted => {
                "the record was deleted externally, or etcd ended the lease. From a `successor`: the record \
                 was given up, and no reason has been reported (yet)"
            }
            Reason::Deposed => "the record names another member",
            Reason::Fenced => "the store refused a write: another member led",
            Reason::ResignedSignal => "SIGTERM or SIGINT",
            Reason::ResignedRequest => "`metad step-down`",
            Reason::FailedBack => "a member of a higher priority is back",
            Reason::MainLoopEnded => "the main loop, or the program, ended by itself",
            Reason::MainLoopHung => "it sent no heartbeat",
            Reason::ProbeFailed => "its probe failed, and a healthy member was ready",
            Reason::StartTimeout => {
                "it could not be started in time, or was not warm yet when another member was"
            }
            Reason::GuardianLost => "the guardian died, or did not answer, while it supervised the program",
            Reason::NodeIdInUse => "another data dir is registered under the node's id",
            Reason::StoreUnavailable => "the store did not answer at the start",
            Reason::StoreDenied => "the store refuses the credentials, or they lack a permission",
            Reason::StoreChanged => "the store went back in time, or is not the one of this data dir",
            Reason::DataDirStale => {
                "the store knows a later start of this data dir: it was rolled back, or copied"
            }
            Reason::DiskFailed => "the data dir cannot be written",
            Reason::Fuse => {
                "the process ended itself at the end of its lease, because nothing else in it worked"
            }
            Reason::KernelTimer => "the kernel killed it 20 ms later, because the whole process was stalled",
            Reason::GuardianKill => "its guardian killed it, later still",
            Reason::HandedOver => "another member got the record, and this one has not reported why (yet)",
            Reason::Vanished => {
                "it is gone without a report: killed, crashed, or cut off until its lease was over"
            }
        }
    }

    /// What to do about it.
    pub fn advice(self) -> &'static str {
        match self {
            Reason::RenewDeadline | Reason::LeaseExpired => {
                "find out what kept the renewals: the verdict in `metad history` names it; `metad doctor` shows slow \
                 disks, networks and CPUs. Raise `meta.meta_leader_lease_secs` if such stalls are to be survived"
            }
            Reason::ClockSuspended => {
                "keep this machine from suspending (`systemctl mask sleep.target`), or expect it"
            }
            Reason::RecordDeleted | Reason::Deposed => {
                "find out who writes below `election/` in the store: only metad may; `metad doctor --only LEADER_005`"
            }
            Reason::Fenced => {
                "nothing, if once: the fence has done its work. Else look for the reason of the loss"
            }
            Reason::ResignedSignal | Reason::ResignedRequest | Reason::HandedOver => "nothing: it was wanted",
            Reason::FailedBack => "nothing: it was wanted; `node.failback_delay_secs` sets whether and when",
            Reason::MainLoopEnded => "its exit code and its log say why it ended",
            Reason::MainLoopHung => {
                "its log says what it did last; `meta.main_loop_timeout_secs` is what it may take"
            }
            Reason::ProbeFailed => {
                "the detail says what was measured: run `meta.probe_command` by hand there, or look at the disk of \
                 `node.data_dir`"
            }
            Reason::StartTimeout => {
                "run the program by hand; `meta.start_timeout_secs` is what its start may take, \
                 `meta.warm_up_timeout_secs` how long a standby may take to be warm"
            }
            Reason::GuardianLost => {
                "see the kernel's log: was it killed for want of memory? Give the node more of it"
            }
            Reason::NodeIdInUse => "give each node an id of its own: `node.id`",
            Reason::StoreUnavailable => {
                "`metad doctor` says what answers at the store's address; start the store"
            }
            Reason::StoreDenied => "correct user, password or certificate of the store, or its permissions",
            Reason::StoreChanged => {
                "check the store's address. If it was restored or made anew on purpose, start once with \
                 `--accept-new-store`"
            }
            Reason::DataDirStale => {
                "delete the copy of the data dir; each node needs its own, and never an old one"
            }
            Reason::DiskFailed => "look at the disk of `node.data_dir`: full, read-only, or broken",
            Reason::Fuse | Reason::KernelTimer | Reason::GuardianKill => {
                "find out what hung in it: CPU (`metad doctor --only HOST_003`), memory, a disk; restart it"
            }
            Reason::Vanished => {
                "look at that node: its log, the kernel's (`journalctl -k`: killed for want of memory?), its machine"
            }
        }
    }

    /// Did somebody want it?
    pub fn is_planned(self) -> bool {
        self.is_wish() || self == Reason::HandedOver
    }

    /// Is it our own wish to give leadership up?
    fn is_wish(self) -> bool {
        matches!(self, Reason::ResignedSignal | Reason::ResignedRequest | Reason::FailedBack)
    }

    /// May we delete our record on the way out? Only by choice; a forced step-down touches nothing.
    pub fn gives_record_up(self) -> bool {
        let ours = matches!(
            self,
            Reason::MainLoopEnded
                | Reason::MainLoopHung
                | Reason::ProbeFailed
                | Reason::StartTimeout
                | Reason::GuardianLost
        );
        self.is_wish() || ours
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Ending ===

impl Ending {
    /// An ending with nothing more to say.
    pub fn of(reason: Reason) -> Self {
        Self { reason, main_loop_code: None, detail: String::new() }
    }

    /// An ending that a person needs more words for.
    pub fn with_detail(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, main_loop_code: None, detail: detail.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_found_by_its_name() {
        for reason in Reason::ALL {
            assert_eq!(Reason::parse(reason.as_str()), Some(reason));
        }
        assert_eq!(Reason::parse("because"), None);
    }
}
