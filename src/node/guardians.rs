//! Who ends what a dead node leaves behind: the guardian, and the one beside the container.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::StartError;
use crate::config::Config;
use crate::election::exit::Exit;
use crate::guardian::horizon::Horizon;
use crate::guardian::keeper::Keeper;
use crate::guardian::sidecar::SidecarClient;
use crate::guardian::{Both, GuardianPlan, Guardianship, NoGuardian};

/// The guardian; or why there is none, which is said loudly unless the configuration wants it so.
pub(super) async fn keeper(
    config: &Config,
    program: Option<PathBuf>,
    horizon: Arc<Horizon>,
    lock: Arc<File>,
) -> Result<Keeper, NoGuardian> {
    if !config.node.guardian {
        return Err(NoGuardian("node.guardian is false".into()));
    }
    let program = program.ok_or_else(|| NoGuardian("guardian_program is not set".into()))?;
    let plan = GuardianPlan { program, config: config.clone(), lock };
    Keeper::start(plan, horizon).await.inspect_err(|e| tracing::warn!("{e}"))
}

/// Those who revoke our leases when we are dead: inside, and beside the container.
pub(super) fn guardianship(
    keeper: Option<Keeper>,
    config: &Config,
) -> Result<Option<Arc<dyn Guardianship>>, StartError> {
    let Some(socket) = &config.node.guardian_socket else {
        return Ok(keeper.map(|keeper| Arc::new(keeper) as Arc<dyn Guardianship>));
    };
    let ttl = Duration::from_secs(config.meta.meta_leader_lease_secs);
    let sidecar = SidecarClient::start(socket, &config.node.id, ttl)
        .map_err(|e| StartError { exit: Exit::Config, message: e.to_string() })?;
    Ok(Some(match keeper {
        Some(keeper) => Arc::new(Both(keeper, sidecar)),
        None => Arc::new(sidecar),
    }))
}
