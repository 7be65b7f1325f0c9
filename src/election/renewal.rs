//! When to renew, and which acks count.
//!
//! An ack is not yet evidence: a paused etcd leader acknowledges renewals of leases that its successor has
//! revoked (measured on 3.4.23; etcd-io/etcd#15247). So each ack waits here until a linearizable read that
//! *began after it* returned with the same raft term (`src/docs/protocol.md`, Lemma V). An ack whose term is
//! lower than the highest seen is refused at once.

use std::collections::VecDeque;
use std::time::Duration;

use super::event::ReadId;
use super::lease::LeaseTiming;
use crate::clock::Instant;

/// How many acks may wait for their read; beyond it the oldest, which would help least, is dropped.
const PENDING_ACKS_MAX: usize = 64;

/// An ack that waits for its validation, or has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ack {
    /// Taken before the renewal left.
    pub stamp: Instant,
    /// The granted time to live.
    pub ttl: Duration,
    raft_term: u64,
    /// The first read that began after this ack arrived.
    read: ReadId,
}

/// The renewals of one lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Renewal {
    due_at: Instant,
    sent_at: Instant,
    raft_term: u64,
    next_read: ReadId,
    pending: VecDeque<Ack>,
    /// The read that was begun for an ack and is under way, and since when.
    reading: Option<(ReadId, Instant)>,
    /// Did an ack arrive meanwhile?
    is_read_owed: bool,
}

impl Renewal {
    /// A new lease was granted at `stamp`.
    pub fn restart(&mut self, stamp: Instant, cadence: Duration, raft_term: u64) {
        self.due_at = stamp + cadence;
        self.sent_at = stamp;
        self.raft_term = self.raft_term.max(raft_term);
        self.pending.clear();
        self.reading = None;
        self.is_read_owed = false;
    }

    /// When the next attempt is due.
    pub fn due_at(&self) -> Instant {
        self.due_at
    }

    /// An attempt leaves now. Until it is answered, the next follows after the retry cadence.
    pub fn sent(&mut self, now: Instant, timing: LeaseTiming) {
        self.sent_at = now;
        self.due_at = now + timing.retry_cadence();
    }

    /// The next attempt is due at once.
    pub fn hurry(&mut self, now: Instant) {
        self.due_at = self.due_at.earlier(now);
    }

    /// An attempt was answered: the next is due a whole cadence after the last one left.
    pub fn answered(&mut self, cadence: Duration) {
        self.due_at = self.sent_at + cadence;
    }

    /// Takes in an ack; `false` if its raft term shows that it comes from a deposed etcd leader.
    pub fn acked(&mut self, stamp: Instant, ttl: Duration, raft_term: u64) -> bool {
        if raft_term < self.raft_term {
            return false;
        }
        self.raft_term = raft_term;
        if self.pending.len() == PENDING_ACKS_MAX {
            self.pending.pop_front();
        }
        self.pending.push_back(Ack { stamp, ttl, raft_term, read: self.next_read });
        true
    }

    /// Numbers a read that begins now.
    pub fn begin_read(&mut self) -> ReadId {
        let id = self.next_read;
        self.next_read.0 += 1;
        id
    }

    /// Numbers a read for an answer that arrived now. `None`: one is under way; one more follows it for all that have
    /// arrived until then, because after a stall they come by the dozen. One that takes longer than `timeout` may be
    /// lost, and is not waited for.
    pub fn begin_read_for_answer(&mut self, now: Instant, timeout: Duration) -> Option<ReadId> {
        self.is_read_owed = self.reading.is_some_and(|(_, since)| now.since(since) < timeout);
        if self.is_read_owed {
            return None;
        }
        let id = self.begin_read();
        self.reading = Some((id, now));
        Some(id)
    }

    /// A read has ended, well or badly; `true`: another one is owed.
    pub fn read_ended(&mut self, id: ReadId) -> bool {
        if self.reading.is_none_or(|(under_way, _)| under_way > id) {
            return false;
        }
        self.reading = None;
        std::mem::take(&mut self.is_read_owed)
    }

    /// The acks that this read is the validation of. Those of an older term can never be validated any more.
    pub fn validated(&mut self, id: ReadId, raft_term: u64) -> Vec<Ack> {
        self.raft_term = self.raft_term.max(raft_term);
        let highest = self.raft_term;
        let good =
            self.pending.iter().filter(|a| a.read <= id && a.raft_term == raft_term).copied().collect();
        self.pending.retain(|a| a.raft_term >= highest && !(a.read <= id && a.raft_term == raft_term));
        good
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(10);

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    #[test]
    fn an_ack_counts_only_after_a_read_that_began_after_it() {
        let mut r = Renewal::default();
        let before = r.begin_read();
        assert!(r.acked(at(1), TTL, 3));
        let after = r.begin_read();
        assert!(r.validated(before, 3).is_empty());
        assert_eq!(r.validated(after, 3).len(), 1);
        assert!(r.validated(after, 3).is_empty(), "and only once");
    }

    #[test]
    fn answers_that_arrive_together_are_validated_by_two_reads() {
        let (mut r, timeout) = (Renewal::default(), Duration::from_millis(100));
        let mut reads = Vec::new();
        for i in 0..80 {
            assert!(r.acked(at(i), TTL, 3));
            reads.extend(r.begin_read_for_answer(at(1_000 + i), timeout));
        }
        assert_eq!(reads.len(), 1, "the first ack is read for at once");
        assert_eq!(r.validated(reads[0], 3).len(), 0, "it was dropped for a better one");
        assert!(r.read_ended(reads[0]));
        let last = r.begin_read_for_answer(at(1_090), timeout).expect("nothing is under way");
        assert_eq!(r.validated(last, 3).len(), PENDING_ACKS_MAX);
        assert!(!r.read_ended(last), "nothing has arrived since");
        let lost = r.begin_read_for_answer(at(2_000), timeout);
        assert!(lost.is_some() && r.begin_read_for_answer(at(2_100), timeout).is_some(), "a lost one");
    }

    #[test]
    fn an_ack_and_its_read_must_be_of_one_raft_term() {
        let mut r = Renewal::default();
        assert!(r.acked(at(1), TTL, 3));
        let id = r.begin_read();
        assert!(r.validated(id, 4).is_empty(), "the term has moved on in between");
        assert!(!r.acked(at(2), TTL, 3), "an ack of the old leader is refused");
        assert!(r.acked(at(2), TTL, 4), "one of the new leader is not");
    }

    #[test]
    fn unanswered_attempts_follow_each_other_faster() {
        let (mut r, timing) = (Renewal::default(), LeaseTiming::new(TTL));
        r.sent(at(1_000), timing);
        assert_eq!(r.due_at(), at(1_100));
        r.answered(timing.leader_cadence());
        assert_eq!(r.due_at(), at(1_500));
    }
}
