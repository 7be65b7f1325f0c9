//! What `driver/joining.rs` does with the real join machine. Each request is a step of its own, so a crash falls
//! between any two; the disk is written in the step before, which a crash there makes no difference to.

use metad::clock::Instant;
use metad::election::event::{Event as Heard, Joined};
use metad::election::lease::LeaseId;
use metad::protocol::join::{Join, JoinFailure, JoinPlan, Next, Pin};
use metad::protocol::transactions::Answer;

use crate::model::driving::Run;
use crate::model::network::step_of;
use crate::model::scenario::Mutant;
use crate::model::world::{Purpose, keys};

impl Run<'_> {
    /// One try; none, once this data dir has used up its leases.
    pub fn join(&mut self, n: usize) {
        let node = &self.world.nodes[n];
        if node.disk.named >= self.plan.leases[n] {
            return;
        }
        let plan = JoinPlan {
            keys: keys(),
            registration: node.registration(LeaseId(0)),
            own_leases: node.disk.leases.clone(),
            pin: node.disk.seen.map(|revision| Pin { cluster: 1, revision }),
            wall_ms: 0,
        };
        let (join, next) = Join::start(plan);
        if let Some(p) = self.process(n) {
            p.join = Some(join);
        }
        self.follow(n, next);
    }

    /// The store answered what the join had asked.
    pub fn join_answered(&mut self, n: usize, stamp: Instant, answer: &Answer) {
        let Some(join) = self.process(n).and_then(|p| p.join.as_mut()) else { return };
        let next = join.answered(stamp, answer);
        self.follow(n, next);
    }

    fn follow(&mut self, n: usize, next: Next) {
        match next {
            Next::Ask(request) => self.send(n, Purpose::Join(step_of(&request)), Some(request)),
            Next::Persist => self.persist(n),
            Next::Done(joined, pin) => self.joined(n, joined, pin),
            Next::Failed(failure) => {
                self.leave_join(n);
                let honest = matches!(failure, JoinFailure::Retry(_));
                self.world.broken.honest_dir_refused |= !honest;
                self.feed(n, Some(Heard::JoinFailed(None)));
            }
        }
    }

    /// The disk knows the lease first, then the guardian, then the store.
    fn persist(&mut self, n: usize) {
        let adopts = self.plan.mutant == Mutant::AdoptedLease;
        let node = self.node(n);
        let old = node.disk.leases.last().copied().filter(|_| adopts && node.disk.incarnation.0 > 1);
        let lease = old.unwrap_or_else(|| {
            node.disk.named += 1;
            let lease = LeaseId((n as i64 + 1) * 0x10 + i64::from(node.disk.named));
            node.disk.leases.push(lease);
            lease
        });
        let Some(p) = node.process.as_mut() else { return };
        if let Some(guardian) = &mut p.guardian {
            guardian.leases.push(lease);
        }
        let Some(next) = p.join.as_mut().map(|j| j.persisted(lease)) else { return };
        self.follow(n, next);
    }

    fn joined(&mut self, n: usize, joined: Joined, pin: Pin) {
        self.leave_join(n);
        let node = self.node(n);
        node.disk.leases.retain(|l| *l == joined.lease);
        node.disk.seen = node.disk.seen.max(Some(pin.revision));
        let reclaimed = joined.view.leader.tenure_of(&node.me(), joined.lease).is_some();
        if let Some(p) = &mut node.process {
            p.reclaimed = reclaimed;
        }
        self.feed(n, Some(Heard::Joined(joined)));
    }

    fn leave_join(&mut self, n: usize) {
        if let Some(p) = self.process(n) {
            p.join = None;
        }
    }
}
