//! The guardian: a small process that outlives ours, kills what we leave behind, and only then frees our record.
//!
//! It runs in a session of its own and watches us by pidfd. It is the parent of the program that runs as the
//! main loop, and a subreaper, so that nothing of that program's tree can get away from it.
//!
//! - We die: it kills the program's tree at once, and when nothing of it is left it revokes our lease, so that
//!   another member leads in milliseconds, whatever the lease. Kill first, revoke after, never the reverse.
//! - We hang: at `H − B/4` it kills the tree. It reads the deadlines in a page of memory that we share ([`horizon`]),
//!   so there is no message that could be late. Our kernel timer kills us at `H + 20 ms`; its own kill comes last.
//! - It hangs, or is stopped, while a program runs: at `H − B/8` its kernel timer ([`kernel_timer`]) kills it, and the
//!   program dies with it (parent-death signal). Long before, we miss its answers to our pings.
//! - It dies, or does not answer: we start another one. A program that it looked after is ended first, and leadership
//!   is handed over (`guardian_lost`); what is left of the program's tree is ours to kill.
//!
//! It must not renew, campaign, restart anything, or outlive its task. It knows the lease before it is granted.
//!
//! Not covered: main process and guardian killed in the same instant, or both stopped until they are. Then the program
//! is ended by its parent-death signal and the record by the lease; grandchildren are ended only by a cgroup (systemd's
//! `KillMode=control-group`).

#[cfg(feature = "node")]
mod channel;
#[cfg(feature = "node")]
mod child;
#[cfg(feature = "node")]
pub mod dependent;
#[cfg(feature = "node")]
pub mod exit_report;
#[cfg(feature = "node")]
mod fate;
pub mod horizon;
#[cfg(feature = "node")]
pub mod init;
#[cfg(feature = "node")]
pub mod keeper;
pub mod kernel_timer;
#[cfg(feature = "node")]
mod link;
#[cfg(feature = "node")]
mod process;
#[cfg(feature = "node")]
mod program;
#[cfg(feature = "node")]
mod promotion;
#[cfg(feature = "node")]
mod revoke;
pub mod rules;
#[cfg(feature = "node")]
mod run;
#[cfg(feature = "node")]
pub mod sidecar;
#[cfg(feature = "node")]
mod signals;
#[cfg(feature = "node")]
pub mod tree;

use crate::election::lease::LeaseId;

#[cfg(feature = "node")]
pub use channel::{Program, Refused};
#[cfg(feature = "node")]
pub use child::{Guardian, GuardianPlan, NoGuardian, RunError};
#[cfg(feature = "node")]
pub use process::run_if_asked;
#[cfg(feature = "node")]
pub use program::{check_length, look_for};

/// What a member tells its guardian, whichever it is at the moment.
pub trait Guardianship: Send + Sync + 'static {
    /// The name of a lease, before the store hears of it.
    fn tell_lease(&self, lease: LeaseId);

    /// Only this cluster's answers count: nothing that another one says about a lease does.
    fn tell_pinned(&self, cluster: u64);

    /// The deadlines have moved, or have just begun to count. Without a program it need not know each time: it looks at
    /// the page when they were due.
    fn tell_moved(&self, begun: bool);

    /// Was it ever told of a lease?
    fn knows_a_lease(&self) -> bool;

    /// Everything is given back.
    fn dismiss(&self);
}

/// Two guardians of one member: each is told everything.
pub struct Both<A, B>(pub A, pub B);

impl<A: Guardianship, B: Guardianship> Guardianship for Both<A, B> {
    fn tell_lease(&self, lease: LeaseId) {
        self.0.tell_lease(lease);
        self.1.tell_lease(lease);
    }

    fn tell_pinned(&self, cluster: u64) {
        self.0.tell_pinned(cluster);
        self.1.tell_pinned(cluster);
    }

    fn tell_moved(&self, begun: bool) {
        self.0.tell_moved(begun);
        self.1.tell_moved(begun);
    }

    fn knows_a_lease(&self) -> bool {
        self.0.knows_a_lease() || self.1.knows_a_lease()
    }

    fn dismiss(&self) {
        self.0.dismiss();
        self.1.dismiss();
    }
}
