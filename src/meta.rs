//! The main loop: what a leader does while it leads.
//!
//! It exists only while a [`Leadership`] does, checks it before every effect, and writes only through it. This
//! module must not know how leadership is won.

mod backoff;
pub mod barrier;
pub mod cluster;
pub mod codec;
pub mod deadline_page;
pub mod payload;
pub mod request_queue;
pub mod standby;
pub mod store;
pub mod tick;
pub mod watchdog;
pub mod workers;

use crate::driver::leadership::Leadership;
use crate::driver::main_loop::{BoxFuture, MainLoop, MainLoopEnd};

/// A caller's own asynchronous main loop.
pub struct FnLoop<F>(pub F);

// === impl FnLoop ===

impl<F, Fut> MainLoop for FnLoop<F>
where
    F: FnOnce(Leadership) -> Fut + Send + 'static,
    Fut: Future<Output = MainLoopEnd> + Send + 'static,
{
    fn run(self: Box<Self>, leadership: Leadership) -> BoxFuture<MainLoopEnd> {
        Box::pin((self.0)(leadership))
    }
}
