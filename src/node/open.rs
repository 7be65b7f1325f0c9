//! Opens what a node stands on: data dir and stores; each failure with its exit code.

use std::sync::Arc;

use super::StartError;
use super::exit::Exit;
use crate::clock::Clock;
use crate::config::Config;
use crate::driver::data_dir::{DataDir, DataDirError};
use crate::journal::tenure_file::TenureFile;
use crate::protocol::join::Pin;
use crate::store::Store;
use crate::store::open::{OpenError, open, open_for_election};
use crate::store::sqlite;

type Stores = (Arc<dyn Store>, Arc<dyn Store>);

/// Takes the data dir, and the tenure file in it. On a thread of its own: what a dead process has left behind may have to
/// be waited for. `accept_new_store`: which store it belonged to is forgotten.
pub(super) async fn data_dir(
    config: &Config,
    accept_new_store: bool,
) -> Result<(DataDir, TenureFile), StartError> {
    let node = config.node.clone();
    let open = move || DataDir::open(&node.data_dir, &node.id, node.data_dir_exclusive);
    let opened = tokio::task::spawn_blocking(open).await;
    let failed = |e| StartError { exit: Exit::Internal, message: format!("cannot open the data dir: {e}") };
    let opened = opened.map_err(failed)?.map_err(|e| {
        let exit = match &e {
            DataDirError::InUse { .. } => Exit::InUse,
            DataDirError::Io { .. } | DataDirError::Damaged { .. } => Exit::Io,
            DataDirError::Network { .. } => Exit::Config,
        };
        StartError { exit, message: e.to_string() }
    });
    let mut data_dir = opened?;
    let file = TenureFile::new(data_dir.path());
    if accept_new_store {
        data_dir.forget_pin();
        // The last tenure was in the old store; the history of the new one is not told of it.
        file.forget_past();
    }
    Ok((data_dir, file))
}

/// Opens the store twice: the main loop's writes must not stand in the way of renewals.
/// Neither takes an answer of another cluster than the one that the data dir knows.
pub(super) async fn stores(
    config: &Config,
    clock: Arc<dyn Clock>,
    pin: Option<Pin>,
) -> Result<Stores, StartError> {
    let refused = |e: OpenError| {
        let exit = if matches!(e, OpenError::Sqlite(sqlite::OpenError::Io { .. })) {
            Exit::Io
        } else {
            Exit::Config
        };
        StartError { exit, message: e.to_string() }
    };
    let first = open_for_election(config, clock.clone()).await.map_err(refused)?;
    let second = open(config, clock).await.map_err(refused)?;
    if let Some(pin) = pin {
        first.pin(pin.cluster);
        second.pin(pin.cluster);
    }
    Ok((first, second))
}
