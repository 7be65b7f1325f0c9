//! The request queue: where the servers leave requests for the main loop, and where they find the meta store.
//!
//! It is open only while a main loop runs. The servers know nothing else of it, and it knows nothing of them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, oneshot};

use super::barrier::Epoch;
use super::store::MetaStore;
use super::workers::{Change, RegisterError, UnknownWorker, Worker, WorkerId, WorkerSpec};
use crate::driver::leadership::Leadership;
use crate::driver::main_loop::{BoxFuture, MainLoop, MainLoopEnd};
use crate::driver::observer::Observer;
use crate::protocol::writes::WriteError;

/// How many requests may wait for the main loop.
pub(super) const REQUESTS_MAX: usize = 1024;
/// The user's part of the meta store.
const USER_AREA: &str = "user/";

/// The request queue of one node. Clones share it.
#[derive(Clone, Default)]
pub struct RequestQueue {
    inner: Arc<Mutex<Open>>,
}

#[derive(Default)]
struct Open {
    requests: Option<mpsc::Sender<Request>>,
    store: Option<MetaStore>,
}

/// Why a request could not be left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// No main loop runs here that answers such requests.
    #[error("no main loop that handles this request runs here")]
    Closed,
    /// Too many wait already.
    #[error("{REQUESTS_MAX} requests wait for the main loop; try again a little later")]
    Full,
}

/// Why the main loop did not do something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// What the worker says about itself.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// It is not registered.
    #[error(transparent)]
    Unknown(#[from] UnknownWorker),
    /// It could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Where an answer goes. Whoever asked may have gone away.
pub type Reply<T> = oneshot::Sender<T>;

/// What the cluster's main loop can be asked for.
pub enum Request {
    /// A worker registers; answered with its id and the longest silence it may keep.
    Register(WorkerSpec, Reply<Result<(WorkerId, Duration), Refused>>),
    /// A worker's sign of life.
    Heartbeat(WorkerId, Reply<Result<(), UnknownWorker>>),
    /// A worker leaves.
    Deregister(WorkerId, Reply<Result<(), Refused>>),
    /// Who is registered, at most so many after this id?
    List(WorkerId, usize, Reply<Listing>),
    /// Who is registered, and every change from there on.
    Watch(Reply<Watching>),
    /// A worker takes part in barriers from now on. A stream that it had before is cut off.
    OpenStream(WorkerId, Reply<Result<Feed, UnknownWorker>>),
    /// A worker has collected a barrier.
    Collected {
        /// Who.
        worker: WorkerId,
        /// On which stream.
        stream: u64,
        /// What.
        epoch: u64,
    },
    /// The worker's end of a stream is gone.
    CloseStream {
        /// Whose.
        worker: WorkerId,
        /// Which.
        stream: u64,
    },
}

/// Workers, in the order of their ids.
pub struct Listing {
    /// As they are.
    pub workers: Vec<Arc<Worker>>,
    /// Those that nobody waits for.
    pub aside: BTreeSet<WorkerId>,
    /// The version of the registry.
    pub version: u64,
}

/// The workers, and what happens to them.
pub struct Watching {
    /// All of them.
    pub now: Listing,
    /// What changes after it. A reader that falls behind misses some, and is told so.
    pub changes: broadcast::Receiver<Change>,
}

/// A worker's end of its barrier stream.
pub struct Feed {
    /// Tells this stream from the worker's others.
    pub stream: u64,
    /// What it is told.
    pub events: mpsc::Receiver<Told>,
    /// Why there is no more, once there is no more.
    pub cut: Arc<OnceLock<Cut>>,
}

/// What a worker is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Collect this one.
    Barrier(super::barrier::Barrier),
    /// This one is committed.
    Committed {
        /// Which.
        epoch: Epoch,
        /// Is it a checkpoint?
        checkpoint: bool,
    },
    /// This one will never be committed.
    Dropped {
        /// Which.
        epoch: Epoch,
        /// Why.
        why: super::barrier::DropReason,
    },
    /// Nobody waits for this worker any more.
    SetAside {
        /// How many barriers in a row failed because of it.
        failures: u32,
    },
}

/// Why a stream was cut off.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cut {
    /// It does not read what it is told.
    #[error("this worker does not read its barriers; it was cut off so that the others do not wait")]
    Slow,
    /// The same worker has opened another stream.
    #[error("this worker has opened another stream")]
    Superseded,
    /// The worker is not registered any more.
    #[error("this worker is no longer registered: it deregistered, or was silent for too long")]
    Left,
    /// It has ended its own half, as it may.
    #[error("this worker has ended its half of the stream")]
    Ended,
    /// It has reported something that cannot be.
    #[error("invalid report: {0}")]
    BadReport(String),
}

/// A main loop together with the request queue that is open while it runs.
pub struct Served {
    /// What runs.
    pub main_loop: Box<dyn MainLoop>,
    /// Where its store is shown.
    pub requests: RequestQueue,
}

/// Closes the request queue, however the main loop ends.
struct Closing(RequestQueue);

// === impl RequestQueue ===

impl RequestQueue {
    /// Leaves a request for the main loop.
    ///
    /// # Errors
    /// Nobody would take it.
    pub fn leave(&self, request: Request) -> Result<(), QueueError> {
        let requests = self.open().requests.clone().ok_or(QueueError::Closed)?;
        requests.try_send(request).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => QueueError::Full,
            mpsc::error::TrySendError::Closed(_) => QueueError::Closed,
        })
    }

    /// Leaves a request and waits for its answer.
    ///
    /// # Errors
    /// Nobody takes it, or the main loop ends before it has answered: then it may or may not have been done.
    pub async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, QueueError> {
        let (reply, answer) = oneshot::channel();
        self.leave(request(reply))?;
        answer.await.map_err(|_| QueueError::Closed)
    }

    /// The user's part of the meta store, while a main loop runs.
    pub fn store(&self) -> Option<MetaStore> {
        self.open().store.clone()
    }

    pub(super) fn take_requests(&self) -> mpsc::Receiver<Request> {
        let (requests, inbox) = mpsc::channel(REQUESTS_MAX);
        self.open().requests = Some(requests);
        inbox
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        *self.0.open() = Open::default();
    }
}

// === impl Served ===

impl MainLoop for Served {
    fn run(self: Box<Self>, leadership: Leadership) -> BoxFuture<MainLoopEnd> {
        Box::pin(async move {
            let _closing = Closing(self.requests.clone());
            self.requests.open().store = Some(MetaStore::new(leadership.clone(), USER_AREA));
            self.main_loop.run(leadership).await
        })
    }

    fn must_be_waited_for(&self) -> bool {
        self.main_loop.must_be_waited_for()
    }

    fn says_when_it_runs(&self) -> bool {
        self.main_loop.says_when_it_runs()
    }

    fn observer(&self) -> Option<Box<dyn Observer>> {
        self.main_loop.observer()
    }
}
