//! Carries out what the elector asks for: questions to the store, renewals, the main loop, the leave-taking.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;

use super::Driver;
use super::leadership::{Leadership, LeadershipParts};
use super::main_loop::Tenure;
use super::slots::Slots;
use crate::data_dir::identities;
use crate::election::event::{ClaimAnswer, Event, RenewAnswer};
use crate::election::exit::Exit;
use crate::election::history::{Ending, Transition};
use crate::election::lease::LeaseId;
use crate::election::record::Token;
use crate::protocol::effects::Question;
use crate::store::Request;
use crate::telemetry;
use crate::telemetry::metrics::RenewalResult;

/// How long revoking our own lease may take when we leave.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

impl Driver {
    pub(super) fn spawn(&self, task: impl Future<Output = Event> + Send + 'static) {
        let reports = self.reports.clone();
        self.parts.tasks.spawn(Box::pin(async move {
            let event = task.await;
            let _ = reports.send(event).await; // no driver: the process is ending
        }));
    }

    /// Ends the process on the spot: a thread of the main loop cannot be ended in any other way. Our guardian then ends
    /// what is left of it and frees the record.
    pub(super) fn end_process(&mut self, ending: &Ending) {
        tracing::error!(reason = %ending.reason, "the main loop does not end; exiting to end it");
        let last_work = self.observers.iter().filter_map(|o| o.process_ends(ending));
        last_work.for_each(|work| self.parts.tasks.spawn_blocking(work));
        self.parts.fuse.end_process(Exit::LeadershipLost.code());
        self.is_over = true;
    }

    pub(super) fn ask(&self, question: Question) {
        let parts = self.parts.clone();
        self.spawn(async move {
            let (purpose, asked_at) = (question.purpose, parts.clock.now());
            let answer = parts.store.call(Request::Txn(question.txn)).await;
            let result = match &answer {
                Ok(_) => {
                    parts.telemetry.store_answered();
                    "ok"
                }
                Err(e) => {
                    parts.telemetry.store_failed(purpose.name(), e);
                    e.kind()
                }
            };
            let took = parts.clock.now().since(asked_at);
            parts.telemetry.metrics().store_asked(purpose.name(), result, took);
            let event = purpose.event(&parts.keys, &answer);
            if let (Event::Claimed { answer: ClaimAnswer::Refused, .. }, Err(e)) = (&event, &answer) {
                parts.telemetry.emit(telemetry::Event::ClaimRefused { error: e.to_string() });
            }
            event
        });
    }

    pub(super) fn renew(&self, lease: LeaseId) {
        let (parts, reports) = (self.parts.clone(), self.reports.clone());
        self.parts.tasks.spawn(Box::pin(async move {
            let metrics = parts.telemetry.metrics();
            let asked_at = parts.clock.now();
            let mut answers = parts.store.renew(lease);
            while let Some(answer) = answers.next().await {
                let renewal = match answer {
                    Ok(renewal) => renewal,
                    Err(e) => {
                        metrics.renewal_ended(RenewalResult::Failed, parts.clock.now().since(asked_at));
                        parts.telemetry.store_failed("renew", &e);
                        continue;
                    }
                };
                let result = renewal.ttl.map_or(RenewalResult::NotFound, |_| RenewalResult::Renewed);
                metrics.renewal_ended(result, parts.clock.now().since(renewal.stamp));
                let answer = renewal.ttl.map_or(RenewAnswer::NotFound, |ttl| RenewAnswer::Alive {
                    ttl,
                    raft_term: renewal.header.raft_term,
                });
                let _ = reports.send(Event::Renewed { lease, stamp: renewal.stamp, answer }).await;
            }
        }));
    }

