//! Where tasks run: on a runtime of the system, or wherever a simulation polls them.

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

/// Runs tasks beside each other, for as long as the process lives.
pub trait Tasks: Send + Sync + 'static {
    /// Begins to run it.
    fn spawn(&self, task: BoxFuture<'static, ()>);

    /// Begins to do work that may block, such as a write with its fsync, so that no task waits for it.
    fn spawn_blocking(&self, work: Box<dyn FnOnce() + Send>);
}

impl Tasks for tokio::runtime::Handle {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        drop(tokio::runtime::Handle::spawn(self, task)); // goes on by itself
    }

    fn spawn_blocking(&self, work: Box<dyn FnOnce() + Send>) {
        drop(tokio::runtime::Handle::spawn_blocking(self, work)); // goes on by itself
    }
}

/// Does work that may block, and waits for its result. `None`: it panicked, or the process is ending.
pub(super) async fn unblock<T: Send + 'static>(
    tasks: &dyn Tasks,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (done, result) = oneshot::channel();
    tasks.spawn_blocking(Box::new(move || {
        let _ = done.send(work()); // whoever asked has stopped waiting
    }));
    result.await.ok()
}
