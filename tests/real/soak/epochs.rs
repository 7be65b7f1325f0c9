//! Decides from what the workers saw, and from etcd's own history, whether an epoch was lost, repeated or overtaken.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::fenced::{EpochWrite, Writes};

/// What one worker saw of one leader, from the opening of a stream to its end.
#[derive(Clone, Debug)]
pub struct Stretch {
    /// Which worker.
    pub worker: usize,
    /// The leader's token.
    pub token: u64,
    /// What happened, in order.
    pub seen: Vec<Seen>,
}

/// What happens to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It was given a barrier.
    Barrier {
        /// Its epoch.
        epoch: u64,
        /// The one before it; 0: it is the first one of its tenure.
        previous: u64,
    },
    /// It is about to say that it has collected this one.
    Collects(u64),
    /// It was told that this one is committed.
    Committed(u64),
}

/// What a check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epochs {
    /// How many epochs were committed.
    pub committed: usize,
    /// Under how many tokens.
    pub tokens: usize,
    /// How many workers saw one committed.
    pub workers: usize,
    /// How many barriers they were given in all.
    pub barriers: usize,
}

/// Checks all that was promised of epochs. `writes` was read after the workers had seen all of this.
///
/// - The committed epochs strictly grow, whoever leads.
/// - What a worker was told of commits is a piece of that very sequence, without a gap: so no two workers saw
///   different ones, and none was lost, repeated or overtaken on the way.
/// - Nothing was committed that a worker still had to collect.
/// - A worker misses no barrier of its leader, and a later leader's are above all that any worker ever saw.
/// - No barrier was above the ceiling that was written before it.
pub fn check(stretches: &[Stretch], writes: &Writes) -> Result<Epochs, String> {
    check_growth(&writes.committed)?;
    let place: BTreeMap<u64, usize> = writes.committed.iter().map(|c| c.epoch).zip(0..).collect();
    for stretch in stretches {
        let Stretch { worker, token, .. } = stretch;
        let named = |why| format!("worker {worker} under token {token}: {why}");
        check_commits(&stretch.seen, &place).map_err(named)?;
        check_barriers(&stretch.seen).map_err(named)?;
        check_collection(&stretch.seen).map_err(named)?;
    }
    check_tenures(stretches, &writes.ceilings)?;
    let told = stretches.iter().filter(|s| s.seen.iter().any(|seen| matches!(seen, Seen::Committed(_))));
    Ok(Epochs {
        committed: writes.committed.len(),
        tokens: writes.committed.iter().map(|c| c.token).collect::<BTreeSet<_>>().len(),
        workers: told.map(|s| s.worker).collect::<BTreeSet<_>>().len(),
        barriers: stretches.iter().map(|s| barriers(&s.seen).count()).sum(),
    })
}

fn check_growth(committed: &[EpochWrite]) -> Result<(), String> {
    match committed.windows(2).find(|pair| pair[0].epoch >= pair[1].epoch) {
        Some(pair) => Err(format!("{:?} was committed after {:?}", pair[1], pair[0])),
        None => Ok(()),
    }
}

/// A stream begins with the newest commit, unless there is none yet.
fn check_commits(seen: &[Seen], place: &BTreeMap<u64, usize>) -> Result<(), String> {
    let begins_told = matches!(seen.first(), None | Some(Seen::Committed(_)));
    let mut next = (!begins_told).then_some(0);
    for s in seen {
        let Seen::Committed(epoch) = s else { continue };
        let Some(at) = place.get(epoch) else { return Err(format!("{epoch} was announced, not written")) };
        if let Some(expected) = next.filter(|expected| expected != at) {
            return Err(format!("{epoch}, commit {at}, was announced instead of commit {expected}"));
        }
        next = Some(at + 1);
    }
    Ok(())
}

fn barriers(seen: &[Seen]) -> impl Iterator<Item = (u64, u64)> {
    seen.iter().filter_map(|s| match s {
        Seen::Barrier { epoch, previous } => Some((*epoch, *previous)),
        _ => None,
    })
}

fn check_barriers(seen: &[Seen]) -> Result<(), String> {
    let mut last = None;
    for (epoch, previous) in barriers(seen) {
        if last.is_some_and(|last| last != previous) || previous >= epoch {
            return Err(format!("barrier {epoch} names {previous} before it; it came after {last:?}"));
        }
        last = Some(epoch);
    }
    Ok(())
}

