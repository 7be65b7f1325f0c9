//! Do all endpoints belong to one store, and is it ours?
//!
//! The first join pins the store's cluster id, in the data dir and for every later answer. Endpoints of two clusters are
//! two stores, each of which would elect a leader: so nobody joins while they differ. A first join waits until more than
//! half of the endpoints have answered, lest the one stray among them is the only one to answer and is pinned: two nodes
//! with the same endpoints can then not pin two clusters. A node that has joined needs no such care: it is pinned, and
//! a stray is for it an endpoint that does not answer.

use std::collections::BTreeSet;

use super::Shared;
use crate::protocol::join::{JoinFailure, Pin, another_store};
use crate::protocol::transactions;
use crate::store::ask;
use crate::store::places::Belongs;

/// What the endpoints say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// They are of this cluster, as far as they answer.
    Agree(u64),
    /// Nobody answers.
    Silent,
    /// Too few answer to tell.
    TooFew(String),
    /// They are of several clusters.
    Differ(String),
    /// They are of another cluster than the pinned one.
    Another(u64),
}

/// Judges what the endpoints of a store have said.
pub(super) fn judge(pinned: Option<u64>, looks: &[Belongs]) -> Finding {
    let answers: Vec<u64> = looks.iter().filter_map(|l| l.cluster).collect();
    let clusters: BTreeSet<u64> = answers.iter().copied().collect();
    let most = answers.len() * 2 > looks.len();
    match (clusters.first(), pinned) {
        (None, _) => Finding::Silent,
        _ if clusters.len() > 1 => Finding::Differ(list(looks)),
        (Some(cluster), Some(pinned)) if *cluster == pinned => Finding::Agree(pinned),
        (Some(cluster), None) if most => Finding::Agree(*cluster),
        (Some(cluster), Some(_)) if most => Finding::Another(*cluster),
        _ => Finding::TooFew(list(looks)),
    }
}

fn list(looks: &[Belongs]) -> String {
    let name = |l: &Belongs| match l.cluster {
        Some(cluster) => format!("{} belongs to {cluster:016x}", l.place),
        None => format!("{} does not report its cluster", l.place),
    };
    looks.iter().map(name).collect::<Vec<_>>().join(", ")
}

/// Looks at the endpoints before a join, and pins their cluster.
pub(super) async fn agree(shared: &Shared, pin: Option<Pin>) -> Result<(), JoinFailure> {
    let looks = shared.places.clusters().await;
    if looks.is_empty() {
        return Ok(()); // a store in one place
    }
    let pinned = pin.map(|p| p.cluster);
    let ours = match (judge(pinned, &looks), pinned) {
        (Finding::Agree(cluster), _) => cluster,
        (Finding::Differ(_), Some(cluster)) if shared.has_joined() => cluster,
        (Finding::Differ(which), _) => return Err(JoinFailure::StoreChanged(differ(&which))),
        (Finding::Another(cluster), pinned) => {
            return Err(JoinFailure::StoreChanged(another_store(pinned.unwrap_or(cluster), cluster)));
        }
        (Finding::TooFew(which), _) => return Err(JoinFailure::Retry(too_few(&which))),
        (Finding::Silent, _) => return Err(silent(shared).await),
    };
    shared.pin(ours);
    Ok(())
}

/// The store's own words for why nobody answers: refused, wrong certificate, no leader.
async fn silent(shared: &Shared) -> JoinFailure {
    match ask(shared.store.as_ref(), transactions::read(&shared.keys)).await {
        Ok(_) => JoinFailure::Retry("no endpoint has reported its cluster".into()),
        Err(e) => {
            shared.trouble.report("join", &e);
            JoinFailure::of(&e)
        }
    }
}

fn differ(which: &str) -> String {
    format!(
        "the endpoints belong to different etcd clusters: {which}; keep the endpoints of only one in \
         store.etcd.endpoints"
    )
}

fn too_few(which: &str) -> String {
    format!(
        "too few endpoints answer to determine the right etcd cluster: {which}; more than half of them must \
         answer"
    )
}

/// For a node that runs and whose watch is broken: have all that answer become another cluster's? Twice in a row means
/// yes; once may be a look in the middle of a change.
#[derive(Debug, Default)]
pub(super) struct Looks {
    another: Option<u64>,
}

impl Looks {
    /// Looks once more; the text, once it is certain.
    pub(super) async fn again(&mut self, shared: &Shared) -> Option<String> {
        let pinned = shared.data_dir.lock().await.pin()?.cluster;
        let seen = match judge(Some(pinned), &shared.places.clusters().await) {
            Finding::Another(cluster) => Some(cluster),
            _ => None,
        };
        let before = std::mem::replace(&mut self.another, seen);
        seen.filter(|_| before == seen).map(|cluster| another_store(pinned, cluster))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(clusters: &[Option<u64>]) -> Vec<Belongs> {
        let place = |i| format!("e{i}");
        clusters.iter().enumerate().map(|(i, c)| Belongs { place: place(i), cluster: *c }).collect()
    }

    #[test]
    fn endpoints_of_two_clusters_are_named() {
        for pinned in [None, Some(1)] {
            let Finding::Differ(which) = judge(pinned, &looks(&[Some(1), None, Some(2)])) else { panic!() };
            for part in ["e0 belongs to 0000000000000001", "e1 does not", "e2 belongs to 0000000000000002"] {
                assert!(which.contains(part), "{which}");
            }
        }
    }

    #[test]
    fn a_first_join_needs_most_of_the_endpoints_and_a_later_one_only_its_own_cluster() {
        let two = looks(&[Some(7), None]);
        assert!(matches!(judge(None, &two), Finding::TooFew(_)));
        assert_eq!(judge(Some(7), &two), Finding::Agree(7), "twin");
        assert_eq!(judge(None, &looks(&[Some(7), None, Some(7)])), Finding::Agree(7));
        assert_eq!(judge(None, &looks(&[None, None])), Finding::Silent);
    }

    #[test]
    fn another_cluster_is_one_only_when_most_of_the_endpoints_are_of_it() {
        assert_eq!(judge(Some(1), &looks(&[Some(2)])), Finding::Another(2));
        assert_eq!(judge(Some(1), &looks(&[Some(2), None, Some(2)])), Finding::Another(2));
        assert!(matches!(judge(Some(1), &looks(&[Some(2), None])), Finding::TooFew(_)), "ours may come back");
    }
}
