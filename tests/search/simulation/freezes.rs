//! An operator who freezes and unfreezes the election, and whose writes arrive twice.

use metad::election::record::{Freeze, Revision};
use metad::protocol::transactions;
use metad::store::{Request, Response, Txn};

use crate::simulation::faults::OPERATOR;
use crate::simulation::network::{From, What};
use crate::simulation::world::{Event, World};

/// In the year 2100: only the members' boot clocks end a freeze here, for the wall clock is that of the machine.
const UNTIL_MS: u64 = 4_102_444_800_000;

impl World {
    /// Freezes the election, or ends the freeze that there is.
    pub fn freeze_or_unfreeze(&mut self) {
        if self.is_frozen() {
            return self.unfreeze();
        }
        let lasts_ms = self.dice.percent(50).then(|| self.dice.below(4 * self.plan.ttl.as_millis() as u64));
        let since_ms = UNTIL_MS - lasts_ms.unwrap_or_default();
        let until_ms = lasts_ms.map(|_| UNTIL_MS);
        let freeze = Freeze { reason: "r".into(), by: "b".into(), since_ms, until_ms };
        let (keys, changed) = (self.keys.clone(), self.control_changed());
        self.operator_frozen = true;
        self.tally.count("freezes");
        self.operate(transactions::freeze(&keys, &freeze, changed));
    }

    /// Ends the freeze, or sees to it that none on its way comes to be.
    pub fn unfreeze(&mut self) {
        let (keys, changed) = (self.keys.clone(), self.control_changed());
        self.operator_frozen = false;
        self.operate(transactions::unfreeze(&keys, changed));
    }

    /// Is there a freeze in the store?
    pub fn is_frozen(&self) -> bool {
        self.store.state.get(&self.keys.control()).is_some()
    }

    /// A second copy of what an operator has sent.
    pub fn late_copy(&mut self, txn: Txn) {
        self.tally.count("late copies of a freeze");
        let _ = self.apply(&Request::Txn(txn), &What::Other, OPERATOR);
    }

    /// What the freeze did to this request: the twins of what it must not do.
    pub fn tally_freeze(&mut self, before: Option<Revision>, was_frozen: bool, from: From) {
        if !was_frozen {
            return;
        }
        match (before, self.record()) {
            (Some(_), None) => self.tally.count("vacancies in a freeze"),
            (Some(old), Some(new)) if old != new => self.tally.count("records moved in a freeze"),
            _ => {}
        }
        if !self.is_frozen() && matches!(from, From::Process(..)) {
            self.tally.count("freezes ended by their time");
        }
    }

    fn control_changed(&mut self) -> Revision {
        let read = Request::Txn(transactions::read_control(&self.keys));
        match self.apply(&read, &What::Other, OPERATOR) {
            Ok(Response::Txn(reply)) => transactions::control(&self.keys, &reply).1,
            other => panic!("a read of the store in memory: {other:?}"),
        }
    }

    fn operate(&mut self, txn: Txn) {
        let _ = self.apply(&Request::Txn(txn.clone()), &What::Other, OPERATOR);
        let after = self.dice.below(6 * self.plan.ttl_ns());
        self.push(after, Event::LateCopy(Box::new(txn)));
    }
}
