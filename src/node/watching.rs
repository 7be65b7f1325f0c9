//! The values of a node that are computed when somebody looks.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::driver::{DriverHandle, data_dir};
use crate::telemetry::{Event, Telemetry};

/// How often the data dir is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Looks every few seconds whether the data dir is still the one that this node holds, and says it once if it is not.
pub(super) async fn look_at_data_dir(dir: PathBuf, held: Arc<File>, telemetry: Telemetry) {
    let mut was_there = true;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let (path, file) = (dir.clone(), held.clone());
        // On a thread of its own: the disk may hang, and then this waits.
        let look = tokio::task::spawn_blocking(move || data_dir::is_still_there(&file, &path));
        let is_there = look.await.unwrap_or(was_there);
        if was_there && !is_there {
            telemetry.emit(Event::DataDirLost { path: dir.display().to_string() });
        }
        was_there = is_there;
    }
}

/// Registers what is read from the driver's snapshot at each look.
pub(super) fn register_computed(telemetry: &Telemetry, driver: &DriverHandle, clock: &Arc<dyn Clock>) {
    let metrics = telemetry.metrics();
    metrics.register_process();
    let (status, now) = (driver.clone(), clock.clone());
    metrics.register_computed(
        "metad_lease_remaining_seconds",
        "Time for which this node's lease certainly holds",
        move || status.status().holds_until.map_or(0.0, |h| now.now().until(h).as_secs_f64()),
    );
    let age = view_age(driver, clock);
    metrics.register_computed(
        "metad_picture_age_seconds",
        "Time since the store last confirmed this node's view of the election",
        move || age().as_secs_f64(),
    );
    metrics.register_members(view_age(driver, clock));
}

fn view_age(driver: &DriverHandle, clock: &Arc<dyn Clock>) -> impl Fn() -> Duration + Send + Sync + 'static {
    let (driver, clock) = (driver.clone(), clock.clone());
    move || clock.now().since(driver.status().confirmed_at)
}
