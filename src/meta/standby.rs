//! A caller's own main loop that is warm before its node leads: what it needs is made on every candidate, and handed to it
//! when it begins.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use tokio::sync::oneshot;

use super::backoff::Backoff;
use crate::clock::Clock;
use crate::driver::leadership::Leadership;
use crate::driver::main_loop::{BoxFuture, MainLoop, MainLoopEnd};
use crate::driver::readiness::Readiness;

/// A node that may lead and does not, for what makes itself warm there.
#[derive(Clone, Debug)]
pub struct StandbyNode {
    pub(crate) node: String,
    pub(crate) cluster: String,
}

/// A main loop, and what is being made for it.
pub struct WarmLoop<W, M> {
    warm: oneshot::Receiver<W>,
    main_loop: M,
}

// === impl StandbyNode ===

impl StandbyNode {
    /// This node's id.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The cluster's name.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }
}

// === impl WarmLoop ===

impl<W: Send + 'static, M> WarmLoop<W, M> {
    /// Begins to make it, on the present runtime.
    pub fn start<F, Fut>(
        warm_up: F,
        main_loop: M,
        candidate: StandbyNode,
        readiness: Readiness,
        clock: Arc<dyn Clock>,
    ) -> Self
    where
        F: Fn(StandbyNode) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = W> + Send + 'static,
    {
        let (made, warm) = oneshot::channel();
        readiness.unready("the standby is not warm", true);
        tokio::spawn(async move {
            let warm = make(warm_up, candidate, &readiness, clock).await;
            let _ = made.send(warm); // nobody waits: the node is ending
            readiness.ready();
        });
        Self { warm, main_loop }
    }
}

impl<W, M, Fut> MainLoop for WarmLoop<W, M>
where
    W: Send + 'static,
    M: FnOnce(Leadership, W) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    fn run(self: Box<Self>, leadership: Leadership) -> BoxFuture<MainLoopEnd> {
        Box::pin(async move {
            leadership.warming_up();
            let warm = tokio::select! {
                warm = self.warm => warm,
                _ = leadership.lost() => return MainLoopEnd::default(),
            };
            let Ok(warm) = warm else { return MainLoopEnd::default() };
            leadership.started().await;
            (self.main_loop)(leadership, warm).await;
            MainLoopEnd { code: Some(0) }
        })
    }

    fn says_when_it_runs(&self) -> bool {
        true
    }
}

/// Until it is made: a panic costs a pause, and no leadership meanwhile.
async fn make<F, Fut, W>(
    warm_up: F,
    candidate: StandbyNode,
    readiness: &Readiness,
    clock: Arc<dyn Clock>,
) -> W
where
    F: Fn(StandbyNode) -> Fut,
    Fut: Future<Output = W>,
{
    let mut backoff = Backoff::new();
    loop {
        let began = clock.now();
        let made = async { warm_up(candidate.clone()).await };
        if let Ok(warm) = AssertUnwindSafe(made).catch_unwind().await {
            return warm;
        }
        readiness.unready("the standby has panicked", false);
        let pause = backoff.after(clock.now().since(began));
        tracing::error!(next_try_in = ?pause, "the standby has panicked; making it again");
        tokio::time::sleep(pause).await;
        readiness.unready("the standby is not warm", true);
    }
}
