//! What the driver shows to those who record and explain. It decides nothing by it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::clock::Instant;
use crate::election::elector::Elector;
use crate::election::event::{Action, Event};
use crate::election::history::{Ending, Reason};
use crate::election::lease::Lease;
use crate::election::record::Token;
use crate::election::status::Status;

/// The driver at one moment.
#[derive(Clone, Copy)]
pub struct Moment<'a> {
    /// Now.
    pub now: Instant,
    /// What it knows of the election, and of its own lease.
    pub elector: &'a Elector,
    /// When the store confirmed that for the last time.
    pub confirmed_at: Instant,
}

/// Told of what happens, in its order, on the driver's thread and runtime. A method must return at once: renewals wait
/// for it. By default nothing is done.
pub trait Observer: Send {
    /// The driver runs, and publishes its snapshots here.
    fn began(&mut self, status: &watch::Receiver<Arc<Status>>) {
        let _ = status;
    }

    /// The driver's work is done; it waits for an event, for so long at most.
    fn sleeps(&mut self, now: Instant, at_most: Duration) {
        let _ = (now, at_most);
    }

    /// It goes on: by its timer, or by an event, which the elector has not heard yet.
    fn woke(&mut self, moment: Moment<'_>, by_timer: bool) {
        let _ = (moment, by_timer);
    }

    /// The elector is about to be told this.
    fn hears(&mut self, moment: Moment<'_>, event: &Event) {
        let _ = (moment, event);
    }

    /// The elector has asked for this, which is about to be carried out.
    fn asks(&mut self, moment: Moment<'_>, action: &Action) {
        let _ = (moment, action);
    }

    /// The elector has taken in an event and the time; this was its lease before.
    fn handled(&mut self, moment: Moment<'_>, lease_before: Option<&Lease>) {
        let _ = (moment, lease_before);
    }

    /// A new snapshot was published.
    fn changed(&mut self, now: Instant, old: &Status, new: &Status) {
        let _ = (now, old, new);
    }

    /// This member has joined, and may lead.
    fn joined(&mut self) {}

    /// The leader record is ours.
    fn won(&mut self, moment: Moment<'_>, token: Token) {
        let _ = (moment, token);
    }

    /// The main loop was started.
    fn main_loop_started(&mut self, moment: Moment<'_>) {
        let _ = moment;
    }

    /// The main loop is about to be told to stop.
    fn main_loop_stopping(&mut self, moment: Moment<'_>) {
        let _ = moment;
    }

    /// The main loop was told to stop, for this reason.
    fn main_loop_told(&mut self, moment: Moment<'_>, reason: Reason) {
        let _ = (moment, reason);
    }

    /// The main loop has completely ended. Giving the record up and leaving may take longer.
    fn main_loop_ended(&mut self) {}

    /// This member ends without a word of why. Somebody may know more: the text for a person.
    fn explains(&mut self, moment: Moment<'_>, ending: &Ending) -> Option<String> {
        let _ = (moment, ending);
        None
    }

    /// The process ends at once. What is returned runs on a thread of its own, and has a few milliseconds.
    fn process_ends(&self, ending: &Ending) -> Option<Box<dyn FnOnce() + Send>> {
        let _ = ending;
        None
    }

    /// This member ends: what has to be done before its lease is given back. To be bounded by the observer.
    fn ends(&mut self, ending: &Ending) -> BoxFuture<'static, ()> {
        let _ = ending;
        Box::pin(std::future::ready(()))
    }

    /// The lease is being given back; this is done at the same time, and dropped undone where there is none to give back.
    /// To be bounded by the observer.
    fn leaves(&mut self, ending: &Ending) -> BoxFuture<'static, ()> {
        let _ = ending;
        Box::pin(std::future::ready(()))
    }
}