/// A worker that joined later had no part in a commit.
fn check_collection(seen: &[Seen]) -> Result<(), String> {
    let mut uncollected = BTreeSet::new();
    for s in seen {
        match s {
            Seen::Barrier { epoch, .. } => {
                uncollected.insert(*epoch);
            }
            Seen::Collects(epoch) => {
                uncollected.remove(epoch);
            }
            Seen::Committed(epoch) if uncollected.contains(epoch) => {
                return Err(format!("{epoch} was committed before this worker had collected it"));
            }
            Seen::Committed(_) => {}
        }
    }
    Ok(())
}

fn check_tenures(stretches: &[Stretch], ceilings: &[EpochWrite]) -> Result<(), String> {
    let mut tenures: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for stretch in stretches {
        for (epoch, _) in barriers(&stretch.seen) {
            let (least, most) = tenures.entry(stretch.token).or_insert((epoch, epoch));
            (*least, *most) = ((*least).min(epoch), (*most).max(epoch));
        }
    }
    let mut highest = (0, 0);
    for (token, (least, most)) in tenures {
        if least <= highest.1 {
            return Err(format!(
                "token {token} began with {least}; token {} had come to {}",
                highest.0, highest.1
            ));
        }
        let ceiling = ceilings.iter().filter(|c| c.token <= token).map(|c| c.epoch).max();
        if ceiling.is_none_or(|ceiling| most > ceiling) {
            return Err(format!("barrier {most} under token {token} is above the ceiling {ceiling:?}"));
        }
        highest = (token, most);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(token: u64, epoch: u64) -> EpochWrite {
        EpochWrite { token, epoch }
    }

    fn barrier(epoch: u64, previous: u64) -> Seen {
        Seen::Barrier { epoch, previous }
    }

    /// Two leaders, two workers; the second one joins late.
    fn fine() -> (Vec<Stretch>, Writes) {
        use Seen::{Collects, Committed};
        let first =
            vec![barrier(10, 0), Collects(10), barrier(20, 10), Committed(10), Collects(20), Committed(20)];
        let late = vec![Committed(10), barrier(20, 10), Collects(20), Committed(20)];
        let next = vec![Committed(20), barrier(60, 0), Collects(60), Committed(60)];
        let stretch = |worker, token, seen| Stretch { worker, token, seen };
        let committed = vec![write(1, 10), write(1, 20), write(5, 60)];
        let ceilings = vec![write(1, 50), write(5, 90)];
        let writes = Writes { committed, ceilings, ..Writes::default() };
        (
            vec![stretch(0, 1, first), stretch(1, 1, late), stretch(0, 5, next.clone()), stretch(1, 5, next)],
            writes,
        )
    }

    #[track_caller]
    fn refused(spoil: impl FnOnce(&mut Vec<Stretch>, &mut Writes), why: &str) {
        let (mut stretches, mut writes) = fine();
        spoil(&mut stretches, &mut writes);
        let error = check(&stretches, &writes).expect_err("it was spoilt");
        assert!(error.contains(why), "{error}");
    }

    #[test]
    fn what_is_promised_is_accepted_and_counted() {
        let (stretches, writes) = fine();
        let epochs = Epochs { committed: 3, tokens: 2, workers: 2, barriers: 5 };
        assert_eq!(check(&stretches, &writes), Ok(epochs));
    }

    #[test]
    fn a_lost_a_repeated_and_an_overtaken_commit_are_refused() {
        refused(|_, writes| writes.committed.truncate(1), "20 was announced, not written");
        refused(
            |stretches, _| stretches[0].seen.retain(|s| *s != Seen::Committed(10)),
            "instead of commit 0",
        );
        refused(|stretches, _| stretches[0].seen.insert(4, Seen::Committed(10)), "instead of commit 1");
        refused(|stretches, _| stretches[2].seen[0] = Seen::Committed(10), "instead of commit 1");
        refused(|_, writes| writes.committed.swap(0, 1), "was committed after");
        refused(|_, writes| writes.committed[1].epoch = 10, "was committed after");
    }

    #[test]
    fn a_commit_before_the_collection_is_refused() {
        refused(|stretches, _| stretches[0].seen.swap(4, 5), "before this worker had collected");
    }

    #[test]
    fn a_missed_barrier_is_refused() {
        refused(|stretches, _| stretches[0].seen[2] = barrier(20, 15), "names 15 before it");
    }

    #[test]
    fn a_leader_that_begins_below_its_predecessor_or_above_its_ceiling_is_refused() {
        refused(|stretches, _| stretches[3].seen[1] = barrier(15, 0), "token 5 began with 15");
        refused(|_, writes| writes.ceilings.truncate(1), "above the ceiling");
    }
}
