//! Watches: each shows what has changed since it showed something last, late, or nothing for a while.

use std::time::Duration;

use metad::election::record::{Revision, Token};
use metad::protocol::transactions;
use metad::store::{KeyRange, Request, Response, StoreError, WatchBatch};
use tokio::sync::mpsc;

use crate::simulation::clock::SEC;
use crate::simulation::network::{Shown, What};
use crate::simulation::world::{Event, World};

/// A watch that is open.
pub struct Watch {
    id: u64,
    h: usize,
    range: KeyRange,
    shown: Revision,
    alive_every: u64,
    batches: mpsc::UnboundedSender<Result<WatchBatch, StoreError>>,
}

impl World {
    /// Opens a watch for what comes after this revision.
    pub fn open_watch(
        &mut self,
        h: usize,
        range: KeyRange,
        after: Revision,
        alive_every: Duration,
    ) -> mpsc::UnboundedReceiver<Result<WatchBatch, StoreError>> {
        let (batches, receiver) = mpsc::unbounded_channel();
        let (id, alive_every) = (self.name(), alive_every.as_nanos() as u64);
        self.watches.push(Watch { id, h, range, shown: after, alive_every, batches });
        self.push(alive_every, Event::Alive(id));
        let trip = self.trip(&What::Other).min(2 * SEC);
        self.push(trip, Event::Show(id));
        receiver
    }

    /// Something may have changed: notes what a view of now shows, and lets every watch show it a little later.
    pub fn tell_watches(&mut self) {
        let known = self.store.shown.last_key_value().map(|(at, _)| *at);
        if known == Some(self.store.state.revision()) {
            return;
        }
        let Some((revision, shown)) = self.shows() else { return };
        if self.store.shown.last_key_value().is_some_and(|(_, last)| *last == shown) {
            self.store.shown.entry(revision).or_insert(shown);
            return;
        }
        self.store.shown.insert(revision, shown);
        let ids: Vec<u64> = self.watches.iter().map(|w| w.id).collect();
        for id in ids {
            let trip = self.trip(&What::Other).min(2 * SEC);
            self.push(trip, Event::Show(id));
        }
    }

    fn shows(&mut self) -> Option<(Revision, Shown)> {
        let (now, read) = (self.store.clock.now(self.now), Request::Txn(transactions::read(&self.keys)));
        let Ok(Response::Txn(reply)) = self.store.state.apply(now, &read) else { return None };
        let view = transactions::watched_keys(&reply).view(&self.keys);
        Some((view.revision, Shown::of(&view)))
    }

    /// A watch shows what is new.
    pub fn show(&mut self, id: u64, is_sign_of_life: bool) {
        let (now, out_until) = (self.now, self.store.out_until);
        let Some(watch) = self.watches.iter_mut().find(|w| w.id == id) else { return };
        let host = &self.hosts[watch.h];
        let deaf = host.silent_until.max(host.cut_until).max(out_until);
        let mut is_open = !watch.batches.is_closed();
        if now >= deaf && is_open {
            match self.store.state.changes(&watch.range, watch.shown) {
                Ok(batch) if batch.changes.is_empty() && !is_sign_of_life => {}
                Ok(batch) => {
                    watch.shown = batch.revision;
                    is_open = watch.batches.send(Ok(batch)).is_ok();
                }
                Err(e) => {
                    let _ = watch.batches.send(Err(e)); // nobody listens any more
                    is_open = false;
                }
            }
        }
        let alive_every = watch.alive_every;
        if !is_open {
            self.watches.retain(|w| w.id != id);
        } else if is_sign_of_life {
            self.push(alive_every, Event::Alive(id));
        }
    }

    /// All watches break: the store is another one.
    pub fn break_watches(&mut self) {
        for watch in self.watches.drain(..) {
            let _ = watch.batches.send(Err(StoreError::Unknown("the connection is gone".into())));
        }
    }
}

impl Shown {
    /// What this view shows.
    pub fn of(view: &metad::election::record::View) -> Self {
        let token: Option<Token> = view.leader.tenure().map(|t| t.token);
        let member = |m: &metad::election::record::Member| (m.registration.member.node.clone(), m.generation);
        Self { token, members: view.members.iter().map(member).collect() }
    }
}
