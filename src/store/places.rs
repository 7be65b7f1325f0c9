//! What a store can tell besides the contract: is it the right one, is it still there, how do its places fare?
//!
//! etcd has several places, its members; a file is one. Where there is nothing to tell, the default says so.

use std::time::Duration;

use async_trait::async_trait;

use super::Request;
use super::probe::Probe;

/// Which cluster a place belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Belongs {
    /// The place, as it was configured.
    pub place: String,
    /// The cluster's id; `None`: it does not say.
    pub cluster: Option<u64>,
}

/// For those who elect: whose answers count, and will there be any?
#[async_trait]
pub trait Places: Send + Sync + 'static {
    /// Takes no answer of another cluster than this one from now on: it counts as none.
    fn pin(&self, cluster: u64) {
        let _ = cluster;
    }

    /// Which cluster each place of this store belongs to, asked for no longer than any other request; once more than half
    /// of them have answered, the others get a moment only. A store that is in one place only has nothing to tell.
    async fn clusters(&self) -> Vec<Belongs> {
        vec![]
    }

    /// Resolves when this store is lost for good, and says how: its file was deleted or replaced. A store that can come
    /// back is never lost.
    async fn until_gone(&self) -> String {
        std::future::pending().await
    }

    /// Looks again, in other ways, at a store that does not answer, and says what is wrong with it. Each of
    /// its places is asked `question`, which must need a quorum, and be allowed. May take a few seconds.
    async fn diagnose(&self, question: &Request) -> String;
}

/// For those who say who was at fault.
#[async_trait]
pub trait Health: Send + Sync + 'static {
    /// The place that answered the slowest lately, or has been silent for the longest, and how long that took. A store
    /// that is in one place only has none.
    fn slowest(&self) -> Option<(String, Duration)> {
        None
    }

    /// Looks at every place of this store by itself, and asks it `question`, which must need a quorum, each for at most
    /// `timeout`. A store that is in one place only has nothing to show.
    async fn probe(&self, question: &Request, timeout: Duration) -> Vec<Probe> {
        let _ = (question, timeout);
        vec![]
    }

    /// What is wrong with the store itself, in words for an operator, if its last write failed. A store that is watched
    /// in other ways has nothing to say.
    fn complaint(&self) -> Option<String> {
        None
    }
}
