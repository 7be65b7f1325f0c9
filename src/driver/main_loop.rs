//! One run of the main loop: from the event before its first action to the event after its last.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::abortable;
use tokio::sync::{mpsc, oneshot, watch};

use super::leadership::{Leadership, Orders};
use super::observer::Observer;
use super::tasks::Tasks;
use crate::election::event::Event;
use crate::election::exit::Exit;
use crate::election::history::Reason;
use crate::telemetry::{self, Telemetry};

/// How long a main loop that must end at once gets to notice; then it is dropped. A payload is killed meanwhile.
const ABORT_GRACE: Duration = Duration::from_millis(50);

/// A future that may move to another thread.
pub type BoxFuture<T> = futures_util::future::BoxFuture<'static, T>;

/// What runs while this node leads. Called at most once in a process's life.
///
/// When [`Leadership::lost`] answers, it should end; when [`Leadership::aborted`] does, it must, and what it
/// started with it. A future that does not end then is dropped at its next await point; one that never awaits
/// is ended with the process, by the fuse.
pub trait MainLoop: Send + 'static {
    /// Runs until it is done, or until leadership is over.
    fn run(self: Box<Self>, leadership: Leadership) -> BoxFuture<MainLoopEnd>;

    /// Does more than a future run, so that dropping the future would not end it? Then it is waited for, and
    /// nothing is given up before.
    fn must_be_waited_for(&self) -> bool {
        false
    }

    /// Does it say itself when it runs, by [`Leadership::started`]? Otherwise it counts as running from its first moment
    /// on. One that does not say so within `start_timeout_secs` gives leadership up.
    fn says_when_it_runs(&self) -> bool {
        false
    }

    /// Who tells it what the driver sees, if it wants to know.
    fn observer(&self) -> Option<Box<dyn Observer>> {
        None
    }
}

/// How a main loop ended.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct MainLoopEnd {
    /// The exit code that the process should end with, if the loop ended by itself.
    pub code: Option<i32>,
}

/// The driver's end of a running main loop.
pub(super) struct Tenure {
    orders: watch::Sender<Orders>,
}

impl Tenure {
    /// Starts the main loop among its own tasks; its end is reported as an event.
    pub(super) fn start(
        main_loop: Box<dyn MainLoop>,
        leadership: impl FnOnce(watch::Receiver<Orders>) -> Leadership,
        tasks: Arc<dyn Tasks>,
        telemetry: Telemetry,
        reports: mpsc::Sender<Event>,
    ) -> Self {
        let orders = watch::Sender::new(Orders::default());
        let leadership = leadership(orders.subscribe());
        let its_tasks = tasks.clone();
        tasks.spawn(Box::pin(async move {
            let end = run(main_loop, leadership, telemetry, its_tasks.as_ref()).await;
            let _ = reports.send(Event::MainLoopEnded(end.code)).await; // no driver: the process is ending
        }));
        Self { orders }
    }

    pub(super) fn stop(&self, reason: Reason) {
        self.orders.send_modify(|o| {
            o.stop.get_or_insert(reason);
        });
    }

    pub(super) fn abort(&self) {
        self.orders.send_modify(|o| o.abort = true);
    }
}

async fn run(
    main_loop: Box<dyn MainLoop>,
    leadership: Leadership,
    telemetry: Telemetry,
    tasks: &dyn Tasks,
) -> MainLoopEnd {
    let token = leadership.token();
    if !main_loop.says_when_it_runs() {
        leadership.started().await;
    }
    let end = match leadership.check() {
        Ok(()) => guarded(main_loop, &leadership, tasks).await,
        Err(_) => MainLoopEnd::default(), // lost before it began: it never begins
    };
    let reason = leadership.check().err().map_or(Reason::MainLoopEnded, |lost| lost.0);
    if leadership.has_started() {
        telemetry.emit(telemetry::Event::MainLoopStopped { token, reason });
    }
    // Before the record is given up, so that nobody sees the next main loop start first. Where it is not, nothing may stand
    // between the end of the main loop and the disarmed fuse: a log that is slow would look like a main loop that hangs.
    if reason.gives_record_up() {
        telemetry.flushed().await;
    }
    end
}

/// Runs the loop in a task of its own, so that a panic of it is an end like any other.
async fn guarded(main_loop: Box<dyn MainLoop>, leadership: &Leadership, tasks: &dyn Tasks) -> MainLoopEnd {
    let droppable = !main_loop.must_be_waited_for();
    let work = AssertUnwindSafe(main_loop.run(leadership.clone())).catch_unwind();
    let (work, drop_it) = abortable(work);
    let (done, mut ended) = oneshot::channel();
    tasks.spawn(Box::pin(async move {
        let end = work.await; // and here it has been dropped
        let _ = done.send(end); // nobody waits: the process is ending
    }));
    let joined = tokio::select! {
        biased;
        joined = &mut ended => joined,
        () = leadership.aborted(), if droppable => match tokio::time::timeout(ABORT_GRACE, &mut ended).await {
            Ok(joined) => joined,
            Err(_) => {
                drop_it.abort();
                ended.await // only when it has been dropped is it over
            }
        },
    };
    match joined {
        Ok(Ok(Ok(end))) => end,
        Ok(Ok(Err(_panic))) => MainLoopEnd { code: Some(Exit::Internal.code()) },
        Ok(Err(_)) | Err(_) => MainLoopEnd::default(),
    }
}
