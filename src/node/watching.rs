//! The values of a node that are computed when somebody looks.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::data_dir;
use crate::driver::DriverHandle;
use crate::telemetry::metrics::ViewAge;
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
    telemetry.metrics().register_process();
    let (status, now) = (driver.clone(), clock.clone());
    let holds = move || status.status().holds_until.map_or(Duration::ZERO, |h| now.now().until(h));
    let (status, now) = (driver.clone(), clock.clone());
    let has_leader = move || status.status().known_leader(now.now()).is_some();
    let (driver, clock) = (driver.clone(), clock.clone());
    let view = move || {
        let (status, now) = (driver.status(), clock.now());
        ViewAge { age: now.since(status.confirmed_at), is_outdated: status.is_outdated(now) }
    };
    telemetry.metrics().register_view(holds, has_leader, view);
}
