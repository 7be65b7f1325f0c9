//! Wires those who record and explain to the driver that they observe.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::Clock;
use crate::diagnosis::monitor::{Monitor, MonitorParts};
use crate::diagnosis::prober::ProbeRound;
use crate::driver::observer::Observer;
use crate::election::history::row::Row;
use crate::election::record::Registration;
use crate::journal::Past;
use crate::journal::recorder::{Recorder, RecorderParts};
use crate::journal::stalls::file::StallLog;
use crate::journal::stalls::recorder::{self as stalls, StallRecorder};
use crate::journal::tenure_file::TenureFile;
use crate::journal::trace::Trace;
use crate::store::codec::Keys;
use crate::store::open::OpenStore;
use crate::telemetry::Telemetry;
use crate::tls::client::Credentials;

/// What every part of a node uses.
#[derive(Clone)]
pub(super) struct Tools {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) telemetry: Telemetry,
    /// What other members are shown.
    pub(super) credentials: Credentials,
}

/// What driver and observers share.
pub(super) struct Watched {
    pub(super) keys: Keys,
    /// For the election, and for the main loop.
    pub(super) stores: [Arc<dyn OpenStore>; 2],
    pub(super) tools: Tools,
}

/// The observers, and what they let the others see.
pub(super) struct Observers {
    pub(super) all: Vec<Box<dyn Observer>>,
    /// The history, as it is read.
    pub(super) past: watch::Receiver<Arc<Past>>,
    /// What the prober has seen last.
    pub(super) looks: watch::Receiver<Arc<ProbeRound>>,
}

impl Watched {
    /// To be called on the main loop's runtime.
    pub(super) fn observers(
        self,
        registration: &Registration,
        file: TenureFile,
        past: Option<Row>,
        trace: Option<Trace>,
        of_main_loop: Vec<Box<dyn Observer>>,
    ) -> Observers {
        let Self { keys, stores: [store, main_store], tools } = self;
        let Tools { clock, telemetry, credentials } = tools;
        let monitor = Monitor::new(MonitorParts {
            health: store.clone(),
            keys: keys.clone(),
            clock: clock.clone(),
            telemetry: telemetry.clone(),
            ttl: registration.ttl,
            credentials,
        });
        let (punctuality, looks) = (monitor.punctuality(), monitor.looks());
        let stalls = stall_recorder(&file, past.as_ref(), registration.ttl, clock.as_ref());
        let (recorder, past) = Recorder::start(RecorderParts {
            keys,
            health: store.clone(),
            store,
            main_store,
            clock,
            telemetry,
            past,
            file,
            address: registration.rpc_address.clone(),
            main_runtime: tokio::runtime::Handle::current(),
            worst_delay: Box::new(move |now| punctuality.worst_delay(now)),
        });
        let mut all: Vec<Box<dyn Observer>> = vec![Box::new(monitor), Box::new(recorder)];
        all.extend(stalls.map(|stalls| Box::new(stalls) as Box<dyn Observer>));
        all.extend(trace.map(|trace| Box::new(trace) as Box<dyn Observer>));
        all.extend(of_main_loop);
        Observers { all, past, looks }
    }
}

/// Without it nothing is recorded; the node does its work all the same.
fn stall_recorder(
    file: &TenureFile,
    past: Option<&Row>,
    ttl: Duration,
    clock: &dyn Clock,
) -> Option<StallRecorder> {
    let log = StallLog::start(file.dir(), stalls::killed(past, ttl));
    let log = log.inspect_err(|e| tracing::warn!(error = %e, "no thread records the stalls of this node"));
    log.ok().map(|log| StallRecorder::new(log, clock.now()))
}
