//! Is this member ready to lead? What stands by to be the main loop says here that it is not warm yet, and the elector
//! hears of it; what needs nobody to say it (role, probes, lease) is in [`Status`](crate::election::status::Status).

use tokio::sync::{mpsc, watch};

use crate::election::event::Event;
use crate::election::readiness::Unready;

/// Where it is said. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Readiness(watch::Sender<Option<Unready>>);

// === impl Readiness ===

impl Readiness {
    /// This member is ready, as far as what stands by is concerned.
    pub fn ready(&self) {
        self.say(None);
    }

    /// It is not, for this reason. `claims_last`: see [`Unready::claims_last`].
    pub fn unready(&self, why: &str, claims_last: bool) {
        self.say(Some(Unready { why: why.to_owned(), claims_last }));
    }

    fn say(&self, unready: Option<Unready>) {
        self.0.send_if_modified(|said| std::mem::replace(said, unready.clone()) != unready);
    }
}

/// Passes on what is said. What was said before the driver began is heard before all else: no claim may come first.
pub(super) fn follow(
    readiness: &Readiness,
    reports: mpsc::Sender<Event>,
) -> impl Future<Output = ()> + Send + 'static {
    let mut said = readiness.0.subscribe();
    let first = said.borrow_and_update().clone();
    if first.is_some() {
        let _ = reports.try_send(Event::Readiness(first)); // the queue is empty: there is room
    }
    async move {
        while said.changed().await.is_ok() {
            let unready = said.borrow_and_update().clone();
            if reports.send(Event::Readiness(unready)).await.is_err() {
                return; // no driver: the process is ending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_said_before_is_heard_first_and_what_has_not_changed_is_not_heard_again() {
        let (readiness, (reports, mut heard)) = (Readiness::default(), mpsc::channel(8));
        readiness.unready("cold", true);
        let following = follow(&readiness, reports);
        let mut next = || match heard.try_recv() {
            Ok(Event::Readiness(unready)) => unready.map(|u| (u.why, u.claims_last)),
            other => panic!("{other:?}"),
        };
        assert_eq!(next(), Some(("cold".to_owned(), true)), "before the future runs");
        let following = tokio::spawn(following);
        readiness.unready("cold", true);
        tokio::task::yield_now().await;
        readiness.ready();
        drop(readiness);
        following.await.expect("it ends");
        assert_eq!(next(), None, "said once, and heard once");
        assert!(heard.recv().await.is_none(), "the first one was not repeated");
    }
}
