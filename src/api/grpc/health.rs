//! `grpc.health.v1`: `""` (the process serves), `readiness` (it takes part in the election), `leader` (it leads).

use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::RpcParts;
use crate::election::status::Role;

/// Keeps the reporter in step with the snapshot.
pub(super) async fn follow(reporter: HealthReporter, parts: RpcParts) {
    let mut snapshots = parts.driver.subscribe();
    reporter.set_service_status("", ServingStatus::Serving).await;
    let mut told = None;
    loop {
        let role = snapshots.borrow_and_update().role;
        if told != Some(role) {
            told = Some(role);
            reporter.set_service_status("readiness", serving(role.is_ready())).await;
            reporter.set_service_status("leader", serving(role == Role::Leader)).await;
        }
        if snapshots.changed().await.is_err() {
            return;
        }
    }
}

fn serving(yes: bool) -> ServingStatus {
    if yes { ServingStatus::Serving } else { ServingStatus::NotServing }
}
