//! Do all endpoints belong to one store, and is it ours?
//!
//! The first join pins the store's cluster id, in the data dir and for every later answer. Endpoints of two clusters are
//! two stores, each of which would elect a leader: so nobody joins while they differ. A first join waits until more than
//! half of the endpoints have answered, lest the one stray among them is the only one to answer and is pinned: two nodes
//! with the same endpoints can then not pin two clusters. A node that has joined needs no such care: it is pinned, and
//! a stray is for it an endpoint that does not answer.

use std::collections::BTreeSet;

use super::join::{JoinFailure, another_store};
use crate::store::places::Belongs;

/// What the endpoints say.
#[derive(Debug, PartialEq, Eq)]
enum Agreement {
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

/// For a node that runs and whose watch is broken: have all that answer become another cluster's? Twice in a row means
/// yes; once may be a look in the middle of a change.
#[derive(Debug, Default)]
pub struct Looks {
    another: Option<u64>,
}

/// The cluster whose answers count from now on, for a node that joins; `None`: no endpoint says which it belongs to.
/// `has_joined`: once already, in this process.
///
/// # Errors
/// They are of another store, of several, or too few to tell.
pub fn agree(pinned: Option<u64>, has_joined: bool, looks: &[Belongs]) -> Result<Option<u64>, JoinFailure> {
    match (judge(pinned, looks), pinned) {
        (Agreement::Agree(cluster), _) => Ok(Some(cluster)),
        (Agreement::Differ(_), Some(cluster)) if has_joined => Ok(Some(cluster)),
        (Agreement::Differ(which), _) => Err(JoinFailure::StoreChanged(differ(&which))),
        (Agreement::Another(cluster), pinned) => {
            Err(JoinFailure::StoreChanged(another_store(pinned.unwrap_or(cluster), cluster)))
        }
        (Agreement::TooFew(which), _) => Err(JoinFailure::Retry(too_few(&which))),
        (Agreement::Silent, _) => Ok(None),
    }
}

/// Judges what the endpoints of a store have said.
fn judge(pinned: Option<u64>, looks: &[Belongs]) -> Agreement {
    let answers: Vec<u64> = looks.iter().filter_map(|l| l.cluster).collect();
    let clusters: BTreeSet<u64> = answers.iter().copied().collect();
    let most = answers.len() * 2 > looks.len();
    match (clusters.first(), pinned) {
        (None, _) => Agreement::Silent,
        _ if clusters.len() > 1 => Agreement::Differ(list(looks)),
        (Some(cluster), Some(pinned)) if *cluster == pinned => Agreement::Agree(pinned),
        (Some(cluster), None) if most => Agreement::Agree(*cluster),
        (Some(cluster), Some(_)) if most => Agreement::Another(*cluster),
        _ => Agreement::TooFew(list(looks)),
    }
}

fn list(looks: &[Belongs]) -> String {
    let name = |l: &Belongs| match l.cluster {
        Some(cluster) => format!("{} belongs to {cluster:016x}", l.place),
        None => format!("{} does not report its cluster", l.place),
    };
    looks.iter().map(name).collect::<Vec<_>>().join(", ")
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

// === impl Looks ===

impl Looks {
    /// What one more look has shown; the text, once it is certain.
    pub fn again(&mut self, pinned: u64, looks: &[Belongs]) -> Option<String> {
        let seen = match judge(Some(pinned), looks) {
            Agreement::Another(cluster) => Some(cluster),
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
            let Agreement::Differ(which) = judge(pinned, &looks(&[Some(1), None, Some(2)])) else { panic!() };
            for part in ["e0 belongs to 0000000000000001", "e1 does not", "e2 belongs to 0000000000000002"] {
                assert!(which.contains(part), "{which}");
            }
        }
    }

    #[test]
    fn a_first_join_needs_most_of_the_endpoints_and_a_later_one_only_its_own_cluster() {
        let two = looks(&[Some(7), None]);
        assert!(matches!(judge(None, &two), Agreement::TooFew(_)));
        assert_eq!(judge(Some(7), &two), Agreement::Agree(7), "twin");
        assert_eq!(judge(None, &looks(&[Some(7), None, Some(7)])), Agreement::Agree(7));
        assert_eq!(judge(None, &looks(&[None, None])), Agreement::Silent);
    }

    #[test]
    fn another_cluster_is_one_only_when_most_of_the_endpoints_are_of_it() {
        assert_eq!(judge(Some(1), &looks(&[Some(2)])), Agreement::Another(2));
        assert_eq!(judge(Some(1), &looks(&[Some(2), None, Some(2)])), Agreement::Another(2));
        assert!(
            matches!(judge(Some(1), &looks(&[Some(2), None])), Agreement::TooFew(_)),
            "ours may come back"
        );
    }

    #[test]
    fn a_stray_endpoint_keeps_a_node_from_its_first_join_alone() {
        let two = looks(&[Some(1), Some(2)]);
        assert!(matches!(agree(Some(1), false, &two), Err(JoinFailure::StoreChanged(_))));
        assert_eq!(agree(Some(1), true, &two), Ok(Some(1)), "twin");
        assert_eq!(agree(Some(1), true, &looks(&[None])), Ok(None));
    }

    #[test]
    fn a_store_has_become_another_one_when_two_looks_in_a_row_show_it() {
        let (ours, another, mut seen) = (looks(&[Some(1)]), looks(&[Some(2)]), Looks::default());
        for look in [&another, &ours, &another] {
            assert_eq!(seen.again(1, look), None, "once may be in the middle of a change");
        }
        let how = seen.again(1, &another).expect("it is certain");
        assert!(how.contains("0000000000000002"), "{how}");
    }
}
