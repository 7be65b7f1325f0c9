//! What `driver/joining.rs` does with the join machine, step by step, with a crash between any two of them.

use metad::clock::Instant;
use metad::election::event::{Event as Heard, Joined};
use metad::election::history::{Ending, Reason};
use metad::election::lease::LeaseId;
use metad::election::record::Registration;
use metad::protocol::join::{Join, JoinFailure, JoinPlan, Next, Pin};
use metad::protocol::transactions::Answer;

use crate::simulation::clock::{MS, SEC};
use crate::simulation::host::Purpose;
use crate::simulation::invariants::Happened;
use crate::simulation::world::{Input, World};

/// How long the store may be away when a process starts.
const STORE_PATIENCE: u64 = 15 * SEC;
/// How long a silent holder of our node id is waited for.
const HOLDER_PATIENCE: u64 = 60 * SEC;
/// A ping without an answer, and the pause after it.
pub const HOLDER_LOOK: u64 = SEC;
/// The slowest disk.
const DISK_MAX: u64 = 20 * MS;

impl World {
    /// One try.
    pub fn join(&mut self, h: usize) {
        let plan = JoinPlan {
            keys: self.keys.clone(),
            registration: self.registration(h, LeaseId(0)),
            own_leases: self.hosts[h].disk.own_leases(),
            pin: self.hosts[h].disk.pin,
            wall_ms: self.now / MS,
        };
        let (join, next) = Join::start(plan);
        if let Some(p) = self.hosts[h].process.as_mut() {
            p.join = Some(join);
        }
        self.follow(h, next);
    }

    /// The store answered what the join had asked.
    pub fn join_answered(&mut self, h: usize, stamp: Instant, answer: &Answer) {
        let Some(join) = self.hosts[h].process.as_mut().and_then(|p| p.join.as_mut()) else { return };
        let next = join.answered(stamp, answer);
        self.follow(h, next);
    }

    /// The new lease's name is on disk.
    pub fn join_persisted(&mut self, h: usize) {
        let lease = LeaseId(0x1000 + i64::try_from(self.name()).unwrap_or(0));
        self.hosts[h].disk.next_lease(lease);
        let Some(join) = self.hosts[h].process.as_mut().and_then(|p| p.join.as_mut()) else { return };
        let next = join.persisted(lease);
        self.follow(h, next);
    }

    /// It worked, and the data dir knows.
    pub fn join_settled(&mut self, h: usize, joined: Joined, pin: Pin) {
        self.hosts[h].disk.settle(pin);
        let me = self.me(h);
        if joined.view.leader.tenure_of(&me, joined.lease).is_some() {
            self.tally.count("records reclaimed");
        }
        let pid = self.hosts[h].process.as_ref().map_or(0, |p| p.pid);
        self.moment.push(Happened::Joined { h, pid });
        self.feed(h, Some(Heard::Joined(joined)));
    }

    fn follow(&mut self, h: usize, next: Next) {
        if let (Next::Done(..) | Next::Failed(_), Some(p)) = (&next, self.hosts[h].process.as_mut()) {
            p.join = None;
        }
        match next {
            Next::Ask(request) => self.send(h, Purpose::Join, request),
            Next::Persist => self.on_disk(h, Input::Persisted),
            Next::Done(joined, pin) => self.on_disk(h, Input::Settled(Box::new(joined), pin)),
            Next::Failed(failure) => self.judge(h, failure),
        }
        if !self.calm && self.dice.percent(self.plan.join_crash) {
            self.tally.count("crashes inside a join");
            self.end(h, "crash inside a join");
        }
    }

    fn on_disk(&mut self, h: usize, done: Input) {
        let takes = self.dice.below(DISK_MAX);
        self.later(h, takes, done);
    }

    fn judge(&mut self, h: usize, failure: JoinFailure) {
        let ending = match failure {
            JoinFailure::Taken(holder) => return self.judge_holder(h, &holder),
            JoinFailure::Retry(why) => {
                self.trace(|| format!("n{h} join: {why}"));
                let Some(p) = self.hosts[h].process.as_ref() else { return };
                let running = p.has_joined || self.now < p.started + STORE_PATIENCE;
                (!running).then_some(Reason::StoreUnavailable)
            }
            JoinFailure::RolledBack => Some(Reason::DataDirStale),
            JoinFailure::Denied(_) => Some(Reason::StoreDenied),
            JoinFailure::Disk(_) => Some(Reason::DiskFailed),
            JoinFailure::StoreChanged(_) => Some(Reason::StoreChanged),
        };
        self.feed(h, Some(Heard::JoinFailed(ending.map(Ending::of))));
    }

    /// Another data dir is registered under our node id: it answers a ping, or it is waited for.
    fn judge_holder(&mut self, h: usize, holder: &Registration) {
        let at = self.hosts.iter().find(|host| host.disk.uuid == holder.member.uuid);
        let answers = at.and_then(|host| host.process.as_ref()).is_some_and(|p| !p.paused);
        let Some(p) = self.hosts[h].process.as_ref() else { return };
        if answers || self.now > p.join_began + HOLDER_PATIENCE {
            let ending = Ending::of(Reason::NodeIdInUse);
            return self.feed(h, Some(Heard::JoinFailed(Some(ending))));
        }
        self.later(h, HOLDER_LOOK, Input::JoinAgain);
    }
}
