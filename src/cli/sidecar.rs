//! `metad guardian`: the guardian beside a container.

use super::args::GuardianArgs;
use super::{Failure, serve, settings};
use crate::election::exit::Exit;
use crate::guardian::sidecar::{self, CannotServe};

/// Runs until a signal ends it. What it still has to revoke then ends with its lease.
pub(super) fn guardian(args: &GuardianArgs) -> Result<i32, Failure> {
    let config = settings::load(&args.settings)?.config;
    if config.store.file().is_some_and(|file| !file.exists()) {
        let message = "metad guardian needs the store of the nodes that it watches\nfix: --etcd-endpoints host:2379,… as they have \
                       them (store.etcd.endpoints)";
        return Err(Failure::new(Exit::Config.code(), message));
    }
    serve::start_log(&config, 0)?;
    let internal = |e: std::io::Error| Failure::new(Exit::Internal.code(), format!("cannot start: {e}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(internal)?;
    let refused = |e: CannotServe| {
        let exit = match &e {
            CannotServe::InUse(_) => Exit::InUse,
            CannotServe::Socket { .. } => Exit::Io,
        };
        Failure::new(exit.code(), e.to_string())
    };
    let done = runtime.block_on(async {
        let kind = tokio::signal::unix::SignalKind::terminate();
        let mut terminate = tokio::signal::unix::signal(kind).map_err(internal)?;
        tokio::select! {
            never = sidecar::serve(config, &args.socket) => match never.map_err(refused)? {},
            _ = terminate.recv() => Ok(0),
            _ = tokio::signal::ctrl_c() => Ok(0),
        }
    });
    runtime.shutdown_background(); // what is still being revoked must not keep us
    done
}
