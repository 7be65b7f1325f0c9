//! A store that is lost for good, such as a deleted file: whoever elects there next does not know of us.

use super::Driver;
use crate::election::event::Event;

impl Driver {
    /// Begins to wait for it, on the present runtime.
    pub(super) fn watch_for_loss(&self) {
        let (places, reports) = (self.parts.places.clone(), self.reports.clone());
        self.parts.tasks.spawn(Box::pin(async move {
            let how = places.until_gone().await;
            let _ = reports.send(Event::StoreChanged(how)).await; // no driver: the process is ending
        }));
    }
}