    pub(super) fn start_main_loop(&mut self, token: Token) {
        let Some(main_loop) = self.main_loop.take() else {
            return; // a process leads at most once; the elector knows that too
        };
        let parts = LeadershipParts {
            token,
            node: self.me().node,
            cluster: self.parts.cluster.clone(),
            keys: self.parts.keys.clone(),
            ttl: self.elector.lease().map_or(self.parts.registration.ttl, |l| l.timing().ttl()),
            store: self.parts.main_store.clone(),
            slots: Slots::new(),
            clock: self.parts.clock.clone(),
            horizon: self.parts.fuse.horizon(),
            signs: self.watchdog.signs(),
            telemetry: self.parts.telemetry.clone(),
            reports: self.reports.clone(),
        };
        let (telemetry, reports) = (self.parts.telemetry.clone(), self.reports.clone());
        let leadership = move |orders| Leadership::new(parts, orders);
        self.tenure =
            Some(Tenure::start(main_loop, leadership, self.parts.main_tasks.clone(), telemetry, reports));
        // After the main loop, which is what everybody waits for.
        self.tell(self.parts.clock.now(), |o, moment| o.main_loop_started(moment));
        let (store, keys) = (self.parts.main_store.clone(), self.parts.keys.clone());
        self.parts.main_tasks.spawn(Box::pin(identities::look_after(store, keys, token)));
    }

    pub(super) fn report(&mut self, transition: Transition) {
        let now = self.parts.clock.now();
        let event = match transition {
            Transition::Joined => {
                self.observers.iter_mut().for_each(|o| o.joined());
                self.begin_watching();
                self.joined_event()
            }
            Transition::Rejoining => Some(telemetry::Event::Rejoining),
            Transition::Won(token) => {
                self.tell(now, |o, moment| o.won(moment, token));
                Some(telemetry::Event::LeadershipWon { token })
            }
            Transition::LeadsOn(token, why) => {
                let measured = self.elector.health().failing().map(|f| f.told(now)).unwrap_or_default();
                Some(telemetry::Event::LeadsOn { token, measured, why })
            }
            Transition::Stopping(token, reason) => {
                self.tell(now, |o, moment| o.main_loop_stopping(moment));
                Some(telemetry::Event::MainLoopStopping { token, reason })
            }
            Transition::Resigned(token) => Some(telemetry::Event::LeadershipResigned { token }),
            Transition::ClaimLost => Some(telemetry::Event::ClaimLost),
            Transition::OutcomeUnknown => Some(telemetry::Event::OutcomeUnknown),
        };
        if let Some(event) = event {
            self.parts.telemetry.emit(event);
        }
    }

    fn joined_event(&mut self) -> Option<telemetry::Event> {
        self.join_until = None;
        let lease = self.elector.lease()?;
        let ttl = lease.timing().ttl();
        self.parts.telemetry.metrics().set_lease_ttl(ttl);
        if ttl != self.parts.registration.ttl {
            let (asked, granted) = (self.parts.registration.ttl, ttl);
            tracing::warn!(
                ?asked,
                ?granted,
                "the store granted a different lease than requested; using the granted one"
            );
        }
        let incarnation = self.me().incarnation.0;
        Some(telemetry::Event::Joined { lease: lease.id(), ttl_secs: ttl.as_secs(), incarnation })
    }

    /// Says goodbye: with our lease, our registration goes, and with it a claim that may still be under way. A
    /// forced step-down touches nothing; there, and where the store does not answer, the guardian frees the record
    /// once we are dead.
    pub(super) async fn leave(&mut self, ending: &Ending) {
        self.parts.fuse.set(None);
        self.remember_for_good().await;
        let before: Vec<_> = self.observers.iter_mut().map(|o| o.ends(ending)).collect();
        join_all(before).await;
        let beside: Vec<_> = self.observers.iter_mut().map(|o| o.leaves(ending)).collect();
        let all_given_back = match self.elector.lease() {
            // A join may be under way, or an older lease may live: the guardian knows them all.
            None => !self.parts.guardian.as_ref().is_some_and(|g| g.knows_a_lease()),
            Some(_) if !ending.reason.gives_record_up() => false,
            Some(lease) => {
                let revoke = self.parts.store.call(Request::Revoke(lease.id()));
                let revoke = tokio::time::timeout(LEAVE_TIMEOUT, revoke);
                let (revoked, _) = tokio::join!(revoke, join_all(beside));
                let revoked = matches!(revoked, Ok(Ok(_)));
                if !revoked {
                    tracing::warn!(lease = %lease.id(), "could not revoke this node's lease; it will expire");
                }
                revoked
            }
        };
        if let Some(guardian) = self.parts.guardian.as_ref().filter(|_| all_given_back) {
            guardian.dismiss();
        }
    }
}
