//! The values of a node that are computed when somebody looks.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::driver::DriverHandle;
use crate::telemetry::Telemetry;

/// Registers what is read from the driver's snapshot at each look.
pub(super) fn register_computed(telemetry: &Telemetry, driver: &DriverHandle, clock: &Arc<dyn Clock>) {
    let metrics = telemetry.metrics();
    metrics.register_process();
    let (status, now) = (driver.clone(), clock.clone());
    metrics.register_computed(
        "metad_lease_remaining_seconds",
        "How long this node's lease holds for sure",
        move || status.status().holds_until.map_or(0.0, |h| now.now().until(h).as_secs_f64()),
    );
    let age = picture_age(driver, clock);
    metrics.register_computed(
        "metad_picture_age_seconds",
        "Since when the store has not confirmed what this node says about the election",
        move || age().as_secs_f64(),
    );
    metrics.register_members(picture_age(driver, clock));
}

fn picture_age(
    driver: &DriverHandle,
    clock: &Arc<dyn Clock>,
) -> impl Fn() -> Duration + Send + Sync + 'static {
    let (driver, clock) = (driver.clone(), clock.clone());
    move || clock.now().since(driver.status().confirmed_at)
}
