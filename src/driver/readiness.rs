//! Is this member ready to lead? Whoever knows a reason why not says so here, each for itself: a program that stands by
//! and is not warm yet. The elector hears of all of them as one; what needs nobody to say it (role, probes, lease) is in
//! [`Status`](crate::election::status::Status).

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::election::event::Event;
use crate::election::readiness::Unready;

/// By who says it.
type Reasons = BTreeMap<&'static str, Unready>;

/// Where reasons are said. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<watch::Sender<Reasons>>);

// === impl Readiness ===

impl Readiness {
    /// As far as `source` knows this member is not ready, for this reason; `None`: it is.
    pub fn say(&self, source: &'static str, unready: Option<Unready>) {
        self.0.send_if_modified(|reasons| {
            let before = match unready.clone() {
                Some(unready) => reasons.insert(source, unready),
                None => reasons.remove(source),
            };
            before != unready
        });
    }
}

/// All of them in one: who must not claim for one reason does not claim.
fn all(reasons: &Reasons) -> Option<Unready> {
    let why: Vec<&str> = reasons.values().map(|unready| unready.why.as_str()).collect();
    let claims_last = reasons.values().all(|unready| unready.claims_last);
    (!why.is_empty()).then(|| Unready { why: why.join("; "), claims_last })
}

/// Passes on what is said. What was said before the driver began is heard before all else: no claim may come first.
pub(super) fn follow(
    readiness: &Readiness,
    reports: mpsc::Sender<Event>,
) -> impl Future<Output = ()> + Send + 'static {
    let mut said = readiness.0.subscribe();
    let mut told = all(&said.borrow_and_update());
    if told.is_some() {
        let _ = reports.try_send(Event::Readiness(told.clone())); // the queue is empty: there is room
    }
    async move {
        while said.changed().await.is_ok() {
            let now = all(&said.borrow_and_update());
            if now != told {
                told.clone_from(&now);
                if reports.send(Event::Readiness(now)).await.is_err() {
                    return; // no driver: the process is ending
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unready(why: &str, claims_last: bool) -> Option<Unready> {
        Some(Unready { why: why.into(), claims_last })
    }

    #[tokio::test]
    async fn reasons_come_together_and_the_hardest_one_decides() {
        let (readiness, (reports, mut heard)) = (Readiness::default(), mpsc::channel(8));
        readiness.say("program", unready("cold", true));
        let following = tokio::spawn(follow(&readiness, reports));
        let mut next = async || match heard.recv().await {
            Some(Event::Readiness(unready)) => unready,
            other => panic!("{other:?}"),
        };
        assert_eq!(next().await, unready("cold", true), "said before the driver began");
        readiness.say("disk", unready("hangs", false));
        assert_eq!(next().await, unready("hangs; cold", false));
        readiness.say("program", None);
        assert_eq!(next().await, unready("hangs", false));
        readiness.say("disk", None);
        assert_eq!(next().await, None);
        drop(readiness);
        following.await.expect("it ends");
    }
}
