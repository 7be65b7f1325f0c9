//! What a node measures beside its work: etcd's members, each by itself, and the values that are computed when
//! somebody looks.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::driver::{DriverHandle, data_dir};
use crate::store::codec::Keys;
use crate::store::{Op, Request, Store, Txn};
use crate::telemetry::{Event, Telemetry};

/// How often each member of etcd is looked at. The election asks the one that answers best, so it does not learn how
/// the others are.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long a look may take; beyond it the member counts as down.
const LOOK_PATIENCE: Duration = Duration::from_secs(2);

/// Looks at each place of the store again and again. It uses the main loop's connections and runtime: the election's
/// thread has better things to do. Ends at once for a store that is in one place only.
pub(super) async fn look_at_store(store: Arc<dyn Store>, keys: Keys, telemetry: Telemetry) {
    let request = Request::Txn(Txn::read(vec![Op::Get(keys.leader())]));
    let mut timer = tokio::time::interval(LOOK_EVERY);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        let looks = store.look_at_each(&request, LOOK_PATIENCE).await;
        if looks.is_empty() {
            return;
        }
        for look in looks {
            telemetry.metrics().endpoint_looked_at(&look.place, look.rtt);
        }
    }
}

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
