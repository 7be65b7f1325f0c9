//! Opens what a node stands on: data dir and stores; each failure with its exit code.

use std::sync::Arc;

use super::StartError;
use crate::clock::Clock;
use crate::config::Config;
use crate::data_dir::{DataDir, DataDirError, Folder};
use crate::election::exit::Exit;
use crate::election::history::row::Row;
use crate::journal::tenure_file::TenureFile;
use crate::protocol::join::Pin;
use crate::store::open::{OpenError, OpenStore, open_twice};

/// An open data dir.
pub(super) struct OpenDataDir {
    pub(super) folder: Folder,
    pub(super) data_dir: DataDir,
    pub(super) file: TenureFile,
    /// The last tenure of an earlier start, if the history may not know yet how it ended.
    pub(super) past: Option<Row>,
}

/// Takes the data dir, and reads what its last tenure came to. On a thread of its own: what a dead process has left behind
/// may have to be waited for. With `accept_new_store` both are forgotten: the new store is not told of a tenure in the old
/// one.
pub(super) async fn data_dir(config: &Config, accept_new_store: bool) -> Result<OpenDataDir, StartError> {
    let node = config.node.clone();
    let open = move || {
        let folder = Folder::take(&node.data_dir, &node.id)?;
        let mut data_dir = DataDir::open(&folder, node.data_dir_exclusive)?;
        let file = TenureFile::new(folder.path());
        let past = file.read(data_dir.uuid()).filter(|_| !accept_new_store);
        if accept_new_store {
            data_dir.forget_pin();
            file.forget_past();
        }
        Ok(OpenDataDir { folder, data_dir, file, past })
    };
    let opened = tokio::task::spawn_blocking(open).await;
    let failed = |e| StartError { exit: Exit::Internal, message: format!("cannot open the data dir: {e}") };
    opened.map_err(failed)?.map_err(|e: DataDirError| {
        let exit = match &e {
            DataDirError::InUse { .. } => Exit::InUse,
            DataDirError::Io { .. } | DataDirError::Damaged { .. } => Exit::Io,
            DataDirError::Network { .. } => Exit::Config,
        };
        StartError { exit, message: e.to_string() }
    })
}

/// Opens the store, for the election and for the main loop. Neither takes an answer of another cluster than the one that
/// the data dir knows.
pub(super) async fn stores(
    config: &Config,
    clock: Arc<dyn Clock>,
    pin: Option<Pin>,
) -> Result<[Arc<dyn OpenStore>; 2], StartError> {
    let refused = |e: OpenError| StartError { exit: e.exit(), message: e.to_string() };
    let stores = open_twice(config, clock).await.map_err(refused)?;
    if let Some(pin) = pin {
        stores[0].pin(pin.cluster);
    }
    Ok(stores)
}
